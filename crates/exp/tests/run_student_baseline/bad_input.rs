//! Every mistake: one clear message, the documented exit code, nothing lost, no trace of a panic.

use std::fs;

use crate::project::{Project, SMALL};

/// Words for a CSV file with `user,item,time`.
fn csv(extra: &[&'static str]) -> Vec<&'static str> {
    let words = [
        "dataset=table",
        "dataset.path=my.csv",
        "dataset.columns={user: user, item: item, time: time}",
        "student.d_model=16",
        "student.max_len=10",
        "train.epochs=2",
        "train.batch_size=8",
        "eval.bootstrap=20",
        "threads=1",
    ];
    [&words[..], extra].concat()
}

/// 30 users of 6 interactions with 20 items.
fn good() -> String {
    let row = |i: usize| format!("u{},i{},{}\n", i / 6, (i / 6 * 5 + i % 6 * 3) % 20, 100 + i);
    "user,item,time\n".to_owned() + &(0..180).map(row).collect::<String>()
}

#[test]
fn mistakes_in_words_end_with_2_and_make_nothing() {
    let project = Project::new();
    for (words, parts) in [
        (&["train.epoch=3"][..], &["unknown key `train.epoch`", "did you mean `train.epochs`?"][..]),
        (&["student.d_modle=8"], &["unknown key `student.d_modle`", "did you mean `student.d_model`?"]),
        (&["dataset=movielens-100"], &["no option `movielens-100`", "movielens-100k, movielens-1m", "did you mean"]),
        (&["students=gru4rec"], &["unknown key `students`", "did you mean `student`?"]),
        (&["train.epochs=many"], &["train.epochs: expected a whole number", "got \"many\""]),
        (&["train.batch_size=2.5"], &["train.batch_size: expected a whole number", "2.5"]),
        (&["student.loss.name=bpr"], &["student.loss.name: expected one of bce, ce, sampled_softmax, gbce", "\"bpr\""]),
        (&["train.batch_size=0"], &["train.batch_size: wanted at least 1, got 0"]),
        (&["eval.ks=[0,10]"], &["eval.ks: K must be at least 1, got 0"]),
        (&["eval.ks=[10,5]"], &["eval.ks: must ascend without repeats, got [10, 5]"]),
        (
            &["train.metric=ndcg@7"],
            &["train.metric: wanted hr, recall, ndcg or mrr at a K of eval.ks", "hint: train.metric=ndcg@10"],
        ),
        (&["dtype=bfloat16"], &["dtype: the students compute in float32"]),
        (&["device=tpu"], &["device: ", "tpu"]),
        (&["student.n_heads=3"], &["student.n_heads: must divide d_model 50, got 3"]),
        (
            &["student=caser", "student.rows=every_position"],
            &["student.rows: caser sees whole windows: wanted last_position"],
        ),
        (&["dataset.split.kind=given"], &["dataset.split.kind: `given` goes with `format: windows`"]),
        (&["dataset=table"], &["dataset.path", "dataset.columns.user", "must be given"]),
        (&["--resume", "result/none"], &["result/none: there is no such run folder", "hint: make one with"]),
        (&["--seed=3"], &["there is no flag `--seed`", "hint: write seed=3"]),
        (&["seed=1,2"], &["`seed=1,2` is a sweep", "hint: to sweep add -m"]),
    ] {
        project.run(words).failed(2, parts);
    }
    let said = project.run(&["train.epoch=3", "student.d_model=ten", "eval.ks=[0,10]"]);
    assert_eq!((said.code, said.err.matches("error: ").count()), (Some(2), 3), "all in one report: {}", said.err);
    assert!(!project.at("result").exists(), "nothing was started");
}

#[test]
fn a_k_beyond_the_catalogue_is_told_with_its_size() {
    let project = Project::new();
    let said = project.small(&["eval.ks=[1,10,500]", "run.dir=result/r"]);
    said.failed(1, &["eval.ks: K = 500 is larger than the catalogue of 60 items", "hint: use K between 1 and 60"]);
    assert!(project.read("result/r/run.yaml").contains("status: failed"));
}

#[test]
fn missing_data_names_the_place_and_the_command() {
    let project = Project::new();
    for (words, parts) in [
        (
            &["dataset=movielens-100k", "data.root=nowhere"][..],
            &["nowhere/movielens-100k/u.data: not found", "cmd/download_data.sh movielens-100k", "data.root=PATH"][..],
        ),
        (&["dataset=movielens-1m"], &["data/movielens-1m/ratings.dat: not found", "cmd/download_data.sh movielens-1m"]),
        (&["dataset=lastfm", "data.root=nowhere"], &["nowhere/llara-lastfm/", "not found", "data.root=PATH"]),
    ] {
        project.run(words).failed(1, parts);
    }
    project.run(&csv(&[])).failed(1, &["my.csv: not found", "data.root=PATH"]);
}

#[test]
fn bad_files_name_the_line() {
    let project = Project::new();
    let good = good();
    // Cut in the middle of the last line, as a broken download is.
    let cut = good.rsplit_once(',').unwrap().0;
    for (text, parts) in [
        (
            cut.to_owned(),
            &["my.csv line 181: ", "column `time` (columns.time) is empty", "hint: is the file whole"][..],
        ),
        (
            good.clone() + "u1,i2,noon\n",
            &["my.csv line 182: column `time` (columns.time): wanted a number, got `noon`"],
        ),
        (good.replace(',', ";"), &["my.csv line 1: no column `user`", "dataset.text.separator"]),
        (
            good.replacen("user,item", "uid,item", 1),
            &["my.csv line 1: no column `user` (columns.user)", "uid, item, time"],
        ),
        ("user,item,time\n".into(), &["my.csv: has no rows"]),
        (String::new(), &["my.csv: the file is empty"]),
    ] {
        project.write("my.csv", &text);
        let said = project.run(&csv(&["run.dir=result/r"]));
        said.failed(1, parts);
    }
}

#[test]
fn too_little_data_says_what_took_it_away() {
    let project = Project::new();
    project.write("my.csv", &good());
    let parts =
        ["data set `table` is empty after filtering", "user_core=1000", "hint: weaken the option that removed most"];
    project.run(&csv(&["dataset.filter.user_core=1000"])).failed(1, &parts);
    // One user with one interaction among others has no rows and disturbs nobody.
    project.write("my.csv", &(good() + "lonely,i1,500\n"));
    let said = project.run(&csv(&["run.dir=result/one"])).done();
    assert!(said.err.contains("31 users, 20 items, 30 training, 30 validation, 30 test rows"), "{}", said.err);
    assert!(project.read("result/one/run.yaml").contains("users_with_1_no_rows: 1\n"));
    // Nobody has more than one.
    let lonely: String = (0..30).map(|i| format!("u{i},i{},{i}\n", i % 7)).collect();
    project.write("my.csv", &format!("user,item,time\n{lonely}"));
    project.run(&csv(&[])).failed(1, &["the split leaves no training rows", "hint: "]);
    // Two are enough to train on, not to be tested.
    let two: String = (0..60).map(|i| format!("u{},i{},{i}\n", i / 2, i % 7)).collect();
    project.write("my.csv", &format!("user,item,time\n{two}"));
    project.run(&csv(&[])).failed(1, &["no ", " rows", "hint: "]);
}

#[test]
fn a_result_folder_that_cannot_be_written() {
    let project = Project::new();
    // Root may write anywhere, so the obstacle is a file where a folder should be, and /proc.
    project.write("file", "");
    project.small(&["run.dir=file/r"]).failed(1, &["file: cannot make the folder for runs: "]);
    project.small(&["run.dir=/proc/anyo"]).failed(1, &["/proc/anyo: cannot make the run folder: "]);
    project.small(&["-m", "seed=1,2", "run.dir=file/s"]).failed(1, &["file: cannot make the folder for runs: "]);
    assert_eq!(project.files(""), ["file"], "nothing else was made");
    // A cache that cannot be written costs time and no more.
    let said = project.small(&["data.cache=file/c", "run.dir=result/r"]).done();
    assert!(said.err.contains("the processed data cannot be kept"), "{}", said.err);
}

#[test]
fn a_loss_that_is_not_finite_names_the_step_and_keeps_the_record() {
    let project = Project::new();
    let said = project.small(&["student.optim.lr=1e30", "run.dir=result/r"]);
    said.failed(1, &["error: step ", "the loss is ", "hint: lower the learning rate"]);
    let record = project.read("result/r/run.yaml");
    assert!(record.contains("status: failed") && record.contains("the loss is"), "{record}");
}

#[test]
fn a_model_beyond_memory_is_one_message() {
    let project = Project::new();
    for word in ["student.d_model=2000000000", "student.max_len=100000000000"] {
        project
            .small(&[word])
            .failed(1, &["no memory for parameter `", "GiB are free", "hint: choose a smaller model"]);
    }
}

#[test]
fn data_changed_since_the_checkpoint_is_refused() {
    let project = Project::new();
    project.write("my.csv", &good());
    project.run(&csv(&["run.dir=result/r"])).done();
    let weights = project.bytes("result/r/models/student.safetensors");
    // Same items, another row.
    project.write("my.csv", &(good() + "u1,i2,900\n"));
    let parts = ["result/r/checkpoints/step_", "same items, but other rows", "both are dataset=table", "train anew"];
    project.run(&["--resume", "result/r", "train.epochs=3"]).failed(1, &parts);
    // Another item.
    project.write("my.csv", &(good() + "u1,new,900\n"));
    project.run(&["--resume", "result/r"]).failed(1, &["other items: these have the hash "]);
    assert!(project.bytes("result/r/models/student.safetensors") == weights, "the old weights are untouched");
    // With the data as it was, the run goes on.
    project.write("my.csv", &good());
    project.run(&["--resume", "result/r", "train.epochs=3"]).done();
    // All checkpoints gone bad: it says so and starts anew rather than from rubbish.
    for name in project.checkpoints("result/r") {
        fs::write(project.at(&format!("result/r/checkpoints/{name}/state.json")), "{}").unwrap();
    }
    let said = project.run(&["--resume", "result/r"]).done();
    assert!(said.err.contains("skipping a checkpoint that cannot be used"), "{}", said.err);
    assert!(said.err.contains("no checkpoint yet: starting from the beginning"), "{}", said.err);
}

#[test]
fn a_run_of_another_kind_or_a_sweep_cannot_be_resumed() {
    let project = Project::new();
    project.small(&["-m", "seed=1,2", "train.epochs=1", "run.dir=result/s"]).done();
    project
        .run(&["--resume", "result/s"])
        .failed(2, &["result/s is a sweep, not a run", "name one of its jobs, such as result/s/0"]);
    project.run(&["--resume", "result/s/0"]).done();
    fs::create_dir_all(project.at("result/empty")).unwrap();
    project.run(&["--from", "result/empty"]).failed(2, &["is no run folder: it holds no config.yaml"]);
    let broken = project.read("result/s/1/config.yaml").replace("seed: 2", "seed: two");
    project.write("result/s/1/config.yaml", &broken);
    project.run(&[&["--from", "result/s/1"], &SMALL[..1]].concat()).failed(2, &["seed", "two"]);
}
