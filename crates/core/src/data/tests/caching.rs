//! The processed form: found again, rebuilt when damaged, and never a reason to fail.

use super::*;

fn sequences(folder: &Path) -> DatasetConfig {
    std::fs::write(folder.join("s.txt"), "1 a b c d\n2 b c d\n").unwrap();
    shipped("amazon-beauty", &[("path", "s.txt")])
}

/// Loads and gives the notes.
fn notes(config: &DatasetConfig, data: &DataConfig) -> (Dataset, Vec<String>) {
    let mut notes = Vec::new();
    let dataset = load(config, data, &mut |note| notes.push(note.to_owned())).unwrap();
    (dataset, notes)
}

fn same(a: &Dataset, b: &Dataset) {
    assert_eq!((&a.items, &a.users, &a.train, &a.valid, &a.test), (&b.items, &b.users, &b.train, &b.valid, &b.test));
    assert_eq!(
        (&a.train_counts, &a.train_order, &a.hash, &a.items_hash),
        (&b.train_counts, &b.train_order, &b.hash, &b.items_hash)
    );
    assert_eq!((&a.provenance, &a.protocol), (&b.provenance, &b.protocol));
}

#[test]
fn the_second_start_reads_the_processed_form() {
    let folder = tempfile::tempdir().unwrap();
    let (root, cache) = (folder.path(), folder.path().join("cache"));
    let config = sequences(root);
    let (first, said) = notes(&config, &data(root, Some(&cache)));
    assert_eq!(said, [""; 0]);
    let file = cache.join(format!("amazon-beauty-{}", &first.hash[..12])).join("dataset.bin");
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    let (second, said) = notes(&config, &data(root, Some(&cache)));
    assert_eq!(said, [""; 0]);
    same(&first, &second);
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written);

    for (damage, word) in [(None, "is truncated"), (Some(0), "is no processed data set"), (Some(60), "is damaged")] {
        let mut bytes = std::fs::read(&file).unwrap();
        match damage {
            None => bytes.truncate(10),
            Some(at) => bytes[at] ^= 1,
        }
        std::fs::write(&file, bytes).unwrap();
        let (again, said) = notes(&config, &data(root, Some(&cache)));
        same(&first, &again);
        assert!(said.len() == 1 && said[0].contains(word) && said[0].contains("made again"), "{said:?}");
    }
}

#[test]
fn what_changes_the_hash_and_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = sequences(folder.path());
    let base = load_from(&config, folder.path()).unwrap().hash;
    let renamed = DatasetConfig { name: "other".into(), download: Some("x".into()), ..config.clone() };
    assert_eq!(load_from(&renamed, folder.path()).unwrap().hash, base);
    let mut other = config.clone();
    other.filter.max_history = Some(4);
    assert_ne!(load_from(&other, folder.path()).unwrap().hash, base);
    std::fs::write(folder.path().join("s.txt"), "1 a b c d\n2 b c a\n").unwrap();
    assert_ne!(load_from(&config, folder.path()).unwrap().hash, base);
}

#[test]
fn a_cache_that_cannot_be_written_is_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let config = sequences(folder.path());
    // a file where the folder should be fails for root too
    let cache = folder.path().join("cache");
    std::fs::write(&cache, "x").unwrap();
    let mut said = Vec::new();
    load(&config, &data(folder.path(), Some(&cache)), &mut |note| said.push(note.to_owned())).unwrap();
    assert!(said.iter().any(|note| note.contains("dataset.bin")), "{said:?}");
}
