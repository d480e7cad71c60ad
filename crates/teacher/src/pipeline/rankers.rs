//! Other ways than the scoring head to rank test rows with a teacher: likelihood of titles, reranking, grounding.

use std::{cell::Cell, time::Instant};

use anyo_core::{
    Batch, Error, Recommender, Result,
    data::Rows,
    eval::{Comparison, Evaluation, evaluate_watched},
    run::Run,
    seed::{self, Stream},
};
use serde_json::{Map, Value, json};
use tch::{Device, Tensor};

use super::{
    config::{FirstRanker, RankersConfig, TeacherWay},
    measure::Measured,
};
use crate::{
    ground::Grounding,
    likelihood::{Likelihood, Rerank},
    model::Teacher,
    rank::{RankSettings, Ranker},
    say::Speaker,
};

/// Tells the draw of these test rows from others.
const ROWS: u64 = 0x7761_7973;

/// What the configured ways came to.
pub(super) struct Ways {
    /// By name, on [`Ways::rows`].
    pub(super) found: Vec<(String, Evaluation)>,
    /// The test rows that they ranked.
    pub(super) rows: Rows,
    /// Whether these are all test rows.
    pub(super) all: bool,
    notes: Map<String, Value>,
}

/// Ranks test rows with every way of `rankers.also`.
pub(super) fn measure(
    parts: &Measured<'_>,
    teacher: &Teacher,
    ranker: Option<&Ranker<'_>>,
    run: &mut Run,
) -> Result<Ways> {
    let Measured { config, dataset, encoder, prompts, tokenizer } = *parts;
    let options = &config.rankers;
    let rows = dataset.test.sample(options.rows, &mut seed::rng(config.seed ^ ROWS, Stream::Shuffle, 0, 0));
    let all = rows.len() == dataset.test.len();
    let mut ways = Ways { found: Vec::new(), rows, all, notes: Map::new() };
    if options.also.is_empty() {
        return Ok(ways);
    }
    let settings = RankSettings { template: 0, mode: config.mode(), batch: options.batch };
    let likelihood = Likelihood::new(teacher, encoder, prompts, settings, options.likely)?;
    let first: &dyn Recommender = match (options.rerank.first, ranker) {
        (FirstRanker::Head, Some(ranker)) => ranker,
        // Without a head the configuration was refused where this matters.
        _ => encoder,
    };
    let rerank = Rerank::new(first, &likelihood, options.rerank.top_k, config.eval.exclude_history)?;
    let speaker = Speaker::new(teacher, encoder, prompts, tokenizer)?;
    for &way in &options.also {
        let name = format!("{} {}", config.teacher.name, way.name());
        let started = Instant::now();
        let (found, empty) = match way {
            TeacherWay::Likelihood => (evaluate(parts, &likelihood, &ways.rows, run)?, None),
            TeacherWay::Rerank => (evaluate(parts, &rerank, &ways.rows, run)?, None),
            TeacherWay::Ground => {
                let grounding = Grounding::new(&speaker, settings, options.ground.state, &mut |_| stop(run))?;
                let counting = Counting { grounding: &grounding, empty: Cell::new(0) };
                (evaluate(parts, &counting, &ways.rows, run)?, Some(counting.empty.get()))
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let rate = ways.rows.len() as f64 / seconds.max(1e-9);
        run.info(&format!("{name}: {} test rows in {seconds:.1} s, {rate:.1} rows/s", ways.rows.len()));
        let mut note = json!({ "seconds": seconds, "rows_per_s": rate });
        if let Some(empty) = empty {
            note["empty_answers"] = json!(empty);
        }
        ways.notes.insert(name.clone(), note);
        ways.found.push((name, found));
    }
    Ok(ways)
}

impl Ways {
    /// Writes `metrics/rankers.json`: these ways and `others`, all on [`Ways::rows`].
    pub(super) fn write(&self, config: &RankersConfig, others: &Comparison, run: &Run) -> Result<()> {
        let report = json!({
            "rows": self.rows.len(), "all_test_rows": self.all, "options": config, "ways": self.notes,
            "compare": others.to_json(),
        });
        run.write_json("metrics/rankers.json", &report)
    }
}

fn evaluate(parts: &Measured<'_>, model: &dyn Recommender, rows: &Rows, run: &Run) -> Result<Evaluation> {
    let bar = run.progress(rows.len() as u64, "test rows");
    let mut before = 0;
    let mut watch = |done: usize| {
        bar.inc((done - std::mem::replace(&mut before, done)) as u64);
        stop(run)
    };
    evaluate_watched(model, rows, parts.dataset, &parts.config.eval, parts.config.seed, &mut watch)
}

fn stop(run: &Run) -> Result<()> {
    match run.stop_requested() {
        true => Err(Error::Interrupted { detail: "while ranking test rows; the trained teacher is kept".into() }),
        false => Ok(()),
    }
}

/// Grounding that counts the answers with nothing in them.
struct Counting<'a> {
    grounding: &'a Grounding<'a>,
    empty: Cell<usize>,
}

impl Recommender for Counting<'_> {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let grounded = self.grounding.ground(batch.histories)?;
        self.empty.set(self.empty.get() + grounded.empty);
        Ok(grounded.scores.f_to_device(Device::Cpu)?)
    }
}
