//! The tokenizer of a model folder: text to token ids and back, special tokens, defaults for generation.

mod files;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use anyo_core::{Error, Result};
use tokenizers::AddedToken;

use crate::chat::{ChatTemplate, SpecialTokens};
use files::{FolderFiles, NewToken};

pub use files::GenerationDefaults;

/// Ids that a vocabulary may leave out beyond twice its size.
const MAX_GAP: usize = 1 << 16;

/// What an id stands for when it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdKind {
    /// No token has this id.
    Unused,
    /// A piece of text.
    Text,
    /// One byte of a character that the vocabulary lacks.
    Byte,
    /// A special token.
    Special,
}

/// A tokenizer as a Hugging Face folder holds it.
///
/// Read are `tokenizer.json` and, where they exist, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`,
/// `generation_config.json` and `chat_template.jinja`. Padding and truncation that `tokenizer.json` may have switched on
/// (a training script saved them) are switched off: a text gives exactly its own tokens.
///
/// `tokenizer.json` alone decides what is added around a text: `add_bos_token` and `add_eos_token` of
/// `tokenizer_config.json` change nothing where that file exists, in `transformers` 5 as here.
///
/// Differs: `tokenizer.json` is used as it is, as `PreTrainedTokenizerFast` does. The class `LlamaTokenizer` of
/// `transformers` 5 builds a tokenizer anew from the vocabulary, which gives other ids behind a special token and for
/// leading blanks. `transformers` adds a named special token that the vocabulary lacks as a new token, with an id that the
/// embedding may not have; here such a token has no id. `clean_up_tokenization_spaces` is ignored, as `transformers` 5
/// does for BPE.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    special: SpecialTokens,
    /// What each id is; ids may have gaps.
    kinds: Vec<IdKind>,
    n_tokens: usize,
    model_max_length: Option<usize>,
    generation: GenerationDefaults,
    templates: Vec<(String, String)>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("path", &self.path).field("n_tokens", &self.n_tokens).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing or a file is malformed; the message names the file.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Err(Error::Data {
                path,
                line: None,
                message: "no such file, but a model folder needs its tokenizer".into(),
                hint: Some(
                    "give the folder that holds tokenizer.json; where only tokenizer.model exists, let transformers convert it \
                     with AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
                        .into(),
                ),
            });
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read the tokenizer"))?;
        let inner = parse(&path, &bytes)?;
        Self::new(inner, path, FolderFiles::read(folder)?)
    }

    fn new(mut inner: tokenizers::Tokenizer, path: PathBuf, files: FolderFiles) -> Result<Self> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| malformed(&path, &e.to_string()))?;
        for token in &files.new_tokens {
            add_token(&mut inner, token, &path)?;
        }
        let vocabulary = inner.get_vocab(true);
        let n_ids = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        // an id far above the number of tokens would make the table larger than the file
        if n_ids > MAX_GAP + 2 * vocabulary.len() {
            return Err(malformed(&path, &format!("{} tokens have ids up to {}", vocabulary.len(), n_ids - 1)));
        }
        let mut kinds = vec![IdKind::Unused; n_ids];
        vocabulary.values().for_each(|&id| kinds[id as usize] = IdKind::Text);
        // only a decoder with byte fallback reads the pieces <0x00> to <0xFF> as bytes
        let falls_back =
            serde_json::to_string(&inner.get_decoder()).is_ok_and(|json| json.contains("\"ByteFallback\""));
        if falls_back {
            let bytes = (0..=255u8).filter_map(|byte| vocabulary.get(&format!("<0x{byte:02X}>")));
            bytes.for_each(|&id| kinds[id as usize] = IdKind::Byte);
        }
        for (id, token) in inner.get_added_tokens_decoder() {
            if let (true, Some(kind)) = (token.special, kinds.get_mut(id as usize)) {
                *kind = IdKind::Special;
            }
        }
        Ok(Self {
            n_tokens: vocabulary.len(),
            inner,
            path,
            special: files.special,
            kinds,
            model_max_length: files.model_max_length,
            generation: files.generation,
            templates: files.templates,
        })
    }

    /// Token ids of a text. Special tokens spelled out in the text become their ids, as in `transformers`.
    /// `add_special` adds what the model expects around a text, such as a bos in front; a rendered chat has it already.
    ///
    /// # Errors
    /// When the text cannot be tokenised (a vocabulary without an unknown token).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        // The library relies on parts of the file that it does not check, such as the tokens of a template.
        let encoding = catch_unwind(AssertUnwindSafe(|| self.inner.encode_fast(text, add_special)))
            .map_err(|_| self.refused("encode", "the file names what it does not define"))?
            .map_err(|e| self.refused("encode", &e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids; ids without a token (an embedding may have spare rows) give nothing. With `skip_special`
    /// special tokens are left out.
    ///
    /// # Errors
    /// When the decoder of `tokenizer.json` refuses the tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        catch_unwind(AssertUnwindSafe(|| self.inner.decode(ids, skip_special)))
            .map_err(|_| self.refused("decode", "the file names what it does not define"))?
            .map_err(|e| self.refused("decode", &e.to_string()))
    }

    /// The token with this id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of this token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, added ones included. Ids may have gaps: see [`Tokenizer::n_ids`].
    pub fn vocab_size(&self) -> usize {
        self.n_tokens
    }

    /// The highest id plus one: rows that an embedding needs.
    pub fn n_ids(&self) -> usize {
        self.kinds.len()
    }

    /// Checks that every id has a row in an embedding of `rows` rows.
    ///
    /// # Errors
    /// When the tokenizer has an id at or above `rows`.
    pub fn check_fits(&self, rows: usize) -> Result<()> {
        if self.n_ids() <= rows {
            return Ok(());
        }
        let highest = self.n_ids() - 1;
        let token = self.token(highest as u32).unwrap_or_default();
        Err(Error::Data {
            path: self.path.clone(),
            line: None,
            message: format!("token `{token}` has id {highest}, but the model's embedding has {rows} rows"),
            hint: Some(
                "use the tokenizer that came with the model, or a checkpoint whose embedding was resized".into(),
            ),
        })
    }

    /// Whether `decode` with `skip_special` leaves this id out.
    pub fn is_special(&self, id: u32) -> bool {
        self.kind(id) == IdKind::Special
    }

    /// Whether the id stands for one byte of a character that the vocabulary lacks (byte fallback).
    pub fn is_byte(&self, id: u32) -> bool {
        self.kind(id) == IdKind::Byte
    }

    /// Whether there is a token with this id; an embedding may have rows without one.
    pub fn has(&self, id: u32) -> bool {
        self.kind(id) != IdKind::Unused
    }

    fn kind(&self, id: u32) -> IdKind {
        self.kinds.get(id as usize).copied().unwrap_or(IdKind::Unused)
    }

    /// Named special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Id of the token that starts a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos.as_deref().and_then(|token| self.id(token))
    }

    /// Id of the token that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos.as_deref().and_then(|token| self.id(token))
    }

    /// Id that fills up shorter rows: the pad token, else eos, else 0 (pads are masked, so any id will do).
    pub fn pad_id(&self) -> u32 {
        let pad = self.special.pad.as_deref().and_then(|token| self.id(token));
        pad.or(self.generation.pad_id).or_else(|| self.eos_id()).unwrap_or(0)
    }

    /// Ids that end a generation: those of `generation_config.json` and the eos token.
    pub fn stop_ids(&self) -> Vec<u32> {
        let mut ids = self.generation.eos_ids.clone();
        ids.extend(self.eos_id().filter(|id| !self.generation.eos_ids.contains(id)));
        ids
    }

    /// `model_max_length` of `tokenizer_config.json`, where it is a real length.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Sampling values of `generation_config.json`.
    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// The chat template called `name`; `None`: the only one, or the one called `default`.
    ///
    /// # Errors
    /// When the folder has no such template, or it does not parse.
    pub fn chat_template(&self, name: Option<&str>) -> Result<ChatTemplate> {
        let wanted = name.unwrap_or("default");
        let found = self.templates.iter().find(|(have, _)| have == wanted);
        let Some((_, source)) = found else {
            let names: Vec<&str> = self.templates.iter().map(|(have, _)| have.as_str()).collect();
            let message = if names.is_empty() {
                "the tokenizer has no chat template".to_owned()
            } else {
                format!("no chat template called `{wanted}`; there are: {}", names.join(", "))
            };
            return Err(Error::Data {
                path: self.path.with_file_name("tokenizer_config.json"),
                line: None,
                message,
                hint: Some(
                    "base models have none: generate from plain text, or put a chat_template.jinja into the folder"
                        .into(),
                ),
            });
        };
        ChatTemplate::new(source, self.special.clone())
    }

    fn refused(&self, what: &str, cause: &str) -> Error {
        Error::Data { path: self.path.clone(), line: None, message: format!("cannot {what}: {cause}"), hint: None }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<tokenizers::Tokenizer> {
    // the library asserts on some inconsistent files; a bad file must not end the program
    let parsed = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)));
    match parsed {
        Ok(Ok(inner)) => Ok(inner),
        Ok(Err(cause)) => Err(malformed(path, &cause.to_string())),
        Err(_) => Err(malformed(path, "its parts contradict each other")),
    }
}

fn malformed(path: &Path, cause: &str) -> Error {
    Error::Data {
        path: path.to_owned(),
        line: None,
        message: format!("not a tokenizer: {cause}"),
        hint: Some("download the file again; it must be the tokenizer.json that transformers saves".into()),
    }
}

/// Adds a token that `tokenizer_config.json` or `added_tokens.json` list but `tokenizer.json` lacks; ids are given out
/// in order, so the listed one must be next.
fn add_token(inner: &mut tokenizers::Tokenizer, token: &NewToken, path: &Path) -> Result<()> {
    if inner.token_to_id(&token.content).is_some() {
        return Ok(());
    }
    let added = AddedToken {
        content: token.content.clone(),
        single_word: token.single_word,
        lstrip: token.lstrip,
        rstrip: token.rstrip,
        normalized: token.normalized,
        special: token.special,
    };
    if token.special {
        inner.add_special_tokens(&[added]);
    } else {
        inner.add_tokens(&[added]);
    }
    let got = inner.token_to_id(&token.content);
    if got == Some(token.id) {
        return Ok(());
    }
    Err(Error::Data {
        path: path.with_file_name(token.file),
        line: None,
        message: format!(
            "added token `{}` should have id {}, but the vocabulary gives it {}",
            token.content,
            token.id,
            got.map_or_else(|| "none".to_owned(), |id| id.to_string())
        ),
        hint: Some("tokenizer.json and this file belong to different versions of the tokenizer".into()),
    })
}
