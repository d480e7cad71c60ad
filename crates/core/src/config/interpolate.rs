//! `${a.b}`, `${oc.env:X,default}`, `${now:%Y}`.

use chrono::{DateTime, Local};

use super::{
    Problem, lexer, suggest,
    value::{Kind, Value, join},
};

/// What the resolvers may see; the clock and the environment come from outside.
pub struct Context<'a> {
    /// The start of the run.
    pub now: DateTime<Local>,
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// The tree with every `${…}` replaced; a value that is nothing but one reference keeps the type of what it names.
/// Values that cannot be resolved stay `???` and are reported.
pub(crate) fn resolve(root: &Value, context: &Context<'_>) -> (Value, Vec<Problem>) {
    let mut resolver = Resolver { root, context, stack: Vec::new(), problems: Vec::new(), circled: Vec::new() };
    let resolved = resolver.value(root, "");
    (resolved, resolver.problems)
}

/// Text that [`resolve`] leaves as it is.
pub(crate) fn escape(value: &mut Value) {
    match &mut value.kind {
        Kind::Str(text) => *text = text.replace("${", "\\${"),
        Kind::List(items) => items.iter_mut().for_each(escape),
        Kind::Map(entries) => entries.iter_mut().for_each(|(_, v)| escape(v)),
        _ => {}
    }
}

struct Resolver<'a> {
    root: &'a Value,
    context: &'a Context<'a>,
    /// Paths being resolved.
    stack: Vec<String>,
    problems: Vec<Problem>,
    /// Paths of the circles reported: each circle is one problem.
    circled: Vec<String>,
}

const CIRCLE: &str = "the references go round in a circle";

/// Why a reference has no value; `None` when it is only waiting for a `???`.
type Failure = Option<(String, Option<String>)>;

impl Resolver<'_> {
    fn value(&mut self, value: &Value, path: &str) -> Value {
        let kind = match &value.kind {
            Kind::Str(text) if text.contains("${") => {
                let pushed = self.stack.last().is_none_or(|last| last != path);
                if pushed {
                    self.stack.push(path.to_owned());
                }
                let kind = match self.text(text, path) {
                    Ok(resolved) => resolved.kind,
                    Err(failure) => {
                        if let Some((message, hint)) = failure.filter(|_| !self.circled.iter().any(|c| c == path)) {
                            if message.contains(CIRCLE) {
                                self.circled.extend(self.stack.iter().cloned());
                            }
                            let message = format!("{message}{}", value.origin_note());
                            let problem = Problem { key: path.to_owned(), message, hint };
                            if !self.problems.iter().any(|p| p.key == problem.key) {
                                self.problems.push(problem);
                            }
                        }
                        Kind::Str("???".into())
                    }
                };
                if pushed {
                    self.stack.pop();
                }
                kind
            }
            Kind::List(items) => {
                let items = items.iter().enumerate();
                Kind::List(items.map(|(i, v)| self.value(v, &join(path, &i.to_string()))).collect())
            }
            Kind::Map(entries) => {
                Kind::Map(entries.iter().map(|(k, v)| (k.clone(), self.value(v, &join(path, k)))).collect())
            }
            other => other.clone(),
        };
        Value { kind, origin: value.origin.clone() }
    }

    fn text(&mut self, text: &str, path: &str) -> Result<Value, Failure> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let before = &rest[..at];
            if let Some(kept) = before.strip_suffix('\\') {
                out += kept;
                out += "${";
                rest = &rest[at + 2..];
                continue;
            }
            let inside =
                balanced(&rest[at + 2..]).ok_or_else(|| Some((format!("`${{` is not closed in {text:?}"), None)))?;
            let after = &rest[at + 2 + inside.len() + 1..];
            let value = self.reference(inside, path)?;
            if out.is_empty() && before.is_empty() && after.is_empty() {
                return Ok(value);
            }
            out += before;
            match &value.kind {
                Kind::Str(text) => out += text,
                Kind::Map(_) | Kind::List(_) => {
                    let message = format!("`${{{inside}}}` is a {}, which cannot stand inside text", name(&value));
                    return Err(Some((message, None)));
                }
                _ => out += &value.to_string(),
            }
            rest = after;
        }
        Ok(Value::text(out + rest))
    }

    fn reference(&mut self, inside: &str, path: &str) -> Result<Value, Failure> {
        // Inner references first: ${oc.env:X,${seed}}.
        let inside = if inside.contains("${") { self.text(inside, path)?.plain() } else { inside.to_owned() };
        let inside = inside.trim();
        if inside == "now" {
            return self.now("%Y%m%d_%H%M%S");
        }
        if let Some((resolver, argument)) = inside.split_once(':') {
            return match resolver.trim() {
                "now" => self.now(argument),
                "oc.env" => self.env(argument),
                other => Err(Some((
                    format!("there is no resolver `{other}` in `${{{inside}}}`"),
                    Some("there are ${key}, ${oc.env:NAME,default} and ${now:%Y%m%d}".into()),
                ))),
            };
        }
        self.lookup(inside, path)
    }

    fn now(&self, format: &str) -> Result<Value, Failure> {
        use std::fmt::Write;
        let mut text = String::new();
        write!(text, "{}", self.context.now.format(format))
            .map_err(|_| Some((format!("`{format}` is no date format"), Some("for example ${now:%Y-%m-%d}".into()))))?;
        Ok(Value::text(text))
    }

    fn env(&self, argument: &str) -> Result<Value, Failure> {
        let (variable, default) = argument.split_once(',').map_or((argument, None), |(v, d)| (v, Some(d)));
        let variable = variable.trim();
        let text = match ((self.context.env)(variable), default) {
            (Some(value), _) => return Ok(lexer::scalar(&value).into()),
            (None, Some(default)) => default,
            (None, None) => {
                return Err(Some((
                    format!("the environment variable {variable} is not set"),
                    Some(format!("set it, or write ${{oc.env:{variable},default}}")),
                )));
            }
        };
        match lexer::parse(text) {
            Ok(lexer::Parsed::One(value)) => Ok(value),
            _ => Ok(Value::text(text)),
        }
    }

    /// `a.b` from the root, `.b` beside the value itself, `..b` one level up.
    fn lookup(&mut self, key: &str, path: &str) -> Result<Value, Failure> {
        let dots = key.chars().take_while(|c| *c == '.').count();
        let target = if dots == 0 {
            key.to_owned()
        } else {
            let parts: Vec<&str> = path.split('.').collect();
            let keep = parts.len().saturating_sub(dots);
            join(&parts[..keep].join("."), &key[dots..])
        };
        let inside = |outer: &str, inner: &str| inner == outer || inner.starts_with(&format!("{outer}."));
        if self.stack.iter().any(|p| inside(&target, p)) {
            let circle = format!("{} → {target}", self.stack.join(" → "));
            return Err(Some((format!("{CIRCLE}: {circle}"), None)));
        }
        let Some(found) = self.root.at(&target) else {
            let mut keys = Vec::new();
            self.root.leaves("", &mut |leaf, _| keys.push(leaf.to_owned()));
            let hint = suggest::did_you_mean(&target, keys.iter().map(String::as_str));
            return Err(Some((format!("`${{{key}}}` names no key"), hint)));
        };
        if found.is_missing() {
            return Err(None);
        }
        self.stack.push(target.clone());
        let value = self.value(found, &target);
        self.stack.pop();
        // Whatever went wrong below has been reported there.
        if value.is_missing() { Err(None) } else { Ok(value) }
    }
}

impl Value {
    fn plain(&self) -> String {
        self.as_str().map_or_else(|| self.to_string(), str::to_owned)
    }
}

fn name(value: &Value) -> &'static str {
    if matches!(value.kind, Kind::List(_)) { "list" } else { "group of keys" }
}

/// The text up to the `}` that closes an already opened `${`.
fn balanced(text: &str) -> Option<&str> {
    let mut depth = 1;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[..i]);
        }
    }
    None
}
