//! The teacher's lists as the loss reads them: cut to K, cleaned of the history, with all weights that never change.

use anyo_core::{
    Error, Result,
    bundle::{Bundle, deviation, gap_softmax},
    data::{Dataset, TargetIndex},
    eval::NO_ITEM,
};

use crate::{
    config::{DistillConfig, RankingLoss},
    gate::{gate, median},
    weights::{fixed_part, position},
};

/// Stands where a target has no list.
const NONE: u32 = u32::MAX;

/// Lists of the targets of a data set. E lists of K places; shorter ones end in [`NO_ITEM`].
#[derive(Debug)]
pub struct TeacherLists {
    k: usize,
    /// Entry of each target, [`NONE`] without one, `[targets]`.
    entries: Vec<u32>,
    /// `[E · K]`.
    items: Vec<u32>,
    /// `γ_p w^p + γ_c w^c`, or the teacher's distribution for the listwise form, `[E · K]`.
    fixed: Vec<f32>,
    /// `[E]`.
    rows: Vec<RowInfo>,
    /// Items of the history that were taken out of the lists.
    dropped: usize,
}

/// What is known of a list as a whole.
#[derive(Debug, Clone, Copy)]
pub struct RowInfo {
    /// Items of the list.
    pub len: u32,
    /// Trust, see [`gate`].
    pub gate: f32,
    /// Entropy of the weights by distance, in nats.
    pub entropy: f32,
    /// Distance of the first item.
    pub first_distance: f32,
    /// Mean distance of the list minus that of the first item.
    pub spread: f32,
    /// 1-based rank of the target; 0: not known.
    pub true_rank: u32,
    /// Distance of the target; NaN: not known.
    pub true_distance: f32,
}

/// A list of the loss.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// Items, best first, `[len]`.
    pub items: &'a [u32],
    /// Weights before consistency and normalisation, `[len]`.
    pub fixed: &'a [f32],
    /// The rest.
    pub info: RowInfo,
}

impl TeacherLists {
    /// Numbers of the targets that have a list, ascending.
    pub fn labelled(&self) -> Vec<u32> {
        (0u32..).zip(&self.entries).filter(|(_, entry)| **entry != NONE).map(|(number, _)| number).collect()
    }

    /// Takes over the lists of `bundle`, which was opened with its rankings for the training rows of `dataset`.
    ///
    /// # Errors
    /// When its lists are shorter than K.
    pub fn new(bundle: &Bundle, dataset: &Dataset, config: &DistillConfig) -> Result<Self> {
        let k = config.top_k;
        if k > bundle.top_n() {
            return Err(Error::Invalid {
                message: format!("distill.top_k: {k}, but the bundle's lists have {} items", bundle.top_n()),
                hint: Some(format!(
                    "write distill.top_k={}, or export the bundle with export.top_n={k}",
                    bundle.top_n()
                )),
            });
        }
        let index = TargetIndex::new(&dataset.train);
        let mut history = (!config.keep_history).then(|| History::new(dataset.n_items()));
        let mut this = Self {
            k,
            entries: vec![NONE; index.len()],
            items: Vec::new(),
            fixed: Vec::new(),
            rows: Vec::new(),
            dropped: 0,
        };
        let by_place: Vec<Vec<f32>> = (0..=k).map(|len| position(len, config.weights.beta)).collect();
        let tau = config
            .gate
            .tau
            .unwrap_or_else(|| median((0..bundle.n_rows()).filter_map(|row| Some(bundle.true_rank(row)?.1)).collect()));
        let (mut kept, mut distances) = (Vec::new(), Vec::new());
        for number in 0..index.len() {
            let Some((items, far)) = bundle.rankings(number) else { continue };
            if let Some(history) = &mut history {
                history.advance(&index, number);
            }
            kept.clear();
            distances.clear();
            for (&item, &distance) in items.iter().zip(far) {
                if kept.len() == k {
                    break;
                }
                if history.as_ref().is_some_and(|history| history.holds(item)) {
                    this.dropped += 1;
                } else {
                    kept.push(item);
                    distances.push(distance);
                }
            }
            if !kept.is_empty() {
                this.push(number, &kept, &distances, &by_place[kept.len()], bundle.true_rank(number), (config, tau));
            }
        }
        Ok(this)
    }

    fn push(
        &mut self,
        number: usize,
        items: &[u32],
        distances: &[f32],
        by_place: &[f32],
        truth: Option<(u32, f32)>,
        (config, tau): (&DistillConfig, f64),
    ) {
        let (mut fixed, entropy) = fixed_part(distances, by_place, &config.weights);
        if config.loss == RankingLoss::Listwise {
            let tau = config.weights.tau.unwrap_or_else(|| deviation(distances)) * config.listwise.temperature;
            fixed = gap_softmax(distances, tau);
        }
        let n = distances.len();
        let mean = distances.iter().map(|&d| f64::from(d)).sum::<f64>() / n as f64;
        self.entries[number] = self.rows.len() as u32;
        self.items.extend_from_slice(items);
        self.items.extend(std::iter::repeat_n(NO_ITEM, self.k - n));
        self.fixed.extend_from_slice(&fixed);
        self.fixed.extend(std::iter::repeat_n(0.0, self.k - n));
        self.rows.push(RowInfo {
            len: n as u32,
            gate: gate(&config.gate, truth, tau),
            entropy,
            first_distance: distances[0],
            spread: (mean - f64::from(distances[0])) as f32,
            true_rank: truth.map_or(0, |(rank, _)| rank),
            true_distance: truth.map_or(f32::NAN, |(_, distance)| distance),
        });
    }

    /// K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The list of the target with this number; `None` where there is none.
    pub fn get(&self, number: u32) -> Option<List<'_>> {
        let entry = *self.entries.get(number as usize).filter(|&&entry| entry != NONE)? as usize;
        let info = self.rows[entry];
        let range = entry * self.k..entry * self.k + info.len as usize;
        Some(List { items: &self.items[range.clone()], fixed: &self.fixed[range], info })
    }

    /// Number of targets.
    pub fn n_targets(&self) -> usize {
        self.entries.len()
    }

    /// Targets with a list.
    pub fn n_labelled(&self) -> usize {
        self.rows.len()
    }

    /// Items of the history that were taken out of the lists.
    pub fn n_dropped(&self) -> usize {
        self.dropped
    }

    /// Mean entropy of the weights by distance, in nats; log K when they say nothing.
    pub fn mean_entropy(&self) -> f64 {
        self.rows.iter().map(|row| f64::from(row.entropy)).sum::<f64>() / self.rows.len().max(1) as f64
    }

    /// Mean trust of the labelled rows.
    pub fn mean_gate(&self) -> f64 {
        self.rows.iter().map(|row| f64::from(row.gate)).sum::<f64>() / self.rows.len().max(1) as f64
    }
}

/// What the sequence holds before the current target, targets ascending; the target itself never counts.
struct History {
    /// Number of the row (plus one) that held the item last.
    marks: Vec<u32>,
    row: usize,
    done: usize,
    target: u32,
}

impl History {
    fn new(n_items: usize) -> Self {
        Self { marks: vec![0; n_items], row: usize::MAX, done: 0, target: NO_ITEM }
    }

    fn advance(&mut self, index: &TargetIndex<'_>, number: usize) {
        let Some((row, place)) = index.place(number) else { return };
        if row != self.row {
            (self.row, self.done) = (row, 0);
        }
        let sequence = index.rows().items(row);
        sequence[self.done..place].iter().for_each(|&item| self.marks[item as usize] = row as u32 + 1);
        (self.done, self.target) = (place, sequence[place]);
    }

    fn holds(&self, item: u32) -> bool {
        item != self.target && self.marks.get(item as usize) == Some(&(self.row as u32 + 1))
    }
}
