//! Killed at any moment, an export ends in the same bytes.

use std::fs;

use super::*;

const FILES: [&str; 3] = [MANIFEST_FILE, RANKINGS_FILE, EMBEDDINGS_FILE];

fn bytes(folder: &Path) -> Vec<Vec<u8>> {
    FILES.iter().map(|file| fs::read(folder.join(file)).unwrap()).collect()
}

fn open(folder: &Path, flush: Flush) -> BundleWriter {
    match BundleWriter::open(folder, &spec(&dataset()), flush).unwrap() {
        Opened::Writer(writer) => *writer,
        Opened::Done(_) => panic!("it is not done"),
    }
}

#[test]
fn cut_off_after_any_batch_it_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let order = [4, 2, 0, 6, 1, 3, 5];
    write(&dir.path().join("whole"), &order);
    for cut in 0..=order.len() {
        for flush in [EACH, Flush { rows: 3, time: Duration::MAX }] {
            let folder = dir.path().join(format!("cut_{cut}_{}", flush.rows));
            let mut writer = open(&folder, flush);
            order[..cut].iter().for_each(|&row| writer.push(&list_of(row)).unwrap());
            // a kill: what waits in memory is lost
            drop(writer);
            let mut writer = open(&folder, flush);
            let next = writer.next_batch() as usize;
            assert_eq!(next, if flush.rows == 1 { cut } else { cut / 3 * 3 });
            assert_eq!(writer.rows_done(), next);
            order[next..].iter().for_each(|&row| writer.push(&list_of(row)).unwrap());
            writer.finish(Some(&vectors()), &dataset()).unwrap();
            assert_eq!(bytes(&folder), bytes(&dir.path().join("whole")), "cut after {cut}");
        }
    }
}

#[test]
fn killed_while_it_is_put_together_it_is_put_together_again() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, folder) = (dir.path().join("whole"), dir.path().join("b"));
    write(&whole, &[0, 1, 2, 3, 4, 5, 6]);
    let mut writer = open(&folder, EACH);
    (0..7).for_each(|row| writer.push(&list_of(row)).unwrap());
    drop(writer);
    fs::create_dir(dir.path().join("b.part/bundle")).unwrap();
    fs::write(dir.path().join("b.part/bundle").join(RANKINGS_FILE), "half").unwrap();
    fs::write(dir.path().join("b.part/part_000007.bin.99.tmp"), "half").unwrap();
    let writer = open(&folder, EACH);
    assert_eq!(writer.next_batch(), 7);
    writer.finish(Some(&vectors()), &dataset()).unwrap();
    assert_eq!(bytes(&folder), bytes(&whole));
    // killed after the rename, before the parts were removed
    fs::create_dir(dir.path().join("b.part")).unwrap();
    assert!(matches!(BundleWriter::open(&folder, &spec(&dataset()), EACH).unwrap(), Opened::Done(_)));
    assert!(!dir.path().join("b.part").exists());
}

#[test]
fn a_damaged_part_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, folder) = (dir.path().join("whole"), dir.path().join("b"));
    write(&whole, &[0, 1, 2, 3, 4, 5, 6]);
    let mut writer = open(&folder, EACH);
    (0..5).for_each(|row| writer.push(&list_of(row)).unwrap());
    drop(writer);
    let part = dir.path().join("b.part/part_000002.bin");
    let mut content = fs::read(&part).unwrap();
    content[50] ^= 1;
    fs::write(&part, content).unwrap();
    let mut writer = open(&folder, EACH);
    assert_eq!(writer.next_batch(), 2);
    assert!(writer.notes()[0].contains("part_000002.bin is damaged"), "{:?}", writer.notes());
    (2..7).for_each(|row| writer.push(&list_of(row)).unwrap());
    writer.finish(Some(&vectors()), &dataset()).unwrap();
    assert_eq!(bytes(&folder), bytes(&whole));
}

#[test]
fn other_options_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let other = Spec { exclude_history: true, ..spec(&dataset()) };
    drop(open(&folder, EACH));
    let error = BundleWriter::open(&folder, &other, EACH).unwrap_err().to_string();
    assert!(error.contains("other options was begun here"), "{error}");
    write(&dir.path().join("whole"), &[0, 1, 2, 3, 4, 5, 6]);
    let error = BundleWriter::open(&dir.path().join("whole"), &other, EACH).unwrap_err().to_string();
    assert!(error.contains("there is a bundle of another data set or with other options"), "{error}");
}

#[test]
fn the_writer_refuses_what_the_loader_would() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(u32, [u32; 3], [f32; 3], &str); 7] = [
        (7, [0, 1, 2], [0., 1., 2.], "row 7: the data set has rows 0..7"),
        (0, [0, 8, 2], [0., 1., 2.], "row 0: item_1 is 8"),
        (0, [0, 1, 0], [0., 1., 2.], "row 0: item 0 stands twice"),
        (0, [0, 1, 2], [0., f32::NAN, 2.], "row 0: distance_1 is NaN"),
        (0, [0, 1, 2], [-1., 1., 2.], "row 0: distance_0 is -1"),
        (0, [0, 1, 2], [0., 2., 1.], "row 0: distance_2 is 1, less than 2"),
        (0, [u32::MAX, 1, 2], [0., 1., 2.], "row 0: the list is empty"),
    ];
    for (i, (row, items, distances, want)) in cases.into_iter().enumerate() {
        let mut lists = Lists::new(3);
        lists.push(row, &items, &distances, None);
        let error = open(&dir.path().join(i.to_string()), NEVER).push(&lists).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let mut writer = open(&dir.path().join("twice"), NEVER);
    writer.push(&list_of(1)).unwrap();
    assert!(writer.push(&list_of(1)).unwrap_err().to_string().contains("row 1 has two lists"));
}
