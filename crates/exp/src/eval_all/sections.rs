//! The report's sections, from what was found.

use anyo_core::{data::Dataset, run::read_record};
use serde_json::Value;

use super::{
    config::EvalAllConfig,
    costs::Cost,
    document::{Block, Document, NONE, Section, Table, bytes, count, four, maybe, p_value, range, seconds, signed},
    measure::{Findings, Subset, Test},
    methods::Method,
    plots,
};

/// All that the report tells.
pub(super) struct Report<'a> {
    pub(super) config: &'a EvalAllConfig,
    pub(super) dataset: &'a Dataset,
    pub(super) protocol: &'a str,
    pub(super) methods: &'a [Method],
    pub(super) findings: &'a Findings,
    /// One for each method.
    pub(super) costs: &'a [Cost],
    /// Things a reader must know: rows without ranks, unequal numbers of seeds.
    pub(super) notes: &'a [String],
    /// The folder of this comparison.
    pub(super) folder: &'a std::path::Path,
}

impl Report<'_> {
    /// The report.
    pub(super) fn document(&self) -> Document {
        let sections = [
            self.summary(),
            self.quality(),
            self.differences(),
            self.rare(),
            self.popularity(),
            self.training(),
            self.budget(),
            self.costs(),
            self.origin(),
            self.definitions(),
        ];
        Document {
            title: format!("Comparison on {}", self.dataset.name),
            sections: sections.into_iter().filter(|section| !section.blocks.is_empty()).collect(),
        }
    }

    fn all(&self) -> &Subset {
        &self.findings.subsets[0]
    }

    fn reference(&self) -> &str {
        &self.methods[self.findings.reference].name
    }

    /// Whether both corrected tests are below 1 − confidence.
    fn verdict(&self, test: &Test) -> &'static str {
        let alpha = 1.0 - self.config.confidence;
        let sure = test.bootstrap_holm < alpha && test.wilcoxon_holm < alpha;
        match (sure, test.difference.value > 0.0, test.rank_biserial.is_some_and(|r| r > 0.0)) {
            (true, true, true) => "better",
            (true, false, false) => "worse",
            (true, ..) => "mean and signs disagree",
            (false, ..) => "not separable",
        }
    }

    fn relative(&self, subset: &Subset, test: &Test) -> Option<f64> {
        let base = subset.figures[self.findings.reference][test.metric].as_ref()?.value;
        (base > 0.0).then(|| 100.0 * test.difference.value / base)
    }

    fn summary(&self) -> Section {
        let (all, at) = (self.all(), self.config.headline());
        let mut blocks = vec![Block::Text(format!(
            "{} test rows of {} users, {} items; every method is tested against `{}`.",
            count(all.n_rows as f64),
            count(all.n_users as f64),
            count(self.dataset.n_items() as f64),
            self.reference()
        ))];
        for test in all.tests.iter().filter(|test| test.metric == at) {
            let method = &self.methods[test.method];
            let Some(figure) = &all.figures[test.method][at] else { continue };
            blocks.push(Block::Text(format!(
                "{}: {} {} – {} than the reference by {} ({}), {} interval {}, Holm-corrected p {} (bootstrap) and {} (Wilcoxon): {}.",
                method.name,
                self.config.headline.to_uppercase(),
                four(figure.value),
                if test.difference.value < 0.0 { "lower" } else { "higher" },
                four(test.difference.value.abs()),
                maybe(self.relative(all, test), |r| format!("{r:+.1} %")),
                self.percent(),
                range(Some(test.difference.interval), signed),
                p_value(test.bootstrap_holm),
                p_value(test.wilcoxon_holm),
                self.verdict(test)
            )));
        }
        blocks.extend(self.notes.iter().map(|note| Block::Text(format!("Note: {note}."))));
        Section { title: "What came out".into(), blocks }
    }

    fn percent(&self) -> String {
        // 0.95 · 100 is not exactly 95
        format!("{} %", (self.config.confidence * 1e8).round() / 1e6)
    }

    /// Metrics of all methods: mean, deviation over seeds, interval over users.
    fn figures(&self, subset: &Subset, with_intervals: bool) -> Table {
        let labels = self.config.measures().into_iter().map(|m| m.label());
        let mut table = Table::new(["method".to_owned(), "seeds".to_owned()].into_iter().chain(labels));
        for (method, figures) in self.methods.iter().zip(&subset.figures) {
            let seeds = if method.is_trained() { method.runs.len().to_string() } else { NONE.into() };
            let cell = |figure: &Option<super::measure::Figure>| {
                let Some(figure) = figure else { return NONE.to_owned() };
                let deviation = figure.deviation.filter(|_| method.is_trained());
                let deviation = deviation.map_or(String::new(), |d| format!(" ± {}", four(d)));
                let interval = figure.interval.filter(|_| with_intervals);
                let interval = interval.map_or(String::new(), |ends| format!(" {}", range(Some(ends), four)));
                format!("{}{deviation}{interval}", four(figure.value))
            };
            table.rows.push([method.name.clone(), seeds].into_iter().chain(figures.iter().map(cell)).collect());
        }
        table
    }

    /// The table for the terminal, then what it says.
    pub(super) fn terminal(&self) -> String {
        let mut table = self.figures(self.all(), false);
        let at = self.config.headline();
        table.head.extend([format!("Δ {}", self.config.headline.to_uppercase()), "p (Holm)".to_owned()]);
        for (method, row) in table.rows.iter_mut().enumerate() {
            let test = self.all().tests.iter().find(|test| test.method == method && test.metric == at);
            let cells = match test {
                Some(test) => [signed(test.difference.value), p_value(test.bootstrap_holm.max(test.wilcoxon_holm))],
                None if method == self.findings.reference => ["reference".to_owned(), NONE.to_owned()],
                None => [NONE.to_owned(), NONE.to_owned()],
            };
            row.extend(cells);
        }
        format!(
            "{}\n {} users · mean ± deviation over seeds · Δ against {} · p: the larger of bootstrap and Wilcoxon\n {}\n",
            table.to_text(),
            self.all().n_users,
            self.reference(),
            self.protocol
        )
    }

    fn quality(&self) -> Section {
        let text = format!(
            "Mean over the rows ± sample deviation over seeds; in brackets the {} bootstrap interval over users of the mean of all seeds.",
            self.percent()
        );
        let plot = plots::quality(self);
        let blocks = vec![Block::Plot(plot), Block::Text(text), Block::Table(self.figures(self.all(), true))];
        Section { title: "Quality".into(), blocks }
    }

    fn tests(&self, subset: &Subset) -> Table {
        let mut table = Table::new([
            "method",
            "metric",
            "difference",
            "relative",
            "interval",
            "p bootstrap",
            "Holm",
            "p Wilcoxon",
            "Holm",
            "d_z",
            "rank-biserial",
            "users that differ",
            "verdict",
        ]);
        for test in &subset.tests {
            let d = test.difference;
            table.rows.push(vec![
                self.methods[test.method].name.clone(),
                self.config.metrics[test.metric].to_uppercase(),
                signed(d.value),
                maybe(self.relative(subset, test), |r| format!("{r:+.1} %")),
                range(Some(d.interval), signed),
                p_value(d.p),
                p_value(test.bootstrap_holm),
                p_value(test.wilcoxon.p),
                p_value(test.wilcoxon_holm),
                maybe(test.d_z, |d| format!("{d:+.3}")),
                maybe(test.rank_biserial, |r| format!("{r:+.3}")),
                count(test.wilcoxon.n as f64),
                self.verdict(test).to_owned(),
            ]);
        }
        table
    }

    fn differences(&self) -> Section {
        let all = self.all();
        if all.tests.is_empty() {
            return Section::default();
        }
        let least = 2.0 / (self.config.resamples + 1) as f64;
        let text = format!(
            "Each method less `{}`, user by user, seeds averaged first. Holm corrects over the {} tests of a column; with {} \
             resamples the smallest bootstrap p is {}, corrected {}.",
            self.reference(),
            all.tests.len(),
            count(self.config.resamples as f64),
            p_value(least),
            p_value((least * all.tests.len() as f64).min(1.0))
        );
        let blocks = vec![Block::Text(text), Block::Table(self.tests(all))];
        Section { title: format!("Differences from {}", self.reference()), blocks }
    }

    fn rare(&self) -> Section {
        let Some(rare) = self.findings.subset("rare") else { return Section::default() };
        let mut blocks = vec![Block::Text(format!(
            "Rows whose target is a training target at most {} times: {} of {}, {} of them with a target that is none at all.",
            self.config.rare_max,
            count(rare.n_rows as f64),
            count(self.all().n_rows as f64),
            count(self.findings.never as f64)
        ))];
        if rare.n_rows > 0 {
            blocks.push(Block::Table(self.figures(rare, true)));
        }
        if !rare.tests.is_empty() {
            blocks.push(Block::Table(self.tests(rare)));
        }
        Section { title: "Rare items".into(), blocks }
    }

    fn popularity(&self) -> Section {
        let at = self.config.headline();
        let parts: Vec<&Subset> = self.findings.subsets[2..].iter().filter(|subset| subset.n_rows > 0).collect();
        if parts.is_empty() {
            return Section::default();
        }
        let head = parts.iter().map(|part| format!("{} ({} rows)", part.name, count(part.n_rows as f64)));
        let mut table = Table::new(std::iter::once("method".to_owned()).chain(head));
        for (method, own) in self.methods.iter().enumerate() {
            let cell = |part: &&Subset| part.figures[method][at].as_ref().map_or(NONE.into(), |f| four(f.value));
            table.rows.push(std::iter::once(own.name.clone()).chain(parts.iter().map(cell)).collect());
        }
        let cuts: Vec<String> =
            self.config.popularity_buckets.iter().map(|cut| format!("{:.0} %", cut * 100.0)).collect();
        let text = format!(
            "{} by popularity of the target: items in the order of their training interactions, cut where {} of the interactions are reached; `unseen` is never in training.",
            self.config.headline.to_uppercase(),
            if cuts.is_empty() { "100 %".to_owned() } else { cuts.join(" and ") }
        );
        let blocks = vec![Block::Plot(plots::popularity(self, &parts)), Block::Text(text), Block::Table(table)];
        Section { title: "By popularity of the item".into(), blocks }
    }

    fn training(&self) -> Section {
        let blocks = plots::training(self).into_iter().map(Block::Plot).collect();
        Section { title: "Training".into(), blocks }
    }

    /// Only where methods were told about different numbers of rows.
    fn budget(&self) -> Section {
        let points = plots::budget_points(self);
        let mut sizes: Vec<u64> = points.iter().map(|point| point.rows as u64).collect();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.len() < 2 {
            return Section::default();
        }
        let mut table = Table::new(["method", "labelled rows", &self.config.headline.to_uppercase(), "interval"]);
        for point in &points {
            table.rows.push(vec![
                self.methods[point.method].name.clone(),
                count(point.rows),
                four(point.value),
                range(point.interval, four),
            ]);
        }
        let text = "Training rows that the teacher labelled, against quality; a student that learns alone needs none."
            .to_owned();
        let blocks = vec![Block::Plot(plots::budget(self, &points)), Block::Text(text), Block::Table(table)];
        Section { title: "Quality against labelling cost".into(), blocks }
    }

    fn costs(&self) -> Section {
        let mut table = Table::new([
            "method",
            "training",
            "epochs",
            "export",
            "whole run",
            "parameters",
            "weights",
            "peak memory",
            "per user p50",
            "per user p95",
        ]);
        for (method, cost) in self.methods.iter().zip(self.costs) {
            table.rows.push(vec![
                method.name.clone(),
                maybe(cost.train_seconds, seconds),
                maybe(cost.epochs, |e| format!("{e:.1}")),
                maybe(cost.export_seconds, seconds),
                maybe(cost.total_seconds, seconds),
                maybe(cost.parameters, count),
                maybe(cost.weight_bytes, bytes),
                maybe(cost.peak_bytes, bytes),
                match cost.latency {
                    Some(latency) => seconds(latency.p50),
                    None => maybe(cost.export_per_row, |s| format!("{} (export)", seconds(s))),
                },
                maybe(cost.latency.map(|l| l.p95), seconds),
            ]);
        }
        let n = self.costs.iter().filter_map(|cost| cost.latency).map(|l| l.n).max().unwrap_or(0);
        let text = format!(
            "Times and peak memory are means over the seeds' runs, as those measured themselves. Per user: one history at a time, from the \
             history to the list of 20 items, measured here on the CPU ({} thread(s)) over {n} test rows with the weights of the first seed; for the \
             teacher the mean time of a row of its export, which is batched. The teacher's parameters are those beside its language model.",
            tch::get_num_threads()
        );
        Section { title: "Time and size".into(), blocks: vec![Block::Table(table), Block::Text(text)] }
    }

    fn origin(&self) -> Section {
        let record = read_record(&self.folder.join("run.yaml")).unwrap_or_default();
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or(NONE).to_owned();
        let argv = record.get("argv").and_then(Value::as_array).cloned().unwrap_or_default();
        let command: Vec<&str> = argv.iter().filter_map(Value::as_str).collect();
        let host = record.get("host").cloned().unwrap_or_default();
        let git = record.get("git").cloned().unwrap_or_default();
        let mut table = Table::new(["what", "value"]);
        let mut fact = |what: &str, value: String| table.rows.push(vec![what.to_owned(), value]);
        fact("data set", self.dataset.name.clone());
        fact("hash of data and split", self.dataset.hash.clone());
        fact("protocol", self.protocol.to_owned());
        for method in self.methods.iter().filter(|method| method.is_trained()) {
            let seeds: Vec<String> = method.runs.iter().map(|past| past.seed.to_string()).collect();
            fact(&format!("seeds of {}", method.name), seeds.join(", "));
        }
        fact("resamples, their seed", format!("{}, {}", self.config.resamples, self.config.seed));
        fact(
            "machine",
            format!(
                "{} {}, {} processors; {}",
                host["os"].as_str().unwrap_or(NONE),
                host["arch"].as_str().unwrap_or(NONE),
                host["cpus"],
                cpu()
            ),
        );
        fact("date", text("started"));
        fact("command", command.join(" "));
        fact(
            "version",
            format!("{} {}", text("version"), git["commit"].as_str().unwrap_or_default()).trim_end().to_owned(),
        );
        for method in self.methods.iter().filter(|method| method.is_trained()) {
            let runs: Vec<String> = method.runs.iter().map(|past| past.path.display().to_string()).collect();
            fact(&format!("runs of {}", method.name), runs.join(", "));
        }
        Section { title: "How it was made".into(), blocks: vec![Block::Table(table)] }
    }

    fn definitions(&self) -> Section {
        let texts = [
            "Rank of a target: 1 + items that score higher + other items that score the same, in the whole catalogue. HR@K is 1 up to rank K, NDCG@K is 1/log2(rank + 1) up to rank K.",
            "Seeds: the values of a row are averaged over a method's seeds before the paired tests, so the tests ask whether other users would agree; the deviation beside each mean tells how the figure moves with the seed.",
            "Bootstrap: users are drawn with all their rows, all methods from the same draw; percentile intervals; p = 2·min(#{d* ≤ 0} + 1, #{d* ≥ 0} + 1)/(resamples + 1).",
            "Wilcoxon: signed ranks of the users' differences, zeros left out, ties by mean rank, exact up to 25 users that differ, else normal without continuity correction.",
            "Verdict: better or worse where both Holm-corrected p values lie below 1 − confidence. d_z: mean difference by its deviation over users. Rank-biserial: (W⁺ − W⁻)/(W⁺ + W⁻).",
        ];
        Section { title: "Definitions".into(), blocks: texts.map(|text| Block::Text(text.to_owned())).into() }
    }
}

/// The processor as Linux names it.
fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("processor unknown".to_owned(), |(_, name)| name.trim().to_owned())
}
