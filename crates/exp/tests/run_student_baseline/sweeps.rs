//! Sweeps of real trainings.

use crate::project::{Project, SMALL, said};

/// The table of a `summary.csv`.
fn table(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn check_summary(project: &Project, sweep: &str, n_jobs: usize) {
    let table = table(&project.read(&format!("{sweep}/summary.csv")));
    assert_eq!(table.len(), n_jobs + 1, "{table:?}");
    let column =
        |name: &str| table[0].iter().position(|c| c == name).unwrap_or_else(|| panic!("no {name}: {:?}", table[0]));
    for (job, row) in table[1..].iter().enumerate() {
        assert_eq!((row[column("job")].as_str(), row[column("status")].as_str()), (job.to_string().as_str(), "done"));
        for (part, key) in [("test", "ndcg@10"), ("valid", "hr@10"), ("test", "n_users")] {
            let want = project.json(&format!("{sweep}/{job}/metrics/{part}.json"))[key].as_f64().unwrap();
            let got: f64 = row[column(&format!("{part}.{key}"))].parse().unwrap();
            assert!((got - want).abs() < 1e-12, "{part}.{key} of job {job}: {got} against {want}");
        }
        let low: f64 = row[column("test.ndcg@10_ci_low")].parse().unwrap();
        assert_eq!(low, project.json(&format!("{sweep}/{job}/metrics/test.json"))["ndcg@10_ci"][0].as_f64().unwrap());
        let config = project.read(&format!("{sweep}/{job}/config.yaml"));
        assert!(config.contains(&format!("seed: {}\n", row[column("seed")])), "{config}");
    }
}

#[test]
fn two_sweeps_of_the_same_second_end_in_two_folders() {
    let project = Project::new();
    // A name without the time, so that they collide whatever the clock does.
    let words = [SMALL, &["-m", "train.epochs=1", "seed=1,2", "run.dir=result/s"]].concat();
    let children: Vec<_> = (0..2).map(|_| project.start(&words)).collect();
    for child in children {
        let ended = said(child).done();
        assert!(ended.out.contains("test.ndcg@10 0."), "mean over the seeds: {}", ended.out);
    }
    for sweep in ["result/s", "result/s-2"] {
        check_summary(&project, sweep, 2);
    }
    assert!(!project.at("result/s-3").exists());
    // Both did the same work.
    let weights = |sweep: &str, job: usize| project.bytes(&format!("{sweep}/{job}/models/student.safetensors"));
    assert_eq!(weights("result/s", 1), weights("result/s-2", 1));
    assert_ne!(weights("result/s", 0), weights("result/s", 1));
}

#[test]
fn a_failing_job_is_named_and_the_others_are_kept() {
    let project = Project::new();
    let words = ["-m", "student.optim.lr=1e30,1e-3", "run.dir=result/s"];
    let ended = project.small(&words);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("sweep: 1 of 2 jobs failed"), "{}", ended.err);
    assert!(ended.err.contains("the loss is NaN"), "{}", ended.err);
    let table = table(&project.read("result/s/summary.csv"));
    let status: Vec<&str> = table[1..].iter().map(|row| row[2].as_str()).collect();
    assert_eq!(status, ["failed", "done"], "{table:?}");
    assert!(project.json("result/s/1/metrics/test.json")["ndcg@10"].is_number());
}
