//! Checkpoints: exact resume, rotation, damage of every kind, other data.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]
#![cfg(feature = "torch")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{
    Error,
    torch::{
        Checkpoints, DataIdentity, Gradients, Init, OptimConfig, OptimName, Optimizer, Params, Schedule,
        ScheduleConfig, ScheduleName, load_tensors, save_model,
    },
};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    epoch: u64,
    /// The bits of an f64: JSON text does not keep every last digit.
    best_bits: u64,
    data: DataIdentity,
}

fn identity(dataset: &str, data_hash: &str, items_hash: &str) -> DataIdentity {
    DataIdentity { dataset: dataset.into(), data_hash: data_hash.into(), items_hash: items_hash.into() }
}

fn state(epoch: u64) -> State {
    State { epoch, best_bits: (0.1f64 + 0.2).to_bits(), data: identity("toy", "aaaa", "bbbb") }
}

struct Training {
    params: Params,
    optimizer: Optimizer,
    schedule: Schedule,
}

impl Training {
    fn new(name: OptimName, n_items: i64) -> Self {
        let schedule =
            ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 5, total_steps: Some(40), floor: 0.0 };
        let config = OptimConfig {
            name,
            lr: 0.05,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay: 0.01,
            clip_norm: Some(0.5),
            schedule,
        };
        let mut params = Params::new(Device::Cpu);
        let _ = params.create("item_emb.weight", &[n_items, 3], Init::XavierNormal, 7).unwrap();
        let _ = params.create("head.weight", &[1, 3], Init::KaimingUniform, 7).unwrap();
        let _ = params.add_buffer("mean", Tensor::from_slice(&[1f32, 2.0])).unwrap();
        let optimizer = Optimizer::new(&config, &params).unwrap();
        let schedule = Schedule::new(&config.schedule, 0).unwrap();
        Self { params, optimizer, schedule }
    }

    /// Steps `from..to`; the batch depends on the step alone.
    fn run(&mut self, from: u64, to: u64) {
        let mut gradients = Gradients::new(&self.params);
        for step in from..to {
            let items = Tensor::from_slice(&[(step % 5) as i64, (step * 3 % 5) as i64]);
            let rows = self.params.get("item_emb.weight").unwrap().index_select(0, &items);
            let scores = rows.matmul(&self.params.get("head.weight").unwrap().tr());
            gradients.add(&(scores - 1.0).square().mean(Kind::Float), 2.0).unwrap();
            let factor = self.schedule.factor(step);
            gradients.step(&mut self.optimizer, &self.params, Some(0.5), factor, step).unwrap();
        }
    }

    fn bits(&self) -> Vec<(String, Vec<u32>)> {
        let named = self.params.named().map(|(n, t)| (n.to_owned(), t.shallow_clone()));
        named
            .chain(self.optimizer.state())
            .map(|(name, t)| {
                let values = Vec::<f32>::try_from(t.detach().to_kind(Kind::Float).view(-1)).unwrap();
                (name, values.into_iter().map(f32::to_bits).collect())
            })
            .collect()
    }
}

fn saved_at(steps: &[u64], keep: usize, best: Option<u64>) -> (tempfile::TempDir, Checkpoints) {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(folder.path().join("checkpoints"), keep).unwrap();
    let training = Training::new(OptimName::Adam, 5);
    for &step in steps {
        let (params, optimizer) = (&training.params, &training.optimizer);
        checkpoints.save(step, params, optimizer, &state(step), best == Some(step)).unwrap();
    }
    (folder, checkpoints)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn latest(checkpoints: &Checkpoints) -> (Option<u64>, Vec<String>) {
    let mut notes = Vec::new();
    let saved = checkpoints.latest_valid(|note| notes.push(note.to_owned())).unwrap();
    (saved.map(|s| s.step), notes)
}

#[test]
fn resume_equals_uninterrupted_bit_for_bit() {
    for name in [OptimName::Adam, OptimName::AdamW] {
        let mut whole = Training::new(name, 5);
        let start = whole.bits();
        whole.run(0, 40);
        assert_ne!(whole.bits(), start);

        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path(), 2).unwrap();
        let mut first = Training::new(name, 5);
        first.run(0, 25);
        checkpoints.save(25, &first.params, &first.optimizer, &state(3), false).unwrap();
        drop(first);

        let saved = Checkpoints::new(folder.path(), 2).unwrap().latest_valid(|note| panic!("{note}")).unwrap().unwrap();
        assert_eq!((saved.step, saved.state::<State>().unwrap()), (25, state(3)));
        let mut second = Training::new(name, 5);
        second.run(0, 3); // whatever it was before, loading overwrites all of it
        saved.restore(&second.params, &mut second.optimizer).unwrap();
        second.run(25, 40);
        assert_eq!(second.bits(), whole.bits(), "{name:?}");
    }
}

#[test]
fn rotation_keeps_the_last_and_the_best() {
    let (_folder, checkpoints) = saved_at(&[10, 20, 30, 40, 50], 2, Some(20));
    assert_eq!(names(checkpoints.folder()), ["best.json", "step_000020", "step_000040", "step_000050"]);
    assert_eq!(
        names(&checkpoints.folder().join("step_000050")),
        ["model.safetensors", "optim.safetensors", "state.json"]
    );
    assert_eq!(checkpoints.best().unwrap().unwrap().step, 20);
    assert_eq!(latest(&checkpoints), (Some(50), vec![]));
    let (_folder, checkpoints) = saved_at(&[1, 2], 1, None);
    assert_eq!(checkpoints.steps().unwrap(), [2]);
    assert!(checkpoints.best().unwrap().is_none());
}

#[test]
fn a_step_saved_again_replaces_the_first_and_spares_later_ones() {
    let (_folder, mut checkpoints) = saved_at(&[10, 20, 30], 3, None);
    let training = Training::new(OptimName::Adam, 5);
    checkpoints.save(10, &training.params, &training.optimizer, &state(99), false).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [10, 20, 30]);
    assert_eq!(checkpoints.load(10).unwrap().state::<State>().unwrap().epoch, 99);
}

#[test]
fn every_changed_byte_is_noticed() {
    for file in ["model.safetensors", "optim.safetensors", "state.json"] {
        let (_folder, checkpoints) = saved_at(&[10, 20], 2, None);
        let path = checkpoints.folder().join("step_000020").join(file);
        let good = fs::read(&path).unwrap();
        // Header, middle and end.
        for place in [3, 20, good.len() / 2, good.len() - 10, good.len() - 3] {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let (step, notes) = latest(&checkpoints);
            assert_eq!((step, notes.len()), (Some(10), 1), "{file} byte {place}");
            assert!(notes[0].contains(path.to_str().unwrap()), "{notes:?}");
        }
        for length in [0, 5, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(latest(&checkpoints).0, Some(10), "{file} cut to {length}");
        }
        fs::remove_file(&path).unwrap();
        let (step, notes) = latest(&checkpoints);
        assert!(step == Some(10) && notes[0].contains(file), "{notes:?}");
        fs::write(&path, &good).unwrap();
        assert_eq!(latest(&checkpoints), (Some(20), vec![]));
    }
}

#[test]
fn nothing_valid_is_none_and_says_why() {
    let (_folder, checkpoints) = saved_at(&[10, 20], 2, None);
    for step in ["step_000010", "step_000020"] {
        fs::write(checkpoints.folder().join(step).join("state.json"), "{}").unwrap();
    }
    let (step, notes) = latest(&checkpoints);
    assert_eq!((step, notes.len()), (None, 2));
    assert!(notes[0].contains("skipping a checkpoint") && notes[0].contains("step_000020"), "{notes:?}");
}

#[test]
fn leftovers_of_a_killed_save_are_cleared_or_restored() {
    let (_folder, checkpoints) = saved_at(&[10, 20], 2, None);
    let root = checkpoints.folder().to_owned();
    // Killed while writing step 30, and between the two renames of a replacement of step 20.
    fs::create_dir(root.join(".tmp_step_000030")).unwrap();
    fs::write(root.join(".tmp_step_000030/model.safetensors"), b"half").unwrap();
    fs::write(root.join(".tmp_best.json"), b"{").unwrap();
    fs::rename(root.join("step_000020"), root.join(".old_step_000020")).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [10]);
    let again = Checkpoints::new(&root, 2).unwrap();
    assert_eq!(names(&root), ["step_000010", "step_000020"]);
    assert_eq!(latest(&again), (Some(20), vec![]));
}

#[test]
fn other_data_is_refused_with_both_names() {
    let (_folder, checkpoints) = saved_at(&[10], 1, None);
    let saved = checkpoints.load(10).unwrap();
    saved.check_data(&identity("toy", "aaaa", "bbbb")).unwrap();
    let error = |now: &DataIdentity| saved.check_data(now).unwrap_err();
    let other = error(&identity("steam", "cccc", "dddd"));
    assert!(other.to_string().contains("step_000010: other items"), "{other}");
    assert_eq!(
        other.hint().unwrap(),
        "this checkpoint was trained with dataset=toy; the current choice is dataset=steam"
    );
    let changed = error(&identity("toy", "cccc", "bbbb"));
    assert!(changed.to_string().contains("same items, but other rows"), "{changed}");
    assert!(changed.hint().unwrap().contains("both are dataset=toy"));
}

#[test]
fn a_model_of_other_size_names_tensor_and_shapes() {
    let (_folder, checkpoints) = saved_at(&[10], 1, None);
    let saved = checkpoints.load(10).unwrap();
    let mut bigger = Training::new(OptimName::Adam, 6);
    let before = bigger.bits();
    let error = saved.restore(&bigger.params, &mut bigger.optimizer).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("tensor `item_emb.weight` has shape [5, 3], the model needs [6, 3]"), "{message}");
    assert!(message.contains("step_000010/model.safetensors"), "{message}");
    assert!(error.hint().unwrap().contains("dataset=toy"));
    assert_eq!(bigger.bits(), before);
}

#[test]
fn a_state_of_another_version_names_the_field() {
    #[derive(Debug, Deserialize)]
    struct Newer {
        #[expect(dead_code, reason = "only its absence matters")]
        swa_steps: u64,
    }
    let (_folder, checkpoints) = saved_at(&[10], 1, None);
    let message = checkpoints.load(10).unwrap().state::<Newer>().unwrap_err().to_string();
    assert!(message.contains("swa_steps"), "{message}");
}

#[test]
fn a_folder_that_cannot_be_written_keeps_what_is_there() {
    let (folder, mut checkpoints) = saved_at(&[10], 1, None);
    assert!(Checkpoints::new(folder.path(), 0).unwrap_err().to_string().contains("at least 1"));
    // Root may write anywhere, so the obstacle is a file where a folder should be.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Checkpoints::new(file.join("checkpoints"), 1).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.starts_with(&file)), "{error}");
    // The folder is moved away in the middle of the run.
    let moved = folder.path().join("moved");
    fs::rename(checkpoints.folder(), &moved).unwrap();
    let training = Training::new(OptimName::Adam, 5);
    let error = checkpoints.save(20, &training.params, &training.optimizer, &state(1), true).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(latest(&Checkpoints::new(&moved, 1).unwrap()), (Some(10), vec![]));
}

fn one_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let training = Training::new(OptimName::Adam, 5);
    save_model(&path, &training.params, &BTreeMap::from([("student".into(), "sasrec".into())])).unwrap();
    (folder, path)
}

#[test]
fn model_files_come_back_and_other_readers_accept_them() {
    let (folder, path) = one_file();
    let training = Training::new(OptimName::Adam, 5);
    training.params.load(&load_tensors(&path).unwrap()).unwrap();
    assert_eq!(anyo_core::torch::tensor_file::load_metadata(&path).unwrap()["student"], "sasrec");
    assert_eq!(names(folder.path()), ["model.safetensors"]);
    let again = folder.path().join("again.safetensors");
    save_model(&again, &training.params, &BTreeMap::from([("student".into(), "sasrec".into())])).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    // tch's own reader is another implementation of the format.
    let theirs = Tensor::read_safetensors(&path).unwrap();
    assert_eq!(theirs.len(), 3);
    for (name, tensor) in theirs {
        assert!(tensor.equal(training.params.get(&name).unwrap()), "{name}");
    }
}

#[test]
fn all_number_types_and_empty_tensors_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kinds.safetensors");
    let mut params = Params::new(Device::Cpu);
    let kinds = [
        Kind::Double,
        Kind::Float,
        Kind::Half,
        Kind::BFloat16,
        Kind::Int64,
        Kind::Int,
        Kind::Int16,
        Kind::Int8,
        Kind::Uint8,
        Kind::Bool,
    ];
    for kind in kinds {
        let tensor = Tensor::from_slice(&[1i64, 0, 1]).to_kind(kind);
        let _ = params.add_buffer(format!("{kind:?}"), tensor).unwrap();
    }
    let _ = params.add_buffer("empty", Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))).unwrap();
    save_model(&path, &params, &BTreeMap::new()).unwrap();
    let back = load_tensors(&path).unwrap();
    assert_eq!(back.len(), 11);
    for (name, want) in params.named() {
        assert!(back[name].kind() == want.kind() && back[name].equal(want), "{name}");
    }
}

#[test]
fn files_that_are_no_tensor_files_say_so() {
    let (folder, path) = one_file();
    let good = fs::read(&path).unwrap();
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = load_tensors(&path).unwrap_err();
        assert!(error.hint().is_some());
        let message = error.to_string();
        assert!(message.starts_with(path.to_str().unwrap()), "{message}");
        message
    };
    assert!(message(b"").contains("truncated: 0 bytes"));
    assert!(message(&good[..100]).contains("truncated inside its header"));
    assert!(message(&good[..good.len() - 1]).contains(&format!("{} bytes, wanted {}", good.len() - 1, good.len())));
    assert!(message(&[&good[..], b"xx"].concat()).contains("longer than its header says"));
    assert!(message(b"user,item,time\n1,2,3\n4,5,6\n").contains("does not start like a safetensors file"));
    let mut header = good.clone();
    header[9] = b'\\';
    assert!(message(&header).contains("its header is not the JSON"));
    let mut nan = good.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let text = message(&nan);
    assert!(text.contains("tensor `mean` of shape [2] has 1 of 2 values that are NaN or infinite"), "{text}");
    // Every single changed byte of the header gives an error or tensors, never a panic.
    let header_end = 8 + u64::from_le_bytes(*good.first_chunk::<8>().unwrap()) as usize;
    for place in 0..header_end {
        for flip in [1, 16] {
            let mut bytes = good.clone();
            bytes[place] ^= flip;
            fs::write(&path, &bytes).unwrap();
            let _ = load_tensors(&path);
        }
    }
    assert!(matches!(load_tensors(&folder.path().join("none")).unwrap_err(), Error::Io { .. }));
    let odd = folder.path().join("none/model.safetensors");
    let training = Training::new(OptimName::Adam, 5);
    assert!(matches!(save_model(&odd, &training.params, &BTreeMap::new()).unwrap_err(), Error::Io { .. }));
}
