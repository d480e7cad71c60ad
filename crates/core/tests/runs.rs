//! Single runs as real processes: folders, files, exit codes, resume, panics, full disks.

mod common;

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use common::{Demo, said};

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited too long");
        sleep(Duration::from_millis(20));
    }
}

fn kill(id: u32, signal: i32) {
    // SAFETY: the process was started by this test and has not been waited for.
    unsafe { libc::kill(id as libc::pid_t, signal) };
}

#[test]
fn a_run_writes_its_files_and_results_go_to_stdout() {
    let demo = Demo::new();
    let said = demo.run(&["seed=7", "optim=sgd"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "ndcg@10 1.75\n"), "{}", said.err);
    let run = demo.only();
    assert!(run.starts_with("result/result_2") && run.len() == "result/result_20260801_101500".len(), "{run}");
    let config = demo.read(&format!("{run}/config.yaml"));
    assert_eq!(config, format!("seed: 7\nsteps: 3\nsleep_ms: 0\nend: done\noptim:\n  lr: 0.25\nrun:\n  dir: {run}\n"));
    assert_eq!(demo.read(&format!("{run}/overrides.yaml")), "- seed=7\n- optim=sgd\n");
    let record = demo.read(&format!("{run}/run.yaml"));
    for line in [
        "app: demo\n",
        "status: done\n",
        "- seed=7\n",
        "  optim: sgd\n",
        "- conf/demo.yaml\n",
        "seed: 7\n",
        "cwd: /",
        "git: null\n",
        "toolchain: rustc 1.",
        "  cpus: ",
        "device: cpu\n",
        "started: 20",
        "error: null\n",
        "seconds: ",
    ] {
        assert!(record.contains(line), "{line}\n---\n{record}");
    }
    let metrics = demo.read(&format!("{run}/metrics.jsonl"));
    let lines: Vec<serde_json::Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[1]["step"], &lines[1]["train/loss"]), (&1.into(), &0.5.into()));
    assert!(demo.read(&format!("{run}/metrics/test.json")).contains("\"ndcg@10\": 1.75"));
    assert!(demo.read(&format!("{run}/run.log")).contains("result  ndcg@10 1.75"));
    let files = common::names(&demo.at(&run));
    let wanted =
        ["config.yaml", "last_step", "metrics", "metrics.jsonl", "overrides.yaml", "run.log", "run.yaml", "tb"];
    assert_eq!(files, wanted);
}

#[test]
fn two_runs_in_the_same_second_get_two_folders() {
    let demo = Demo::new();
    // A name without the time, so that they collide whatever the clock does.
    let mut both: Vec<_> = (0..4).map(|_| demo.command(&["run.dir=result/x"]).spawn().unwrap()).collect();
    assert!(both.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(demo.results(), ["x", "x-2", "x-3", "x-4"]);
    assert!(demo.read("result/x-3/config.yaml").ends_with("run:\n  dir: result/x-3\n"));
}

#[test]
fn mistakes_exit_with_2_and_make_nothing() {
    let demo = Demo::new();
    for (words, wanted) in [
        (&["step=4"][..], "error: unknown key `step` (override 1: `step=4`)\n  hint: did you mean `steps`?\n"),
        (&["optim.lr=0"], "error: optim.lr: must be above 0, got 0 (override 1: `optim.lr=0`)\n"),
        (&["--seed=3"], "error: there is no flag `--seed`\n  hint: write seed=3\n"),
        (&["--seed", "3"], "error: there is no flag `--seed`\n  hint: write seed=3\n"),
        (&["--multirum"], "error: there is no flag `--multirum`\n  hint: did you mean --multirun?"),
        (&["seed=1,2"], "error: `seed=1,2` is a sweep, but this is a single run\n  hint: to sweep add -m"),
        (&["--cfg", "all"], "error: invalid value 'all' for '--cfg <WHAT>'"),
        (&["--from", "result/none"], "error: result/none: there is no such run folder\n  hint: make one with demo\n"),
        (&["--from", "latest"], "error: latest: there is no run of demo under result/\n"),
        (&["--config-name", "other"], "error: no conf/other.yaml in "),
        (&["--config-dir", "none"], "error: --config-dir none: there is no such folder\n"),
        (
            &["-m", "seed=1,2", "--resume", "latest"],
            "error: the argument '--multirun' cannot be used with '--resume <RUN>'",
        ),
        (&["-m", "seed=1,2", "--cfg", "job"], "error: the argument '--multirun' cannot be used with '--cfg <WHAT>'"),
        (
            &["hydra.run.dir=x"],
            "error: there are no `hydra.*` keys here (override 1: `hydra.run.dir=x`)\n  hint: write run.dir=x\n",
        ),
        (&["run.dir="], "error: run.dir: the run folder must be given as text"),
    ] {
        let said = demo.run(words);
        assert!(said.err.starts_with(wanted), "{words:?}\n{}", said.err);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{words:?}");
    }
    assert!(!demo.at("result").exists());
}

#[test]
fn flags_stand_anywhere_among_overrides() {
    let demo = Demo::new();
    let said = demo.run(&["seed=-1_0", "--cfg", "job"]);
    assert!(said.err.contains("seed: expected a whole number from 0"), "{}", said.err);
    let said = demo.run(&["+seed=1", "--cfg", "job", "~steps"]);
    assert!(said.err.contains("drop the +: seed=1") && said.err.contains("steps: this key is missing"), "{}", said.err);
    let said = demo.run(&["seed=5", "--cfg", "job", "optim=sgd", "--package", "optim"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "lr: 0.25\n"), "{}", said.err);
}

#[test]
fn looking_starts_nothing() {
    let demo = Demo::new();
    let said = demo.run(&["--cfg", "job", "--origin", "seed=9", "run.dir=r"]);
    let rows: Vec<Vec<&str>> = said.out.lines().map(|l| l.split("  # ").map(str::trim).collect()).collect();
    assert!(rows.contains(&vec!["seed: 9", "override 1: `seed=9`"]), "{}", said.out);
    assert!(rows.contains(&vec!["lr: 0.5", "conf/optim/adam.yaml"]), "{}", said.out);
    assert!(rows.contains(&vec!["steps: 3", "conf/demo.yaml"]), "{}", said.out);
    assert_eq!(demo.run(&["--cfg", "run", "run.dir=r"]).out, "dir: r\n");
    let said = demo.run(&["--cfg", "job", "seed=???"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), "note: still to be given: seed\n"));
    assert!(said.out.contains("seed: ???"), "{}", said.out);
    let said = demo.run(&["--info", "defaults"]);
    assert_eq!(
        said.out.lines().skip(1).collect::<Vec<_>>(),
        ["conf/optim/adam.yaml  →  optim", "conf/demo.yaml        →  (root)"]
    );
    assert_eq!(demo.run(&["--info", "searchpath"]).out, "conf\n");
    let help = demo.run(&["--help"]).out;
    for part in [
        "Counts steps.",
        "usage: demo",
        "demo -m seed=1,2",
        "--resume RUN",
        "optim=adam, sgd",
        "seed: 1        # any number",
    ] {
        assert!(help.contains(part), "{part}\n---\n{help}");
    }
    assert!(!demo.at("result").exists());
}

#[test]
fn conf_is_found_from_below_and_by_variable() {
    let demo = Demo::new();
    fs::create_dir_all(demo.at("a/b/conf")).unwrap();
    let below = |command: &mut Command| said(command.current_dir(demo.at("a/b")).output().unwrap());
    // a/b/conf holds no demo.yaml, so it is not mistaken for the right one.
    let said = below(&mut demo.command(&["--info", "searchpath"]));
    assert!(said.out.trim_end().ends_with("/conf") && !said.out.contains("a/b"), "{} {}", said.out, said.err);
    let said = below(demo.command(&["--info", "searchpath"]).env("ANYO_CONF", "../../conf"));
    assert_eq!(said.out, "../../conf\n");
    let said = below(demo.command(&["--info", "searchpath"]).env("ANYO_CONF", "conf"));
    assert_eq!((said.code, said.err.lines().next()), (Some(2), Some("error: ANYO_CONF=conf holds no demo.yaml")));
}

#[test]
fn failures_are_told_once_and_noted() {
    let demo = Demo::new();
    let said = demo.run(&["end=error", "run.dir=result/e"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.ends_with("error: non-finite loss at step 40\n  hint: try a smaller optim.lr\n"), "{}", said.err);
    assert!(demo.read("result/e/run.yaml").contains("status: failed\n"));
    assert!(demo.read("result/e/run.log").contains("error   non-finite loss at step 40"));
    let said = demo.run(&["end=panic", "run.dir=result/p"]);
    assert_eq!(said.code, Some(1));
    let last = said.err.lines().last().unwrap();
    assert_eq!(last, "error: internal error: index 9 out of range; this is a bug, see result/p/run.log");
    assert!(!said.err.contains("panicked at"), "{}", said.err);
    assert!(demo.read("result/p/run.log").contains("demo.rs:"), "the log names the place");
}

#[test]
fn an_interrupted_run_continues_to_the_same_metrics() {
    let demo = Demo::new();
    let child = demo.command(&["steps=40", "sleep_ms=50", "run.dir=result/r"]).spawn().unwrap();
    wait_for(|| demo.at("result/r/last_step").exists());
    kill(child.id(), libc::SIGINT);
    let ended = said(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    assert!(
        ended.err.contains("error: interrupted: saved at step") && ended.err.contains("demo --resume result/r"),
        "{}",
        ended.err
    );
    assert!(demo.read("result/r/run.yaml").contains("status: interrupted"));
    // A torn line, as a kill in mid-write would leave it.
    let metrics = demo.at("result/r/metrics.jsonl");
    fs::write(&metrics, fs::read_to_string(&metrics).unwrap() + "{\"step\": 99, \"tra").unwrap();

    let refused = demo.run(&["--resume", "result/r", "seed=5"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("`seed` cannot change when a run is continued"), "{}", refused.err);

    let ended = demo.run(&["--resume", "latest", "steps=6"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let record = demo.read("result/r/run.yaml");
    assert!(record.contains("status: done") && record.contains("resumed:") && record.contains("steps=6"), "{record}");
    assert!(demo.read("result/r/config.yaml").contains("steps: 6\n"));
    let steps: Vec<u64> = demo
        .read("result/r/metrics.jsonl")
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert!(steps.windows(2).all(|w| w[1] == w[0] + 1), "{steps:?}");
    assert_eq!(common::names(&demo.at("result/r/tb")).len(), 1, "TensorBoard's file is made anew");
    assert_eq!(demo.results(), ["r"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let demo = Demo::new();
    let child = demo.command(&["sleep_ms=20000", "run.dir=result/r"]).spawn().unwrap();
    wait_for(|| demo.at("result/r/last_step").exists());
    let start = Instant::now();
    kill(child.id(), libc::SIGTERM);
    sleep(Duration::from_millis(100));
    kill(child.id(), libc::SIGTERM);
    assert_eq!(said(child.wait_with_output().unwrap()).code, Some(130));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_killed_run_can_be_resumed_but_not_while_it_lives() {
    let demo = Demo::new();
    let mut child = demo.command(&["steps=1000", "sleep_ms=50", "run.dir=result/r"]).spawn().unwrap();
    wait_for(|| demo.at("result/r/last_step").exists());
    let said = demo.run(&["--resume", "result/r"]);
    assert!(said.err.contains("result/r: another process is writing into this run"), "{}", said.err);
    kill(child.id(), libc::SIGKILL);
    child.wait().unwrap();
    let said = demo.run(&["--resume", "result/r", "steps=5"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn from_repeats_with_changes() {
    let demo = Demo::new();
    demo.run(&["seed=3", "optim=sgd", "run.dir=result/a"]);
    let said = demo.run(&["--from", "result/a", "steps=1"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "ndcg@10 0.75\n"), "{}", said.err);
    let new = demo.results().into_iter().find(|name| name.starts_with("result_")).expect("run.dir is taken fresh");
    assert!(demo.read(&format!("result/{new}/run.yaml")).contains("from: result/a\n"));
    assert_eq!(demo.run(&["--from", "result/a", "optim=adam", "run.dir=result/b"]).out, "ndcg@10 1.5\n");
}

#[test]
fn a_place_that_cannot_be_written_is_one_clear_message() {
    let demo = Demo::new();
    fs::write(demo.at("file"), "").unwrap();
    let said = demo.run(&["run.dir=file/x"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.starts_with("error: file: cannot make the folder for runs: "), "{}", said.err);
    // /proc refuses new folders even to root.
    let said = demo.run(&["run.dir=/proc/anyo"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.starts_with("error: /proc/anyo: cannot make the run folder: "), "{}", said.err);
}

#[test]
fn a_full_disk_stops_the_run_with_one_message() {
    let demo = Demo::new();
    // A new run that cannot write its three files leaves no folder behind.
    let limited = |limit: &str, words: &str| {
        let line = format!("trap '' XFSZ; ulimit -f {limit}; exec {} {words}", common::binary().display());
        said(Command::new("sh").arg("-c").arg(line).current_dir(demo.at("")).env_remove("ANYO_CONF").output().unwrap())
    };
    let ended = limited("0", "run.dir=result/none");
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(
        ended.err.starts_with("error: result/none/config.yaml: cannot write the file: File too large"),
        "{}",
        ended.err
    );
    assert!(demo.results().is_empty(), "{:?}", demo.results());
    // Later: the metrics reach the limit; what was written stays.
    let ended = limited("8", "steps=1000 run.dir=result/full");
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(
        ended.err.contains("cannot write the") && ended.err.contains("hint: the limit for the size of a file"),
        "{}",
        ended.err
    );
    assert!(demo.read("result/full/metrics.jsonl").lines().count() > 30);
    assert!(demo.read("result/full/run.yaml").contains("status: failed"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let demo = Demo::new();
    let line = format!("{} --help | head -c 1", common::binary().display());
    let ended = said(Command::new("sh").arg("-c").arg(line).current_dir(demo.at("")).output().unwrap());
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("C", ""));
}
