//! From the encoder's item vectors to the language model's width, and into the places of the markers.

use anyo_core::{
    Error, Result,
    torch::{Init, Params, dims},
};
use tch::{Kind, Tensor};

use crate::tokens::Prompted;

/// `P(e) = W2 gelu(W1 e + b1) + b2` with the exact GELU, `[N,d]` → `[N,D]`; PyTorch's initial weights.
#[derive(Debug)]
pub struct Projector {
    first: (Tensor, Tensor),  // [D,d], [D]
    second: (Tensor, Tensor), // [D,D], [D]
}

impl Projector {
    /// New weights under names that begin with `projector.`.
    ///
    /// # Errors
    /// When a parameter cannot be made.
    pub fn new(d: i64, width: i64, params: &mut Params, seed: u64) -> Result<Self> {
        let mut linear = |name: &str, n_in: i64| -> Result<(Tensor, Tensor)> {
            let weight = format!("projector.{name}.weight");
            let bias = format!("projector.{name}.bias");
            Ok((
                params.create(weight, &[width, n_in], Init::KaimingUniform, seed)?,
                params.create(bias, &[width], Init::bias(n_in), seed)?,
            ))
        };
        Ok(Self { first: linear("1", d)?, second: linear("2", width)? })
    }

    /// Number of parameters for these widths.
    pub fn n_parameters(d: u64, width: u64) -> u64 {
        d * width + width + width * width + width
    }

    /// Projects item vectors `[N,d]` to `[N,D]`.
    ///
    /// # Errors
    /// When the width differs.
    pub fn forward(&self, items: &Tensor) -> Result<Tensor> {
        let inner = items.f_linear(&self.first.0, Some(&self.first.1))?.f_gelu("none")?;
        Ok(inner.f_linear(&self.second.0, Some(&self.second.1))?)
    }
}

/// Whether the marks of a prompt and the markers among its tokens are the same places.
///
/// # Errors
/// When a marker of a hybrid prompt has no item, an item has no marker, or an item is outside the catalogue.
pub(crate) fn check_marks(prompt: &Prompted, injected: &[i64], n_items: i64) -> Result<()> {
    let markers = prompt.ids.iter().enumerate().filter(|(_, id)| injected.contains(id)).map(|(place, _)| place);
    let marks = prompt.marks.iter().map(|mark| mark.position);
    if !markers.clone().eq(marks) {
        return Err(Error::Invalid {
            message: format!(
                "a prompt has {} item markers and {} items for them; markers at {:?}, items at {:?}",
                markers.clone().count(),
                prompt.marks.len(),
                markers.collect::<Vec<_>>(),
                prompt.marks.iter().map(|mark| mark.position).collect::<Vec<_>>(),
            ),
            hint: Some("a title may contain a marker's text; text-only prompts must carry neither".into()),
        });
    }
    match prompt.marks.iter().find(|mark| i64::from(mark.item) >= n_items) {
        Some(mark) => Err(Error::invalid(format!("a prompt marks item {}, the catalogue has 0..{n_items}", mark.item))),
        None => Ok(()),
    }
}

/// `embedded` `[B,S,D]` with `vectors` `[N,D]` at the flat places `[N]` (row · S + position), in its type.
pub(crate) fn put(embedded: &Tensor, places: &[i64], vectors: &Tensor) -> Result<Tensor> {
    let [b, s, d] = dims("embedded", embedded, ["B", "S", "D"])?;
    let at = Tensor::f_from_slice(places)?.f_to_device(embedded.device())?;
    let kind: Kind = embedded.kind();
    Ok(embedded.f_reshape([b * s, d])?.f_index_copy(0, &at, &vectors.f_to_kind(kind)?)?.f_reshape([b, s, d])?)
}
