//! Several examples in one row: as many rows of the same length as needed, with as few pads as first-fit finds.

use anyo_core::{
    Error, Result,
    seed::{self, Stream},
};
use rand::seq::SliceRandom;

use super::masks::{Example, IGNORE, Truncation, TruncationReport, truncate_all};

/// What happens to examples longer than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlong {
    /// An error that names the example.
    Refuse,
    /// Shortened by this rule; examples that would lose every target are left out and counted.
    Truncate(Truncation),
}

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackConfig {
    /// S, tokens of a row; at least 2.
    pub seq_len: usize,
    /// Examples longer than a row.
    pub overlong: Overlong,
    /// Id that fills the end of a row.
    pub pad_id: i64,
    /// Decides which of two equally long examples comes first, and the order of the rows.
    pub seed: u64,
}

/// One packed row; every list has S entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRow {
    /// Token ids; pads at the end.
    pub ids: Vec<i64>,
    /// Labels at the place of their token; the first token of each document and pads have [`IGNORE`].
    pub labels: Vec<i64>,
    /// Number of the document each token belongs to, from 0 in each row; the pads are one document of their own.
    pub documents: Vec<i64>,
    /// Position within the document, from 0.
    pub positions: Vec<i64>,
    /// Indices of the examples in the row, in order, counted after truncation left some out.
    pub examples: Vec<usize>,
}

/// Figures of a packing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackReport {
    /// Rows made.
    pub rows: usize,
    /// Examples packed.
    pub examples: usize,
    /// Tokens that are no pads.
    pub tokens: usize,
    /// Targets.
    pub targets: usize,
    /// Share of places that are no pads, 0 to 1.
    pub utilisation: f64,
    /// What truncation did before.
    pub truncation: TruncationReport,
}

/// Packs `examples` by first-fit decreasing: longest first, each into the first row that has room.
///
/// # Errors
/// When `seq_len` is below 2, an example is too long under [`Overlong::Refuse`], or no example has a target.
pub fn pack(examples: Vec<Example>, config: &PackConfig) -> Result<(Vec<PackedRow>, PackReport)> {
    let seq_len = config.seq_len;
    if seq_len < 2 {
        return Err(Error::invalid(format!("seq_len must be at least 2 to hold a target, got {seq_len}")));
    }
    let rule = match config.overlong {
        Overlong::Refuse => Truncation::Refuse,
        Overlong::Truncate(rule) => rule,
    };
    let (examples, truncation) = truncate_all(examples, seq_len, rule)?;
    let mut rng = seed::rng(config.seed, Stream::Shuffle, 0, 0);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut rng);
    // Stable: examples of one length keep the shuffled order.
    order.sort_by_key(|&i| std::cmp::Reverse(examples[i].len()));

    let mut room = Room::new(examples.len(), seq_len);
    let mut bins: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let at = room.take(examples[i].len());
        if at == bins.len() {
            bins.push(Vec::new());
        }
        bins[at].push(i);
    }
    for bin in &mut bins {
        bin.shuffle(&mut rng);
    }
    bins.shuffle(&mut rng);
    let rows: Vec<PackedRow> = bins.into_iter().map(|bin| row(&examples, bin, config)).collect();
    let tokens = examples.iter().map(Example::len).sum::<usize>();
    let report = PackReport {
        rows: rows.len(),
        examples: examples.len(),
        tokens,
        targets: examples.iter().map(Example::n_targets).sum(),
        utilisation: tokens as f64 / (rows.len() * seq_len).max(1) as f64,
        truncation,
    };
    Ok((rows, report))
}

fn row(examples: &[Example], bin: Vec<usize>, config: &PackConfig) -> PackedRow {
    let s = config.seq_len;
    let mut row = PackedRow {
        ids: Vec::with_capacity(s),
        labels: Vec::with_capacity(s),
        documents: Vec::with_capacity(s),
        positions: Vec::with_capacity(s),
        examples: bin,
    };
    let mut append = |ids: &[i64], labels: &[i64], document: usize| {
        row.ids.extend(ids);
        // The state before the first token belongs to another document.
        row.labels.extend(labels.iter().enumerate().map(|(i, &label)| if i == 0 { IGNORE } else { label }));
        row.documents.extend(std::iter::repeat_n(document as i64, ids.len()));
        row.positions.extend(0..ids.len() as i64);
    };
    let mut used = 0;
    for (document, &i) in row.examples.iter().enumerate() {
        append(&examples[i].ids, &examples[i].labels, document);
        used += examples[i].len();
    }
    let pads = s - used;
    append(&vec![config.pad_id; pads], &vec![IGNORE; pads], row.examples.len());
    row
}

/// Room left in each row, as a tree of maxima: the first row with enough room is found in log n steps.
struct Room {
    /// Node i has the children 2i and 2i + 1; leaves start at `leaves`.
    tree: Vec<usize>,
    leaves: usize,
}

impl Room {
    fn new(n: usize, room: usize) -> Self {
        let leaves = n.next_power_of_two().max(1);
        Self { tree: vec![room; 2 * leaves], leaves }
    }

    /// Takes `len` places in the first row that has them; there are as many rows as examples, so one always has.
    fn take(&mut self, len: usize) -> usize {
        let mut node = 1;
        while node < self.leaves {
            node = if self.tree[2 * node] >= len { 2 * node } else { 2 * node + 1 };
        }
        let at = node - self.leaves;
        self.tree[node] -= len;
        while node > 1 {
            node /= 2;
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(seq_len: usize) -> PackConfig {
        PackConfig { seq_len, overlong: Overlong::Refuse, pad_id: 0, seed: 1 }
    }

    fn texts(lengths: &[usize]) -> Vec<Example> {
        lengths.iter().enumerate().map(|(i, &n)| Example::text(vec![i as i64 + 1; n])).collect()
    }

    #[test]
    fn first_fit_decreasing_matches_the_hand_packing() {
        // 7 6 5 4 3 2 2 into rows of 10: [7 3] [6 4] [5 2 2], 29 of 30 places.
        let (rows, report) = pack(texts(&[2, 3, 4, 5, 6, 7, 2]), &config(10)).unwrap();
        let mut lengths: Vec<Vec<usize>> = rows
            .iter()
            .map(|row| {
                let mut lengths: Vec<_> = row.examples.iter().map(|&i| [2, 3, 4, 5, 6, 7, 2][i]).collect();
                lengths.sort_unstable();
                lengths
            })
            .collect();
        lengths.sort();
        assert_eq!(lengths, [vec![2, 2, 5], vec![3, 7], vec![4, 6]]);
        assert_eq!((report.rows, report.examples, report.tokens, report.targets), (3, 7, 29, 29 - 7));
        assert!((report.utilisation - 29.0 / 30.0).abs() < 1e-12);
    }

    #[test]
    fn rows_hold_each_example_once_with_its_own_positions() {
        let lengths: Vec<usize> = (0..97).map(|i| 2 + (i * 37) % 30).collect();
        let examples = texts(&lengths);
        let (rows, report) = pack(examples.clone(), &config(32)).unwrap();
        let mut seen = vec![0; lengths.len()];
        for row in &rows {
            for list in [&row.ids, &row.labels, &row.documents, &row.positions] {
                assert_eq!(list.len(), 32);
            }
            let mut at = 0;
            for (document, &i) in row.examples.iter().enumerate() {
                seen[i] += 1;
                for t in 0..lengths[i] {
                    assert_eq!(row.ids[at], examples[i].ids[t]);
                    assert_eq!((row.documents[at], row.positions[at]), (document as i64, t as i64));
                    assert_eq!(row.labels[at], if t == 0 { IGNORE } else { row.ids[at] });
                    at += 1;
                }
            }
            let pads = row.examples.len() as i64;
            assert!((at..32).all(|t| row.ids[t] == 0 && row.labels[t] == IGNORE && row.documents[t] == pads));
        }
        assert!(seen.iter().all(|&n| n == 1));
        // First-fit decreasing needs at most 11/9 of the fewest possible rows, plus one.
        let fewest = lengths.iter().sum::<usize>().div_ceil(32);
        assert!(report.rows <= fewest * 11 / 9 + 1, "{report:?}");
    }

    #[test]
    fn the_seed_decides_the_order() {
        let ids = |seed| {
            let (rows, _) = pack(texts(&[5; 40]), &PackConfig { seed, ..config(16) }).unwrap();
            rows.into_iter().map(|row| row.ids).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn overlong_examples_are_refused_or_truncated_as_configured() {
        let message = pack(texts(&[3, 12]), &config(10)).unwrap_err().to_string();
        assert!(message.contains("example 1") && message.contains("12 tokens") && message.contains("10"), "{message}");
        let truncate = PackConfig { overlong: Overlong::Truncate(Truncation::KeepStart), ..config(10) };
        let (rows, report) = pack(texts(&[3, 12]), &truncate).unwrap();
        assert_eq!((rows.len(), report.truncation.tokens_cut, report.truncation.shortened), (2, 2, 1));
        assert!(pack(texts(&[3]), &config(1)).is_err());
        assert_eq!(pack(Vec::new(), &config(8)).unwrap().1.rows, 0);
    }
}
