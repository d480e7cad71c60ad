//! What a run leaves behind.

use anyo_core::config::{load_saved, to_yaml};
use anyo_student::BaselineRunConfig;
use serde_json::Value;

use crate::project::{Project, SMALL, shared_data};

#[test]
fn a_run_writes_exactly_the_documented_files() {
    let project = Project::new();
    let said = project.small(&["run.dir=result/r"]).done();
    assert!(
        said.out.contains("sasrec") && said.out.contains("popularity") && said.out.contains("ndcg@10"),
        "{}",
        said.out
    );
    assert!(said.out.trim_end().ends_with("run folder: result/r"), "{}", said.out);
    // 120 users in batches of 16: 8 steps an epoch.
    let mut wanted: Vec<String> = [
        "checkpoints/step_000024/model.safetensors",
        "checkpoints/step_000024/optim.safetensors",
        "checkpoints/step_000024/state.json",
        "config.yaml",
        "metrics.jsonl",
        "metrics/buckets.json",
        "metrics/compare.json",
        "metrics/other_ranks.parquet",
        "metrics/per_user.parquet",
        "metrics/test.json",
        "metrics/time.json",
        "metrics/valid.json",
        "models/best.safetensors",
        "models/student.safetensors",
        "overrides.yaml",
        "run.log",
        "run.yaml",
    ]
    .map(str::to_owned)
    .into();
    let files = project.files("result/r");
    let events: Vec<&String> = files.iter().filter(|f| f.starts_with("tb/events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1, "{files:?}");
    wanted.extend(events.into_iter().cloned());
    assert_eq!(files, wanted);
    let record = project.read("result/r/run.yaml");
    for line in
        ["app: run-student-baseline\n", "status: done\n", "seed: 42\n", "  chosen: '", "  hash: ", "error: null\n"]
    {
        assert!(record.contains(line), "{line} in {record}");
    }
    assert!(project.read("result/r/run.log").contains("epoch 3: loss "));
    let overrides: Vec<String> = SMALL.iter().chain(&["run.dir=result/r"]).map(|w| format!("- {w}\n")).collect();
    assert_eq!(project.read("result/r/overrides.yaml"), overrides.concat());
    let time = project.json("result/r/metrics/time.json");
    assert!(time["student_baseline_train_time"].as_f64().unwrap() > 0.0 && time["epochs"] == 3, "{time}");
}

#[test]
fn the_metrics_are_flat_with_lower_case_keys() {
    let project = Project::new();
    project.small(&["run.dir=result/r"]).done();
    for name in ["valid", "test"] {
        let metrics = project.json(&format!("result/r/metrics/{name}.json"));
        for (key, value) in metrics.as_object().unwrap() {
            assert_eq!(*key, key.to_lowercase(), "{name}");
            match value {
                Value::Number(_) | Value::String(_) | Value::Bool(_) => {}
                Value::Array(pair) => {
                    assert!(key.ends_with("_ci") && pair.len() == 2, "{name} {key}: {value}");
                    let (low, high) = (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap());
                    let mean = metrics[key.trim_end_matches("_ci")].as_f64().unwrap();
                    assert!(low <= mean + 1e-12 && mean <= high + 1e-12, "{name} {key}: {low} {mean} {high}");
                }
                _ => panic!("{name} {key}: not flat: {value}"),
            }
        }
        for key in ["ndcg@10", "hr@10", "recall@20", "mrr@10", "mrr", "ndcg@10_ci", "coverage@10", "gini@10"] {
            assert!(!metrics[key].is_null(), "{name} lacks {key}");
        }
        assert_eq!((&metrics["n_users"], &metrics["n_items"]), (&120.into(), &60.into()));
        assert!(metrics["protocol"].as_str().unwrap().contains("leave_one_out"), "{}", metrics["protocol"]);
    }
    // The best epoch's validation as written while training is the one that is reported.
    let best = project
        .read("result/r/metrics.jsonl")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["valid/ndcg@10"].as_f64())
        .fold(f64::MIN, f64::max);
    assert_eq!(project.json("result/r/metrics/valid.json")["ndcg@10"], best);
}

#[test]
fn the_configuration_reloads_and_repeats_the_run() {
    let project = Project::new();
    project.small(&["run.dir=result/a", "student=gru4rec", "student.d_model=16"]).done();
    let text = project.read("result/a/config.yaml");
    let config: BaselineRunConfig = load_saved(&project.at("result/a")).unwrap();
    assert_eq!(to_yaml(&config).unwrap(), text, "it reads back to itself");

    project.run(&["--from", "result/a", "run.dir=result/b"]).done();
    assert_eq!(project.read("result/b/config.yaml"), text.replace("result/a", "result/b"));
    for file in ["models/student.safetensors", "metrics/test.json", "metrics/valid.json", "metrics/compare.json"] {
        let same = project.bytes(&format!("result/a/{file}")) == project.bytes(&format!("result/b/{file}"));
        assert!(same, "{file} is repeated bit for bit");
    }
    assert!(project.read("result/b/run.yaml").contains("from: result/a\n"));
    project.run(&["--from", "result/a", "run.dir=result/c", "seed=43"]).done();
    assert_ne!(
        project.bytes("result/c/models/student.safetensors"),
        project.bytes("result/a/models/student.safetensors")
    );
}

#[test]
fn the_number_of_threads_hardly_matters() {
    let project = Project::new();
    for (threads, run) in [("threads=1", "run.dir=result/one"), ("threads=2", "run.dir=result/two")] {
        project.small(&[threads, run, "student.loss.name=ce", "student.optim.name=adamw"]).done();
    }
    let [one, two] =
        ["one", "two"].map(|run| project.json(&format!("result/{run}/metrics/test.json"))["ndcg@10"].clone());
    let off = (one.as_f64().unwrap() - two.as_f64().unwrap()).abs();
    assert!(off < 0.02, "libtorch may sum in another order, no more: {one} and {two}");
}

#[test]
fn students_without_gradients_have_no_models() {
    let project = Project::new();
    for student in ["popularity", "recent_popularity", "item_knn"] {
        let run = format!("run.dir=result/{student}");
        let name = format!("student={student}");
        let words = ["dataset.toy.n_users=120", "dataset.toy.n_items=60", "eval.bootstrap=20", "threads=1"];
        project.run(&[&words[..], &[&name, &run]].concat()).done();
        let files = project.files(&format!("result/{student}"));
        let kept: Vec<&str> = files
            .iter()
            .map(String::as_str)
            .filter(|f| f.starts_with("models") || f.starts_with("checkpoints"))
            .collect();
        assert_eq!(kept, Vec::<&str>::new());
        assert!(project.json(&format!("result/{student}/metrics/test.json"))["hr@10"].is_number());
    }
}

/// CRC-32C (Castagnoli) as TensorBoard masks it.
fn masked(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The payloads of an event file, with both checksums of each compared.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(masked(&bytes[..8]), u32::from_le_bytes(bytes[8..12].try_into().unwrap()), "length checksum");
        let data = &bytes[12..12 + len];
        assert_eq!(masked(data), u32::from_le_bytes(bytes[12 + len..16 + len].try_into().unwrap()), "data checksum");
        records.push(data.to_vec());
        bytes = &bytes[16 + len..];
    }
    records
}

#[test]
fn tensorboard_can_read_the_scalars() {
    let project = Project::new();
    project.small(&["run.dir=result/r", "train.log_every=4"]).done();
    let files = project.files("result/r/tb");
    let records = records(&project.bytes(&format!("result/r/tb/{}", files[0])));
    assert!(records[0].windows(13).any(|w| w == b"brain.Event:2"), "the header record");
    let count = |tag: &str| records.iter().filter(|r| r.windows(tag.len()).any(|w| w == tag.as_bytes())).count();
    // 24 steps in 3 epochs.
    assert_eq!((count("train/loss"), count("train/lr")), (6, 6));
    assert_eq!((count("train/epoch_loss"), count("valid/ndcg@10"), count("valid/hr@5")), (3, 3, 3));
}

#[test]
fn movielens_100k_trains_one_epoch() {
    let Some(data) = shared_data().filter(|data| data.join("movielens-100k/u.data").is_file()) else { return };
    let project = Project::new();
    let root = format!("data.root={}", data.display());
    let words =
        ["dataset=movielens-100k", &root, "train.epochs=1", "student.max_len=20", "run.dir=result/m", "threads=1"];
    let said = project.run(&words).done();
    assert!(said.err.contains("943 users, 1682 items, 943 training, 943 validation, 943 test rows"), "{}", said.err);
    let test = project.json("result/m/metrics/test.json");
    assert_eq!((&test["n_users"], &test["n_items"]), (&943.into(), &1682.into()));
    let compare = project.json("result/m/metrics/compare.json");
    assert!(compare["popularity"]["hr@10"].as_f64().unwrap() > 0.0, "{compare}");
    // The second start takes the processed form.
    let cached = project.files("data/processed");
    assert!(cached.iter().any(|file| file.ends_with("dataset.bin")), "{cached:?}");
    project.run(&["--from", "result/m", "run.dir=result/n"]).done();
    assert_eq!(project.read("result/n/metrics/test.json"), project.read("result/m/metrics/test.json"));
}
