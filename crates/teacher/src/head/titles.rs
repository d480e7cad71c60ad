//! Titles as the bare language model reads them.

use anyo_core::{Error, Result};
use anyo_lm::{Causal, CausalLm, LmInput, Pass};
use tch::{Kind, Tensor, no_grad};

use super::standardised;

/// What the head knows of titles, `[I,2D]`: [`encode_titles`], and the mean of the tokens' own vectors. The first tells what
/// the words mean together, the second which words they are: a series keeps its name whatever stands behind it. Each half
/// is centred with mean square 1.
///
/// # Errors
/// As [`encode_titles`].
pub fn title_features(
    lm: &CausalLm,
    titles: &[&[i64]],
    batch: usize,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Tensor> {
    let states = encode_titles(lm, titles, batch, watch)?;
    let words = no_grad(|| -> Result<Tensor> {
        let means = titles.iter().map(|title| {
            let vectors = lm.embed(&Tensor::f_from_slice(title)?)?.f_to_kind(Kind::Float)?; // [S,D]
            Ok(vectors.f_mean_dim(0, false, Kind::Float)?)
        });
        Ok(Tensor::f_stack(&means.collect::<Result<Vec<_>>>()?, 0)?)
    })?;
    Ok(Tensor::f_cat(&[standardised(&states)?, standardised(&words)?], 1)?)
}

/// Mean of the language model's last states over each title's tokens `[I,D]` in f32 on its device, adapters off; computed
/// once, `batch` titles at a time.
///
/// The BOS of the model's configuration stands before a title and is left out of the mean: its state is the same for all
/// and far larger than the others in most models. Tokens must be those of the model before any were added.
///
/// # Errors
/// When a title has no token or an id outside the vocabulary, or libtorch fails.
pub fn encode_titles(
    lm: &CausalLm,
    titles: &[&[i64]],
    batch: usize,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Tensor> {
    if let Some(item) = titles.iter().position(|title| title.is_empty()) {
        return Err(Error::Invalid {
            message: format!("the title of item {item} has no token"),
            hint: Some("items without a title are named by their id; check the item file".into()),
        });
    }
    let bos = lm.config().bos;
    let first = i64::from(bos.is_some());
    let mut order: Vec<usize> = (0..titles.len()).collect();
    order.sort_by_key(|&i| titles[i].len());
    let width = lm.config().hidden_size as i64;
    let mut all = Tensor::f_zeros([titles.len() as i64, width], (Kind::Float, lm.device()))?;
    let pass = Pass { base_only: true, ..Pass::default() };
    let mut done = 0;
    for chunk in order.chunks(batch.max(1)) {
        let longest = chunk.iter().map(|&i| titles[i].len()).max().unwrap_or(0);
        let s = longest + first as usize;
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        for &i in chunk {
            let title = titles[i];
            let pads = longest - title.len();
            // Behind the title nothing is seen by what stands before; any id will do.
            ids.extend(bos.into_iter().chain(title.iter().copied()).chain(std::iter::repeat_n(title[0], pads)));
            weights.extend(std::iter::repeat_n(0f32, first as usize));
            weights.extend(std::iter::repeat_n(1.0 / title.len() as f32, title.len()));
            weights.extend(std::iter::repeat_n(0f32, pads));
        }
        let shape = [chunk.len() as i64, s as i64];
        no_grad(|| -> Result<()> {
            let input = LmInput { ids: Tensor::f_from_slice(&ids)?.f_view(shape)?, ..LmInput::default() };
            let states = lm.hidden(&input, None, &pass)?.f_to_kind(Kind::Float)?; // [B,S,D]
            let weights = Tensor::f_from_slice(&weights)?.f_view([shape[0], 1, shape[1]])?.f_to_device(lm.device())?;
            let means = weights.f_bmm(&states)?.f_squeeze_dim(1)?; // [B,D]
            let at: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let _ = all.f_index_copy_(0, &Tensor::f_from_slice(&at)?.f_to_device(lm.device())?, &means)?;
            Ok(())
        })?;
        done += chunk.len();
        watch(done)?;
    }
    Ok(all)
}
