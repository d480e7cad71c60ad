//! The shell scripts, as far as they run without a network, a GPU or a container engine.
#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn scripts() -> Vec<PathBuf> {
    let mut found = vec![root().join(".ci/run")];
    for folder in ["cmd", "cmd/tests", "env_shell"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sh") {
                found.push(path);
            }
        }
    }
    found
}

/// Runs `script` from another folder, as a user may.
fn run(script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new("bash")
        .arg(root().join(script))
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_script_parses() {
    let scripts = scripts();
    assert!(scripts.len() >= 8, "{scripts:?}");
    for script in scripts {
        let output = Command::new("bash").arg("-n").arg(&script).output().unwrap();
        assert!(output.status.success(), "{}: {}", script.display(), text(&output));
    }
}

/// Runs one of the shell tests, which end with 77 where a program that they need is missing.
fn shell_test(name: &str) {
    let output = run(&format!("cmd/tests/{name}"), &[], &[]);
    match output.status.code() {
        Some(0) => {}
        Some(77) => eprintln!("{name}: {}", text(&output).trim()),
        code => panic!("{name} ended with {code:?}:\n{}", text(&output)),
    }
}

#[test]
fn what_the_quickstart_starts_composes() {
    let shell = r#"eval "$(grep '^stages=(' cmd/quickstart.sh)"; "$0" --cfg job "${stages[@]}" 'seeds=[1]'"#;
    let output = Command::new("bash")
        .args(["-c", shell, env!("CARGO_BIN_EXE_run-eval-all")])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for part in ["dllm2rec: []", "listwise: [distill=listwise]", "seeds: [1]"] {
        assert!(text(&output).contains(part), "{part} in {}", text(&output));
    }
}

#[test]
fn downloads_resume_and_are_checked() {
    shell_test("download_data.sh");
}

#[test]
fn libtorch_setup_explains_what_is_missing() {
    shell_test("setup_libtorch.sh");
}

#[test]
fn the_container_is_started_with_what_the_machine_has() {
    shell_test("container.sh");
}

#[test]
fn help_needs_nothing() {
    for script in [
        "cmd/quickstart.sh",
        "cmd/test.sh",
        "cmd/download_data.sh",
        "env_shell/setup_libtorch.sh",
        "env_shell/start_experiment_container.sh",
    ] {
        let output = run(script, &["--help"], &[]);
        assert!(output.status.success(), "{script}: {}", text(&output));
        assert!(text(&output).contains(script), "{script}: its help names it: {}", text(&output));
        assert!(!text(&output).contains("set -euo"), "{script}: {}", text(&output));
    }
}
