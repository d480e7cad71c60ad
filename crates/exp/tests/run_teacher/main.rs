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
