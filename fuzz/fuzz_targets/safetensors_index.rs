//! See `anyo_lm::fuzz::safetensors_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anyo_lm::fuzz::safetensors_index(bytes));
