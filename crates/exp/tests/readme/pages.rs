//! What pages say beside commands: links, names, files and keys.

use std::{fs, path::Path};

use super::{root, run_binary};

/// All files below `folder`, relative.
fn files_below(folder: &Path, base: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, base, found);
        } else {
            found.push(path.strip_prefix(base).unwrap().to_string_lossy().into_owned());
        }
    }
}

#[test]
fn the_overview_names_every_file_and_key_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    run_binary("run-student-baseline", &["run.dir=r".to_owned()], folder.path()).unwrap();
    let page = fs::read_to_string(root().join("docs/specification/00_overview.md")).unwrap();
    let words: Vec<&str> = page.split(|c: char| !c.is_alphanumeric() && !"_.-".contains(c)).collect();
    let run = folder.path().join("r");
    let mut files = Vec::new();
    files_below(&run, &run, &mut files);
    assert!(files.len() > 12, "{files:?}");
    for file in files.iter().filter(|file| !file.starts_with("tb/")) {
        let name = file.rsplit('/').next().unwrap();
        assert!(words.contains(&name), "00_overview.md does not name {file}");
    }
    let record = fs::read_to_string(run.join("run.yaml")).unwrap();
    let mut keys: Vec<String> =
        record.lines().filter_map(|l| l.split_once(':')).map(|(key, _)| key.to_owned()).collect();
    keys.retain(|key| !key.starts_with([' ', '-']));
    let state = files.iter().find(|file| file.ends_with("state.json")).unwrap();
    for file in ["metrics/time.json", state] {
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(run.join(file)).unwrap()).unwrap();
        keys.extend(json.as_object().unwrap().keys().cloned());
    }
    for key in keys {
        assert!(words.contains(&key.as_str()), "00_overview.md does not name the key {key}");
    }
}

/// Every page of the documentation.
fn pages() -> Vec<String> {
    let specification = fs::read_dir(root().join("docs/specification")).unwrap();
    let names = specification.map(|e| format!("docs/specification/{}", e.unwrap().file_name().to_string_lossy()));
    let fixed = ["README.md", "data/README.md", "docs/implement.md"].map(str::to_owned);
    fixed.into_iter().chain(names.filter(|name| name.ends_with(".md"))).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let beside = root().join(&page).parent().unwrap().join(target);
            if !target.is_empty() && !target.contains("://") && !beside.exists() {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_readme_names_every_data_set_and_student() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    for group in ["dataset", "student"] {
        for entry in fs::read_dir(root().join("conf").join(group)).unwrap() {
            let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
            assert!(text.contains(&format!("`{name}`")), "README.md does not name {group}={name}");
        }
    }
}
