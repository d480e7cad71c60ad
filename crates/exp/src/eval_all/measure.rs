//! What the comparison finds: figures of every method, and paired tests against the reference.

use anyo_core::{
    Error, Result,
    data::Dataset,
    eval::{popularity_bucket_names, popularity_bucket_of_items},
    stats::{Difference, Paired, Spread, Wilcoxon, Zeros, cohens_dz, holm, rank_biserial, wilcoxon},
};

use super::{
    config::{EvalAllConfig, Measure},
    methods::{Method, TestRows},
};

/// Resamples for intervals that no test needs: of single seeds and of buckets.
const FEW: usize = 1000;

/// A part of the test rows.
#[derive(Debug, Clone)]
pub(super) struct Subset {
    /// `all`, `rare`, or a popularity bucket.
    pub(super) name: String,
    pub(super) n_rows: usize,
    pub(super) n_users: usize,
    /// `[methods][metrics]`; `None` where the run told no such figure.
    pub(super) figures: Vec<Vec<Option<Figure>>>,
    /// Against the reference, by method, then metric; empty for the reference, for rows without ranks, and in buckets.
    pub(super) tests: Vec<Test>,
}

/// A metric of a method.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// Mean over the rows of the values averaged over seeds.
    pub(super) value: f64,
    /// Over users, seeds averaged.
    pub(super) interval: Option<[f64; 2]>,
    /// Sample deviation of the seeds' means.
    pub(super) deviation: Option<f64>,
    /// Mean and interval of each seed, in the order of the method's runs.
    pub(super) seeds: Vec<(f64, Option<[f64; 2]>)>,
}

/// A paired test of one metric of one method against the reference.
#[derive(Debug, Clone)]
pub(super) struct Test {
    pub(super) method: usize,
    pub(super) metric: usize,
    pub(super) difference: Difference,
    pub(super) wilcoxon: Wilcoxon,
    /// Holm-corrected over all tests of the subset.
    pub(super) bootstrap_holm: f64,
    pub(super) wilcoxon_holm: f64,
    pub(super) d_z: Option<f64>,
    pub(super) rank_biserial: Option<f64>,
}

/// Everything found.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    /// `all`, `rare`, then the popularity buckets from head to unseen.
    pub(super) subsets: Vec<Subset>,
    /// Index of the reference.
    pub(super) reference: usize,
    /// Rare targets that are no training target at all.
    pub(super) never: usize,
}

impl Findings {
    /// The subset of this name.
    pub(super) fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }
}

/// Measures and tests.
///
/// # Errors
/// No method of the name of the reference, or a K above the catalogue.
pub(super) fn measure(
    config: &EvalAllConfig,
    methods: &[Method],
    rows: &TestRows,
    dataset: &Dataset,
    threads: usize,
) -> Result<Findings> {
    let measures = config.measures();
    if let Some(m) = measures.iter().find(|m| m.k != usize::MAX && m.k > dataset.n_items()) {
        let n = dataset.n_items();
        return Err(Error::invalid(format!("metric {}: the catalogue has only {n} items", m.key)));
    }
    let names = || methods.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    let reference = methods.iter().position(|method| method.name == config.reference);
    let reference = reference.filter(|&at| !methods[at].ranks.is_empty()).ok_or_else(|| Error::Invalid {
        message: format!("reference: there is no method `{}` with ranks among {}", config.reference, names()),
        hint: Some("write reference='NAME'".into()),
    })?;
    let all: Vec<usize> = (0..rows.users.len()).collect();
    let counts = dataset.train.target_counts(dataset.n_items());
    let count = |row: usize| counts[rows.targets[row] as usize];
    let rare: Vec<usize> = all.iter().copied().filter(|&row| count(row) <= config.rare_max).collect();
    let never = rare.iter().filter(|&&row| count(row) == 0).count();
    let part = |name: &str, places: &[usize], tested: bool| {
        let scope = Scope { config, methods, measures: &measures, rows, threads };
        scope.subset(name, places, tested.then_some(reference))
    };
    let mut subsets = vec![part("all", &all, true), part("rare", &rare, true)];
    let of_item = popularity_bucket_of_items(&dataset.train_counts, &config.popularity_buckets);
    for (bucket, name) in popularity_bucket_names(config.popularity_buckets.len()).iter().enumerate() {
        let places: Vec<usize> =
            all.iter().copied().filter(|&row| of_item[rows.targets[row] as usize] == bucket).collect();
        subsets.push(part(name, &places, false));
    }
    Ok(Findings { subsets, reference, never })
}

struct Scope<'a> {
    config: &'a EvalAllConfig,
    methods: &'a [Method],
    measures: &'a [Measure],
    rows: &'a TestRows,
    threads: usize,
}

impl Scope<'_> {
    fn subset(&self, name: &str, places: &[usize], reference: Option<usize>) -> Subset {
        let Self { config, methods, measures, .. } = self;
        let users: Vec<u32> = places.iter().map(|&row| self.rows.users[row]).collect();
        // one column for each method and metric, seeds averaged row by row
        let mut columns: Vec<Vec<f64>> = Vec::new();
        let mut seeds: Vec<Vec<f64>> = Vec::new();
        for method in methods.iter().filter(|method| !method.ranks.is_empty()) {
            for measure in measures.iter() {
                let of_seed =
                    |ranks: &Vec<u32>| -> Vec<f64> { places.iter().map(|&row| measure.value(ranks[row])).collect() };
                let own: Vec<Vec<f64>> = method.ranks.iter().map(of_seed).collect();
                let mean = |at: usize| own.iter().map(|values| values[at]).sum::<f64>() / own.len() as f64;
                columns.push((0..places.len()).map(mean).collect());
                seeds.extend(own);
            }
        }
        let paired = Paired::new(&users, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let by_seed = Paired::new(&users, &seeds.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let resamples = if reference.is_some() { config.resamples } else { config.resamples.min(FEW) };
        let draws = paired.draw(resamples, config.seed, self.threads);
        let seed_draws = by_seed.draw(config.resamples.min(FEW), config.seed, self.threads);
        let (means, seed_means) = (paired.means(), by_seed.means());
        let (mut next, mut next_seed) = (0, 0);
        let mut start = vec![None; methods.len()];
        let mut figures = Vec::new();
        for (at, method) in methods.iter().enumerate() {
            if method.ranks.is_empty() {
                let told = |measure: &Measure| quoted(method, &measure.key).filter(|_| name == "all");
                figures.push(measures.iter().map(told).collect());
                continue;
            }
            start[at] = Some(next);
            let mut own = Vec::new();
            for _ in measures.iter() {
                let single: Vec<(f64, Option<[f64; 2]>)> = (next_seed..next_seed + method.ranks.len())
                    .map(|c| (seed_means[c], seed_draws.as_ref().map(|d| d.interval(c, config.confidence))))
                    .collect();
                next_seed += method.ranks.len();
                let spread = Spread::of(&single.iter().map(|(mean, _)| *mean).collect::<Vec<_>>());
                own.push(Some(Figure {
                    value: means[next],
                    interval: draws.as_ref().map(|d| d.interval(next, config.confidence)),
                    deviation: spread.and_then(|spread| spread.deviation),
                    seeds: single,
                }));
                next += 1;
            }
            figures.push(own);
        }
        let mut tests = Vec::new();
        if let (Some(reference), Some(draws)) = (reference, &draws) {
            for (method, metric) in
                (0..methods.len()).flat_map(|method| (0..measures.len()).map(move |metric| (method, metric)))
            {
                let (Some(a), Some(b)) = (start[method], start[reference]) else { continue };
                if method == reference {
                    continue;
                }
                let (a, b) = (a + metric, b + metric);
                let differences = paired.user_differences(a, b);
                let signed = wilcoxon(&differences, Zeros::Drop);
                tests.push(Test {
                    method,
                    metric,
                    difference: draws.difference(a, b, config.confidence),
                    wilcoxon: signed,
                    bootstrap_holm: 1.0,
                    wilcoxon_holm: 1.0,
                    d_z: cohens_dz(&differences),
                    rank_biserial: rank_biserial(&signed),
                });
            }
        }
        let corrected = |p: &dyn Fn(&Test) -> f64| holm(&tests.iter().map(p).collect::<Vec<_>>());
        let (by_bootstrap, by_wilcoxon) = (corrected(&|t| t.difference.p), corrected(&|t| t.wilcoxon.p));
        for ((test, bootstrap), wilcoxon) in tests.iter_mut().zip(by_bootstrap).zip(by_wilcoxon) {
            (test.bootstrap_holm, test.wilcoxon_holm) = (bootstrap, wilcoxon);
        }
        Subset { name: name.to_owned(), n_rows: places.len(), n_users: paired.n_users(), figures, tests }
    }
}

/// A figure as the run's own table has it.
fn quoted(method: &Method, key: &str) -> Option<Figure> {
    let told = method.quoted.as_ref()?;
    let value = told[key].as_f64()?;
    let ends = &told[format!("{key}_ci")];
    let interval = ends[0].as_f64().zip(ends[1].as_f64()).map(|(low, high)| [low, high]);
    Some(Figure { value, interval, deviation: None, seeds: vec![(value, interval)] })
}
