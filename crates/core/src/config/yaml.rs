//! The only user of serde_yaml (unmaintained, pinned by figment): reading and writing YAML.

use std::path::Path;

use serde::Serialize;

use super::{
    Problem,
    value::{Kind, Value},
};
use crate::{Error, Result};

/// Reads a YAML text whose top level is a map; an empty text is an empty map. `name` is the file as messages show it.
///
/// # Errors
/// A [`Problem`] with line and column: a syntax error, a key given twice, a top level that is no map.
pub fn parse(text: &str, name: &str) -> Result<Value, Problem> {
    let yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(|e| syntax(&e, name))?;
    let value = convert(yaml, name)?;
    match value.kind {
        Kind::Map(_) => Ok(value),
        Kind::Null => Ok(Value::map()),
        _ => Err(Problem::new("", format!("{name}: expected `key: value` lines, got {}", super::value::got(&value)))),
    }
}

/// [`parse`] of a file.
///
/// # Errors
/// Also that the file cannot be read.
pub fn read(path: &Path, name: &str) -> Result<Value, Problem> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Problem::new("", format!("{name}: cannot read the file: {e}")))?;
    parse(&text, name)
}

/// Any serialisable value as YAML text.
///
/// # Errors
/// [`Error::Invalid`] for what YAML cannot hold, which is a mistake in a configuration struct.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_yaml::to_string(value).map_err(|e| Error::invalid(format!("this value cannot be written as YAML: {e}")))
}

/// A YAML file as any type, or `None` when it is not there or says something else.
pub(crate) fn read_as<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_yaml::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn syntax(error: &serde_yaml::Error, name: &str) -> Problem {
    let place = error.location().map_or(String::new(), |l| format!(" line {} column {}", l.line(), l.column()));
    // serde_yaml repeats the place at the end of its own text.
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    let hint = if text.contains("duplicate entry") {
        Some("each key stands once in a file".to_owned())
    } else if text.contains("cannot start any token") || text.contains("anchor") || text.contains("tag") {
        Some("text that starts with * & ! % @ or ` needs quotes".to_owned())
    } else {
        None
    };
    Problem { key: String::new(), message: format!("{name}{place}: {text}"), hint }
}

fn convert(yaml: serde_yaml::Value, name: &str) -> Result<Value, Problem> {
    use serde_yaml::Value as Y;
    let kind = match yaml {
        Y::Null => Kind::Null,
        Y::Bool(b) => Kind::Bool(b),
        Y::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Kind::Int(i.into()),
            (None, Some(u)) => Kind::Int(u.into()),
            (None, None) => Kind::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Y::String(s) => Kind::Str(s),
        Y::Sequence(items) => Kind::List(items.into_iter().map(|v| convert(v, name)).collect::<Result<_, _>>()?),
        Y::Mapping(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map {
                let key = match key {
                    Y::String(s) => s,
                    Y::Number(n) => n.to_string(),
                    Y::Bool(b) => b.to_string(),
                    _ => return Err(Problem::new("", format!("{name}: a key must be text"))),
                };
                if key == "<<" {
                    return Err(Problem::new("", format!("{name}: the merge key `<<` is not offered here")));
                }
                if key == "_target_" {
                    return Err(Problem::new("", format!("{name}: `_target_` is not offered here")));
                }
                entries.push((key, convert(value, name)?));
            }
            Kind::Map(entries)
        }
        Y::Tagged(tagged) => {
            return Err(Problem {
                hint: Some("text that starts with ! needs quotes".into()),
                ..Problem::new("", format!("{name}: YAML tags such as `{}` are not offered here", tagged.tag))
            });
        }
    };
    Ok(kind.into())
}

/// One value as YAML on one line.
pub(crate) fn inline(value: &Value) -> String {
    match &value.kind {
        Kind::Null => "null".into(),
        Kind::Bool(b) => b.to_string(),
        Kind::Int(i) => i.to_string(),
        Kind::Float(x) if x.is_nan() => ".nan".into(),
        Kind::Float(x) if x.is_infinite() => if *x > 0.0 { ".inf" } else { "-.inf" }.into(),
        Kind::Float(x) => format!("{x:?}"),
        Kind::Str(s) => inline_text(s),
        Kind::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Kind::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(k, v)| format!("{}: {}", inline_text(k), inline(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn inline_text(text: &str) -> String {
    let flow = text.contains([',', '[', ']', '{', '}', '#', ':']) || text.contains('\n');
    match serde_yaml::to_string(text) {
        Ok(yaml) if !flow && !yaml.trim_end().contains('\n') => yaml.trim_end().to_owned(),
        // JSON strings are YAML strings.
        _ => serde_json::Value::from(text).to_string(),
    }
}

/// A tree as block YAML, a line for each value, with `comment(path, leaf)` behind it.
pub(crate) fn block(value: &Value, comment: &dyn Fn(&str, &Value) -> Option<String>) -> String {
    let mut lines = Vec::new();
    block_lines(value, "", 0, comment, &mut lines);
    let width = lines.iter().filter(|(_, c)| c.is_some()).map(|(l, _)| l.chars().count()).max().unwrap_or(0).min(60);
    let mut text = String::new();
    for (line, comment) in lines {
        match comment {
            Some(comment) => text += &format!("{line:width$}  # {comment}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    text
}

type Line = (String, Option<String>);

fn block_lines(
    value: &Value,
    path: &str,
    depth: usize,
    comment: &dyn Fn(&str, &Value) -> Option<String>,
    lines: &mut Vec<Line>,
) {
    let Kind::Map(entries) = &value.kind else {
        lines.push((inline(value), comment(path, value)));
        return;
    };
    for (key, value) in entries {
        let path = super::value::join(path, key);
        let head = format!("{}{}:", "  ".repeat(depth), inline_text(key));
        match &value.kind {
            Kind::Map(inner) if !inner.is_empty() => {
                lines.push((head, None));
                block_lines(value, &path, depth + 1, comment, lines);
            }
            _ => lines.push((format!("{head} {}", inline(value)), comment(&path, value))),
        }
    }
}
