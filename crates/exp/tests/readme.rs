//! No command that a person copies from README.md or docs/ is stale: binaries are run, made small by further overrides,
//! scripts are checked to exist, and any other form of command fails.
//!
//! Commands stand in ```bash blocks. Those on real data are run where `../shared/data` is there, else skipped with a
//! printed reason.
#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

#[path = "readme/commands.rs"]
mod commands;
#[path = "readme/pages.rs"]
mod pages;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use commands::{Form, PYTHON, commands, form, words};

/// What makes a training run small: one epoch over the last interactions of the busiest users.
const SMALL: &[&str] = &[
    "train.epochs=1",
    "train.valid_rows=50",
    "dataset.filter.user_core=40",
    "dataset.filter.max_history=8",
    "baselines.item_knn.neighbours=20",
    "eval.bootstrap=10",
    "threads=1",
    "data.cache=cache",
];
/// For students that are trained: the warm-up of a long recipe is longer than one small epoch.
const SMALL_TRAINED: &str = "student.optim.schedule.warmup_steps=0";
/// For teachers: a language model of one layer, a few steps of everything.
const SMALL_TEACHER: &[&str] = &[
    "dataset.filter.user_core=40",
    "dataset.filter.max_history=8",
    "encoder.train.epochs=1",
    "builtin.histories=20",
    "builtin.model.vocab_size=400",
    "builtin.model.d_model=16",
    "builtin.model.n_layers=1",
    "builtin.model.n_heads=1",
    "builtin.model.n_kv_heads=1",
    "builtin.model.seq_len=1536",
    "builtin.model.batch=1",
    "builtin.model.steps=1",
    "teacher.train.batch_size=2",
    "teacher.train.max_steps=1",
    "teacher.train.valid_rows=10",
    "eval.bootstrap=10",
    "choice.rows=1",
    "export.rows=10",
    "threads=1",
    "data.cache=cache",
];

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn shared_data() -> Option<PathBuf> {
    fs::canonicalize(root().join("../shared/data")).ok()
}

fn source_of(binary: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/bin/{binary}.rs"))
}

/// Checks a script: it is there, may be executed where it must, and knows the data sets that it is asked for.
fn check_script(script: &str, args: &[String], sourced: bool) -> Result<(), String> {
    let path = root().join(script);
    let meta = fs::metadata(&path).map_err(|e| format!("{script}: {e}"))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if !sourced && meta.permissions().mode() & 0o111 == 0 {
            return Err(format!("{script} cannot be executed: chmod +x"));
        }
    }
    if script == "cmd/download_data.sh" {
        let text = fs::read_to_string(&path).unwrap();
        for name in args.iter().filter(|a| !a.starts_with('-') && !["list", "all"].contains(&a.as_str())) {
            if !text.contains(&format!("\n        {name})")) {
                return Err(format!("{script} does not know `{name}`"));
            }
        }
    }
    Ok(())
}

/// `a=1,2,3` of a sweep with its last value, `seed` with its last two; other words as they are.
fn few(word: &str) -> String {
    match word.split_once('=') {
        Some((key, value)) if !value.contains(['[', '{', '(']) => {
            let keep = if key == "seed" { 2 } else { 1 };
            let values: Vec<&str> = value.split(',').collect();
            format!("{key}={}", values[values.len().saturating_sub(keep)..].join(","))
        }
        _ => word.to_owned(),
    }
}

/// The arguments that are run instead of `args`, or why nothing is.
fn shrunken(binary: &str, args: &[String], folder: &Path, data: Option<&Path>) -> Result<Vec<String>, &'static str> {
    let has = |word: &str| args.iter().any(|a| a == word);
    let looks_only = ["--help", "--version", "--cfg", "--info", "-h", "-V"].iter().any(|flag| has(flag));
    if binary == "import-bundle" {
        // its lists are the reader's own
        return Ok(args.iter().cloned().chain(["--cfg", "job"].map(str::to_owned)).collect());
    }
    if binary == "run-eval-all" {
        // its runs are the reader's own, or many; tests/run_eval_all makes and compares small ones
        return Ok(args
            .iter()
            .filter(|a| *a != "--resume" && *a != "latest")
            .cloned()
            .chain(["--cfg", "job"].map(str::to_owned))
            .collect());
    }
    if ["recommend", "export-bundle", "export-student"].contains(&binary) || has("--from") || has("--resume") {
        let earlier = folder.join("result").is_dir();
        // these take the small sizes over from the run that they name
        return if earlier { Ok(args.to_vec()) } else { Err("no earlier run, because the data is not there") };
    }
    if looks_only || !binary.starts_with("run-") {
        return Ok(args.to_vec());
    }
    if binary == "run-lm" || (binary == "run-teacher" && args.iter().any(|a| a.starts_with("teacher.lm="))) {
        return language_model(args, data);
    }
    let real = |a: &str| match a.split_once('=') {
        Some(("dataset", name)) => !["toy", "table", "recbole"].contains(&name),
        Some((key, _)) => key == "+experiment",
        None => false,
    };
    if data.is_none() && args.iter().any(|a| real(a)) {
        return Err("../shared/data is not there");
    }
    if binary == "run-teacher" {
        let data = data.map(|data| format!("data.root={}", data.display()));
        return Ok(args.iter().cloned().chain(SMALL_TEACHER.iter().map(|&w| w.to_owned())).chain(data).collect());
    }
    let sweep = has("-m") || has("--multirun");
    let mut small: Vec<String> = args.iter().map(|a| if sweep { few(a) } else { a.clone() }).collect();
    small.extend(SMALL.iter().map(|&w| w.to_owned()));
    if !args.iter().any(|a| a.starts_with("student=") && (a.contains("popularity") || a.contains("item_knn"))) {
        small.push(SMALL_TRAINED.to_owned());
    }
    small.extend(data.map(|data| format!("data.root={}", data.display())));
    Ok(small)
}

/// A command on a language model: those that train the built-in one, or read a folder that a person downloaded, only
/// compose.
fn language_model(args: &[String], data: Option<&Path>) -> Result<Vec<String>, &'static str> {
    let names = |key: &str| args.iter().find_map(|a| a.strip_prefix(key));
    if args.iter().any(|a| a.contains("../shared/data")) && data.is_none() {
        return Err("../shared/data is not there");
    }
    let heavy = match args.first().map(String::as_str) {
        Some("pretrain") => true,
        Some("convert") => false,
        _ => names("model=").is_none_or(|model| model == "builtin" || model.starts_with("path/")),
    };
    let mut args: Vec<String> = match data {
        Some(data) => args.iter().map(|a| a.replace("../shared/data", &data.display().to_string())).collect(),
        None => args.to_vec(),
    };
    if heavy {
        args.extend(["--cfg", "job"].map(str::to_owned));
    }
    Ok(args)
}

/// 60 users of 45 of 50 items, for `dataset.path=NAME.csv` with the columns that the documents use.
fn write_table(path: &Path) {
    let mut text = String::from("uid,sku,ts\n");
    for user in 0..60 {
        for i in 0..45 {
            writeln!(text, "u{user},s{},{}", (user * 7 + i * 3) % 50, user * 100 + i).unwrap();
        }
    }
    fs::write(path, text).unwrap();
}

/// The same command with one value for each swept key, only composed.
fn composed(args: &[String]) -> Vec<String> {
    let words = args.iter().filter(|a| !["-m", "--multirun"].contains(&a.as_str()));
    let last = |a: &String| match few(a) {
        // `few` leaves two seeds
        word if word.starts_with("seed=") => format!("seed={}", word.rsplit([',', '=']).next().unwrap_or_default()),
        word => word,
    };
    words.map(last).chain(["--cfg", "job"].map(str::to_owned)).collect()
}

fn run_binary(binary: &str, args: &[String], folder: &Path) -> Result<String, String> {
    if !source_of(binary).is_file() {
        return Err(format!("there is no binary `{binary}`"));
    }
    let args = match shrunken(binary, args, folder, shared_data().as_deref()) {
        Ok(args) => args,
        Err(reason) => return Ok(format!("skipped: {reason}")),
    };
    for path in args.iter().filter_map(|a| a.strip_prefix("dataset.path=")) {
        write_table(&folder.join(path));
    }
    // beside a binary whose place cargo tells: the name of the one wanted is only known now
    let program = Path::new(env!("CARGO_BIN_EXE_run-student-baseline")).with_file_name(binary);
    let started = std::time::Instant::now();
    let output = Command::new(program)
        .args(&args)
        .current_dir(folder)
        .env("ANYO_CONF", root().join("conf"))
        .env("OMP_WAIT_POLICY", "passive")
        .output()
        .map_err(|e| format!("{binary}: {e}"))?;
    let code = output.status.code();
    // anyo-doctor ends with 1 where this machine lacks something, which is no fault of the document
    if code == Some(0) || (binary == "anyo-doctor" && code == Some(1)) {
        return Ok(format!("ran in {:.1} s", started.elapsed().as_secs_f64()));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("`{binary} {}` ended with {code:?}:\n{}{}", args.join(" "), text(&output.stdout), text(&output.stderr)))
}

/// Runs or checks every command of `file` in one new folder, in the order of the page; `compose` only composes.
fn check(file: &str, compose: bool) {
    let folder = tempfile::tempdir().unwrap();
    let lines = commands(file);
    assert!(!lines.is_empty(), "{file} has no ```bash block any more");
    let mut wrong = Vec::new();
    for line in lines {
        let words = words(&line.text);
        let outcome = form(&words).and_then(|form| match form {
            Form::Binary(name, args) if compose => run_binary(&name, &composed(&args), folder.path()),
            Form::Binary(name, args) => run_binary(&name, &args, folder.path()),
            Form::Script(script, args) => {
                let read = words[0] == "source" || PYTHON.contains(&words[0].as_str());
                check_script(&script, &args, read).map(|()| "is there".to_owned())
            }
            Form::Foreign => Ok("not ours".to_owned()),
        });
        match outcome {
            Ok(how) => eprintln!("{}: {}: {how}", line.place, words.join(" ")),
            Err(why) => wrong.push(format!("{}: {}\n    {why}", line.place, line.text.trim())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_commands_of_the_readme_work() {
    check("README.md", false);
}

#[test]
fn the_commands_of_the_configuration_specification_work() {
    check("docs/specification/05_configuration.md", false);
}

#[test]
fn the_commands_of_the_memo_compose() {
    check("docs/implement.md", true);
}

#[test]
fn an_unknown_command_is_noticed() {
    let form = |line: &str| form(&words(line));
    assert!(form("make all").is_err());
    assert!(form("cargo run --bin run-student-baseline").is_err(), "without --release it is slow");
    let args = ["a=[x, 'y z']", "b=1"].map(str::to_owned).to_vec();
    let want = Form::Binary("run-student-baseline".into(), args);
    assert_eq!(form(r#"run-student-baseline "a=[x, 'y z']" b=1   # why"#), Ok(want));
    assert!(run_binary("run-nothing", &[], Path::new(".")).unwrap_err().contains("run-nothing"));
    assert!(check_script("cmd/nothing.sh", &[], false).is_err());
    assert!(check_script("cmd/download_data.sh", &["movielens-7".to_owned()], false).is_err());
    assert!(check_script("cmd/download_data.sh", &["movielens-1m".to_owned()], false).is_ok());
    let args = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let skipped = |words: &str| shrunken("run-x", &args(words), Path::new("nowhere"), None).is_err();
    assert!(skipped("dataset=movielens-1m") && skipped("-m +experiment=long") && skipped("--resume latest"));
    assert!(!skipped("dataset=toy") && !skipped("dataset=movielens-1m --cfg job"));
    assert_eq!((few("seed=1,2,3"), few("student=a,b")), ("seed=2,3".into(), "student=b".into()));
    assert_eq!(few("eval.ks=[1,5,10]"), "eval.ks=[1,5,10]");
}
