//! Stop strings in a stream of text.

/// Finds the stop string that is complete first, however the text is cut into pieces, and holds back what may become one.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

/// What a piece of text brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Text that is certain to lie before any stop string.
    pub text: String,
    /// The stop string that ended the text.
    pub stop: Option<String>,
}

impl StopMatcher {
    /// A matcher for these strings; none of them may be empty.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new(), stopped: false }
    }

    /// Takes the next piece of text. After a stop nothing more comes out.
    pub fn push(&mut self, piece: &str) -> Released {
        if self.stopped {
            return Released { text: String::new(), stop: None };
        }
        if self.stops.is_empty() {
            return Released { text: piece.to_owned(), stop: None };
        }
        self.held.push_str(piece);
        // the earliest end counts, then the longest: what a reader of single characters would see
        let first =
            self.stops.iter().filter_map(|stop| self.held.find(stop).map(|at| (at + stop.len(), at, stop))).min();
        if let Some((_, at, stop)) = first {
            let stop = stop.clone();
            self.held.truncate(at);
            self.stopped = true;
            return Released { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Released { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// The text held back, at the end of the stream.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that starts `stop` without being all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let starts = |n: &usize| stop.is_char_boundary(*n) && text.as_bytes().ends_with(&stop.as_bytes()[..*n]);
    (1..=longest).rev().find(starts).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pieces: &[&str], stops: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            let released = matcher.push(piece);
            text.push_str(&released.text);
            if released.stop.is_some() {
                assert_eq!(matcher.push("more").text, "");
                return (text, released.stop);
            }
        }
        (text + &matcher.finish(), None)
    }

    #[test]
    fn holds_back_what_may_become_a_stop() {
        let mut matcher = StopMatcher::new(&["\n\nUser".to_owned()]);
        assert_eq!(matcher.push("Hi\n").text, "Hi");
        assert_eq!(matcher.push("\n").text, "");
        // "\n\n" + "\n": the first break is free now
        assert_eq!(matcher.push("\n").text, "\n");
        assert_eq!(matcher.push("Us").text, "");
        assert_eq!(matcher.push("e!").text, "\n\nUse!");
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn the_first_complete_stop_counts() {
        assert_eq!(run(&["xabcy"], &["abc", "b"]), ("xa".into(), Some("b".into())));
        assert_eq!(run(&["xab", "cy"], &["bc", "abc"]), ("x".into(), Some("abc".into())));
        assert_eq!(run(&["日本", "語。終", "わり"], &["。終わり"]), ("日本語".into(), Some("。終わり".into())));
        assert_eq!(run(&["aa", "ab"], &["aab"]), ("a".into(), Some("aab".into())));
        assert_eq!(run(&["ab"], &[]), ("ab".into(), None));
        // shares its first byte with the stop only
        assert_eq!(run(&["あ", "い"], &["う"]), ("あい".into(), None));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            text in "[abあ]{0,14}",
            stops in prop::collection::vec("[abあ]{1,4}", 1..4),
            cuts in prop::collection::vec(0usize..15, 0..5),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = run(&[&text], &stops);
            let mut bounds: Vec<usize> = cuts.into_iter().filter(|&c| c <= text.len() && text.is_char_boundary(c)).collect();
            bounds.extend([0, text.len()]);
            bounds.sort_unstable();
            let pieces: Vec<&str> = bounds.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(&run(&pieces, &stops), &whole);
            // nothing of a stop string comes out, and nothing before it is lost
            prop_assert!(text.starts_with(&whole.0));
            prop_assert!(stops.iter().all(|stop| !whole.0.contains(stop)));
            if let Some(stop) = &whole.1 {
                prop_assert!(text[whole.0.len()..].starts_with(stop.as_str()));
            } else {
                prop_assert_eq!(&whole.0, &text);
            }
        }
    }
}
