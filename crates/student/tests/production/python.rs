//! Python's torch loads what was exported and gets the same scores.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyo_core::torch::load_tensors;
use anyo_student::ExportedStudent;
use serde_json::{Value, json};
use tch::Device;

use super::{every, export, fixture, scores, student};

fn command(python: &Path) -> Command {
    let mut command = Command::new(python);
    // the libtorch of this process is not Python's
    command.env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD").env("OMP_NUM_THREADS", "1");
    command
}

/// A Python with torch: `ANYO_PYTHON`, else `python3`; or a printed reason to skip.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("ANYO_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let output = command(&python).args(["-c", "import torch; print(torch.__version__)"]).output();
    match output {
        Ok(output) if output.status.success() => {
            eprintln!("{} has torch {}", python.display(), String::from_utf8_lossy(&output.stdout).trim());
            Some(python)
        }
        _ => {
            eprintln!("skipped: {} has no torch; set ANYO_PYTHON to one that has", python.display());
            None
        }
    }
}

/// The answers of `score.py` for each folder and its histories, from one process.
fn ask(python: &Path, requests: &[(PathBuf, Vec<Vec<u32>>)]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/production/score.py");
    let mut child = command(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let asked: Value = requests.iter().map(|(folder, rows)| json!({"folder": folder, "histories": rows})).collect();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference, in units of the larger of 1 and the largest wanted score.
fn gap(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    assert!(got.len() == want.len() && got.iter().zip(want).all(|(a, b)| a.len() == b.len()));
    let scale = want.iter().flatten().fold(1f32, |a, b| a.max(b.abs()));
    let off = got.iter().flatten().zip(want.iter().flatten()).map(|(a, b)| (a - b).abs());
    off.fold(0f32, |a, b| if b.is_nan() { f32::INFINITY } else { a.max(b) }) / scale
}

/// Empty, of one item, with repeats, exactly `max_len`, longer.
fn histories() -> Vec<Vec<u32>> {
    vec![
        vec![],
        vec![36],
        vec![3, 3, 0, 3],
        (0..10).collect(),
        (0..23).map(|i| (i * 11 + 2) % 37).collect(),
        vec![0],
        (5..14).rev().collect(),
    ]
}

#[test]
fn programs_read_back_give_the_students_scores() {
    let dir = tempfile::tempdir().unwrap();
    let (mut requests, mut wanted) = (Vec::new(), Vec::new());
    for (name, config, weights) in every() {
        let student = student(&config, weights);
        let out = dir.path().join(name);
        let written = export(&student, &config, &out).unwrap();
        assert!(written.difference <= 1e-5 && written.checked == 23, "{name}: {written:?}");
        let want = scores(&student, &histories());
        let exported = ExportedStudent::open(&out, Device::Cpu).unwrap();
        assert_eq!(scores(&exported, &histories()), want, "{name}: same weights, same bits");
        assert_eq!(exported.items[7].title, "\"T\u{e9}\" 7\n\ttab");
        assert!(!dir.path().join(format!("{name}.part")).exists());
        requests.push((out, histories()));
        wanted.push((name, want));
    }
    let Some(python) = python() else { return };
    for ((name, want), answer) in wanted.iter().zip(ask(&python, &requests)) {
        let gaps = ["program", "single", "wide", "arrays"].map(|way| (way, gap(&rows(&answer[way]), want)));
        eprintln!("{name}: differences in Python {gaps:?}");
        assert!(gaps.iter().all(|(_, gap)| *gap <= 1e-5), "{name}: {gaps:?}");
    }
}

/// The reference figures come from PyTorch networks of their own (`fixtures/models/make.py`), not from this crate.
#[test]
fn programs_give_the_figures_of_the_pytorch_networks() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut requests, mut wanted) = (Vec::new(), Vec::new());
    for (name, config, weights) in every() {
        let Some(weights) = weights.filter(|_| name != "seen_bias") else { continue };
        let student = student(&config, Some(weights));
        let out = dir.path().join(name);
        export(&student, &config, &out).unwrap();
        let case = load_tensors(&fixture(&format!("{weights}.case.safetensors"))).unwrap();
        let lengths: Vec<i64> = (&case["in.lengths"]).try_into().unwrap();
        let ids: Vec<i64> = case["in.ids"].view([-1]).try_into().unwrap();
        let histories: Vec<Vec<u32>> = ids
            .chunks(10)
            .zip(&lengths)
            .map(|(row, &len)| row[..len as usize].iter().map(|&id| id as u32).collect())
            .collect();
        let want = case.get("out.scores").unwrap_or_else(|| &case["out.scores_last"]);
        let want: Vec<Vec<f32>> =
            (0..histories.len() as i64).map(|row| Vec::<f32>::try_from(want.get(row)).unwrap()).collect();
        requests.push((out, histories));
        wanted.push((name, want));
    }
    assert_eq!(requests.len(), 6);
    for ((name, want), answer) in wanted.iter().zip(ask(&python, &requests)) {
        let gap = gap(&rows(&answer["program"]), want);
        eprintln!("{name}: differs from PyTorch's network by {gap:e}");
        assert!(gap <= 1e-5, "{name}: {gap}");
    }
}
