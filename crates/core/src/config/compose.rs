//! The primary file and its defaults list, expanded depth first into the layers to merge.

use std::collections::HashMap;

use super::{
    Problem,
    defaults::{self, Choice, Entry},
    lexer::Parsed,
    overrides::{Op, Override},
    search::SearchPath,
    suggest,
    value::{Kind, Value, join},
};

/// One file of the composition.
#[derive(Debug, Clone)]
pub struct FileLayer {
    /// The file as messages show it.
    pub name: String,
    /// The dotted key under which it lands; empty is the root.
    pub package: String,
    /// `group` or `group@package`, where a group choice brought it in.
    pub target: Option<String>,
    /// Its content without `defaults`.
    pub(crate) body: Value,
}

/// The expanded defaults list.
#[derive(Debug, Clone, Default)]
pub struct Composition {
    /// The files in the order of merging.
    pub layers: Vec<FileLayer>,
    /// Group (with `@package` where written) and the option chosen.
    pub choices: Vec<(String, String)>,
}

/// Expands `<primary>.yaml` with the group overrides applied.
///
/// # Errors
/// All problems found: missing files, unknown options, groups that are not in the list.
pub(crate) fn compose(search: &SearchPath, primary: &str, groups: &[&Override]) -> Result<Composition, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut cli = HashMap::new();
    for word in groups {
        match chosen(word) {
            Ok(choice) => drop(cli.insert(word.target(), (choice, *word))),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut expander = Expander { cli, ..Expander::new(search) };
    // Files may override entries that stand before them, and options may name other choices: repeat until nothing changes.
    for _ in 0..10 {
        if !expander.pass(primary) {
            break;
        }
    }
    expander.strict = true;
    expander.pass(primary);
    // A file that cannot be read names no groups.
    if expander.problems.iter().all(|p| !p.key.is_empty()) {
        expander.unused(primary);
    }
    if expander.problems.is_empty() { Ok(expander.result) } else { Err(expander.problems) }
}

/// The option that a group override names; `None` for `~group`.
fn chosen(word: &Override) -> Result<Option<Choice>, Problem> {
    let text = match &word.value {
        None => return Ok(None),
        Some(Parsed::One(value)) => match &value.kind {
            Kind::Null => return Ok(Some(Choice::Null)),
            Kind::Str(text) => text.clone(),
            Kind::Map(_) | Kind::List(_) => {
                let hint = format!(
                    "`{}` is a group of files; to change one of its values write {}.KEY=VALUE",
                    word.key, word.key
                );
                return Err(Problem {
                    hint: Some(hint),
                    ..Problem::new(&word.key, format!("one option is needed, got {value} ({word})"))
                });
            }
            _ => word.text.trim().to_owned(),
        },
        Some(_) => word.text.clone(),
    };
    Ok(Some(Choice::Option(text.strip_suffix(".yaml").unwrap_or(&text).to_owned())))
}

/// Body, defaults list, `@package` of a file.
type FileParts = (Value, Option<Vec<Entry>>, Option<String>);

struct Expander<'a> {
    search: &'a SearchPath,
    cli: HashMap<String, (Option<Choice>, &'a Override)>,
    /// From the `override /group:` entries of the pass before; the first one met, which is the outermost file, counts.
    overrides: HashMap<String, (Choice, String)>,
    /// The same of this pass.
    next_overrides: HashMap<String, (Choice, String)>,
    /// Choices of the pass before.
    known: HashMap<String, String>,
    strict: bool,
    result: Composition,
    problems: Vec<Problem>,
    /// Targets met in this pass with the option they had before overriding.
    met: Vec<(String, Choice)>,
}

impl<'a> Expander<'a> {
    fn new(search: &'a SearchPath) -> Self {
        Self {
            search,
            cli: HashMap::new(),
            overrides: HashMap::new(),
            next_overrides: HashMap::new(),
            known: HashMap::new(),
            strict: false,
            result: Composition::default(),
            problems: Vec::new(),
            met: Vec::new(),
        }
    }

    /// Expands everything once; whether overrides or choices changed.
    fn pass(&mut self, primary: &str) -> bool {
        self.result = Composition::default();
        self.problems.clear();
        self.met.clear();
        self.file(primary, "", None, true, &mut Vec::new());
        self.added(primary);
        let known = self.result.choices.iter().cloned().collect();
        let next = std::mem::take(&mut self.next_overrides);
        let changed = known != self.known || next != self.overrides;
        (self.known, self.overrides) = (known, next);
        changed
    }

    /// Reads one file and expands its list. `package` is where it lands unless its header says otherwise and `fixed` is false.
    fn file(&mut self, relative: &str, package: &str, target: Option<&str>, fixed: bool, stack: &mut Vec<String>) {
        let Some((path, name)) = self.search.file(relative) else {
            self.problems.push(Problem::new("", format!("{relative}.yaml: there is no such configuration file")));
            return;
        };
        if stack.iter().any(|s| s == relative) {
            let message =
                format!("{name}: the defaults lists go round in a circle: {} → {relative}", stack.join(" → "));
            self.problems.push(Problem::new("", message));
            return;
        }
        let read = || -> Result<FileParts, Problem> {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Problem::new("", format!("{name}: cannot read the file: {e}")))?;
            let mut body = super::yaml::parse(&text, &name)?;
            let entries = defaults::take(&mut body, &name)?;
            Ok((body, entries, defaults::header(&text)))
        };
        let (body, entries, header) = match read() {
            Ok(parts) => parts,
            Err(problem) => return self.problems.push(problem),
        };
        let directory = relative.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
        let package = match header.filter(|_| !fixed).as_deref() {
            Some("_global_") => String::new(),
            Some("_group_") => directory.replace('/', "."),
            Some(other) => other.to_owned(),
            None => package.to_owned(),
        };
        let own = FileLayer { name: name.clone(), package: package.clone(), target: target.map(str::to_owned), body };
        let Some(entries) = entries else { return self.result.layers.push(own) };
        stack.push(relative.to_owned());
        for entry in &entries {
            if let Entry::Override { group, package, option } = entry {
                let target = written(&absolute(group, &directory), package.as_deref());
                self.next_overrides.entry(target).or_insert((option.clone(), name.clone()));
            }
        }
        for entry in entries {
            match entry {
                Entry::SelfMark => self.result.layers.push(own.clone()),
                Entry::Override { .. } => {}
                Entry::File { name, optional } => {
                    let file = absolute(&name, &directory);
                    if !optional || self.search.file(&file).is_some() {
                        self.file(&file, &package, target, false, stack);
                    }
                }
                Entry::Group { group, package: written, option, optional } => {
                    self.group(&group, written.as_deref(), option, optional, (&directory, &package), stack);
                }
            }
        }
        stack.pop();
    }

    fn group(
        &mut self,
        group: &str,
        package: Option<&str>,
        option: Choice,
        optional: bool,
        (directory, parent): (&str, &str),
        stack: &mut Vec<String>,
    ) {
        let absolute = absolute(group, directory);
        let target = written(&absolute, package);
        self.met.push((target.clone(), option.clone()));
        let empty_slot = optional || option == Choice::Null;
        let mut choice = option;
        if let Some((choice_there, _)) = self.overrides.get(&target) {
            choice = choice_there.clone();
        }
        match self.cli.get(&target) {
            Some((None, _)) => return,
            Some((Some(_), word)) if word.op == Op::Delete => return,
            Some((Some(Choice::Null), word)) if !empty_slot => {
                let options = self.search.options(&absolute).join(", ");
                self.problems.push(Problem {
                    hint: Some(format!("to leave the group out write ~{target}")),
                    ..Problem::new(&target, format!("one option is needed, got null; available: {options} ({word})"))
                });
                return;
            }
            Some((Some(given), _)) => choice = given.clone(),
            None => {}
        }
        let default = group.trim_start_matches('/').replace('/', ".");
        let place = match package {
            None => join_package(parent, &default),
            Some("_global_") => String::new(),
            Some("_here_" | "") => parent.to_owned(),
            Some("_group_") => absolute.replace('/', "."),
            Some(p) => p.strip_prefix("_global_.").map_or_else(|| join_package(parent, p), str::to_owned),
        };
        let option = match choice {
            Choice::Null => return,
            Choice::Missing => {
                let options = self.search.options(&absolute);
                let first = options.first().cloned().unwrap_or_else(|| "OPTION".into());
                self.problems.push(Problem {
                    hint: Some(format!("write {target}={first}")),
                    ..Problem::new(&target, format!("must be chosen; available: {}", options.join(", ")))
                });
                return;
            }
            Choice::Option(option) => match self.interpolated(&option) {
                Ok(option) => option,
                Err(_) if !self.strict => return,
                Err(message) => return self.problems.push(Problem::new(&target, message)),
            },
        };
        let file = format!("{absolute}/{option}");
        if self.search.file(&file).is_none() {
            if !optional {
                self.no_option(&absolute, &option);
            }
            return;
        }
        self.result.choices.push((target.clone(), option));
        self.file(&file, &place, Some(&target), package.is_some(), stack);
    }

    fn no_option(&mut self, group: &str, option: &str) {
        let options = self.search.options(group);
        let folder = self.search.group_name(group);
        let mut message = format!("no option `{option}` in {folder}");
        if options.is_empty() {
            message += "; the folder is empty or missing";
        } else {
            message += &format!("; available: {}", options.join(", "));
        }
        let hint = suggest::did_you_mean(option, options.iter().map(String::as_str));
        self.problems.push(Problem { key: group.to_owned(), message, hint });
    }

    /// `${dataset}_${student}` with the options chosen for those groups.
    fn interpolated(&self, option: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = option;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("`{option}`: `${{` is not closed"))?;
            let value = match name.strip_prefix("oc.env:") {
                Some(variable) => std::env::var(variable).ok(),
                None => self.known.get(name).cloned(),
            };
            text += before;
            text += &value.ok_or_else(|| format!("`{option}`: no group `{name}` has been chosen"))?;
            rest = after;
        }
        Ok(text + rest)
    }

    /// `+group=option` entries, behind everything of the primary file.
    fn added(&mut self, primary: &str) {
        let mut words: Vec<(String, Choice, &Override)> = self
            .cli
            .iter()
            .filter(|(_, (_, word))| matches!(word.op, Op::Add | Op::Force))
            .filter_map(|(target, (choice, word))| Some((target.clone(), choice.clone()?, *word)))
            .collect();
        words.sort_by_key(|(.., word)| word.number);
        for (target, choice, word) in words {
            match self.met.iter().find(|(t, _)| *t == target) {
                Some((_, Choice::Null)) => {}
                Some(_) if word.op == Op::Force => {}
                Some((_, there)) => {
                    let there = match there {
                        Choice::Option(option) => format!(": {option}"),
                        _ => String::new(),
                    };
                    self.problems.push(Problem {
                        hint: Some(format!("to choose another option write {target}={}", word.text)),
                        ..Problem::new(&target, format!("is already in the defaults list{there} ({word})"))
                    });
                }
                None => {
                    let package = word.package.clone();
                    self.group(
                        &format!("/{}", word.key),
                        package.as_deref(),
                        choice,
                        false,
                        ("", ""),
                        &mut vec![primary.into()],
                    );
                }
            }
        }
    }

    /// Overrides of groups that are not in the list.
    fn unused(&mut self, primary: &str) {
        let name = self.search.file(primary).map_or_else(|| format!("{primary}.yaml"), |(_, name)| name);
        let listed: Vec<String> = self.met.iter().map(|(target, _)| target.clone()).collect();
        let mut words: Vec<(&String, &(Option<Choice>, &Override))> = self.cli.iter().collect();
        words.sort_by_key(|(_, (_, word))| word.number);
        for (target, (choice, word)) in words {
            let met = self.met.iter().find(|(t, _)| t == target);
            match (word.op, met) {
                (Op::Set | Op::Delete, None) => {
                    let same_group = listed.iter().find(|t| t.split('@').next() == Some(&word.key));
                    let hint = match (same_group, word.op) {
                        (Some(other), Op::Set) => {
                            format!("did you mean `{other}={}`? to add it write +{}", word.text, word.word)
                        }
                        (Some(other), _) => format!("did you mean `~{other}`?"),
                        (None, Op::Set) => {
                            format!("to add it write +{}; in the list: {}", word.word, listed.join(", "))
                        }
                        (None, _) => format!("in the list: {}", listed.join(", ")),
                    };
                    let message = format!("is not in the defaults list of {name} ({word})");
                    self.problems.push(Problem { hint: Some(hint), ..Problem::new(target, message) });
                }
                (Op::Delete, Some((_, there))) if choice.is_some() && choice.as_ref() != Some(there) => {
                    let there = match there {
                        Choice::Option(option) => option.as_str(),
                        _ => "null",
                    };
                    let message = format!("the option is `{there}`, not `{}` ({word})", word.text);
                    self.problems.push(Problem::new(target, message));
                }
                _ => {}
            }
        }
        let mut overrides: Vec<_> = self.overrides.iter().filter(|(t, _)| !listed.contains(t)).collect();
        overrides.sort_by_key(|(target, _)| target.as_str());
        for (target, (_, file)) in overrides {
            let hint = suggest::did_you_mean(target, listed.iter().map(String::as_str));
            self.problems.push(Problem {
                hint: hint.or_else(|| {
                    Some(format!("in the list: {}; without `override` the entry is added", listed.join(", ")))
                }),
                ..Problem::new(target, format!("`override` in {file} finds no such entry in the defaults list"))
            });
        }
    }
}

/// A group or file as written in a file of `directory`.
fn absolute(name: &str, directory: &str) -> String {
    match name.strip_prefix('/') {
        Some(name) => name.to_owned(),
        None if directory.is_empty() => name.to_owned(),
        None => format!("{directory}/{name}"),
    }
}

fn written(group: &str, package: Option<&str>) -> String {
    package.map_or_else(|| group.to_owned(), |p| format!("{group}@{p}"))
}

fn join_package(parent: &str, package: &str) -> String {
    join(parent, package)
}
