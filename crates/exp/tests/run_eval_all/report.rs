//! What the report says agrees with what the runs said, and the page is well-formed.

use anyo_core::data::{Column, read_parquet};

use crate::project::{Project, QUICK};

/// `results.parquet` by column.
pub(crate) struct Results {
    texts: Vec<Vec<String>>,
    numbers: Vec<Vec<Option<f64>>>,
}

const TEXTS: [&str; 3] = ["subset", "method", "metric"];
const NUMBERS: [&str; 9] = [
    "value",
    "ci_low",
    "ci_high",
    "deviation",
    "difference",
    "p_bootstrap",
    "p_bootstrap_holm",
    "p_wilcoxon",
    "p_wilcoxon_holm",
];

impl Results {
    pub(crate) fn read(project: &Project, run: &str) -> Self {
        let path = project.at(&format!("{run}/results.parquet"));
        let texts = read_parquet(&path, &TEXTS).unwrap().into_iter().map(|column| match column {
            Column::Text(values) => values,
            other => panic!("{other:?}"),
        });
        let numbers = read_parquet(&path, &NUMBERS).unwrap().into_iter().map(|column| match column {
            Column::F64OrNull(values) => values,
            other => panic!("{other:?}"),
        });
        Self { texts: texts.collect(), numbers: numbers.collect() }
    }

    /// The lines of a subset, method and metric: one for each seed, ascending, then that of all seeds.
    pub(crate) fn lines(&self, subset: &str, method: &str, metric: &str) -> Vec<Vec<Option<f64>>> {
        let wanted = [subset, method, metric];
        let rows =
            (0..self.texts[0].len()).filter(|&row| (0..3).all(|column| self.texts[column][row] == wanted[column]));
        rows.map(|row| self.numbers.iter().map(|column| column[row]).collect()).collect()
    }

    fn value(&self, subset: &str, method: &str, metric: &str) -> f64 {
        self.lines(subset, method, metric).last().unwrap()[0].unwrap()
    }
}

#[test]
fn a_report_of_finished_runs() {
    let project = Project::new();
    for (dir, words) in [
        ("a1", ["seed=1", "student=sasrec"]),
        ("a2", ["seed=2", "student=sasrec"]),
        ("g1", ["seed=1", "student=gru4rec"]),
        ("g2", ["seed=2", "student=gru4rec"]),
    ] {
        project.student(dir, &words);
    }
    let words = ["named={plain: [a1, a2], \"gru & <4>\": [g1, g2]}", "reference=plain", "run.dir=c"];
    let said = project.compare(&[&words[..], QUICK].concat()).done();
    for part in ["plain", "gru & <4>", "popularity", "item_knn", "reference", "report: c/report.html", "120 users"] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }

    // every figure of a single seed is the one that the run itself told, by other code
    let results = Results::read(&project, "c");
    for (method, runs) in [("plain", ["a1", "a2"]), ("gru & <4>", ["g1", "g2"])] {
        for metric in ["hr@10", "ndcg@10", "hr@20", "ndcg@20"] {
            let lines = results.lines("all", method, metric);
            assert_eq!(lines.len(), 3);
            let told = runs.map(|run| project.json(&format!("{run}/metrics/test.json"))[metric].as_f64().unwrap());
            for (line, told) in lines.iter().zip(told) {
                assert!((line[0].unwrap() - told).abs() < 1e-12, "{method} {metric}: {line:?} {told}");
            }
            let all = &lines[2];
            assert!((all[0].unwrap() - (told[0] + told[1]) / 2.0).abs() < 1e-12);
            assert!((all[3].unwrap() - (told[0] - told[1]).abs() / 2f64.sqrt()).abs() < 1e-12, "two seeds: |a − b|/√2");
            assert!(all[1].unwrap() <= all[0].unwrap() && all[0].unwrap() <= all[2].unwrap());
            assert_eq!(all[4].is_some(), method != "plain", "the reference is not tested against itself");
        }
    }
    // the rows without gradients too, and the buckets as the run cut them
    let compare = project.json("a1/metrics/compare.json");
    for name in ["popularity", "item_knn", "recent_popularity"] {
        let told = compare[name]["ndcg@20"].as_f64().unwrap();
        assert!((results.value("all", name, "ndcg@20") - told).abs() < 1e-12);
        let test = results.lines("all", name, "ndcg@20").remove(0);
        assert!((test[4].unwrap() - (told - results.value("all", "plain", "ndcg@20"))).abs() < 1e-12);
        for p in [(5, 6), (7, 8)] {
            assert!(test[p.0].unwrap() > 0.0 && test[p.0] <= test[p.1] && test[p.1].unwrap() <= 1.0, "{test:?}");
        }
    }
    let buckets = [project.json("a1/metrics/buckets.json"), project.json("a2/metrics/buckets.json")];
    for (at, name) in ["head", "mid", "tail"].into_iter().enumerate() {
        let told = buckets.each_ref().map(|b| b["test"]["popularity"][at]["ndcg@10"].as_f64().unwrap());
        let got = results.value(name, "plain", "ndcg@10");
        assert!((got - (told[0] + told[1]) / 2.0).abs() < 1e-12, "{name}: {got} {told:?}");
    }
    assert!(
        results.lines("rare", "plain", "hr@10").len() == 3 && results.lines("rare", "item_knn", "hr@10").len() == 1
    );

    let page = project.read("c/report.html");
    balanced(&page);
    for word in ["NaN", "inf<", "http:", "https:", "<script", "url(", "src=", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
    // bars, buckets, validation, training loss
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(page.contains("gru &amp; &lt;4&gt;") && !page.contains("gru & <4>"));
    let quality = project.read("c/plots/quality.svg");
    balanced(&quality);
    assert!(
        quality.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && quality.contains("prefers-color-scheme")
    );
    let hash =
        project.read("a1/run.yaml").lines().find_map(|l| l.trim().strip_prefix("hash: ").map(str::to_owned)).unwrap();
    let markdown = project.read("c/report.md");
    for plot in ["quality", "popularity", "valid", "loss"] {
        assert!(
            markdown.contains(&format!("](plots/{plot}.svg)")) && project.at(&format!("c/plots/{plot}.svg")).is_file()
        );
    }
    for text in [&page, &markdown] {
        for part in [hash.as_str(), "leave_one_out", "seeds of plain", "named=", "per user p50", "Rare items", "date"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("NaN"));
    }
}

#[test]
fn methods_get_names_and_older_runs_still_compare() {
    let project = Project::new();
    // a sweep folder stands for its jobs
    project.student("s", &["-m", "seed=1,2"]);
    // as runs were before they kept the ranks of the rows beside the model
    for job in [0, 1] {
        std::fs::remove_file(project.at(&format!("s/{job}/metrics/other_ranks.parquet"))).unwrap();
    }
    let said = project.compare(&[&["runs=[s]", "run.dir=c"], QUICK].concat()).done();
    assert!(said.err.contains("popularity has no ranks by user there, so it is not tested"), "{}", said.err);
    let results = Results::read(&project, "c");
    let told = project.json("s/0/metrics/compare.json")["popularity"]["hr@10"].as_f64().unwrap();
    let line = results.lines("all", "popularity", "hr@10").remove(0);
    assert_eq!((line[0], line[4], line[5]), (Some(told), None, None));
    assert_eq!(results.lines("all", "student baseline", "hr@10").len(), 3);
}

/// Runs of run-distill have the same files; here the record of a student's run says that it is one.
#[test]
fn quality_against_labelled_rows() {
    let project = Project::new();
    for (dir, rows) in [("plain", None), ("few", Some(50)), ("many", Some(100))] {
        let width = if dir == "many" { "student.d_model=8" } else { "student.d_model=16" };
        project.student(dir, &["seed=1", width]);
        let Some(rows) = rows else { continue };
        let path = project.at(&format!("{dir}/run.yaml"));
        let record = std::fs::read_to_string(&path).unwrap().replace("app: run-student-baseline", "app: run-distill");
        std::fs::write(&path, format!("{record}labelled_rows: {rows}\n")).unwrap();
    }
    project.compare(&[&["runs=[plain]", "named={few: [few], many: [many]}", "run.dir=c"], QUICK].concat()).done();
    let page = project.read("c/report.html");
    balanced(&page);
    assert_eq!(page.matches("<svg").count(), 5);
    let markdown = project.read("c/report.md");
    let section = markdown.split("## Quality against labelling cost").nth(1).unwrap().split("##").next().unwrap();
    let at = |text: &str| section.find(text).unwrap_or_else(|| panic!("{text} in {section}"));
    assert!(at("| student baseline | 0 |") < at("| few | 50 |") && at("| few | 50 |") < at("| many | 100 |"));
    // the same where a distilled student is the reference, and a mark of its own for each method
    project
        .compare(&[&["runs=[plain]", "named={few: [few], many: [many]}", "reference=few", "run.dir=r"], QUICK].concat())
        .done();
    let again = project.read("r/report.md");
    for row in ["| student baseline | 0 |", "| few | 50 |", "| many | 100 |"] {
        assert!(again.contains(row), "{row}");
    }
    let plot = project.read("r/plots/budget.svg");
    for mark in ["student baseline: 0 → ", "few: 50 → ", "many: 100 → "] {
        assert!(plot.contains(mark), "{mark}");
    }
    // the plain student stands above the distilled ones, whatever their names
    let quality = markdown.split("## Quality\n").nth(1).unwrap();
    assert!(quality.find("| student baseline |") < quality.find("| few |"));
}

/// Every tag is closed in its order.
fn balanced(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("`<` without `>`: {part}"));
        if tag.starts_with('!') || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "in {part}"),
            None => open.push(tag.split_whitespace().next().unwrap_or_default()),
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}
