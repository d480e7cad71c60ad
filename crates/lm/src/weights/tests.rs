use std::io::Write;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A file of `header` and `data`.
fn file(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

fn two() -> Value {
    json!({
        "a": { "dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16] },
        "b": { "dtype": "BF16", "shape": [3], "data_offsets": [16, 22] },
    })
}

fn data() -> Vec<u8> {
    let a = [1f32, -2.0, 3.5, 0.25].iter().flat_map(|x| x.to_le_bytes());
    a.chain([1.5f32, -8.0, 0.0].iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())).collect()
}

fn open(bytes: &[u8]) -> Result<WeightFiles> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MODEL_FILE);
    fs::write(&path, bytes).unwrap();
    WeightFiles::open_file(&path)
}

fn message(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err();
    assert!(error.to_string().contains(MODEL_FILE), "{error}");
    error.to_string()
}

#[test]
fn values_come_out_in_the_wanted_type() {
    let files = open(&file(&two(), &data())).unwrap();
    let a = files.load("a", &[2, 2], Kind::BFloat16, Device::Cpu).unwrap();
    assert_eq!((a.kind(), a.size()), (Kind::BFloat16, vec![2, 2]));
    assert_eq!(Vec::<f32>::try_from(a.to_kind(Kind::Float).view(-1)).unwrap(), [1.0, -2.0, 3.5, 0.25]);
    let b = files.load("b", &[3], Kind::Float, Device::Cpu).unwrap();
    assert_eq!(Vec::<f32>::try_from(b).unwrap(), [1.5, -8.0, 0.0]);
    // The pages were given back; reading again reads the file again.
    let again = files.load("a", &[2, 2], Kind::Float, Device::Cpu).unwrap();
    assert_eq!(again.double_value(&[1, 0]), 3.5);
}

#[test]
fn every_damage_has_its_message() {
    let good = file(&two(), &data());
    assert!(message(&good[..4]).contains("not even the length"));
    assert!(message(&good[..30]).contains("but the file has 30 bytes"));
    assert!(message(&good[..good.len() - 1]).contains("truncated"));
    assert!(message(&[&good[..], b"x"].concat()).contains("longer than its header says"));
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    assert!(message(&huge).contains(&u64::MAX.to_string()));
    assert!(message(&[&2u64.to_le_bytes()[..], b"[]"].concat()).contains("not the JSON"));
    let entry = |a: Value| file(&json!({ "a": a }), &data());
    for (info, part) in [
        (json!({ "dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12] }), "needs 16 bytes"),
        (json!({ "dtype": "F33", "shape": [2, 2], "data_offsets": [0, 16] }), "F33"),
        (json!({ "dtype": "F32", "shape": [-1], "data_offsets": [0, 16] }), "`shape`"),
        (json!({ "dtype": "F32", "shape": [4], "data_offsets": [16, 0] }), "before its start"),
        (json!({ "dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16] }), "two numbers"),
        (json!({ "dtype": "F32", "shape": [1u64 << 60, 1u64 << 60], "data_offsets": [0, 16] }), "too many elements"),
        (json!({ "dtype": "F32", "shape": [1u64 << 60], "data_offsets": [0, 1u64 << 62] }), "truncated"),
        (json!({ "dtype": "F32", "shape": [4], "data_offsets": [4, 20] }), "belong to no tensor"),
        (json!({ "shape": [4], "data_offsets": [0, 16] }), "no `dtype`"),
    ] {
        let text = message(&entry(info));
        assert!(text.contains("`a`") && text.contains(part), "{part} in {text}");
    }
    let mut overlap = two();
    overlap["b"]["data_offsets"] = json!([12, 18]);
    assert!(message(&file(&overlap, &data())).contains("`a` and `b` overlap"));
}

#[test]
fn not_a_number_and_wrong_shapes_are_named() {
    for (at, bits) in [(4, f32::NAN), (12, f32::INFINITY)] {
        let mut bytes = data();
        bytes[at..at + 4].copy_from_slice(&bits.to_le_bytes());
        let files = open(&file(&two(), &bytes)).unwrap();
        let text = files.load("a", &[2, 2], Kind::Float, Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("tensor `a`") && text.contains("1 of 4 values"), "{text}");
    }
    let mut bytes = data();
    bytes[..4].copy_from_slice(&1e6f32.to_le_bytes());
    let files = open(&file(&two(), &bytes)).unwrap();
    let text = files.load("a", &[2, 2], Kind::Half, Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("too large for f16"), "{text}");
    let text = files.load("a", &[4], Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("[2, 2]") && text.contains("wanted [4]"), "{text}");
    let wanted = [("a".to_owned(), vec![2, 3]), ("c".to_owned(), vec![1])];
    let text = files.check(&wanted, |_| false).unwrap_err().to_string();
    for part in
        ["`a` in model.safetensors has shape [2, 2], wanted [2, 3]", "missing tensor `c`", "unexpected tensor `b`"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(files.check(&wanted[..0], |_| true).is_ok());
    let ints = json!({ "a": { "dtype": "I8", "shape": [22], "data_offsets": [0, 22] } });
    let text = open(&file(&ints, &data())).unwrap().load("a", &[22], Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("I8"), "{text}");
}

/// A folder with two shards and an index made of `map`.
fn sharded(map: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let one = |name: &str| json!({ name: { "dtype": "F32", "shape": [1], "data_offsets": [0, 4] } });
    for (shard, name) in [("s1.safetensors", "a"), ("s2.safetensors", "b")] {
        fs::write(folder.path().join(shard), file(&one(name), &1f32.to_le_bytes())).unwrap();
    }
    let mut index = File::create(folder.path().join(INDEX_FILE)).unwrap();
    write!(index, "{}", json!({ "metadata": {}, "weight_map": map })).unwrap();
    folder
}

#[test]
fn shards_are_joined_and_a_missing_one_is_named() {
    let folder = sharded(&json!({ "a": "s1.safetensors", "b": "s2.safetensors" }));
    let files = WeightFiles::open(folder.path()).unwrap();
    assert_eq!(files.infos().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    fs::remove_file(folder.path().join("s2.safetensors")).unwrap();
    let text = WeightFiles::open(folder.path()).unwrap_err().to_string();
    assert!(text.contains("1 of 2 weight files") && text.contains("s2.safetensors"), "{text}");
    let folder = sharded(&json!({ "a": "s1.safetensors", "b": "s1.safetensors" }));
    let text = WeightFiles::open(folder.path()).unwrap_err().to_string();
    assert!(text.contains("s1.safetensors has no tensor `b`"), "{text}");
    for outside in ["../s1.safetensors", "/etc/passwd", "sub/s1.safetensors", "..", "", "a\\b"] {
        let folder = sharded(&json!({ "a": outside }));
        let text = WeightFiles::open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("not a file inside this folder") && text.contains(INDEX_FILE), "{text}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(WeightFiles::open(empty.path()).unwrap_err().to_string().contains("no weights"));
    fs::write(empty.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(WeightFiles::open(empty.path()).unwrap_err().hint().unwrap().contains("save_pretrained"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is in the file: an error or tensors inside it.
    #[test]
    fn mutated_files_never_crash(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        let mut bytes = file(&two(), &data());
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok((start, infos)) = parse_header(Path::new("f"), &bytes) {
            for (_, info) in infos {
                prop_assert!(start + info.end <= bytes.len() && info.start <= info.end);
            }
        }
    }

    /// Entries with any numbers in them.
    #[test]
    fn any_numbers_never_crash(shape in prop::collection::vec(any::<u64>(), 0..4), start in any::<u64>(), end in any::<u64>()) {
        let header = json!({ "a": { "dtype": "F16", "shape": shape, "data_offsets": [start, end] } });
        let bytes = file(&header, &data());
        if let Ok((at, infos)) = parse_header(Path::new("f"), &bytes) {
            prop_assert!(infos.iter().all(|(_, info)| at + info.end == bytes.len()));
        }
    }

    #[test]
    fn any_index_never_crashes(text in ".{0,200}", file in ".{0,20}") {
        let _ = parse_index(Path::new("i"), &text);
        let text = json!({ "weight_map": { "a": file } }).to_string();
        if let Ok(map) = parse_index(Path::new("i"), &text) {
            prop_assert!(!map["a"].contains('/') && map["a"] != "..");
        }
    }
}
