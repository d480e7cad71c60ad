//! Chats as text: the template of a tokenizer, rendered as `transformers` renders it.

mod clock;
mod python;

use std::fmt;

use anyo_core::{Error, Result};
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};

pub use clock::DateTime;

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Named special tokens, as templates see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Starts a text: `bos_token`.
    pub bos: Option<String>,
    /// Ends a text: `eos_token`.
    pub eos: Option<String>,
    /// Fills up rows: `pad_token`.
    pub pad: Option<String>,
    /// Stands for what the vocabulary lacks: `unk_token`.
    pub unk: Option<String>,
}

/// What a rendering is told besides the messages.
#[derive(Debug, Clone, Default)]
pub struct ChatOptions {
    /// End with what starts an answer of the assistant.
    pub add_generation_prompt: bool,
    /// What `strftime_now` formats. Without it templates do not see that function and take the date they have written in,
    /// so that a rendering depends on its input only.
    pub now: Option<DateTime>,
    /// Further variables, such as `tools` or `enable_thinking`.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// A parsed chat template.
///
/// Follows `transformers`' settings of Jinja: `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, a `tojson`
/// that formats as Python's `json.dumps`, the methods of Python's strings, lists and dicts, values printed as Python
/// prints them; the `generation` tag marks nothing.
///
/// Differs: `a ~ b` and the filter `string` print `true` and `none` in lower case.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("special", &self.special).finish_non_exhaustive()
    }
}

const NAME: &str = "chat template";
/// Starts the text of an error that the template itself raised.
const RAISED: &str = "raised:";
/// Depth of macros calling each other.
const RECURSION: usize = 200;
/// Instructions of one rendering: a template from elsewhere cannot hang the program; a chat of a thousand turns takes some
/// hundred thousand.
const FUEL: u64 = 20_000_000;

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// When it is no valid template; the message has the line.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_recursion_limit(RECURSION);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_formatter(python::print);
        environment.add_filter("tojson", python::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(|e| explain(&e))?;
        Ok(Self { environment, special })
    }

    /// The chat as text; tokenise it without adding special tokens.
    ///
    /// # Errors
    /// When there are no messages, or the template refuses them (roles in a wrong order) or fails.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::Invalid {
                message: "the chat has no messages".into(),
                hint: Some("give at least one message of the user".into()),
            });
        }
        let mut context: Vec<(String, Value)> = vec![
            ("messages".into(), Value::from_serialize(messages)),
            ("tools".into(), Value::from(())),
            ("documents".into(), Value::from(())),
            ("add_generation_prompt".into(), Value::from(options.add_generation_prompt)),
        ];
        let tokens = [
            ("bos_token", &self.special.bos),
            ("eos_token", &self.special.eos),
            ("pad_token", &self.special.pad),
            ("unk_token", &self.special.unk),
        ];
        context
            .extend(tokens.iter().filter_map(|(key, token)| Some(((*key).to_owned(), Value::from(token.as_deref()?)))));
        if let Some(now) = options.now {
            let format = move |pattern: &str| now.format(pattern);
            context.push(("strftime_now".into(), Value::from_function(format)));
        }
        for (key, value) in &options.extra {
            context.retain(|(have, _)| have != key);
            context.push((key.clone(), Value::from_serialize(value)));
        }
        let context: Value = context.into_iter().collect();
        let template = self.environment.get_template(NAME).map_err(|e| explain(&e))?;
        template.render(context).map_err(|e| explain(&e))
    }
}

fn raise_exception(message: &str) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

fn explain(error: &minijinja::Error) -> Error {
    if let Some(message) = error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        return Error::Invalid {
            message: format!("the chat template refuses these messages: {message}"),
            hint: Some("check the roles and their order against what the model was trained on".into()),
        };
    }
    let line = error.line().map_or(String::new(), |line| format!(" line {line}"));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    Error::Invalid { message: format!("chat template{line}: {}{detail}", error.kind()), hint: None }
}

/// `{% generation %}` … `{% endgeneration %}` mark the assistant's words for training masks and print what they enclose:
/// the same as a condition that holds.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag[2..].find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let (tag, after) = tag.split_at(end + 2);
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        let source = "a {%- generation -%} b {% if x %}{% endgeneration %} {{ '{%' }}";
        assert_eq!(without_generation_tags(source), "a {%- if true -%} b {% if x %}{% endif %} {{ '{%' }}");
        for broken in ["{%}", "{%", "{%}{% generation"] {
            assert_eq!(without_generation_tags(broken), broken);
        }
    }
}
