//! Selection policies: how much each labelled target counts in the distillation. The formulas and their sources stand in
//! `docs/specification/03_distill_dllm2rec.md`.
//!
//! A policy is one file: its configuration (with [`Check`] and [`Make`]) and its [`SelectionPolicy`]. To add one, write
//! `policy/NAME.rs` after the pattern of `agreement.rs`, name it in a `mod` line and in the list `policies!` below, and
//! put its commented defaults into `conf/active/NAME.yaml`.

mod agreement;
mod all;
mod budget;
mod curriculum;
mod features;
mod fixed;
mod k_center;
mod random;
mod rank_gap;
mod share;
mod student_entropy;
mod student_margin;
mod teacher_confidence;
#[cfg(test)]
mod tests;

use anyo_core::{
    Result, SelectionPolicy,
    config::{Check, Problem},
};
use serde::Serialize;

pub use self::{
    agreement::{AgreementConfig, AgreementForm},
    all::AllConfig,
    budget::BudgetConfig,
    curriculum::CurriculumConfig,
    features::{Features, mean_of_history},
    k_center::{KCenterConfig, farthest_first},
    random::RandomConfig,
    rank_gap::RankGapConfig,
    student_entropy::{Keep, StudentEntropyConfig},
    student_margin::StudentMarginConfig,
    teacher_confidence::{ConfidenceGate, TeacherConfidenceConfig},
};

/// What a policy may look at once, before training.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Items of the catalogue.
    pub n_items: usize,
    /// All training targets of the data set, labelled or not (`TargetIndex::len`).
    pub n_targets: usize,
    /// Numbers of the targets that have a teacher list, ascending.
    pub labelled: &'a [u32],
    /// Vectors of targets, where there are any; asked for at most once, by `k_center` only.
    pub features: Option<&'a FeaturesOf<'a>>,
}

/// Gives the vectors of the targets with these numbers, in this order.
pub type FeaturesOf<'a> = dyn Fn(&[u32]) -> Result<Features> + 'a;

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("n_items", &self.n_items)
            .field("n_targets", &self.n_targets)
            .field("labelled", &self.labelled.len())
            .finish_non_exhaustive()
    }
}

/// A configuration that a policy is made from.
pub trait Make {
    /// The policy.
    ///
    /// # Errors
    /// When the configuration does not fit the data or the bundle.
    fn make(&self, context: &Context<'_>) -> Result<Box<dyn SelectionPolicy>>;
}

/// The enum of all policies, told apart by `name`, with everything that is the same for each of them.
macro_rules! policies {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($body:ty)),+ $(,)?) => {
        /// Which policy, and everything it needs: `active:` in the configuration, told apart by `name`.
        #[derive(Debug, Clone, Serialize)]
        #[serde(tag = "name", rename_all = "snake_case")]
        pub enum ActiveConfig {
            $($(#[$doc])* $variant($body),)+
        }

        anyo_core::tagged!(ActiveConfig, "name", { $($name => $variant($body)),+ });

        impl ActiveConfig {
            /// The `name` as configured.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)+ }
            }
        }

        impl Check for ActiveConfig {
            fn problems(&self) -> Vec<Problem> {
                match self { $(Self::$variant(config) => config.problems(),)+ }
            }
        }

        /// The policy that the configuration names.
        ///
        /// # Errors
        /// When it does not fit the data or the bundle; the message names the keys below `active`.
        pub fn build(config: &ActiveConfig, context: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
            match config { $(ActiveConfig::$variant(config) => config.make(context),)+ }
        }
    };
}

policies! {
    /// Every target counts 1.
    "all" => All(AllConfig),
    /// A coin for each target and step.
    "random" => Random(RandomConfig),
    /// Targets on which the student is unsure (or sure), by entropy.
    "student_entropy" => StudentEntropy(StudentEntropyConfig),
    /// The same by the margin between the two best items.
    "student_margin" => StudentMargin(StudentMarginConfig),
    /// Targets whose true item the teacher ranks well.
    "teacher_confidence" => TeacherConfidence(TeacherConfidenceConfig),
    /// More where the teacher ranks the true item better than the student.
    "rank_gap" => RankGap(RankGapConfig),
    /// Targets on which teacher and student agree.
    "agreement" => Agreement(AgreementConfig),
    /// Easy targets first.
    "curriculum" => Curriculum(CurriculumConfig),
    /// A fixed set that covers the vectors of all targets.
    "k_center" => KCenter(KCenterConfig),
    /// The fixed set that a teacher with this budget labels.
    "budget" => Budget(BudgetConfig),
}
