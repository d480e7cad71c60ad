//! Text and generation: tokenizers, chat templates, sampling, streaming, scoring. Expected values come from
//! `transformers` (the fixtures' `make.py`), from hand computation, or from a plain loop without cache.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: helpers outside of #[test] functions too")]

mod chat;
mod common;
mod generate;
mod injected;
mod sampler;
mod score;
mod streaming;
mod tokenizer;
