//! The tokenizer of llama2.c (`tokenizer.bin`, `tok512.bin`) as a `tokenizer.json`.
//!
//! The file holds the length of the longest piece, then a score, a length and the bytes of each piece. Text is split into
//! characters (unknown ones into bytes), and the neighbours whose joined piece has the best score are joined until none is
//! left: byte-pair encoding whose merges are all splits of all pieces, ordered by score.

use std::{
    collections::HashMap,
    fs,
    path::Path,
};

use anyo_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::bad;

/// sentencepiece's sign for a space.
const SPACE: &str = "\u{2581}";
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// The pieces of a tokenizer file with their scores, by id.
///
/// # Errors
/// When the file is truncated, has another number of pieces than `n_pieces`, or a piece has a length that is negative, not in
/// the file, or above the longest that the file announces, or is not UTF-8.
pub fn parse_tokenizer(path: &Path, bytes: &[u8], n_pieces: usize) -> Result<Vec<(String, f32)>> {
    let cut = |what: &str| bad(path, format!("the tokenizer is truncated {what}: {} bytes", bytes.len()));
    let (longest, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(|| cut("in its header"))?;
    let longest = i32::from_le_bytes(*longest);
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let id = pieces.len();
        if id == n_pieces {
            return Err(bad(path, format!("the tokenizer has more pieces than the model's vocabulary of {n_pieces}")));
        }
        let ((score, after), at) = (rest.split_first_chunk::<4>().ok_or_else(|| cut("in a score"))?, id);
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(|| cut("in a length"))?;
        let (score, length) = (f32::from_le_bytes(*score), i32::from_le_bytes(*length));
        if length < 0 || length > longest.max(0) {
            let message = format!("piece {at} of the tokenizer has length {length}, the longest should be {longest}");
            return Err(bad(path, message));
        }
        let Some((piece, after)) = after.split_at_checked(length as usize) else {
            return Err(cut(&format!("in piece {at}")));
        };
        let Ok(piece) = std::str::from_utf8(piece) else {
            return Err(bad(path, format!("piece {at} of the tokenizer is not UTF-8")));
        };
        if !score.is_finite() {
            return Err(bad(path, format!("piece {at} of the tokenizer has the score {score}")));
        }
        pieces.push((piece.to_owned(), score));
        rest = after;
    }
    if pieces.len() != n_pieces {
        let message = format!("the tokenizer has {} pieces, the model's vocabulary {n_pieces}", pieces.len());
        return Err(bad(path, message));
    }
    Ok(pieces)
}

/// The content of a `tokenizer.json` for the tokenizer file at `path` of a model with `n_pieces` tokens.
///
/// # Errors
/// As [`parse_tokenizer`], and when two pieces are the same.
pub fn convert_tokenizer(path: &Path, n_pieces: usize) -> Result<Value> {
    let bytes = fs::read(path).map_err(Error::io(path, "read the llama2.c tokenizer"))?;
    let pieces = parse_tokenizer(path, &bytes, n_pieces)?;
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut vocab = Map::new();
    let mut names = Vec::with_capacity(pieces.len());
    for (id, (piece, _)) in pieces.iter().enumerate() {
        let name = SPECIAL.get(id).map_or_else(|| piece.replace(' ', SPACE), |&name| name.to_owned());
        if let Some(other) = ids.insert(name.clone(), id) {
            return Err(bad(path, format!("pieces {other} and {id} of the tokenizer are the same: `{piece}`")));
        }
        let _ = vocab.insert(name.clone(), json!(id));
        names.push(name);
    }
    let mut merges = Vec::new();
    for (id, name) in names.iter().enumerate().skip(SPECIAL.len()) {
        let mut splits = Vec::new();
        for (at, _) in name.char_indices().skip(1) {
            let (left, right) = name.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                splits.push((l, r, left, right));
            }
        }
        splits.sort_unstable();
        merges.extend(splits.into_iter().map(|(_, _, left, right)| (pieces[id].1, left, right)));
    }
    // Stable: equal scores stay in the order of ids.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let merges: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
    let special = |(id, name): (usize, &&str)| {
        json!({
            "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": SPACE },
            { "type": "Replace", "pattern": { "String": " " }, "content": SPACE },
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [
                { "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "<s>", "type_id": 1 } }, { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } },
        },
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": SPACE }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    }))
}

/// Writes `tokenizer.json` and `tokenizer_config.json`.
pub(super) fn save(tokenizer: &Value, folder: &Path) -> Result<()> {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": false,
    });
    for (name, value) in [("tokenizer.json", tokenizer), ("tokenizer_config.json", &config)] {
        let path = folder.join(name);
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::invalid(format!("{name} cannot be written as JSON: {e}")))?;
        fs::write(&path, text + "\n").map_err(Error::io(&path, "write the tokenizer"))?;
    }
    Ok(())
}
