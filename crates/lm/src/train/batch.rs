//! Examples as tensors, with the target of each place.

use anyo_core::{Error, Result};
use tch::{Device, Tensor};

use super::{
    masks::{Example, IGNORE},
    packing::PackedRow,
};
use crate::causal::LmInput;

/// Rows of one micro-batch.
#[derive(Debug)]
pub struct Batch {
    /// Tokens for the model.
    pub input: LmInput,
    /// Token that the state at each place `[B·S]`, row by row, is to predict; [`IGNORE`] where none.
    pub targets: Vec<i64>,
    /// Places that have a target.
    pub n_targets: usize,
    /// Tokens that are no pads.
    pub n_tokens: usize,
}

impl Batch {
    /// One example a row, pads at the end up to the longest.
    ///
    /// Pads behind the text need no mask: attention is causal, so nothing before them sees them.
    ///
    /// # Errors
    /// When there is no example, or one has not as many labels as tokens.
    pub fn padded(examples: &[Example], pad_id: i64, device: Device) -> Result<Self> {
        let s = examples.iter().map(Example::len).max().unwrap_or(0);
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for (i, example) in examples.iter().enumerate() {
            if example.ids.len() != example.labels.len() {
                let (n, labels) = (example.ids.len(), example.labels.len());
                return Err(Error::invalid(format!("example {i} has {n} tokens but {labels} labels")));
            }
            ids.extend(&example.ids);
            ids.extend(std::iter::repeat_n(pad_id, s - example.len()));
            push_shifted(&mut targets, &example.labels, s);
        }
        let n_tokens = examples.iter().map(Example::len).sum();
        Self::new(ids, targets, None, (examples.len(), s), n_tokens, device)
    }

    /// Packed rows. Document numbers are passed on only where a row holds more than one document.
    ///
    /// # Errors
    /// When there is no row, or rows differ in length.
    pub fn packed(rows: &[PackedRow], device: Device) -> Result<Self> {
        let s = rows.first().map_or(0, |row| row.ids.len());
        let (mut ids, mut targets, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        let (mut n_tokens, mut several) = (0, false);
        for (i, row) in rows.iter().enumerate() {
            let lengths = [row.ids.len(), row.labels.len(), row.documents.len()];
            if lengths != [s; 3] {
                return Err(Error::invalid(format!(
                    "packed row {i} has {lengths:?} ids, labels and documents, row 0 has {s} tokens"
                )));
            }
            let own = row.examples.len() as i64;
            several |= own > 1;
            n_tokens += row.documents.iter().filter(|&&document| document < own).count();
            ids.extend(&row.ids);
            documents.extend(&row.documents);
            push_shifted(&mut targets, &row.labels, s);
        }
        let documents = several.then_some(documents);
        Self::new(ids, targets, documents, (rows.len(), s), n_tokens, device)
    }

    fn new(
        ids: Vec<i64>,
        targets: Vec<i64>,
        documents: Option<Vec<i64>>,
        (b, s): (usize, usize),
        n_tokens: usize,
        device: Device,
    ) -> Result<Self> {
        if b == 0 || s == 0 {
            return Err(Error::invalid("a batch needs at least one row with a token"));
        }
        let tensor = |values: &[i64]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_view([b as i64, s as i64])?.f_to_device(device)?)
        };
        let n_targets = targets.iter().filter(|&&target| target != IGNORE).count();
        let documents = documents.as_deref().map(tensor).transpose()?;
        Ok(Self {
            input: LmInput { ids: tensor(&ids)?, mask: None, embeddings: None, documents },
            targets,
            n_targets,
            n_tokens,
        })
    }
}

/// The labels moved one place to the left, filled with [`IGNORE`] up to `s`.
fn push_shifted(targets: &mut Vec<i64>, labels: &[i64], s: usize) {
    let shifted = labels.get(1..).unwrap_or_default();
    targets.extend(shifted);
    targets.extend(std::iter::repeat_n(IGNORE, s - shifted.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Overlong, PackConfig, pack};

    const N: i64 = IGNORE;

    #[test]
    fn padded_rows_shift_their_labels() {
        let examples = [Example::answer_only(&[1, 2], &[3, 4]).unwrap(), Example::text(vec![5, 6])];
        let batch = Batch::padded(&examples, 0, Device::Cpu).unwrap();
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.input.ids).unwrap(), [[1, 2, 3, 4], [5, 6, 0, 0]]);
        assert_eq!(batch.targets, [N, 3, 4, N, 6, N, N, N]);
        assert_eq!((batch.n_targets, batch.n_tokens), (3, 6));
        assert!(Batch::padded(&[], 0, Device::Cpu).is_err());
    }

    #[test]
    fn no_target_crosses_a_document() {
        let config = PackConfig { seq_len: 8, overlong: Overlong::Refuse, pad_id: 0, seed: 3 };
        let (rows, _) = pack(vec![Example::text(vec![1, 2, 3]), Example::text(vec![4, 5, 6, 7])], &config).unwrap();
        let batch = Batch::packed(&rows, Device::Cpu).unwrap();
        let documents = Vec::<i64>::try_from(batch.input.documents.as_ref().unwrap().view(-1)).unwrap();
        for t in 0..7 {
            assert!(batch.targets[t] == N || documents[t] == documents[t + 1], "{t}");
        }
        assert_eq!((batch.n_targets, batch.n_tokens), (5, 7));
    }
}
