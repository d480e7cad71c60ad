//! `run-lm SUBCOMMAND key=value…`: language models in Hugging Face format.

mod chat;
mod config;
mod convert;
mod generate;
mod model;
mod plan;
mod pretrain;
mod quantize_report;
mod score;
mod texts;

use std::{ffi::OsString, io::Write as _, process::ExitCode};

use anyo_core::cli;

pub use self::config::{
    ChatConfig, ConvertConfig, GenerateConfig, PlanConfig, PretrainRunConfig, QuantizeReportConfig, ScoreConfig,
};

/// A subcommand: its word, what it does, an example, and its start.
struct Subcommand {
    word: &'static str,
    name: &'static str,
    about: &'static str,
    examples: &'static [&'static str],
    start: fn(&cli::App) -> ExitCode,
}

const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        word: "generate",
        name: "run-lm-generate",
        about: "Continues a prompt.",
        examples: &[
            "run-lm generate 'prompt=Once upon a time' sampling.greedy=true",
            "run-lm generate model=DIR prompt=…",
        ],
        start: |app| cli::tool(app, generate::run),
    },
    Subcommand {
        word: "chat",
        name: "run-lm-chat",
        about: "Talks with a model; a line on stdin is a turn.",
        examples: &["run-lm chat", "run-lm chat model=DIR 'system=Answer in one sentence.'"],
        start: |app| cli::tool(app, chat::run),
    },
    Subcommand {
        word: "score",
        name: "run-lm-score",
        about: "How likely a model finds each of some continuations of a prompt.",
        examples: &["run-lm score 'prompt=The cat sat on the' 'continuations=[\" mat\", \" moon\"]'"],
        start: |app| cli::tool(app, score::run),
    },
    Subcommand {
        word: "plan",
        name: "run-lm-plan",
        about: "Memory that generating or training takes, before anything is loaded.",
        examples: &[
            "run-lm plan model=DIR dtype=bfloat16 seq_len=2048 batch=4",
            "run-lm plan task=generate limit=8GiB",
        ],
        start: |app| cli::tool(app, plan::run),
    },
    Subcommand {
        word: "pretrain",
        name: "run-lm-pretrain",
        about: "Trains a tokenizer and a small Llama on a text and saves them as a Hugging Face folder.",
        examples: &["run-lm pretrain text=FILE", "run-lm pretrain text=FILE builtin.steps=500 seed=1"],
        start: |app| cli::run(app, pretrain::run),
    },
    Subcommand {
        word: "convert",
        name: "run-lm-convert",
        about: "Makes a Hugging Face folder of a model in the llama2.c format.",
        examples: &["run-lm convert from=stories260K.bin tokenizer=tok512.bin to=models/stories260k"],
        start: |app| cli::tool(app, convert::run),
    },
    Subcommand {
        word: "quantize-report",
        name: "run-lm-quantize-report",
        about: "What int8 or NF4 changes in each linear layer of a model.",
        examples: &["run-lm quantize-report model=DIR quantize=nf4"],
        start: |app| cli::tool(app, quantize_report::run),
    },
];

/// Names of the files under `conf/` that the subcommands read.
pub fn primaries() -> impl Iterator<Item = &'static str> {
    SUBCOMMANDS.iter().map(|sub| sub.name)
}

/// Runs the subcommand that the first word names; exit code 2 when it names none.
pub fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let word = words.nth(1).map(|word| word.to_string_lossy().into_owned());
    let Some(sub) = SUBCOMMANDS.iter().find(|sub| Some(sub.word) == word.as_deref()) else {
        return usage(word.as_deref());
    };
    let app = cli::App {
        name: sub.name,
        about: sub.about,
        examples: sub.examples,
        resumable: &["threads"],
        subcommand: Some(sub.word),
    };
    (sub.start)(&app)
}

fn usage(word: Option<&str>) -> ExitCode {
    let mut text = String::from("run-lm: causal language models in Hugging Face format.\n\n");
    for sub in SUBCOMMANDS {
        text += &format!("  run-lm {:<16} {}\n", sub.word, sub.about);
    }
    text += "\n`run-lm SUBCOMMAND --help` shows its keys.\n";
    match word {
        Some("--help" | "-h") => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Some("--version" | "-V") => {
            let _ = writeln!(std::io::stdout(), "run-lm {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            let error = word.map_or("error: which subcommand?".into(), |w| format!("error: no subcommand `{w}`"));
            let _ = write!(std::io::stderr(), "{error}\n\n{text}");
            ExitCode::from(2)
        }
    }
}

/// Text on stdout, at once.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A line for people on stderr.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
