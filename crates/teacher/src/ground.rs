//! Grounding: the catalogue ordered by the distance of its titles to what the teacher says (BIGRec, Bao et al., 2023).

use anyo_core::{Batch, Error, Recommender, Result};
use anyo_lm::{Causal, CausalLm, LmInput, Pass, Tokenizer};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::{head::encode_titles, metric::matcher::first_line, rank::RankSettings, say::Speaker};

/// Which state of the language model stands for a title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TitleState {
    /// That of its last token, as BIGRec takes it.
    Last,
    /// The mean over its tokens, as the scoring head's titles: does not hang on how the last word is spelled.
    Mean,
}

/// Ranks by what the teacher says. Titles are encoded once; do not train the teacher while this exists.
///
/// One title is generated after the prompt without candidates. Its first line and all titles of the catalogue are tokenised
/// as texts of their own and read by the bare language model, its BOS in front; an item's score is minus the L2 distance
/// between the states after the final norm. Adapters are off: states with adapters hang on each row's gate, so the
/// catalogue would have to be read anew for every row, and titles read without adapters never change in training.
///
/// Differs: BIGRec's weighing by popularity and by another recommender's scores is left out.
pub struct Grounding<'a> {
    speaker: &'a Speaker<'a>,
    settings: RankSettings,
    state: TitleState,
    titles: Tensor, // [I,D]
    middle: Tensor, // [1,D]
}

/// What was said for some histories, and the catalogue as seen from there.
#[derive(Debug)]
pub struct Grounded {
    /// The generated texts `[N]`.
    pub texts: Vec<String>,
    /// Minus the distance of every item, `[N,I]` in f32 on the language model's device.
    pub scores: Tensor,
    /// How many texts had nothing on their first line: their distances are those from the mean of all titles.
    pub empty: usize,
}

impl<'a> Grounding<'a> {
    /// Encodes the catalogue, `settings.batch` titles at a time; `watch` hears how many are done.
    ///
    /// # Errors
    /// When a title has no token, memory runs out, or of `watch`.
    pub fn new(
        speaker: &'a Speaker<'a>,
        settings: RankSettings,
        state: TitleState,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let titles = speaker.prompts().titles();
        let texts: Vec<&str> = (0..titles.len() as u32).map(|item| titles.get(item)).collect();
        let ids = texts.iter().map(|text| ids(speaker.tokenizer(), text)).collect::<Result<Vec<_>>>()?;
        let titles = encode(speaker.teacher().lm(), &ids, state, settings.batch, watch)?;
        let middle = titles.f_mean_dim([0i64].as_slice(), true, Kind::Float)?;
        Ok(Self { speaker, settings, state, titles, middle })
    }

    /// The encoded titles `[I,D]`: embeddings of all items for an export.
    pub fn titles(&self) -> &Tensor {
        &self.titles
    }

    /// Says what comes next for each history and measures all items from there.
    ///
    /// # Errors
    /// As [`Speaker::next`].
    pub fn ground(&self, histories: &[&[u32]]) -> Result<Grounded> {
        let texts = self.speaker.next(histories, &self.settings)?;
        let (scores, empty) = self.scores(&texts)?;
        Ok(Grounded { texts, scores, empty })
    }

    /// Scores `[N,I]` of texts from elsewhere, and how many of them are empty.
    ///
    /// # Errors
    /// When a text cannot be tokenised or is longer than the context.
    pub fn scores(&self, texts: &[String]) -> Result<(Tensor, usize)> {
        let tokenizer = self.speaker.tokenizer();
        let lines: Vec<Vec<i64>> = texts.iter().map(|text| ids(tokenizer, first_line(text))).collect::<Result<_>>()?;
        let said: Vec<usize> = (0..lines.len()).filter(|&n| !lines[n].is_empty()).collect();
        no_grad(|| {
            let mut vectors = self.middle.f_repeat([lines.len() as i64, 1])?; // [N,D]
            if !said.is_empty() {
                let own: Vec<Vec<i64>> = said.iter().map(|&n| lines[n].clone()).collect();
                let (lm, batch) = (self.speaker.teacher().lm(), self.settings.batch);
                let own = encode(lm, &own, self.state, batch, &mut |_| Ok(()))?;
                let at: Vec<i64> = said.iter().map(|&n| n as i64).collect();
                let at = self.speaker.teacher().places(&at)?;
                vectors = vectors.f_index_copy(0, &at, &own)?;
            }
            // 2: differences themselves, not |a|² + |b|² − 2ab, which loses small distances to rounding
            let distances = Tensor::f_cdist(&vectors, &self.titles, 2.0, 2)?;
            Ok((distances.f_neg()?, lines.len() - said.len()))
        })
    }
}

impl Recommender for Grounding<'_> {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        Ok(self.ground(batch.histories)?.scores.f_to_device(Device::Cpu)?)
    }
}

/// Tokens of a text of its own, without special ones.
fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<i64>> {
    Ok(tokenizer.encode(text, false)?.into_iter().map(i64::from).collect())
}

/// States of titles `[N,D]` in f32 on the model's device.
fn encode(
    lm: &CausalLm,
    titles: &[Vec<i64>],
    state: TitleState,
    batch: usize,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Tensor> {
    let titles: Vec<&[i64]> = titles.iter().map(Vec::as_slice).collect();
    match state {
        TitleState::Mean => encode_titles(lm, &titles, batch, watch),
        TitleState::Last => last_states(lm, &titles, batch, watch),
    }
}

/// State of each text's last token, BOS in front where the model has one; adapters off.
fn last_states(
    lm: &CausalLm,
    texts: &[&[i64]],
    batch: usize,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Tensor> {
    if let Some(item) = texts.iter().position(|title| title.is_empty()) {
        return Err(Error::invalid(format!("the title of item {item} has no token")));
    }
    let (bos, width) = (lm.config().bos, lm.config().hidden_size as i64);
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].len());
    let all = Tensor::f_zeros([texts.len() as i64, width], (Kind::Float, lm.device()))?;
    let pass = Pass { base_only: true, ..Pass::default() };
    let mut done = 0;
    for chunk in order.chunks(batch.max(1)) {
        let s = bos.iter().len() + chunk.iter().map(|&i| texts[i].len()).max().unwrap_or(0);
        let (mut ids, mut last) = (Vec::with_capacity(chunk.len() * s), Vec::with_capacity(chunk.len()));
        for (row, &i) in chunk.iter().enumerate() {
            ids.extend(bos.into_iter().chain(texts[i].iter().copied()));
            last.push(ids.len() as i64 - 1);
            // Nothing sees what stands behind the last token; any id will do.
            ids.resize((row + 1) * s, 0);
        }
        no_grad(|| -> Result<()> {
            let ids = Tensor::f_from_slice(&ids)?.f_view([chunk.len() as i64, s as i64])?;
            let states = lm.hidden(&LmInput { ids, ..LmInput::default() }, None, &pass)?; // [B,S,D]
            let on_device =
                |places: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(places)?.f_to_device(lm.device())?) };
            let own = states.f_reshape([-1, width])?.f_index_select(0, &on_device(&last)?)?.f_to_kind(Kind::Float)?;
            let at: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let _ = all.shallow_clone().f_index_copy_(0, &on_device(&at)?, &own)?;
            Ok(())
        })?;
        done += chunk.len();
        watch(done)?;
    }
    Ok(all)
}
