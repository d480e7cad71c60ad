//! What every list must fulfil, in the writer and in the loader alike.

use crate::{data::TargetIndex, eval::NO_ITEM};

/// Number of items before the empty end of a padded list.
pub fn list_len(items: &[u32]) -> usize {
    items.iter().position(|&item| item == NO_ITEM).unwrap_or(items.len())
}

/// Checks lists one by one; holds a mark for each item of the catalogue.
#[derive(Debug)]
pub(super) struct ListCheck {
    marks: Vec<u32>,
    mark: u32,
}

impl ListCheck {
    pub(super) fn new(n_items: usize) -> Self {
        Self { marks: vec![0; n_items], mark: 0 }
    }

    /// Checks one padded list and what is said of its target; the error is a sentence without file and row.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(super) fn list(&mut self, items: &[u32], distances: &[f32], truth: (u32, f32)) -> Result<(), String> {
        let n_items = self.marks.len();
        let len = list_len(items);
        if len == 0 {
            return Err("the list is empty".into());
        }
        self.mark = self.mark.wrapping_add(1);
        if self.mark == 0 {
            self.marks.fill(0);
            self.mark = 1;
        }
        let mut before = 0.0;
        for (place, (&item, &distance)) in items[..len].iter().zip(distances).enumerate() {
            let Some(mark) = self.marks.get_mut(item as usize) else {
                return Err(format!("item_{place} is {item}, but the catalogue has items 0..{n_items}"));
            };
            if std::mem::replace(mark, self.mark) == self.mark {
                return Err(format!("item {item} stands twice in the list, the second time at item_{place}"));
            }
            if !distance.is_finite() || distance < 0.0 {
                return Err(format!("distance_{place} is {distance}, wanted a finite number from 0 up"));
            }
            if distance < before {
                return Err(format!(
                    "distance_{place} is {distance}, less than {before} before it: best items come first"
                ));
            }
            before = distance;
        }
        let ends_empty = items[len..].iter().all(|&item| item == NO_ITEM)
            && distances[len..].iter().all(|&distance| distance == f32::INFINITY);
        if !ends_empty {
            return Err(format!("there is something behind the end of the list at item_{len}"));
        }
        let (rank, distance) = truth;
        let known = (1..=n_items as u32).contains(&rank) && distance.is_finite() && distance >= 0.0;
        let unknown = rank == 0 && distance.is_nan();
        if !known && !unknown {
            return Err(format!(
                "true_item_rank {rank} with true_item_distance {distance}: wanted 1..={n_items} with a distance from 0 \
                 up, or 0 with NaN where it is not known"
            ));
        }
        Ok(())
    }
}

/// Checks lists, rows ascending, against the histories and targets of a data set.
pub(super) struct HistoryCheck<'a> {
    index: &'a TargetIndex<'a>,
    /// Number of the row (plus one) that held the item last before the current place.
    marks: Vec<u32>,
    row: Option<usize>,
    done: usize,
}

impl<'a> HistoryCheck<'a> {
    pub(super) fn new(index: &'a TargetIndex<'a>, n_items: usize) -> Self {
        Self { index, marks: vec![0; n_items], row: None, done: 0 }
    }

    /// Whether a list of valid items holds an item of the history other than the target, and whether the target.
    pub(super) fn look(&mut self, number: usize, items: &[u32]) -> (Option<u32>, bool) {
        let Some((row, place)) = self.index.place(number) else { return (None, false) };
        if self.row != Some(row) {
            self.row = Some(row);
            self.done = 0;
        }
        let sequence = self.index.rows().items(row);
        for &item in &sequence[self.done..place] {
            if let Some(mark) = self.marks.get_mut(item as usize) {
                *mark = row as u32 + 1;
            }
        }
        self.done = place;
        let target = sequence[place];
        let of_history = |&&item: &&u32| item != target && self.marks.get(item as usize) == Some(&(row as u32 + 1));
        (items.iter().find(of_history).copied(), items.contains(&target))
    }
}
