//! The small JSON files beside `tokenizer.json`.

use std::path::Path;

use anyo_core::{Error, Result};
use serde_json::{Map, Value};

use crate::chat::SpecialTokens;

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
const GENERATION: &str = "generation_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// What `generation_config.json` proposes; absent keys are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Ids that end a text, a number or a list in the file.
    pub eos_ids: Vec<u32>,
    /// Id of the pad token.
    pub pad_id: Option<u32>,
    /// Id of the bos token.
    pub bos_id: Option<u32>,
    /// Whether to draw tokens; otherwise greedy.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// How many of the likeliest tokens stay.
    pub top_k: Option<usize>,
    /// Mass of the likeliest tokens that stay.
    pub top_p: Option<f64>,
    /// Least probability relative to the likeliest token.
    pub min_p: Option<f64>,
    /// Divides the positive logits of tokens that were there before.
    pub repetition_penalty: Option<f64>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<usize>,
}

/// Everything beside the vocabulary itself.
#[derive(Debug, Default)]
pub(super) struct FolderFiles {
    pub(super) special: SpecialTokens,
    pub(super) model_max_length: Option<usize>,
    /// Name and source.
    pub(super) templates: Vec<(String, String)>,
    /// Listed added tokens by id; most are in `tokenizer.json` already.
    pub(super) new_tokens: Vec<NewToken>,
    pub(super) generation: GenerationDefaults,
}

/// A token that a file lists as added.
#[derive(Debug)]
pub(super) struct NewToken {
    pub(super) id: u32,
    pub(super) content: String,
    pub(super) single_word: bool,
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
    pub(super) normalized: bool,
    pub(super) special: bool,
    pub(super) file: &'static str,
}

impl FolderFiles {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut files = Self::default();
        // the newer file wins
        for name in [SPECIAL, CONFIG] {
            if let Some(object) = Object::read(folder, name)? {
                files.special_tokens(&object)?;
            }
        }
        if let Some(config) = Object::read(folder, CONFIG)? {
            files.config(&config)?;
        }
        if let Some(added) = Object::read(folder, ADDED)? {
            files.added(&added)?;
        }
        if let Some(generation) = Object::read(folder, GENERATION)? {
            files.generation = defaults(&generation)?;
        }
        let path = folder.join(TEMPLATE);
        if path.is_file() {
            // transformers prefers this file to the template in the config
            let source = std::fs::read_to_string(&path).map_err(Error::io(&path, "read the chat template"))?;
            files.templates.retain(|(name, _)| name != "default");
            files.templates.push(("default".into(), source));
        }
        Ok(files)
    }

    fn special_tokens(&mut self, object: &Object<'_>) -> Result<()> {
        let slots = [
            ("bos_token", &mut self.special.bos),
            ("eos_token", &mut self.special.eos),
            ("pad_token", &mut self.special.pad),
            ("unk_token", &mut self.special.unk),
        ];
        for (key, slot) in slots {
            if let Some(token) = object.token(key)? {
                *slot = Some(token);
            }
        }
        Ok(())
    }

    fn config(&mut self, config: &Object<'_>) -> Result<()> {
        // "no limit" is written as a number around 1e30
        self.model_max_length = config.get("model_max_length").and_then(Value::as_u64).map(|n| n as usize);
        match config.get("chat_template") {
            None => {}
            Some(Value::String(source)) => self.templates.push(("default".into(), source.clone())),
            Some(Value::Array(list)) => {
                for entry in list {
                    let (Some(name), Some(source)) =
                        (entry.get("name").and_then(Value::as_str), entry.get("template").and_then(Value::as_str))
                    else {
                        return Err(config.wrong(
                            "chat_template",
                            "a list of objects with `name` and `template`",
                            entry,
                        ));
                    };
                    self.templates.push((name.to_owned(), source.to_owned()));
                }
            }
            Some(other) => return Err(config.wrong("chat_template", "a text or a list", other)),
        }
        let Some(added) = config.get("added_tokens_decoder") else { return Ok(()) };
        let Value::Object(added) = added else {
            return Err(config.wrong("added_tokens_decoder", "an object from id to token", added));
        };
        for (id, token) in added {
            let (Ok(id), Some(content)) = (id.parse(), token.get("content").and_then(Value::as_str)) else {
                return Err(config.wrong(&format!("added_tokens_decoder.{id}"), "an object with `content`", token));
            };
            let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
            self.new_tokens.push(NewToken {
                id,
                content: content.to_owned(),
                single_word: flag("single_word"),
                lstrip: flag("lstrip"),
                rstrip: flag("rstrip"),
                normalized: flag("normalized"),
                special: flag("special"),
                file: CONFIG,
            });
        }
        self.new_tokens.sort_by_key(|token| token.id);
        Ok(())
    }

    fn added(&mut self, added: &Object<'_>) -> Result<()> {
        for (content, id) in &added.map {
            let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                return Err(added.wrong(content, "a token id", id));
            };
            if self.new_tokens.iter().any(|token| token.content == *content) {
                continue;
            }
            let (single_word, lstrip, rstrip) = (false, false, false);
            let content = content.clone();
            self.new_tokens.push(NewToken {
                id,
                content,
                single_word,
                lstrip,
                rstrip,
                normalized: true,
                special: false,
                file: ADDED,
            });
        }
        self.new_tokens.sort_by_key(|token| token.id);
        Ok(())
    }
}

fn defaults(file: &Object<'_>) -> Result<GenerationDefaults> {
    let eos_ids = match file.get("eos_token_id") {
        None => Vec::new(),
        Some(Value::Array(ids)) => ids.iter().map(|id| file.as_id("eos_token_id", id)).collect::<Result<Vec<_>>>()?,
        Some(id) => vec![file.as_id("eos_token_id", id)?],
    };
    Ok(GenerationDefaults {
        eos_ids,
        pad_id: file.get("pad_token_id").map(|id| file.as_id("pad_token_id", id)).transpose()?,
        bos_id: file.get("bos_token_id").map(|id| file.as_id("bos_token_id", id)).transpose()?,
        do_sample: file.boolean("do_sample")?,
        temperature: file.number("temperature")?,
        top_k: file.count("top_k")?,
        top_p: file.number("top_p")?,
        min_p: file.number("min_p")?,
        repetition_penalty: file.number("repetition_penalty")?,
        max_new_tokens: file.count("max_new_tokens")?,
    })
}

/// A JSON object with the file it came from; `null` counts as absent.
struct Object<'a> {
    folder: &'a Path,
    name: &'static str,
    map: Map<String, Value>,
}

impl<'a> Object<'a> {
    fn read(folder: &'a Path, name: &'static str) -> Result<Option<Self>> {
        let path = folder.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read the tokenizer's settings"))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(Some(Self { folder, name, map })),
            Ok(_) => Err(Error::Data { path, line: None, message: "wanted a JSON object".into(), hint: None }),
            Err(cause) => Err(Error::Data {
                path,
                line: Some(cause.line() as u64),
                message: format!("not JSON: {cause}"),
                hint: Some("download the file again".into()),
            }),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A token is a text, or an object with its text under `content`.
    fn token(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_str().or_else(|| value.get("content").and_then(Value::as_str)) {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(self.wrong(key, "a text or an object with `content`", value)),
        }
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn as_id(&self, key: &str, value: &Value) -> Result<u32> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(key, "a token id or a list of them", value))
    }

    fn typed<T>(&self, key: &str, wanted: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, wanted, value))
    }

    fn wrong(&self, key: &str, wanted: &str, got: &Value) -> Error {
        let mut got = got.to_string();
        if let Some((end, _)) = got.char_indices().nth(60) {
            got.replace_range(end.., "…");
        }
        let message = format!("`{key}` must be {wanted}, got {got}");
        Error::Data { path: self.folder.join(self.name), line: None, message, hint: None }
    }
}
