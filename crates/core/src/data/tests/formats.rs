//! The same interactions in every format give the same data set.

use polars::prelude::{DataFrame, IntoColumn, NamedFrom, ParquetWriter, Series};

use super::*;

/// User, item, rating, time; two users in mixed order, one tie.
const ROWS: [(i64, &str, i64, i64); 8] = [
    (2, "b", 3, 20),
    (1, "a", 5, 10),
    (1, "c", 4, 30),
    (1, "b", 4, 30),
    (2, "c", 5, 10),
    (1, "d", 2, 40),
    (2, "a", 5, 50),
    (2, "d", 5, 60),
];

fn text(separator: &str, header: &str) -> String {
    let line = |(u, i, r, t): &(i64, &str, i64, i64)| {
        [u.to_string(), (*i).into(), r.to_string(), t.to_string()].join(separator)
    };
    std::iter::once(header.to_owned())
        .filter(|h| !h.is_empty())
        .chain(ROWS.iter().map(line))
        .map(|l| l + "\n")
        .collect()
}

fn check(data: &Dataset) {
    assert_eq!(data.users, ["1", "2"]);
    assert_eq!(data.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(ids(data, data.test.items(0)), ["a", "c", "b", "d"]);
    assert_eq!(ids(data, data.test.items(1)), ["c", "b", "a", "d"]);
    assert_eq!(data.train_counts, [1, 1, 2, 0]);
    // times 10 (user 1), 10 (user 2), 20, 30
    assert_eq!(ids(data, &data.train_order), ["a", "c", "b", "c"]);
    assert_eq!(data.protocol, "leave_one_out; full ranking over 4 items");
    assert_eq!(data.n_users(), 2);
}

#[test]
fn delimited_texts() {
    let named = "{user: u, item: i, time: t, rating: r}";
    let numbered = "{user: 1, item: 2, time: 4, rating: 3}";
    for (file, content, changes) in [
        ("x.csv", text(",", "u,i,r,t"), vec![("columns", named)]),
        ("x.tsv", text("\t", "u\ti\tr\tt"), vec![("columns", named)]),
        ("x.csv", text(",", "\u{feff}u,i,r,t").replace('\n', "\r\n"), vec![("columns", named)]),
        ("x.csv", text(",", "u,i,r,t").replace(",a,", ",\"a\","), vec![("columns", named)]),
        ("x.csv", text(",", "u,i,r,t").replace("1,a", "\n1,a"), vec![("columns", named)]),
        ("x.dat", text("::", ""), vec![("columns", numbered), ("text.separator", "'::'"), ("text.header", "false")]),
        ("x.txt", text("|", ""), vec![("columns", numbered), ("text.separator", "'|'"), ("text.header", "false")]),
        ("x.inter", text("\t", "u:token\ti:token\tr:float\tt:float"), vec![("columns", named)]),
    ] {
        let folder = folder(file, &content);
        let mut all = vec![("path", file)];
        all.extend(changes);
        check(&load_from(&shipped("table", &all), folder.path()).unwrap_or_else(|e| panic!("{content}: {e}")));
    }
}

#[test]
fn ndjson_and_parquet() {
    let columns = ("columns", "{user: u, item: i, time: t, rating: r}");
    let json: String = ROWS
        .iter()
        .map(|(u, i, r, t)| format!("{{\"u\":{u},\"i\":\"{i}\",\"r\":{r},\"t\":{t},\"extra\":[1]}}\n"))
        .collect();
    let folder = folder("x.jsonl", json);
    check(&load_from(&shipped("table", &[("path", "x.jsonl"), columns]), folder.path()).unwrap());

    // users as floats, as tools write them that had gaps in the column
    let users = Series::new("u".into(), ROWS.map(|r| r.0 as f64).to_vec()).into_column();
    let items = Series::new("i".into(), ROWS.map(|r| r.1).to_vec()).into_column();
    let times = Series::new("t".into(), ROWS.map(|r| r.3).to_vec()).into_column();
    let ratings = Series::new("r".into(), ROWS.map(|r| r.2 as f32).to_vec()).into_column();
    let mut frame = DataFrame::new(ROWS.len(), vec![users, items, times, ratings]).unwrap();
    let path = folder.path().join("x [1].parquet");
    ParquetWriter::new(std::fs::File::create(&path).unwrap()).finish(&mut frame).unwrap();
    check(&load_from(&shipped("table", &[("path", "x [1].parquet"), columns]), folder.path()).unwrap());
    let missing =
        shipped("table", &[("path", "x [1].parquet"), ("columns", "{user: u, item: sku, time: null, rating: null}")]);
    let error = load_from(&missing, folder.path()).unwrap_err();
    assert!(error.to_string().ends_with("no column `sku` (columns.item); the columns are: u, i, t, r"), "{error}");
}

#[test]
fn recbole_folder_with_items() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("ml");
    std::fs::create_dir(&inside).unwrap();
    let inter = text("\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float");
    std::fs::write(inside.join("ml.inter"), inter).unwrap();
    let config = shipped("recbole", &[("path", "ml")]);
    let mut said = Vec::new();
    let data = load(&config, &data(folder.path(), None), &mut |note| said.push(note.to_owned())).unwrap();
    check(&data);
    assert!(said.len() == 1 && said[0].contains("ml.item is not there"), "{said:?}");
    std::fs::write(inside.join("ml.item"), "item_id:token\tmovie_title:token_seq\nb\tBread \"and\" Roses\na\tApples\n")
        .unwrap();
    let data = load_from(&config, folder.path()).unwrap();
    check(&data);
    assert_eq!(
        data.items.iter().map(|i| i.title.as_str()).collect::<Vec<_>>(),
        ["Apples", "Bread \"and\" Roses", "c", "d"]
    );
}

#[test]
fn windows_and_the_users_they_belong_to() {
    let folder = folder("train.csv", "seq,len_seq,next\n9 9,1,0\n0 9,1,1\n0 1,2,2\n1 2,2,3\n9 9,1,5\n5 9,1,6\n");
    std::fs::write(folder.path().join("held.csv"), "next,seq,len_seq\n4.0,\"[0, 1]\",2\n").unwrap();
    let files = "{train: train.csv, valid: held.csv, test: held.csv, pad: 9, user: null}";
    let all = shipped("lastfm", &[("windows", files), ("items", "null"), ("split.min_len", "1")]);
    let data = load_from(&all, folder.path()).unwrap();
    assert_eq!(data.users, ["train-1", "train-5", "valid-1", "test-1"]);
    assert_eq!((data.n_items(), data.train.len(), data.test.items(0)), (9, 6, &[0, 1, 4][..]));
    assert_eq!(data.train_order, [0, 1, 2, 3, 5, 6]);
    let long = shipped("lastfm", &[("windows", files), ("items", "null"), ("split.min_len", "2")]);
    let data = load_from(&long, folder.path()).unwrap();
    assert_eq!((data.train.len(), &data.train_order[..]), (2, &[0, 1, 2, 3][..]));
    assert_eq!(data.provenance["split"]["dropped"]["train_windows_below_min_len"], 4);
}

#[test]
fn movielens_1m_as_its_owner_ships_it() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("movielens-1m");
    std::fs::create_dir(&inside).unwrap();
    let ratings =
        "2::20::5::978300001\n1::10::5::978300003\n1::20::3::978300001\n1::30::4::978300001\n1::40::1::978300002\n";
    std::fs::write(inside.join("ratings.dat"), ratings).unwrap();
    let movies = b"10::Amelie, La (Am\xe9lie) (2001)::Comedy|Drama\n20::Heat (1995)::Crime\n30::C (1990)::War\n40::D (1991)::War\n50::E (1992)::War\n";
    std::fs::write(inside.join("movies.dat"), movies).unwrap();
    std::fs::write(inside.join("sequences.tsv"), "1\t10\n").unwrap();
    let mut said = Vec::new();
    let data = load(&shipped("movielens-1m", &[]), &data(folder.path(), None), &mut |note| said.push(note.to_owned()))
        .unwrap();
    assert_eq!(said, [""; 0]);
    assert_eq!(ids(&data, data.test.items(0)), ["20", "30", "40", "10"]);
    assert_eq!(
        (data.items[0].title.as_str(), data.items[0].text.as_str()),
        ("La Amelie (Amélie) (2001)", "Comedy, Drama")
    );
    assert_eq!((data.n_users(), data.n_items()), (2, 4));
}
