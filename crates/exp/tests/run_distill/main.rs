//! `run-distill` as a real process in a folder of its own: from a student's exported bundle to a run that everything else
//! can read, and every bundle that must not teach.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod bad_bundles;
#[path = "../run_student_baseline/project.rs"]
#[allow(dead_code, reason = "shared with another test, which uses all of it")]
mod project;

use std::process::{Child, Command};

use anyo_core::bundle::Bundle;
use project::{Project, SMALL, Said, said, wait_for};

const DISTILL: &str = env!("CARGO_BIN_EXE_run-distill");
const EXPORT: &str = env!("CARGO_BIN_EXE_export-bundle");
const RECOMMEND: &str = env!("CARGO_BIN_EXE_recommend");

fn start(project: &Project, program: &str, words: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(words);
    project.settle(command).spawn().unwrap()
}

fn run(project: &Project, program: &str, words: &[&str]) -> Said {
    said(start(project, program, words))
}

/// A project with a small trained student in `result/student` and its bundle in `result/bundle`.
fn with_bundle() -> Project {
    let project = Project::new();
    let cache = format!("data.cache={}", project.at("cache").display());
    project.run(&[SMALL, &["run.dir=result/student", &cache]].concat()).done();
    run(&project, EXPORT, &["result/student", "threads=1", "run.dir=result/bundle"]).done();
    project
}

/// A distilled run with [`SMALL`] before the words.
fn distill(project: &Project, words: &[&str]) -> Said {
    let cache = format!("data.cache={}", project.at("cache").display());
    run(project, DISTILL, &[SMALL, &[cache.as_str()], words].concat())
}

#[test]
fn from_bundle_to_a_run_like_any_other() {
    let project = with_bundle();
    let told = distill(&project, &["run.dir=result/d", "train.log_every=1"]).done();
    assert!(told.err.contains("training targets have a list (0 have none"), "{}", told.err);
    let mut files = project.files("result/d");
    files.retain(|file| !file.starts_with("tb/") && !file.starts_with("checkpoints/"));
    let mut plain = project.files("result/student");
    plain.retain(|file| !file.starts_with("tb/") && !file.starts_with("checkpoints/"));
    plain.push("teacher.json".into());
    plain.sort();
    assert_eq!(files, plain);
    let (time, teacher) = (project.json("result/d/metrics/time.json"), project.json("result/d/teacher.json"));
    assert!(time["distill_student_train_time"].as_f64().unwrap() > 0.0);
    assert_eq!((teacher["name"].as_str(), teacher["rankings"].as_bool()), (Some("sasrec"), Some(true)));
    let record = project.read("result/d/run.yaml");
    for key in ["manifest_sha256", "labelled", "missing: 0", "mean_confidence_entropy"] {
        assert!(record.contains(key), "{key} in {record}");
    }
    let metrics = project.read("result/d/metrics.jsonl");
    for key in
        ["train/loss_base", "train/loss_rd", "distill/overlap", "distill/confidence_entropy", "distill/row_weight"]
    {
        assert!(metrics.contains(key), "{key}");
    }
    // `latest` found that bundle; what reads a student's run reads this one.
    let shown = run(&project, RECOMMEND, &["1030", "1119", "--run", "result/d", "-k", "3"]).done();
    assert!(shown.out.contains("the top 3"), "{}", shown.out);
    run(&project, EXPORT, &["result/d", "threads=1", "run.dir=result/second"]).done();
    let second = Bundle::open(&project.at("result/second/bundle"), None).unwrap();
    assert_eq!(second.manifest().teacher.config["student"]["name"], "sasrec");
    run(&project, EXPORT, &["latest", "threads=1", "run.dir=result/third"]).done();
}

#[test]
fn nothing_distilled_is_the_plain_run() {
    let project = with_bundle();
    distill(&project, &["run.dir=result/d", "distill=none", "teacher_run=nowhere"]).done();
    for file in ["models/student.safetensors", "models/best.safetensors", "metrics/test.json", "metrics/valid.json"] {
        assert!(
            project.bytes(&format!("result/d/{file}")) == project.bytes(&format!("result/student/{file}")),
            "{file}"
        );
    }
    // λ = 0 never opens the lists, ed = 0 never the vectors.
    let bundle = project.at("result/bundle/bundle");
    let away = project.at("away");
    for (file, word) in
        [("rankings.parquet", "distill.lambda_d=0"), ("item_embeddings.safetensors", "distill.embedding.ed_weight=0")]
    {
        std::fs::rename(bundle.join(file), &away).unwrap();
        distill(&project, &["run.dir=result/some", word]).done();
        distill(&project, &["run.dir=result/all"]).failed(1, &[file]);
        std::fs::rename(&away, bundle.join(file)).unwrap();
    }
}

#[test]
fn every_student_and_every_configuration() {
    let project = with_bundle();
    for student in ["sasrec_modern", "sasrec_dllm2rec", "gru4rec", "caser"] {
        let wide = if student == "sasrec_modern" { "student.n_heads=2" } else { "seed=42" };
        let dir = format!("run.dir=result/{student}");
        distill(&project, &[&format!("student={student}"), wide, "train.epochs=1", &dir]).done();
    }
    for config in ["dllm2rec_compat", "listwise", "rd", "hint", "embedding_init"] {
        let dir = format!("run.dir=result/{config}");
        let alpha = "student.loss.dros_alpha=0.5";
        distill(&project, &[&format!("distill={config}"), alpha, "train.epochs=1", &dir]).done();
    }
    for (policy, rows) in
        [("budget", Some("labelled_rows: 20\n")), ("k_center", Some("labelled_rows: 20\n")), ("random", None)]
    {
        let dir = format!("run.dir=result/{policy}");
        let n = if rows.is_some() { "active.n=20" } else { "active.p=0.5" };
        distill(&project, &[&format!("active={policy}"), n, "train.epochs=1", &dir]).done();
        let record = project.read(&format!("result/{policy}/run.yaml"));
        match rows {
            Some(rows) => assert!(record.contains(rows), "{policy}: {record}"),
            None => assert!(!record.contains("labelled_rows"), "{policy}: {record}"),
        }
    }
    run(&project, DISTILL, &["student=popularity"]).failed(1, &["`popularity` is not trained"]);
    distill(&project, &["distill.embedding.side=input"]).failed(2, &["distill.embedding.side", "auto or both"]);
    distill(&project, &["student.loss.name=ce", "distill.rd_negatives=shared"]).failed(2, &["distill.rd_negatives"]);
    distill(&project, &["distill.top_k=0"]).failed(2, &["distill.top_k: wanted at least 1, got 0"]);
    distill(&project, &["distill.gate.floor=2"]).failed(2, &["distill.gate.floor: wanted 0 to 1, got 2"]);
}

#[test]
fn a_killed_run_goes_on_with_the_same_bundle() {
    let project = with_bundle();
    let cache = format!("data.cache={}", project.at("cache").display());
    let words = [SMALL, &[cache.as_str(), "train.checkpoint.every_steps=2", "train.epochs=6"]].concat();
    run(&project, DISTILL, &[&words[..], &["run.dir=result/whole"]].concat()).done();
    let mut child = start(&project, DISTILL, &[&words[..], &["run.dir=result/cut"]].concat());
    wait_for(&mut child, || !project.checkpoints("result/cut").is_empty());
    child.kill().unwrap();
    let _ = child.wait();
    // A newer bundle of the same data appears meanwhile.
    run(&project, EXPORT, &["result/student", "threads=1", "run.dir=result/newer", "export.top_n=12"]).done();
    run(&project, DISTILL, &["--resume", "result/cut"]).done();
    assert!(project.json("result/cut/teacher.json")["bundle"].as_str().unwrap().ends_with("result/bundle/bundle"));
    let model = "models/student.safetensors";
    assert!(project.bytes(&format!("result/cut/{model}")) == project.bytes(&format!("result/whole/{model}")));
    // Another bundle in its place is noticed.
    std::fs::remove_dir_all(project.at("result/bundle/bundle")).unwrap();
    std::fs::rename(project.at("result/newer/bundle"), project.at("result/bundle/bundle")).unwrap();
    run(&project, DISTILL, &["--resume", "result/cut", "train.epochs=7"])
        .failed(1, &["the bundle is not the one that this run began with"]);
}
