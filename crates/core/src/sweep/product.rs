//! Which jobs a sweep has: the full product in the order typed, the last key fastest.

use crate::config::{
    Problem, Report, SearchPath,
    lexer::Parsed,
    overrides::{Op, Override},
};

/// More jobs than this is a typing mistake.
const LIMIT: usize = 10_000;

/// All jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The swept keys in the order typed.
    pub(crate) swept: Vec<String>,
    /// The jobs in the order of running.
    pub(crate) jobs: Vec<JobPlan>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobPlan {
    /// All its overrides.
    pub(crate) words: Vec<String>,
    /// Its value of each swept key.
    pub(crate) values: Vec<String>,
}

impl Plan {
    /// `seed=1 active=entropy` of a job.
    pub(crate) fn swept_words(&self, job: usize) -> String {
        let values = self.swept.iter().zip(&self.jobs[job].values);
        values.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }
}

/// Multiplies out the swept words.
pub(crate) fn plan(words: &[Override], search: &SearchPath) -> Result<Plan, Report> {
    let mut plan = Plan { swept: Vec::new(), jobs: vec![JobPlan { words: Vec::new(), values: Vec::new() }] };
    let mut problems = Vec::new();
    for word in words {
        let values: Option<Vec<String>> = match &word.value {
            Some(Parsed::Sweep(items)) => Some(items.iter().map(|item| item.text.clone()).collect()),
            Some(Parsed::Glob(pattern)) => match options(word, pattern, search) {
                Ok(options) => Some(options),
                Err(problem) => {
                    problems.push(problem);
                    None
                }
            },
            _ => None,
        };
        let Some(values) = values else {
            plan.jobs.iter_mut().for_each(|job| job.words.push(word.word.clone()));
            continue;
        };
        let target = word.target();
        if target == "run.dir" {
            let hint = Some("the jobs are numbered folders below one run.dir".into());
            problems.push(Problem { hint, ..Problem::new("", format!("`run.dir` cannot be swept ({word})")) });
        }
        if plan.swept.contains(&target) {
            problems.push(Problem::new("", format!("`{target}` is swept twice ({word})")));
        }
        let mark = match word.op {
            Op::Set => "",
            Op::Add => "+",
            Op::Force => "++",
            Op::Delete => "~",
        };
        plan.swept.push(target.clone());
        if plan.jobs.len() * values.len() > LIMIT {
            problems.push(Problem::new("", format!("the sweep has more than {LIMIT} jobs ({word})")));
            break;
        }
        let one = |job: &JobPlan, value: &String| {
            let mut job = job.clone();
            job.words.push(format!("{mark}{target}={value}"));
            job.values.push(value.clone());
            job
        };
        plan.jobs = plan.jobs.iter().flat_map(|job| values.iter().map(move |value| one(job, value))).collect();
    }
    if problems.is_empty() { Ok(plan) } else { Err(Report { problems }) }
}

/// The options of a group that match `glob(pattern)`.
fn options(word: &Override, pattern: &str, search: &SearchPath) -> Result<Vec<String>, Problem> {
    if !search.is_group(&word.key) {
        let hint = Some("glob() lists the options of a group; for values write choice(a,b)".into());
        return Err(Problem { hint, ..Problem::new("", format!("`{}` is not a group ({word})", word.key)) });
    }
    let all = search.options(&word.key);
    let options: Vec<String> = all.iter().filter(|option| matches(pattern, option)).cloned().collect();
    if options.is_empty() {
        let message = format!("glob({pattern}) matches no option; available: {}", all.join(", "));
        return Err(Problem::new(&word.key, message));
    }
    Ok(options)
}

/// `*` any text, `?` any one character.
fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text.chars();
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let after = &pattern[1..];
            (0..=text.len()).filter(|i| text.is_char_boundary(*i)).any(|i| matches(after, &text[i..]))
        }
        Some('?') => rest.next().is_some() && matches(&pattern[1..], rest.as_str()),
        Some(c) => rest.next() == Some(c) && matches(&pattern[c.len_utf8()..], rest.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse_words;

    fn jobs(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let plan = plan(&parse_words(&words).unwrap(), &SearchPath::new([])).unwrap();
        plan.jobs.iter().map(|job| job.words.join(" ")).collect()
    }

    #[test]
    fn the_product_runs_in_the_order_typed_last_key_fastest() {
        let all = jobs(&["a=1,2", "x=k=v", "b=choice(u,'v w')", "+c=range(2)"]);
        assert_eq!(
            all,
            [
                "a=1 x=k=v b=u +c=0",
                "a=1 x=k=v b=u +c=1",
                "a=1 x=k=v b='v w' +c=0",
                "a=1 x=k=v b='v w' +c=1",
                "a=2 x=k=v b=u +c=0",
                "a=2 x=k=v b=u +c=1",
                "a=2 x=k=v b='v w' +c=0",
                "a=2 x=k=v b='v w' +c=1",
            ]
        );
        assert_eq!(jobs(&["lr=range(0.1,0.4,0.1)"]), ["lr=0.1", "lr=0.2", "lr=0.3"]);
        assert_eq!(jobs(&["a=[1,2],[3]"]), ["a=[1,2]", "a=[3]"]);
    }

    #[test]
    fn glob_patterns() {
        for (pattern, text, fits) in [
            ("*", "toy", true),
            ("movielens-*", "movielens-1m", true),
            ("movielens-*", "lastfm", false),
            ("t?y", "toy", true),
            ("*m", "movielens-1m", true),
            ("", "toy", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
