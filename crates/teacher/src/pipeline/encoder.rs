//! The encoder of a run: that of an earlier run, or one trained on the spot and kept beside the teacher.

use std::collections::BTreeMap;

use anyo_core::{
    Error, Result,
    data::Dataset,
    run::{Run, resolve_run_of},
    torch::{load_tensors, save_model, tensor_file::load_metadata},
};
use anyo_student::{RunWatch, STUDENT_APPS, Setup, Student, fit};
use serde_json::json;
use tch::Device;

use super::config::TeacherRunConfig;
use crate::encoder::Encoder;

/// Weights of an encoder that was trained on the spot, inside the run folder.
const FILE: &str = "models/encoder.safetensors";
/// Where its checkpoints lie, inside the run folder.
const FOLDER: &str = "encoder";

/// Refuses an encoder without states before anything is loaded.
pub(super) fn check(config: &TeacherRunConfig) -> Result<()> {
    let student = &config.encoder.student;
    if config.teacher.encoder_run.is_some() || student.recipe().is_some() {
        return Ok(());
    }
    Err(Error::Invalid {
        message: format!("encoder.student: `{}` has no states that a gate could read", student.name()),
        hint: Some("take a neural student, such as student@encoder.student=sasrec".into()),
    })
}

pub(super) fn open(config: &TeacherRunConfig, dataset: &Dataset, device: Device, run: &mut Run) -> Result<Encoder> {
    let encoder = match &config.teacher.encoder_run {
        Some(path) => Encoder::from_run(&resolve_run_of(path, STUDENT_APPS)?, dataset, device)?,
        None => on_the_spot(config, dataset, device, run)?,
    };
    run.info(&format!("encoder: {}, states of width {}", encoder.source(), encoder.state_width()));
    run.record("encoder", json!(encoder.source()))?;
    Ok(encoder)
}

fn on_the_spot(config: &TeacherRunConfig, dataset: &Dataset, device: Device, run: &mut Run) -> Result<Encoder> {
    let recipe = &config.encoder;
    let student = Student::new(&recipe.student, dataset.n_items(), device, config.seed)?;
    let source = format!("{} trained on the spot", recipe.student.name());
    let path = run.path().join(FILE);
    let identity = BTreeMap::from([
        ("student".to_owned(), recipe.student.name().to_owned()),
        ("items_hash".to_owned(), dataset.items_hash.clone()),
        ("data_hash".to_owned(), dataset.hash.clone()),
    ]);
    // A resumed run goes on with the encoder that its teacher was trained with.
    let same =
        |metadata: BTreeMap<String, String>| identity.iter().all(|(key, value)| metadata.get(key) == Some(value));
    if path.is_file() && load_metadata(&path).is_ok_and(same) {
        student.load(&load_tensors(&path)?)?;
        return Encoder::new(student, &recipe.student, source);
    }
    run.info(&format!("training the encoder {} first", recipe.student.name()));
    let folder = run.path().join(FOLDER);
    std::fs::create_dir_all(folder.join("models")).map_err(Error::io(&folder, "make the encoder's folder"))?;
    let setup = Setup {
        student: &recipe.student,
        train: &recipe.train,
        eval: &config.eval,
        dataset,
        seed: config.seed,
        folder: Some(&folder),
        resume: run.resumed(),
    };
    let fitted = fit(&setup, &student, &mut EncoderWatch(RunWatch::new(run)))?;
    save_model(&path, &student.params, &identity)?;
    run.record("encoder_train_time", json!(fitted.seconds))?;
    Encoder::new(student, &recipe.student, source)
}

/// Reports without scalars: the steps of `metrics.jsonl` are the teacher's.
struct EncoderWatch<'a>(RunWatch<'a>);

impl anyo_student::Watch for EncoderWatch<'_> {
    fn scalars(&mut self, _: u64, _: &[(&str, f64)]) -> Result<()> {
        Ok(())
    }

    fn note(&mut self, message: &str) {
        self.0.note(&format!("encoder: {message}"));
    }

    fn progress(&mut self, progress: &anyo_student::Progress<'_>) {
        self.0.progress(progress);
    }

    fn rewind(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.0.stop_requested()
    }
}
