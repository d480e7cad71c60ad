//! The `defaults:` list at the top of a file: which other files it is made of.

use super::{
    Problem,
    value::{Kind, Value},
};

/// One entry of a defaults list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `_self_`: where the file itself merges.
    SelfMark,
    /// `name`: another file, under the same package.
    File { name: String, optional: bool },
    /// `group: option`, `group@package: option`, `optional group: option`.
    Group { group: String, package: Option<String>, option: Choice, optional: bool },
    /// `override /group: option`: changes an entry that stands elsewhere.
    Override { group: String, package: Option<String>, option: Choice },
}

/// The option of a group entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A file of the group; may hold `${…}`.
    Option(String),
    /// `null`: an empty slot.
    Null,
    /// `???`: must be chosen on the command line.
    Missing,
}

/// Takes the `defaults` out of a file's tree; `None` when it has none.
pub(crate) fn take(body: &mut Value, name: &str) -> Result<Option<Vec<Entry>>, Problem> {
    let Some(list) = body.remove("defaults") else { return Ok(None) };
    let Kind::List(items) = &list.kind else {
        return Err(Problem::new("", format!("{name}: `defaults` must be a list of `- group: option`")));
    };
    let entries = items.iter().map(|item| entry(item, name)).collect::<Result<Vec<_>, _>>()?;
    match entries.iter().filter(|e| **e == Entry::SelfMark).count() {
        1 => {}
        0 => {
            return Err(Problem {
                hint: Some("put `- _self_` last so that this file wins over the groups above it".into()),
                ..Problem::new("", format!("{name}: the defaults list has no `_self_`"))
            });
        }
        _ => return Err(Problem::new("", format!("{name}: `_self_` stands twice in the defaults list"))),
    }
    let first_override = entries.iter().position(|e| matches!(e, Entry::Override { .. })).unwrap_or(entries.len());
    if entries[first_override..].iter().any(|e| matches!(e, Entry::Group { .. } | Entry::File { .. })) {
        return Err(Problem::new("", format!("{name}: `override` entries come last in the defaults list")));
    }
    Ok(Some(entries))
}

fn entry(item: &Value, name: &str) -> Result<Entry, Problem> {
    let bad = |message: String, hint: &str| Problem {
        hint: Some(hint.to_owned()),
        ..Problem::new("", format!("{name}: defaults list: {message}"))
    };
    let shape = "write `- group: option`, `- name` or `- _self_`";
    let entries = match &item.kind {
        Kind::Str(text) if text == "_self_" => return Ok(Entry::SelfMark),
        Kind::Str(text) => {
            let (words, file) = keywords(text);
            return match words[..] {
                [] => Ok(Entry::File { name: file.to_owned(), optional: false }),
                ["optional"] => Ok(Entry::File { name: file.to_owned(), optional: true }),
                _ => Err(bad(format!("cannot read `{text}`"), shape)),
            };
        }
        Kind::Map(entries) => entries,
        _ => return Err(bad(format!("cannot read `{item}`"), shape)),
    };
    let [(key, option)] = entries.as_slice() else {
        return Err(bad(format!("cannot read `{item}`"), "one group for each `-`"));
    };
    let (words, target) = keywords(key);
    let (group, package) = target.split_once('@').map_or((target, None), |(g, p)| (g, Some(p.to_owned())));
    let group = group.to_owned();
    let option = match &option.kind {
        Kind::Null => Choice::Null,
        Kind::Str(text) if text == "???" => Choice::Missing,
        Kind::Str(text) => Choice::Option(text.strip_suffix(".yaml").unwrap_or(text).to_owned()),
        Kind::Int(_) | Kind::Bool(_) => Choice::Option(option.to_string()),
        _ => {
            return Err(bad(
                format!("`{key}` must name one option, got {option}"),
                "several options of one group: use group@package",
            ));
        }
    };
    match words[..] {
        [] => Ok(Entry::Group { group, package, option, optional: false }),
        ["optional"] => Ok(Entry::Group { group, package, option, optional: true }),
        ["override"] => Ok(Entry::Override { group, package, option }),
        _ => {
            let unknown = words.iter().find(|w| !matches!(**w, "optional" | "override")).unwrap_or(&words[0]);
            let hint = super::suggest::did_you_mean(unknown, ["optional", "override"]);
            Err(bad(
                format!("unknown keyword `{unknown}` in `{key}`"),
                &hint.unwrap_or("there are `optional` and `override`".into()),
            ))
        }
    }
}

/// `optional group` → (["optional"], "group").
fn keywords(text: &str) -> (Vec<&str>, &str) {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let target = words.pop().unwrap_or("");
    (words, target)
}

/// The `# @package x` of a file's first comment lines.
pub(crate) fn header(text: &str) -> Option<String> {
    text.lines()
        .take_while(|line| line.trim_start().starts_with('#') || line.trim().is_empty())
        .find_map(|line| line.trim_start().trim_start_matches('#').trim().strip_prefix("@package"))
        .map(|package| package.trim().to_owned())
}
