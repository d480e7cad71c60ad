//! `run-lm` as a person calls it: real weights in the llama2.c format, a model trained in place, mistakes.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn run(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_run-lm"))
        .args(args)
        .current_dir(folder)
        .env("ANYO_CONF", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf"))
        .env("OMP_WAIT_POLICY", "passive")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends before it reads has closed the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn stories() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/lm-stories260k");
    if !path.is_dir() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(fs::canonicalize(path).unwrap())
}

#[test]
fn real_weights_are_converted_and_tell_the_reference_story() {
    let Some(data) = stories() else { return };
    let folder = tempfile::tempdir().unwrap();
    let from = format!("from={}", data.join("stories260K.bin").display());
    let tokenizer = format!("tokenizer={}", data.join("tok512.bin").display());
    let done = run(folder.path(), &["convert", &from, &tokenizer, "to=stories"], "");
    assert!(done.status.success(), "{}", text(&done.stderr));

    let reference: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(data.join("reference_greedy.json")).unwrap()).unwrap();
    let story = reference["greedy_text"].as_str().unwrap().trim_start();
    let start: String = story.chars().take(60).collect();
    let prompt = format!("prompt={:?}", start.split(' ').take(4).collect::<Vec<_>>().join(" "));
    let greedy =
        ["generate", "model=stories", &prompt, "sampling.greedy=true", "sampling.max_new_tokens=40", "threads=1"];
    let told = run(folder.path(), &greedy, "");
    assert!(text(&told.stdout).starts_with(&start), "{}{}", text(&told.stdout), text(&told.stderr));

    let scores = run(
        folder.path(),
        &["score", "model=stories", "prompt=Once upon a", "continuations=[time, moon]", "threads=1"],
        "",
    );
    let scores = text(&scores.stdout);
    let best = scores.lines().find(|line| line.starts_with('*')).unwrap();
    assert!(best.ends_with("time"), "{scores}");

    let report =
        run(folder.path(), &["quantize-report", "model=stories", "quantize=nf4", "json=true", "threads=1"], "");
    let rows: Vec<serde_json::Value> = text(&report.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 5 * 7);
    assert!(rows.iter().all(|row| (0.01..0.2).contains(&row["relative_rmse"].as_f64().unwrap())));

    let plan = run(folder.path(), &["plan", "model=stories", "seq_len=256", "limit=1MB"], "");
    let told = text(&plan.stderr);
    assert_eq!(plan.status.code(), Some(2));
    assert!(told.contains("the limit is") && told.contains("1000000 bytes"), "{told}");
}

#[test]
fn a_model_is_trained_once_and_then_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let words = "the cat sat on the mat and the dog sat on the log. ".repeat(60);
    fs::write(folder.path().join("text.txt"), words).unwrap();
    let small = [
        "pretrain",
        "text=text.txt",
        "builtin.vocab_size=280",
        "builtin.d_model=32",
        "builtin.n_layers=1",
        "builtin.seq_len=32",
        "builtin.batch=4",
        "builtin.steps=60",
        "cache=models",
        "threads=1",
    ];
    let first = run(folder.path(), &small, "");
    assert!(first.status.success(), "{}", text(&first.stderr));
    let model = text(&first.stdout).trim().rsplit(' ').next().unwrap().to_owned();
    let again = run(folder.path(), &small, "");
    assert!(text(&again.stdout).contains("was there already"), "{}", text(&again.stdout));
    let runs: Vec<PathBuf> = fs::read_dir(folder.path().join("result")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(runs.len(), 2, "each call has a run folder of its own");
    assert!(
        runs.iter().any(|run| fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().contains("train/loss"))
    );

    let model = format!("model={model}");
    let chat = ["chat", &model, "sampling.greedy=true", "sampling.max_new_tokens=5", "threads=1"];
    let chat = run(folder.path(), &chat, "the cat\n");
    assert!(chat.status.success(), "{}", text(&chat.stderr));
    assert!(text(&chat.stdout).ends_with('\n'));
}

#[test]
fn mistakes_are_one_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::create_dir(folder.path().join("other")).unwrap();
    fs::write(
        folder.path().join("other/config.json"),
        r#"{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}"#,
    )
    .unwrap();
    for (args, code, wanted) in [
        (&["sing"][..], 2, "no subcommand `sing`"),
        (&[], 2, "which subcommand?"),
        (&["generate", "model=empty", "prompt=x"], 1, "no config.json"),
        (&["generate", "model=other", "prompt=x"], 1, "GPT2LMHeadModel"),
        (&["generate", "modle=empty", "prompt=x"], 2, "did you mean `model`?"),
        (&["generate", "prompt=x", "sampling.top_p=1.5"], 2, "sampling.top_p"),
        (&["generate", "prompt=x", "sampling.max_new_tokens=0"], 2, "sampling.max_new_tokens"),
        (&["score", "prompt=x", "continuations=[]"], 2, "continuations"),
        (&["quantize-report", "quantize=none"], 2, "wanted int8 or nf4"),
        (&["plan", "model=empty", "limit=lots"], 2, "no amount of memory"),
        (&["pretrain", "builtin.n_heads=3"], 2, "builtin.d_model"),
        (&["pretrain", "text=nowhere.txt"], 1, "nowhere.txt"),
        (&["generate", "-m", "prompt=x"], 2, "keeps no runs"),
    ] {
        let output = run(folder.path(), args, "");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(wanted) && !told.contains("panicked"), "{args:?}: {told}");
    }
}
