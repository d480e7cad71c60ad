//! The fixed sequence of batches of an export: the same for every process that works on it.

use anyo_core::data::TargetIndex;

use super::{Pass, is_chosen};

/// Items `start..end` of a row enter the network; its states answer for the targets at `first..=end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) row: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) first: usize,
}

/// One batch.
#[derive(Debug)]
pub(super) enum Work {
    /// All chosen targets of these segments.
    Segments(Vec<Segment>),
    /// Targets by number, each with its own history.
    Windows(Vec<u32>),
}

/// All batches, longest inputs first.
pub(super) struct Plan {
    batches: Vec<Work>,
}

impl Plan {
    pub(super) fn new(
        index: &TargetIndex<'_>,
        chosen: Option<&[u32]>,
        pass: Pass,
        max_len: usize,
        batch_places: usize,
    ) -> Self {
        let rows = index.rows();
        let (mut segments, mut windows) = (Vec::new(), Vec::new());
        let is_asked = |row: usize, place: usize| index.number(row, place).is_some_and(|n| is_chosen(chosen, n as u32));
        for row in 0..rows.len() {
            let (first, len) = (rows.first_target(row), rows.items(row).len());
            if pass != Pass::Sequence {
                windows.extend(index.numbers(row).map(|n| n as u32).filter(|&n| is_chosen(chosen, n)));
                continue;
            }
            // nothing comes before place 0, so there is no state for a target there
            windows.extend((first == 0 && is_asked(row, 0)).then(|| index.numbers(row).start as u32));
            let cut = cut(row, first.max(1), len, max_len);
            segments.extend(cut.filter(|s| (s.first..=s.end).any(|place| is_asked(row, place))));
        }
        // stable sorts: equal lengths stay in the order of the rows
        segments.sort_by_key(|s| std::cmp::Reverse(s.end - s.start));
        let width = |n: &u32| index.history(*n as usize).len().min(max_len).max(1);
        windows.sort_by_key(|n| std::cmp::Reverse(width(n)));
        let mut batches = Vec::new();
        batches.extend(grouped(&segments, |s| s.end - s.start, batch_places).map(|b| Work::Segments(b.to_vec())));
        batches.extend(grouped(&windows, width, batch_places).map(|b| Work::Windows(b.to_vec())));
        Self { batches }
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &Work> {
        self.batches.iter()
    }
}

/// The segments of one row with targets at `first..len`. A row longer than the network's input is cut into windows that
/// overlap by half, and each window answers only for targets that the one before did not reach: every target is ranked
/// once, after at least half of the input's length where the row has that much before it.
fn cut(row: usize, first: usize, len: usize, max_len: usize) -> impl Iterator<Item = Segment> {
    let last = len.saturating_sub(1);
    let step = max_len.div_ceil(2).max(1);
    let mut next = Some(first).filter(|first| *first <= last);
    // windows end where a row without skipped targets would cut, so that a target's list does not depend on its row's
    // first target
    let mut end = max_len.min(last);
    std::iter::from_fn(move || {
        let first = next?;
        while end < first {
            end = (end + step).min(last);
        }
        let segment = Segment { row, start: end.saturating_sub(max_len), end, first };
        next = Some(end + 1).filter(|first| *first <= last);
        Some(segment)
    })
}

/// Neighbours together, padded to the first of a group, at most `places` of padded inputs a group.
fn grouped<T>(list: &[T], width: impl Fn(&T) -> usize, places: usize) -> impl Iterator<Item = &[T]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let longest = width(rest.first()?).max(1);
        let (head, tail) = rest.split_at((places / longest).clamp(1, rest.len()));
        rest = tail;
        Some(head)
    })
}

#[cfg(test)]
mod tests {
    use anyo_core::data::Rows;

    use super::*;

    #[test]
    fn long_rows_are_cut_with_half_a_window_of_context() {
        let cut = |first, len| cut(0, first, len, 4).map(|s| (s.start, s.end, s.first)).collect::<Vec<_>>();
        assert_eq!(cut(1, 4), [(0, 3, 1)]);
        assert_eq!(cut(1, 5), [(0, 4, 1)]);
        assert_eq!(cut(1, 10), [(0, 4, 1), (2, 6, 5), (4, 8, 7), (5, 9, 9)]);
        assert_eq!(cut(8, 10), [(4, 8, 8), (5, 9, 9)]);
        assert_eq!(cut(1, 1), []);
    }

    #[test]
    fn every_chosen_target_is_asked_once() {
        let mut rows = Rows::new();
        for user in 0..20u32 {
            rows.push(user, 0..1 + user, u32::from(user > 3));
        }
        let index = TargetIndex::new(&rows);
        let some: Vec<u32> = (0..index.len() as u32).filter(|n| n % 3 != 1).collect();
        for (pass, chosen) in
            [(Pass::Sequence, None), (Pass::Sequence, Some(&some[..])), (Pass::Window, Some(&some[..]))]
        {
            for max_len in [1, 2, 5, 40] {
                let plan = Plan::new(&index, chosen, pass, max_len, 30);
                let mut asked = Vec::new();
                for work in plan.batches() {
                    match work {
                        Work::Windows(numbers) => asked.extend(numbers),
                        Work::Segments(segments) => asked.extend(segments.iter().flat_map(|s| {
                            assert!(s.end - s.start <= max_len && s.start < s.first);
                            let number = |place| index.number(s.row, place).map(|n| n as u32);
                            (s.first..=s.end).filter_map(number).filter(|&n| is_chosen(chosen, n)).collect::<Vec<_>>()
                        })),
                    }
                }
                asked.sort_unstable();
                let want: Vec<u32> = (0..index.len() as u32).filter(|&n| is_chosen(chosen, n)).collect();
                assert_eq!(asked, want, "{pass:?} {max_len}");
            }
        }
    }
}
