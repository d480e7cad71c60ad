//! What ranks beside the head's own scores, chosen on the validation rows that training looked at.

use anyo_core::{Result, data::Rows, eval::evaluate, run::Run};
use serde_json::json;

use super::{measure::Measured, settings};
use crate::{
    model::Teacher,
    rank::{Ranker, Remembering, States},
    train::valid_rows,
};

/// Shares of the items' frequencies.
const PRIOR: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Factors of the encoder's scores.
const ENCODER: [f64; 6] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0];

/// Keeps the share of the frequencies that ranks best, then the factor of the encoder's scores that does beside it. The
/// smaller one wins where two are equal.
pub(super) fn choose(parts: &Measured<'_>, teacher: &Teacher, run: &mut Run) -> Result<()> {
    let Some(head) = teacher.head() else { return Ok(()) };
    let rows = valid_rows(&parts.config.teacher.train, parts.dataset, parts.config.seed);
    if rows.is_empty() {
        return Ok(());
    }
    let read = States::default();
    if head.has_prior() {
        best(
            parts,
            teacher,
            (&rows, &read),
            &PRIOR,
            &|share| head.keep_prior(share),
            ("prior_kept", "share of the items' frequencies that ranks"),
            run,
        )?;
    }
    if head.may_mix() {
        let what = ("encoder_kept", "factor of the encoder's scores");
        best(parts, teacher, (&rows, &read), &ENCODER, &|share| head.keep_encoder(share), what, run)?;
    }
    Ok(())
}

fn best(
    parts: &Measured<'_>,
    teacher: &Teacher,
    (rows, read): (&Rows, &States),
    shares: &[f64],
    keep: &dyn Fn(f64) -> Result<()>,
    (key, what): (&str, &str),
    run: &mut Run,
) -> Result<()> {
    let Measured { config, dataset, encoder, prompts, .. } = *parts;
    let metric = &config.teacher.train.metric;
    let mut best: Option<(f64, f64)> = None;
    for &share in shares {
        keep(share)?;
        let ranker = Ranker::new(teacher, encoder, prompts, settings(config))?;
        let ranker = Remembering { ranker: &ranker, states: read };
        let found = evaluate(&ranker, rows, dataset, &config.eval.for_selection(), config.seed)?;
        let Some(value) = found.value(metric).or_else(|| found.value(&format!("ndcg@{}", config.eval.headline_k())))
        else {
            return Ok(());
        };
        if best.is_none_or(|(_, before)| value > before) {
            best = Some((share, value));
        }
    }
    if let Some((share, value)) = best {
        keep(share)?;
        run.info(&format!("{what}: {share} is best on validation ({metric} {value:.4})"));
        run.record(key, json!(share))?;
    }
    Ok(())
}
