//! The configuration folder and the data sets whose files are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyo_core::config::{value::Value, yaml};

use super::{ComposeAll, Report};

/// `given`, else `conf/` here or in a parent, else the one beside the sources that this program was built from.
pub(super) fn conf_folder(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return given.is_dir().then(|| given.to_owned());
    }
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf")).to_owned();
    here.ancestors().map(|parent| parent.join("conf")).chain([built]).find(|folder| folder.join("dataset").is_dir())
}

pub(super) fn check(report: &mut Report, conf: &Path, data: &Path, compose: Option<ComposeAll>) {
    match compose.map(|compose| compose(conf)) {
        None => report.ok("conf", conf.display().to_string()),
        Some(primaries) => {
            for (name, result) in &primaries {
                if let Err(error) = result {
                    report.problem(
                        "conf",
                        format!("{name} cannot be composed: {error}"),
                        "mend the file, or fetch it again with git",
                    );
                }
            }
            let good = primaries.iter().filter(|(_, result)| result.is_ok()).count();
            report.ok("conf", format!("{}: {good} of {} applications compose", conf.display(), primaries.len()));
        }
    }
    for (name, needs) in options(&conf.join("dataset")) {
        check_data_set(report, &name, needs, data);
    }
}

/// What one data set reads.
#[derive(Debug, Default, PartialEq)]
struct Needs {
    /// Files relative to the data folder.
    files: Vec<String>,
    /// Read when the first of `files` is missing.
    alternative: Option<String>,
    /// Its name for `cmd/download_data.sh`.
    download: Option<String>,
    /// The user gives the path: nothing to look for.
    open: bool,
}

/// Every option of the group, sorted by name: what it reads, or why its file cannot be read.
fn options(folder: &Path) -> Vec<(String, Result<Needs, String>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let shown = path.file_name().unwrap_or_default().to_string_lossy();
        (name, yaml::read(path, &shown).map(|value| needs(&value)).map_err(|problem| problem.to_string()))
    };
    files.iter().map(read).collect()
}

fn needs(config: &Value) -> Needs {
    let text = |key: &str| config.at(key).and_then(Value::as_str).map(str::to_owned);
    let mut needs = Needs { alternative: text("alternative.path"), download: text("download"), ..Needs::default() };
    let paths = ["path", "items.path", "windows.train", "windows.valid", "windows.test"];
    for path in paths.into_iter().filter_map(text) {
        match path.as_str() {
            "???" => needs.open = true,
            "auto" => {}
            _ => needs.files.push(path),
        }
    }
    needs
}

fn check_data_set(report: &mut Report, name: &str, needs: Result<Needs, String>, data: &Path) {
    let topic = "data set";
    let needs = match needs {
        Ok(needs) => needs,
        Err(error) => {
            return report.problem(topic, format!("conf/dataset/{name}.yaml cannot be read: {error}"), "mend the file");
        }
    };
    if needs.open {
        return report.ok(topic, format!("{name}: reads the file that dataset.path=PATH names"));
    }
    let there = |file: &str| data.join(file).is_file();
    let replaced = |at: usize| at == 0 && needs.alternative.as_deref().is_some_and(there);
    let missing: Vec<_> = needs
        .files
        .iter()
        .enumerate()
        .filter(|&(at, file)| !there(file) && !replaced(at))
        .map(|(_, file)| file.as_str())
        .collect();
    if needs.files.is_empty() {
        report.ok(topic, format!("{name}: generated, needs no file"));
    } else if missing.is_empty() {
        report.ok(topic, format!("{name}: all files are there"));
    } else {
        let hint = match &needs.download {
            Some(download) => format!("cmd/download_data.sh {download}"),
            None => "see data/README.md for where it comes from, or give data.root=PATH".to_owned(),
        };
        report.note(topic, format!("{name}: {} not in {}", missing.join(", "), data.display()), Some(&hint));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    fn look(yaml: &str, present: &[&str]) -> (Level, String, Option<String>) {
        let base = tempfile::tempdir().unwrap();
        let (conf, data) = (base.path().join("conf"), base.path().join("data"));
        fs::create_dir_all(conf.join("dataset")).unwrap();
        fs::write(conf.join("dataset/x.yaml"), yaml).unwrap();
        for file in present {
            let path = data.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut report = Report::default();
        check(&mut report, &conf, &data, None);
        let line = &report.lines[1];
        (line.level, line.message.replace(&data.display().to_string(), "DATA"), line.hint.clone())
    }

    const ONE: &str =
        "path: m/r.dat\nalternative: {path: m/s.tsv}\nitems: {path: m/i.dat}\ndownload: m\nwindows: null\n";

    #[test]
    fn missing_files_are_a_note_with_the_command_that_fetches_them() {
        let (level, message, hint) = look(ONE, &["m/r.dat"]);
        assert_eq!((level, message.as_str()), (Level::Note, "x: m/i.dat not in DATA"));
        assert_eq!(hint.as_deref(), Some("cmd/download_data.sh m"));
        assert_eq!(look(ONE, &["m/r.dat", "m/i.dat"]).0, Level::Ok);
        assert_eq!(look(ONE, &["m/s.tsv", "m/i.dat"]).0, Level::Ok, "the alternative counts");
    }

    #[test]
    fn generated_and_open_data_sets_need_nothing() {
        assert_eq!(look("path: null\nitems: null\n", &[]).1, "x: generated, needs no file");
        assert_eq!(look("path: ???\nitems: {path: auto}\n", &[]).1, "x: reads the file that dataset.path=PATH names");
        assert_eq!(look("path: null\nwindows: {train: a, valid: b, test: c}\n", &["a", "b"]).1, "x: c not in DATA");
    }

    #[test]
    fn a_broken_file_is_a_problem() {
        assert_eq!(look("path: [", &[]).0, Level::Problem);
    }

    #[test]
    fn every_primary_that_does_not_compose_is_named() {
        let base = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        let compose: ComposeAll = |_| vec![("run-a".into(), Ok(())), ("run-b".into(), Err("unknown key `x`".into()))];
        check(&mut report, base.path(), base.path(), Some(compose));
        assert_eq!(report.lines[0].message, "run-b cannot be composed: unknown key `x`");
        assert!(report.lines[1].message.ends_with("1 of 2 applications compose"), "{report}");
    }
}
