//! Tests of the whole way from configuration and files to a data set.

mod bad;
mod caching;
mod formats;
mod real;
mod toy;

use std::path::{Path, PathBuf};

use super::{DataConfig, Dataset, DatasetConfig, load};
use crate::{Result, config::Check};

/// `conf/dataset/<name>.yaml` with some keys changed: `("filter.user_core", "5")`.
fn shipped(name: &str, changes: &[(&str, &str)]) -> DatasetConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/dataset").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut tree: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    for (key, value) in changes {
        let mut at = &mut tree;
        for part in key.split('.') {
            at = at.get_mut(part).unwrap_or_else(|| panic!("{name} has no key {key}"));
        }
        *at = serde_yaml::from_str(value).unwrap();
    }
    serde_yaml::from_value(tree).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn data(root: &Path, cache: Option<&Path>) -> DataConfig {
    DataConfig { root: root.to_owned(), cache: cache.map(Path::to_owned) }
}

fn load_from(config: &DatasetConfig, root: &Path) -> Result<Dataset> {
    load(config, &data(root, None), &mut |_| {})
}

/// A folder with one file.
fn folder(name: &str, content: impl AsRef<[u8]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), content).unwrap();
    folder
}

/// The shared real data, or `None` with a printed reason.
fn shared(folder: &str) -> Option<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    if root.join(folder).is_dir() {
        return Some(root.to_owned());
    }
    eprintln!("skipped: {} is not there", root.join(folder).display());
    None
}

/// Titles of a row's items.
fn ids(data: &Dataset, items: &[u32]) -> Vec<String> {
    items.iter().map(|&item| data.items[item as usize].id.clone()).collect()
}

#[test]
fn every_shipped_file_is_complete_and_in_range() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/dataset");
    let mut n = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let config = shipped(&name, &[]);
        assert_eq!(config.name, name);
        assert_eq!(config.problems(), [], "{name}");
        // every key of the structs is written out: what is written back has no key that the file lacks
        let written: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(serde_yaml::to_value(&config).unwrap(), written, "{name}");
        n += 1;
    }
    assert_eq!(n, 10);
}

#[test]
fn ranges_are_reported_together() {
    let bad = shipped(
        "movielens-100k",
        &[
            ("name", "a/b"),
            ("columns.user", "null"),
            ("split.fractions", "[0.8, 0.3, 0.1]"),
            ("split.window", "0"),
            ("text.separator", "''"),
            ("filter.max_history", "0"),
            ("columns.rating", "null"),
            ("filter.min_rating", "3"),
        ],
    );
    let keys: Vec<String> = bad.problems().into_iter().map(|p| p.key).collect();
    assert_eq!(
        keys,
        [
            "name",
            "text.separator",
            "filter.min_rating",
            "filter.max_history",
            "split.fractions",
            "split.window",
            "columns.user"
        ]
    );
    let error = load_from(&bad, Path::new("nowhere")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let keys = |config: DatasetConfig| config.problems().into_iter().map(|p| p.key).collect::<Vec<_>>();
    assert_eq!(
        keys(shipped("lastfm", &[("windows", "null"), ("filter.catalogue", "interactions")])),
        ["windows", "filter.catalogue"]
    );
    assert_eq!(keys(shipped("lastfm", &[("split.kind", "temporal")])), ["split.kind"]);
    assert_eq!(keys(shipped("toy", &[("toy", "null")])), ["toy"]);
    assert_eq!(keys(shipped("amazon-beauty", &[("path", "null")])), ["path"]);
    assert_eq!(DataConfig { root: "".into(), cache: Some("".into()) }.problems().len(), 2);
}
