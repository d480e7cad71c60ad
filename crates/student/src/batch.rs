//! From rows to batches: which slices train the model, how they are grouped, and which negatives they meet.

use anyo_core::{
    data::{Rows, TargetIndex},
    seed::{self, Stream},
};
use rand::{Rng, RngExt};
use tch::{Device, Tensor};

use crate::{
    config::{LossConfig, LossName, Negatives as Distribution, RowsKind},
    seen::Seen,
};

/// One training row: `items[start..end]` of a sequence, of which `items[first_target..end]` are targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Example {
    row: u32,
    start: u32,
    end: u32,
    first_target: u32,
}

impl Example {
    /// Items that enter the model: all but the last target.
    fn input_len(self) -> usize {
        (self.end - self.start - 1) as usize
    }

    fn n_targets(self) -> usize {
        (self.end - self.first_target) as usize
    }
}

/// All training rows of a data set.
#[derive(Debug)]
pub struct Examples<'a> {
    rows: &'a Rows,
    list: Vec<Example>,
    n_items: usize,
}

impl<'a> Examples<'a> {
    /// Cuts the training sequences as `kind` says; rows whose history is empty have nothing to learn from and are left
    /// out.
    pub fn new(rows: &'a Rows, kind: RowsKind, max_len: usize, n_items: usize) -> Self {
        let mut list = Vec::new();
        for row in 0..rows.len() {
            let end = rows.items(row).len();
            let first = rows.first_target(row).max(1);
            let mut push = |start: usize, end: usize, first_target: usize| {
                if first_target < end {
                    let (start, end) = (start as u32, end as u32);
                    list.push(Example { row: row as u32, start, end, first_target: first_target as u32 });
                }
            };
            match kind {
                RowsKind::EveryPosition => {
                    let start = end.saturating_sub(max_len + 1);
                    push(start, end, first.max(start + 1));
                }
                RowsKind::EveryPositionSplit => {
                    // From the newest back; neighbours share one item, the input of the later row's first target.
                    let mut end = end;
                    loop {
                        let start = end.saturating_sub(max_len + 1);
                        push(start, end, first.max(start + 1));
                        if start == 0 || start < first {
                            break;
                        }
                        end = start + 1;
                    }
                }
                RowsKind::LastPosition => {
                    for target in first..end {
                        push(target.saturating_sub(max_len), target + 1, target);
                    }
                }
            }
        }
        Self { rows, list, n_items }
    }

    /// Number of training rows.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of targets in one epoch.
    pub fn n_targets(&self) -> usize {
        self.list.iter().map(|e| e.n_targets()).sum()
    }

    /// The batches of an epoch, each a list of examples, in training order.
    ///
    /// With `bucket`, rows of like length share a batch, so that hardly any padding is computed: the shuffled rows are
    /// sorted by length (ties stay shuffled), cut into batches of about equally many targets, and the batches are
    /// shuffled. Cutting by rows instead would give a target among short rows many times the weight of one among long
    /// rows, since every step counts the same; `batch_size` is then the mean number of rows.
    pub fn epoch(&self, batch_size: usize, bucket: bool, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
        let mut rng = seed::rng(seed, Stream::Shuffle, epoch, 0);
        let mut order: Vec<u32> = (0..self.list.len() as u32).collect();
        shuffle(&mut order, &mut rng);
        if !bucket {
            return order.chunks(batch_size).map(<[u32]>::to_vec).collect();
        }
        order.sort_by_key(|&e| self.list[e as usize].input_len());
        let mut batches = vec![Vec::new(); order.len().div_ceil(batch_size)];
        let (total, mut before) = (self.n_targets(), 0);
        for e in order {
            let place = before * batches.len() / total;
            batches[place].push(e);
            before += self.list[e as usize].n_targets();
        }
        // A row longer than a whole batch leaves the next one empty.
        batches.retain(|batch| !batch.is_empty());
        shuffle(&mut batches, &mut rng);
        batches
    }

    /// Puts examples together: inputs right-padded to the longest of them, targets flattened.
    pub fn batch(&self, examples: &[u32], pad: i64, device: Device) -> TrainBatch {
        let list: Vec<Example> = examples.iter().map(|&e| self.list[e as usize]).collect();
        let inputs: Vec<&[u32]> =
            list.iter().map(|e| &self.rows.items(e.row as usize)[e.start as usize..e.end as usize - 1]).collect();
        let input = Input::new(&inputs, pad, device);
        let (mut positives, mut places, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (i, e) in list.iter().enumerate() {
            let items = self.rows.items(e.row as usize);
            for place in e.first_target..e.end {
                positives.push(items[place as usize] as i32);
                places.push((i * input.width + (place - e.start) as usize - 1) as i64);
                owners.push(i as u32);
            }
        }
        TrainBatch { input, positives, places, owners, examples: examples.to_vec() }
    }

    /// For each target of a batch the items that its sequence holds before it, those before the window included.
    pub fn seen(&self, batch: &TrainBatch) -> Seen {
        let (mut seen, mut stamps) = (Seen::default(), vec![0; self.n_items]);
        for (i, &example) in batch.examples.iter().enumerate() {
            let e = self.list[example as usize];
            let places = (e.first_target..e.end).map(|place| place as usize);
            seen.push_sequence(self.rows.items(e.row as usize), places, &mut stamps, i as u32 + 1);
        }
        seen
    }

    /// Number of each target of a batch in the numbering `index` of the same rows, `[N]`.
    pub fn numbers(&self, batch: &TrainBatch, index: &TargetIndex<'_>) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(batch.positives.len());
        for &example in &batch.examples {
            let e = self.list[example as usize];
            let of = |place: u32| index.number(e.row as usize, place as usize).map_or(u32::MAX, |n| n as u32);
            numbers.extend((e.first_target..e.end).map(of));
        }
        numbers
    }

    /// Negatives for a batch, all drawn at once.
    ///
    /// Per-target negatives lie outside everything in the row's whole training sequence, as long as that leaves
    /// anything; each row draws from a stream of its own, so how rows are grouped does not change them. Shared ones
    /// come from stream `step` and are left to the loss, which masks a row's own target.
    pub fn negatives(&self, batch: &TrainBatch, sampler: &mut Sampler, seed: u64, epoch: u64, step: u64) -> Negatives {
        match sampler.shape {
            Shape::None => Negatives::None,
            Shape::Shared(k) => {
                let mut rng = seed::rng(seed, Stream::Negatives, epoch, step);
                Negatives::Shared { items: (0..k).map(|_| sampler.draw(&mut rng)).collect() }
            }
            Shape::PerTarget(k) => {
                let base = seed::derive(seed, Stream::Negatives, epoch, 0);
                let mut items = Vec::with_capacity(batch.positives.len() * k);
                let mut target = 0;
                for (i, &example) in batch.examples.iter().enumerate() {
                    let mut rng = seed::row_rng(base, u64::from(example));
                    sampler.mark(self.rows.items(self.list[example as usize].row as usize));
                    let free = sampler.n_marked < self.n_items;
                    while batch.owners.get(target) == Some(&(i as u32)) {
                        for _ in 0..k {
                            let mut item = sampler.draw(&mut rng);
                            while free && sampler.is_marked(item) {
                                item = sampler.draw(&mut rng);
                            }
                            items.push(item);
                        }
                        target += 1;
                    }
                }
                Negatives::PerTarget { items, per_target: k }
            }
        }
    }
}

fn shuffle<T>(list: &mut [T], rng: &mut impl Rng) {
    for i in (1..list.len()).rev() {
        list.swap(i, rng.random_range(0..=i));
    }
}

/// Item sequences as a model takes them: right-padded, so that with causal attention no real place sees a pad.
#[derive(Debug)]
pub struct Input {
    /// Item ids `[B, T]`.
    pub ids: Tensor,
    /// Real items of each row; 0 for an empty history.
    pub lens: Vec<usize>,
    /// T.
    pub width: usize,
}

impl Input {
    /// Pads to the longest row (at least one place).
    pub fn new(rows: &[&[u32]], pad: i64, device: Device) -> Self {
        let lens: Vec<usize> = rows.iter().map(|r| r.len()).collect();
        let width = lens.iter().copied().max().unwrap_or(0).max(1);
        Self::padded_to(rows, width, pad, device)
    }

    /// Pads to `width` places, which no row exceeds.
    pub fn padded_to(rows: &[&[u32]], width: usize, pad: i64, device: Device) -> Self {
        let mut ids = vec![pad; rows.len() * width];
        for (row, items) in ids.chunks_exact_mut(width).zip(rows) {
            for (id, &item) in row.iter_mut().zip(*items) {
                *id = i64::from(item);
            }
        }
        let ids = Tensor::from_slice(&ids).view([rows.len() as i64, width as i64]).to_device(device);
        Self { ids, lens: rows.iter().map(|r| r.len()).collect(), width }
    }

    /// For each place its distance from a right-aligned window of `max_len`: the newest item has `max_len - 1`. `[B, T]`;
    /// pads get the last place's number.
    pub fn right_aligned(&self, max_len: usize) -> Tensor {
        let mut places = Vec::with_capacity(self.lens.len() * self.width);
        for &len in &self.lens {
            places.extend((0..self.width).map(|j| (max_len.saturating_sub(len) + j).min(max_len - 1) as i64));
        }
        Tensor::from_slice(&places).view([self.lens.len() as i64, self.width as i64]).to_device(self.ids.device())
    }

    /// Index of each row's newest place in the flattened `[B·T]`; the first place for an empty row.
    pub fn newest(&self) -> Tensor {
        let places: Vec<i64> =
            self.lens.iter().enumerate().map(|(i, &len)| (i * self.width + len.max(1) - 1) as i64).collect();
        Tensor::from_slice(&places).to_device(self.ids.device())
    }

    /// 1 where a real item stands, `[B, T]` in f32.
    pub fn mask(&self) -> Tensor {
        let mut mask = vec![0f32; self.lens.len() * self.width];
        for (row, &len) in mask.chunks_exact_mut(self.width).zip(&self.lens) {
            row[..len].fill(1.0);
        }
        Tensor::from_slice(&mask).view([self.lens.len() as i64, self.width as i64]).to_device(self.ids.device())
    }
}

/// A batch of training rows.
#[derive(Debug)]
pub struct TrainBatch {
    /// What enters the model.
    pub input: Input,
    /// Target items `[N]`.
    pub positives: Vec<i32>,
    /// Place of each target's state in the flattened `[B·T]`, `[N]`.
    pub places: Vec<i64>,
    /// Row of the batch that each target belongs to, `[N]`.
    owners: Vec<u32>,
    examples: Vec<u32>,
}

/// Negative items of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Negatives {
    /// The loss needs none.
    None,
    /// `per_target` items for each target, `[N · per_target]`.
    PerTarget {
        /// The items, those of a target side by side.
        items: Vec<i32>,
        /// How many belong to one target.
        per_target: usize,
    },
    /// One list for the whole batch.
    Shared {
        /// The items; repeats are possible.
        items: Vec<i32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    None,
    PerTarget(usize),
    Shared(usize),
}

/// Draws negative items.
#[derive(Debug)]
pub struct Sampler {
    shape: Shape,
    n_items: u32,
    /// Walker's alias table (probability of staying, other item); empty for uniform draws.
    alias: Vec<(f32, u32)>,
    /// Stamp of the row that saw the item last.
    stamps: Vec<u32>,
    stamp: u32,
    n_marked: usize,
}

impl Sampler {
    /// A sampler for a catalogue whose items are targets `counts[i]` times.
    pub fn new(loss: &LossConfig, counts: &[u64]) -> Self {
        let shape = match loss.name {
            LossName::Ce => Shape::None,
            LossName::Bce | LossName::Gbce => Shape::PerTarget(loss.n_negatives),
            LossName::SampledSoftmax => Shape::Shared(loss.n_negatives),
        };
        let alias = match loss.negatives {
            Distribution::Uniform => Vec::new(),
            Distribution::Popularity => alias_table(&proposal(loss.negatives, counts)),
        };
        Self { shape, n_items: counts.len() as u32, alias, stamps: vec![0; counts.len()], stamp: 0, n_marked: 0 }
    }

    fn draw(&self, rng: &mut impl Rng) -> i32 {
        let item = rng.random_range(0..self.n_items);
        match self.alias.get(item as usize) {
            Some(&(stay, other)) if rng.random::<f32>() >= stay => other as i32,
            _ => item as i32,
        }
    }

    fn mark(&mut self, items: &[u32]) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
        self.n_marked = 0;
        for &item in items {
            let stamp = &mut self.stamps[item as usize];
            self.n_marked += usize::from(*stamp != self.stamp);
            *stamp = self.stamp;
        }
    }

    fn is_marked(&self, item: i32) -> bool {
        self.stamps[item as usize] == self.stamp
    }
}

/// Probability of each item as a negative; by popularity each item counts once more than seen, so that none is left out.
pub fn proposal(distribution: Distribution, counts: &[u64]) -> Vec<f32> {
    match distribution {
        Distribution::Uniform => vec![1.0 / counts.len() as f32; counts.len()],
        Distribution::Popularity => {
            let total: f64 = counts.iter().map(|&c| c as f64 + 1.0).sum();
            counts.iter().map(|&c| ((c as f64 + 1.0) / total) as f32).collect()
        }
    }
}

/// Walker's alias method (Vose's construction): a draw costs one index and one comparison.
fn alias_table(p: &[f32]) -> Vec<(f32, u32)> {
    let n = p.len();
    let mut scaled: Vec<f64> = p.iter().map(|&p| f64::from(p) * n as f64).collect();
    let mut table: Vec<(f32, u32)> = (0..n as u32).map(|i| (1.0, i)).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| scaled[i] < 1.0);
    while let (Some(s), Some(&l)) = (small.pop(), large.last()) {
        table[s] = (scaled[s] as f32, l as u32);
        scaled[l] -= 1.0 - scaled[s];
        if scaled[l] < 1.0 {
            large.pop();
            small.push(l);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new();
        rows.push(0, [0, 1, 2, 3, 4], 1);
        rows.push(1, [5, 6, 7], 2);
        rows.push(2, [8], 0);
        rows
    }

    fn slices(kind: RowsKind, max_len: usize) -> Vec<(u32, u32, u32, u32)> {
        let rows = rows();
        let examples = Examples::new(&rows, kind, max_len, 9);
        examples.list.iter().map(|e| (e.row, e.start, e.end, e.first_target)).collect()
    }

    #[test]
    fn sequences_are_cut_as_documented() {
        assert_eq!(slices(RowsKind::EveryPosition, 10), [(0, 0, 5, 1), (1, 0, 3, 2)]);
        assert_eq!(slices(RowsKind::EveryPosition, 2), [(0, 2, 5, 3), (1, 0, 3, 2)]);
        assert_eq!(slices(RowsKind::EveryPositionSplit, 2), [(0, 2, 5, 3), (0, 0, 3, 1), (1, 0, 3, 2)]);
        assert_eq!(
            slices(RowsKind::LastPosition, 2),
            [(0, 0, 2, 1), (0, 0, 3, 2), (0, 1, 4, 3), (0, 2, 5, 4), (1, 0, 3, 2)]
        );
    }

    #[test]
    fn split_rows_cover_every_target_once() {
        let mut rows = Rows::new();
        rows.push(0, 0..23, 1);
        for max_len in 1..25 {
            let examples = Examples::new(&rows, RowsKind::EveryPositionSplit, max_len, 23);
            let mut targets: Vec<u32> = examples.list.iter().flat_map(|e| e.first_target..e.end).collect();
            targets.sort_unstable();
            assert_eq!(targets, (1..23).collect::<Vec<_>>(), "max_len {max_len}");
            assert!(examples.list.iter().all(|e| e.input_len() <= max_len));
        }
    }

    #[test]
    fn a_batch_lines_up_states_and_targets() {
        let rows = rows();
        let examples = Examples::new(&rows, RowsKind::EveryPosition, 10, 9);
        let batch = examples.batch(&[0, 1], 9, Device::Cpu);
        let ids: Vec<i64> = batch.input.ids.view([-1]).try_into().unwrap();
        assert_eq!(ids, [0, 1, 2, 3, 5, 6, 9, 9]);
        assert_eq!(batch.positives, [1, 2, 3, 4, 7]);
        assert_eq!(batch.places, [0, 1, 2, 3, 5]);
        let places: Vec<i64> = batch.input.right_aligned(4).view([-1]).try_into().unwrap();
        assert_eq!(places, [0, 1, 2, 3, 2, 3, 3, 3]);
    }

    #[test]
    fn negatives_never_come_from_the_row() {
        let rows = rows();
        let examples = Examples::new(&rows, RowsKind::EveryPosition, 10, 9);
        let batch = examples.batch(&[0, 1], 9, Device::Cpu);
        let loss = LossConfig {
            name: LossName::Bce,
            n_negatives: 2000,
            negatives: Distribution::Popularity,
            logq: crate::config::LogQ::None,
            gbce_t: 0.0,
            temperature: 1.0,
            dros_alpha: 0.0,
            dros_beta: 1.0,
        };
        let mut sampler = Sampler::new(&loss, &[1, 1, 1, 1, 1, 1, 1, 1, 5]);
        let drawn = examples.negatives(&batch, &mut sampler, 1, 0, 0);
        let Negatives::PerTarget { items, per_target: 2000 } = &drawn else { panic!("{drawn:?}") };
        assert_eq!(items.len(), 5 * 2000);
        assert!(items[..4 * 2000].iter().all(|i| (5..9).contains(i)));
        assert!(items[4 * 2000..].iter().all(|i| !(5..8).contains(i)));
        // Items 5, 6, 7 have weight 2 each and item 8 weight 6: half of the draws outside row 0.
        let eights = items[..8000].iter().filter(|&&i| i == 8).count() as f64 / 8000.0;
        assert!((eights - 0.5).abs() < 0.03, "{eights}");
        let again = examples.negatives(&batch, &mut sampler, 1, 0, 0);
        assert_eq!(drawn, again);
    }

    #[test]
    fn epochs_visit_every_row_once_and_differ() {
        let mut rows = Rows::new();
        for i in 0..50u32 {
            rows.push(i, 0..2 + i % 7, 1);
        }
        let examples = Examples::new(&rows, RowsKind::EveryPosition, 10, 9);
        let first = examples.epoch(8, true, 1, 0);
        let mut all: Vec<u32> = first.concat();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert_ne!(first, examples.epoch(8, true, 1, 1));
        assert_eq!(first, examples.epoch(8, true, 1, 0));
        assert_eq!(first.len(), 7);
        let targets = |batch: &Vec<u32>| batch.iter().map(|&e| examples.list[e as usize].n_targets()).sum::<usize>();
        assert!(
            first.iter().all(|batch| (20..=32).contains(&targets(batch))),
            "{:?}",
            first.iter().map(targets).collect::<Vec<_>>()
        );
    }
}
