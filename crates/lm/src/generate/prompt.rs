//! Prompts: token ids, and vectors in place of some of their embeddings.

use std::collections::HashSet;

use anyo_core::{Error, Result, torch::dims};
use tch::Tensor;

use super::tensor_of;
use crate::{Causal, Tokenizer};

/// What to continue.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Token ids, at least one.
    pub ids: Vec<u32>,
    /// Seed of this row in place of the configuration's, for several texts from one prompt.
    pub seed: Option<u64>,
    /// Whether the new text stands behind the prompt's, as in a story: then a blank between them belongs to it. Decoders
    /// drop the blank in front of a text of its own, such as an answer.
    pub continues: bool,
    /// Vectors in place of the embeddings of some of the ids (items at marker tokens).
    pub injected: Option<Injected>,
}

impl Prompt {
    /// A prompt of token ids.
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, seed: None, continues: false, injected: None }
    }

    /// A prompt of a text, with what the model expects in front of it (a bos).
    ///
    /// # Errors
    /// When the text cannot be tokenised.
    pub fn text(tokenizer: &Tokenizer, text: &str) -> Result<Self> {
        Ok(Self { continues: true, ..Self::new(tokenizer.encode(text, true)?) })
    }

    /// A prompt of a rendered chat, which has its special tokens already.
    ///
    /// # Errors
    /// When the text cannot be tokenised.
    pub fn chat(tokenizer: &Tokenizer, rendered: &str) -> Result<Self> {
        Ok(Self::new(tokenizer.encode(rendered, false)?))
    }

    /// The same prompt with `injected` in it. The ids at its places stay: they must be in the vocabulary, and the
    /// repetition penalty counts them as read.
    #[must_use]
    pub fn with(self, injected: Injected) -> Self {
        Self { injected: Some(injected), ..self }
    }
}

/// Vectors that the model reads in place of the embeddings of some tokens.
#[derive(Debug)]
pub struct Injected {
    places: Vec<usize>,
    vectors: Tensor, // [N,D]
}

impl Clone for Injected {
    /// Shares the vectors.
    fn clone(&self) -> Self {
        Self { places: self.places.clone(), vectors: self.vectors.shallow_clone() }
    }
}

impl Injected {
    /// Row i of `vectors` `[N,D]`, of any float type, stands at place `places[i]` of the prompt; D is the model's width.
    ///
    /// # Errors
    /// When there is not one vector for each place, a place comes twice, or the vectors are no floating numbers.
    pub fn new(places: Vec<usize>, vectors: &Tensor) -> Result<Self> {
        let [n, _] = dims("injected vectors", vectors, ["N", "D"])?;
        if n as usize != places.len() {
            return Err(Error::invalid(format!("{n} injected vectors for {} places", places.len())));
        }
        if !vectors.is_floating_point() {
            return Err(Error::invalid(format!("injected vectors must be floating numbers, got {:?}", vectors.kind())));
        }
        let mut seen = HashSet::new();
        if let Some(place) = places.iter().find(|&&place| !seen.insert(place)) {
            return Err(Error::invalid(format!("place {place} is given two injected vectors")));
        }
        Ok(Self { places, vectors: vectors.shallow_clone() })
    }

    /// One vector at each of the places where `ids` is `marker`, in their order.
    ///
    /// # Errors
    /// When `ids` has another number of markers than there are vectors `[N,D]`.
    pub fn at_markers(ids: &[u32], marker: u32, vectors: &Tensor) -> Result<Self> {
        let places: Vec<usize> = (0..ids.len()).filter(|&at| ids[at] == marker).collect();
        let [n, _] = dims("injected vectors", vectors, ["N", "D"])?;
        if n as usize != places.len() {
            return Err(Error::Invalid {
                message: format!("the prompt has token {marker} {} times, but there are {n} vectors", places.len()),
                hint: Some("give one vector for each marker; a prompt that was cut may have lost some".into()),
            });
        }
        Self::new(places, vectors)
    }

    /// Places of the vectors in the prompt.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// The vectors, `[N,D]`.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }
}

/// Prompts padded on the left, each followed by more ids, as a model reads them together.
pub(super) struct Padded {
    /// `[B,S]`.
    pub(super) ids: Tensor,
    /// `[B,S,D]`; `None` where no prompt has injected vectors.
    pub(super) embeddings: Option<Tensor>,
    /// S.
    pub(super) len: usize,
}

/// Reads `rows`, each the number of a prompt for messages, the prompt, and the ids that follow it.
pub(super) fn pad<M: Causal>(model: &M, rows: &[(usize, &Prompt, &[u32])]) -> Result<Padded> {
    let length = |(_, prompt, after): &(usize, &Prompt, &[u32])| prompt.ids.len() + after.len();
    let len = rows.iter().map(length).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(len * rows.len());
    let (mut places, mut parts) = (Vec::new(), Vec::new());
    for row in rows {
        let (number, prompt, after) = row;
        // Any id will do as a pad, it is masked.
        ids.resize(ids.len() + len - length(row), 0);
        if let Some(injected) = prompt.injected.as_ref().filter(|injected| !injected.places.is_empty()) {
            places.extend(injected.places.iter().map(|&place| (ids.len() + place) as i64));
            parts.push((*number, injected));
        }
        ids.extend(prompt.ids.iter().chain(*after).map(|&id| i64::from(id)));
    }
    let device = model.device();
    let ids = tensor_of(&ids, &[rows.len() as i64, len as i64], device)?;
    if parts.is_empty() {
        return Ok(Padded { ids, embeddings: None, len });
    }
    let embedded = model.embed(&ids)?; // [B,S,D]
    let [_, _, width] = dims("embeddings", &embedded, ["B", "S", "D"])?;
    let mut vectors = Vec::with_capacity(parts.len());
    for (number, injected) in parts {
        let got = injected.vectors.size()[1];
        if got != width {
            return Err(Error::Invalid {
                message: format!("the vectors injected into prompt {number} have {got} features, the model's {width}"),
                hint: Some("project them to the model's width first".into()),
            });
        }
        vectors.push(injected.vectors.f_to_device(device)?.f_to_kind(embedded.kind())?);
    }
    let places = tensor_of(&places, &[places.len() as i64], device)?;
    let flat = embedded.f_view([-1, width])?.f_index_copy(0, &places, &Tensor::f_cat(&vectors, 0)?)?;
    Ok(Padded { ids, embeddings: Some(flat.f_view_as(&embedded)?), len })
}

/// 1 for tokens and 0 for `pads[i]` pads in front of them, `[B, columns]`; `None` where no row has pads.
pub(super) fn mask(pads: &[usize], columns: usize, device: tch::Device) -> Result<Option<Tensor>> {
    if pads.iter().all(|&pads| pads == 0) {
        return Ok(None);
    }
    let mut mask = Vec::with_capacity(columns * pads.len());
    for &n_pads in pads {
        mask.resize(mask.len() + n_pads, 0);
        mask.resize(mask.len() + columns - n_pads, 1);
    }
    tensor_of(&mask, &[pads.len() as i64, columns as i64], device).map(Some)
}
