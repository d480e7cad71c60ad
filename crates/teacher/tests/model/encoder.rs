//! The frozen encoder: released weights, what a state depends on, and runs of other data.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyo_core::torch::{load_tensors, save_model};
use anyo_student::Student;
use anyo_teacher::Encoder;
use tch::{Device, Tensor, no_grad};

use super::made_up::{N_ITEMS, apart, dataset, encoder, student};

fn shared_data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

fn states(encoder: &Encoder, histories: &[&[u32]]) -> Tensor {
    encoder.states(histories, &mut |_| Ok(())).unwrap()
}

/// States of the released SASRec times its own output layer give the reference scores.
#[test]
fn released_weights_give_the_reference_scores() {
    let Some(data) = shared_data() else { return };
    let folder = data.join("llara-backbones");
    for (name, n_items) in [("movielens", 1682usize), ("lastfm", 4606)] {
        let path = folder.join(format!("sasrec_{name}.safetensors"));
        let weights = load_tensors(&path).unwrap();
        let encoder = Encoder::from_llara(&path, n_items, Device::Cpu).unwrap();
        assert_eq!(encoder.items(), &weights["item_embeddings.weight"].narrow(0, 0, n_items as i64));
        let mut histories: BTreeMap<String, Vec<Vec<u32>>> = BTreeMap::new();
        for part in ["val", "test"] {
            let text = fs::read_to_string(data.join(format!("llara-{name}/{part}.csv"))).unwrap();
            let row = |line: &str| -> Vec<u32> {
                let fields: Vec<&str> = line.split(',').collect();
                let len: usize = fields[1].parse().unwrap();
                fields[0].split(' ').take(len).map(|id| id.split(':').next().unwrap().parse().unwrap()).collect()
            };
            histories.insert(part.to_owned(), text.lines().skip(1).map(row).collect());
        }
        let text = fs::read_to_string(folder.join(format!("reference_sasrec_{name}.jsonl"))).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let rows: Vec<&[u32]> = lines
            .iter()
            .map(|l| histories[l["split"].as_str().unwrap()][l["row"].as_u64().unwrap() as usize].as_slice())
            .collect();
        let scores = states(&encoder, &rows).linear(&weights["s_fc.weight"], Some(&weights["s_fc.bias"]));
        let mut worst: f64 = 0.0;
        for (row, line) in lines.iter().enumerate() {
            let target = line["target"].as_i64().unwrap();
            let off = scores.double_value(&[row as i64, target]) - line["target_score"].as_f64().unwrap();
            worst = worst.max(off.abs());
        }
        eprintln!("{name}: {} rows, largest difference of a target's score {worst:.1e}", lines.len());
        assert!(worst < 1e-3, "{name}: {worst}");
        let error = Encoder::from_llara(&path, n_items + 1, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(&format!("it has {n_items} items, the data set has {}", n_items + 1)), "{error}");
    }
    let gru = folder.join("gru4rec_movielens.safetensors");
    let error = Encoder::from_llara(&gru, 1682, Device::Cpu).unwrap_err();
    assert!(matches!(error, anyo_core::Error::Checkpoint { .. }), "{error:?}");
}

fn set(student: &Student, name: &str, change: impl FnOnce(&Tensor) -> Tensor) {
    let tensor = student.params.get(name).unwrap();
    no_grad(|| tensor.shallow_clone().copy_(&change(tensor)));
}

/// specs/ilora.md section 9, test 11.
#[test]
fn a_state_depends_on_the_items_of_its_history_alone() {
    let histories: [&[u32]; 3] = [&[3, 1, 4], &[1], &[5, 9, 2, 6, 5, 3, 5, 8, 9, 7]];
    let before = states(&encoder(), &histories);
    let changed = |row: i64| {
        let (student, config) = student(N_ITEMS, 16, 7);
        set(&student, "item_embeddings.weight", |t| {
            let table = t.copy();
            let _ = table.get(row).fill_(0.7);
            table
        });
        states(&Encoder::new(student, &config, "changed").unwrap(), &histories)
    };
    assert_eq!(changed(N_ITEMS as i64), before, "the pad's row");
    assert_eq!(changed(20), before, "an item of no history");
    let newest = changed(4);
    assert!(apart(&newest.get(0), &before.get(0)) > 1e-3);
    assert_eq!(newest.narrow(0, 1, 2), before.narrow(0, 1, 2));
    // Alone, in a batch, and cut to the newest ten.
    for (i, history) in histories.iter().enumerate() {
        assert!(apart(&states(&encoder(), &[history]).get(0), &before.get(i as i64)) < 1e-6);
    }
    let long: Vec<u32> = [20, 21, 22].into_iter().chain(histories[2].iter().copied()).collect();
    assert!(apart(&states(&encoder(), &[&long]).get(0), &before.get(2)) < 1e-6);
    assert_eq!(states(&encoder(), &[&[]]).abs().max().double_value(&[]), 0.0);
    let error = encoder().states(&[&[1], &[24]], &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "history 1 has item 24, the encoder has items 0..24");
}

/// Section 9, test 11, second half: without attention and feed-forward only the norms remain.
#[test]
fn with_zero_weights_the_norms_remain() {
    let (student, config) = student(N_ITEMS, 16, 7);
    let names: Vec<String> = student.params.named().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().filter(|n| n.contains("mh_attn.linear") || n.contains("feed_forward.w_")) {
        set(&student, name, Tensor::zeros_like);
    }
    let item = student.params.get("item_embeddings.weight").unwrap().get(6).detach();
    let place = student.params.get("positional_embeddings.weight").unwrap().get(2).detach();
    let norm = |x: &Tensor| x.layer_norm([16], None::<&Tensor>, None::<&Tensor>, 1e-5, false);
    let want = norm(&norm(&norm(&norm(&(item + place)))));
    let got = states(&Encoder::new(student, &config, "zero").unwrap(), &[&[1, 2, 6]]);
    assert!(apart(&got.get(0), &want) < 1e-5);
}

/// A finished run of run-student-baseline as it lies on disk.
fn run_folder(folder: &Path, student_file: &str, hashes: Option<[&str; 2]>) {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    let read = |file: &str| fs::read_to_string(conf.join(file)).unwrap();
    let nested = |key: &str, text: String| {
        let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
        format!("{key}:\n{}\n", lines.join("\n"))
    };
    let primary = read("run-student-baseline.yaml");
    let rest = &primary[primary.find("\nseed:").unwrap()..];
    let text =
        nested("dataset", read("dataset/toy.yaml")) + &nested("student", read(student_file)) + "baselines: {}\n" + rest;
    fs::write(folder.join("config.yaml"), text).unwrap();
    if let Some([items, data]) = hashes {
        fs::create_dir_all(folder.join("models")).unwrap();
        let config: anyo_student::BaselineRunConfig = anyo_core::config::load_saved(folder).unwrap();
        let student = Student::new(&config.student, N_ITEMS, Device::Cpu, 4).unwrap();
        let metadata =
            BTreeMap::from([("items_hash".to_owned(), items.to_owned()), ("data_hash".to_owned(), data.to_owned())]);
        save_model(&folder.join(anyo_student::MODEL_FILE), &student.params, &metadata).unwrap();
    }
}

#[test]
fn a_run_of_this_data_is_taken_and_of_other_data_refused() {
    let data = dataset(&[vec![1, 2, 3]], 1);
    let [ones, ds, other] = ["1".repeat(64), "d".repeat(64), "7".repeat(64)];
    let open = |file: &str, hashes: Option<[&str; 2]>| {
        let folder = tempfile::tempdir().unwrap();
        run_folder(folder.path(), file, hashes);
        Encoder::from_run(folder.path(), &data, Device::Cpu)
    };
    for (file, d) in
        [("student/sasrec_dllm2rec.yaml", 64), ("student/sasrec_modern.yaml", 64), ("student/gru4rec.yaml", 64)]
    {
        let encoder = open(file, Some([&ones, &ds])).unwrap();
        assert_eq!(encoder.items().size(), [N_ITEMS as i64, d]);
        assert_eq!(states(&encoder, &[&[1, 2]]).size(), [1, encoder.state_width()]);
        assert!(encoder.source().contains(" of "), "{}", encoder.source());
    }
    let error = open("student/sasrec.yaml", Some([&other, &ds])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("trained on items with the hash 777777777777…, the data set has 111111111111…"), "{text}");
    assert!(error.hint().unwrap().contains("dataset=toy, this is dataset=made_up"), "{:?}", error.hint());
    let text = open("student/sasrec.yaml", Some([&ones, &other])).unwrap_err().to_string();
    assert!(text.contains("trained on rows with the hash 777777777777…, the data set has dddddddddddd…"), "{text}");
    let text = open("student/sasrec.yaml", None).unwrap_err().to_string();
    assert!(text.contains("the run did not finish"), "{text}");
    let text = open("student/popularity.yaml", None).unwrap_err().to_string();
    assert!(text.contains("`popularity` has no states"), "{text}");
}
