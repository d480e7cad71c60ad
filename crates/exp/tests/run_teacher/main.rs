//! `run-teacher` as a real process in a folder of its own.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

#[path = "../run_student_baseline/project.rs"]
#[allow(dead_code, reason = "shared with another test, which uses all of it")]
mod project;

use std::process::{Child, Command};

use anyo_core::{
    bundle::{Bundle, Wanted},
    config::load_saved,
    data,
};
use anyo_teacher::TeacherRunConfig;
use project::{Project, said, signal, wait_for};

/// A small toy, a language model of one layer, a few steps of everything.
const SMALL: &[&str] = &[
    "dataset.toy.n_users=80",
    "dataset.toy.n_items=60",
    "encoder.student.d_model=16",
    "encoder.train.epochs=1",
    "builtin.histories=100",
    "builtin.model.vocab_size=400",
    "builtin.model.d_model=32",
    "builtin.model.n_layers=1",
    "builtin.model.n_heads=2",
    "builtin.model.n_kv_heads=1",
    "builtin.model.seq_len=1024",
    "builtin.model.batch=1",
    "builtin.model.steps=3",
    "teacher.train.batch_size=4",
    "teacher.train.max_steps=12",
    "teacher.train.valid_every=6",
    "teacher.train.valid_rows=20",
    "teacher.train.log_every=1",
    "teacher.train.checkpoint.every_steps=3",
    "eval.bootstrap=10",
    "choice.rows=6",
    "export.top_n=10",
    "threads=1",
];

fn start(project: &Project, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_run-teacher"));
    command.args(words);
    project.settle(command).spawn().unwrap()
}

fn run(project: &Project, words: &[&str]) -> project::Said {
    said(start(project, words))
}

fn small(project: &Project, words: &[&str]) -> project::Said {
    run(project, &[SMALL, words].concat())
}

#[test]
fn a_teacher_is_trained_measured_exported_and_resumed() {
    let project = Project::new();
    let told = small(&project, &["run.dir=result/whole", "export.dllm2rec=true"]).done();
    for words in ["ilora", "encoder sasrec_dllm2rec", "popularity", "one of 20 candidates, 6 of "] {
        assert!(told.out.contains(words), "`{words}` in {}", told.out);
    }
    let choice = project.json("result/whole/metrics/choice.json");
    assert_eq!((choice["asked"].as_u64(), choice["n_candidates"].as_u64()), (Some(6), Some(20)));
    assert!(choice["legacy"]["hr@1_se"].is_number() && choice["by_scores"].as_object().unwrap().len() == 4, "{choice}");
    for name in ["likelihood", "ranking", "encoder sasrec_dllm2rec", "popularity"] {
        assert!(choice["by_scores"][name]["hr@1_se"].is_number(), "{name}: {choice}");
    }
    assert_eq!(project.read("result/whole/metrics/answers.jsonl").lines().count(), 6);
    let time = project.json("result/whole/metrics/time.json");
    for key in ["teacher_train_time_total", "distill_teacher_export_time", "train_tokens_per_s", "export_rows_per_s"] {
        assert!(time[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {time}");
    }
    assert!(project.json("result/whole/metrics/prompts.json")["prompts"]["open"].as_u64().is_some_and(|n| n > 0));
    assert!(project.json("result/whole/metrics/test.json")["ndcg@10"].is_number());

    // The bundle has a list for every training row and can teach.
    let folder = project.at("result/whole");
    let mut config: TeacherRunConfig = load_saved(&folder).unwrap();
    // relative to the folder where the run was started
    config.data.cache = Some(project.at("data/processed"));
    let dataset = data::load(&config.dataset, &config.data, &mut |_| ()).unwrap();
    let wanted = Wanted { rankings: true, embeddings: true };
    let bundle = Bundle::open_for_training(&folder.join("bundle"), &dataset, wanted).unwrap();
    assert_eq!(bundle.n_labelled(), dataset.train.n_targets());
    assert_eq!(bundle.item_embeddings().unwrap().size(), [60, config.teacher.head.unwrap().dim]);
    assert_eq!(project.files("result/whole/dllm2rec").len(), 3);

    // Interrupted in training, the resumed run ends in the same weights and lists.
    let mut child = start(&project, &[SMALL, &["run.dir=result/cut"]].concat());
    let metrics = project.at("result/cut/metrics.jsonl");
    wait_for(&mut child, || std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 4));
    signal(&child, libc::SIGINT);
    said(child).failed(130, &["interrupted: saved after step ", "run-teacher --resume result/cut"]);
    run(&project, &["--resume", "result/cut"]).done();
    for file in ["models/teacher.safetensors", "bundle/rankings.parquet", "metrics/choice.json", "metrics/test.json"] {
        let [a, b] = ["whole", "cut"].map(|run| project.bytes(&format!("result/{run}/{file}")));
        assert!(a == b, "{file} differs after the interruption");
    }
}

/// Mutual distillation: a student's lists teach the teacher.
#[test]
fn a_teacher_learns_from_a_students_bundle() {
    let project = Project::new();
    let program = |name: &str, words: &[&str]| {
        let path = std::path::Path::new(env!("CARGO_BIN_EXE_run-teacher")).with_file_name(name);
        let mut command = Command::new(path);
        command.args(words);
        said(project.settle(command).spawn().unwrap()).done()
    };
    let data = &SMALL[..2];
    let student = ["run.dir=result/student", "student.d_model=16", "student.max_len=10", "train.epochs=2"];
    program("run-student-baseline", &[data, &student].concat());
    program("export-bundle", &["result/student", "run.dir=result/lists"]);
    let words = ["choice.rows=0", "soft_targets.run=result/lists"];
    let told = small(&project, &[&words[..], &["run.dir=result/taught"]].concat()).done();
    assert!(told.err.contains("training targets have a list, which is 0.5"), "{}", told.err);
    assert!(project.json("result/taught/soft_targets.json")["bundle"].as_str().unwrap().ends_with("lists/bundle"));
    let kl: Vec<f64> = project
        .read("result/taught/metrics.jsonl")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["train/soft_kl"].as_f64())
        .collect();
    assert!(!kl.is_empty() && kl.iter().all(|kl| *kl > 0.0), "{kl:?}");
    let manifest = project.json("result/taught/bundle/manifest.json");
    assert_eq!(manifest["teacher"]["config"]["soft_targets"]["share"], 0.5);

    // With no share of it the lists change nothing; otherwise they do.
    small(&project, &["choice.rows=0", "run.dir=result/alone"]).done();
    small(&project, &[&words[..], &["soft_targets.share=0", "run.dir=result/none"]].concat()).done();
    let weights = |run: &str| project.bytes(&format!("result/{run}/models/teacher.safetensors"));
    assert!(weights("none") == weights("alone"), "share 0");
    assert!(weights("taught") != weights("alone"), "share 0.5");

    // A resumed run goes on with the bundle it began with, and not with another in its place.
    std::fs::remove_file(project.at("result/lists/bundle/manifest.json")).unwrap();
    run(&project, &["--resume", "result/taught"]).failed(1, &["the bundle is not the one that this run began with"]);

    // What cannot be is told before anything is trained.
    let refuse = |words: &[&str], parts: &[&str], code| {
        small(&project, &[&["choice.rows=0", "run.dir=result/bad"], words].concat()).failed(code, parts);
        assert!(!project.at("result/bad/models/best.safetensors").exists());
        let _ = std::fs::remove_dir_all(project.at("result/bad"));
    };
    refuse(&["soft_targets.run=nowhere"], &["soft_targets.run: there is no folder nowhere"], 1);
    refuse(&["soft_targets.run=result/student"], &["result/student holds no finished bundle"], 1);
    refuse(&["soft_targets.run=result/alone", "dataset.toy.seed=7"], &["result/alone", "toy"], 1);
    refuse(&["soft_targets.run=result/alone", "soft_targets.top_k=30"], &["soft_targets.top_k: 30", "10 items"], 1);
    refuse(&["soft_targets.run=result/alone", "teacher.head=null"], &["teacher.head is null"], 2);
    refuse(&["soft_targets.share=1.5"], &["soft_targets.share: wanted 0 to 1"], 2);
}

#[test]
fn controls_run_and_the_japanese_wording_composes() {
    let project = Project::new();
    // Every way of ranking stands in the table; with all items of the catalogue reranking is ranking by likelihood.
    let ways = ["rankers.also=[likelihood,rerank,ground]", "rankers.rows=0", "rankers.rerank.top_k=60"];
    let lora = ["teacher=lora", "run.dir=result/lora", "export.rows=15", "choice.rows=0"];
    let told = small(&project, &[&lora[..], &ways].concat()).done();
    let compare = project.json("result/lora/metrics/compare.json");
    for name in ["lora", "lora likelihood", "lora rerank", "lora ground", "encoder sasrec_dllm2rec", "popularity"] {
        assert!(told.out.contains(name) && compare[name]["ndcg@10"].is_number(), "{name}: {} {compare}", told.out);
    }
    assert_eq!(compare["lora rerank"]["ndcg@20"], compare["lora likelihood"]["ndcg@20"]);
    assert_ne!(compare["lora rerank"]["mrr"], compare["lora"]["mrr"]);
    let report = project.json("result/lora/metrics/rankers.json");
    assert!(report["all_test_rows"].as_bool() == Some(true) && report["compare"] == compare, "{report}");
    assert!(report["ways"]["lora ground"]["empty_answers"].is_number(), "{report}");
    let bundle = Bundle::open(&project.at("result/lora/bundle"), None).unwrap();
    assert_eq!(bundle.n_labelled(), 15);
    // A sample has a table of its own; reordering the best one item changes nothing.
    let zero = [
        "teacher=zeroshot",
        "run.dir=result/zero",
        "teacher/prompt=generic_ja",
        "rankers.also=[rerank]",
        "rankers.rows=15",
        "rankers.rerank={first: encoder, top_k: 1}",
    ];
    let words = [
        &SMALL.iter().copied().filter(|w| !w.starts_with("teacher.train.")).collect::<Vec<_>>()[..],
        &zero,
        &["builtin.model.seq_len=2048"],
    ];
    let told = run(&project, &words.concat()).done();
    assert!(told.out.contains("encoder sasrec_dllm2rec") && told.out.contains("HR@1"), "{}", told.out);
    assert!(told.err.contains("no bundle: "), "{}", told.err);
    let report = project.json("result/zero/metrics/rankers.json");
    assert!(report["rows"] == 15 && report["all_test_rows"] == false, "{report}");
    let compare = &report["compare"];
    assert_eq!(compare["zeroshot rerank"]["mrr"], compare["encoder sasrec_dllm2rec"]["mrr"]);
    assert!(compare["zeroshot rerank"]["mrr"].is_number() && told.out.contains("15 test rows drawn"), "{}", told.out);
}

#[test]
fn bad_requests_are_told_before_anything_is_trained() {
    let project = Project::new();
    small(&project, &["teacher.lm=nowhere"]).failed(1, &["there is no folder nowhere", "hint: wanted `builtin`"]);
    run(&project, &["student@encoder.student=item_knn"])
        .failed(1, &["encoder.student: `item_knn` has no states", "hint: "]);
    small(&project, &["export.top_n=61"]).failed(1, &["export.top_n", "wanted 1 to 60"]);
    small(&project, &["teacher.gate.experts=3"]).failed(2, &["teacher.lora.rank", "multiple of 3 experts"]);
    small(&project, &["rankers.also=[rerank,rerank]"]).failed(2, &["rankers.also", "`rerank` is named twice"]);
    small(&project, &["rankers.rerank.top_k=0"]).failed(2, &["rankers.rerank.top_k", "wanted at least 1, got 0"]);
    small(&project, &["rankers.batch=0"]).failed(2, &["rankers.batch", "wanted at least 1, got 0"]);
    run(&project, &["teacher=zeroshot", "rankers.also=[rerank]"])
        .failed(2, &["rankers.rerank.first", "needs a teacher with a scoring head", "rankers.rerank.first=encoder"]);
    small(&project, &["rankers.also=[guess]"]).failed(2, &["rankers.also", "likelihood"]);
    small(&project, &["encoder.train.batch_size=0"]).failed(2, &["encoder.train.batch_size"]);
    small(&project, &["builtin.model.seq_len=64"])
        .failed(1, &["does not fit the context of 64", "hint: use a longer context"]);
    small(&project, &["teacher.prompt.candidates.n=61"]).failed(1, &["needs 61 items", "has 60"]);
    // An encoder of other rows would have seen what is asked.
    let other: &[&str] = &["dataset.toy.n_users=90", "dataset.toy.n_items=60", "student=sasrec_dllm2rec"];
    project.run(&[other, &["train.epochs=1", "eval.bootstrap=0", "run.dir=result/other", "threads=1"]].concat()).done();
    small(&project, &["teacher.encoder_run=result/other"]).failed(1, &["the encoder was trained on", "hash"]);
}
