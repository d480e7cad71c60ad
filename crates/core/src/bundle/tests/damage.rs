//! Every damage is one message with the file and, where there is one, the row; nothing is loaded.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::data::{Column, write_parquet};

fn whole() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    write(&folder, &[0, 1, 2, 3, 4, 5, 6]);
    (dir, folder)
}

fn refused(folder: &Path, parts: &[&str]) {
    let error = Bundle::open_for_training(folder, &dataset(), Wanted::ALL).unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
    assert!(!text.contains('\n') && error.hint().is_some(), "one line and a hint: {text}");
}

/// Changes the manifest.
fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join(MANIFEST_FILE);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Makes size and checksum of a file fit again: damage that a faulty writer would make.
fn seal(folder: &Path, file: &str) {
    let info = FileInfo::of(&folder.join(file)).unwrap();
    edit(folder, |m| m["files"][file] = json!({"bytes": info.bytes, "sha256": info.sha256}));
}

/// A lists' file with these rows instead, its checksum right.
fn with_rows(change: impl FnOnce(&mut Lists)) -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, folder) = whole();
    let mut lists = Lists::new(3);
    (0..7).for_each(|row| lists.append(&list_of(row)));
    change(&mut lists);
    let column = |place: usize| lists.items.iter().skip(place).step_by(3).copied().collect();
    let far = |place: usize| lists.distances.iter().skip(place).step_by(3).copied().collect();
    let mut columns = vec![("row".to_owned(), Column::U32(lists.rows.clone()))];
    columns.extend((0..3).map(|k| (format!("item_{k}"), Column::U32(column(k)))));
    columns.extend((0..3).map(|k| (format!("distance_{k}"), Column::F32(far(k)))));
    columns.push(("true_item_rank".to_owned(), Column::U32(lists.true_ranks.clone())));
    columns.push(("true_item_distance".to_owned(), Column::F32(lists.true_distances.clone())));
    write_parquet(&folder.join(RANKINGS_FILE), columns).unwrap();
    seal(&folder, RANKINGS_FILE);
    (dir, folder)
}

#[test]
fn the_helper_writes_what_the_loader_takes() {
    let (_dir, folder) = with_rows(|_| ());
    Bundle::open_for_training(&folder, &dataset(), Wanted::ALL).unwrap();
}

#[test]
fn files_missing_truncated_longer_changed() {
    for file in [RANKINGS_FILE, EMBEDDINGS_FILE] {
        let (_dir, folder) = whole();
        let path = folder.join(file);
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() / 2]).unwrap();
        refused(&folder, &[file, "is truncated", "the manifest says"]);
        fs::write(&path, [&content[..], b"x"].concat()).unwrap();
        refused(&folder, &[file, "is longer than it was"]);
        let mut changed = content.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        fs::write(&path, changed).unwrap();
        refused(&folder, &[file, "was changed: its sha256"]);
        fs::remove_file(&path).unwrap();
        let error = Bundle::open(&folder, None).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    refused(&dir.path().join("none"), &["is no teacher bundle: there is no such folder"]);
    refused(dir.path(), &["is no teacher bundle: there is no manifest.json"]);
}

/// A truncated file whose checksum was made to fit is still no table.
#[test]
fn sealed_garbage_is_an_error_and_no_crash() {
    let (_dir, folder) = whole();
    for file in [RANKINGS_FILE, EMBEDDINGS_FILE] {
        let content = fs::read(folder.join(file)).unwrap();
        for len in [0, 3, 11, content.len() / 2, content.len() - 1] {
            fs::write(folder.join(file), &content[..len]).unwrap();
            seal(&folder, file);
            refused(&folder, &[file]);
        }
        fs::write(folder.join(file), &content).unwrap();
        seal(&folder, file);
    }
}

#[test]
fn manifests() {
    let cases: &[(&str, Value, &[&str])] = &[
        ("/schema_version", json!(2), &["schema_version: wanted 1, got 2"]),
        ("/dataset/hash", json!("e".repeat(64)), &["same items, but other rows", "eeee", "dddd"]),
        ("/dataset/items_hash", json!("2".repeat(64)), &["other items", "2222", "1111"]),
        ("/position", json!("valid"), &["position: the lists were made for the valid rows"]),
        ("/position", json!("test"), &["position: the lists were made for the test rows"]),
        ("/position", json!("dev"), &["position", "unknown variant `dev`"]),
        ("/lists/top_n", json!(9), &["lists.top_n: wanted 1 to 8"]),
        ("/lists/rows", json!(6), &["selection is null", "6 of 7"]),
        ("/confidence/unit", json!("similarity"), &["confidence.unit", "similarity"]),
        ("/embeddings/n_items", json!(9), &["embeddings: wanted [8 items"]),
        ("/embeddings/dim", json!(3), &[EMBEDDINGS_FILE, "[8, 2]", "[8 items, 3]"]),
        ("/files", json!({}), &["files: there is no checksum of rankings.parquet"]),
    ];
    for (at, value, parts) in cases {
        let (_dir, folder) = whole();
        edit(&folder, |m| *m.pointer_mut(at).unwrap() = value.clone());
        refused(&folder, &[&[MANIFEST_FILE][..usize::from(*at != "/embeddings/dim")], parts].concat());
    }
    let (_dir, folder) = whole();
    edit(&folder, |m| m["extra"] = json!(1));
    refused(&folder, &["unknown field `extra`"]);
    fs::write(folder.join(MANIFEST_FILE), "{\"schema_version\": 1,").unwrap();
    refused(&folder, &["is not whole JSON"]);
    // lists of other positions open for other uses, but never for training
    let (_dir, folder) = whole();
    edit(&folder, |m| m["position"] = json!("valid"));
    Bundle::open(&folder, None).unwrap();
}

/// A damage, and what the message holds.
type Case = (fn(&mut Lists), &'static [&'static str]);

#[test]
fn lists() {
    let cases: [Case; 13] = [
        (|l| l.rows.swap(2, 3), &["row 2 (line 3 of the file, from 0)", "rows must ascend; the row before it is 3"]),
        (|l| l.rows[3] = 2, &["row 2 (line 3", "stands there twice"]),
        (|l| l.rows[6] = 7, &["row 7 (line 6", "the data set has rows 0..7"]),
        (|l| l.items[4] = 8, &["row 1 (line 1", "item_1 is 8, but the catalogue has items 0..8"]),
        (|l| l.items[4] = l.items[3], &["row 1", "stands twice in the list"]),
        (|l| l.distances[7] = f32::NAN, &["row 2", "distance_1 is NaN"]),
        (|l| l.distances[7] = f32::INFINITY, &["row 2", "distance_1 is inf"]),
        (|l| l.distances[6] = -0.5, &["row 2", "distance_0 is -0.5"]),
        (|l| l.distances[7] = 10.0, &["row 2", "distance_2 is 9.25, less than 10"]),
        (|l| (l.items[9], l.distances[9]) = (u32::MAX, f32::INFINITY), &["row 3", "the list is empty"]),
        (|l| l.items[10] = u32::MAX, &["row 3", "behind the end of the list at item_1"]),
        (|l| l.true_ranks[5] = 9, &["row 5", "true_item_rank 9"]),
        (|l| l.true_ranks[5] = 0, &["row 5", "true_item_rank 0 with true_item_distance 0.5"]),
    ];
    for (change, parts) in cases {
        let (_dir, folder) = with_rows(change);
        refused(&folder, &[&[RANKINGS_FILE][..], parts].concat());
    }
    let (_dir, folder) = with_rows(|l| {
        l.rows.pop();
        l.items.truncate(18);
        l.distances.truncate(18);
        l.true_ranks.pop();
        l.true_distances.pop();
    });
    refused(&folder, &[RANKINGS_FILE, "has 6 rows, the manifest says 7"]);
}

#[test]
fn what_the_manifest_rules_out_may_not_stand_in_a_list() {
    // row 0: history 0, list 0 3 5; row 1 has history 0 1
    let (_dir, folder) = whole();
    edit(&folder, |m| m["lists"]["exclude_history"] = json!(true));
    refused(&folder, &["row 0 (line 0", "item 0 is of the history"]);
    // row 2: target 3, list 2 5 7; row 3: target 6, list 3 6 0
    let (_dir, folder) = whole();
    edit(&folder, |m| m["lists"]["target_may_appear"] = json!(false));
    refused(&folder, &["row 3 (line 3", "the list holds the target"]);
}

#[test]
fn item_vectors() {
    let (_dir, folder) = whole();
    let wrong = |vectors: Tensor, parts: &[&str]| {
        let mut params = crate::torch::Params::new(tch::Device::Cpu);
        let _ = params.add_buffer("item_embeddings", vectors).unwrap();
        crate::torch::save_model(&folder.join(EMBEDDINGS_FILE), &params, &Default::default()).unwrap();
        seal(&folder, EMBEDDINGS_FILE);
        refused(&folder, &[&[EMBEDDINGS_FILE][..], parts].concat());
    };
    wrong(Tensor::zeros([8, 3], (Kind::Float, tch::Device::Cpu)), &["[8, 3]", "wanted [8 items, 2]"]);
    wrong(Tensor::zeros([7, 2], (Kind::Float, tch::Device::Cpu)), &["[7, 2]"]);
    let bad = vectors();
    let _ = bad.get(5).get(1).fill_(f64::NAN);
    wrong(bad, &["the vector of item 5 is not finite at place 1"]);
}

#[test]
fn another_data_set_is_named() {
    let (_dir, folder) = whole();
    let mut other = dataset();
    other.name = "large".into();
    other.items_hash = "9".repeat(64);
    let error = Bundle::open_for_training(&folder, &other, Wanted::ALL).unwrap_err();
    assert!(error.hint().unwrap().contains("dataset=small"), "{error}");
}
