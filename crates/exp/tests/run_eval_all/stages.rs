//! Stages: made as children of the same binary, found again, continued after an interruption.

use std::{fs, thread::sleep, time::Duration};

use crate::{
    project::{DATA, Project, QUICK, STUDENT, Said},
    report::Results,
};

/// A teacher of one step on a language model of one layer.
const TEACHER: &str = r#"stages.teacher=["encoder.train.epochs=1", "builtin.histories=20", "builtin.model.vocab_size=400",
    "builtin.model.d_model=16", "builtin.model.n_layers=1", "builtin.model.n_heads=1", "builtin.model.n_kv_heads=1",
    "builtin.model.seq_len=1536", "builtin.model.batch=1", "builtin.model.steps=1", "builtin.cache=models",
    "teacher.train.batch_size=2", "teacher.train.max_steps=1", "teacher.train.valid_rows=10", "eval.bootstrap=10",
    "choice.rows=1", "export.rows=10"]"#;

fn baseline(more: &[&str]) -> String {
    let words: Vec<String> = STUDENT.iter().chain(more).map(|word| format!("\"{word}\"")).collect();
    format!("stages.baseline=[{}]", words.join(", "))
}

fn started(project: &Project, run: &str) -> String {
    let text = project.read(&format!("{run}/run.yaml"));
    text.lines().find(|line| line.starts_with("started:")).unwrap().to_owned()
}

#[test]
fn what_is_missing_is_run_and_what_is_there_is_taken_again() {
    let project = Project::new();
    let students = baseline(&[]);
    let words =
        [&["seeds=[1, 2]", TEACHER, &students, "stages.distill.dllm2rec=null", "run.dir=c"], DATA, QUICK].concat();
    let said = project.compare(&words).done();
    assert!(said.out.contains("teacher") && said.out.contains("student baseline"), "{}", said.out);
    let first = started(&project, "c/stages/student_baseline/seed_1");
    let teacher = started(&project, "c/stages/teacher/seed_42");
    let results = Results::read(&project, "c");
    let told = project.json("c/stages/teacher/seed_42/metrics/test.json")["ndcg@20"].as_f64().unwrap();
    let line = results.lines("all", "teacher", "ndcg@20").pop().unwrap();
    assert!((line[0].unwrap() - told).abs() < 1e-12 && line[5].is_some());

    // two at a time, taught by that teacher: the same figures, and what each child says has its own file
    let words = [&["seeds=[1, 2]", "jobs=2", "stages.teacher_run=c/stages/teacher/seed_42"], &words[2..]].concat();
    let words: Vec<&str> = words.into_iter().map(|word| if word == "run.dir=c" { "run.dir=d" } else { word }).collect();
    let said = project.compare(&words).done();
    assert!(said.err.contains("stage 2 of 2: student baseline, seed 2: done in"), "{}", said.err);
    assert!(!project.at("d/stages/teacher").exists() && project.at("d/stages/student_baseline/seed_1.log").is_file());
    let beside = Results::read(&project, "d");
    for (method, metric) in [("student baseline", "ndcg@20"), ("teacher", "hr@10")] {
        assert_eq!(beside.lines("all", method, metric), results.lines("all", method, metric));
    }

    // a third seed: the others are not run again, and say the same
    let said = project.compare(&["--resume", "c", "seeds=[1, 2, 3]"]).done();
    assert_eq!(said.err.matches("already done").count(), 3, "{}", said.err);
    assert_eq!(started(&project, "c/stages/student_baseline/seed_1"), first);
    assert_eq!(started(&project, "c/stages/teacher/seed_42"), teacher);
    let again = Results::read(&project, "c");
    let lines = again.lines("all", "student baseline", "ndcg@20");
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[..2], results.lines("all", "student baseline", "ndcg@20")[..2]);

    // other overrides are another stage
    let other = baseline(&["train.epochs=1"]);
    let said = project.compare(&["--resume", "c", "seeds=[1]", &other]).done();
    assert_eq!(said.err.matches("already done").count(), 1, "only the teacher: {}", said.err);
    assert!(project.at("c/stages/student_baseline/seed_1-2/metrics/test.json").is_file());
}

#[test]
fn an_interrupted_comparison_continues_inside_its_stage() {
    let project = Project::new();
    let students = baseline(&["train.epochs=150", "train.patience=0"]);
    let words =
        [&["seeds=[1]", "stages.teacher=null", &students, "stages.distill.dllm2rec=null", "run.dir=c"], DATA, QUICK]
            .concat();
    let mut child = project.start(&words);
    let log = project.at("c/stages/student_baseline/seed_1/metrics.jsonl");
    while fs::metadata(&log).map_or(0, |meta| meta.len()) < 2000 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be disturbed");
        sleep(Duration::from_millis(5));
    }
    // SAFETY: the process was started by this test and has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    let said = Said::new(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{}", said.err);
    assert!(said.err.contains("run-eval-all --resume c"), "{}", said.err);
    assert!(project.read("c/stages/student_baseline/seed_1/run.yaml").contains("status: interrupted"));

    let said = project.compare(&["--resume", "c"]).done();
    assert!(said.err.contains("continuing in c/stages/student_baseline/seed_1"), "{}", said.err);
    assert!(!project.at("c/stages/student_baseline/seed_1-2").exists());
    assert_eq!(project.json("c/stages/student_baseline/seed_1/metrics/time.json")["epochs"], 150);
    assert!(project.at("c/report.html").is_file());
}

#[test]
fn a_stage_that_fails_says_which_and_why() {
    let project = Project::new();
    let words = |students: &str| {
        [&["seeds=[1]", "stages.teacher=null", students, "stages.distill.dllm2rec=null"], DATA, QUICK]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let compare = |students: &str| {
        let words = words(students);
        project.compare(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // the child's own message comes first
    let said = compare(r#"stages.baseline=["train.epoch=3"]"#);
    assert_eq!(said.code, Some(1), "{}", said.err);
    for part in ["train.epochs", "stage 1 of 1: student baseline, seed 1 failed: exit code 2"] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    // beside others the message is in a file, which is named
    let mut beside = words(r#"stages.baseline=["train.epoch=3"]"#);
    beside.push("jobs=2".to_owned());
    let said = project.compare(&beside.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(said.code, Some(1), "{}", said.err);
    let (_, file) = said.err.split_once("its message is in ").expect("the hint names a file");
    assert!(project.read(file.split(';').next().unwrap()).contains("train.epochs"), "{}", said.err);
    let said = compare(&baseline(&["eval.ks=[10,1000]"]));
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("seed 1 failed: eval.ks: K = 1000"), "{}", said.err);
    let said = compare(&baseline(&["dataset.toy.n_users=100"]));
    assert!(said.err.contains("used other data than the comparison"), "{}", said.err);
}
