//! Fresh negatives of the ranking term: outside the row's whole training sequence and the teacher's candidates.

use anyo_core::{
    data::{Dataset, TargetIndex},
    seed,
};
use rand::RngExt;

/// Draws negatives for targets by their number, uniformly; what a target gets depends on base and number only.
///
/// The released code reuses the negative of the student's own loss, which may be a candidate.
#[derive(Debug)]
pub struct FreshNegatives {
    /// Row of each target, `[targets]`.
    rows: Vec<u32>,
    marks: Vec<u32>,
    mark: u32,
    marked: Option<u32>,
    n_marked: usize,
}

impl FreshNegatives {
    /// For the training rows of `dataset`.
    pub fn new(dataset: &Dataset) -> Self {
        let index = TargetIndex::new(&dataset.train);
        let mut rows = Vec::with_capacity(index.len());
        for row in 0..dataset.train.len() {
            rows.resize(index.numbers(row).end, row as u32);
        }
        Self { rows, marks: vec![0; dataset.n_items()], mark: 0, marked: None, n_marked: 0 }
    }

    /// Appends `n` items for the target `number`, none of its sequence, its own or among `candidates`, as long as that
    /// leaves any; repeats are possible.
    pub fn draw(
        &mut self,
        dataset: &Dataset,
        base: u64,
        number: u32,
        candidates: &[u32],
        n: usize,
        out: &mut Vec<u32>,
    ) {
        let row = self.rows.get(number as usize).copied().unwrap_or(0);
        if self.marked != Some(row) {
            self.mark_row(dataset.train.items(row as usize));
            self.marked = Some(row);
        }
        let n_items = self.marks.len();
        let outside = candidates.iter().filter(|&&c| self.marks[c as usize] != self.mark).count();
        let free = self.n_marked + outside < n_items;
        let mut rng = seed::row_rng(base, u64::from(number));
        for _ in 0..n {
            let mut item = rng.random_range(0..n_items as u32);
            while free && (self.marks[item as usize] == self.mark || candidates.contains(&item)) {
                item = rng.random_range(0..n_items as u32);
            }
            out.push(item);
        }
    }

    fn mark_row(&mut self, items: &[u32]) {
        self.mark = self.mark.wrapping_add(1);
        if self.mark == 0 {
            self.marks.fill(0);
            self.mark = 1;
        }
        self.n_marked = 0;
        for &item in items {
            let mark = &mut self.marks[item as usize];
            self.n_marked += usize::from(*mark != self.mark);
            *mark = self.mark;
        }
    }
}
