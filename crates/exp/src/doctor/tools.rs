//! The programs that the scripts call.

use std::process::{Command, Stdio};

use super::Report;

pub(super) fn check(report: &mut Report) {
    match output_of("rustc", &["--version"]) {
        Some(version) => report.ok("rust", version),
        None => report.note("rust", "rustc is not on the path", Some("needed to build again: https://rustup.rs")),
    }
    match output_of("c++", &["--version"]) {
        Some(version) => report.ok("c++", first_line(&version)),
        None => {
            report.note("c++", "no C++ compiler", Some("needed to build again (Debian: apt install build-essential)"))
        }
    }
    match (output_of("python3", &["--version"]), output_of("python3", &["-m", "pip", "--version"])) {
        (Some(python), Some(pip)) => {
            let pip: Vec<_> = pip.split_whitespace().take(2).collect();
            report.ok("python", format!("{python}, {}", pip.join(" ")));
        }
        (Some(python), None) => {
            report.note(
                "python",
                format!("{python} without pip"),
                Some("pip fetches libtorch (Debian: apt install python3-pip)"),
            );
        }
        (None, _) => {
            report.note("python", "no python3", Some("needed only to fetch libtorch and to run the peers' benchmarks"))
        }
    }
    match output_of("cargo", &["nextest", "--version"]) {
        Some(version) => report.ok("nextest", first_line(&version)),
        None => report.note(
            "nextest",
            "not installed: cmd/test.sh uses cargo test",
            Some("cargo install cargo-nextest --locked"),
        ),
    }
    match output_of("git", &["--version"]) {
        Some(version) => report.ok("git", version),
        None => report.note("git", "not on the path: runs cannot record the commit", Some("install git")),
    }
}

/// What a program prints on stdout, trimmed; nothing when it is missing, fails, or prints nothing.
pub(super) fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_failing_program_gives_nothing() {
        assert_eq!(output_of("no-such-program-anyo", &[]), None);
        assert_eq!(output_of("false", &[]), None);
        assert_eq!(output_of("echo", &["a b"]).as_deref(), Some("a b"));
    }
}
