//! Runs that cannot be compared: one clear message each, and no report.

use std::fs;

use crate::project::{Project, QUICK};

#[test]
fn runs_that_do_not_belong_together() {
    let project = Project::new();
    project.student("a", &["seed=1"]);
    project.student("b", &["seed=2"]);
    project.student("other", &["seed=2", "dataset.toy.n_users=100"]);
    project.student("split", &["seed=2", "dataset.split.kind=temporal", "dataset.split.fractions=[0.7, 0.1, 0.2]"]);
    project.student("removed", &["seed=2", "eval.exclude_history=true"]);
    project.student("wide", &["seed=2", "student.d_model=32"]);
    project.student("again", &["seed=1"]);
    project.student("bare", &["seed=2", "eval.per_user=false"]);
    let compare = |runs: &str| project.compare(&[&[runs, "run.dir=c"], QUICK].concat());
    let hash = |run: &str| {
        let text = project.read(&format!("{run}/run.yaml"));
        text.lines().find_map(|line| line.trim().strip_prefix("hash: ").map(str::to_owned)).unwrap()
    };

    compare("runs=[a, other]").failed(&[
        "differ in data set and split",
        "a has toy",
        &hash("a"),
        &hash("other"),
        "hint: ",
    ]);
    compare("runs=[a, split]").failed(&["differ in data set and split", &hash("a"), &hash("split")]);
    compare("runs=[a, removed]").failed(&["differ in protocol", "history kept in", "history removed from"]);
    compare("runs=[a, wide]").failed(&[
        "differ in more than the seed",
        "student.d_model 16 and 32",
        "named={a: [\"a\"]",
    ]);
    compare("runs=[a, again]").failed(&["`student baseline` has seed 1 twice: a and again", "hint: "]);
    compare("runs=[a, bare]").failed(&["bare has no metrics/per_user.parquet", "eval.per_user=true"]);
    compare("runs=[a, nowhere]").failed(&["nowhere: there is no such run folder", "hint: "]);
    compare("runs=[a, cache]").failed(&["cache is no run folder", "run-student-baseline"]);
    compare("runs=[latest:run-teacher]").failed(&["there is no run of run-teacher"]);
    project.compare(&["runs=[a, b]", "reference=distilled"]).failed(&[
        "no method `distilled`",
        "student baseline",
        "popularity",
    ]);

    // an unfinished run
    let text = project.read("b/run.yaml");
    fs::write(project.at("b/run.yaml"), text.replace("status: done", "status: interrupted")).unwrap();
    compare("runs=[a, b]").failed(&["b did not finish: its status is interrupted", "run-student-baseline --resume b"]);
    fs::write(project.at("b/run.yaml"), &text).unwrap();

    // files that were changed
    fs::copy(project.at("other/metrics/per_user.parquet"), project.at("b/metrics/per_user.parquet")).unwrap();
    compare("runs=[a, b]").failed(&["b ranked 100 rows, the data set has 120 test rows"]);
    fs::write(project.at("b/metrics/per_user.parquet"), b"PAR1").unwrap();
    compare("runs=[a, b]").failed(&["b/metrics/per_user.parquet: cannot be read"]);
    fs::write(project.at("b/metrics/time.json"), "{").unwrap();
    compare("runs=[a, b]").failed(&["b/metrics/time.json line 1: is no JSON"]);
    assert!(!project.at("c/report.html").exists());
}

#[test]
fn values_out_of_range_are_told_together_before_anything_starts() {
    let project = Project::new();
    let said = project.compare(&[
        "metrics=[ndcg@10, map@5]",
        "headline=ndcg@20",
        "resamples=10",
        "confidence=1",
        "seeds=[1, 1]",
        "popularity_buckets=[0.8, 0.5]",
        "rare_max=0",
    ]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    for part in [
        "there is no metric `map@5`",
        "headline: wanted one of metrics",
        "resamples: wanted at least 100, got 10",
        "confidence: ",
        "seeds: wanted at least one seed, each once",
        "popularity_buckets: ",
        "rare_max: ",
    ] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    assert!(!project.at("result").exists());
    project.student("a", &["seed=1"]);
    let words = ["runs=[a]", "metrics=[hr@1000]", "headline=hr@1000", "run.dir=c"];
    project.compare(&words).failed(&["metric hr@1000: the catalogue has only 60 items"]);
    let said = project.compare(&["--app", "run-nothing"]);
    assert!(said.code == Some(2) && said.err.contains("no `run-nothing` in this build"), "{}", said.err);
}
