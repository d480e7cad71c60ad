//! Every bad input: the message names the file, the line or key, what was wanted and found, and what to do.

use super::*;

/// Loads `name` where its interactions file has `content`, and gives the message and the hint.
fn failure(content: impl AsRef<[u8]>, changes: &[(&str, &str)]) -> (String, String) {
    let folder = folder("x.tsv", content);
    let path = folder.path().join("x.tsv");
    let path = path.to_str().unwrap();
    let mut all = vec![("path", path), ("items", "null")];
    all.extend(changes);
    let error = load_from(&shipped("movielens-100k", &all), folder.path()).unwrap_err();
    (error.to_string().replace(path, "x.tsv"), error.hint().unwrap_or_default())
}

#[test]
fn bad_rows_name_the_line() {
    let good = "1\t10\t5\t100\n1\t11\t4\t200\n";
    for (content, message) in [
        (format!("{good}1\t12\tfive\t300\n"), "x.tsv line 3: column 3 (columns.rating): wanted a number, got `five`"),
        (format!("{good}\n1\t12\t5\tnoon\n"), "x.tsv line 4: column 4 (columns.time): wanted a number, got `noon`"),
        (
            format!("{good}1\t12\t-5\t300\n"),
            "x.tsv line 3: column 3 (columns.rating): wanted a finite number from 0 up, got `-5`",
        ),
        (
            format!("{good}1\t12\t5\tinf\n"),
            "x.tsv line 3: column 4 (columns.time): wanted a finite number from 0 up, got `inf`",
        ),
        (
            format!("{good}1\t12\tNaN\t1\n"),
            "x.tsv line 3: column 3 (columns.rating): wanted a finite number from 0 up, got `NaN`",
        ),
        (format!("{good}1\t\t5\t300\n"), "x.tsv line 3: column 2 (columns.item) is empty"),
        (format!("{good}1\t12\t5"), "x.tsv line 3: column 4 (columns.time) is empty"),
        (
            format!("{good}1\t12\t5\t300\t7\n"),
            "x.tsv line 3: 5 columns found, wanted 4 as on the first line (separator \"\\t\")",
        ),
    ] {
        let (got, hint) = failure(&content, &[]);
        assert_eq!(got, message);
        assert!(hint.contains("whole"), "{hint}");
    }
}

#[test]
fn wrong_files_and_layouts() {
    let (got, _) = failure(" \n", &[]);
    assert_eq!(got, "x.tsv: the file is empty");
    let (got, hint) = failure("1,10,5,100\n", &[]);
    assert_eq!(got, "x.tsv line 1: 1 column found, wanted column 2 for columns.item");
    assert_eq!(hint, "the first line looks separated by \",\": write dataset.text.separator=\",\"");
    let (got, hint) = failure(b"1\t10\t5\t100\n1\t\xe9\t5\t100\n", &[]);
    assert_eq!(got, "x.tsv line 2: is not UTF-8");
    assert!(hint.contains("latin1"));
    let (got, _) = failure(b"\x1f\x8b123", &[]);
    assert_eq!(got, "x.tsv: the file is compressed");
    let header = [("text.header", "true"), ("columns", "{user: uid, item: sku, time: null, rating: null}")];
    let (got, hint) = failure("uid\tsku_id\tts\n1\t2\t3\n", &header);
    assert_eq!(got, "x.tsv line 1: no column `sku` (columns.item); the columns are: uid, sku_id, ts");
    assert_eq!(hint, "did you mean dataset.columns.item=sku_id?");
    let (_, hint) = failure("uid;sku;ts\n1;2;3\n", &header);
    assert_eq!(hint, "the first line looks separated by \";\": write dataset.text.separator=\";\"");
    let (got, _) = failure("uid\tsku\tts\n", &header);
    assert_eq!(got, "x.tsv: has no rows");
    let (got, _) = failure("1\t2\t3\n", &[("columns", "{user: uid, item: 2, time: null, rating: null}")]);
    assert_eq!(got, "x.tsv line 1: columns.user is `uid`, but the file has no line with names");
    let (got, hint) = failure("1\t2\t3\n", &[("columns", "{user: 1, item: 4, time: null, rating: null}")]);
    assert_eq!(
        (got.as_str(), hint.as_str()),
        ("x.tsv line 1: 3 columns found, wanted column 4 for columns.item", "columns are counted from 1")
    );
}

#[test]
fn missing_files_say_where_they_were_looked_for() {
    let error = load_from(&shipped("movielens-100k", &[]), Path::new("no/such/folder")).unwrap_err();
    assert!(error.to_string().starts_with("no/such/folder/movielens-100k/u.data: not found"), "{error}");
    assert_eq!(
        error.hint().unwrap(),
        "get it with `cmd/download_data.sh movielens-100k`, or say where the data is with data.root=PATH"
    );
    let error = load_from(&shipped("movielens-1m", &[]), Path::new("no/such/folder")).unwrap_err();
    assert!(error.to_string().starts_with("no/such/folder/movielens-1m/ratings.dat: not found"), "{error}");
    let error = load_from(&shipped("lastfm", &[]), Path::new("no/such/folder")).unwrap_err();
    assert!(error.hint().unwrap().contains("data.root=PATH"));
    let folder = tempfile::tempdir().unwrap();
    let error = load_from(&shipped("table", &[("path", ".")]), folder.path()).unwrap_err();
    assert!(error.to_string().contains("is a folder, wanted a file"), "{error}");
}

#[test]
fn sequences_and_windows() {
    let sequences = [("format", "sequences")];
    let (got, _) = failure("1 2 3 4\n2\n", &sequences);
    assert_eq!(got, "x.tsv line 2: 1 column found, wanted a user and at least one item separated by tabs or spaces");
    let (got, _) = failure("1,2,3\n", &sequences);
    assert!(got.contains("1 column found"), "{got}");
    let (got, _) = failure("1 2 3 4\n1 5 6 7\n", &sequences);
    assert_eq!(got, "x.tsv line 2: user `1` already has line 1");
    let (got, hint) = failure("1 2 3 4\n", &[("format", "sequences"), ("filter.min_rating", "3")]);
    assert!(got.contains("without ratings") && hint.contains("min_rating=null"), "{got}");

    let folder = folder("w.csv", "seq,len_seq,next\n0 1 9 9,2,2\n0 1 9 9,3,2\n");
    let path = folder.path().join("w.csv");
    let files = format!("{{train: {0}, valid: {0}, test: {0}, pad: 9, user: null}}", path.display());
    let config = shipped("lastfm", &[("windows", &files), ("items", "null")]);
    let error = load_from(&config, folder.path()).unwrap_err();
    assert!(
        error.to_string().ends_with("w.csv line 3: len_seq is 3, but seq has 2 items before its padding"),
        "{error}"
    );
    std::fs::write(&path, "seq,next\n0 1,2\n").unwrap();
    let error = load_from(&config, folder.path()).unwrap_err();
    assert!(error.to_string().contains("no column `len_seq`"), "{error}");
    std::fs::write(&path, "seq,len_seq,next\n0 1,2,2\n").unwrap();
    let error = load_from(&config, folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "the split leaves no training rows");
}

#[test]
fn items_files() {
    let folder = folder("u.item", "1|A\n2|B\n2|C\n");
    std::fs::write(folder.path().join("u.data"), "1\t1\t5\t1\n1\t2\t5\t2\n1\t3\t5\t3\n1\t1\t5\t4\n").unwrap();
    let with = |changes: &[(&str, &str)]| {
        let mut all = vec![("path", "u.data"), ("items.path", "u.item"), ("items.flags", "null")];
        all.extend(changes);
        load_from(&shipped("movielens-100k", &all), folder.path())
    };
    assert!(with(&[]).unwrap_err().to_string().ends_with("u.item line 3: item `2` is there twice"));
    std::fs::write(folder.path().join("u.item"), "1|A\n2|\n").unwrap();
    let error = with(&[]).unwrap_err();
    assert!(
        error.to_string().contains("1 of 3 items of the interactions are not in this item file, such as 3"),
        "{error}"
    );
    let kept = with(&[("items.unknown", "keep")]).unwrap();
    assert_eq!(kept.items.iter().map(|i| i.title.as_str()).collect::<Vec<_>>(), ["A", "2", "3"]);
    std::fs::write(folder.path().join("u.item"), "1|A\nx|B\n").unwrap();
    let error = with(&[("items.id_shift", "-1")]).unwrap_err();
    assert!(
        error.to_string().ends_with("u.item line 2: items.id_shift needs whole numbers as ids, got `x`"),
        "{error}"
    );
}

#[test]
fn binary_and_json_files() {
    let folder = folder("x.parquet", "this is no parquet");
    let table =
        |path: &str| shipped("table", &[("path", path), ("columns", "{user: u, item: i, time: t, rating: null}")]);
    let error = load_from(&table("x.parquet"), folder.path()).unwrap_err();
    assert!(error.to_string().contains("cannot be read as Parquet"), "{error}");
    let write = |text: &str| std::fs::write(folder.path().join("x.ndjson"), text).unwrap();
    write("{\"u\": 1, \"i\": 2, \"t\": 3}\n{\"u\": 1, \"i\": 2,\n");
    let error = load_from(&table("x.ndjson"), folder.path()).unwrap_err();
    assert!(error.to_string().contains("x.ndjson line 2: is not JSON"), "{error}");
    write("{\"u\": 1, \"i\": 2, \"t\": 3}\n{\"u\": 1, \"t\": 3}\n");
    let error = load_from(&table("x.ndjson"), folder.path()).unwrap_err();
    assert!(error.to_string().contains("x.ndjson line 2: column `i` (columns.item) is empty"), "{error}");
    write("{\"u\": 1, \"i\": 2, \"t\": -3}\n");
    let error = load_from(&table("x.ndjson"), folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("line 1: column `t` (columns.time): wanted a finite number from 0 up, got `-3`"),
        "{error}"
    );
    std::fs::write(folder.path().join("x.xyz"), "a").unwrap();
    let error = load_from(&table("x.xyz"), folder.path()).unwrap_err();
    assert!(error.hint().unwrap().contains("dataset.format"), "{error}");
}
