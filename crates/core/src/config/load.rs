//! From words and files to one resolved tree: group choices first, then values left to right, then `${…}` and `???`.

use std::path::Path;

use super::{
    Problem, Report,
    apply::apply,
    compose::{self, Composition},
    interpolate::{self, Context},
    layers::Layers,
    lexer::Parsed,
    overrides::{self, Op, Override},
    search::SearchPath,
    value::{Kind, Value},
};

/// What to load.
pub struct Request<'a> {
    /// The name of the binary, for hints.
    pub app: &'a str,
    /// Command lines that show how values look, for hints.
    pub examples: &'a [&'a str],
    /// The primary file without `.yaml`.
    pub primary: &'a str,
    /// Where files are looked for.
    pub search: &'a SearchPath,
    /// The overrides as typed.
    pub words: &'a [String],
    /// A run to start from.
    pub base: Option<Base<'a>>,
    /// Values set by the tool itself: key, value, origin.
    pub forced: Vec<(String, Value, String)>,
    /// Clock and environment.
    pub context: Context<'a>,
}

/// A saved configuration instead of the files.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The run folder.
    pub run: &'a Path,
    /// `--resume`: keep `run.*` and refuse all keys but these; `--from` gives `None`.
    pub resume: Option<&'a [&'a str]>,
}

/// Everything merged, not yet typed.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The tree with `${…}` resolved; what cannot be resolved is `???`.
    pub tree: Value,
    /// Problems so far; the typed step adds its own.
    pub problems: Vec<Problem>,
    /// Keys that must be given.
    pub missing: Vec<String>,
    /// The overrides.
    pub overrides: Vec<Override>,
    /// Overrides that made a new key without `+`.
    pub(crate) pending: Vec<Override>,
    /// Remarks for the user: a key given twice.
    pub notes: Vec<String>,
    /// The files and the options chosen.
    pub composition: Composition,
    /// Group names, for hints.
    pub groups: Vec<String>,
    /// Binary and examples, for hints.
    hint: (String, Vec<String>),
}

/// Reads the words; all syntax errors together.
///
/// # Errors
/// A [`Report`] of words that are no overrides.
pub fn parse_words(words: &[String]) -> Result<Vec<Override>, Report> {
    let mut problems = Vec::new();
    let parse = |(i, word): (usize, &String)| overrides::parse(word, i + 1).map_err(|p| problems.push(p)).ok();
    let parsed = words.iter().enumerate().filter_map(parse).collect();
    if problems.is_empty() { Ok(parsed) } else { Err(Report { problems }) }
}

/// Merges files and overrides.
///
/// # Errors
/// What makes the rest meaningless: words that cannot be read, files that are missing or broken, unknown options.
pub fn compose(request: &Request<'_>) -> Result<Composed, Report> {
    let words = parse_words(request.words)?;
    let mut problems: Vec<Problem> = words.iter().filter_map(|w| lone_sweep(w, request.search)).collect();
    let (groups, values): (Vec<&Override>, Vec<&Override>) =
        words.iter().partition(|w| request.search.is_group(&w.key));
    for word in &values {
        if word.key.contains('/') || word.package.is_some() {
            let known: Vec<String> = request.search.groups().into_iter().map(|(g, _)| g).collect();
            let hint = super::suggest::did_you_mean(&word.key, known.iter().map(String::as_str));
            let hint = hint.or_else(|| Some(format!("groups: {}", known.join(", "))));
            problems.push(Problem { hint, ..Problem::new("", format!("there is no group `{}` ({word})", word.key)) });
        }
    }
    if !problems.is_empty() {
        return Err(Report { problems });
    }
    if let Some(Base { resume: Some(resumable), run }) = request.base {
        problems.extend(words.iter().filter_map(|w| not_resumable(w, resumable, run)));
        if !problems.is_empty() {
            return Err(Report { problems });
        }
    }
    let mut layers = Layers::default();
    let composition = match request.base {
        None => {
            let composition =
                compose::compose(request.search, request.primary, &groups).map_err(|problems| Report { problems })?;
            for layer in &composition.layers {
                layers.merge(&layer.name, &layer.body.clone().wrap(&layer.package));
            }
            composition
        }
        Some(base) => from_run(request, base, &groups, &mut layers)?,
    };
    let mut pending = Vec::new();
    for word in &values {
        match apply(&mut layers, word) {
            Ok(true) => pending.push((*word).clone()),
            Ok(false) => {}
            Err(problem) => problems.push(problem),
        }
    }
    for (key, value, origin) in &request.forced {
        layers.merge(origin, &value.clone().wrap(key));
    }
    let merged = layers.tree();
    let mut missing = Vec::new();
    missing_keys(&merged, "", &mut missing);
    let (tree, unresolved) = interpolate::resolve(&merged, &request.context);
    problems.extend(unresolved);
    let groups = request.search.groups().into_iter().map(|(group, _)| group).collect();
    let notes = notes(&words);
    let hint = (request.app.to_owned(), request.examples.iter().map(|e| (*e).to_owned()).collect());
    Ok(Composed { tree, problems, missing, overrides: words, pending, notes, composition, groups, hint })
}

/// `--from` and `--resume`: the saved configuration, with newly chosen groups replaced as a whole.
fn from_run(
    request: &Request<'_>,
    base: Base<'_>,
    groups: &[&Override],
    layers: &mut Layers,
) -> Result<Composition, Report> {
    let report = |problem: Problem| Report { problems: vec![problem] };
    let path = base.run.join("config.yaml");
    let name = path.display().to_string();
    let mut saved = super::yaml::read(&path, &name).map_err(report)?;
    interpolate::escape(&mut saved);
    if base.resume.is_some() {
        layers.merge(&name, &saved);
        return Ok(Composition::default());
    }
    saved.remove("run");
    layers.merge(&name, &saved);
    let (primary, primary_name) = request.search.file(request.primary).ok_or_else(|| {
        report(Problem::new("", format!("{}.yaml: there is no such configuration file", request.primary)))
    })?;
    let fresh = super::yaml::read(&primary, &primary_name).map_err(report)?;
    if let Some(run) = fresh.at("run") {
        layers.merge(&primary_name, &run.clone().wrap("run"));
    }
    if groups.is_empty() {
        return Ok(Composition::default());
    }
    let targets: Vec<String> = groups.iter().map(|w| w.target()).collect();
    let mut composition = match compose::compose(request.search, request.primary, groups) {
        Ok(composition) => composition,
        Err(problems) => {
            // Other groups may be unchosen in the primary file; the saved run has them.
            let (ours, others): (Vec<_>, Vec<_>) =
                problems.into_iter().partition(|p| p.key.is_empty() || targets.contains(&p.key));
            let hint = others.first().and_then(|p| p.hint.clone());
            let problems = if ours.is_empty() { others } else { ours };
            return Err(Report { problems }).map_err(|mut r: Report| {
                if let (Some(first), Some(hint)) = (r.problems.first_mut(), hint) {
                    first.hint.get_or_insert(hint);
                }
                r
            });
        }
    };
    for word in groups.iter().filter(|w| w.op == Op::Delete) {
        let package = word.package.clone().unwrap_or_else(|| word.key.replace('/', "."));
        layers.remove(&package);
    }
    composition.layers.retain(|l| l.target.as_ref().is_some_and(|t| targets.iter().any(|g| inside(g, t))));
    composition.choices.retain(|(t, _)| targets.iter().any(|g| inside(g, t)));
    let packages: Vec<String> =
        composition.layers.iter().map(|l| l.package.clone()).filter(|p| !p.is_empty()).collect();
    for package in packages {
        layers.remove(&package);
    }
    for layer in &composition.layers {
        layers.merge(&layer.name, &layer.body.clone().wrap(&layer.package));
    }
    Ok(composition)
}

/// A nested group comes along with the group it stands in.
fn inside(group: &str, target: &str) -> bool {
    target == group || target.starts_with(&format!("{group}/"))
}

fn not_resumable(word: &Override, resumable: &[&str], run: &Path) -> Option<Problem> {
    let allowed = resumable.iter().any(|key| word.key == *key || word.key.starts_with(&format!("{key}.")));
    if allowed && word.op == Op::Set {
        return None;
    }
    let may = if resumable.is_empty() { "nothing".to_owned() } else { resumable.join(", ") };
    Some(Problem {
        hint: Some(format!(
            "--resume may change {may}; to start anew with changes write --from {} {}",
            run.display(),
            word.word
        )),
        ..Problem::new("", format!("`{}` cannot change when a run is continued ({word})", word.key))
    })
}

/// C6: a sweep without `-m`.
fn lone_sweep(word: &Override, search: &SearchPath) -> Option<Problem> {
    if !word.is_sweep() {
        return None;
    }
    let comma = matches!(word.value, Some(Parsed::Sweep(_))) && !word.text.trim_end().ends_with(')');
    let hint = if comma && !search.is_group(&word.key) {
        let target = format!("{}{}", "+".repeat(word.word.chars().take_while(|c| *c == '+').count()), word.target());
        let text = word.text.trim();
        format!("to sweep add -m; for a list write {target}=[{text}]; for text write {target}='\"{text}\"'")
    } else {
        "to sweep add -m".to_owned()
    };
    Some(Problem {
        hint: Some(hint),
        ..Problem::new("", format!("`{}` is a sweep, but this is a single run", word.word))
    })
}

/// D9: a key given twice.
fn notes(words: &[Override]) -> Vec<String> {
    let mut notes: Vec<(String, usize, &Override)> = Vec::new();
    for word in words.iter().filter(|w| w.op != Op::Delete) {
        let is_map = |w: &Override| matches!(&w.value, Some(Parsed::One(Value { kind: Kind::Map(_), .. })));
        match notes.iter_mut().find(|(target, ..)| *target == word.target()) {
            Some((_, times, last)) if !(is_map(last) && is_map(word)) => {
                *times += 1;
                *last = word;
            }
            Some(_) => {}
            None => notes.push((word.target(), 1, word)),
        }
    }
    let text = |(target, times, last): (String, usize, &Override)| {
        let times = if times == 2 { "twice".to_owned() } else { format!("{times} times") };
        format!("`{target}` given {times}; using the last one, {}", last.text)
    };
    notes.into_iter().filter(|(_, times, _)| *times > 1).map(text).collect()
}

/// Every `???`, also inside lists.
fn missing_keys(value: &Value, path: &str, missing: &mut Vec<String>) {
    match &value.kind {
        Kind::Str(text) if text == "???" => missing.push(path.to_owned()),
        Kind::Map(entries) => entries.iter().for_each(|(k, v)| missing_keys(v, &super::value::join(path, k), missing)),
        Kind::List(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(i, v)| missing_keys(v, &super::value::join(path, &i.to_string()), missing));
        }
        _ => {}
    }
}

impl Composed {
    /// The one problem that names all missing values, with a command line to copy.
    pub(crate) fn missing_problem(&self) -> Option<Problem> {
        let (app, examples) = &self.hint;
        let given = |key: &String| {
            let prefix = format!("{key}=");
            let shown = examples.iter().flat_map(|e| e.split_whitespace()).find_map(|w| w.strip_prefix(&prefix));
            format!("{prefix}{}", shown.unwrap_or("VALUE"))
        };
        let words: Vec<String> = self.missing.iter().map(given).collect();
        let values = if self.missing.len() == 1 { "value" } else { "values" };
        (!self.missing.is_empty()).then(|| Problem {
            key: String::new(),
            message: format!("{} {values} must be given: {}", self.missing.len(), self.missing.join(", ")),
            hint: Some(format!("{app} {}", words.join(" "))),
        })
    }
}
