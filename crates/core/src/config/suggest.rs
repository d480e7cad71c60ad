//! "did you mean": the nearest of the keys that exist.

/// The candidate nearest to `word`, if it is near enough to be what was meant.
///
/// Whole dotted keys are compared, and a word without dots also with the last part of each key, so that `epochs`
/// finds `train.epochs`.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate == word || candidate.is_empty() {
            continue;
        }
        let mut distance = strsim::osa_distance(word, candidate);
        let last = candidate.rsplit('.').next().unwrap_or(candidate);
        let word_last = word.rsplit('.').next().unwrap_or(word);
        if last == word_last {
            // The right name at the wrong place is the likelier mistake than any misspelling of the place.
            distance = distance.min(1 + usize::from(word.contains('.')));
        } else if !word.contains('.') {
            distance = distance.min(strsim::osa_distance(word, last) + 1);
        }
        if best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    let limit = (word.chars().count() / 3).clamp(1, 4);
    best.filter(|(distance, _)| *distance <= limit.max(2)).map(|(_, candidate)| candidate.to_owned())
}

/// `did you mean X?` with the nearest candidate, if one is near enough.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|best| format!("did you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_whole_key_then_last_part() {
        let keys = ["seed", "train.epochs", "train.batch_size", "student.optim.lr"];
        assert_eq!(nearest("train.epoch", keys).as_deref(), Some("train.epochs"));
        assert_eq!(nearest("sede", keys).as_deref(), Some("seed"));
        assert_eq!(nearest("batch_size", keys).as_deref(), Some("train.batch_size"));
        assert_eq!(nearest("student.lr", keys).as_deref(), Some("student.optim.lr"));
        assert_eq!(nearest("completely.else", keys), None);
    }
}
