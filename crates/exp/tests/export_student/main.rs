//! `export-student` and `recommend` on what it wrote, as real processes in a folder of their own.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

#[path = "../run_student_baseline/project.rs"]
#[allow(dead_code, reason = "shared with another test, which uses all of it")]
mod project;

use std::process::Command;

use project::{Project, SMALL, Said, said};

const EXPORT: &str = env!("CARGO_BIN_EXE_export-student");
const RECOMMEND: &str = env!("CARGO_BIN_EXE_recommend");

fn run(project: &Project, program: &str, words: &[&str]) -> Said {
    let mut command = Command::new(program);
    command.args(words);
    said(project.settle(command).spawn().unwrap())
}

/// A project with a small trained student in `result/student`.
fn with_student(project: &Project, folder: &str, words: &[&str]) {
    let dir = format!("run.dir={folder}");
    project.run(&[SMALL, &["train.epochs=1", "data.cache=cache", &dir], words].concat()).done();
}

/// The lines of an answer after the first, which names the folder.
fn answer(said: &Said) -> Vec<&str> {
    said.out.lines().skip(1).collect()
}

#[test]
fn recommend_says_the_same_with_run_and_export() {
    let project = Project::new();
    let modern = ["student=sasrec_modern", "student.seen_bias=true", "student.n_heads=2"];
    let warm = "student.optim.schedule.warmup_steps=0";
    for (name, words) in [("modern", &modern[..]), ("gru", &["student=gru4rec"]), ("caser", &["student=caser"])] {
        let (source, out) = (format!("result/{name}"), format!("out/{name}"));
        with_student(&project, &source, &[words, &[warm]].concat());
        let log = format!("run.dir=result/export_{name}");
        let told = run(&project, EXPORT, &[&source, &out, "threads=1", &log]).done();
        assert!(told.out.contains("with 60 items") && told.out.contains(&format!("student: {out}")), "{}", told.out);
        let mut want =
            ["student.safetensors", "student.pt", "encoder.pt", "items.bin", "item_ids.json", "manifest.json"]
                .map(str::to_owned)
                .to_vec();
        if name != "modern" {
            want.push("item_bias.bin".into());
        }
        want.sort();
        assert_eq!(project.files(&out), want);
        let manifest = project.json(&format!("{out}/manifest.json"));
        assert_eq!(manifest["dataset"]["name"], "toy");
        assert_eq!(manifest["output"]["added_to_seen"].is_number(), name == "modern");
        let record = project.read(&format!("result/export_{name}/run.yaml"));
        assert!(record.contains("difference: ") && record.contains(&format!("folder: {out}")), "{record}");

        let items = project.json(&format!("{out}/item_ids.json"));
        let (first, second) = (items[3]["id"].as_str().unwrap(), items[8]["title"].as_str().unwrap());
        for words in [vec![first, second], vec![first, "-k", "60", "--keep-history"]] {
            let of = |folder: &str| run(&project, RECOMMEND, &[&words[..], &["--run", folder]].concat()).done();
            let (from_run, from_export) = (of(&source), of(&out));
            assert!(answer(&from_run).len() > 10, "{}", from_run.out);
            assert_eq!(answer(&from_run), answer(&from_export));
            assert!(from_export.out.starts_with(&format!("{out} (")), "{}", from_export.out);
        }
        run(&project, RECOMMEND, &["no such item", "--run", &out])
            .failed(1, &["no item `no such item` in data set `toy`"]);
    }
    // the exported folder needs neither the run nor the data
    std::fs::remove_dir_all(project.at("result")).unwrap();
    std::fs::remove_dir_all(project.at("cache")).unwrap();
    let items = project.json("out/gru/item_ids.json");
    run(&project, RECOMMEND, &[items[0]["id"].as_str().unwrap(), "--run", "out/gru"]).done();
}

#[test]
fn without_a_place_the_student_lies_in_the_run_folder() {
    let project = Project::new();
    with_student(&project, "result/student", &["student=sasrec_dllm2rec"]);
    run(&project, EXPORT, &["result/student", "threads=1", "run.dir=result/e"]).done();
    assert!(project.at("result/e/student/manifest.json").is_file());
    assert!(!project.at("result/e/student.part").exists());
}

#[test]
fn mistakes_are_told() {
    let project = Project::new();
    run(&project, EXPORT, &[]).failed(2, &["student_run"]);
    run(&project, EXPORT, &["nowhere"]).failed(1, &["nowhere: there is no such run folder", "hint: "]);
    std::fs::create_dir_all(project.at("empty")).unwrap();
    run(&project, EXPORT, &["empty"]).failed(1, &["empty is no run folder: it holds no config.yaml", "hint: "]);
    let toy =
        ["dataset.toy.n_users=120", "dataset.toy.n_items=60", "eval.bootstrap=0", "threads=1", "data.cache=cache"];
    project.run(&[&toy[..], &["student=item_knn", "run.dir=result/knn"]].concat()).done();
    let told = run(&project, EXPORT, &["result/knn", "out"]);
    told.failed(
        1,
        &["result/knn is a run of `item_knn`, which has no weights to export", "hint: name a run of sasrec"],
    );
    assert!(!project.at("out").exists());

    with_student(&project, "result/student", &["student=gru4rec"]);
    run(&project, EXPORT, &["result/student", "check_rows=0"]).failed(2, &["check_rows"]);
    std::fs::create_dir_all(project.at("taken")).unwrap();
    let told = run(&project, EXPORT, &["result/student", "taken", "threads=1"]);
    told.failed(1, &["taken: there is something at this place already", "hint: choose another folder"]);
    assert_eq!(project.files("taken").len(), 0);

    run(&project, EXPORT, &["result/student", "good", "threads=1"]).done();
    let mut bytes = project.bytes("good/student.pt");
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(project.at("good/student.pt"), bytes).unwrap();
    let item = project.json("good/item_ids.json")[0]["id"].as_str().unwrap().to_owned();
    let told = run(&project, RECOMMEND, &[&item, "--run", "good"]);
    told.failed(1, &["good/student.pt: its sha256 is ", "hint: export the student again"]);
    project.write("other/manifest.json", "{\"schema_version\": 1}");
    run(&project, RECOMMEND, &[&item, "--run", "other"])
        .failed(1, &["is no exported student: kind: wanted", "got none"]);
    std::fs::remove_file(project.at("result/student/models/student.safetensors")).unwrap();
    run(&project, EXPORT, &["result/student", "late"]).failed(1, &["there are no final weights", "--resume"]);
}
