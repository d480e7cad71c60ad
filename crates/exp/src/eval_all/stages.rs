//! Runs what a comparison lacks: teacher, students and distilled students as child processes, each in a folder that is found
//! again when the comparison continues.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyo_core::{
    Error, Result, child,
    config::to_yaml,
    data::Dataset,
    run::{Run, read_record, write_atomic},
};
use serde_json::{Value, json};

use super::{
    config::{BASELINE, EvalAllConfig, TEACHER},
    past::APPS,
};

/// The folder of all stages inside the comparison's.
const STAGES: &str = "stages";
/// The name under which children find the data set.
const DATASET: &str = "comparison";

/// One run to make.
struct Stage<'a> {
    method: &'a str,
    app: &'static str,
    seed: u64,
    overrides: &'a [String],
    teacher: Option<&'a Path>,
}

/// Makes or finds every run of the configuration: method and folder, the teacher first.
///
/// # Errors
/// A stage that failed, with its own message; an interruption; a folder that cannot be written.
pub(super) fn run_all(config: &EvalAllConfig, dataset: &Dataset, run: &mut Run) -> Result<Vec<(String, PathBuf)>> {
    let folder = run.path().join(STAGES);
    let conf = folder.join("conf");
    let file = conf.join(format!("dataset/{DATASET}.yaml"));
    fs::create_dir_all(conf.join("dataset")).map_err(Error::io(&conf, "make the folder"))?;
    let text = format!("# The data set of this comparison, for its stages.\n{}", to_yaml(&config.dataset)?);
    write_atomic(&file, text.as_bytes())?;
    let place = Place { config, dataset, folder: &folder, conf: &conf };

    let total =
        usize::from(config.stages.teacher.is_some()) + config.seeds.len() * (1 + config.stages.distilled().count());
    let mut done: Vec<(String, PathBuf)> = Vec::new();
    let mut go = |stage: Stage<'_>, run: &mut Run| -> Result<PathBuf> {
        let (at, method, seed) = (done.len() + 1, stage.method, stage.seed);
        let (path, reused) = place.make(&stage, run, &format!("stage {at} of {total}: {method}, seed {seed}"))?;
        if reused {
            run.info(&format!("stage {at} of {total}: {method}, seed {seed}: already done in {}", path.display()));
        }
        done.push((method.to_owned(), path.clone()));
        let told: Vec<Value> = done.iter().map(|(method, path)| json!({"method": method, "run": path})).collect();
        run.record("stages", told.into())?;
        Ok(path)
    };
    let teacher = match &config.stages.teacher {
        Some(overrides) => {
            let stage =
                Stage { method: TEACHER, app: APPS[1], seed: config.stages.teacher_seed, overrides, teacher: None };
            let path = go(stage, run)?;
            // spelt alike however the comparison is named when it continues
            Some(fs::canonicalize(&path).map_err(Error::io(&path, "find the teacher"))?)
        }
        None => None,
    };
    for &seed in &config.seeds {
        go(Stage { method: BASELINE, app: APPS[0], seed, overrides: &config.stages.baseline, teacher: None }, run)?;
    }
    for (method, overrides) in config.stages.distilled() {
        for &seed in &config.seeds {
            go(Stage { method, app: APPS[2], seed, overrides, teacher: teacher.as_deref() }, run)?;
        }
    }
    Ok(done)
}

struct Place<'a> {
    config: &'a EvalAllConfig,
    dataset: &'a Dataset,
    folder: &'a Path,
    conf: &'a Path,
}

/// What lies in the folder of a stage.
enum Found {
    Done,
    /// It can go on from its newest checkpoint.
    Begun,
}

impl Place<'_> {
    /// The folder of the finished stage, and whether nothing had to be run.
    fn make(&self, stage: &Stage<'_>, run: &Run, title: &str) -> Result<(PathBuf, bool)> {
        let wanted = self.folder.join(folder_name(stage.method)).join(format!("seed_{}", stage.seed));
        let words = self.words(stage);
        let mut begun = None;
        for path in numbered(&wanted) {
            match self.look(&path, stage, &words) {
                Some(Found::Done) => return Ok((path, true)),
                Some(Found::Begun) => begun = Some(path),
                None => {}
            }
        }
        if run.stop_requested() {
            return Err(Error::Interrupted { detail: format!("before {title}") });
        }
        run.info(&match &begun {
            Some(path) => format!("{title}: continuing in {}", path.display()),
            None => title.to_owned(),
        });
        let mut all: Vec<OsString> = vec!["--config-dir".into(), self.conf.into()];
        match &begun {
            Some(path) => all.extend(["--resume".into(), path.into()]),
            None => {
                all.extend(words.iter().map(OsString::from));
                all.extend(self.free_words().into_iter().map(OsString::from));
                all.push(word("run.dir", &wanted.to_string_lossy()).into());
            }
        }
        let mut command = Command::new(std::env::current_exe().map_err(Error::io(".", "find this program"))?);
        // its tables would stand between ours; they are in its run.log
        command.arg("--app").arg(stage.app).args(all).stdout(std::process::Stdio::null());
        let status = child::run(command, run.stop_flag()).map_err(Error::io(&wanted, "start the stage"))?;
        let made = numbered(&wanted).into_iter().rev().find(|path| self.look(path, stage, &words).is_some());
        match (status.code(), made) {
            (Some(0), Some(path)) => Ok((path, false)),
            (Some(0), None) => Err(Error::Run {
                message: format!("{title} used other data than the comparison"),
                hint: Some("change `dataset` of run-eval-all, not of a stage".into()),
            }),
            (Some(130), _) => Err(Error::Interrupted { detail: format!("in {title}; what it had done is saved") }),
            _ if run.stop_requested() => Err(Error::Interrupted { detail: format!("in {title}") }),
            (code, made) => {
                let told = made.as_ref().and_then(|path| read_record(&path.join("run.yaml")));
                let told = told.and_then(|record| Some(record.get("error")?.as_str()?.to_owned()));
                let ended = code.map_or("it was killed by a signal".to_owned(), |code| format!("exit code {code}"));
                Err(Error::Run {
                    message: format!("{title} failed: {}", told.unwrap_or(ended)),
                    hint: Some(match made {
                        Some(path) => format!("see {}/run.log", path.display()),
                        None => format!("its message is above; `stages` holds what {} is told", stage.app),
                    }),
                })
            }
        }
    }

    /// Whether `path` holds this stage: the same application, overrides and data.
    fn look(&self, path: &Path, stage: &Stage<'_>, words: &[String]) -> Option<Found> {
        let record = read_record(&path.join("run.yaml"))?;
        let text = fs::read_to_string(path.join("overrides.yaml")).ok()?;
        // the first words say what is computed, those behind them where and with how many threads
        let listed = read_list(&text)?;
        let same = record.get("app")?.as_str()? == stage.app && listed.get(..words.len())? == words;
        let rest_is_free = listed[words.len().min(listed.len())..].iter().all(|word| {
            ["device=", "threads=", "data.root=", "data.cache=", "run.dir="].iter().any(|key| word.starts_with(key))
        });
        let hash = record.get("data").and_then(|data| data["hash"].as_str());
        match (record.get("status")?.as_str()?, hash) {
            _ if !same || !rest_is_free => None,
            ("done", Some(hash)) => (hash == self.dataset.hash).then_some(Found::Done),
            ("done", None) => None,
            (_, hash) => hash.is_none_or(|hash| hash == self.dataset.hash).then_some(Found::Begun),
        }
    }

    /// What decides the figures of a stage.
    fn words(&self, stage: &Stage<'_>) -> Vec<String> {
        let mut words = vec![format!("dataset={DATASET}"), format!("seed={}", stage.seed)];
        words.extend(stage.teacher.map(|path| word("teacher_run", &path.to_string_lossy())));
        words.extend(stage.overrides.iter().cloned());
        words
    }

    /// What does not.
    fn free_words(&self) -> Vec<String> {
        let config = self.config;
        let cache = config
            .data
            .cache
            .as_ref()
            .map_or("data.cache=null".to_owned(), |path| word("data.cache", &path.to_string_lossy()));
        vec![
            word("device", &config.device.to_string()),
            format!("threads={}", config.threads),
            word("data.root", &config.data.root.to_string_lossy()),
            cache,
        ]
    }
}

/// An override whose value is exactly this text.
fn word(key: &str, text: &str) -> String {
    format!("{key}='{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `path`, `path-2`, … as far as they exist.
fn numbered(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let nth = |n: usize| if n == 1 { path.to_owned() } else { path.with_file_name(format!("{name}-{n}")) };
    (1..).map(nth).take_while(|path| path.is_dir()).collect()
}

/// Letters and digits of a method's name, for its folder.
fn folder_name(method: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "-.".contains(c) { c } else { '_' };
    let name: String = method.chars().map(keep).collect();
    // a name made of signs alone must not lead out of the folder
    if name.chars().all(|c| c == '.') { format!("_{name}") } else { name }
}

/// The list of `overrides.yaml`.
fn read_list(text: &str) -> Option<Vec<String>> {
    // the parser wants a map at the top
    let inside: String = text.lines().map(|line| format!(" {line}\n")).collect();
    let tree = anyo_core::config::yaml::parse(&format!("words:\n{inside}"), "overrides.yaml").ok()?;
    match &tree.at("words")?.kind {
        anyo_core::config::value::Kind::List(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_names_and_lists() {
        assert_eq!(word("run.dir", "a 'b'\\c"), "run.dir='a \\'b\\'\\\\c'");
        assert_eq!(
            [folder_name("student baseline"), folder_name("../x"), folder_name("..")],
            ["student_baseline", ".._x", "_.."]
        );
        let words = vec!["dataset=comparison".to_owned(), "run.dir='a b'".to_owned(), "x=[1, 2]".to_owned()];
        assert_eq!(read_list(&anyo_core::config::yaml::write(&words).unwrap()), Some(words));
        assert_eq!(read_list("[]"), Some(vec![]));
    }
}
