//! C1–C17 and D1–D12 without types: one table of (words, files) → YAML or error.

use std::fs;

use chrono::{Local, TimeZone};

use super::{Context, Request, SearchPath, compose, yaml};
use crate::{Error, log::error_lines};

/// A small project in the manner of the real one.
const FILES: &[(&str, &str)] = &[
    (
        "run-x.yaml",
        "defaults:\n  - dataset: steam\n  - student: sasrec\n  - active: null\n  - _self_\nseed: 42\nlayers: [1, 2, 3]\n\
         train: {epochs: 200, lr: 1e-3}\nrun: {dir: \"result/result_${now}\"}\n",
    ),
    ("dataset/steam.yaml", "path: data/steam\nmax_len: 50\n"),
    ("dataset/movielens.yaml", "path: data/ml\nk_core: 5\n"),
    ("dataset/lastfm.yaml", "path: data/lastfm\n"),
    ("student/sasrec.yaml", "defaults: [{optim: adam}, _self_]\nname: sasrec\nd_model: 50\n"),
    ("student/gru4rec.yaml", "name: gru4rec\nhidden: 64\n"),
    ("student/optim/adam.yaml", "lr: 0.001\n"),
    ("student/optim/sgd.yaml", "momentum: 0.9\n"),
    ("active/random.yaml", "fraction: 0.5\n"),
    (
        "experiment/long.yaml",
        "# @package _global_\ndefaults:\n  - override /dataset: movielens\n  - _self_\ntrain: {epochs: 999}\n",
    ),
];

struct Project {
    _dir: tempfile::TempDir,
    search: SearchPath,
}

fn project(files: &[(&str, &str)]) -> Project {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("conf");
    for (name, text) in files {
        let path = conf.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Project { search: SearchPath::new([conf]), _dir: dir }
}

/// The YAML below `part`, or the lines that a user reads.
fn outcome(project: &Project, words: &[&str], part: &str) -> String {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let env = |name: &str| (name == "USER_DIR").then(|| "/home/me".to_owned());
    let context = Context { now: Local.with_ymd_and_hms(2026, 8, 1, 10, 15, 0).unwrap(), env: &env };
    let request = Request {
        app: "run-x",
        examples: &["run-x teacher_run=result/result_20260801_101500"],
        primary: "run-x",
        search: &project.search,
        words: &words,
        base: None,
        forced: vec![],
        context,
    };
    let composed = match compose(&request) {
        Ok(composed) => composed,
        Err(report) => return error_lines(&Error::Config(report)),
    };
    let mut problems = composed.problems.clone();
    problems.extend(composed.missing_problem());
    if !problems.is_empty() {
        return error_lines(&Error::Config(super::Report { problems }));
    }
    let notes: String = composed.notes.iter().map(|n| format!("note: {n}\n")).collect();
    match composed.tree.at(part) {
        Some(value) => notes + &yaml::block(value, &|_, _| None),
        None => notes + "absent\n",
    }
}

/// All rows that differ, not only the first.
fn compare(rows: impl Iterator<Item = (String, String, String)>) {
    let wrong: Vec<String> = rows
        .filter(|(_, got, wanted)| got.trim_end() != wanted)
        .map(|(row, got, wanted)| format!("{row}\n  got:    {}\n  wanted: {wanted}", got.trim_end()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values() {
    let project = project(FILES);
    let rows = [
        // C1, C2: groups first wherever they stand, then values left to right.
        (&["dataset.max_len=5", "dataset=steam"][..], "dataset", "path: data/steam\nmax_len: 5"),
        (&["dataset=steam", "dataset.max_len=5"], "dataset", "path: data/steam\nmax_len: 5"),
        // C3: another option replaces the whole file.
        (&["dataset=movielens"], "dataset", "path: data/ml\nk_core: 5"),
        (&["student=gru4rec"], "student", "name: gru4rec\nhidden: 64"),
        // C5.
        (&["train.lr=.5"], "train.lr", "0.5"),
        (&["seed=1_000"], "seed", "1000"),
        (&["train.lr="], "train.lr", "''"),
        (&["train={epochs: 5}"], "train", "epochs: 5\nlr: 0.001"),
        (&["layers=[9]"], "layers", "[9]"),
        (&["layers.0=9"], "layers", "[9, 2, 3]"),
        (&["layers.2={a: 1}"], "layers", "[1, 2, {a: 1}]"),
        (&["train.lr=k=v"], "train.lr", "k=v"),
        (&["train.lr=k\\=v"], "train.lr", "k=v"),
        // 7.1.
        (&["+train.warmup=5"], "train", "epochs: 200\nlr: 0.001\nwarmup: 5"),
        (&["+train={warmup: 5}"], "train", "epochs: 200\nlr: 0.001\nwarmup: 5"),
        (&["+layers=[7]"], "layers", "[7]"),
        (&["++a.b.c=1"], "a", "b:\n  c: 1"),
        (&["++seed=3"], "seed", "3"),
        (&["~train.lr"], "train", "epochs: 200"),
        (&["~seed=42"], "seed", "absent"),
        (&["~train"], "train", "absent"),
        (&["~train.lr", "+train.lr=2"], "train", "epochs: 200\nlr: 2"),
        // Groups.
        (&["active=random"], "active", "fraction: 0.5"),
        (&["active=null"], "active", "absent"),
        (&["~student"], "student", "absent"),
        (&["~dataset=steam"], "dataset", "absent"),
        (&["+dataset@source=lastfm"], "source", "path: data/lastfm"),
        (&["student/optim=sgd"], "student.optim", "momentum: 0.9"),
        (&["dataset=movielens.yaml"], "dataset.k_core", "5"),
        // C8: an experiment overrides choices that stand before it, and values of the primary file.
        (&["+experiment=long"], "dataset.path", "data/ml"),
        (&["+experiment=long"], "train.epochs", "999"),
        (&["+experiment=long", "dataset=lastfm", "train.epochs=1"], "dataset.path", "data/lastfm"),
        // C10.
        (&["run.dir=result/result_${now:%Y}_${seed}"], "run.dir", "result/result_2026_42"),
        (&[], "run.dir", "result/result_20260801_101500"),
        (&["train.lr=${seed}"], "train.lr", "42"),
        (&["train.lr=x${seed}"], "train.lr", "x42"),
        (&["+copy=${train}"], "copy", "epochs: 200\nlr: 0.001"),
        (&["dataset.path=${oc.env:USER_DIR}/data"], "dataset.path", "/home/me/data"),
        (&["dataset.path=${oc.env:NOT_SET,none}"], "dataset.path", "none"),
        (&["train.epochs=${oc.env:NOT_SET,${seed}}"], "train.epochs", "42"),
        (&["train.lr=${.epochs}"], "train.lr", "200"),
        (&["train.lr='\\${seed}'"], "train.lr", "\"${seed}\""),
        // D9.
        (&["seed=1", "seed=2"], "seed", "note: `seed` given twice; using the last one, 2\n2"),
    ];
    compare(
        rows.iter()
            .map(|(words, part, wanted)| (format!("{words:?}"), outcome(&project, words, part), (*wanted).to_owned())),
    );
}

#[test]
fn errors() {
    let project = project(FILES);
    let rows = [
        // 7.4, word for word.
        (
            &["dataset=netflix"][..],
            "error: dataset: no option `netflix` in conf/dataset/; available: lastfm, movielens, steam",
        ),
        (
            &["seed=1,2"],
            "error: `seed=1,2` is a sweep, but this is a single run\n  hint: to sweep add -m; for a list write seed=[1,2]; \
             for text write seed='\"1,2\"'",
        ),
        (
            &["dataset=steam,lastfm"],
            "error: `dataset=steam,lastfm` is a sweep, but this is a single run\n  hint: to sweep add -m",
        ),
        (&["seed=range(3)"], "error: `seed=range(3)` is a sweep, but this is a single run\n  hint: to sweep add -m"),
        (
            &["seed=???", "+teacher_run=???"],
            "error: 2 values must be given: seed, teacher_run\n  hint: run-x seed=VALUE teacher_run=result/result_20260801_101500",
        ),
        (&["seed=???"], "error: 1 value must be given: seed\n  hint: run-x seed=VALUE"),
        // 7.1.
        (
            &["+seed=1"],
            "error: `seed` is there already: 42 (from conf/run-x.yaml) (override 1: `+seed=1`)\n  hint: to change it drop the +: seed=1",
        ),
        (&["~sed"], "error: unknown key `sed` (override 1: `~sed`)\n  hint: did you mean `seed`?"),
        (&["~seed=1"], "error: `seed` is 42, not 1 (override 1: `~seed=1`)"),
        (&["seed.x=1"], "error: `seed` is 42, not a group of keys (override 1: `seed.x=1`)"),
        (&["layers.7=1"], "error: `layers` is a list of 3; it has no element `7` (override 1: `layers.7=1`)"),
        (&["active=nothing"], "error: active: no option `nothing` in conf/active/; available: random"),
        (
            &["experiment=long"],
            "error: experiment: is not in the defaults list of conf/run-x.yaml (override 1: `experiment=long`)\n  hint: to add it \
             write +experiment=long; in the list: dataset, student, student/optim, active",
        ),
        (
            &["+dataset=lastfm"],
            "error: dataset: is already in the defaults list: steam (override 1: `+dataset=lastfm`)\n  hint: to choose another \
             option write dataset=lastfm",
        ),
        (&["~dataset=lastfm"], "error: dataset: the option is `steam`, not `lastfm` (override 1: `~dataset=lastfm`)"),
        (
            &["~experiment"],
            "error: experiment: is not in the defaults list of conf/run-x.yaml (override 1: `~experiment`)\n  hint: in the list: \
             dataset, student, student/optim, active",
        ),
        (
            &["dataset@src=lastfm"],
            "error: dataset@src: is not in the defaults list of conf/run-x.yaml (override 1: `dataset@src=lastfm`)\n  hint: did you \
             mean `dataset=lastfm`? to add it write +dataset@src=lastfm",
        ),
        (
            &["dataset={path: x}"],
            "error: dataset: one option is needed, got {path: x} (override 1: `dataset={path: x}`)\n  hint: `dataset` is a group of \
             files; to change one of its values write dataset.KEY=VALUE",
        ),
        (
            &["datsets/x=1"],
            "error: there is no group `datsets/x` (override 1: `datsets/x=1`)\n  hint: groups: active, dataset, experiment, student, student/optim",
        ),
        // D8.
        (
            &["dataset=null"],
            "error: dataset: one option is needed, got null; available: lastfm, movielens, steam (override 1: `dataset=null`)\n  \
             hint: to leave the group out write ~dataset",
        ),
        // D11 and what is left out.
        (
            &["hydra.run.dir=x"],
            "error: there are no `hydra.*` keys here (override 1: `hydra.run.dir=x`)\n  hint: write run.dir=x",
        ),
        (
            &["hydra.mode=MULTIRUN"],
            "error: there are no `hydra.*` keys here (override 1: `hydra.mode=MULTIRUN`)\n  hint: write -m to sweep",
        ),
        (
            &["hydra/launcher=joblib"],
            "error: the plug-in group `hydra/launcher` is not offered here (override 1: `hydra/launcher=joblib`)\n  hint: sweeps run \
             one child process after the other with -m",
        ),
        (
            &["student._target_=a.B"],
            "error: `_target_` is not offered here; closed choices are groups (override 1: `student._target_=a.B`)",
        ),
        // Words that are none, all in one report.
        (
            &["seed", "=3", "a b=1", "x=[1"],
            "error: `seed` is not an override: there is no `=` (override 1)\n  hint: write seed=VALUE\n\
             error: the key is missing (override 2: `=3`)\n  hint: a key is names with dots between, such as train.epochs\n\
             error: the key `a b` holds ` ` (override 3: `a b=1`)\n  hint: a key is names with dots between, such as train.epochs\n\
             error: override 4: `[` is not closed\n    x=[1\n      ^",
        ),
        // C10.
        (
            &["seed=${train.epoch}"],
            "error: seed: `${train.epoch}` names no key (override 1: `seed=${train.epoch}`)\n  hint: did you mean `train.epochs`?",
        ),
        (
            &["seed=${train.lr}", "train.lr=${seed}"],
            "error: train.lr: the references go round in a circle: seed → train.lr → seed (override 2: `train.lr=${seed}`)",
        ),
        (
            &["seed=${oc.env:NOT_SET}"],
            "error: seed: the environment variable NOT_SET is not set (override 1: `seed=${oc.env:NOT_SET}`)\n  hint: set it, or write \
             ${oc.env:NOT_SET,default}",
        ),
        (
            &["seed=x${train}"],
            "error: seed: `${train}` is a group of keys, which cannot stand inside text (override 1: `seed=x${train}`)",
        ),
        (
            &["seed=${oc.decode:1}"],
            "error: seed: there is no resolver `oc.decode` in `${oc.decode:1}` (override 1: `seed=${oc.decode:1}`)\n  hint: there are \
             ${key}, ${oc.env:NAME,default} and ${now:%Y%m%d}",
        ),
        (
            &["seed=${now:%Q}"],
            "error: seed: `%Q` is no date format (override 1: `seed=${now:%Q}`)\n  hint: for example ${now:%Y-%m-%d}",
        ),
    ];
    compare(
        rows.iter().map(|(words, wanted)| (format!("{words:?}"), outcome(&project, words, ""), (*wanted).to_owned())),
    );
}

/// A project of one primary file and what it names.
fn with_primary(primary: &str, more: &[(&str, &str)], words: &[&str], part: &str) -> String {
    let mut files =
        vec![("run-x.yaml", primary), ("db/a.yaml", "x: 1\n"), ("db/b.yaml", "x: 2\n"), ("db/a_b.yaml", "x: 12\n")];
    files.extend_from_slice(more);
    outcome(&project(&files), words, part).trim_end().to_owned()
}

#[test]
fn defaults_lists() {
    let rows = [
        // C7: order of merging.
        ("defaults: [{db: a}, _self_]\ndb: {x: 9}\n", &[][..], &[][..], "db.x", "9"),
        ("defaults: [_self_, {db: a}]\ndb: {x: 9}\n", &[], &[], "db.x", "1"),
        ("defaults: [{db@one: a}, {db@two: b}, _self_]\n", &[], &[], "two.x", "2"),
        ("defaults: [{db@one: a}, {db@two: b}, _self_]\n", &[], &["db@two=a"], "two.x", "1"),
        ("defaults: [{optional db: zzz}, _self_]\n", &[], &[], "db", "absent"),
        ("defaults: [common, _self_]\nb: 2\n", &[("common.yaml", "a: 1\nb: 1\n")], &[], "", "a: 1\nb: 2"),
        ("defaults: [{db: '???'}, _self_]\n", &[], &["db=b"], "db.x", "2"),
        ("defaults: [{db: null}, _self_]\nk: 1\n", &[], &[], "", "k: 1"),
        // Options made of other choices.
        (
            "defaults: [{db: a}, {o: b}, {db@both: '${db}_${o}'}, _self_]\n",
            &[("o/b.yaml", "y: 1\n")],
            &[],
            "both.x",
            "12",
        ),
        // Headers, absolute groups, depth first.
        ("defaults: [{g: p}, _self_]\n", &[("g/p.yaml", "# @package _global_\ntop: 1\n")], &[], "top", "1"),
        ("defaults: [{g: p}, _self_]\n", &[("g/p.yaml", "# @package a.b\ntop: 1\n")], &[], "a.b.top", "1"),
        (
            "defaults: [{g: p}, _self_]\n",
            &[("g/p.yaml", "defaults: [{/db@_global_: a}, {sub: s}, _self_]\nz: 3\n"), ("g/sub/s.yaml", "q: 4\n")],
            &[],
            "",
            "x: 1\ng:\n  sub:\n    q: 4\n  z: 3",
        ),
        (
            "defaults: [{db: a}, {g: p}, _self_]\n",
            &[("g/p.yaml", "defaults: [{override /db: b}, _self_]\n")],
            &[],
            "db.x",
            "2",
        ),
        ("", &[], &["+a=1"], "a", "1"),
        // Errors.
        (
            "defaults: [{db: a}]\n",
            &[],
            &[],
            "",
            "error: conf/run-x.yaml: the defaults list has no `_self_`\n  hint: put `- _self_` last so that this file wins over the \
             groups above it",
        ),
        (
            "defaults: [{db: '???'}, _self_]\n",
            &[],
            &[],
            "",
            "error: db: must be chosen; available: a, a_b, b\n  hint: write db=a",
        ),
        (
            "defaults: [{db: zzz}, _self_]\n",
            &[],
            &[],
            "",
            "error: db: no option `zzz` in conf/db/; available: a, a_b, b",
        ),
        (
            "defaults: [{overide /db: a}, _self_]\n",
            &[],
            &[],
            "",
            "error: conf/run-x.yaml: defaults list: unknown keyword `overide` in `overide /db`\n  hint: did you mean `override`?",
        ),
        (
            "defaults: [{override /dc: b}, _self_]\n",
            &[],
            &[],
            "",
            "error: dc: `override` in conf/run-x.yaml finds no such entry in the defaults list\n  hint: in the list: ; without \
             `override` the entry is added",
        ),
        ("defaults: {db: a}\n", &[], &[], "", "error: conf/run-x.yaml: `defaults` must be a list of `- group: option`"),
        (
            "defaults: [{db: [a, b]}, _self_]\n",
            &[],
            &[],
            "",
            "error: conf/run-x.yaml: defaults list: `db` must name one option, got [a, b]\n  hint: several options of one group: use \
             group@package",
        ),
        (
            "defaults: [{override /db: b}, {db: a}, _self_]\n",
            &[],
            &[],
            "",
            "error: conf/run-x.yaml: `override` entries come last in the defaults list",
        ),
        (
            "defaults: [one, _self_]\n",
            &[("one.yaml", "defaults: [two, _self_]\n"), ("two.yaml", "defaults: [one, _self_]\n")],
            &[],
            "",
            "error: conf/one.yaml: the defaults lists go round in a circle: run-x → one → two → one",
        ),
        (
            "defaults: [{db: '${nope}_x'}, _self_]\n",
            &[],
            &[],
            "",
            "error: db: `${nope}_x`: no group `nope` has been chosen",
        ),
        (
            "a: 1\na: 2\n",
            &[],
            &[],
            "",
            "error: conf/run-x.yaml line 1 column 1: duplicate entry with key \"a\"\n  hint: each key stands once in a file",
        ),
        ("- 1\n", &[], &[], "", "error: conf/run-x.yaml: expected `key: value` lines, got [1]"),
        ("a: {<<: 1}\n", &[], &[], "", "error: conf/run-x.yaml: the merge key `<<` is not offered here"),
        (
            "a: !x 1\n",
            &[],
            &[],
            "",
            "error: conf/run-x.yaml: YAML tags such as `!x` are not offered here\n  hint: text that starts with ! needs quotes",
        ),
    ];
    compare(rows.iter().map(|(primary, more, words, part, wanted)| {
        (format!("{primary} {words:?}"), with_primary(primary, more, words, part), (*wanted).to_owned())
    }));
}

#[test]
fn a_syntax_error_has_line_and_column() {
    let text = with_primary("a: 1\nb: [1,\n", &[], &[], "");
    assert!(text.starts_with("error: conf/run-x.yaml line 3 column 1: "), "{text}");
    let text = with_primary("a: *x\n", &[], &[], "");
    assert!(text.contains("line 1 column 4") && text.contains("hint: text that starts with *"), "{text}");
}

#[test]
fn another_folder_is_searched_first() {
    let first = project(&[("dataset/steam.yaml", "path: mine\n")]);
    let second = project(FILES);
    let dirs: Vec<_> = first.search.dirs().chain(second.search.dirs()).map(|(dir, _)| dir.to_owned()).collect();
    let both = Project { search: SearchPath::new(dirs), _dir: first._dir };
    assert_eq!(outcome(&both, &[], "dataset").trim_end(), "path: mine");
    assert_eq!(outcome(&both, &["dataset=lastfm"], "dataset.path").trim_end(), "data/lastfm");
}

#[test]
fn origins_survive_merging_and_deleting() {
    let project = project(FILES);
    let words = ["train.lr=5".to_owned(), "~dataset.max_len".to_owned()];
    let context = Context { now: Local::now(), env: &|_| None };
    let request = Request {
        app: "run-x",
        examples: &[],
        primary: "run-x",
        search: &project.search,
        words: &words,
        base: None,
        forced: vec![],
        context,
    };
    let tree = compose(&request).unwrap().tree;
    let origin = |key: &str| tree.at(key).unwrap().origin.clone().unwrap().to_string();
    assert_eq!(origin("train.lr"), "override 1: `train.lr=5`");
    assert_eq!(origin("train.epochs"), "conf/run-x.yaml");
    assert_eq!(origin("student.optim.lr"), "conf/student/optim/adam.yaml");
    assert_eq!(origin("dataset.path"), "conf/dataset/steam.yaml");
    assert!(tree.at("dataset.max_len").is_none());
}
