//! Bundles that must not teach: one message that says what and where, and nothing is trained.

use std::{collections::BTreeMap, fs, path::Path};

use anyo_core::{
    bundle::{Bundle, EMBEDDINGS_FILE, FileInfo, MANIFEST_FILE, RANKINGS_FILE},
    data::{Column, write_parquet},
    torch::{load_tensors, tensor_file::save_tensors},
};
use serde_json::Value;

use super::{EXPORT, Project, distill, run, with_bundle};

/// Fails with all of `parts`, and leaves no weights and no checkpoint.
fn refused(project: &Project, words: &[&str], parts: &[&str]) {
    let _ = fs::remove_dir_all(project.at("result/bad"));
    distill(project, &[&["run.dir=result/bad"], words].concat()).failed(1, parts);
    let files = project.files("result/bad");
    let trained = files.iter().filter(|file| file.starts_with("models/") || file.starts_with("checkpoints/"));
    assert_eq!(trained.count(), 0, "{files:?}");
}

/// Makes the manifest say of `file` what is there now: a fault that the checksum would hide behind.
fn sign(bundle: &Path, file: &str) {
    let path = bundle.join(MANIFEST_FILE);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let info = FileInfo::of(&bundle.join(file)).unwrap();
    manifest["files"][file] = serde_json::to_value(info).unwrap();
    fs::write(&path, serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
}

#[test]
fn no_bundle_and_bundles_of_other_data() {
    let project = Project::new();
    refused(&project, &[], &["teacher_run=latest: no run under result/ has a bundle for the training rows of toy"]);
    let project = with_bundle();
    refused(&project, &["teacher_run=nowhere"], &["teacher_run: there is no folder nowhere"]);
    refused(&project, &["teacher_run=result/student"], &["result/student holds no finished bundle"]);
    refused(&project, &["dataset.toy.seed=7"], &["no run under result/ has a bundle"]);
    refused(
        &project,
        &["dataset.toy.seed=7", "teacher_run=result/bundle"],
        &["manifest.json", "the bundle was made for"],
    );
    // Lists for the rows that the student is tested on.
    run(&project, EXPORT, &["result/student", "threads=1", "run.dir=result/valid", "export.position=valid"]).done();
    refused(&project, &["teacher_run=result/valid"], &["made for the valid rows"]);
}

#[test]
fn damaged_files_are_named() {
    let project = with_bundle();
    let bundle = project.at("result/bundle/bundle");
    let whole: BTreeMap<&str, Vec<u8>> = [RANKINGS_FILE, EMBEDDINGS_FILE, MANIFEST_FILE]
        .map(|file| (file, fs::read(bundle.join(file)).unwrap()))
        .into_iter()
        .collect();
    let restore = || whole.iter().for_each(|(file, bytes)| fs::write(bundle.join(file), bytes).unwrap());
    for file in [RANKINGS_FILE, EMBEDDINGS_FILE] {
        let bytes = &whole[file];
        fs::write(bundle.join(file), &bytes[..bytes.len() / 2]).unwrap();
        refused(&project, &[], &[file]);
        sign(&bundle, file);
        refused(&project, &[], &[file]);
        restore();
    }
    // Vectors of another width, of another number of items, and not finite.
    let tensors = load_tensors(&bundle.join(EMBEDDINGS_FILE)).unwrap();
    let vectors = &tensors["item_embeddings"];
    let narrow = vectors.narrow(1, 0, 4).contiguous();
    let few = vectors.narrow(0, 0, 59).contiguous();
    let nan = vectors.copy();
    let _ = nan.get(7).fill_(f64::NAN);
    for (tensor, parts) in [
        (&narrow, vec![EMBEDDINGS_FILE, "[60, 4]"]),
        (&few, vec![EMBEDDINGS_FILE, "[59, 16]"]),
        (&nan, vec![EMBEDDINGS_FILE, "item 7 is not finite"]),
    ] {
        save_tensors(&bundle.join(EMBEDDINGS_FILE), &[("item_embeddings", tensor)], &BTreeMap::new()).unwrap();
        sign(&bundle, EMBEDDINGS_FILE);
        refused(&project, &[], &parts);
        restore();
    }
    distill(&project, &["run.dir=result/good"]).done();
}

/// The columns of a lists' file, to be changed as no writer of ours would.
struct Table(Vec<(String, Column)>);

impl Table {
    fn of(bundle: &Bundle) -> Self {
        let (n, k) = (bundle.n_rows(), bundle.top_n());
        let list = |row: usize| bundle.rankings(row).unwrap();
        let mut columns = vec![("row".to_owned(), Column::U32((0..n as u32).collect()))];
        let items = |place: usize| Column::U32((0..n).map(|row| list(row).0[place]).collect());
        let far = |place: usize| Column::F32((0..n).map(|row| list(row).1[place]).collect());
        columns.extend((0..k).map(|place| (format!("item_{place}"), items(place))));
        columns.extend((0..k).map(|place| (format!("distance_{place}"), far(place))));
        let truth = |row: usize| bundle.true_rank(row).unwrap();
        columns.push(("true_item_rank".into(), Column::U32((0..n).map(|row| truth(row).0).collect())));
        columns.push(("true_item_distance".into(), Column::F32((0..n).map(|row| truth(row).1).collect())));
        Self(columns)
    }

    fn column(&mut self, name: &str) -> &mut Column {
        &mut self.0.iter_mut().find(|(column, _)| column == name).unwrap().1
    }

    fn whole(&mut self, name: &str) -> &mut Vec<u32> {
        match self.column(name) {
            Column::U32(values) => values,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn float(&mut self, name: &str) -> &mut Vec<f32> {
        match self.column(name) {
            Column::F32(values) => values,
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn lists_that_cannot_be_are_refused_with_their_row() {
    let project = with_bundle();
    let bundle = project.at("result/bundle/bundle");
    let path = bundle.join(RANKINGS_FILE);
    let whole = (fs::read(&path).unwrap(), fs::read(bundle.join(MANIFEST_FILE)).unwrap());
    let good = Bundle::open(&bundle, None).unwrap();
    type Change = fn(&mut Table);
    let changes: [(&str, Change, &[&str]); 6] = [
        ("out of range", |t| t.whole("item_0")[5] = 900, &["row 5", "item_0 is 900", "0..60"]),
        ("twice", |t| t.whole("item_1")[6] = t.whole("item_0")[6], &["row 6", "stands twice"]),
        ("NaN", |t| t.float("distance_2")[7] = f32::NAN, &["row 7", "distance_2 is NaN"]),
        ("negative", |t| t.float("distance_0")[7] = -1.0, &["row 7", "distance_0 is -1"]),
        ("reordered", |t| t.whole("row").swap(3, 4), &["rows must ascend"]),
        ("row twice", |t| t.whole("row")[4] = 3, &["row 3", "stands there twice"]),
    ];
    for (what, change, parts) in changes {
        let mut table = Table::of(&good);
        change(&mut table);
        write_parquet(&path, table.0).unwrap();
        sign(&bundle, RANKINGS_FILE);
        refused(&project, &[], parts);
        eprintln!("{what}: refused");
        fs::write(&path, &whole.0).unwrap();
        fs::write(bundle.join(MANIFEST_FILE), &whole.1).unwrap();
    }
}

#[test]
fn rows_without_teacher_output_are_counted_or_refused() {
    let project = with_bundle();
    run(&project, EXPORT, &["result/student", "threads=1", "run.dir=result/some", "export.rows=50"]).done();
    let told = distill(&project, &["run.dir=result/d", "teacher_run=result/some"]).done();
    assert!(
        told.err.contains("50 of ") && told.err.contains("have none and learn without the teacher"),
        "{}",
        told.err
    );
    assert!(project.read("result/d/run.yaml").contains("labelled: 50"));
    refused(&project, &["teacher_run=result/some", "distill.missing=error"], &["rows have no teacher output: rows"]);
    refused(&project, &["teacher_run=result/some", "distill.top_k=30"], &["distill.top_k: 30", "lists have 20 items"]);
}
