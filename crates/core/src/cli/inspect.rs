//! `--cfg`, `--info`, `--help`: looking without starting.

use serde::{Serialize, de::DeserializeOwned};

use super::{App, Session, flags::FLAGS};
use crate::{
    Result,
    config::{Check, Composed, Problem, Report, SearchPath, did_you_mean, to_yaml, typed, value::Value, yaml},
    log::out,
};

/// `--cfg job|run`.
pub(super) fn cfg<C>(session: &Session<'_>, search: &SearchPath, what: &str) -> Result<()>
where
    C: Serialize + DeserializeOwned + Check,
{
    let base = session.base()?;
    let composed = session.compose(search, &session.flags.words, base.as_deref(), session.flags.job_dir.as_deref())?;
    for note in &composed.notes {
        stderr(&format!("note: {note}\n"));
    }
    let package = match what {
        "run" => Some("run"),
        _ => session.flags.package.as_deref(),
    };
    let text = match typed::<C>(&composed) {
        Ok(_) if session.flags.origin => origins(&composed.tree, package)?,
        // As it would be saved, in the order of the struct.
        Ok(config) => part(&yaml::parse(&to_yaml(&config)?, "config.yaml")?, package)?,
        // Values still to be given are no mistake when one only looks.
        Err(_) if only_missing::<C>(&composed) => {
            stderr(&format!("note: still to be given: {}\n", composed.missing.join(", ")));
            if session.flags.origin { origins(&composed.tree, package)? } else { part(&composed.tree, package)? }
        }
        Err(report) => return Err(report.into()),
    };
    out(&text);
    Ok(())
}

fn only_missing<C: DeserializeOwned + Check>(composed: &Composed) -> bool {
    let Err(report) = typed::<C>(composed) else { return false };
    !composed.missing.is_empty() && report.problems.len() == 1
}

/// The subtree at `package`, or everything.
fn part(tree: &Value, package: Option<&str>) -> Result<String> {
    Ok(yaml::block(find(tree, package)?, &|_, _| None))
}

fn origins(tree: &Value, package: Option<&str>) -> Result<String> {
    let part = find(tree, package)?;
    Ok(yaml::block(part, &|_, leaf| leaf.origin.as_deref().map(str::to_owned)))
}

fn find<'a>(tree: &'a Value, package: Option<&str>) -> Result<&'a Value> {
    let Some(key) = package else { return Ok(tree) };
    tree.at(key).ok_or_else(|| {
        let mut keys = Vec::new();
        tree.leaves("", &mut |path, _| {
            keys.extend(path.match_indices('.').map(|(i, _)| path[..i].to_owned()).chain([path.to_owned()]))
        });
        let hint = did_you_mean(key, keys.iter().map(String::as_str));
        Report::from(Problem { hint, ..Problem::new("", format!("--package {key}: unknown key `{key}`")) }).into()
    })
}

/// `--info defaults|searchpath`.
pub(super) fn info(session: &Session<'_>, search: &SearchPath, what: &str) -> Result<()> {
    if what == "searchpath" {
        let lines: String = search.dirs().map(|(dir, _)| format!("{}\n", dir.display())).collect();
        out(&lines);
        return Ok(());
    }
    let base = session.base()?;
    let composed = session.compose(search, &session.flags.words, base.as_deref(), None)?;
    let layers = &composed.composition.layers;
    let width = layers.iter().map(|l| l.name.len()).max().unwrap_or(0);
    let mut text = String::from("# merged in this order; the last one wins\n");
    if let Some(base) = base {
        text += &format!("{}\n", base.join("config.yaml").display());
    }
    for layer in layers {
        let place = if layer.package.is_empty() { "(root)" } else { &layer.package };
        text += &format!("{:width$}  →  {place}\n", layer.name);
    }
    out(&text);
    Ok(())
}

/// `--help`: flags, examples, groups, then the whole commented primary file.
pub(super) fn help(app: &App, (config_name, config_dir): &(Option<String>, Option<std::path::PathBuf>)) {
    let mut text = format!("{}\n\nusage: {} [FLAG…] [OVERRIDE…]\n", app.about, app.name);
    if !app.examples.is_empty() {
        text += "\nexamples:\n";
        app.examples.iter().for_each(|example| text += &format!("  {example}\n"));
    }
    text += "\nflags (anywhere among the overrides):\n";
    FLAGS.iter().for_each(|(flag, what)| text += &format!("  {flag:<27} {what}\n"));
    text += "\noverrides:\n";
    for (form, what) in [
        ("key=value", "change a value: train.epochs=5 eval.ks=[5,10] layers.0=9"),
        ("+key=value  ++key=value", "add a value; set or add"),
        ("~key", "take a value out"),
        ("group=option", "another file of a group: dataset=movielens-1m"),
        ("+group=option  ~group", "add a group; leave one out"),
    ] {
        text += &format!("  {form:<27} {what}\n");
    }
    let primary = config_name.as_deref().unwrap_or(app.name);
    let cwd = std::env::current_dir().unwrap_or_default();
    match SearchPath::find(primary, config_dir.as_deref(), &cwd) {
        Ok(search) => {
            text += "\ngroups:\n";
            for (group, options) in search.groups() {
                text += &format!("  {group}={}\n", options.join(", "));
            }
            if let Some((path, name)) = search.file(primary) {
                let body = std::fs::read_to_string(path).unwrap_or_default();
                text += &format!("\n{name}:\n\n{body}");
            }
        }
        Err(problem) => text += &format!("\n{problem}\n"),
    }
    out(&text);
}

fn stderr(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}
