//! The event file is read back here: framing, checksums and protobuf by hand, independent of the writer.

use std::fs;

use crate::run::Run;

/// CRC-32C (Castagnoli), bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The payloads of a record file.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(masked(&bytes[..8]), u32::from_le_bytes(bytes[8..12].try_into().unwrap()), "length checksum");
        let data = &bytes[12..12 + len];
        assert_eq!(masked(data), u32::from_le_bytes(bytes[12 + len..16 + len].try_into().unwrap()), "data checksum");
        records.push(data.to_vec());
        bytes = &bytes[16 + len..];
    }
    records
}

enum Wire<'a> {
    Varint(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

/// Field number and content of a protobuf message.
fn fields(mut bytes: &[u8]) -> Vec<(u8, Wire<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        n
    }
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, rest) = bytes.split_at(n);
        *bytes = rest;
        head
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut bytes)),
            1 => Wire::Fixed(take(&mut bytes, 8)),
            5 => Wire::Fixed(take(&mut bytes, 4)),
            2 => {
                let n = varint(&mut bytes) as usize;
                Wire::Bytes(take(&mut bytes, n))
            }
            other => panic!("wire type {other}"),
        };
        fields.push(((tag >> 3) as u8, wire));
    }
    fields
}

/// (step, tag, value) of every scalar of the only event file.
fn scalars(run: &Run) -> Vec<(u64, String, f32)> {
    let files: Vec<_> = fs::read_dir(run.path().join("tb")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1);
    assert!(files[0].file_name().to_string_lossy().starts_with("events.out.tfevents."));
    let bytes = fs::read(files[0].path()).unwrap();
    let mut found = Vec::new();
    for (i, record) in records(&bytes).iter().enumerate() {
        let mut step = 0;
        for (number, wire) in fields(record) {
            match (number, wire) {
                (1, Wire::Fixed(time)) => assert!(f64::from_le_bytes(time.try_into().unwrap()) > 1.7e9),
                (2, Wire::Varint(n)) => step = n,
                (3, Wire::Bytes(version)) => assert_eq!((i, version), (0, &b"brain.Event:2"[..])),
                (5, Wire::Bytes(summary)) => {
                    for (_, value) in fields(summary) {
                        let Wire::Bytes(value) = value else { panic!("a value is a message") };
                        let (mut tag, mut number) = (String::new(), f32::NAN);
                        for (n, wire) in fields(value) {
                            match (n, wire) {
                                (1, Wire::Bytes(t)) => tag = String::from_utf8(t.to_vec()).unwrap(),
                                (2, Wire::Fixed(x)) => number = f32::from_le_bytes(x.try_into().unwrap()),
                                _ => panic!("unknown field {n}"),
                            }
                        }
                        found.push((step, tag, number));
                    }
                }
                (n, _) => panic!("unknown field {n}"),
            }
        }
    }
    found
}

#[test]
fn the_checksum_of_the_test_is_castagnoli() {
    assert_eq!((crc32c(b"123456789"), masked(b"123456789")), (0xe306_9283, 0xc78a_b0e5));
}

#[test]
fn tensorboard_gets_what_metrics_get() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::scratch(&dir.path().join("r")).unwrap();
    run.scalars(1, &[("train/loss", 0.5), ("lr", 1e-3)]).unwrap();
    run.scalars(300, &[("train/loss", f64::NAN)]).unwrap();
    let found = scalars(&run);
    assert_eq!(found[..2], [(1, "train/loss".into(), 0.5), (1, "lr".into(), 1e-3)]);
    assert!(found[2].0 == 300 && found[2].2.is_nan());
    let lines = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    assert!(lines.lines().nth(1).unwrap().ends_with("\"train/loss\":null}"), "{lines}");
}

#[test]
fn truncating_takes_both_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::scratch(&dir.path().join("r")).unwrap();
    run.truncate_metrics(5).unwrap();
    for step in 0..5 {
        run.scalars(step, &[("x", step as f64)]).unwrap();
    }
    run.truncate_metrics(2).unwrap();
    run.scalars(3, &[("x", 30.0)]).unwrap();
    let steps: Vec<(u64, f32)> = scalars(&run).into_iter().map(|(step, _, x)| (step, x)).collect();
    assert_eq!(steps, [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]);
    assert_eq!(fs::read_to_string(run.path().join("metrics.jsonl")).unwrap().lines().count(), 4);
}

#[test]
fn a_full_disk_and_a_blocked_folder_are_errors_not_panics() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::scratch(&dir.path().join("r")).unwrap();
    std::os::unix::fs::symlink("/dev/full", run.path().join("metrics.jsonl")).unwrap();
    let error = run.scalars(1, &[("x", 1.0)]).unwrap_err();
    assert!(error.to_string().contains("metrics.jsonl: cannot write the metrics"), "{error}");
    assert!(error.hint().unwrap().contains("the disk is full"), "{error}");
    let mut run = Run::scratch(&dir.path().join("s")).unwrap();
    fs::write(run.path().join("tb"), "in the way").unwrap();
    let error = run.scalars(1, &[("x", 1.0)]).unwrap_err();
    assert!(error.to_string().contains("tb: cannot make the TensorBoard folder"), "{error}");
    assert_eq!(
        fs::read_to_string(run.path().join("metrics.jsonl")).unwrap().lines().count(),
        1,
        "metrics are written first"
    );
}

#[test]
fn json_files_are_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::scratch(&dir.path().join("r")).unwrap();
    run.write_json("metrics/test.json", &serde_json::json!({"a": 1})).unwrap();
    run.write_json("metrics/test.json", &serde_json::json!({"a": 2})).unwrap();
    assert_eq!(fs::read_to_string(run.path().join("metrics/test.json")).unwrap(), "{\n  \"a\": 2\n}\n");
    assert_eq!(fs::read_dir(run.path().join("metrics")).unwrap().count(), 1, "no file is left beside");
    let second = Run::scratch(&dir.path().join("r")).unwrap();
    assert!(second.path().ends_with("r-2"));
}
