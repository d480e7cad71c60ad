//! `anyo-doctor` as a person starts it.
#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    path::Path,
    process::{Command, Output},
};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anyo-doctor")).args(arguments).output().unwrap()
}

#[test]
fn it_names_the_loaded_libtorch_in_json_and_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("result").display().to_string();
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    std::fs::create_dir_all(folder.path().join("conf")).unwrap();
    let conf = if conf.is_dir() { conf } else { folder.path().join("conf") }.display().to_string();
    let output = doctor(&["--json", "--result", &result, "--data", &result, "--conf", &conf]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = json["lines"].as_array().unwrap();
    let libtorch = lines.iter().find(|line| line["topic"] == "libtorch").unwrap();
    assert_eq!(libtorch["level"], "ok", "{libtorch}");
    assert!(libtorch["message"].as_str().unwrap().starts_with("2.11.0, loaded from /"), "{libtorch}");
    let problems = lines.iter().filter(|line| line["level"] == "problem").count();
    assert_eq!(json["problems"], problems);
    assert_eq!(output.status.code(), Some(i32::from(problems > 0)));
    assert!(
        lines.iter().all(|line| line["level"] != "problem" || line["hint"].is_string()),
        "every problem has a hint"
    );

    let words = doctor(&["--result", &result, "--data", &result, "--conf", &conf]);
    let words = String::from_utf8_lossy(&words.stdout);
    assert!(words.contains("ok       libtorch     2.11.0, loaded from /"), "{words}");
}

#[test]
fn a_missing_conf_folder_is_a_problem_with_exit_code_1() {
    let output = doctor(&["--conf", "/no/such/folder"]);
    let words = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("problem  conf         /no/such/folder is not a folder"), "{words}");
}

#[test]
fn a_wrong_flag_is_exit_code_2() {
    assert_eq!(doctor(&["--jsn"]).status.code(), Some(2));
}
