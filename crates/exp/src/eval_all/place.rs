//! One stage of a comparison: its folder, what its child is told, what the child has left.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyo_core::{Error, Result, child, data::Dataset, run::read_record};

use super::{config::EvalAllConfig, past::APPS, stages::DATASET};

/// One run to make.
pub(super) struct Stage<'a> {
    pub(super) method: &'a str,
    pub(super) app: &'static str,
    pub(super) seed: u64,
    pub(super) overrides: &'a [String],
    /// Whether it learns from the comparison's teacher.
    pub(super) taught: bool,
}

/// Where stages lie and what they have in common.
pub(super) struct Place<'a> {
    pub(super) config: &'a EvalAllConfig,
    pub(super) dataset: &'a Dataset,
    pub(super) folder: &'a Path,
    pub(super) conf: &'a Path,
}

/// What a stage needs.
pub(super) enum Made {
    /// Nothing: it lies here.
    Done(PathBuf),
    /// To go on here.
    Begun(PathBuf, Command),
    New(Command),
}

/// What lies in the folder of a stage.
enum Found {
    Done,
    /// It can go on from its newest checkpoint.
    Begun,
}

impl Place<'_> {
    /// Finds what there is of the stage.
    ///
    /// # Errors
    /// A log file that cannot be written.
    pub(super) fn begin(&self, stage: &Stage<'_>, teacher: Option<&Path>) -> Result<Made> {
        let words = self.words(stage, teacher);
        let mut begun = None;
        for path in numbered(&self.wanted(stage)) {
            match self.look(&path, stage, &words) {
                Some(Found::Done) => return Ok(Made::Done(path)),
                Some(Found::Begun) => begun = Some(path),
                None => {}
            }
        }
        let mut all: Vec<OsString> = vec!["--config-dir".into(), self.conf.into()];
        match &begun {
            Some(path) => all.extend(["--resume".into(), path.into()]),
            None => {
                all.extend(words.iter().map(OsString::from));
                all.extend(self.free_words(stage).into_iter().map(OsString::from));
                all.push(word("run.dir", &self.wanted(stage).to_string_lossy()).into());
            }
        }
        let mut command = child::this_program().map_err(Error::io(".", "find this program"))?;
        // its tables would stand between ours; they are in its run.log
        command.arg("--app").arg(stage.app).args(all).stdout(Stdio::null());
        if self.config.jobs > 1 {
            // progress of several would run into each other
            let path = self.said(stage);
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(Error::io(&path, "make the folder"))?;
            command.stderr(fs::File::create(&path).map_err(Error::io(&path, "write"))?);
        }
        Ok(match begun {
            Some(path) => Made::Begun(path, command),
            None => Made::New(command),
        })
    }

    /// The folder that the child has left.
    ///
    /// # Errors
    /// Whatever went wrong in it.
    pub(super) fn end(
        &self,
        stage: &Stage<'_>,
        teacher: Option<&Path>,
        status: std::io::Result<ExitStatus>,
        stopped: bool,
        title: &str,
    ) -> Result<PathBuf> {
        let (wanted, words) = (self.wanted(stage), self.words(stage, teacher));
        let status = status.map_err(Error::io(&wanted, "start the stage"))?;
        let made = numbered(&wanted).into_iter().rev().find(|path| self.look(path, stage, &words).is_some());
        match (status.code(), made) {
            (Some(0), Some(path)) => Ok(path),
            (Some(0), None) => Err(Error::Run {
                message: format!("{title} used other data than the comparison"),
                hint: Some("change `dataset` of run-eval-all, not of a stage".into()),
            }),
            (Some(130), _) => Err(Error::Interrupted { detail: format!("in {title}; what it had done is saved") }),
            _ if stopped => Err(Error::Interrupted { detail: format!("in {title}") }),
            (code, made) => {
                let told = made.as_ref().and_then(|path| read_record(&path.join("run.yaml")));
                let told = told.and_then(|record| Some(record.get("error")?.as_str()?.to_owned()));
                let ended = code.map_or("it was killed by a signal".to_owned(), |code| format!("exit code {code}"));
                let said = match self.config.jobs {
                    1 => "is above".to_owned(),
                    _ => format!("is in {}", self.said(stage).display()),
                };
                Err(Error::Run {
                    message: format!("{title} failed: {}", told.unwrap_or(ended)),
                    hint: Some(match made {
                        Some(path) => format!("see {}/run.log", path.display()),
                        None => format!("its message {said}; `stages` holds what {} is told", stage.app),
                    }),
                })
            }
        }
    }

    fn wanted(&self, stage: &Stage<'_>) -> PathBuf {
        self.folder.join(folder_name(stage.method)).join(format!("seed_{}", stage.seed))
    }

    /// What a child says on the terminal, where several run at a time.
    fn said(&self, stage: &Stage<'_>) -> PathBuf {
        self.wanted(stage).with_extension("log")
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
    fn words(&self, stage: &Stage<'_>, teacher: Option<&Path>) -> Vec<String> {
        let mut words = vec![format!("dataset={DATASET}"), format!("seed={}", stage.seed)];
        let teacher = teacher.filter(|_| stage.taught);
        words.extend(teacher.map(|path| word("teacher_run", &path.to_string_lossy())));
        words.extend(stage.overrides.iter().cloned());
        words
    }

    /// What does not.
    fn free_words(&self, stage: &Stage<'_>) -> Vec<String> {
        let config = self.config;
        let threads = match (config.threads, config.jobs) {
            // made alone
            (0, _) if stage.app == APPS[1] => 0,
            (0, jobs @ 2..) => (std::thread::available_parallelism().map_or(1, usize::from) / jobs).max(1),
            (threads, _) => threads,
        };
        let cache = config
            .data
            .cache
            .as_ref()
            .map_or("data.cache=null".to_owned(), |path| word("data.cache", &path.to_string_lossy()));
        vec![
            word("device", &config.device.to_string()),
            format!("threads={threads}"),
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
