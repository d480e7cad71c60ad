//! See `anyo_lm::fuzz::llama2c_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anyo_lm::fuzz::llama2c_header(bytes));
