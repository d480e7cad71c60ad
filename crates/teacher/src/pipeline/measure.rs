//! What a trained teacher is worth: the whole catalogue ranked, and the questions with candidates.

use anyo_core::{
    Recommender, Result,
    data::{Dataset, Rows},
    eval::{Comparison, Evaluation, evaluate, write_metrics, write_per_user},
    run::Run,
};
use anyo_lm::Tokenizer;
use anyo_student::{baseline, baselines::PopularityConfig, config::StudentConfig};
use serde_json::json;

use super::{beside, config::TeacherRunConfig, rankers, settings};
use crate::{
    answers::evaluate_choices,
    candidates::{Candidates, Draw},
    encoder::Encoder,
    likelihood::Likelihood,
    metric::ChoiceMetrics,
    model::Teacher,
    prompt::Prompts,
    rank::{RankSettings, Ranker, Remembering, States},
    say::Speaker,
    tokens::PromptSource,
};

/// What measuring needs besides the teacher.
pub(super) struct Measured<'a> {
    pub(super) config: &'a TeacherRunConfig,
    pub(super) dataset: &'a Dataset,
    pub(super) encoder: &'a Encoder,
    pub(super) prompts: &'a Prompts,
    pub(super) tokenizer: &'a Tokenizer,
}

/// Ranks the test rows with the teacher, its encoder, popularity and the configured baselines, and writes the figures.
/// Without a scoring head only the others and the further ways of `rankers` are ranked.
pub(super) fn catalogue(
    parts: &Measured<'_>,
    teacher: &Teacher,
    ranker: Option<&Ranker<'_>>,
    run: &mut Run,
) -> Result<()> {
    let Measured { config, dataset, encoder, .. } = *parts;
    let rank = |model: &dyn Recommender, rows: &Rows| evaluate(model, rows, dataset, &config.eval, config.seed);
    let mut comparison = Comparison::new();
    let mut valid: Option<Evaluation> = None;
    if let Some(ranker) = ranker {
        valid = Some(rank(ranker, &dataset.valid)?);
        if ranker.mixes() {
            let states = States::default();
            let rank_test = |ranker: &Ranker<'_>| rank(&Remembering { ranker, states: &states }, &dataset.test);
            comparison.push(config.teacher.name.clone(), rank_test(ranker)?);
            let alone = Ranker::new(teacher, encoder, parts.prompts, settings(config))?.alone();
            comparison.push(format!("{} head alone", config.teacher.name), rank_test(&alone)?);
        } else {
            comparison.push(config.teacher.name.clone(), rank(ranker, &dataset.test)?);
        }
    }
    let ways = rankers::measure(parts, teacher, ranker, run)?;
    let further = !ways.found.is_empty();
    // Figures of a sample stand beside others of the same rows.
    let mut sampled = Comparison::new();
    if let Some(ranker) = ranker.filter(|_| further && !ways.all) {
        sampled.push(config.teacher.name.clone(), rank(ranker, &ways.rows)?);
    }
    for (name, found) in &ways.found {
        if ways.all { &mut comparison } else { &mut sampled }.push(name.clone(), found.clone());
    }
    comparison.push(format!("encoder {}", encoder.name()), rank(encoder, &dataset.test)?);
    if further && !ways.all {
        sampled.push(format!("encoder {}", encoder.name()), rank(encoder, &ways.rows)?);
    }
    let popularity = ("popularity".to_owned(), StudentConfig::Popularity(PopularityConfig {}));
    for (name, other) in std::iter::once(popularity).chain(config.baselines.clone()) {
        if let Some(model) = baseline(&other, dataset) {
            if further && !ways.all {
                sampled.push(name.clone(), rank(model.as_ref(), &ways.rows)?);
            }
            comparison.push(name, rank(model.as_ref(), &dataset.test)?);
        }
    }
    let folder = run.path().join("metrics");
    if let (Some(valid), Some((_, test))) = (&valid, comparison.rows().first()) {
        write_metrics(&folder, &[("valid", valid), ("test", test)])?;
        if config.eval.per_user {
            write_per_user(&folder.join("per_user.parquet"), test, dataset)?;
        }
    }
    let buckets: serde_json::Map<String, serde_json::Value> =
        comparison.rows().iter().map(|(name, found)| (name.clone(), found.buckets_to_json())).collect();
    run.write_json("metrics/compare_buckets.json", &buckets)?;
    run.write_json("metrics/compare.json", &comparison.to_json())?;
    run.print(&comparison.to_table(columns()));
    if further {
        ways.write(&config.rankers, if ways.all { &comparison } else { &sampled }, run)?;
    }
    if further && !ways.all {
        run.print(&format!("{} test rows drawn for further ways of the teacher:\n", ways.rows.len()));
        run.print(&sampled.to_table(columns()));
    }
    Ok(())
}

/// Asks the test rows with candidates, and orders the same candidates by likelihood and by the scores of the
/// teacher's ranking, encoder and popularity.
pub(super) fn choices(
    parts: &Measured<'_>,
    candidates: &Candidates,
    teacher: &Teacher,
    ranker: Option<&Ranker<'_>>,
    run: &mut Run,
) -> Result<()> {
    let choice = &parts.config.choice;
    if choice.rows == Some(0) {
        return Ok(());
    }
    let Measured { dataset, prompts, encoder, .. } = parts;
    let mut rows = candidates.rows(Draw::Test, &dataset.test, choice.min_history, prompts.n_templates())?;
    let all = rows.len();
    rows.truncate(choice.rows.unwrap_or(all));
    let popular = StudentConfig::Popularity(PopularityConfig {});
    let mut others: Vec<(String, &dyn Recommender)> = Vec::new();
    others.extend(ranker.map(|ranker| ("ranking".to_owned(), ranker as &dyn Recommender)));
    others.push((format!("encoder {}", encoder.name()), *encoder));
    let popular = baseline(&popular, dataset);
    others.extend(popular.iter().map(|popular| ("popularity".to_owned(), popular.as_ref() as &dyn Recommender)));
    let mut others = others
        .into_iter()
        .map(|(name, model)| Ok((name, beside::by_scores(model, &rows, &dataset.test)?)))
        .collect::<Result<Vec<_>>>()?;
    let settings = RankSettings { template: 0, mode: parts.config.mode(), batch: choice.batch };
    let likelihood = Likelihood::new(teacher, encoder, *prompts, settings, parts.config.rankers.likely)?;
    others.insert(0, ("likelihood".to_owned(), beside::by_likelihood(&likelihood, &rows)?));
    let bar = run.progress(rows.len() as u64, "questions");
    let (metrics, answers) = ask(parts, teacher, &rows, &mut |n| bar.inc(n))?;
    drop(bar);
    let mut lines = String::new();
    for answer in &answers {
        lines += &serde_json::to_string(answer).unwrap_or_default();
        lines.push('\n');
    }
    let path = run.path().join("metrics/answers.jsonl");
    std::fs::write(&path, lines).map_err(anyo_core::Error::io(&path, "write the answers"))?;
    let mut report = serde_json::to_value(&metrics).unwrap_or_default();
    report["by_scores"] = beside::to_json(&others);
    report["asked"] = json!(rows.len());
    report["test_rows"] = json!(dataset.test.len());
    report["shorter_than_min_history"] = json!(dataset.test.len() - all);
    run.write_json("metrics/choice.json", &report)?;
    run.print(&format!(
        "one of {} candidates, {} of {} test rows: {}; the same candidates by scores, HR@1: {}\n",
        metrics.n_candidates,
        rows.len(),
        dataset.test.len(),
        metrics.line(),
        others.iter().map(|(name, (share, _))| format!("{name} {share:.4}")).collect::<Vec<_>>().join(", ")
    ));
    Ok(())
}

/// Selection where no head ranks the catalogue: HR@1 over the candidates of validation rows.
pub(super) fn validate(parts: &Measured<'_>, candidates: &Candidates, teacher: &Teacher) -> Result<Vec<(String, f64)>> {
    let Measured { config, dataset, prompts, .. } = parts;
    let mut rows = candidates.rows(Draw::Valid, &dataset.valid, config.choice.min_history, prompts.n_templates())?;
    if config.teacher.train.valid_rows > 0 {
        rows.truncate(config.teacher.train.valid_rows);
    }
    let (metrics, _) = ask(parts, teacher, &rows, &mut |_| ())?;
    Ok(metrics.scalars())
}

fn ask(
    parts: &Measured<'_>,
    teacher: &Teacher,
    rows: &[crate::candidates::ChoiceRow],
    done: &mut dyn FnMut(u64),
) -> Result<(ChoiceMetrics, Vec<crate::answers::Answer>)> {
    let speaker = Speaker::new(teacher, parts.encoder, parts.prompts, parts.tokenizer)?;
    evaluate_choices(parts.prompts, rows, parts.config.mode(), parts.config.choice.batch, &mut |rows, prompts| {
        let texts = speaker.answers(rows, prompts)?;
        done(rows.len() as u64);
        Ok(texts)
    })
}

/// Columns of the terminal, or 100.
fn columns() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100)
}
