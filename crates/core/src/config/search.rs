//! Where configuration files are looked for, and what lies there.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::Problem;

/// The folders that hold configuration files, the one searched first at the front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPath {
    /// Folder and the name that messages show.
    dirs: Vec<(PathBuf, String)>,
}

impl SearchPath {
    /// Exactly these folders.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { dirs: dirs.into_iter().map(|dir| (dir.clone(), shown(&dir))).collect() }
    }

    /// The folder `conf/` that holds `<primary>.yaml`: the one `ANYO_CONF` names, else the nearest from `cwd` upward, else
    /// the nearest from the executable upward. `extra` is searched before it and may hold the primary itself.
    ///
    /// # Errors
    /// A problem listing the places searched.
    pub fn find(primary: &str, extra: Option<&Path>, cwd: &Path) -> Result<Self, Problem> {
        let file = format!("{primary}.yaml");
        let holds = |dir: &Path| dir.join(&file).is_file();
        let mut dirs = Vec::new();
        if let Some(extra) = extra {
            if !extra.is_dir() {
                return Err(Problem::new("", format!("--config-dir {}: there is no such folder", extra.display())));
            }
            dirs.push(extra.to_owned());
        }
        if let Some(named) = env::var_os("ANYO_CONF").filter(|v| !v.is_empty()).map(PathBuf::from) {
            if !holds(&named) && !dirs.iter().any(|d| holds(d)) {
                let message = format!("ANYO_CONF={} holds no {file}", named.display());
                return Err(Problem {
                    hint: Some("unset ANYO_CONF or let it name the conf folder".into()),
                    ..Problem::new("", message)
                });
            }
            dirs.push(named);
            return Ok(Self::new(dirs));
        }
        let exe = env::current_exe().unwrap_or_default();
        let found =
            [cwd, &exe].into_iter().flat_map(Path::ancestors).map(|dir| dir.join("conf")).find(|dir| holds(dir));
        match found {
            Some(dir) => dirs.push(dir.strip_prefix(cwd).map_or(dir.clone(), Path::to_owned)),
            None if dirs.iter().any(|d| holds(d)) => {}
            None => {
                let options = extra.map(options_of).unwrap_or_default();
                let hint = super::suggest::did_you_mean(primary, options.iter().map(String::as_str));
                return Err(Problem {
                    hint: hint.or(Some("start it inside the project, or set ANYO_CONF to its conf folder".into())),
                    ..Problem::new("", format!("no conf/{file} in {} or above", cwd.display()))
                });
            }
        }
        Ok(Self::new(dirs))
    }

    /// The folders with the names shown in messages.
    pub fn dirs(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.dirs.iter().map(|(dir, name)| (dir.as_path(), name.as_str()))
    }

    /// The file `<relative>.yaml`, with the name shown in messages.
    pub fn file(&self, relative: &str) -> Option<(PathBuf, String)> {
        self.dirs().find_map(|(dir, name)| {
            let path = dir.join(format!("{relative}.yaml"));
            path.is_file().then(|| (path, format!("{name}/{relative}.yaml")))
        })
    }

    /// Whether a folder of this name exists: then the left side of an override is a group.
    pub fn is_group(&self, group: &str) -> bool {
        !group.is_empty() && !group.contains('.') && self.dirs().any(|(dir, _)| dir.join(group).is_dir())
    }

    /// The options of a group, sorted.
    pub fn options(&self, group: &str) -> Vec<String> {
        let mut options: Vec<String> = self.dirs().flat_map(|(dir, _)| options_of(&dir.join(group))).collect();
        options.sort();
        options.dedup();
        options
    }

    /// Every group with its options, nested ones as `student/optim`.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut names = Vec::new();
        for (dir, _) in self.dirs() {
            walk(dir, "", &mut names);
        }
        names.sort();
        names.dedup();
        names.into_iter().map(|g| (g.clone(), self.options(&g))).filter(|(_, options)| !options.is_empty()).collect()
    }

    /// The folder shown when a group has no such option.
    pub fn group_name(&self, group: &str) -> String {
        let dir = self.dirs().find(|(dir, _)| dir.join(group).is_dir()).or(self.dirs().last());
        dir.map_or(format!("{group}/"), |(_, name)| format!("{name}/{group}/"))
    }
}

/// `/abs/project/conf` is shown as `conf`, anything else as given.
fn shown(dir: &Path) -> String {
    if dir.is_absolute() && dir.file_name().is_some_and(|n| n == "conf") {
        "conf".into()
    } else {
        dir.display().to_string()
    }
}

fn options_of(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".yaml")?.to_owned()))
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn walk(dir: &Path, group: &str, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| !n.starts_with('.')) else { continue };
        if entry.path().is_dir() {
            let group = if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") };
            walk(&entry.path(), &group, names);
            names.push(group);
        }
    }
}
