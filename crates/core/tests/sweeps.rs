//! Sweeps as real processes.

mod common;

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use common::{Demo, said};

#[test]
fn the_product_runs_in_numbered_folders_with_a_summary() {
    let demo = Demo::new();
    let ended = demo.run(&["-m", "optim=adam,sgd", "seed=1,3", "steps=1", "run.dir=result/s"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let announced: Vec<&str> = ended.err.lines().filter(|l| l.starts_with('#')).collect();
    let wanted = [
        "#0 : optim=adam seed=1 steps=1 run.dir=result/s",
        "#1 : optim=adam seed=3 steps=1 run.dir=result/s",
        "#2 : optim=sgd seed=1 steps=1 run.dir=result/s",
        "#3 : optim=sgd seed=3 steps=1 run.dir=result/s",
    ];
    assert_eq!(announced, wanted);
    assert!(ended.err.trim_end().ends_with("sweep: 4 jobs done, results in result/s"), "{}", ended.err);
    assert_eq!(common::names(&demo.at("result/s")), ["0", "1", "2", "3", "summary.csv", "sweep.log", "sweep.yaml"]);
    assert!(demo.read("result/s/3/config.yaml").ends_with("optim:\n  lr: 0.25\nrun:\n  dir: result/s/3\n"));
    assert_eq!(demo.read("result/s/3/overrides.yaml"), "- optim=sgd\n- seed=3\n- steps=1\n- run.dir=result/s\n");
    let plan = demo.read("result/s/sweep.yaml");
    for part in ["- -m\n", "- optim=adam,sgd\n", "swept:\n- optim\n- seed\n", "job: 3\n"] {
        assert!(plan.contains(part), "{part}\n---\n{plan}");
    }
    let csv = demo.read("result/s/summary.csv");
    let rows: Vec<Vec<&str>> = csv.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(
        rows[0],
        ["job", "optim", "seed", "status", "seconds", "test.ndcg@10", "test.ndcg@10_ci_low", "test.ndcg@10_ci_high"]
    );
    assert_eq!((rows.len(), &rows[4][..4], rows[4][5]), (5, &["3", "sgd", "3", "done"][..], "0.75"));
    // adam: 0.5 and 1.5, mean 1, sample deviation √0.5 = 0.7071; sgd is half of that.
    assert!(ended.out.contains("optim=adam  n=2  test.ndcg@10 1.0000 ± 0.7071"), "{}", ended.out);
    assert!(ended.out.contains("optim=sgd   n=2  test.ndcg@10 0.5000 ± 0.3536"), "{}", ended.out);
}

#[test]
fn globs_ranges_and_flags_reach_the_jobs() {
    let demo = Demo::new();
    let other = demo.at("other/optim");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("lion.yaml"), "lr: 4\n").unwrap();
    let ended =
        demo.run(&["-m", "--config-dir", "other", "optim=glob(*)", "optim.lr=range(0.5,1.5,0.5)", "run.dir=result/s"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let csv = demo.read("result/s/summary.csv");
    let swept: Vec<String> =
        csv.lines().skip(1).map(|l| l.split(',').skip(1).take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(swept, ["adam 0.5", "adam 1.0", "lion 0.5", "lion 1.0", "sgd 0.5", "sgd 1.0"]);
}

#[test]
fn a_bad_job_stops_everything_before_job_0() {
    let demo = Demo::new();
    for (words, wanted) in [
        (
            &["-m", "optim.lr=1,0,-1"][..],
            "error: optim.lr: must be above 0, got 0 (override 1: `optim.lr=0`) [job #1 (optim.lr=0)]\n\
             error: optim.lr: must be above 0, got -1 (override 1: `optim.lr=-1`) [job #2 (optim.lr=-1)]\n",
        ),
        (
            &["-m", "seed=1,2", "step=1"],
            "error: unknown key `step` (override 2: `step=1`)\n  hint: did you mean `steps`?\n",
        ),
        (&["-m", "seed=glob(*)"], "error: `seed` is not a group (override 1: `seed=glob(*)`)\n"),
        (&["-m", "optim=glob(x*)"], "error: optim: glob(x*) matches no option; available: adam, sgd\n"),
        (&["-m", "run.dir=a,b"], "error: `run.dir` cannot be swept (override 1: `run.dir=a,b`)\n"),
        (&["-m", "seed=1,2", "seed=3,4"], "error: `seed` is swept twice (override 2: `seed=3,4`)\n"),
        (
            &["-m", "seed=1,2", "run.dir=x_${seed}"],
            "error: run.dir: differs between the jobs: x_1 and x_2 [job #1 (seed=2)]\n",
        ),
    ] {
        let ended = demo.run(words);
        assert!(ended.err.starts_with(wanted), "{words:?}\n{}", ended.err);
        assert_eq!(ended.code, Some(2));
    }
    assert!(!demo.at("result").exists());
}

#[test]
fn failures_do_not_stop_the_rest_and_are_told_twice() {
    let demo = Demo::new();
    let ended = demo.run(&["-m", "end=error,panic,abort,done", "seed=1,2", "steps=1", "run.dir=result/s"]);
    assert_eq!(ended.code, Some(1));
    let lines: Vec<&str> = ended.err.lines().collect();
    let at = lines.iter().position(|l| *l == "sweep: 6 of 8 jobs failed, results in result/s").expect("closing table");
    let table = &lines[at + 1..];
    assert_eq!(table.len(), 6, "{table:?}");
    assert!(
        table[0].starts_with("  #0  end=error seed=1   non-finite loss at step 40")
            && table[0].ends_with("   0/run.log"),
        "{table:?}"
    );
    assert!(table[2].contains("#2  end=panic seed=1   internal error: index 9 out of range"), "{table:?}");
    assert!(table[4].contains("#4  end=abort seed=1   ended by signal 6"), "{table:?}");
    assert!(lines[..at].contains(&"error: #0 failed: non-finite loss at step 40   0/run.log"), "told when it happens");
    assert!(demo.read("result/s/4/run.log").contains("ended by signal 6"));
    let csv = demo.read("result/s/summary.csv");
    let status: Vec<&str> = csv.lines().skip(1).map(|l| l.split(',').nth(3).unwrap()).collect();
    assert_eq!(status, ["failed", "failed", "failed", "failed", "failed", "failed", "done", "done"]);
    assert!(ended.out.contains("end=done  n=2  test.ndcg@10 0.7500"), "{}", ended.out);
}

#[test]
fn two_sweeps_in_the_same_second_get_two_folders() {
    let demo = Demo::new();
    // A name without the time, so that they collide whatever the clock does.
    let words = ["-m", "seed=1,2", "steps=1", "run.dir=result/x"];
    let children: Vec<_> = (0..2).map(|_| demo.command(&words).spawn().unwrap()).collect();
    for child in children {
        let ended = said(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.err);
    }
    let results = demo.results();
    assert_eq!(results, ["x", "x-2"]);
    for result in results {
        assert_eq!(demo.read(&format!("result/{result}/summary.csv")).lines().count(), 3);
        assert!(demo.at(&format!("result/{result}/1/metrics/test.json")).exists());
    }
}

#[test]
fn an_interrupt_stops_the_sweep_and_marks_the_rest() {
    let demo = Demo::new();
    let child = demo.command(&["-m", "seed=1,2,3", "steps=1000", "sleep_ms=20", "run.dir=result/s"]).spawn().unwrap();
    let start = Instant::now();
    while !demo.at("result/s/0/last_step").exists() {
        assert!(start.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(20));
    }
    // SAFETY: the process was started here and has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let ended = said(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    let csv = demo.read("result/s/summary.csv");
    let status: Vec<&str> = csv.lines().skip(1).map(|l| l.split(',').nth(2).unwrap()).collect();
    assert_eq!(status, ["interrupted", "not run", "not run"]);
    assert!(ended.err.contains("sweep: interrupted; 1 of 3 jobs failed or stopped, 2 not run"), "{}", ended.err);
    assert!(demo.read("result/s/0/run.yaml").contains("status: interrupted"), "the job saved its work");
    // The job can be continued, and `latest` finds it inside the sweep.
    let ended = demo.run(&["--resume", "latest", "steps=2"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let ended = demo.run(&["--resume", "result/s"]);
    assert!(
        ended
            .err
            .starts_with("error: result/s is a sweep, not a run\n  hint: name one of its jobs, such as result/s/0"),
        "{}",
        ended.err
    );
}

#[test]
fn a_sweep_can_start_from_a_run() {
    let demo = Demo::new();
    demo.run(&["optim=sgd", "steps=1", "run.dir=result/a"]);
    let ended = demo.run(&["--from", "latest", "-m", "seed=2,4", "run.dir=result/s"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(demo.read("result/s/1/metrics/test.json").contains("\"ndcg@10\": 1.0"));
}
