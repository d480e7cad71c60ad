//! The typed end: one report with full keys, suggestions and origins, the messages of the contract word for word.

use std::{collections::BTreeMap, fs, path::Path};

use chrono::Local;
use serde::{Deserialize, Serialize};

use super::{
    Base, Check, Context, Problem, Request, SearchPath, compose, compose_all, load_saved, reloads, to_yaml, typed,
};
use crate::{Error, log::error_lines, run::RunConfig, tagged};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    student: Student,
    distill: Distill,
    train: Train,
    seed: u64,
    teacher_run: String,
    extra: BTreeMap<String, f64>,
    run: RunConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Train {
    epochs: u32,
    batch_size: usize,
    verbose: bool,
    clip: Option<f64>,
    betas: (f64, f64),
    ks: Vec<usize>,
    mode: Mode,
    #[serde(default)]
    added_later: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Fast,
    Exact,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Distill {
    lambda_d: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum Student {
    Sasrec(Sasrec),
    Popularity,
}
tagged!(Student, "name", { "sasrec" => Sasrec(Sasrec), "popularity" => Popularity });

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sasrec {
    max_len: usize,
    optim: Optim,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Optim {
    Adam(Adam),
    Sgd(Sgd),
}
tagged!(Optim, "kind", { "adam" => Adam(Adam), "sgd" => Sgd(Sgd) });

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adam {
    lr: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sgd {
    lr: f64,
    momentum: f64,
}

impl Check for Config {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.train.batch_size == 0 {
            problems.push(Problem::new("train.batch_size", "must be at least 1, got 0"));
        }
        if let Some(clip) = self.train.clip.filter(|c| *c <= 0.0) {
            problems.push(Problem::new("clip", format!("must be above 0, got {clip}")).under("train"));
        }
        if self.train.mode == Mode::Exact && self.train.verbose {
            problems.push(Problem::new("train.mode", "exact cannot be verbose"));
        }
        // Depends on two values: must not be told when one of them is a stand-in.
        if u64::from(self.train.epochs) > self.seed {
            problems.push(Problem::new("train.epochs", format!("must not be above the seed, {}", self.seed)));
        }
        problems
    }
}

const PRIMARY: &str = "defaults: [{student: sasrec}, {distill: dllm2rec}, _self_]
train:
  epochs: 5
  batch_size: 128
  verbose: false
  clip: null
  betas: [0.9, 0.999]
  ks: [1, 10]
  mode: fast
seed: 42
teacher_run: latest
extra: {a: 1}
run: {dir: \"result/result_${now}\"}
";

fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, SearchPath) {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("conf");
    let standard = [
        ("run-distill.yaml", PRIMARY),
        ("student/sasrec.yaml", "name: sasrec\nmax_len: 50\noptim: {kind: adam, lr: 0.001}\n"),
        ("student/popularity.yaml", "name: popularity\n"),
        ("distill/dllm2rec.yaml", "lambda_d: 0.7\n"),
        ("dataset/toy.yaml", "{}\n"),
    ];
    for (name, text) in standard.iter().chain(files) {
        let path = conf.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (dir, SearchPath::new([conf]))
}

fn load(search: &SearchPath, words: &[&str], base: Option<Base<'_>>) -> Result<Config, Error> {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let context = Context { now: Local::now(), env: &|_| None };
    let examples = &["run-distill teacher_run=result/result_20260801_101500"];
    let (app, primary) = ("run-distill", "run-distill");
    let request = Request { app, examples, primary, search, words: &words, base, forced: vec![], context };
    Ok(typed(&compose(&request)?)?)
}

/// What the user reads.
fn told(words: &[&str], files: &[(&str, &str)]) -> String {
    let (_dir, search) = project(files);
    match load(&search, words, None) {
        Ok(config) => format!("{config:?}"),
        Err(error) => error_lines(&error).trim_end().to_owned(),
    }
}

#[test]
fn a_good_configuration_is_typed_and_reloads() {
    let (dir, search) = project(&[]);
    let config =
        load(&search, &["distill.lambda_d=1", "train.clip=0.5", "+extra.b=2", "train.mode=exact"], None).unwrap();
    assert_eq!(config.distill.lambda_d, 1.0);
    assert_eq!(config.extra, BTreeMap::from([("a".into(), 1.0), ("b".into(), 2.0)]));
    assert_eq!((config.train.clip, &config.train.mode, config.train.betas), (Some(0.5), &Mode::Exact, (0.9, 0.999)));
    assert_eq!(reloads(&config), Ok(()));
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.yaml"), to_yaml(&config).unwrap()).unwrap();
    assert_eq!(load_saved::<Config>(&run).unwrap(), config);
}

#[test]
fn values_that_yaml_could_misread_reload() {
    let (_dir, search) = project(&[]);
    for text in
        ["'007'", "'1e3'", "yes", "'null'", "'a: b'", "'# x'", "\"it's\"", "' x '", "*a", "日本", "'\\${seed}'", "''"]
    {
        let config = load(&search, &[&format!("teacher_run={text}")], None).unwrap();
        assert_eq!(reloads(&config), Ok(()), "{text}");
    }
    for number in ["1e-300", "inf", "0.1", "1e22", "-0.0"] {
        let config = load(&search, &[&format!("+extra.b={number}")], None).unwrap();
        assert_eq!(reloads(&config), Ok(()), "{number}");
    }
}

#[test]
fn messages() {
    let rows: &[(&[&str], &str)] = &[
        (
            &["distill.lambda_d=0.5", "train.epoch=3"],
            "error: unknown key `train.epoch` (override 2: `train.epoch=3`)\n  hint: did you mean `train.epochs`?",
        ),
        (
            &["+train.epoch=3"],
            "error: unknown key `train.epoch` (override 1: `+train.epoch=3`)\n  hint: did you mean `train.epochs`?",
        ),
        // A range problem at a key with named choices, which was read well.
        (
            &["train.mode=exact", "train.verbose=true"],
            "error: train.mode: exact cannot be verbose (override 1: `train.mode=exact`)",
        ),
        (&["epochs=3"], "error: unknown key `epochs` (override 1: `epochs=3`)\n  hint: did you mean `train.epochs`?"),
        (
            &["trian.epochs=3"],
            "error: unknown key `trian.epochs` (override 1: `trian.epochs=3`)\n  hint: did you mean `train.epochs`?",
        ),
        (
            &["studnet=sasrec"],
            "error: unknown key `studnet` (override 1: `studnet=sasrec`)\n  hint: did you mean `student`?",
        ),
        // An unknown key inside tagged structs, two levels down.
        (
            &["student.optim.rl=3"],
            "error: unknown key `student.optim.rl` (override 1: `student.optim.rl=3`)\n  hint: did you mean `student.optim.lr`?",
        ),
        (
            &["student.max_length=3"],
            "error: unknown key `student.max_length` (override 1: `student.max_length=3`)\n  hint: did you mean `student.max_len`?",
        ),
        (
            &["train.zzzzzz=3"],
            "error: unknown key `train.zzzzzz` (override 1: `train.zzzzzz=3`)\n  hint: keys of `train`: added_later, batch_size, betas, clip, epochs, ks, mode, verbose",
        ),
        // Types.
        (
            &["student.optim.lr=fast"],
            "error: student.optim.lr: expected a number, got \"fast\" (override 1: `student.optim.lr=fast`)",
        ),
        (
            &["train.epochs=1.5"],
            "error: train.epochs: expected a whole number, got 1.5 (override 1: `train.epochs=1.5`)",
        ),
        (
            &["train.epochs=true"],
            "error: train.epochs: expected a whole number, got true (override 1: `train.epochs=true`)",
        ),
        (
            &["train.epochs=-1"],
            "error: train.epochs: expected a whole number from 0 to 4294967295, got -1 (override 1: `train.epochs=-1`)",
        ),
        (&["train.verbose=1"], "error: train.verbose: expected true or false, got 1 (override 1: `train.verbose=1`)"),
        (
            &["train.mode=fasst"],
            "error: train.mode: expected one of fast, exact, got \"fasst\" (override 1: `train.mode=fasst`)\n  hint: did you mean `fast`?",
        ),
        (&["train.betas=[1]"], "error: train.betas: expected a list of 2, got [1] (override 1: `train.betas=[1]`)"),
        (&["train.ks=10"], "error: train.ks: expected a list, got 10 (override 1: `train.ks=10`)"),
        (&["train.ks=[1,x]"], "error: train.ks.1: expected a whole number, got \"x\" (override 1: `train.ks=[1,x]`)"),
        (&["train.epochs="], "error: train.epochs: expected a whole number, got \"\" (override 1: `train.epochs=`)"),
        (
            &["teacher_run=5"],
            "error: teacher_run: expected text, got 5 (override 1: `teacher_run=5`)\n  hint: text in quotes: teacher_run='\"5\"' on the \
             command line, \"5\" in YAML",
        ),
        (
            &["distill=dllm2rec", "student.optim=null"],
            "error: student.optim: expected keys with `kind`, one of adam, sgd, got null (override 2: `student.optim=null`)",
        ),
        (
            &["student.name=sasrek"],
            "error: student.name: expected one of sasrec, popularity, got \"sasrek\" (override 1: `student.name=sasrek`)\n  hint: did you \
             mean `sasrec`?",
        ),
        (&["~student.name"], "error: student.name: this key is missing (from conf/student/sasrec.yaml)"),
        (&["~student.optim.lr"], "error: student.optim.lr: this key is missing (from conf/student/sasrec.yaml)"),
        // Another variant: its keys are wanted, those of the first are unknown.
        (
            &["student.optim.kind=sgd"],
            "error: student.optim.momentum: this key is missing (override 1: `student.optim.kind=sgd`)",
        ),
        (
            &["student.name=popularity"],
            "error: unknown key `student.max_len` (from conf/student/sasrec.yaml)\n  hint: keys of `student`: name\n\
             error: unknown key `student.optim` (from conf/student/sasrec.yaml)\n  hint: keys of `student`: name",
        ),
        // Open maps take new keys only with +.
        (
            &["extra.b=2"],
            "error: unknown key `extra.b` (override 1: `extra.b=2`)\n  hint: did you mean `extra.a`? to add it write +extra.b=2",
        ),
        (
            &["extra.something=2"],
            "error: unknown key `extra.something` (override 1: `extra.something=2`)\n  hint: to add it write +extra.something=2",
        ),
        (&["extra.a=x"], "error: extra.a: expected a number, got \"x\" (override 1: `extra.a=x`)"),
        // Ranges.
        (
            &["train.batch_size=0"],
            "error: train.batch_size: must be at least 1, got 0 (override 1: `train.batch_size=0`)",
        ),
        (&["train.clip=-1"], "error: train.clip: must be above 0, got -1 (override 1: `train.clip=-1`)"),
        (&["seed=1"], "error: train.epochs: must not be above the seed, 1 (from conf/run-distill.yaml)"),
        // Missing.
        (
            &["teacher_run=???"],
            "error: 1 value must be given: teacher_run\n  hint: run-distill teacher_run=result/result_20260801_101500",
        ),
        // Everything together, in one report.
        (
            &[
                "train.epoch=3",
                "student.optim.lr=fast",
                "train.verbose=2",
                "train.batch_size=0",
                "seed=???",
                "teacher_run=???",
            ],
            "error: unknown key `train.epoch` (override 1: `train.epoch=3`)\n  hint: did you mean `train.epochs`?\n\
             error: student.optim.lr: expected a number, got \"fast\" (override 2: `student.optim.lr=fast`)\n\
             error: train.verbose: expected true or false, got 2 (override 3: `train.verbose=2`)\n\
             error: 2 values must be given: seed, teacher_run\n  hint: run-distill seed=VALUE teacher_run=result/result_20260801_101500\n\
             error: train.batch_size: must be at least 1, got 0 (override 4: `train.batch_size=0`)",
        ),
    ];
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split("error: ").map(|p| p.trim_end().to_owned()).collect();
        parts.sort();
        parts
    };
    let wrong: Vec<String> = rows
        .iter()
        .map(|(words, wanted)| (words, told(words, &[]), wanted))
        .filter(|(_, got, wanted)| sorted(got) != sorted(wanted))
        .map(|(words, got, wanted)| format!("{words:?}\n  got:    {got}\n  wanted: {wanted}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn problems_in_files_name_the_file() {
    let files = [
        ("student/bad.yaml", "name: sasrec\nmax_len: 50\ndropout: 0.5\noptim: {kind: adam, lr: fast}\n"),
        ("distill/bad.yaml", "lamda_d: 0.7\n"),
    ];
    let text = told(&["student=bad", "distill=bad"], &files);
    for line in [
        "error: student.optim.lr: expected a number, got \"fast\" (from conf/student/bad.yaml)",
        "error: unknown key `student.dropout` (from conf/student/bad.yaml)",
        "error: unknown key `distill.lamda_d` (from conf/distill/bad.yaml)\n  hint: did you mean `distill.lambda_d`?",
        "error: distill.lambda_d: this key is missing (from conf/distill/bad.yaml)",
    ] {
        assert!(text.contains(line), "{line}\n---\n{text}");
    }
}

#[test]
fn a_field_with_a_default_may_be_set_although_no_file_has_it() {
    let (_dir, search) = project(&[]);
    assert_eq!(load(&search, &["train.added_later=3"], None).unwrap().train.added_later, 3);
}

#[test]
fn tagged_enums_work_in_other_formats() {
    let text = r#"{"name":"sasrec","max_len":50,"optim":{"kind":"sgd","lr":1,"momentum":0.9}}"#;
    let student: Student = serde_json::from_str(text).unwrap();
    assert_eq!(student, Student::Sasrec(Sasrec { max_len: 50, optim: Optim::Sgd(Sgd { lr: 1.0, momentum: 0.9 }) }));
    assert_eq!(serde_json::from_str::<Student>(&serde_json::to_string(&student).unwrap()).unwrap(), student);
    assert_eq!(serde_json::from_str::<Student>(r#"{"name":"popularity"}"#).unwrap(), Student::Popularity);
    for (text, wanted) in [
        (
            r#"{"name":"sasrec","max_len":50,"optim":{"kind":"adam","lr":"fast"}}"#,
            "optim.lr: expected a number, got \"fast\"",
        ),
        (r#"{"name":"sasrec","max_len":50,"optim":{"kind":"adam","lr":1,"x":2}}"#, "unknown key `optim.x`"),
        (r#"{"name":"popularity","x":2}"#, "unknown key `x`"),
        (r#"{"max_len":50}"#, "name: this key is missing"),
        (r#"{"name":"sasrec","max_len":50}"#, "optim: this key is missing"),
        (r#"{"name":"x"}"#, "name: expected one of sasrec, popularity, got \"x\""),
    ] {
        let error = serde_json::from_str::<Student>(text).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{text}: {error}");
    }
}

fn saved_run(dir: &Path, search: &SearchPath, words: &[&str]) -> std::path::PathBuf {
    let run = dir.join("run");
    fs::create_dir(&run).unwrap();
    let mut config = load(search, words, None).unwrap();
    config.run.dir = run.clone();
    fs::write(run.join("config.yaml"), to_yaml(&config).unwrap()).unwrap();
    run
}

#[test]
fn from_repeats_a_run_with_changes() {
    let (dir, search) = project(&[]);
    let run = saved_run(dir.path(), &search, &["train.epochs=7", "seed=43", "teacher_run='\\${x}'"]);
    let base = Some(Base { run: &run, resume: None });
    let config = load(&search, &["seed=9"], base).unwrap();
    // Values of the run, the change, a folder of its own, and a saved `${` that stays text.
    assert_eq!((config.train.epochs, config.seed, config.teacher_run.as_str()), (7, 9, "${x}"));
    assert!(config.run.dir.to_str().unwrap().starts_with("result/result_2"), "{:?}", config.run.dir);
    // C3 holds for a saved run too: nothing of sasrec is left.
    let config = load(&search, &["student=popularity", "seed=8"], base).unwrap();
    assert_eq!(config.student, Student::Popularity);
    assert_eq!(config.train.epochs, 7);
    let error = load(&search, &["train.epoch=1"], base).unwrap_err();
    assert!(error_lines(&error).contains("did you mean `train.epochs`?"));
    let error = load(&search, &["student=nothing"], base).unwrap_err();
    assert!(
        error_lines(&error).contains("student: no option `nothing` in conf/student/; available: popularity, sasrec")
    );
}

#[test]
fn resume_refuses_changes_but_those_the_app_allows() {
    let (dir, search) = project(&[]);
    let run = saved_run(dir.path(), &search, &[]);
    let resume: &[&str] = &["train.epochs", "extra"];
    let base = Some(Base { run: &run, resume: Some(resume) });
    let config = load(&search, &["train.epochs=9", "extra.a=2"], base).unwrap();
    assert_eq!((config.train.epochs, config.extra["a"]), (9, 2.0));
    assert_eq!(config.run.dir, run);
    for word in ["seed=1", "student=popularity", "~extra.a", "train.epochs_x=1"] {
        let text = error_lines(&load(&search, &[word], base).unwrap_err());
        let key = word.trim_start_matches('~').split('=').next().unwrap();
        assert!(
            text.starts_with(&format!("error: `{key}` cannot change when a run is continued (override 1: `{word}`)")),
            "{text}"
        );
        assert!(
            text.contains("hint: --resume may change train.epochs, extra; to start anew with changes write --from "),
            "{text}"
        );
    }
}

#[test]
fn compose_all_finds_stale_files() {
    let (_dir, search) = project(&[]);
    assert_eq!(compose_all::<Config>(&search, "run-distill", &[]).unwrap(), 1 + 2 + 1);
    let (_dir, search) = project(&[("student/stale.yaml", "name: sasrec\nmax_len: 1\n")]);
    let error = compose_all::<Config>(&search, "run-distill", &[]).unwrap_err().to_string();
    assert!(error.starts_with("run-distill student=stale: student.optim: this key is missing"), "{error}");
    let (_dir, search) =
        project(&[("experiment/e.yaml", "# @package _global_\n# app: run-distill\ntrain: {epochz: 1}\n")]);
    let error = compose_all::<Config>(&search, "run-distill", &[]).unwrap_err().to_string();
    assert!(error.starts_with("run-distill +experiment=e: unknown key `train.epochz`"), "{error}");
}
