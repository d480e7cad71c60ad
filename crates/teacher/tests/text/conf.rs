//! The shipped wordings.

use std::fs;

use anyo_core::config::{Check, Problem, SearchPath, compose_all};
use anyo_teacher::{PromptConfig, PromptMode, PromptSource};
use serde::{Deserialize, Serialize};

use crate::{byte, conf, prompts, shipped};

fn names() -> Vec<String> {
    let files = fs::read_dir(conf().join("teacher/prompt")).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Primary {
    teacher: Teacher,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Teacher {
    prompt: PromptConfig,
}

impl Check for Primary {
    fn problems(&self) -> Vec<Problem> {
        self.teacher.prompt.problems().into_iter().map(|p| p.under("teacher.prompt")).collect()
    }
}

/// As the nested group `teacher/prompt` of a teacher's file, each option is complete, in range and reads back.
#[test]
fn every_wording_composes_below_a_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("teacher/prompt")).unwrap();
    for name in names() {
        let file = format!("teacher/prompt/{name}.yaml");
        fs::copy(conf().join(&file), at(&file)).unwrap();
    }
    fs::write(at("teacher/mini.yaml"), "defaults:\n  - prompt: movies\n  - _self_\n").unwrap();
    fs::write(at("run-x.yaml"), "defaults:\n  - teacher: mini\n  - _self_\n").unwrap();
    let composed = compose_all::<Primary>(&SearchPath::new([folder.path().to_owned()]), "run-x", &[]).unwrap();
    assert_eq!(composed, 1 + 1 + names().len());
    assert_eq!(names(), ["games", "generic", "generic_ja", "movies", "movies_ja", "music"]);
}

#[test]
fn every_wording_makes_prompts_that_read_as_written() {
    let tokenizer = byte();
    for name in names() {
        let config: PromptConfig = shipped(&format!("teacher/prompt/{name}.yaml"));
        assert!(config.templates.len() >= 3, "{name}: several wordings");
        let made = prompts(&config, &["Ab", "Cd", "Ef", "Gh"], &tokenizer, 4096);
        for template in 0..made.n_templates() {
            for (candidates, history) in [(true, vec![0, 1]), (true, vec![]), (false, vec![2]), (false, vec![])] {
                let t = &config.templates[template];
                let body = if candidates { &t.choice } else { &t.open };
                let list = |items: &[usize], separator: &str, marker: &str| {
                    let shown = items.iter().map(|&i| {
                        format!("{}{}{}{marker}", config.title.open, ["Ab", "Cd", "Ef", "Gh"][i], config.title.close)
                    });
                    shown.collect::<Vec<_>>().join(separator)
                };
                let past: Vec<usize> = history.iter().map(|&i| i as usize).collect();
                let past = match past.is_empty() {
                    true => config.no_history.clone(),
                    false => list(&past, &config.separator, "[HistoryEmb]"),
                };
                let wanted = format!("{}\n{}", body.trim_end(), t.cue.trim_end())
                    .replace("{history}", &past)
                    .replace("{candidates}", &list(&[3, 2], &config.candidate_separator, "[CansEmb]"));
                let prompted = match candidates {
                    true => made.choice(&history, &[3, 2], template, PromptMode::Hybrid),
                    false => made.open(&history, template, PromptMode::Hybrid),
                };
                assert_eq!(crate::text(&made, &tokenizer, &prompted.unwrap().ids), wanted, "{name} {template}");
            }
        }
    }
}

#[test]
fn ranges_are_reported_together() {
    let mut bad: PromptConfig = shipped("teacher/prompt/movies.yaml");
    bad.window = 0;
    bad.separator = String::new();
    bad.no_history = " ".into();
    bad.title.max_tokens = Some(0);
    bad.markers.history = "[H B]".into();
    bad.markers.candidate = bad.markers.plain.clone();
    bad.max_len = Some(2);
    bad.candidates.n = 1;
    bad.templates[0].choice = "no slot".into();
    bad.templates[1].open = "{history} {titles}".into();
    bad.templates[2].cue = "x".into();
    let problems = bad.problems();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "window",
            "separator",
            "no_history",
            "title.max_tokens",
            "markers.history",
            "markers.candidate",
            "max_len",
            "candidates.n",
            "templates.0.choice",
            "templates.1.open",
            "templates.2.cue"
        ]
    );
    assert!(problems[8].message.contains("wanted the slot {history} once, got 0"));
    bad.templates.clear();
    assert!(bad.problems().iter().any(|p| p.key == "templates"));
}
