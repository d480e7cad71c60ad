//! One row of scores on plain slices: the rank of the target and the K best items, without sorting the catalogue.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::NO_ITEM;

/// Items looked at together when searching the best K: most blocks hold nothing new and are left after one maximum.
const BLOCK: usize = 64;

/// Ranks of one target under both rules for the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowRank {
    /// Among all items.
    pub kept: u32,
    /// Among the items outside the history.
    pub excluded: u32,
}

/// A score that is NaN or infinite, at this item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BadScore {
    pub item: usize,
    pub score: f32,
}

/// What [`rank_row`] needs again and again; one for each thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    best: BinaryHeap<Reverse<u64>>,
    masked: Vec<(u32, f32)>,
}

/// Rank of `target` among `scores` `[N]` and, in `top` `[K]`, the best items, best first.
///
/// The rank is `1 + #greater + #equal` over the other items. Equal scores stand in `top` by ascending item, and where
/// fewer than K items are left the rest is [`NO_ITEM`]. With `exclude` the history's items, the target aside, do not
/// enter `top`; `scores` is changed then. `target` and `history` must be items of the catalogue.
pub(crate) fn rank_row(
    scores: &mut [f32],
    target: u32,
    history: &[u32],
    exclude: bool,
    top: &mut [u32],
    scratch: &mut Scratch,
) -> Result<RowRank, BadScore> {
    let wanted = scores[target as usize];
    let (greater, equal) = count(scores, wanted)?;
    // an item of the history counts once however often it occurs, so each is masked when it has been counted
    let mut ahead = 0;
    scratch.masked.clear();
    for &item in history.iter().filter(|&&item| item != target) {
        let score = &mut scores[item as usize];
        if *score > f32::NEG_INFINITY {
            ahead += u32::from(*score >= wanted);
            scratch.masked.push((item, *score));
            *score = f32::NEG_INFINITY;
        }
    }
    if !exclude {
        for &(item, score) in &scratch.masked {
            scores[item as usize] = score;
        }
    }
    best(scores, top, &mut scratch.best);
    // the target is among the equal ones, which makes up for the 1 of the formula
    let kept = greater + equal;
    Ok(RowRank { kept, excluded: kept - ahead })
}

/// Number of scores above and equal to `wanted`; written without branches so that it runs in vector registers.
fn count(scores: &[f32], wanted: f32) -> Result<(u32, u32), BadScore> {
    let (mut greater, mut equal, mut bad) = (0u32, 0u32, 0u32);
    for &score in scores {
        greater += u32::from(score > wanted);
        equal += u32::from(score == wanted);
        bad += u32::from(!score.is_finite());
    }
    match scores.iter().position(|score| bad > 0 && !score.is_finite()) {
        Some(item) => Err(BadScore { item, score: scores[item] }),
        None => Ok((greater, equal)),
    }
}

/// Writes the best items into `top`; a score of -inf never enters.
fn best(scores: &[f32], top: &mut [u32], heap: &mut BinaryHeap<Reverse<u64>>) {
    top.fill(NO_ITEM);
    if top.is_empty() {
        return;
    }
    heap.clear();
    // what a later item must exceed; an equal one loses, because the earlier item comes first
    let mut bar = f32::NEG_INFINITY;
    for (block_idx, block) in scores.chunks(BLOCK).enumerate() {
        let max = block.iter().fold(f32::NEG_INFINITY, |max, &score| if score > max { score } else { max });
        if max <= bar {
            continue;
        }
        for (i, &score) in block.iter().enumerate() {
            if score <= bar {
                continue;
            }
            let entry = Reverse(order_key(score, (block_idx * BLOCK + i) as u32));
            if heap.len() < top.len() {
                heap.push(entry);
            } else if let Some(mut worst) = heap.peek_mut() {
                *worst = entry;
            }
            if heap.len() == top.len()
                && let Some(&Reverse(worst)) = heap.peek()
            {
                bar = scores[item_of(worst) as usize];
            }
        }
    }
    // the smallest key leaves first
    for place in (0..heap.len()).rev() {
        if let Some(Reverse(key)) = heap.pop() {
            top[place] = item_of(key);
        }
    }
}

/// A number that orders by score, and among equal scores puts the smaller item higher.
fn order_key(score: f32, item: u32) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0.0 equals 0.0
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!item)
}

fn item_of(key: u64) -> u32 {
    !(key as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(scores: &[f32], target: u32, history: &[u32], exclude: bool, k: usize) -> (RowRank, Vec<u32>) {
        let mut top = vec![7; k];
        let mut scores = scores.to_vec();
        let rank = rank_row(&mut scores, target, history, exclude, &mut top, &mut Scratch::default()).unwrap();
        (rank, top)
    }

    #[test]
    fn ties_rank_worst_and_stand_by_item() {
        let scores = [0.5, 0.9, 0.5, 0.1, 0.5];
        let (rank, top) = run(&scores, 2, &[], false, 3);
        assert_eq!(rank, RowRank { kept: 4, excluded: 4 });
        assert_eq!(top, [1, 0, 2]);
        assert_eq!(run(&[3.0; 6], 0, &[], false, 2), (RowRank { kept: 6, excluded: 6 }, vec![0, 1]));
        // -0.0 and 0.0 are equal
        assert_eq!(run(&[-0.0, 0.0, -1.0], 0, &[], false, 2), (RowRank { kept: 2, excluded: 2 }, vec![0, 1]));
    }

    #[test]
    fn the_history_leaves_once_and_the_target_stays() {
        let scores = [0.9, 0.8, 0.7, 0.6, 0.5];
        // item 0 twice, the target itself, and item 4 below the target
        let (rank, top) = run(&scores, 3, &[0, 0, 3, 4], true, 4);
        assert_eq!(rank, RowRank { kept: 4, excluded: 3 });
        assert_eq!(top, [1, 2, 3, NO_ITEM]);
        let (rank, top) = run(&scores, 3, &[0, 0, 3, 4], false, 4);
        assert_eq!(rank, RowRank { kept: 4, excluded: 3 });
        assert_eq!(top, [0, 1, 2, 3]);
    }

    #[test]
    fn a_bad_score_is_found_at_its_item() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut scores = [0.0, 1.0, bad, 0.0];
            let error = rank_row(&mut scores, 1, &[], false, &mut [], &mut Scratch::default()).unwrap_err();
            assert_eq!(error.item, 2);
            let mut scores = [bad, 1.0];
            assert!(rank_row(&mut scores, 0, &[], false, &mut [0], &mut Scratch::default()).is_err());
        }
    }

    proptest! {
        /// Against sorting: the target after all equals, the list as a stable sort by descending score.
        #[test]
        fn equals_a_full_sort(
            scores in prop::collection::vec((-4i8..4).prop_map(|s| f32::from(s) / 2.0), 1..200),
            target in any::<prop::sample::Index>(),
            history in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            exclude in any::<bool>(),
            k in 1usize..40,
        ) {
            let target = target.index(scores.len()) as u32;
            let history: Vec<u32> = history.iter().map(|i| i.index(scores.len()) as u32).collect();
            let (rank, top) = run(&scores, target, &history, exclude, k);
            let sorted = |drop: bool, last: bool| {
                let mut items: Vec<u32> = (0..scores.len() as u32)
                    .filter(|i| !drop || *i == target || !history.contains(i))
                    .collect();
                items.sort_by(|&a, &b| {
                    let by_score = scores[b as usize].total_cmp(&scores[a as usize]);
                    by_score.then((last && a == target).cmp(&(last && b == target))).then(a.cmp(&b))
                });
                items
            };
            let place = |items: Vec<u32>| items.iter().position(|&i| i == target).unwrap() as u32 + 1;
            prop_assert_eq!(rank.kept, place(sorted(false, true)));
            prop_assert_eq!(rank.excluded, place(sorted(true, true)));
            let mut want = sorted(exclude, false);
            want.resize(want.len().max(k), NO_ITEM);
            prop_assert_eq!(&top[..], &want[..k]);
        }
    }
}
