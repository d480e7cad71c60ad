//! Runs what a comparison lacks: teacher, students and distilled students as child processes, several at a time where that is
//! asked for, each in a folder that is found again when the comparison continues.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyo_core::{
    Error, Result, child,
    config::to_yaml,
    data::Dataset,
    run::{Run, write_atomic},
};
use serde_json::{Value, json};

use super::{
    config::{BASELINE, EvalAllConfig, TEACHER},
    past::APPS,
    place::{Made, Place, Stage},
};

/// The folder of all stages inside the comparison's.
const STAGES: &str = "stages";
/// The name under which children find the data set.
pub(super) const DATASET: &str = "comparison";

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
    let stages = plan(config);
    let mut queue = Queue {
        place: Place { config, dataset, folder: &folder, conf: &conf },
        made: vec![None; stages.len()],
        waiting: (0..stages.len()).collect(),
        teacher: config.stages.teacher_run.as_deref().map(canonical).transpose()?,
        stages,
        done: Vec::new(),
    };
    queue.work(run)?;
    let given = config.stages.teacher_run.iter().map(|path| (TEACHER.to_owned(), path.clone()));
    let made = queue.stages.iter().zip(queue.made);
    Ok(given.chain(made.filter_map(|(stage, path)| Some((stage.method.to_owned(), path?)))).collect())
}

/// Everything that is to be run, in the order of the report.
fn plan(config: &EvalAllConfig) -> Vec<Stage<'_>> {
    let mut stages = Vec::new();
    let own = config.stages.teacher_run.is_none().then_some(config.stages.teacher.as_ref()).flatten();
    if let Some(overrides) = own {
        let seed = config.stages.teacher_seed;
        stages.push(Stage { method: TEACHER, app: APPS[1], seed, overrides, taught: false });
    }
    for &seed in &config.seeds {
        let overrides = &config.stages.baseline;
        stages.push(Stage { method: BASELINE, app: APPS[0], seed, overrides, taught: false });
    }
    for (method, overrides) in config.stages.distilled() {
        for &seed in &config.seeds {
            stages.push(Stage { method, app: APPS[2], seed, overrides, taught: true });
        }
    }
    stages
}

/// Stages that wait, run and are done. Only this thread looks into folders and writes the record; others wait for children.
struct Queue<'a> {
    place: Place<'a>,
    stages: Vec<Stage<'a>>,
    made: Vec<Option<PathBuf>>,
    waiting: Vec<usize>,
    teacher: Option<PathBuf>,
    done: Vec<Value>,
}

impl Queue<'_> {
    /// Runs everything. The first failure stops the children beside it, which save their work.
    fn work(&mut self, run: &mut Run) -> Result<()> {
        let stop = AtomicBool::new(false);
        let stop = &stop;
        thread::scope(|scope| {
            let (sender, ended) = mpsc::channel();
            let (mut running, mut failure) = (0, None);
            loop {
                while running < self.place.config.jobs && failure.is_none() && !run.stop_requested() {
                    let Some(at) = self.next() else { break };
                    match self.begin(at, run) {
                        Ok(Some(command)) => {
                            let sender = sender.clone();
                            scope.spawn(move || {
                                let began = Instant::now();
                                let status = child::run(command, stop);
                                // the receiver lives as long as a child does
                                let _ = sender.send((at, status, began.elapsed()));
                            });
                            running += 1;
                        }
                        Ok(None) => {}
                        Err(e) => failure = Some(e),
                    }
                }
                if running == 0 {
                    break;
                }
                if failure.is_some() || run.stop_requested() {
                    stop.store(true, Ordering::Relaxed);
                }
                match ended.recv_timeout(Duration::from_millis(50)) {
                    Ok((at, status, took)) => {
                        running -= 1;
                        if let Err(e) = self.end(at, status, took, run) {
                            failure.get_or_insert(e);
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => unreachable!("this thread holds a sender"),
                }
            }
            match (failure, self.waiting.first()) {
                (Some(e), _) => Err(e),
                (None, Some(&at)) => Err(Error::Interrupted { detail: format!("before {}", self.title(at)) }),
                (None, None) => Ok(()),
            }
        })
    }

    /// The first stage whose teacher is there. A teacher that takes all cores is made alone.
    fn next(&mut self) -> Option<usize> {
        let teaches = self.stages.iter().position(|stage| stage.app == APPS[1]);
        let being_made = teaches.is_some_and(|at| self.made[at].is_none() && !self.waiting.contains(&at));
        if being_made && self.place.config.threads == 0 {
            return None;
        }
        let taught = self.teacher.is_some() || teaches.is_none();
        let place = self.waiting.iter().position(|&at| taught || !self.stages[at].taught)?;
        Some(self.waiting.remove(place))
    }

    fn title(&self, at: usize) -> String {
        let stage = &self.stages[at];
        format!("stage {} of {}: {}, seed {}", at + 1, self.stages.len(), stage.method, stage.seed)
    }

    /// The command that makes the stage; none where it was made before.
    fn begin(&mut self, at: usize, run: &mut Run) -> Result<Option<std::process::Command>> {
        let title = self.title(at);
        match self.place.begin(&self.stages[at], self.teacher.as_deref())? {
            Made::Done(path) => {
                run.info(&format!("{title}: already done in {}", path.display()));
                self.keep(at, path, run)?;
                Ok(None)
            }
            Made::Begun(path, command) => {
                run.info(&format!("{title}: continuing in {}", path.display()));
                Ok(Some(command))
            }
            Made::New(command) => {
                run.info(&title);
                Ok(Some(command))
            }
        }
    }

    fn end(&mut self, at: usize, status: std::io::Result<ExitStatus>, took: Duration, run: &mut Run) -> Result<()> {
        let (title, stage) = (self.title(at), &self.stages[at]);
        let stopped = run.stop_requested();
        let path = self.place.end(stage, self.teacher.as_deref(), status, stopped, &title)?;
        if self.place.config.jobs > 1 {
            run.info(&format!("{title}: done in {:.0} s", took.as_secs_f64()));
        }
        self.keep(at, path, run)
    }

    fn keep(&mut self, at: usize, path: PathBuf, run: &mut Run) -> Result<()> {
        let stage = &self.stages[at];
        if stage.app == APPS[1] {
            self.teacher = Some(canonical(&path)?);
        }
        self.done.push(json!({"method": stage.method, "run": path}));
        self.made[at] = Some(path);
        run.record("stages", self.done.clone().into())
    }
}

/// A teacher's folder spelt alike however the comparison is named when it continues.
fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(Error::io(path, "find the teacher"))
}
