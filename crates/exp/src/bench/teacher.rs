//! `bench-teacher WORK FOLDER [SHAPE] [N] [THREADS] [OVERRIDES…]`: our side of `benches/peers/teacher.sh`, one JSON line per call.
//!
//! | WORK    | what |
//! |---------|------|
//! | prepare | trains nothing: makes the language model and writes `SHAPE.json`, what the peer computes on: the micro-batches that our training draws and the prompts of the export, all as token ids |
//! | train   | seconds of N steps of `fit_teacher`, after two for warmth |
//! | export  | seconds of N rows through the scoring head, lists included |
//!
//! Data: `dataset=toy`. The encoder is not trained and the language model for one step only: speed does not hang on weights.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use anyo_core::{
    bundle::{ListMaker, ListRule, choose_rows},
    data::{self, Dataset, Rows, TargetIndex},
    memory::peak_rss_bytes,
    torch::device,
};
use anyo_lm::{CausalLm, LoadOptions, Tokenizer, builtin::builtin};
use anyo_student::{Progress, Student, Watch};
use anyo_teacher::{
    Candidates, Draw, Encoder, PromptMode, PromptSource, Prompted, Prompts, RankSettings, Ranker, Teacher,
    TeacherRunConfig, TeacherSetup, assemble, builtin_texts, fit_teacher,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// The works.
const WORKS: [&str; 3] = ["prepare", "train", "export"];
/// Language models beside the configuration's own, with the settings that make them.
const SHAPES: [(&str, &[&str]); 2] = [
    ("builtin", &[]),
    (
        "llama_36m",
        &[
            "builtin.model.d_model=512",
            "builtin.model.n_layers=12",
            "builtin.model.n_heads=8",
            "builtin.model.n_kv_heads=4",
        ],
    ),
];
/// Steps before the clock starts.
const WARM: u64 = 2;
/// Rows of a batch of the export, as in `run-teacher`: of the lists and of a forward pass.
const LISTS: usize = 128;
const PROMPTS: usize = 64;

/// Runs the work that `args` names and returns the line to print.
///
/// # Errors
/// Wrong arguments, or whatever the work meets.
pub fn line(args: &[String]) -> Result<String> {
    let [work, folder, rest @ ..] = args else {
        bail!("bench-teacher WORK FOLDER [SHAPE] [N] [THREADS] [OVERRIDES…]; WORK is one of {}", WORKS.join(", "))
    };
    let shape = rest.first().map_or("builtin", String::as_str);
    let number = |i: usize, default: usize| rest.get(i).map_or(Ok(default), |word| word.parse());
    let (n, threads) = (number(1, 32).context("N")?, number(2, 1).context("THREADS")?);
    let Some((_, settings)) = SHAPES.iter().find(|(name, _)| *name == shape) else {
        bail!("no shape `{shape}`; one of {}", SHAPES.map(|(name, _)| name).join(", "))
    };
    let folder = Path::new(folder);
    let config = compose(folder, settings, rest.get(3..).unwrap_or_default())?;
    device::set_threads(threads)?;
    let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut dataset = data::load(&config.dataset, &config.data, &mut |_| ())?;
    // No validation is timed.
    dataset.valid = Rows::new();
    let bench = Bench::new(&config, &dataset)?;
    let measured = match work.as_str() {
        "prepare" => bench.prepare(&folder.join(format!("{shape}.json")), n)?,
        "train" => bench.train(n as u64)?.0,
        "export" => bench.export(n)?,
        other => bail!("no work `{other}`; one of {}", WORKS.join(", ")),
    };
    let mut line = json!({
        "work": work, "who": "ours", "form": "ours", "shape": shape, "threads": threads,
        "load": load_average.split(' ').next().and_then(|word| word.parse::<f64>().ok()),
        "peak_rss_mb": peak_rss_bytes() as f64 / 1e6,
    });
    if let (Value::Object(line), Value::Object(measured)) = (&mut line, measured) {
        line.extend(measured);
    }
    Ok(line.to_string())
}

fn compose(folder: &Path, settings: &[&str], extra: &[String]) -> Result<TeacherRunConfig> {
    let places =
        [format!("data.cache={}/data", folder.display()), format!("builtin.cache={}/models", folder.display())];
    let fixed = ["builtin.model.steps=1", "builtin.model.batch=1", "teacher.train.log_every=1000000"];
    let words = fixed.iter().chain(settings).map(|word| (*word).to_owned());
    let words: Vec<String> = words.chain(places).chain(extra.iter().cloned()).collect();
    super::compose("run-teacher", &words)
}

/// Everything that a run would have trained before the teacher, as good as untrained.
struct Bench<'a> {
    config: &'a TeacherRunConfig,
    dataset: &'a Dataset,
    encoder: Encoder,
    prompts: Prompts,
    teacher: Teacher,
    lm: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(config: &'a TeacherRunConfig, dataset: &'a Dataset) -> Result<Self> {
        let student = Student::new(&config.encoder.student, dataset.n_items(), Device::Cpu, config.seed)?;
        let encoder = Encoder::new(student, &config.encoder.student, "not trained")?;
        let recipe = &config.builtin;
        let texts = builtin_texts(dataset, &config.teacher.prompt, recipe.histories, recipe.model.seed);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let stop = AtomicBool::new(false);
        let found = builtin(&texts, &recipe.model, &recipe.cache, Device::Cpu, &mut |_, _| (), &stop)?;
        let tokenizer = Tokenizer::from_folder(&found.folder)?;
        let lm = CausalLm::load(&found.folder, &LoadOptions { device: Device::Cpu, dtype: Kind::Float })?;
        let (prompts, teacher) = assemble(config, dataset, &encoder, lm, &tokenizer, &mut |_| Ok(()))?;
        Ok(Self { config, dataset, encoder, prompts, teacher, lm: found.folder })
    }

    /// Trains for some steps; also gives the micro-batches, each row with its target.
    fn train(&self, steps: u64) -> Result<(Value, Batches)> {
        let mut teacher = self.config.teacher.clone();
        let train = &mut teacher.train;
        (train.max_steps, train.valid_every, train.checkpoint.every_steps) = (Some(WARM + steps), 0, 0);
        let candidates = Candidates::new(self.dataset.n_items(), &teacher.prompt.candidates)?;
        let seed = self.config.seed;
        let draw = |epoch: u64, key: u64, history: &[u32], target: u32| {
            candidates.list(Draw::Train { seed, epoch }, key, history, target)
        };
        let recorder = Recorder { prompts: &self.prompts, told: RefCell::default() };
        let setup = TeacherSetup {
            config: &teacher,
            dataset: self.dataset,
            encoder: &self.encoder,
            prompts: &recorder,
            candidates: &draw,
            soft: None,
            validate: None,
            eval: &self.config.eval,
            seed,
            folder: None,
            resume: false,
        };
        let mut clock = Clock { ends: Vec::new(), losses: Vec::new() };
        fit_teacher(&setup, &self.teacher, &mut clock)?;
        let batches = recorder.batches();
        let (Some(first), Some(last)) = (clock.ends.get(WARM as usize - 1), clock.ends.last()) else {
            bail!("there were no steps")
        };
        let (seconds, cpu) = (last.0.duration_since(first.0).as_secs_f64(), last.1 - first.1);
        let timed = batches.iter().skip(WARM as usize * teacher.train.accumulation);
        let rows: usize = timed.clone().map(Vec::len).sum();
        let length = |(made, target): &(Made, u32)| made.prompt.ids.len() + self.prompts.answer(*target).len();
        let tokens: usize = timed.flatten().map(length).sum();
        let measured = json!({
            "seconds": seconds, "cpu_seconds": cpu, "steps": steps, "rows": rows, "tokens": tokens, "rows_per_s": rows as f64 / seconds,
            "tokens_per_s": tokens as f64 / seconds, "first_loss": clock.losses.first(), "last_loss": clock.losses.last(),
            "trained": self.teacher.params().n_parameters(),
        });
        Ok((measured, batches))
    }

    /// The training rows that an export of `n` rows labels, of like length together.
    fn numbers(&self, index: &TargetIndex<'_>, n: usize) -> Vec<u32> {
        let mut numbers = choose_rows(index.len(), n, self.config.export.rows_seed);
        numbers.sort_by_cached_key(|&n| (self.prompts.history_tokens(index.history(n as usize)), n));
        numbers
    }

    fn export(&self, n: usize) -> Result<Value> {
        let options = &self.config.export;
        let index = TargetIndex::new(&self.dataset.train);
        let numbers = self.numbers(&index, n);
        let settings =
            RankSettings { template: 0, mode: PromptMode::Hybrid, batch: self.config.eval.batch_size.min(PROMPTS) };
        let rule = ListRule {
            top_n: options.top_n,
            exclude_history: options.exclude_history,
            target_may_appear: options.target_may_appear,
            distance: options.distance,
        };
        let mut maker = ListMaker::new(&index, self.dataset.n_items(), rule);
        let histories = |part: &[u32]| -> Vec<&[u32]> { part.iter().map(|&n| index.history(n as usize)).collect() };
        let ranker = Ranker::new(&self.teacher, &self.encoder, &self.prompts, settings)?;
        let _ = ranker.encode(&histories(&numbers[..numbers.len().min(PROMPTS)]))?;
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let ranker = Ranker::new(&self.teacher, &self.encoder, &self.prompts, settings)?;
        for batch in numbers.chunks(LISTS) {
            let scores = ranker.rank(&histories(batch))?;
            let _ = maker.make(&scores, batch)?;
        }
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        Ok(
            json!({ "seconds": seconds, "cpu_seconds": cpu, "rows": numbers.len(), "rows_per_s": numbers.len() as f64 / seconds }),
        )
    }

    /// Writes what the peer computes on.
    fn prepare(&self, path: &Path, n: usize) -> Result<Value> {
        let (_, batches) = self.train(n as u64)?;
        let row = |made: &Made, target: u32, state: &Tensor| -> Result<Value> {
            let marks: Vec<(usize, u32)> = made.prompt.marks.iter().map(|mark| (mark.position, mark.item)).collect();
            Ok(json!({
                "ids": made.prompt.ids, "marks": marks, "answer": self.prompts.answer(target), "state": numbers(state)?,
            }))
        };
        let batches = batches.iter().map(|batch| {
            let histories: Vec<&[u32]> = batch.iter().map(|(made, _)| made.history.as_slice()).collect();
            let states = self.encoder.states(&histories, &mut |_| Ok(()))?;
            let rows = batch.iter().enumerate().map(|(i, (made, target))| row(made, *target, &states.get(i as i64)));
            Ok(json!({ "choice": batch.iter().all(|(made, _)| made.choice), "rows": rows.collect::<Result<Vec<_>>>()? }))
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let index = TargetIndex::new(&self.dataset.train);
        let wanted = self.numbers(&index, 16 * n);
        let exported = wanted.iter().map(|&n| {
            let history = index.history(n as usize);
            let prompt = self.prompts.open(history, 0, PromptMode::Hybrid)?;
            let state = self.encoder.states(&[history], &mut |_| Ok(()))?.get(0);
            let target = index.target(n as usize).context("a row without a target")?;
            row(&Made { history: history.to_vec(), prompt, choice: false }, target, &state)
        });
        let items = self.encoder.items();
        let items = (0..items.size()[0]).map(|i| numbers(&items.get(i))).collect::<Result<Vec<_>>>()?;
        let train = &self.config.teacher.train;
        let handed = json!({
            "lm": self.lm, "warm": WARM, "vocab": self.prompts.markers().vocab_rows, "items": items, "batches": batches,
            "export": exported.collect::<Result<Vec<_>>>()?, "longest_answer": self.prompts.longest_answer(),
            "export_batch": PROMPTS, "lora": self.config.teacher.lora, "experts": self.config.teacher.gate.as_ref().map(|g| g.experts),
            "lr": train.optim.lr, "clip_norm": train.optim.clip_norm, "open_lm_weight": train.open_lm_weight,
        });
        fs::write(path, handed.to_string())?;
        Ok(json!({ "batches": batches.len(), "file": path }))
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(tensor.f_to_kind(Kind::Float)?)?)
}

/// A prompt with what it was made from.
#[derive(Debug, Clone)]
struct Made {
    history: Vec<u32>,
    prompt: Prompted,
    choice: bool,
}

enum Told {
    Made(Made),
    Answer(u32),
}

/// Micro-batches, each row with its target.
type Batches = Vec<Vec<(Made, u32)>>;

/// Prompts that remember what they were asked for.
struct Recorder<'a> {
    prompts: &'a Prompts,
    told: RefCell<Vec<Told>>,
}

impl Recorder<'_> {
    fn keep(&self, history: &[u32], prompt: &Prompted, choice: bool) {
        self.told.borrow_mut().push(Told::Made(Made { history: history.to_vec(), prompt: prompt.clone(), choice }));
    }

    /// A step asks for its prompts and then, in their order, for the answers: one micro-batch a step.
    fn batches(&self) -> Batches {
        let told = self.told.borrow();
        let mut batches = Vec::new();
        let mut at = 0;
        while at < told.len() {
            let made: Vec<&Made> =
                told[at..].iter().map_while(|t| if let Told::Made(made) = t { Some(made) } else { None }).collect();
            if made.is_empty() {
                at += 1;
                continue;
            }
            at += made.len();
            let targets = told[at..].iter().map_while(|t| if let Told::Answer(item) = t { Some(*item) } else { None });
            batches.push(made.iter().map(|made| (*made).clone()).zip(targets).collect());
        }
        batches
    }
}

impl PromptSource for Recorder<'_> {
    fn n_templates(&self) -> usize {
        self.prompts.n_templates()
    }

    fn choice(
        &self,
        history: &[u32],
        candidates: &[u32],
        template: usize,
        mode: PromptMode,
    ) -> anyo_core::Result<Prompted> {
        let prompt = self.prompts.choice(history, candidates, template, mode)?;
        self.keep(history, &prompt, true);
        Ok(prompt)
    }

    fn open(&self, history: &[u32], template: usize, mode: PromptMode) -> anyo_core::Result<Prompted> {
        let prompt = self.prompts.open(history, template, mode)?;
        self.keep(history, &prompt, false);
        Ok(prompt)
    }

    fn answer(&self, item: u32) -> &[i64] {
        self.told.borrow_mut().push(Told::Answer(item));
        self.prompts.answer(item)
    }

    fn banned(&self) -> &[u32] {
        self.prompts.banned()
    }
}

/// Processor seconds of this process so far: what a busy machine changes least.
fn cpu_seconds() -> f64 {
    let mut used = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the struct, which is valid as zeros too.
    let used = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, used.as_mut_ptr());
        used.assume_init()
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

/// Notes when each step ended, by the clock and in processor seconds.
struct Clock {
    ends: Vec<(Instant, f64)>,
    losses: Vec<f64>,
}

impl Watch for Clock {
    fn scalars(&mut self, _: u64, _: &[(&str, f64)]) -> anyo_core::Result<()> {
        Ok(())
    }

    fn note(&mut self, _: &str) {}

    fn progress(&mut self, progress: &Progress<'_>) {
        self.ends.push((Instant::now(), cpu_seconds()));
        self.losses.push(progress.loss);
    }

    fn rewind(&mut self, _: u64) -> anyo_core::Result<()> {
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        false
    }
}
