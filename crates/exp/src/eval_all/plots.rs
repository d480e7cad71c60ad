//! Which numbers the report draws.

use super::{
    curves::curve,
    measure::{Figure, Subset},
    methods::Kind,
    sections::Report,
    svg::{Bar, BarGroup, Line, Plot, Words, bars, lines},
};

/// A method told about so many rows.
pub(super) struct BudgetPoint {
    pub(super) method: usize,
    pub(super) rows: f64,
    pub(super) value: f64,
    pub(super) interval: Option<[f64; 2]>,
}

fn bar(figure: &Option<Figure>) -> Option<Bar> {
    figure.as_ref().map(|figure| Bar { value: figure.value, interval: figure.interval })
}

fn names<'a>(report: &Report<'a>) -> Vec<&'a str> {
    report.methods.iter().map(|method| method.name.as_str()).collect()
}

/// Every metric of every method.
pub(super) fn quality(report: &Report<'_>) -> Plot {
    let all = &report.findings.subsets[0];
    let groups: Vec<BarGroup> = report
        .config
        .measures()
        .iter()
        .enumerate()
        .map(|(at, measure)| BarGroup {
            name: measure.label(),
            bars: all.figures.iter().map(|figures| bar(&figures[at])).collect(),
        })
        .collect();
    let words = Words {
        id: "quality",
        title: "Metrics of every method",
        description: "Bars are means over the test rows with seeds averaged; whiskers are bootstrap intervals over users. \
                      The table below has the numbers.",
        x: "metric",
        y: "mean over test rows",
    };
    bars(&words, &names(report), &groups)
}

/// The headline in each bucket.
pub(super) fn popularity(report: &Report<'_>, parts: &[&Subset]) -> Plot {
    let (at, rare) = (report.config.headline(), report.findings.subset("rare"));
    let rare = rare.filter(|subset| subset.n_rows > 0);
    let groups: Vec<BarGroup> = parts
        .iter()
        .copied()
        .chain(rare)
        .map(|subset| BarGroup {
            name: subset.name.clone(),
            bars: subset.figures.iter().map(|figures| bar(&figures[at])).collect(),
        })
        .collect();
    let label = report.config.headline.to_uppercase();
    let words = Words {
        id: "popularity",
        title: &format!("{label} by popularity of the target"),
        description: "One group of bars for each bucket of items, from the most popular to those never seen in training, and one \
                      for rare items; whiskers are bootstrap intervals over users.",
        x: "popularity of the target",
        y: &label,
    };
    bars(&words, &names(report), &groups)
}

/// Validation and training loss of the first seed of each trained method, as far as runs wrote them.
pub(super) fn training(report: &Report<'_>) -> Vec<Plot> {
    let trained: Vec<_> = report.methods.iter().enumerate().filter(|(_, method)| method.is_trained()).collect();
    let draw = |id: &str, name: &str, title: &str, y: &str| {
        let series: Vec<Line> = trained
            .iter()
            // another kind of model counts other steps
            .filter(|(_, method)| method.kind != Kind::Teacher)
            .filter_map(|(at, method)| {
                let past = method.runs.first()?;
                let points = curve(&past.path, name);
                (!points.is_empty()).then(|| Line {
                    name: format!("{} (seed {})", method.name, past.seed),
                    series: *at,
                    points,
                    ends: Vec::new(),
                })
            })
            .collect();
        let description = "One line for each trained student, its first seed, over optimizer steps.";
        (!series.is_empty()).then(|| lines(&Words { id, title, description, x: "step", y }, &series))
    };
    let label = report.config.headline.to_uppercase();
    let valid = draw(
        "valid",
        &format!("valid/{}", report.config.headline),
        &format!("{label} on the validation rows"),
        &format!("{label}, validation"),
    );
    let loss = draw("loss", "train/epoch_loss", "Training loss of each epoch", "training loss");
    valid.into_iter().chain(loss).collect()
}

/// Students that were told about a known number of rows, by that number; those that learnt alone stand at 0.
pub(super) fn budget_points(report: &Report<'_>) -> Vec<BudgetPoint> {
    let at = report.config.headline();
    let point = |(method, cost): (usize, &super::costs::Cost)| {
        let rows = match report.methods[method].kind {
            Kind::Student => 0.0,
            _ => cost.labelled_rows?,
        };
        let figure = report.findings.subsets[0].figures[method][at].as_ref()?;
        Some(BudgetPoint { method, rows, value: figure.value, interval: figure.interval })
    };
    let mut points: Vec<BudgetPoint> = report.costs.iter().enumerate().filter_map(point).collect();
    points.sort_by(|a, b| a.rows.total_cmp(&b.rows));
    points
}

/// The headline over the number of labelled rows.
pub(super) fn budget(report: &Report<'_>, points: &[BudgetPoint]) -> Plot {
    let label = report.config.headline.to_uppercase();
    // a mark each: several may have the same number of rows
    let mark = |point: &BudgetPoint| Line {
        name: report.methods[point.method].name.clone(),
        series: point.method,
        points: vec![(point.rows, point.value)],
        ends: vec![point.interval.unwrap_or([point.value; 2])],
    };
    let marks: Vec<Line> = points.iter().map(mark).collect();
    let words = Words {
        id: "budget",
        title: &format!("{label} against labelled rows"),
        description: "Each mark is a method, at the number of training rows that its teacher labelled; whiskers are bootstrap \
                      intervals over users.",
        x: "labelled training rows",
        y: &label,
    };
    lines(&words, &marks)
}
