//! Which binary reads which file of `conf/`: for `anyo-doctor` and for the test that no shipped file is stale.

use std::{fs, path::Path};

use anyo_core::config::{SearchPath, compose_all};
use anyo_distill::DistillRunConfig;
use anyo_student::BaselineRunConfig;
use anyo_teacher::TeacherRunConfig;

use crate::{bundles, eval_all::EvalAllConfig, export_student, run_lm};

/// Stand for the values that a user must give (`???`).
const GIVEN: &[&str] = &["dataset.path=my.csv", "dataset.columns.user=user", "dataset.columns.item=item"];

/// Composes every primary file of a `conf/` folder with all options of its groups: its name and the number of
/// compositions, or what is wrong in one line.
pub fn compose_conf(conf: &Path) -> Vec<(String, Result<usize, String>)> {
    let search = SearchPath::new([conf.to_owned()]);
    let compose = |name: &str| {
        let composed = match name {
            "run-student-baseline" => compose_all::<BaselineRunConfig>(&search, name, GIVEN),
            "run-distill" => compose_all::<DistillRunConfig>(&search, name, GIVEN),
            "run-teacher" => {
                let given: Vec<&str> = ["teacher.lm=folder"].iter().chain(GIVEN).copied().collect();
                compose_all::<TeacherRunConfig>(&search, name, &given)
            }
            "run-eval-all" => compose_all::<EvalAllConfig>(&search, name, GIVEN),
            "export-bundle" => compose_all::<bundles::ExportRunConfig>(&search, name, &["student_run=latest"]),
            "export-student" => {
                compose_all::<export_student::ExportStudentConfig>(&search, name, &["student_run=latest"])
            }
            "import-bundle" => {
                let given: Vec<&str> = ["from=lists.tsv", "position=train"].iter().chain(GIVEN).copied().collect();
                compose_all::<bundles::ImportRunConfig>(&search, name, &given)
            }
            "run-lm-generate" => compose_all::<run_lm::GenerateConfig>(&search, name, &["prompt=Hello"]),
            "run-lm-chat" => compose_all::<run_lm::ChatConfig>(&search, name, &[]),
            "run-lm-score" => {
                compose_all::<run_lm::ScoreConfig>(&search, name, &["prompt=A", "continuations=[\" b\"]"])
            }
            "run-lm-plan" => compose_all::<run_lm::PlanConfig>(&search, name, &["model=folder"]),
            "run-lm-pretrain" => compose_all::<run_lm::PretrainRunConfig>(&search, name, GIVEN),
            "run-lm-convert" => compose_all::<run_lm::ConvertConfig>(&search, name, &["from=a.bin", "to=b"]),
            "run-lm-quantize-report" => compose_all::<run_lm::QuantizeReportConfig>(&search, name, &[]),
            _ => return Err("no program of this version reads it".to_owned()),
        };
        composed.map_err(|error| error.to_string().lines().collect::<Vec<_>>().join("; "))
    };
    let mut names: Vec<String> = fs::read_dir(conf)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".yaml")?.to_owned()))
        .collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), compose(&name))).collect()
}

/// [`compose_conf`] in the form that the doctor asks for.
pub fn check_conf(conf: &Path) -> Vec<(String, Result<(), String>)> {
    compose_conf(conf).into_iter().map(|(name, result)| (name, result.map(|_| ()))).collect()
}
