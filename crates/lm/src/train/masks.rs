//! Which tokens of an example are targets: labels for answer-only and assistant-only loss, ends, and truncation.
//!
//! Labels stand at the place of their own token, as in Hugging Face's data collators: the label of token t is scored
//! with the state of token t − 1, so the label of the first token is never used. [`super::Batch`] makes the shift.

use std::ops::Range;

use anyo_core::{Error, Result};

/// Label of a token that is no target.
pub const IGNORE: i64 = -100;

/// One tokenised training example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<i64>,
    /// For each token its id where it is a target, [`IGNORE`] where not.
    pub labels: Vec<i64>,
}

/// A piece of an example, such as one rendered turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Token ids.
    pub ids: Vec<i64>,
    /// Whether the model is to learn to write it: an assistant's words with their end token, not the header before them.
    pub target: bool,
}

/// What to do with an example that is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// An error.
    Refuse,
    /// Keep the beginning.
    KeepStart,
    /// Keep the end, and the first `prefix` tokens (a BOS, a system prompt) in front of it.
    KeepEnd {
        /// Tokens at the start that stay.
        prefix: usize,
    },
}

/// What truncation did to a list of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TruncationReport {
    /// Examples that were shortened and kept.
    pub shortened: usize,
    /// Examples left out, because no target remained within the limit.
    pub without_target: usize,
    /// Tokens cut off the shortened examples.
    pub tokens_cut: usize,
    /// Targets among them.
    pub targets_cut: usize,
}

impl Example {
    /// Every token is a target (plain text).
    pub fn text(ids: Vec<i64>) -> Self {
        Self { labels: ids.clone(), ids }
    }

    /// Only the answer is a target.
    ///
    /// # Errors
    /// When the answer is empty, or there is nothing before its only token that could predict it.
    pub fn answer_only(prompt: &[i64], answer: &[i64]) -> Result<Self> {
        let segments =
            [Segment { ids: prompt.to_vec(), target: false }, Segment { ids: answer.to_vec(), target: true }];
        Self::from_segments(&segments)
    }

    /// Joins segments; those marked as target are targets.
    ///
    /// # Errors
    /// When nothing is left to predict.
    pub fn from_segments(segments: &[Segment]) -> Result<Self> {
        let mut example = Self::default();
        for segment in segments {
            example.ids.extend(&segment.ids);
            match segment.target {
                true => example.labels.extend(&segment.ids),
                false => example.labels.extend(std::iter::repeat_n(IGNORE, segment.ids.len())),
            }
        }
        example.checked()
    }

    /// Only the tokens in `turns` are targets: the assistant's turns, each with its end token.
    ///
    /// # Errors
    /// When a span is reversed, outside the tokens or overlaps the one before, or nothing is left to predict.
    pub fn assistant_only(ids: Vec<i64>, turns: &[Range<usize>]) -> Result<Self> {
        let mut labels = vec![IGNORE; ids.len()];
        let mut end = 0;
        for turn in turns {
            if turn.start < end || turn.end < turn.start || turn.end > ids.len() {
                return Err(Error::invalid(format!(
                    "the assistant's turn at tokens {}..{} does not fit: the turn before it ends at {end}, the \
                     example has {} tokens",
                    turn.start,
                    turn.end,
                    ids.len()
                )));
            }
            labels[turn.clone()].copy_from_slice(&ids[turn.clone()]);
            end = turn.end;
        }
        Self { ids, labels }.checked()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Number of targets; a label on the first token does not count, because nothing predicts it.
    pub fn n_targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORE).count()
    }

    fn checked(self) -> Result<Self> {
        if self.ids.len() != self.labels.len() {
            let (ids, labels) = (self.ids.len(), self.labels.len());
            return Err(Error::invalid(format!("an example has {ids} tokens but {labels} labels")));
        }
        if self.n_targets() == 0 {
            return Err(Error::Invalid {
                message: format!("an example of {} tokens has no target", self.ids.len()),
                hint: Some("give it an answer or an assistant's turn, after at least one token of prompt".into()),
            });
        }
        Ok(self)
    }

    /// Puts `bos` in front where it is missing (never a target) and `eos` behind where it is missing (a target if the
    /// last token is one, so that the model learns to stop).
    #[must_use]
    pub fn with_ends(mut self, bos: Option<i64>, eos: Option<i64>) -> Self {
        if let Some(bos) = bos.filter(|bos| self.ids.first() != Some(bos)) {
            self.ids.insert(0, bos);
            self.labels.insert(0, IGNORE);
        }
        if let Some(eos) = eos.filter(|eos| self.ids.last() != Some(eos)) {
            let target = self.labels.last().is_some_and(|&label| label != IGNORE);
            self.ids.push(eos);
            self.labels.push(if target { eos } else { IGNORE });
        }
        self
    }

    /// At most `max_len` tokens of this example, with the number of targets that were cut.
    ///
    /// # Errors
    /// When the example is too long and the rule is [`Truncation::Refuse`], the kept prefix fills the limit, or no
    /// target remains.
    pub fn truncated(mut self, max_len: usize, rule: Truncation) -> Result<(Self, usize)> {
        let (len, targets) = (self.len(), self.n_targets());
        if len <= max_len {
            return Ok((self, 0));
        }
        match rule {
            Truncation::Refuse => {
                return Err(Error::Invalid {
                    message: format!("an example has {len} tokens, at most {max_len} are allowed"),
                    hint: Some("raise seq_len, shorten the text, or allow truncation".into()),
                });
            }
            Truncation::KeepStart => {
                self.ids.truncate(max_len);
                self.labels.truncate(max_len);
            }
            Truncation::KeepEnd { prefix } => {
                if prefix >= max_len {
                    return Err(Error::invalid(format!(
                        "truncation keeps the first {prefix} tokens, but only {max_len} are allowed"
                    )));
                }
                let cut = prefix..len - (max_len - prefix);
                // What follows the gap is predicted from a context it never had; with a prefix that is the usual
                // price of a window, and the first kept token after the gap is no target.
                let after = cut.end;
                self.labels[after] = IGNORE;
                self.ids.drain(cut.clone());
                self.labels.drain(cut);
            }
        }
        let kept = self.n_targets();
        if kept == 0 {
            return Err(Error::Invalid {
                message: format!(
                    "truncation from {len} to {max_len} tokens cuts away all {targets} targets of an example"
                ),
                hint: Some("raise seq_len, shorten the prompt, or keep the end instead of the start".into()),
            });
        }
        Ok((self, targets - kept))
    }
}

/// Truncates every example; those that would lose all targets are left out and counted.
///
/// # Errors
/// Under [`Truncation::Refuse`] when one is too long (its number is named), or when no example remains.
pub fn truncate_all(
    examples: Vec<Example>,
    max_len: usize,
    rule: Truncation,
) -> Result<(Vec<Example>, TruncationReport)> {
    let (mut kept, mut report, n) = (Vec::with_capacity(examples.len()), TruncationReport::default(), examples.len());
    for (i, example) in examples.into_iter().enumerate() {
        let len = example.len();
        if len <= max_len && example.n_targets() > 0 {
            kept.push(example);
            continue;
        }
        match example.truncated(max_len, rule) {
            Ok((example, targets_cut)) if example.n_targets() > 0 => {
                report.shortened += 1;
                report.tokens_cut += len - example.len();
                report.targets_cut += targets_cut;
                kept.push(example);
            }
            Err(Error::Invalid { message, hint }) if rule == Truncation::Refuse => {
                return Err(Error::Invalid { message: format!("example {i}: {message}"), hint });
            }
            _ => report.without_target += 1,
        }
    }
    if kept.is_empty() && n > 0 {
        return Err(Error::Invalid {
            message: format!("none of the {n} examples has a target within {max_len} tokens"),
            hint: Some("raise seq_len, or keep the end instead of the start".into()),
        });
    }
    Ok((kept, report))
}

/// Token spans of character or byte spans of a rendered chat: `offsets` are the tokenizer's (start, end) of each token
/// in the same unit, `spans` the assistant's turns in order, each with its end token's text.
///
/// A token that begins before a span belongs to what came before: it was given, not written by the assistant. Tokens of
/// no width (added by the tokenizer) belong to no span.
pub fn token_spans(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let inside =
        |span: &Range<usize>, (start, end): (usize, usize)| start < end && start >= span.start && start < span.end;
    let found = spans.iter().filter_map(|span| {
        let first = offsets.iter().position(|&offset| inside(span, offset))?;
        let last = offsets.iter().rposition(|&offset| inside(span, offset))?;
        Some(first..last + 1)
    });
    found.collect()
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of spans")]
mod tests {
    use super::*;

    const N: i64 = IGNORE;

    #[test]
    fn answer_and_assistant_labels_match_hand_values() {
        let example = Example::answer_only(&[1, 2, 3], &[4, 5]).unwrap();
        assert_eq!((example.labels.as_slice(), example.n_targets()), ([N, N, N, 4, 5].as_slice(), 2));
        // system 1 2, user 3, header 4, answer 5 6 end 7, user 8, header 4, answer 9 end 7
        let ids = vec![1, 2, 3, 4, 5, 6, 7, 8, 4, 9, 7];
        let example = Example::assistant_only(ids, &[4..7, 9..11]).unwrap();
        assert_eq!(example.labels, [N, N, N, N, 5, 6, 7, N, N, 9, 7]);
        assert_eq!(example.n_targets(), 5);
    }

    #[test]
    fn no_target_or_bad_spans_are_errors() {
        for bad in [
            Example::answer_only(&[1, 2], &[]),
            // the only token of the answer is the first token: nothing predicts it
            Example::answer_only(&[], &[1]),
            Example::assistant_only(vec![1, 2, 3], &[]),
            Example::assistant_only(vec![1, 2, 3], &[2..4]),
            Example::assistant_only(vec![1, 2, 3, 4], &[1..3, 2..4]),
        ] {
            assert!(matches!(bad, Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn ends_are_added_once() {
        let example = Example::answer_only(&[5], &[6]).unwrap().with_ends(Some(1), Some(2));
        assert_eq!(
            (example.ids.as_slice(), example.labels.as_slice()),
            ([1, 5, 6, 2].as_slice(), [N, N, 6, 2].as_slice())
        );
        assert_eq!(example.clone().with_ends(Some(1), Some(2)), example);
        let open = Example { ids: vec![1, 2, 3], labels: vec![N, 2, N] }.with_ends(None, Some(9));
        assert_eq!(open.labels, [N, 2, N, N]);
    }

    #[test]
    fn truncation_never_takes_all_targets_silently() {
        let example = Example::answer_only(&[1, 2, 3, 4], &[5, 6]).unwrap();
        let message = example.clone().truncated(4, Truncation::KeepStart).unwrap_err().to_string();
        assert!(message.contains("from 6 to 4") && message.contains("all 2 targets"), "{message}");
        assert!(example.clone().truncated(5, Truncation::Refuse).is_err());
        let (start, cut) = example.clone().truncated(5, Truncation::KeepStart).unwrap();
        assert_eq!((start.labels.as_slice(), cut), ([N, N, N, N, 5].as_slice(), 1));
        let (end, cut) = example.clone().truncated(4, Truncation::KeepEnd { prefix: 1 }).unwrap();
        assert_eq!(
            (end.ids.as_slice(), end.labels.as_slice(), cut),
            ([1, 4, 5, 6].as_slice(), [N, N, 5, 6].as_slice(), 0)
        );
        // the first token after the gap is no target any more
        let (end, cut) = example.clone().truncated(3, Truncation::KeepEnd { prefix: 1 }).unwrap();
        assert_eq!((end.ids.as_slice(), end.labels.as_slice(), cut), ([1, 5, 6].as_slice(), [N, N, 6].as_slice(), 1));
        assert!(example.clone().truncated(2, Truncation::KeepEnd { prefix: 2 }).is_err());
        assert_eq!(example.clone().truncated(6, Truncation::Refuse).unwrap(), (example, 0));
    }

    #[test]
    fn lists_report_what_was_cut_and_left_out() {
        let long_prompt = Example::answer_only(&[1; 9], &[2]).unwrap();
        let long_answer = Example::answer_only(&[1], &[2; 9]).unwrap();
        let short = Example::answer_only(&[1], &[2]).unwrap();
        let all = vec![long_prompt.clone(), long_answer, short];
        let (kept, report) = truncate_all(all.clone(), 5, Truncation::KeepStart).unwrap();
        assert_eq!(kept.iter().map(Example::len).collect::<Vec<_>>(), [5, 2]);
        assert_eq!(report, TruncationReport { shortened: 1, without_target: 1, tokens_cut: 5, targets_cut: 5 });
        assert!(truncate_all(vec![long_prompt], 5, Truncation::KeepStart).is_err());
        let message = truncate_all(all, 5, Truncation::Refuse).unwrap_err().to_string();
        assert!(message.starts_with("example 0: an example has 10 tokens"), "{message}");
    }

    #[test]
    fn offsets_become_token_spans() {
        // "<a>" is one token, "hi" another, a token " x" begins before the span that starts at its second character
        let offsets = [(0, 0), (0, 3), (3, 5), (5, 7), (7, 9), (9, 12)];
        assert_eq!(token_spans(&offsets, &[3..5, 6..12]), [2..3, 4..6]);
        assert!(token_spans(&offsets, &[20..30]).is_empty());
    }
}
