//! The value after `=` on the command line. YAML rules would surprise there (`1_000` text, `a: b` a map), so it has its own.

use super::value::{Kind, Value};

/// What stands after the `=`.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// One value.
    One(Value),
    /// `a,b`, `choice(a,b)` or `range(…)`: one job for each.
    Sweep(Vec<Item>),
    /// `glob(pattern)` over the options of a group.
    Glob(String),
}

/// One value of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The value.
    pub value: Value,
    /// As typed (for `range` as printed): the word that a job receives.
    pub text: String,
}

/// Where the text stops making sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexError {
    /// 0-based character of the value.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Reads a whole value.
///
/// # Errors
/// An unclosed quote or bracket, a mark outside quotes, an unknown sweep function: with the column.
pub fn parse(text: &str) -> Result<Parsed, LexError> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0 };
    lexer.blanks();
    if let Some(name) = lexer.function_name() {
        return lexer.function(&name);
    }
    let first = lexer.item(Place::Top)?;
    if lexer.peek() != Some(',') {
        return lexer.end().map(|()| Parsed::One(first.value));
    }
    let mut items = vec![first];
    while lexer.eat(',') {
        items.push(lexer.item(Place::Top)?);
    }
    lexer.end()?;
    if items.iter().any(|item| item.text.is_empty()) {
        return lexer.fail("a value is missing beside a comma", Some("empty text is written ''"));
    }
    Ok(Parsed::Sweep(items))
}

/// A number, boolean, null or text without quotes.
pub fn scalar(text: &str) -> Kind {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "true" => return Kind::Bool(true),
        "false" => return Kind::Bool(false),
        "null" => return Kind::Null,
        _ => {}
    }
    let (negative, digits) = match lower.as_bytes().first() {
        Some(b'-') => (true, &lower[1..]),
        Some(b'+') => (false, &lower[1..]),
        _ => (false, lower.as_str()),
    };
    let sign = if negative { -1.0 } else { 1.0 };
    match digits {
        "inf" => return Kind::Float(sign * f64::INFINITY),
        "nan" => return Kind::Float(f64::NAN),
        _ => {}
    }
    if whole(digits)
        && let Ok(n) = digits.replace('_', "").parse::<i128>()
    {
        return Kind::Int(if negative { -n } else { n });
    }
    if float(digits)
        && let Ok(x) = digits.replace('_', "").parse::<f64>()
    {
        return Kind::Float(sign * x);
    }
    Kind::Str(text.to_owned())
}

/// `0`, `12`, `1_000`; not `007`, `1__0`, `_1`.
fn whole(text: &str) -> bool {
    text == "0" || (!text.starts_with('0') && grouped(text))
}

fn grouped(text: &str) -> bool {
    text.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// `1.5`, `.5`, `1.`, `1e-4`, `1.5e3`.
fn float(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once('e').map_or((text, None), |(m, e)| (m, Some(e)));
    let exponent_ok = exponent.is_none_or(|e| grouped(e.strip_prefix(['+', '-']).unwrap_or(e)));
    let mantissa_ok = match mantissa.split_once('.') {
        None => exponent.is_some() && whole(mantissa),
        Some(("", fraction)) => grouped(fraction),
        Some((int, fraction)) => whole(int) && (fraction.is_empty() || grouped(fraction)),
    };
    exponent_ok && mantissa_ok
}

/// Where a value stands decides what ends it.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Call,
    List,
    Map,
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(c);
        self.at += usize::from(hit);
        hit
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn fail<T>(&self, message: impl Into<String>, hint: Option<&str>) -> Result<T, LexError> {
        Err(LexError { column: self.at, message: message.into(), hint: hint.map(str::to_owned) })
    }

    fn end(&mut self) -> Result<(), LexError> {
        match self.peek() {
            None => Ok(()),
            Some(c) => {
                self.fail(format!("`{c}` cannot stand here"), Some(&format!("write \\{c} or put the text in quotes")))
            }
        }
    }

    fn item(&mut self, place: Place) -> Result<Item, LexError> {
        self.blanks();
        let start = self.at;
        let value = self.value(place)?;
        let text: String = self.chars[start..self.at].iter().collect();
        Ok(Item { value, text: text.trim().to_owned() })
    }

    /// One value; stops before the `,` or closing mark that ends it.
    fn value(&mut self, place: Place) -> Result<Value, LexError> {
        self.blanks();
        let value = match self.peek() {
            Some(quote @ ('"' | '\'')) => Value::text(self.quoted(quote)?),
            Some('[') => self.list()?,
            Some('{') => self.map()?,
            _ => {
                let text = self.plain(place)?;
                if text.0.is_empty() && place != Place::Top {
                    return self.fail("a value is missing here", Some("empty text is written ''"));
                }
                return Ok(scalar_or_text(text));
            }
        };
        self.blanks();
        Ok(value)
    }

    fn quoted(&mut self, quote: char) -> Result<String, LexError> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '\\' if self.peek().is_some_and(|next| next == quote || next == '\\') => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                c if c == quote => return Ok(text),
                c => text.push(c),
            }
        }
        self.at = open;
        self.fail(format!("the quote {quote} is not closed"), None)
    }

    /// Unquoted text up to the next mark; `${…}` is one piece whatever it holds. The flag says that a mark was escaped.
    fn plain(&mut self, place: Place) -> Result<(String, bool), LexError> {
        let mut text = String::new();
        let mut escaped = false;
        while let Some(c) = self.peek() {
            match c {
                '\\' if self.chars.get(self.at + 1).is_some_and(|next| "=,()[]{}\\:'\"".contains(*next)) => {
                    escaped = true;
                    text.push(self.chars[self.at + 1]);
                    self.at += 2;
                }
                '$' if self.chars.get(self.at + 1) == Some(&'{') => self.interpolation(&mut text)?,
                ',' => break,
                ')' if place == Place::Call => break,
                ']' if place == Place::List => break,
                '}' if place == Place::Map => break,
                ':' if place == Place::Map && text.is_empty() => break,
                '(' | ')' | '[' | ']' | '{' | '}' => {
                    if c == '(' {
                        not_offered(text.trim()).map_or(Ok(()), |message| self.fail(message, None))?;
                    }
                    return self.fail(
                        format!("`{c}` cannot stand in text without quotes"),
                        Some(&format!("write \\{c} or put the text in quotes")),
                    );
                }
                c => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
        Ok((text.trim_end().to_owned(), escaped))
    }

    fn interpolation(&mut self, text: &mut String) -> Result<(), LexError> {
        let open = self.at;
        let mut depth = 0;
        while let Some(c) = self.peek() {
            text.push(c);
            self.at += 1;
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        self.at = open;
        self.fail("`${` is not closed", None)
    }

    fn list(&mut self) -> Result<Value, LexError> {
        let open = self.at;
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        while !self.eat(']') {
            if self.peek().is_none() {
                self.at = open;
                return self.fail("`[` is not closed", None);
            }
            items.push(self.value(Place::List)?);
            if !self.eat(',') && !matches!(self.peek(), Some(']') | None) {
                return self.fail("expected `,` or `]`", None);
            }
            self.blanks();
        }
        Ok(Kind::List(items).into())
    }

    fn map(&mut self) -> Result<Value, LexError> {
        let open = self.at;
        self.at += 1;
        let mut entries: Vec<(String, Value)> = Vec::new();
        self.blanks();
        while !self.eat('}') {
            if self.peek().is_none() {
                self.at = open;
                return self.fail("`{` is not closed", None);
            }
            let key_at = self.at;
            let key = self.map_key()?;
            if entries.iter().any(|(k, _)| *k == key) {
                self.at = key_at;
                return self.fail(format!("the key `{key}` is given twice"), None);
            }
            entries.push((key, self.value(Place::Map)?));
            if !self.eat(',') && !matches!(self.peek(), Some('}') | None) {
                return self.fail("expected `,` or `}`", None);
            }
            self.blanks();
        }
        Ok(Kind::Map(entries).into())
    }

    fn map_key(&mut self) -> Result<String, LexError> {
        let key = match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => {
                let start = self.at;
                while self.peek().is_some_and(|c| !":,{}[]()".contains(c)) {
                    self.at += 1;
                }
                self.chars[start..self.at].iter().collect::<String>().trim().to_owned()
            }
        };
        self.blanks();
        if key.is_empty() || !self.eat(':') {
            return self.fail("expected `key: value` in `{…}`", None);
        }
        Ok(key)
    }

    /// The name before a `(`, at the very start.
    fn function_name(&self) -> Option<String> {
        let name: String = self.chars[self.at..].iter().take_while(|c| c.is_ascii_alphabetic() || **c == '_').collect();
        (!name.is_empty() && self.chars.get(self.at + name.len()) == Some(&'(')).then_some(name)
    }

    fn function(mut self, name: &str) -> Result<Parsed, LexError> {
        if !matches!(name, "choice" | "range" | "glob") {
            let message = not_offered(name).unwrap_or_else(|| format!("there is no function `{name}`"));
            return self.fail(
                message,
                Some("there are choice(a,b), range(start,stop,step) and glob(pattern); for text use quotes"),
            );
        }
        let start = self.at;
        self.at += name.len() + 1;
        let mut items = Vec::new();
        self.blanks();
        while !self.eat(')') {
            if self.peek().is_none() {
                self.at = start + name.len();
                return self.fail("`(` is not closed", None);
            }
            items.push(self.item(Place::Call)?);
            if !self.eat(',') && !matches!(self.peek(), Some(')') | None) {
                return self.fail("expected `,` or `)`", None);
            }
            self.blanks();
        }
        self.blanks();
        self.end()?;
        self.at = start;
        match name {
            "choice" if items.is_empty() => self.fail("choice() needs at least one value", None),
            "choice" => Ok(Parsed::Sweep(items)),
            "range" => super::range::range(&items)
                .map(Parsed::Sweep)
                .or_else(|message| self.fail(message, Some("range(start,stop,step), for example range(0,1,0.25)"))),
            _ => match items.as_slice() {
                [one] => Ok(Parsed::Glob(one.text.trim_matches(['\'', '"']).to_owned())),
                _ => self.fail("glob() takes one pattern", Some("for example glob(*)")),
            },
        }
    }
}

fn scalar_or_text((text, escaped): (String, bool)) -> Value {
    if escaped { Value::text(text) } else { scalar(&text).into() }
}

/// Names that a Hydra user may type and that this tool leaves out on purpose.
fn not_offered(name: &str) -> Option<String> {
    let kind = match name {
        "interval" | "tag" | "sort" | "shuffle" | "extend_list" => "the sweep function",
        "int" | "float" | "str" | "bool" | "json_str" => "the cast",
        _ => return None,
    };
    Some(format!("{kind} `{name}()` is not offered here"))
}
