//! Numbers for training targets: what a "training row" is to a teacher, whatever form the data set keeps its rows in.

use super::Rows;

/// The numbering of all targets of some rows, row by row and, inside a row, place by place from
/// [`Rows::first_target`] on.
///
/// A data set keeps whole sequences (many targets a row) or windows (one target a row); a teacher and a student meet in
/// the number of the target, which is the same for both forms of reading: number 0 is the first target of row 0. In
/// validation and test rows, which have one target each, the number is the row's.
///
/// Number to place costs a binary search over the rows, place to number one addition; memory is 4 bytes a row.
#[derive(Debug, Clone)]
pub struct TargetIndex<'a> {
    rows: &'a Rows,
    /// Targets before each row, and at the end of all, `[rows + 1]`.
    starts: Vec<u32>,
}

impl<'a> TargetIndex<'a> {
    /// The numbering of `rows`. More than `u32::MAX` targets are not supported (no data set of that size fits the
    /// buffer of [`Rows`] in practice); the numbers would end there.
    pub fn new(rows: &'a Rows) -> Self {
        let mut starts = Vec::with_capacity(rows.len() + 1);
        let mut before = 0u32;
        starts.push(before);
        for row in 0..rows.len() {
            before = before.saturating_add((rows.items(row).len() - rows.first_target(row)) as u32);
            starts.push(before);
        }
        Self { rows, starts }
    }

    /// The rows that are numbered.
    pub fn rows(&self) -> &'a Rows {
        self.rows
    }

    /// Number of targets.
    pub fn len(&self) -> usize {
        self.starts.last().map_or(0, |&n| n as usize)
    }

    /// Whether there are no targets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row and place (index into [`Rows::items`] of the row) of a target; `None` from [`TargetIndex::len`] on.
    pub fn place(&self, number: usize) -> Option<(usize, usize)> {
        if number >= self.len() {
            return None;
        }
        // every row has at least one target, so starts ascend strictly
        let row = self.starts.partition_point(|&start| start as usize <= number) - 1;
        Some((row, self.rows.first_target(row) + number - self.starts[row] as usize))
    }

    /// Number of the target at a place of a row; `None` where there is no target.
    pub fn number(&self, row: usize, place: usize) -> Option<usize> {
        if row >= self.rows.len() || !(self.rows.first_target(row)..self.rows.items(row).len()).contains(&place) {
            return None;
        }
        Some(self.starts[row] as usize + place - self.rows.first_target(row))
    }

    /// Numbers of the targets of one row.
    pub fn numbers(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }

    /// Everything that the row holds before the target, oldest first; empty for a number out of range.
    pub fn history(&self, number: usize) -> &'a [u32] {
        self.place(number).map_or(&[], |(row, place)| &self.rows.items(row)[..place])
    }

    /// The item to be predicted; `None` for a number out of range.
    pub fn target(&self, number: usize) -> Option<u32> {
        self.place(number).map(|(row, place)| self.rows.items(row)[place])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_and_windows_by_hand() {
        let mut rows = Rows::new();
        rows.push(0, [5, 6, 7], 1);
        rows.push(1, [8, 9, 4], 2);
        rows.push(2, [3], 0);
        let index = TargetIndex::new(&rows);
        assert_eq!(index.len(), 4);
        let places: Vec<_> = (0..5).map(|n| index.place(n)).collect();
        assert_eq!(places, [Some((0, 1)), Some((0, 2)), Some((1, 2)), Some((2, 0)), None]);
        assert_eq!((index.history(1), index.target(1)), (&[5, 6][..], Some(7)));
        assert_eq!((index.history(3), index.target(3)), (&[][..], Some(3)));
        assert_eq!((index.history(4), index.target(4)), (&[][..], None));
        assert_eq!((index.number(0, 0), index.number(1, 2), index.number(3, 0)), (None, Some(2), None));
        assert_eq!((index.numbers(0), index.numbers(2)), (0..2, 3..4));
        assert!(TargetIndex::new(&Rows::new()).is_empty());
    }

    proptest! {
        #[test]
        fn there_and_back(lens in prop::collection::vec((1usize..9, 0usize..9), 0..30)) {
            let mut rows = Rows::new();
            for (user, &(len, first)) in lens.iter().enumerate() {
                rows.push(user as u32, 0..len as u32, first.min(len - 1) as u32);
            }
            let index = TargetIndex::new(&rows);
            prop_assert_eq!(index.len(), rows.n_targets());
            let walked: Vec<(usize, usize)> =
                (0..rows.len()).flat_map(|row| (rows.first_target(row)..rows.items(row).len()).map(move |p| (row, p))).collect();
            for (number, &(row, place)) in walked.iter().enumerate() {
                prop_assert_eq!(index.place(number), Some((row, place)));
                prop_assert_eq!(index.number(row, place), Some(number));
                prop_assert!(index.numbers(row).contains(&number));
            }
        }
    }
}
