//! Whether the files that were written say what the student says.

use std::{fs, path::Path};

use anyo_core::{Batch, Error, Recommender, Result};
use tch::{CModule, Device, Kind, Tensor};

use super::{
    BIAS_FILE, ENCODER_FILE, ExportedStudent, ITEMS_FILE, SCORES_FILE,
    script::{difference, program_input},
    write::Production,
};
use crate::seen::Seen;

/// Largest difference from the student's own scores, in units of the larger of 1 and the largest score.
pub(super) const TOLERANCE: f64 = 1e-5;

/// Loads everything in `folder` anew and compares it with the student on histories of the validation rows, an empty one,
/// one of a single item and one longer than the network reads: how many histories, and the largest difference.
pub(super) fn check(folder: &Path, source: &Production<'_>) -> Result<(usize, f64)> {
    let _guard = tch::no_grad_guard();
    let histories = histories(source);
    let rows: Vec<&[u32]> = histories.iter().map(Vec::as_slice).collect();
    let users = vec![0; rows.len()];
    let batch = Batch { users: &users, histories: &rows };
    let want = source.student.score(&batch)?.f_to_device(Device::Cpu)?;
    let exported = ExportedStudent::open(folder, Device::Cpu)?;
    let pad = exported.manifest.input.pad_id;

    let mut worst = 0f64;
    let mut compare = |what: &str, got: &Tensor, want: &Tensor| {
        let gap = difference(got, want)?;
        worst = worst.max(gap);
        if gap <= TOLERANCE {
            return Ok(());
        }
        Err(Error::Run {
            message: format!("{}: {what}: differs from the student by {gap:e}", folder.display()),
            hint: Some("nothing was exported; this is a fault of the export".into()),
        })
    };
    compare("student.safetensors", &exported.score(&batch)?, &want)?;
    let program = CModule::load(folder.join(SCORES_FILE))?;
    compare(SCORES_FILE, &program.forward_ts(&program_input(&rows, pad)?)?, &want)?;
    // alone, each row has a width of its own
    for (row, history) in rows.iter().enumerate().take(4) {
        let got = program.forward_ts(&program_input(&[history], pad)?)?;
        compare(SCORES_FILE, &got, &want.f_narrow(0, row as i64, 1)?)?;
    }

    let [n_items, d] = exported.manifest.items.shape.map(|n| n as i64);
    let read = |name: &str, size: &[i64]| -> Result<Tensor> {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read the flat array"))?;
        Ok(Tensor::f_from_data_size(&bytes, size, Kind::Float)?)
    };
    let states = CModule::load(folder.join(ENCODER_FILE))?.forward_ts(&program_input(&rows, pad)?)?;
    let mut scores = states.f_matmul(&read(ITEMS_FILE, &[n_items, d])?.f_tr()?)?;
    if exported.manifest.items.bias {
        scores = scores.f_add(&read(BIAS_FILE, &[n_items])?)?;
    }
    if let Some(value) = exported.manifest.output.added_to_seen {
        Seen::of_histories(&rows, n_items as usize).add(&scores, 0, value);
    }
    compare("encoder.pt times items.bin", &scores, &want)?;
    Ok((rows.len(), worst))
}

/// The edges first, then histories of validation rows.
fn histories(source: &Production<'_>) -> Vec<Vec<u32>> {
    let n_items = source.dataset.n_items() as u32;
    let max_len = source.config.recipe().map_or(1, |recipe| recipe.max_len) as u32;
    let long = (0..max_len + 3).map(|i| (i * 7 + 1) % n_items).collect();
    let mut all = vec![Vec::new(), vec![n_items - 1], long];
    let valid = &source.dataset.valid;
    all.extend((0..valid.len().min(source.check_rows)).map(|row| valid.history(row).to_vec()));
    all
}
