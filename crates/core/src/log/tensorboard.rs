//! Event files that TensorBoard opens.
//!
//! tensorboard-rs does the record framing with its checksums. Its `SummaryWriter` panics in a thread of its own when the
//! disk is full, so the events (three protobuf fields) are put together here and every I/O error is returned.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use tensorboard_rs::record_writer::RecordWriter;

use crate::{Error, Result};

/// One open event file.
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Makes `dir/events.out.tfevents.<seconds>.<host>.<pid>.<n>`.
    pub(crate) fn create(dir: &Path, time: f64) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir, "make the TensorBoard folder"))?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let host = if host.is_empty() { "host" } else { &host };
        for n in 0.. {
            let name = format!("events.out.tfevents.{:010}.{host}.{}.{n}", time as u64, std::process::id());
            let path = dir.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut events = Self { path, file };
                    events.record(&event(time, &[(3, Field::Bytes(b"brain.Event:2"))]))?;
                    return Ok(events);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(path, "make the TensorBoard file")(e)),
            }
        }
        Err(Error::invalid(format!("{}: no free name for an event file", dir.display())))
    }

    /// One event with all values.
    pub(crate) fn scalars(&mut self, time: f64, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in values {
            let scalar = message(&[(1, Field::Bytes(name.as_bytes())), (2, Field::Float(*value as f32))]);
            summary.extend(message(&[(1, Field::Bytes(&scalar))]));
        }
        self.record(&event(time, &[(2, Field::Whole(step)), (5, Field::Bytes(&summary))]))
    }

    fn record(&mut self, event: &[u8]) -> Result<()> {
        let failed = |e| Error::Io { path: self.path.clone(), action: "write the TensorBoard file", source: e };
        // Framed in memory first: one write leaves no half record behind on a full disk or a kill.
        let mut framed = Vec::with_capacity(event.len() + 16);
        RecordWriter::new(&mut framed).write(event).map_err(failed)?;
        self.file.write_all(&framed).map_err(failed)
    }
}

/// The protobuf field types that an event needs.
enum Field<'a> {
    Whole(u64),
    Double(f64),
    Float(f32),
    Bytes(&'a [u8]),
}

/// `Event { wall_time = 1, … }`.
fn event(time: f64, fields: &[(u8, Field<'_>)]) -> Vec<u8> {
    let mut bytes = message(&[(1, Field::Double(time))]);
    bytes.extend(message(fields));
    bytes
}

fn message(fields: &[(u8, Field<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, field) in fields {
        let tag = number << 3;
        match field {
            Field::Whole(n) => {
                bytes.push(tag);
                varint(*n, &mut bytes);
            }
            Field::Double(x) => {
                bytes.push(tag | 1);
                bytes.extend(x.to_le_bytes());
            }
            Field::Bytes(b) => {
                bytes.push(tag | 2);
                varint(b.len() as u64, &mut bytes);
                bytes.extend_from_slice(b);
            }
            Field::Float(x) => {
                bytes.push(tag | 5);
                bytes.extend(x.to_le_bytes());
            }
        }
    }
    bytes
}

fn varint(mut n: u64, bytes: &mut Vec<u8>) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}
