//! Wordings with slots, taken apart once.

/// The slots by name.
const SLOTS: [(&str, Part); 2] = [("{history}", Part::History), ("{candidates}", Part::Candidates)];

/// A piece of a wording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Fixed text, never empty.
    Text(String),
    /// The titles of the history.
    History,
    /// The titles of the candidates.
    Candidates,
}

/// Texts that a title must not contain so that a prompt can be read back: the slots.
pub(crate) fn slot_names() -> impl Iterator<Item = &'static str> {
    SLOTS.iter().map(|(name, _)| *name)
}

/// Every line without blanks at its ends, and no empty lines around.
pub(crate) fn stripped(text: &str) -> String {
    text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// A wording of the body (its lines stripped) with the cue as its last line, taken apart. A blank at the cue's end is
/// not part of it.
pub(crate) fn parse(body: &str, cue: &str) -> Vec<Part> {
    let text = format!("{}\n{}", stripped(body), cue.trim());
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while let Some((at, name, part)) =
        SLOTS.iter().filter_map(|(name, part)| Some((rest.find(name)?, *name, part))).min_by_key(|(at, ..)| *at)
    {
        if at > 0 {
            parts.push(Part::Text(rest[..at].to_owned()));
        }
        parts.push(part.clone());
        rest = &rest[at + name.len()..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    parts
}

/// What is wrong with a wording that must have each slot so many times.
pub(crate) fn check(text: &str, wanted: [usize; 2]) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    for ((name, _), wanted) in SLOTS.iter().zip(wanted) {
        let got = text.matches(name).count();
        if got != wanted {
            return Err(format!("wanted the slot {name} {}, got {got}", ["nowhere", "once"][wanted.min(1)]));
        }
    }
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let end = rest[open..].find('}').map_or(rest.len(), |end| open + end + 1);
        let found = &rest[open..end];
        if !SLOTS.iter().any(|(name, _)| *name == found) {
            return Err(format!("unknown slot {found:?}; there are {{history}} and {{candidates}}"));
        }
        rest = &rest[end..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wordings_are_taken_apart() {
        let text = |t: &str| Part::Text(t.into());
        assert_eq!(
            parse("  Seen: {history}. \n From: {candidates}\n\n", "Next: "),
            [text("Seen: "), Part::History, text(".\nFrom: "), Part::Candidates, text("\nNext:")]
        );
        assert_eq!(parse("{candidates}{history}", "次:"), [Part::Candidates, Part::History, text("\n次:")]);
    }

    #[test]
    fn bad_slots_are_named() {
        assert_eq!(check("{history} {candidates}", [1, 1]), Ok(()));
        for (bad, wanted, part) in [
            ("{history}", [1, 1], "{candidates} once, got 0"),
            ("{history} {history}", [1, 0], "{history} once, got 2"),
            ("{history} {candidates}", [1, 0], "{candidates} nowhere, got 1"),
            ("{history} {items}", [1, 0], "unknown slot \"{items}\""),
            ("{history} {", [1, 0], "unknown slot \"{\""),
            (" \n", [0, 0], "empty"),
        ] {
            let message = check(bad, wanted).unwrap_err();
            assert!(message.contains(part), "{bad}: {message}");
        }
    }
}
