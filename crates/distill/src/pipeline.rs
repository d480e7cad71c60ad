//! `run-distill`: a student's run with a teacher beside it.

use std::{collections::BTreeMap, path::PathBuf};

use anyo_core::{
    Error, Result, SelectionPolicy,
    bundle::{Bundle, BundleSource, Wanted},
    config::{Check, Problem, Ranges},
    data::{DataConfig, Dataset, DatasetConfig, TargetIndex},
    eval::EvalConfig,
    run::{Run, RunConfig},
    torch::{DeviceChoice, Dtype},
};
use anyo_student::{
    BaselineRunConfig, Extra, Student, TrainConfig, Trained,
    config::{LossName, StudentConfig},
    run_student, train_student,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Device, Kind};

use crate::{
    config::{DistillConfig, EmbeddingName, Missing, RankingLoss, RdNegatives, Side},
    distillation::Distillation,
    fuse::TIED,
    lists::TeacherLists,
    policy::{self, ActiveConfig, Context, mean_of_history},
};

/// Items of the history whose mean vector stands for a target in `active=k_center`.
const NEWEST: usize = 10;

/// The whole configuration of `run-distill`; defaults and meanings stand in `conf/run-distill.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillRunConfig {
    /// Which data.
    pub dataset: DatasetConfig,
    /// Which student.
    pub student: StudentConfig,
    /// Who teaches: a run with a bundle, a bundle, or `latest`.
    pub teacher_run: PathBuf,
    /// What is learnt from the teacher.
    pub distill: DistillConfig,
    /// Which labelled rows count how much.
    pub active: ActiveConfig,
    /// Root of all random streams.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Number format of the computation.
    pub dtype: Dtype,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// Where data lies.
    pub data: DataConfig,
    /// The training loop.
    pub train: TrainConfig,
    /// The evaluation.
    pub eval: EvalConfig,
    /// Rows beside the student, by name; popularity is always there.
    pub baselines: BTreeMap<String, StudentConfig>,
    /// Where the run writes.
    pub run: RunConfig,
}

impl DistillRunConfig {
    /// The part that a student trained alone has too.
    pub fn student_part(&self) -> BaselineRunConfig {
        BaselineRunConfig {
            dataset: self.dataset.clone(),
            student: self.student.clone(),
            seed: self.seed,
            device: self.device,
            dtype: self.dtype,
            threads: self.threads,
            data: self.data.clone(),
            train: self.train.clone(),
            eval: self.eval.clone(),
            baselines: self.baselines.clone(),
            run: self.run.clone(),
        }
    }
}

impl Check for DistillRunConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges(self.student_part().problems());
        list.nested("distill", &self.distill);
        list.nested("active", &self.active);
        // One that is not trained is refused when the run starts, so that every option composes.
        let Some(recipe) = self.student.recipe() else { return list.0 };
        let distill = &self.distill;
        let pairwise = matches!(recipe.loss.name, LossName::Bce | LossName::Gbce);
        let shares = distill.loss == RankingLoss::Bce && distill.rd_negatives == RdNegatives::Shared;
        if distill.wants_rankings() && shares && !pairwise {
            let message = "shared negatives are those of student.loss.name bce or gbce; write fresh or none";
            list.push("distill.rd_negatives", message.into());
        }
        let one_sided = matches!(distill.embedding.side, Side::Input | Side::Output);
        let in_tables = matches!(distill.embedding.name, EmbeddingName::Fuse | EmbeddingName::Init);
        if matches!(self.student, StudentConfig::Sasrec(_)) && one_sided && in_tables && distill.wants_embeddings() {
            list.push("distill.embedding.side", format!("wanted auto or both with student=sasrec: {}", &TIED[24..]));
        }
        list.0
    }
}

/// Runs it all and prints the table.
///
/// # Errors
/// What loading, training, evaluating and writing can meet, and everything that is wrong with the bundle; each names the
/// file, key, row or step. Nothing is trained then.
pub fn run_distill(config: &DistillRunConfig, run: &mut Run) -> Result<()> {
    let part = config.student_part();
    if config.student.recipe().is_none() {
        return Err(Error::Invalid {
            message: format!("`{}` is not trained, so nothing can be distilled into it", config.student.name()),
            hint: Some("write student=sasrec, sasrec_modern, sasrec_dllm2rec, gru4rec or caser".into()),
        });
    }
    run_student(&part, run, "distill_student_train_time", &mut |dataset, device, run| {
        let bundle = open(config, dataset, run)?;
        let mut student = Student::new(&config.student, dataset.n_items(), device, config.seed)?;
        let lists = match &bundle {
            Some(bundle) if config.distill.wants_rankings() => Some(lists(config, bundle, dataset, run)?),
            _ => None,
        };
        let vectors = match &bundle {
            Some(bundle) if config.distill.wants_embeddings() => Some(bundle.item_embeddings()?.shallow_clone()),
            _ => None,
        };
        let policy = match (&bundle, &lists) {
            (Some(bundle), Some(lists)) => policy(&config.active, bundle, lists, dataset)?,
            _ => None,
        };
        if let Some(rows) = policy.as_ref().and_then(|policy| policy.n_fixed()) {
            run.record("labelled_rows", json!(rows))?;
        }
        drop(bundle);
        let distill = &config.distill;
        let mut distillation =
            Distillation::new(distill, dataset, lists, vectors.as_ref(), policy, &mut student, config.seed)?;
        let extra: Option<&mut dyn Extra> = if distillation.is_idle() { None } else { Some(&mut distillation) };
        let fitted = train_student(&part, dataset, &mut student, extra, run)?;
        Ok(Trained { student, fitted })
    })
}

/// The policy that weighs the labelled targets; `None` where all count 1.
fn policy(
    active: &ActiveConfig,
    bundle: &Bundle,
    lists: &TeacherLists,
    dataset: &Dataset,
) -> Result<Option<Box<dyn SelectionPolicy>>> {
    if matches!(active, ActiveConfig::All(_)) {
        return Ok(None);
    }
    let index = TargetIndex::new(&dataset.train);
    let features = |targets: &[u32]| {
        let vectors = bundle.item_embeddings()?.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let dim = vectors.size()[1] as usize;
        let flat: Vec<f32> = vectors.reshape(-1).try_into()?;
        mean_of_history(&index, &flat, dim, NEWEST, targets)
    };
    let (n_items, n_targets, labelled) = (dataset.n_items(), index.len(), lists.labelled());
    let context = Context { n_items, n_targets, labelled: &labelled, features: Some(&features) };
    Ok(Some(policy::build(active, &context)?))
}

/// Opens and checks what is needed of the bundle; `None` where nothing is.
fn open(config: &DistillRunConfig, dataset: &Dataset, run: &mut Run) -> Result<Option<Bundle>> {
    let mut wanted =
        Wanted { rankings: config.distill.wants_rankings(), embeddings: config.distill.wants_embeddings() };
    wanted.embeddings |= wanted.rankings && matches!(config.active, ActiveConfig::KCenter(_));
    if !wanted.rankings && !wanted.embeddings {
        run.warn(
            "distill.lambda_d and distill.embedding.ed_weight are 0: the student learns alone, no bundle is opened",
        );
        return Ok(None);
    }
    let source = BundleSource { key: "teacher_run", from: &config.teacher_run, role: "teacher" };
    source.open(dataset, wanted, run).map(Some)
}

fn lists(config: &DistillRunConfig, bundle: &Bundle, dataset: &Dataset, run: &mut Run) -> Result<TeacherLists> {
    if config.distill.missing == Missing::Error {
        bundle.require(0..bundle.n_rows() as u32)?;
    }
    let lists = TeacherLists::new(bundle, dataset, &config.distill)?;
    let (labelled, of) = (lists.n_labelled(), lists.n_targets());
    if labelled == 0 {
        return Err(Error::Invalid {
            message: format!("{}: no training row has a list that could teach", bundle.folder().display()),
            hint: Some("all items of the lists are of the history; export with export.exclude_history=true".into()),
        });
    }
    let summary = json!({
        "labelled": labelled,
        "missing": of - labelled,
        "history_items_dropped": lists.n_dropped(),
        "mean_confidence_entropy": lists.mean_entropy(),
        "mean_gate": lists.mean_gate(),
    });
    run.record("distill", summary)?;
    run.info(&format!(
        "{labelled} of {of} training targets have a list ({} have none and learn without the teacher); {} items of \
         histories dropped; mean entropy of the weights by distance {:.3} (log K = {:.3}), mean trust {:.3}",
        of - labelled,
        lists.n_dropped(),
        lists.mean_entropy(),
        (lists.k() as f64).ln(),
        lists.mean_gate()
    ));
    Ok(lists)
}
