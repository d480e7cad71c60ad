//! Killed, interrupted and full: nothing is lost, and the end is the one of the undisturbed run, bit for bit.

use std::{fs, os::unix::process::ExitStatusExt};

use serde_json::Value;

use crate::project::{Project, said, signal, wait_for};

/// 1,000 users in batches of 8: 125 steps an epoch, long enough to be disturbed in the middle of the second one.
const LONG: &[&str] = &[
    "dataset.toy.n_users=1000",
    "dataset.toy.n_items=100",
    "student.d_model=32",
    "train.epochs=3",
    "train.batch_size=8",
    "train.log_every=1",
    "train.checkpoint.every_steps=20",
    "student.optim.schedule.name=cosine",
    "eval.bootstrap=20",
    "threads=1",
];

/// Lines of `metrics.jsonl` without their times.
fn figures(project: &Project, run: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("time");
        value
    };
    project.read(&format!("{run}/metrics.jsonl")).lines().map(line).collect()
}

fn assert_same(project: &Project, run: &str, whole: &str, what: &str) {
    for file in [
        "models/student.safetensors",
        "models/best.safetensors",
        "checkpoints/step_000375/model.safetensors",
        "checkpoints/step_000375/optim.safetensors",
        "metrics/test.json",
        "metrics/valid.json",
    ] {
        let same = project.bytes(&format!("{run}/{file}")) == project.bytes(&format!("{whole}/{file}"));
        assert!(same, "{what}: {file} differs from the undisturbed run's");
    }
    assert_eq!(figures(project, run), figures(project, whole), "{what}: metrics.jsonl");
}

/// Starts a run and waits until it is in its second epoch.
fn into_the_second_epoch(project: &Project, run: &str) -> std::process::Child {
    let mut child = project.start(&[LONG, &[&format!("run.dir={run}")]].concat());
    let metrics = project.at(&format!("{run}/metrics.jsonl"));
    wait_for(&mut child, || fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 160));
    child
}

#[test]
fn kill_and_signals_in_mid_epoch_then_resume_to_the_same_bits() {
    let project = Project::new();
    project.run(&[LONG, &["run.dir=result/whole"]].concat()).done();
    for (name, number) in [("killed", libc::SIGKILL), ("sigint", libc::SIGINT), ("sigterm", libc::SIGTERM)] {
        let run = format!("result/{name}");
        let mut child = into_the_second_epoch(&project, &run);
        signal(&child, number);
        let step = if number == libc::SIGKILL {
            assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
            assert!(project.read(&format!("{run}/run.yaml")).contains("status: running"));
            let newest = project.checkpoints(&run).pop().unwrap();
            newest.trim_start_matches("step_").parse::<u64>().unwrap()
        } else {
            let ended = said(child).failed(130, &["interrupted: saved after step ", &format!("--resume {run}")]);
            assert!(project.read(&format!("{run}/run.yaml")).contains("status: interrupted"));
            let text = ended.err.split("saved after step ").nth(1).unwrap();
            let step = text.split_whitespace().next().unwrap().parse::<u64>().unwrap();
            assert_eq!(project.checkpoints(&run).pop().unwrap(), format!("step_{step:06}"));
            step
        };
        assert!(step > 125 && step < 375 && step % 125 != 0, "{name}: step {step} is in the middle of an epoch");
        assert!(!project.at(&format!("{run}/models/student.safetensors")).exists());
        let resumed = project.run(&["--resume", &run]).done();
        assert!(resumed.err.contains(&format!("continuing after step {step} ")), "{}", resumed.err);
        assert_same(&project, &run, "result/whole", name);
        let record = project.read(&format!("{run}/run.yaml"));
        assert!(record.contains("status: done") && record.contains("resumed:\n"), "{record}");
        assert_eq!(project.files(&format!("{run}/tb")).len(), 1);
    }
    // A finished run that is resumed stays as it is.
    project.run(&["--resume", "result/killed"]).done();
    assert_same(&project, "result/killed", "result/whole", "resumed when done");
}

#[test]
fn a_damaged_checkpoint_is_skipped_with_a_message() {
    let project = Project::new();
    project.run(&[LONG, &["run.dir=result/whole"]].concat()).done();
    let mut child = into_the_second_epoch(&project, "result/r");
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    // The kill may have met the writing of one (a `.tmp_` folder) or come before the oldest of three was removed.
    let mut kept = project.checkpoints("result/r");
    kept.retain(|name| !name.starts_with(".tmp_"));
    assert!(matches!(kept.len(), 2 | 3), "{kept:?}");
    let [before, newest] = &kept[kept.len() - 2..] else { unreachable!("two were asked for") };
    let file = format!("result/r/checkpoints/{newest}/optim.safetensors");
    let mut bytes = project.bytes(&file);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(project.at(&file), bytes).unwrap();
    let resumed = project.run(&["--resume", "result/r"]).done();
    let skipped = format!("skipping a checkpoint that cannot be used: {file}: the checkpoint is damaged");
    assert!(resumed.err.contains(&skipped), "{}", resumed.err);
    let step: u64 = before.trim_start_matches("step_").parse().unwrap();
    assert!(resumed.err.contains(&format!("continuing after step {step} ")), "{}", resumed.err);
    assert_same(&project, "result/r", "result/whole", "from the checkpoint before");
}

#[test]
fn damaged_best_weights_name_the_file_and_what_to_do() {
    let project = Project::new();
    let child = into_the_second_epoch(&project, "result/r");
    signal(&child, libc::SIGINT);
    said(child).failed(130, &[]);
    let file = "result/r/models/best.safetensors";
    let bytes = project.bytes(file);
    fs::write(project.at(file), &bytes[..bytes.len() / 2]).unwrap();
    project.run(&["--resume", "result/r"]).failed(1, &[file, "hint: "]);
    fs::write(project.at(file), bytes).unwrap();
    project.run(&["--resume", "result/r"]).done();
}

#[test]
fn a_living_run_cannot_be_resumed() {
    let project = Project::new();
    let mut child = into_the_second_epoch(&project, "result/r");
    let said = project.run(&["--resume", "result/r"]);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    said.failed(2, &["result/r: another process is writing into this run", "hint: wait for it or stop it first"]);
}

#[test]
fn epochs_can_be_added_and_nothing_else_changed() {
    let project = Project::new();
    let constant = [LONG, &["student.optim.schedule.name=constant", "train.valid_every=1"]].concat();
    project.run(&[&constant[..], &["run.dir=result/two", "train.epochs=2"]].concat()).done();
    project.run(&[&constant[..], &["run.dir=result/whole"]].concat()).done();
    project.run(&["--resume", "result/two", "seed=7"]).failed(2, &["`seed` cannot change when a run is continued"]);
    project.run(&["--resume", "result/two", "train.epochs=3"]).done();
    assert_same(&project, "result/two", "result/whole", "one epoch added");
}

/// A limit on the size of files stands for a full disk: a refused write is an ordinary error then.
#[test]
fn a_full_disk_stops_with_one_message_and_loses_nothing() {
    let project = Project::new();
    project.run(&[LONG, &["run.dir=result/whole"]].concat()).done();
    let size = |file: &str| project.bytes(&format!("result/whole/{file}")).len();
    let (model, optim) =
        (size("checkpoints/step_000375/model.safetensors"), size("checkpoints/step_000375/optim.safetensors"));
    // The model fits, the optimizer's state does not.
    let kib = (model + optim) / 2 / 1024;
    assert!(kib * 1024 > model && kib * 1024 < optim, "{model} {kib} {optim}");
    let limit = format!("trap '' XFSZ; ulimit -f {kib}");
    let said = project.shell(&limit, &[LONG, &["run.dir=result/r"]].concat());
    said.failed(1, &["optim.safetensors: cannot write", "File too large", "hint: the limit for the size of a file"]);
    assert_eq!(project.checkpoints("result/r"), Vec::<String>::new(), "no half checkpoint stays");
    assert!(project.read("result/r/run.yaml").contains("status: failed"));
    assert_eq!(figures(&project, "result/r").len(), 20, "what was written before stays");
    // With room again it goes on; later in the run the earlier checkpoints stay too.
    let mut child = into_the_second_epoch(&project, "result/s");
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    // The kill may have met the writing of one; what it left half-made goes when the run continues.
    let mut kept = project.checkpoints("result/s");
    kept.retain(|name| !name.starts_with(".tmp_"));
    let said = project.shell(&limit, &["--resume", "result/s"]);
    said.failed(1, &["optim.safetensors: cannot write"]);
    assert_eq!(project.checkpoints("result/s"), kept);
    for run in ["result/r", "result/s"] {
        project.run(&["--resume", run]).done();
        assert_same(&project, run, "result/whole", run);
    }
}
