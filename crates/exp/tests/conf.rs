//! Every file under `conf/` composes with the configuration of its binary, and every key says what it is.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyo_core::config::{SearchPath, list_groups};
use anyo_exp::compose::compose_conf;

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf")
}

/// Every YAML file below `conf/`, relative to it.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![conf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(conf()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_option_composes_with_its_binary() {
    let told = compose_conf(&conf());
    let wrong: Vec<String> =
        told.iter().filter_map(|(name, result)| Some(format!("{name}: {}", result.as_ref().err()?))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let groups: BTreeMap<String, Vec<String>> = list_groups(&SearchPath::new([conf()])).into_iter().collect();
    let n = |group: &str| groups[group].len();
    assert!(n("dataset") >= 10 && n("student") >= 8, "{groups:?}");
    // Alone; each data set with the default student; each student on the default data set; each of its experiments.
    let own = |name: &&String| {
        let text = fs::read_to_string(conf().join(format!("experiment/{name}.yaml"))).unwrap();
        text.lines().any(|line| line == "# app: run-student-baseline")
    };
    let wanted = 1 + n("dataset") + n("student") + groups["experiment"].iter().filter(own).count();
    let student = told.iter().find(|(name, _)| name == "run-student-baseline");
    assert_eq!(student.map(|(_, n)| n), Some(&Ok(wanted)));
    // run-student-baseline, run-distill, run-teacher, run-eval-all, export-bundle, import-bundle, export-student, and the subcommands of run-lm
    assert_eq!(told.len(), 7 + anyo_exp::run_lm::primaries().count());
    // No file lies outside.
    let mut known: BTreeSet<String> = told.iter().map(|(name, _)| format!("{name}.yaml")).collect();
    known.extend(groups.iter().flat_map(|(g, options)| options.iter().map(move |option| format!("{g}/{option}.yaml"))));
    assert_eq!(files().into_iter().collect::<BTreeSet<_>>(), known);
}

#[test]
fn a_stale_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for file in files() {
        let path = folder.path().join(&file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = fs::read_to_string(conf().join(&file)).unwrap();
        let text = if file == "student/caser.yaml" { text.replace("dropout:", "drop_out:") } else { text };
        fs::write(path, text).unwrap();
    }
    fs::write(folder.path().join("run-other.yaml"), "seed: 1\n").unwrap();
    let told = compose_conf(folder.path());
    let of = |wanted: &str| told.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
    assert_eq!(of("run-other"), Err("no program of this version reads it".to_owned()));
    let problem = of("run-student-baseline").unwrap_err();
    assert!(problem.contains("student=caser: unknown key `student.drop_out` (from "), "{problem}");
}

/// Keys without a word about them: printed only, since the header of a file may explain them all.
#[test]
fn keys_have_comments() {
    for file in files() {
        let text = fs::read_to_string(conf().join(&file)).unwrap();
        let mut bare = Vec::new();
        let mut above = false;
        for line in text.lines() {
            let key = line
                .split_once(':')
                .map(|(key, _)| key.trim())
                .filter(|key| !key.starts_with('#') && !key.starts_with('-'));
            let Some(key) = key else {
                above = line.trim_start().starts_with('#');
                continue;
            };
            if !above && !line.contains(" #") && !line.trim_end().ends_with(':') {
                bare.push(key.to_owned());
            }
            above = false;
        }
        if !bare.is_empty() {
            eprintln!("conf/{file}: no comment on or above {}", bare.join(", "));
        }
        assert!(text.starts_with('#'), "conf/{file}: its first line says what it is");
    }
}

fn binary(folder: &Path, words: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_run-student-baseline"))
        .args(words)
        .env("ANYO_CONF", conf().canonicalize().unwrap())
        .env("OMP_WAIT_POLICY", "passive")
        .current_dir(folder)
        .output()
        .unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_and_origins() {
    let folder = tempfile::tempdir().unwrap();
    let help = stdout(&binary(folder.path(), &words("--help")));
    for part in ["--resume RUN", "dataset=amazon-beauty, ", "student=caser, ", "experiment=", "train:", "# rows"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let origins = stdout(&binary(folder.path(), &words("--cfg job --origin student=gru4rec train.epochs=7")));
    let origin = |key: &str| {
        let line = origins.lines().find(|line| line.trim_start().starts_with(&format!("{key}:")));
        line.and_then(|line| line.split_once("# ")).map(|(_, origin)| origin.trim().to_owned())
    };
    assert_eq!(origin("epochs").unwrap(), "override 2: `train.epochs=7`");
    assert!(origin("d_model").unwrap().ends_with("student/gru4rec.yaml"), "{origins}");
    assert!(origin("batch_size").unwrap().ends_with("run-student-baseline.yaml"), "{origins}");
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "looking makes nothing");
}

/// The words of a `#   run: cargo run … --bin run-student-baseline -- WORDS` line; none of them needs quotes.
fn documented(line: &str) -> Option<Vec<String>> {
    let command =
        line.trim_start_matches('#').trim().strip_prefix("run: cargo run --release --bin run-student-baseline")?;
    Some(words(command.trim().trim_start_matches("-- ")))
}

/// The commands of README.md and docs/ have a test of their own.
#[test]
fn commands_in_comments_compose() {
    let folder = tempfile::tempdir().unwrap();
    let mut n = 0;
    for file in files() {
        for line in fs::read_to_string(conf().join(&file)).unwrap().lines() {
            let Some(mut words) = documented(line) else { continue };
            n += 1;
            // Of a sweep the first job; without its data it can only be composed.
            let sweep = words.iter().any(|w| w == "-m");
            words.retain(|w| w != "-m");
            if sweep {
                words.iter_mut().for_each(|w| *w = w.split(',').next().unwrap().to_owned());
            }
            words.extend(["--cfg".to_owned(), "job".to_owned()]);
            let output = binary(folder.path(), &words);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !told.contains("still to be given"), "conf/{file}: {line}\n{told}");
        }
    }
    assert!(n >= 3, "only {n} commands were found");
}
