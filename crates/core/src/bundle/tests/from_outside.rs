//! Lists of others: tables, DLLM2Rec's three files, vectors of torch.save.

use std::fs;

use super::{
    table::{Given, ItemIds, RowIds, TableOptions},
    *,
};

fn options(row: RowIds, item: ItemIds, confidence: Given) -> TableOptions {
    TableOptions { separator: None, header: false, row, item, confidence, top_n: None }
}

fn read(name: &str, text: &str, position: Position, options: &TableOptions) -> crate::Result<Imported> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    table::read(&path, &dataset(), position, options)
}

#[test]
fn forms_of_a_table() {
    let by_number = options(RowIds::Number, ItemIds::Index, Given::None);
    let plain = read("a.tsv", "0\t3\t4\n2\t7\n", Position::Train, &by_number).unwrap().lists;
    assert_eq!((&plain.rows[..], plain.top_n), (&[0, 2][..], 2));
    assert_eq!((plain.padded(0), list_len(plain.padded(1).0)), ((&[3, 4][..], &[0., 1.][..]), 1));
    let mut scores = options(RowIds::User, ItemIds::Id, Given::Score);
    scores.header = true;
    let by_user = read("a.csv", "u,items,s\nbob,\"[101, 104]\",\"2.5 1\"\n", Position::Valid, &scores).unwrap().lists;
    assert_eq!((&by_user.rows[..], by_user.padded(0)), (&[1][..], (&[1, 4][..], &[0., 1.5][..])));
    let wide = options(RowIds::Number, ItemIds::Index, Given::Distance);
    let wide = read("a.txt", "5 1 2.0 0.25 7e-1\n", Position::Train, &wide).unwrap().lists;
    assert_eq!(wide.padded(0), (&[1, 2][..], &[0.25, 0.7][..]));
    // what a bundle's own file holds is a table too
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("b"), &[0, 1, 2, 3, 4, 5, 6]);
    let options = options(RowIds::Number, ItemIds::Index, Given::Distance);
    let path = dir.path().join("b").join(RANKINGS_FILE);
    let again = table::read(&path, &dataset(), Position::Train, &options).unwrap().lists;
    assert_eq!((again.len(), again.padded(4)), (7, list_of(4).padded(0)));
}

#[test]
fn a_bad_line_is_named() {
    let none = options(RowIds::Number, ItemIds::Index, Given::None);
    let far = options(RowIds::Number, ItemIds::Index, Given::Distance);
    let score = options(RowIds::Number, ItemIds::Index, Given::Score);
    let ids = options(RowIds::User, ItemIds::Id, Given::None);
    let cases: [(&str, &TableOptions, Position, &str); 12] = [
        ("0\t1\n7\t1\n", &none, Position::Train, "a.tsv line 2: row 7: the data set has rows 0..7"),
        ("x\t1\n", &none, Position::Train, "line 1: row x"),
        ("0\t1\n0\t2\n", &none, Position::Train, "line 2: row 0: it stands there twice"),
        ("0\t8\n", &none, Position::Train, "line 1: row 0: item 8: the catalogue has items 0..8"),
        ("0\t1\t1\n", &none, Position::Train, "item 1 stands twice"),
        ("0\t1\n\n1\t1\t2\n", &none, Position::Train, "line 3: row 1: 2 items, the first list has 1"),
        ("0\t1\tnan\n", &far, Position::Train, "distance_0 is NaN"),
        ("0\t1\t2\t0.5\t0.25\n", &far, Position::Train, "distance_1 is 0.25, less than 0.5"),
        ("0\t1\t2\t0.5\n", &far, Position::Train, "not as many numbers as items"),
        ("0\t1\t2\t0.5\t0.75\n", &score, Position::Train, "score 0.75 at place 1 is above 0.5"),
        ("dan\t101\n", &ids, Position::Valid, "user dan: the data set has no such user"),
        ("ann\t101\n", &ids, Position::Train, "user ann: has 3 targets at this position"),
    ];
    for (text, options, position, want) in cases {
        let error = read("a.tsv", text, position, options).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(error.hint().is_some());
    }
    assert!(read("a.tsv", "", Position::Train, &none).unwrap_err().to_string().contains("has no rows"));
    assert!(read("a.parquet", "no", Position::Train, &none).unwrap_err().to_string().contains("Parquet"));
}

#[test]
fn lists_for_other_positions_import_but_never_teach() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let by_user = options(RowIds::User, ItemIds::Id, Given::None);
    let imported = read("a.tsv", "ann\t104\t105\nbob\t100\t101\n", Position::Test, &by_user).unwrap();
    let manifest = write_imported(&folder, &dataset(), Position::Test, "list", imported).unwrap();
    assert!(manifest.lists.exclude_history && manifest.selection.is_null());
    let bundle = Bundle::open(&folder, Some(&dataset())).unwrap();
    // targets 4 and 1: found first and second
    assert_eq!((bundle.true_rank(0), bundle.true_rank(1)), (Some((1, 0.0)), Some((2, 1.0))));
    let error = Bundle::open_for_training(&folder, &dataset(), Wanted::ALL).unwrap_err().to_string();
    assert!(error.contains("made for the test rows"), "{error}");
}

#[test]
fn three_files_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (first, files, second) = (dir.path().join("a"), dir.path().join("tocf"), dir.path().join("b"));
    write(&first, &[0, 1, 2, 3, 4, 5, 6]);
    let bundle = Bundle::open(&first, None).unwrap();
    dllm2rec::write(&files, &bundle).unwrap();
    assert!(dllm2rec::is_layout(&files));
    let ranks = fs::read_to_string(files.join(dllm2rec::RANKS)).unwrap();
    assert_eq!(ranks.lines().nth(4), Some("4 7 1"));
    let imported = dllm2rec::read(&files, &dataset(), Position::Train, None).unwrap();
    write_imported(&second, &dataset(), Position::Train, "again", imported).unwrap();
    let again = Bundle::open_for_training(&second, &dataset(), Wanted::ALL).unwrap();
    assert!((0..7).all(|row| again.rankings(row) == bundle.rankings(row)));
    assert_eq!(again.item_embeddings().unwrap(), bundle.item_embeddings().unwrap());

    let wrong = |file: &str, content: &str, want: &[&str]| {
        let kept = fs::read(files.join(file)).unwrap();
        fs::write(files.join(file), content).unwrap();
        let error = dllm2rec::read(&files, &dataset(), Position::Train, None).unwrap_err().to_string();
        fs::write(files.join(file), kept).unwrap();
        for part in want {
            assert!(error.contains(part), "`{part}` in {error}");
        }
    };
    let confidences = fs::read_to_string(files.join(dllm2rec::CONFIDENCES)).unwrap();
    let cut = |text: &str, n: usize| text.lines().take(n).map(|l| format!("{l}\n")).collect::<String>();
    wrong(dllm2rec::CONFIDENCES, &cut(&confidences, 4), &[dllm2rec::CONFIDENCES, "ends after 4 lines"]);
    wrong(
        dllm2rec::RANKS,
        &format!("{ranks}0 1 2\n"),
        &["ends after 7 lines", dllm2rec::CONFIDENCES].map(|_| "has more lines"),
    );
    wrong(dllm2rec::RANKS, &ranks.replacen("4 7 1", "4 7", 1), &["line 5 (row 4): 3 numbers for 2 items"]);
    wrong(dllm2rec::RANKS, &ranks.replacen("4 7 1", "4 7 8", 1), &["line 5: row 4: item 8"]);
    wrong(dllm2rec::RANKS, &ranks.replacen("4 7 1", "4 7 7", 1), &["line 5: row 4: item 7 stands twice"]);
    wrong(dllm2rec::CONFIDENCES, &confidences.replacen("4.5", "nan", 1), &["line 5: row 4: distance_1 is NaN"]);
    wrong(dllm2rec::EMBEDDINGS, "no zip", &[dllm2rec::EMBEDDINGS, "torch.save"]);
    let both = |n: usize| {
        fs::write(files.join(dllm2rec::RANKS), cut(&ranks, n)).unwrap();
        fs::write(files.join(dllm2rec::CONFIDENCES), cut(&confidences, n)).unwrap();
        dllm2rec::read(&files, &dataset(), Position::Train, None).unwrap_err().to_string()
    };
    assert!(both(6).contains("is truncated: 6 lines, the data set has 7 rows"));
}

/// `crates/core/tests/fixtures/bundle_pt/make.py` wrote the file with torch 2.11.0; row i is [i, -i / 3, 1e-3 · i²].
#[test]
fn vectors_of_torch_save() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bundle_pt"));
    let want: Vec<f32> =
        (0..5).flat_map(|i| [i as f32, -(i as f32) / 3.0, (1e-3f64 * f64::from(i * i)) as f32]).collect();
    for (file, tolerance) in [("float32.pt", 0.0), ("parameter.pt", 0.0), ("float16.pt", 1e-3)] {
        let tensor = read_pt(&folder.join(file)).unwrap();
        assert_eq!(tensor.size(), [5, 3], "{file}");
        let got = Vec::<f32>::try_from(tensor.to_kind(Kind::Float).view([-1])).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= tolerance), "{file}: {got:?}");
    }
    for (file, want) in
        [("dict.pt", "something else than one tensor"), ("view.pt", "view of another"), ("int.pt", "wanted floats")]
    {
        let error = read_pt(&folder.join(file)).unwrap_err().to_string();
        assert!(error.contains(want), "{file}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    write_pt(&path, &vectors()).unwrap();
    assert_eq!(read_pt(&path).unwrap(), vectors());
    let content = fs::read(&path).unwrap();
    for len in 0..content.len() {
        fs::write(&path, &content[..len]).unwrap();
        assert!(read_pt(&path).is_err(), "{len} bytes");
    }
}
