//! HR@1 and ValidRatio over candidates, as the original counts them and robustly.

pub mod matcher;

use serde::{Deserialize, Serialize};

use self::matcher::{Found, Matcher, legacy_match};

/// What one output is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Index of the candidate that the legacy rule finds.
    pub legacy: Option<usize>,
    /// Indices of the candidates that the robust rule finds: one is a valid answer, several are ambiguous.
    pub found: Vec<usize>,
}

impl Judged {
    /// Judges `output` by the titles of the candidates.
    pub fn new(titles: &[&str], output: &str) -> Self {
        let found = match Matcher::new(titles.iter().copied()).find(output) {
            Found::Nothing => Vec::new(),
            Found::One(index) => vec![index],
            Found::Several(all) => all,
        };
        Self { legacy: legacy_match(titles, output), found }
    }

    /// The candidate that is named, if it is one alone.
    pub fn named(&self) -> Option<usize> {
        match self.found[..] {
            [index] => Some(index),
            _ => None,
        }
    }
}

/// Counts under one rule with their rates; a standard error is that of a binomial share, √(p(1−p)/n).
///
/// Serialised keys: `n_valid n_correct n_ambiguous valid_ratio valid_ratio_se hr@1 hr@1_se hr@1_valid hr@1_valid_se`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Outputs that name one candidate.
    pub n_valid: usize,
    /// Outputs that name the target.
    pub n_correct: usize,
    /// Outputs that name several candidates (under the legacy rule these and nothing found are not told apart: 0).
    pub n_ambiguous: usize,
    /// valid / rows.
    pub valid_ratio: f64,
    /// Its standard error.
    pub valid_ratio_se: f64,
    /// correct / rows: the headline, `metric` in the original.
    #[serde(rename = "hr@1")]
    pub hr: f64,
    /// Its standard error.
    #[serde(rename = "hr@1_se")]
    pub hr_se: f64,
    /// correct / valid, `test_hr` in the original; `None` (null) without a valid output.
    #[serde(rename = "hr@1_valid")]
    pub hr_valid: Option<f64>,
    /// Its standard error, the number of valid outputs taken as given.
    #[serde(rename = "hr@1_valid_se")]
    pub hr_valid_se: Option<f64>,
}

impl Rates {
    /// Rates of these counts; without rows all are 0.
    pub fn new(n_rows: usize, n_valid: usize, n_correct: usize, n_ambiguous: usize) -> Self {
        let (valid_ratio, valid_ratio_se) = share(n_valid, n_rows).unwrap_or((0.0, 0.0));
        let (hr, hr_se) = share(n_correct, n_rows).unwrap_or((0.0, 0.0));
        let conditional = share(n_correct, n_valid);
        Self {
            n_valid,
            n_correct,
            n_ambiguous,
            valid_ratio,
            valid_ratio_se,
            hr,
            hr_se,
            hr_valid: conditional.map(|(p, _)| p),
            hr_valid_se: conditional.map(|(_, se)| se),
        }
    }
}

/// `k / n` and its standard error.
fn share(k: usize, n: usize) -> Option<(f64, f64)> {
    let p = k as f64 / n as f64;
    (n > 0).then(|| (p, (p * (1.0 - p) / n as f64).sqrt()))
}

/// Both rules over all rows: an object with the robust rates at the top and the original's under `legacy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceMetrics {
    /// Rows asked.
    pub n_rows: usize,
    /// Candidates of a row; guessing hits 1 in so many.
    pub n_candidates: usize,
    /// The robust rule.
    #[serde(flatten)]
    pub robust: Rates,
    /// The original's.
    pub legacy: Rates,
}

impl ChoiceMetrics {
    /// Sums up judged outputs, each with the index of the target among its candidates.
    pub fn new<'a>(n_candidates: usize, judged: impl IntoIterator<Item = (&'a Judged, usize)>) -> Self {
        let (mut n, mut robust, mut legacy) = (0, [0; 3], [0; 2]);
        for (judged, target) in judged {
            n += 1;
            let named = judged.named();
            robust[0] += usize::from(named.is_some());
            robust[1] += usize::from(named == Some(target));
            robust[2] += usize::from(judged.found.len() > 1);
            legacy[0] += usize::from(judged.legacy.is_some());
            legacy[1] += usize::from(judged.legacy == Some(target));
        }
        Self {
            n_rows: n,
            n_candidates,
            robust: Rates::new(n, robust[0], robust[1], robust[2]),
            legacy: Rates::new(n, legacy[0], legacy[1], 0),
        }
    }

    /// Names and values for a validation: `hr@1`, `valid_ratio` and the original's `legacy_hr@1`.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let Self { robust, legacy, .. } = self;
        [("hr@1", robust.hr), ("valid_ratio", robust.valid_ratio), ("legacy_hr@1", legacy.hr)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// The rates with their standard errors, in one line.
    pub fn line(&self) -> String {
        let rates = |r: &Rates| {
            let valid = r.hr_valid.zip(r.hr_valid_se).map_or("–".to_owned(), |(p, se)| format!("{p:.4} ± {se:.4}"));
            format!(
                "HR@1 {:.4} ± {:.4} (of valid answers {valid}), valid {:.4} ± {:.4}",
                r.hr, r.hr_se, r.valid_ratio, r.valid_ratio_se
            )
        };
        format!("{}; legacy rule {}", rates(&self.robust), rates(&self.legacy))
    }
}

#[cfg(test)]
mod tests;
