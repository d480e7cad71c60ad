//! From configuration to data set: find and hash the sources, take the processed form or make it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Dataset, Rows, cache,
    config::{DataConfig, DatasetConfig, Format},
    filter::{self, Histories, describe},
    read::{ItemTable, Windows, read_interactions, read_items, read_windows},
    sources::{HashIndex, Source, hex, locate, not_found},
    split::{self, Split},
    toy,
};
use crate::{
    Error, Result,
    config::{Check, Report},
};

/// Part of every hash: raise it when the same sources and options give other rows than before.
const VERSION: &str = "anyo-data-1";

/// Loads a data set: from its processed form where sources, options and code are unchanged, else from its sources.
///
/// `note` gets sentences a person may want to read: which file was used, that a processed form was rebuilt.
///
/// # Errors
/// A configuration out of range, a missing file, a bad line, or nothing left; each says what to do.
pub fn load(config: &DatasetConfig, data: &DataConfig, note: &mut dyn FnMut(&str)) -> Result<Dataset> {
    let problems: Vec<_> = config.problems().into_iter().chain(data.problems()).collect();
    if !problems.is_empty() {
        return Err(Error::Config(Report { problems }));
    }
    let mut index = HashIndex::open(data.cache.as_deref());
    let plan = Plan::new(config, &data.root, &mut index, note)?;
    if let Err(error) = index.save() {
        note(&format!(
            "the hashes of the source files cannot be remembered ({error}); the next start reads them again"
        ));
    }
    let (hash, options) = plan.hash(config)?;
    let file =
        data.cache.as_ref().map(|folder| folder.join(format!("{}-{}", config.name, &hash[..12])).join("dataset.bin"));
    if let Some(file) = &file {
        match cache::read(file, &hash) {
            Ok(Some(mut found)) => {
                // the same content may lie elsewhere by now
                found.provenance["sources"] = plan.describe();
                return Ok(found);
            }
            Ok(None) => {}
            Err(why) => note(&format!("{} {why}; it is made again", file.display())),
        }
    }
    let mut made = match plan.format {
        Format::Windows => from_windows(config, &plan)?,
        _ => from_interactions(config, &plan)?,
    };
    made.hash = hash;
    made.provenance["options"] = options;
    made.provenance["sources"] = plan.describe();
    if let Some(file) = &file
        && let Err(error) = cache::write(file, &made)
    {
        note(&format!(
            "{}: the processed data cannot be kept ({error}); the next start makes it again",
            file.display()
        ));
    }
    Ok(made)
}

/// The files to read.
struct Plan {
    format: Format,
    sources: Vec<Source>,
}

impl Plan {
    fn new(config: &DatasetConfig, root: &Path, index: &mut HashIndex, note: &mut dyn FnMut(&str)) -> Result<Self> {
        let mut plan = Self { format: config.format, sources: Vec::new() };
        let find = |path: &str| locate(root, path).ok_or_else(|| not_found(root, path, config));
        if let (Format::Windows, Some(files)) = (config.format, &config.windows) {
            for (role, path) in [("train", &files.train), ("valid", &files.valid), ("test", &files.test)] {
                plan.sources.push(index.source(role, find(path)?)?);
            }
        }
        if let (Some(path), false) = (&config.path, matches!(config.format, Format::Toy | Format::Windows)) {
            let alternative = config.alternative.as_ref().filter(|other| other.instead_of == *path);
            let found = match (locate(root, path), alternative) {
                (Some(found), _) => found,
                (None, Some(other)) => {
                    let found = locate(root, &other.path).ok_or_else(|| not_found(root, path, config))?;
                    note(&format!("{} is not there; reading {}", root.join(path).display(), found.display()));
                    plan.format = other.format;
                    found
                }
                (None, None) => return Err(not_found(root, path, config)),
            };
            plan.sources.push(index.source("interactions", atomic_file(found))?);
        }
        if let Some(items) = &config.items {
            let found = match (items.path.as_deref(), plan.path("interactions")) {
                (Some("auto"), Some(interactions)) => {
                    let beside = interactions.with_extension("item");
                    if !beside.exists() {
                        note(&format!("{} is not there; titles are the ids", beside.display()));
                    }
                    Some(beside).filter(|beside| beside.exists())
                }
                (Some("auto") | None, _) => None,
                (Some(path), _) => Some(find(path)?),
            };
            if let Some(found) = found {
                plan.sources.push(index.source("items", found)?);
            }
        }
        Ok(plan)
    }

    fn path(&self, role: &str) -> Option<&Path> {
        self.sources.iter().find(|source| source.role == role).map(|source| source.path.as_path())
    }

    fn describe(&self) -> Value {
        let one = |s: &Source| json!({"role": s.role, "path": s.path, "bytes": s.bytes, "sha256": s.sha256});
        self.sources.iter().map(one).collect()
    }

    /// The hash of content and options, and the options; names and places of files are no part of it.
    fn hash(&self, config: &DatasetConfig) -> Result<(String, Value)> {
        let fail =
            |error: serde_json::Error| Error::invalid(format!("the data options cannot be written as JSON: {error}"));
        let mut options = serde_json::to_value(config).map_err(fail)?;
        options["format"] = serde_json::to_value(self.format).map_err(fail)?;
        let mut content = options.clone();
        if let Some(map) = content.as_object_mut() {
            for key in ["name", "path", "alternative", "download"] {
                map.shift_remove(key);
            }
        }
        for (group, key) in [("items", "path"), ("windows", "train"), ("windows", "valid"), ("windows", "test")] {
            if let Some(map) = content[group].as_object_mut() {
                map.shift_remove(key);
            }
        }
        let mut hash = Sha256::new();
        hash.update(VERSION);
        hash.update(content.to_string());
        if config.toy.is_some() {
            hash.update(toy::RULE);
        }
        for source in &self.sources {
            // the extension can decide how a file is read
            let extension = source.path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            hash.update(format!("\n{} {extension} {}", source.role, source.sha256));
        }
        Ok((hex(&hash.finalize()), options))
    }
}

/// RecBole keeps `name/name.inter`; the folder stands for the file.
fn atomic_file(path: PathBuf) -> PathBuf {
    let inside = path.file_name().map(|name| path.join(name).with_extension("inter"));
    match inside {
        Some(inside) if path.is_dir() && inside.exists() => inside,
        _ => path,
    }
}

fn item_table(config: &DatasetConfig, plan: &Plan) -> Result<Option<ItemTable>> {
    match (plan.path("items"), &config.items) {
        (Some(path), Some(items)) => read_items(path, items, &config.title).map(Some),
        _ => Ok(None),
    }
}

fn from_interactions(config: &DatasetConfig, plan: &Plan) -> Result<Dataset> {
    let (raw, table) = match (plan.path("interactions"), &config.toy) {
        (Some(path), _) => (read_interactions(path, plan.format, config)?, item_table(config, plan)?),
        (None, Some(toy)) => {
            let (raw, table) = toy::generate(toy);
            (raw, Some(table))
        }
        (None, None) => return Err(Error::invalid("the data set has neither a file nor sizes of generated data")),
    };
    let unknown = config.items.as_ref().map_or(super::config::UnknownItems::Error, |items| items.unknown);
    let place = plan.path("items").unwrap_or(Path::new("toy"));
    let items = table.as_ref().map(|table| (table, place, unknown));
    let histories = filter::apply(&config.name, &raw, items, &config.filter)?;
    drop(raw);
    let split = split::split(&histories, &config.split)?;
    Ok(finish(config, histories, split))
}

fn finish(config: &DatasetConfig, data: Histories, split: Split) -> Dataset {
    let mut seen: Vec<(usize, usize)> = Vec::new();
    for (user, &visible) in split.visible.iter().enumerate() {
        seen.extend((data.offsets[user]..data.offsets[user] + visible).map(|at| (user, at)));
    }
    if let Some(time) = &data.time {
        seen.sort_by(|a, b| time[a.1].total_cmp(&time[b.1]));
    }
    let train_order: Vec<u32> = seen.iter().map(|(_, at)| data.item[*at]).collect();
    let provenance = json!({"steps": data.steps, "split": split.counts});
    assemble(
        config,
        data.users,
        data.items,
        [split.train, split.valid, split.test],
        train_order,
        provenance,
        &split.protocol,
    )
}

fn assemble(
    config: &DatasetConfig,
    users: Vec<String>,
    items: Vec<super::Item>,
    [train, valid, test]: [Rows; 3],
    train_order: Vec<u32>,
    provenance: Value,
    protocol: &str,
) -> Dataset {
    let mut train_counts = vec![0u64; items.len()];
    for &item in &train_order {
        train_counts[item as usize] += 1;
    }
    let mut hash = Sha256::new();
    for item in &items {
        hash.update(&item.id);
        hash.update([0]);
    }
    Dataset {
        name: config.name.clone(),
        protocol: format!("{protocol}; full ranking over {} items", items.len()),
        items_hash: hex(&hash.finalize()),
        hash: String::new(),
        users,
        items,
        train,
        valid,
        test,
        train_counts,
        train_order,
        provenance,
    }
}

/// Windows keep the numbering of their source; rows that continue one another belong to one user.
fn from_windows(config: &DatasetConfig, plan: &Plan) -> Result<Dataset> {
    let Some(files) = &config.windows else { return Err(Error::invalid("windows is null")) };
    let table = item_table(config, plan)?;
    let items = (0..files.pad).map(|id| describe(&id.to_string(), table.as_ref())).collect();
    let (mut users, mut parts, mut order) = (Vec::new(), Vec::new(), Vec::new());
    let mut dropped = serde_json::Map::new();
    for role in ["train", "valid", "test"] {
        let Some(path) = plan.path(role) else { continue };
        let column = files.user.as_ref().filter(|_| role == "train");
        let windows = read_windows(path, files.pad, column)?;
        let (rows, short) = window_rows(role, &windows, config.split.min_len, &mut users, &mut order);
        dropped.insert(format!("{role}_windows_below_min_len"), short.into());
        dropped.insert(format!("{role}_rows_read"), windows.rows.len().into());
        parts.push(rows);
    }
    let Ok([train, valid, test]) = <[Rows; 3]>::try_from(parts) else {
        return Err(Error::invalid("windows need files for train, valid and test"));
    };
    split::not_empty(&train, &valid, &test)?;
    let provenance = json!({"steps": [], "split": split::counts(&train, &valid, &test, dropped)});
    let protocol = format!("given windows, histories of at least {}", config.split.min_len);
    Ok(assemble(config, users, items, [train, valid, test], order, provenance, &protocol))
}

fn window_rows(
    role: &str,
    windows: &Windows,
    min_len: usize,
    users: &mut Vec<String>,
    order: &mut Vec<u32>,
) -> (Rows, usize) {
    let mut rows = Rows::new();
    let mut short = 0;
    let (mut last_user, mut kept_before) = (None, false);
    for (at, items) in windows.rows.iter().enumerate() {
        let goes_on = match &windows.users {
            Some(names) => at > 0 && names[at] == names[at - 1],
            None => role == "train" && at > 0 && continues(&windows.rows[at - 1], items),
        };
        if !goes_on || last_user.is_none() {
            last_user = None;
            kept_before = false;
        }
        if windows.stated[at] < min_len {
            short += 1;
            // the user exists once a row of theirs stays
            continue;
        }
        let user = *last_user.get_or_insert_with(|| {
            let known = windows.users.as_ref().map(|names| names[at].clone());
            users.push(known.unwrap_or_else(|| format!("{role}-{}", at + 1)));
            users.len() as u32 - 1
        });
        if role == "train" {
            let new = if goes_on && kept_before { &items[items.len() - 1..] } else { &items[..] };
            order.extend(new);
        }
        kept_before = true;
        rows.push(user, items.iter().copied(), items.len() as u32 - 1);
    }
    (rows, short)
}

/// Whether `next` is the window one step after `before`: its history is all of `before`, or all but the oldest item.
fn continues(before: &[u32], next: &[u32]) -> bool {
    let history = &next[..next.len() - 1];
    !history.is_empty() && (history == before || history == &before[1..])
}
