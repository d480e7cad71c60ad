//! Checkpoints of a training: `step_000123/{model,optim}.safetensors` and `state.json`, each complete or absent.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Params, Resume,
    saved::{self, Saved},
    tensor_file::{parent, sync_folder, write_tensors},
};
use crate::{Error, Result};

const TEMPORARY: &str = ".tmp_";
const REPLACED: &str = ".old_";
const BEST: &str = "best.json";

/// Which checkpoint had the best validation figure.
#[derive(Serialize, Deserialize)]
struct Best {
    step: u64,
}

/// The checkpoints of one run in one folder: the last few and the best.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Opens or makes `folder`; `keep` checkpoints stay beside the best one. Clears what a killed process left half done.
    ///
    /// # Errors
    /// When `keep` is 0 or the folder cannot be made, read or cleared.
    pub fn new(folder: impl Into<PathBuf>, keep: usize) -> Result<Self> {
        let folder = folder.into();
        if keep == 0 {
            return Err(Error::invalid("the number of checkpoints to keep must be at least 1, got 0"));
        }
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "make the folder for checkpoints"))?;
        let this = Self { folder, keep };
        for name in this.names()? {
            let path = this.folder.join(&name);
            if let Some(original) = name.strip_prefix(REPLACED) {
                let original = this.folder.join(original);
                if !original.exists() {
                    // Killed between the two renames of a replacement: the older one is still good.
                    fs::rename(&path, &original).map_err(Error::io(&path, "restore the checkpoint"))?;
                    continue;
                }
            } else if !name.starts_with(TEMPORARY) {
                continue;
            }
            remove(&path)?;
        }
        Ok(this)
    }

    /// Where the checkpoints are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Saves the state after `step` updates and returns the folder `step_…`; then removes what is beyond `keep`.
    ///
    /// `state` is the caller's: epoch, next batch, best figure, and [`super::DataIdentity`] under the key `data`. With
    /// `best` this checkpoint becomes the one that [`Checkpoints::best`] finds and rotation spares.
    ///
    /// # Errors
    /// When something cannot be written (disk full, folder not writable); earlier checkpoints are intact then.
    pub fn save(
        &mut self,
        step: u64,
        params: &Params,
        optimizer: &dyn Resume,
        state: &impl Serialize,
        best: bool,
    ) -> Result<PathBuf> {
        let name = folder_name(step);
        let temporary = self.folder.join(format!("{TEMPORARY}{name}"));
        remove(&temporary)?;
        let target = self.folder.join(&name);
        let written = write(&temporary, step, params, optimizer, state).and_then(|()| self.put_in_place(&name));
        if let Err(error) = written {
            let _ = remove(&temporary);
            return Err(error);
        }
        if best {
            self.write_best(step)?;
        }
        self.rotate(step)?;
        Ok(target)
    }

    /// Renames the finished temporary folder, moving away an earlier checkpoint of the same step.
    fn put_in_place(&self, name: &str) -> Result<()> {
        let (temporary, target) = (self.folder.join(format!("{TEMPORARY}{name}")), self.folder.join(name));
        let replaced = self.folder.join(format!("{REPLACED}{name}"));
        let there = target.exists();
        if there {
            remove(&replaced)?;
            fs::rename(&target, &replaced).map_err(Error::io(&target, "move the earlier checkpoint away"))?;
        }
        if let Err(error) =
            fs::rename(&temporary, &target).map_err(Error::io(&target, "rename the finished checkpoint"))
        {
            if there {
                let _ = fs::rename(&replaced, &target);
            }
            return Err(error);
        }
        sync_folder(&self.folder)?;
        remove(&replaced)
    }

    fn write_best(&self, step: u64) -> Result<()> {
        let (path, temporary) = (self.folder.join(BEST), self.folder.join(format!("{TEMPORARY}{BEST}")));
        let text = format!("{}\n", serde_json::json!(Best { step }));
        saved::write_synced(&temporary, text.as_bytes())?;
        fs::rename(&temporary, &path).map_err(Error::io(&path, "note the best checkpoint"))?;
        sync_folder(&self.folder)
    }

    /// Removes all but the last `keep` up to `step`, and the best. Later ones belong to an attempt that went further.
    fn rotate(&self, step: u64) -> Result<()> {
        // Without knowing the best one, nothing is removed.
        let Ok(best) = self.best_step() else { return Ok(()) };
        let earlier: Vec<u64> = self.steps()?.into_iter().filter(|&s| s <= step).collect();
        for &old in earlier.iter().rev().skip(self.keep).filter(|&&s| Some(s) != best) {
            let (path, name) = (self.folder.join(folder_name(old)), folder_name(old));
            // Renamed first, so that a kill in between leaves no half checkpoint under its name.
            let doomed = self.folder.join(format!("{TEMPORARY}{name}"));
            fs::rename(&path, &doomed).map_err(Error::io(&path, "remove the old checkpoint"))?;
            remove(&doomed)?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        let failed = || Error::io(&self.folder, "list the checkpoints");
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            names.push(entry.map_err(failed())?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The steps that have a checkpoint, ascending; not verified.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> = self.names()?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Loads and verifies the checkpoint of `step`.
    ///
    /// # Errors
    /// When it is missing, incomplete or damaged.
    pub fn load(&self, step: u64) -> Result<Saved> {
        Saved::read(&self.folder.join(folder_name(step)))
    }

    /// The newest checkpoint that is whole; `note` gets one message for each newer one that is not.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn latest_valid(&self, mut note: impl FnMut(&str)) -> Result<Option<Saved>> {
        for step in self.steps()?.into_iter().rev() {
            match self.load(step) {
                Ok(saved) => return Ok(Some(saved)),
                Err(error) => note(&format!("skipping a checkpoint that cannot be used: {error}")),
            }
        }
        Ok(None)
    }

    /// Step of the best checkpoint, if one was marked.
    ///
    /// # Errors
    /// When the note about it is damaged.
    pub fn best_step(&self) -> Result<Option<u64>> {
        let path = self.folder.join(BEST);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, "read which checkpoint is best")(error)),
        };
        let best: Best = serde_json::from_str(&text).map_err(|e| Error::Checkpoint {
            path,
            message: format!("does not say which checkpoint is best: {e}"),
            hint: Some("remove this file; the last checkpoints can still be used".into()),
        })?;
        Ok(Some(best.step))
    }

    /// Loads and verifies the best checkpoint, if one was marked.
    ///
    /// # Errors
    /// When it is missing, incomplete or damaged.
    pub fn best(&self) -> Result<Option<Saved>> {
        self.best_step()?.map(|step| self.load(step)).transpose()
    }
}

fn folder_name(step: u64) -> String {
    format!("step_{step:06}")
}

fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step_")?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

/// Removes a file or folder; nothing there is fine.
fn remove(path: &Path) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    gone.map_err(Error::io(path, "remove the leftover"))
}

fn write(folder: &Path, step: u64, params: &Params, optimizer: &dyn Resume, state: &impl Serialize) -> Result<()> {
    fs::create_dir(folder).map_err(Error::io(folder, "make the folder of the checkpoint"))?;
    let model = params.named().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
    let model = write_tensors(&folder.join(saved::MODEL), &model, &BTreeMap::new())?;
    let optim = write_tensors(&folder.join(saved::OPTIM), &optimizer.state()?, &BTreeMap::new())?;
    let state = serde_json::to_value(state)
        .map_err(|e| Error::invalid(format!("the training state cannot be written as JSON: {e}")))?;
    let text = saved::state_text(step, &model, &optim, &state);
    saved::write_synced(&folder.join(saved::STATE), text.as_bytes())?;
    sync_folder(folder)?;
    sync_folder(&parent(folder))
}

/// When the next checkpoint is due: after so many steps or so many minutes, whichever comes first.
#[derive(Debug, Clone)]
pub struct Due {
    every_steps: Option<u64>,
    every: Option<Duration>,
    last_step: u64,
    last_time: Instant,
}

impl Due {
    /// Counts from `step` and `now`; `None` or 0 switches a trigger off.
    pub fn new(every_steps: Option<u64>, every_minutes: Option<f64>, step: u64, now: Instant) -> Self {
        let every = every_minutes.filter(|&m| m > 0.0).and_then(|m| Duration::try_from_secs_f64(m * 60.0).ok());
        Self { every_steps: every_steps.filter(|&n| n > 0), every, last_step: step, last_time: now }
    }

    /// Whether a checkpoint should be saved after `step` updates.
    pub fn is_due(&self, step: u64, now: Instant) -> bool {
        // A grid of whole multiples, so that a resumed run saves at the same steps as an uninterrupted one.
        let by_step = self.every_steps.is_some_and(|n| step / n > self.last_step / n);
        by_step || self.every.is_some_and(|every| now.saturating_duration_since(self.last_time) >= every)
    }

    /// Tells that a checkpoint was saved after `step` updates.
    pub fn saved(&mut self, step: u64, now: Instant) {
        (self.last_step, self.last_time) = (step, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_by_step_and_by_time() {
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut due = Due::new(Some(100), Some(10.0), 0, start);
        assert!(!due.is_due(99, after(9)));
        assert!(due.is_due(100, start) && due.is_due(1, after(10)));
        due.saved(130, after(5));
        assert!(!due.is_due(199, after(14)));
        assert!(due.is_due(200, after(5)) && due.is_due(131, after(15)));
        let never = Due::new(Some(0), None, 0, start);
        assert!(!never.is_due(1_000_000, after(100_000)));
        assert!(!Due::new(None, Some(f64::INFINITY), 0, start).is_due(9, after(9)));
    }

    #[test]
    fn names_of_steps() {
        assert_eq!(folder_name(123), "step_000123");
        assert_eq!(step_of("step_000123"), Some(123));
        assert_eq!(step_of("step_12345678"), Some(12_345_678));
        for other in ["step_123", "step_", ".tmp_step_000001", "best.json", "step_00012x"] {
            assert_eq!(step_of(other), None, "{other}");
        }
    }
}
