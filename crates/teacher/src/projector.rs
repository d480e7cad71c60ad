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

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn values_worked_by_hand() {
        let mut params = Params::new(Device::Cpu);
        let projector = Projector::new(1, 1, &mut params, 1).unwrap();
        let one = |x: f32, shape: &[i64]| Tensor::from_slice(&[x]).view(shape);
        let weights = [
            ("projector.1.weight", one(2.0, &[1, 1])),
            ("projector.1.bias", one(-1.0, &[1])),
            ("projector.2.weight", one(3.0, &[1, 1])),
            ("projector.2.bias", one(0.5, &[1])),
        ];
        params.load(&weights.into_iter().map(|(name, t)| (name.to_owned(), t)).collect()).unwrap();
        let out = projector.forward(&Tensor::from_slice(&[1f32, 0.0]).view([2, 1])).unwrap();
        // gelu(1) = Φ(1) = 0.8413447, gelu(−1) = −Φ(−1) = −0.1586553; the tanh form differs in the fourth digit.
        for (i, gelu) in [0.841_344_7, -0.158_655_3].into_iter().enumerate() {
            assert!((out.double_value(&[i as i64, 0]) - (3.0 * gelu + 0.5)).abs() < 1e-6);
        }
        assert_eq!(params.n_parameters() as u64, Projector::n_parameters(1, 1));
        assert_eq!(Projector::n_parameters(64, 4096), 17_047_552);
    }
}
