//! Prompts and answers as one padded batch of tokens: ids, targets, markers, places. Nothing here needs a model.

use anyo_core::{Error, Result};
use anyo_lm::train::IGNORE;

use crate::tokens::Prompted;

/// On which side rows are padded to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In front, with a mask: generation appends at one common place.
    Left,
    /// Behind, without a mask: attention is causal, so nothing sees the pads. Cheaper, for training and scoring.
    Right,
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// The prompt.
    pub prompt: &'a Prompted,
    /// What follows it and is to be learned or scored; may be empty.
    pub answer: &'a [i64],
}

/// A batch in plain numbers. Axes: B rows, S places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// B and S.
    pub shape: (usize, usize),
    /// Token ids `[B·S]`, row by row.
    pub ids: Vec<i64>,
    /// 1 for a token and 0 for a pad `[B·S]`, for [`Side::Left`] only.
    pub mask: Option<Vec<i64>>,
    /// Token that the state at each place is to predict `[B·S]`; [`IGNORE`] where none.
    pub targets: Vec<i64>,
    /// Flat place (row · S + position) of each row's last prompt token `[B]`.
    pub last: Vec<i64>,
    /// Flat places of the item markers, and the item of each.
    pub marks: (Vec<i64>, Vec<i64>),
    /// Places with a target.
    pub n_targets: usize,
    /// Tokens that are no pads.
    pub n_tokens: usize,
}

impl Layout {
    /// Puts rows together.
    ///
    /// # Errors
    /// When there is no row or a prompt is empty.
    pub fn new(rows: &[Sequence<'_>], pad: i64, side: Side) -> Result<Self> {
        let length = |row: &Sequence<'_>| row.prompt.ids.len() + row.answer.len();
        if let Some(row) = rows.iter().position(|row| row.prompt.ids.is_empty()) {
            return Err(Error::invalid(format!("the prompt of row {row} of a batch has no token")));
        }
        let s = rows.iter().map(length).max().ok_or_else(|| Error::invalid("a batch needs at least one row"))?;
        let mut this = Self {
            shape: (rows.len(), s),
            ids: Vec::with_capacity(rows.len() * s),
            mask: (side == Side::Left).then(Vec::new),
            targets: vec![IGNORE; rows.len() * s],
            last: Vec::new(),
            marks: (Vec::new(), Vec::new()),
            n_targets: 0,
            n_tokens: 0,
        };
        for (i, row) in rows.iter().enumerate() {
            let (len, n_prompt) = (length(row), row.prompt.ids.len());
            let before = if side == Side::Left { s - len } else { 0 };
            let start = i * s + before;
            this.ids.extend(std::iter::repeat_n(pad, before));
            this.ids.extend(&row.prompt.ids);
            this.ids.extend(row.answer);
            this.ids.extend(std::iter::repeat_n(pad, s - before - len));
            if let Some(mask) = &mut this.mask {
                mask.extend(std::iter::repeat_n(0, before));
                mask.extend(std::iter::repeat_n(1, len));
            }
            // The state of each place predicts the token after it.
            for place in start + n_prompt..start + len {
                this.targets[place - 1] = this.ids[place];
            }
            this.last.push((start + n_prompt) as i64 - 1);
            for mark in &row.prompt.marks {
                this.marks.0.push((start + mark.position) as i64);
                this.marks.1.push(i64::from(mark.item));
            }
            this.n_targets += len - n_prompt;
            this.n_tokens += len;
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use anyo_lm::train::CrossEntropy;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::tokens::Mark;

    fn prompt(ids: &[i64]) -> Prompted {
        Prompted { ids: ids.to_vec(), ..Prompted::default() }
    }

    /// specs/ilora.md section 9, test 10: BOS, 5 tokens of prompt, BOS, 3 of answer.
    #[test]
    fn the_released_labels() {
        let prompted = prompt(&[1, 10, 11, 12, 13, 14]);
        let rows = [Sequence { prompt: &prompted, answer: &[1, 20, 21, 13] }];
        let layout = Layout::new(&rows, 0, Side::Right).unwrap();
        assert_eq!(layout.ids, [1, 10, 11, 12, 13, 14, 1, 20, 21, 13]);
        assert_eq!((layout.n_targets, layout.n_tokens), (4, 10));
        // Labels stand one place before their token: six of ten tokens are no label, the first label is BOS.
        assert_eq!(&layout.targets[5..9], [1, 20, 21, 13]);
        assert_eq!(layout.targets.iter().filter(|&&t| t == IGNORE).count(), 6);
        assert_eq!(layout.last, [5]);
        // Uniform logits over 32005 tokens.
        let states = Tensor::ones([10, 2], (Kind::Float, Device::Cpu));
        let head = Tensor::zeros([32_005, 2], (Kind::Float, Device::Cpu));
        let loss = CrossEntropy::plain().grad(&states, &head, &layout.targets, 1.0, false).unwrap();
        assert!((loss.mean().unwrap().double_value(&[]) - 10.3736).abs() < 1e-4);
    }

    #[test]
    fn both_sides_of_padding() {
        let (mut a, b) = (prompt(&[1, 5, 6]), prompt(&[1, 7]));
        a.marks = vec![Mark { position: 2, item: 9 }];
        let rows = [Sequence { prompt: &a, answer: &[8] }, Sequence { prompt: &b, answer: &[] }];
        let right = Layout::new(&rows, 0, Side::Right).unwrap();
        assert_eq!(right.ids, [1, 5, 6, 8, 1, 7, 0, 0]);
        assert_eq!((right.mask, right.last, right.marks), (None, vec![2, 5], (vec![2], vec![9])));
        assert_eq!((right.n_targets, right.n_tokens), (1, 6));
        let left = Layout::new(&rows, 0, Side::Left).unwrap();
        assert_eq!(left.ids, [1, 5, 6, 8, 0, 0, 1, 7]);
        assert_eq!(left.mask, Some(vec![1, 1, 1, 1, 0, 0, 1, 1]));
        assert_eq!(left.last, [2, 7]);
        assert_eq!(left.targets, [IGNORE, IGNORE, 8, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE]);
    }

    #[test]
    fn empty_input_is_refused() {
        assert!(Layout::new(&[], 0, Side::Right).is_err());
        let empty = Prompted::default();
        let error = Layout::new(&[Sequence { prompt: &empty, answer: &[] }], 0, Side::Right).unwrap_err();
        assert!(error.to_string().contains("row 0"), "{error}");
    }
}
