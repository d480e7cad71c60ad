//! Text and generation: tokenizers, chat templates, sampling, streaming, scoring. Expected values come from
//! `transformers` (the fixtures' `make.py`), from hand computation, or from a plain loop without cache.

mod chat;
mod common;
mod generate;
mod sampler;
mod score;
mod streaming;
mod tokenizer;
