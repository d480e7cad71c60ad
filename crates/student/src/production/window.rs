//! The part of a scoring program that is the same for every network: which items enter, which places are empty.
//!
//! Nothing here looks at the number of rows or at the width of the input: the operations recorded while tracing hold for
//! all of them. Axes: B rows, W width of the input, L `max_len`, D width of a vector.

use tch::{Kind, Tensor};

/// The newest `max_len` items of each row, from the left, whatever the input's width.
pub(super) struct Window {
    /// Item ids `[B, L]`, `pad` behind the row's end.
    pub(super) ids: Tensor,
    /// Items of the window `[B]`.
    pub(super) lens: Tensor,
    /// 0, 1, … in every row, `[B, L]`.
    pub(super) places: Tensor,
    /// Where no item stands, `[B, L]`.
    pub(super) empty: Tensor,
}

impl Window {
    /// ids `[B, W]`, lengths `[B]` as [`real_lengths`] gives them.
    pub(super) fn new(ids: &Tensor, lengths: &Tensor, max_len: i64, pad: i64) -> Self {
        let start = (lengths - max_len).clamp_min(0); // [B]
        let lens = lengths - &start;
        // made of the input, not of a device: a program that is moved to another one still works
        let places = lengths.unsqueeze(1).expand([-1, max_len], false).ones_like().cumsum(1, Kind::Int64) - 1;
        let empty = places.greater_equal_tensor(&lens.unsqueeze(1));
        let padded = ids.constant_pad_nd([0, max_len]); // [B, W + L]: no place lies outside
        let ids = padded.gather(1, &(start.unsqueeze(1) + &places), false).masked_fill(&empty, pad);
        Self { ids, lens, places, empty }
    }

    /// The place of each row's newest item in x `[B, L, D]`, `[B, 1, D]`; the first place of an empty row.
    pub(super) fn newest(&self, x: &Tensor, d: i64) -> Tensor {
        let place = self.lens.clamp_min(1) - 1;
        x.gather(1, &place.view([-1, 1, 1]).expand([-1, 1, d], false), false)
    }

    /// Zeroes the states `[B, D]` of empty rows.
    pub(super) fn zero_empty(&self, states: &Tensor) -> Tensor {
        states * self.lens.greater(0).to_kind(Kind::Float).unsqueeze(1)
    }
}

/// The lengths kept between 0 and the input's width. ids `[B, W]`, lengths `[B]` → `[B]`.
pub(super) fn real_lengths(ids: &Tensor, lengths: &Tensor) -> Tensor {
    let width = ids.ones_like().sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
    lengths.clamp_min(0).minimum(&width)
}

/// `value` added to the scores `[B, n_items]` of every item that a row of ids `[B, W]` holds, once.
pub(super) fn add_to_seen(scores: &Tensor, ids: &Tensor, lengths: &Tensor, n_items: i64, value: f32) -> Tensor {
    let places = ids.ones_like().cumsum(1, Kind::Int64) - 1;
    let empty = places.greater_equal_tensor(&lengths.unsqueeze(1));
    // empty places write into one more column, which is cut off
    let columns = ids.masked_fill(&empty, n_items);
    let seen = scores.zeros_like().constant_pad_nd([0, 1]).scatter_value(1, &columns, f64::from(value));
    scores + seen.narrow(1, 0, n_items)
}
