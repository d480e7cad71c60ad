//! Writing an exported folder: beside its place, checked there, then renamed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyo_core::{
    Error, Result,
    bundle::FileInfo,
    data::Dataset,
    run::write_atomic,
    torch::{device::libtorch_version, raw, save_model},
};
use tch::Tensor;

use super::{
    BIAS_FILE, DatasetInfo, ENCODER_FILE, FILES, IDS_FILE, ITEMS_FILE, InputInfo, ItemsInfo, KIND, MANIFEST_FILE,
    ModelInfo, OutputInfo, SCHEMA_VERSION, SCORES_FILE, StudentManifest, WEIGHTS_FILE,
    check::check,
    open::ItemLine,
    script::{Answer, Recorder},
};
use crate::{config::StudentConfig, student::Student};

/// A trained student with what is known of it.
#[derive(Clone, Copy)]
pub struct Production<'a> {
    /// The network with its trained weights.
    pub student: &'a Student,
    /// Its configuration.
    pub config: &'a StudentConfig,
    /// The data it was trained on.
    pub dataset: &'a Dataset,
    /// SHA-256 of the file that the weights come from, where there is one.
    pub trained_weights_sha256: Option<&'a str>,
    /// Histories of validation rows on which the written files are compared with the student.
    pub check_rows: usize,
}

impl std::fmt::Debug for Production<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Production").field("config", &self.config).field("dataset", &self.dataset.name).finish()
    }
}

/// A finished export.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its manifest.
    pub manifest: StudentManifest,
    /// Histories on which the files were compared with the student.
    pub checked: usize,
    /// The largest difference, in units of the larger of 1 and the largest score.
    pub difference: f64,
}

impl Production<'_> {
    /// Writes the folder `out`, which must not be there. It is made as `out.part`, read back, compared with the student
    /// (1e-5) and renamed, so a folder with the right name is whole.
    ///
    /// # Errors
    /// Something at `out`; a recommender without weights; a folder that cannot be written; files that do not say what the
    /// student says.
    pub fn write(&self, out: &Path) -> Result<Written> {
        if fs::symlink_metadata(out).is_ok() {
            return Err(Error::Invalid {
                message: format!("{}: there is something at this place already", out.display()),
                hint: Some("choose another folder; an export never overwrites".into()),
            });
        }
        let recorder = Recorder::new(self.config, self.student, self.dataset.n_items())?;
        let part = make_part(out)?;
        let finish = || -> Result<Written> {
            let manifest = self.write_files(&part, &recorder)?;
            let (checked, difference) = check(&part, self)?;
            sync(&part)?;
            fs::rename(&part, out).map_err(Error::io(out, "rename the finished folder"))?;
            Ok(Written { manifest, checked, difference })
        };
        let written = finish();
        if written.is_err() {
            let _ = remove_part(&part);
        }
        written
    }

    fn write_files(&self, folder: &Path, recorder: &Recorder<'_>) -> Result<StudentManifest> {
        let metadata = BTreeMap::from([
            ("student".to_owned(), self.config.name().to_owned()),
            ("items_hash".to_owned(), self.dataset.items_hash.clone()),
            ("data_hash".to_owned(), self.dataset.hash.clone()),
        ]);
        save_model(&folder.join(WEIGHTS_FILE), &self.student.params, &metadata)?;
        for (name, answer) in [(SCORES_FILE, Answer::Scores), (ENCODER_FILE, Answer::State)] {
            recorder.record(answer)?.save(folder.join(name))?;
        }
        let head = recorder.head();
        write_flat(&folder.join(ITEMS_FILE), &head.weight)?;
        if let Some(bias) = &head.bias {
            write_flat(&folder.join(BIAS_FILE), bias)?;
        }
        self.write_ids(&folder.join(IDS_FILE))?;
        let mut files = BTreeMap::new();
        for name in FILES.into_iter().filter(|name| folder.join(name).is_file()) {
            sync(&folder.join(name))?;
            files.insert(name.to_owned(), FileInfo::of(&folder.join(name))?);
        }
        let manifest = self.manifest(recorder, files)?;
        let path = folder.join(MANIFEST_FILE);
        let mut text = serde_json::to_string_pretty(&manifest)
            .map_err(|e| Error::invalid(format!("{}: cannot be written as JSON: {e}", path.display())))?;
        text.push('\n');
        write_atomic(&path, text.as_bytes())?;
        Ok(manifest)
    }

    /// One item a line, so that the file can be looked at.
    fn write_ids(&self, path: &Path) -> Result<()> {
        let failed = || Error::io(path, "write the item ids");
        let mut file = BufWriter::new(File::create(path).map_err(failed())?);
        let mut before = "[\n";
        for item in &self.dataset.items {
            let line = ItemLine { id: item.id.clone(), title: item.title.clone() };
            let line = serde_json::to_string(&line).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
            write!(file, "{before}{line}").map_err(failed())?;
            before = ",\n";
        }
        file.write_all(b"\n]\n").and_then(|()| file.flush()).map_err(failed())
    }

    fn manifest(&self, recorder: &Recorder<'_>, files: BTreeMap<String, FileInfo>) -> Result<StudentManifest> {
        let n_items = self.dataset.n_items();
        let (head, max_len) = (recorder.head(), self.config.recipe().map_or(0, |recipe| recipe.max_len));
        let d = head.weight.size().get(1).copied().unwrap_or_default() as usize;
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let added_to_seen = recorder.seen_value();
        let scores = match (&head.bias, added_to_seen) {
            (Some(_), _) => "scores = state · items^T + item_bias",
            (None, None) => "scores = state · items^T",
            (None, Some(_)) => "scores = state · items^T, plus output.added_to_seen for every item that the row holds",
        };
        Ok(StudentManifest {
            kind: KIND.into(),
            schema_version: SCHEMA_VERSION,
            model: ModelInfo {
                name: self.config.name().into(),
                config: self.config.clone(),
                n_parameters: self.student.params.n_parameters(),
                trained_weights_sha256: self.trained_weights_sha256.map(str::to_owned),
            },
            dataset: DatasetInfo {
                name: self.dataset.name.clone(),
                hash: self.dataset.hash.clone(),
                items_hash: self.dataset.items_hash.clone(),
                n_items,
            },
            input: InputInfo {
                arguments: words(&["item_ids", "lengths"]),
                shapes: vec![words(&["B", "W"]), words(&["B"])],
                dtype: "int64".into(),
                padding: "right: real items first, oldest first".into(),
                pad_id: n_items as i64,
                max_len,
                generic: words(&[
                    "B and W are free: any number of rows from 1, any width from 1",
                    "of a row longer than max_len the newest max_len items are read; output.added_to_seen covers all of it",
                    "what stands at empty places is not read; pad_id is the convention",
                    "length 0 is an empty history; a length beyond W counts as W, below 0 as 0",
                    "item ids at real places must be 0 to n_items - 1",
                ]),
            },
            output: OutputInfo {
                scores: words(&["B", "n_items"]),
                state: words(&["B", "d"]),
                dtype: "float32".into(),
                added_to_seen,
            },
            items: ItemsInfo {
                shape: [n_items, d],
                dtype: "float32".into(),
                byte_order: "little".into(),
                layout: "row-major".into(),
                bias: head.bias.is_some(),
                scores: scores.into(),
            },
            weights: self.student.params.named().map(|(name, t)| (name.to_owned(), t.size())).collect(),
            libtorch: libtorch_version(),
            anyo: env!("CARGO_PKG_VERSION").into(),
            files,
        })
    }
}

/// The numbers of an f32 tensor in row-major order, each in little endian.
fn write_flat(path: &Path, tensor: &Tensor) -> Result<()> {
    let failed = || Error::io(path, "write the flat array");
    let mut file = BufWriter::new(File::create(path).map_err(failed())?);
    for number in raw::slice::<f32>(tensor) {
        file.write_all(&number.to_le_bytes()).map_err(failed())?;
    }
    file.flush().map_err(failed())
}

/// Makes `out.part` anew; what an export that was killed left there is removed.
fn make_part(out: &Path) -> Result<PathBuf> {
    let mut name = out.file_name().ok_or_else(|| no_name(out))?.to_owned();
    name.push(".part");
    let part = out.with_file_name(name);
    if part.is_dir() {
        remove_part(&part)?;
    }
    if let Some(parent) = part.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(Error::io(parent, "make the folder for the export"))?;
    }
    fs::create_dir(&part).map_err(Error::io(&part, "make the folder for the export"))?;
    Ok(part)
}

fn no_name(out: &Path) -> Error {
    Error::Invalid {
        message: format!("{}: wanted the name of a new folder", out.display()),
        hint: Some("write out=FOLDER".into()),
    }
}

/// Removes the files of an export and the folder; a folder with other files stays, with an error.
fn remove_part(part: &Path) -> Result<()> {
    for entry in fs::read_dir(part).map_err(Error::io(part, "look into the folder"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // also what their writers name them before they are whole
        if FILES.iter().chain(&[MANIFEST_FILE]).any(|file| name.contains(file)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    fs::remove_dir(part).map_err(Error::io(part, "remove what an earlier export left"))
}

/// To the disk, before the rename makes it visible.
fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io(path, "flush the export to disk"))
}
