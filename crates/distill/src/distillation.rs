//! Distillation as a guest of the student's training loop.

use std::sync::atomic::{AtomicU64, Ordering};

use anyo_core::{
    Needs, Result, SelectionPolicy,
    data::Dataset,
    eval::NO_ITEM,
    parallel::SendPtr,
    seed::{self, Stream},
};
use anyo_student::{
    Added, Extra, Step, Student, Tables,
    batch::Negatives,
    loss::{Loss, LossGrad, OverCatalogue, Slots, Subset, scan},
};
use tch::Tensor;

use crate::{
    batch::{Batch, factors, mean_weights},
    config::{DistillConfig, DrosTerm, Over, RankingLoss, RdNegatives},
    figures::Figures,
    fuse::{Vectors, attach},
    lists::TeacherLists,
    look::{Said, in_top_k, say},
    negatives::FreshNegatives,
    overlap::Overlap,
    pairs,
    terms::{listwise, pointwise},
};

/// What the teacher adds to a training.
#[derive(Debug)]
pub struct Distillation<'a> {
    config: &'a DistillConfig,
    dataset: &'a Dataset,
    ranking: Option<Ranking>,
    vectors: Option<Vectors>,
    /// The input table of the current step, for the hint.
    items: Option<Tensor>,
    figures: Figures,
}

/// The teacher's lists at work.
#[derive(Debug)]
struct Ranking {
    lists: TeacherLists,
    policy: Option<Box<dyn SelectionPolicy>>,
    fresh: Option<FreshNegatives>,
    /// Where the student's list is not looked at in every epoch.
    overlap: Option<Overlap>,
}

impl<'a> Distillation<'a> {
    /// Distillation from the teacher's lists and item vectors `[n_items, T]`, where they are given; the parameters that
    /// come with them are added to the student's. Without a policy every row counts.
    ///
    /// # Errors
    /// Vectors that do not fit the student's tables (see [`attach`]), or no memory.
    pub fn new(
        config: &'a DistillConfig,
        dataset: &'a Dataset,
        lists: Option<TeacherLists>,
        vectors: Option<&Tensor>,
        policy: Option<Box<dyn SelectionPolicy>>,
        student: &mut Student,
        seed: u64,
    ) -> Result<Self> {
        let vectors = match vectors {
            Some(vectors) => attach(&config.embedding, vectors, student, seed)?,
            None => None,
        };
        let mut ranking = None;
        if let Some(lists) = lists {
            let pointwise = config.loss == RankingLoss::Bce;
            let fresh = (pointwise && config.rd_negatives == RdNegatives::Fresh).then(|| FreshNegatives::new(dataset));
            let kept = config.consistency.every > 1 && config.consistency_weight() > 0.0;
            let overlap = kept.then(|| Overlap::new(lists.n_targets(), config.consistency.every, student));
            ranking = Some(Ranking { lists, policy, fresh, overlap: overlap.transpose()? });
        }
        Ok(Self { config, dataset, ranking, vectors, items: None, figures: Figures::default() })
    }

    /// Whether there is anything to do while the student trains.
    pub fn is_idle(&self) -> bool {
        self.ranking.is_none() && self.vectors.is_none()
    }
}

impl Extra for Distillation<'_> {
    fn tables(&mut self, student: &Student) -> Result<Tables> {
        let Some(vectors) = &self.vectors else { return Ok(Tables::default()) };
        self.items = Some(student.network.items().shallow_clone());
        Ok(vectors.tables(student))
    }

    fn grad(&mut self, step: &Step<'_>) -> Result<Added> {
        let n = step.targets.positives.len() as f64;
        let mut grad = match &mut self.ranking {
            Some(ranking) => ranking.grad(self.config, self.dataset, step, &mut self.figures)?,
            None => step.loss.grad(step.states, step.head, step.targets, step.negatives, step.scale),
        };
        if self.ranking.is_none() {
            self.figures.targets += n;
            self.figures.base += grad.sum;
        }
        let mut graph = None;
        if let (Some(Vectors::Hint(hint)), Some(items)) = (&self.vectors, &self.items) {
            let penalty = hint.penalty(items, step.targets.positives);
            let value = penalty.double_value(&[]) * n;
            self.figures.hint += value;
            grad.sum += value;
            graph = Some(penalty * (step.scale * n));
        }
        Ok(Added { grad, graph })
    }

    fn fold(&self, student: &Student) -> Result<Vec<(String, Tensor)>> {
        Ok(self.vectors.as_ref().map(|vectors| vectors.fold(student)).unwrap_or_default())
    }

    fn scalars(&mut self) -> Vec<(&'static str, f64)> {
        std::mem::take(&mut self.figures)
            .scalars(self.ranking.is_some(), matches!(self.vectors, Some(Vectors::Hint(_))))
    }
}

/// Which terms the ranking part has, and where they are computed.
struct Form {
    /// Weight of the candidates' DROS terms; 0 without them.
    alpha: f64,
    /// Each place has the batch's mean weight, as released.
    broadcast: bool,
    /// The pass over the catalogue that the lists take part in.
    slots: Slots,
}

impl Form {
    fn of(config: &DistillConfig, loss: &Loss) -> Self {
        let has_dros = config.loss == RankingLoss::Bce && config.dros != DrosTerm::None && config.dros_scale > 0.0;
        let alpha = if has_dros { loss.dros_alpha() } else { 0.0 };
        let listwise = config.loss == RankingLoss::Listwise && config.listwise.over == Over::Catalogue;
        let slots = match () {
            () if listwise => Slots::CrossEntropy,
            () if alpha > 0.0 => Slots::Dros,
            () => Slots::Nowhere,
        };
        Self { alpha, broadcast: alpha > 0.0 && config.dros == DrosTerm::Broadcast, slots }
    }
}

impl Ranking {
    fn grad(
        &mut self,
        config: &DistillConfig,
        dataset: &Dataset,
        step: &Step<'_>,
        figures: &mut Figures,
    ) -> Result<LossGrad> {
        let Self { lists, policy, fresh, overlap } = self;
        let n = step.numbers.len();
        let (k, gamma) = (lists.k(), config.consistency_weight());
        let Form { alpha, broadcast, slots } = Form::of(config, step.loss);
        let asks = policy.as_ref().is_some_and(|policy| policy.needs() == Needs::StudentScores);
        // Where all scores are there anyway, every target is looked at.
        let refresh = gamma > 0.0 && (overlap.is_none() || asks || step.loss.passes_catalogue());
        let mut batch = Batch::new(lists, step.numbers);
        if let Some(overlap) = overlap.as_mut().filter(|_| !refresh) {
            look_at_some(overlap, step, k, &mut batch)?;
        }
        let mut said = if asks { vec![Said::default(); n] } else { Vec::new() };
        let said_at = SendPtr(said.as_mut_ptr());
        let (lists, both, positives) = (&batch.lists, &batch.both, step.targets.positives);
        let look = move |at: usize, scores: &[f32]| {
            let Some(list) = &lists[at] else { return };
            both[at].store(in_top_k(scores, list.items, k, &mut Vec::with_capacity(k)), Ordering::Relaxed);
            if asks {
                // SAFETY: each target has its own place.
                unsafe { *said_at.at(at) = say(scores, positives[at] as u32) };
            }
        };
        // What weighs a row by all rows of the batch must know all scores before the first gradient.
        let early = asks || (refresh && broadcast);
        let looks = OverCatalogue { look: (refresh || asks).then_some(&look), ..OverCatalogue::default() };
        if early {
            scan(step.states, step.head, step.targets, &looks);
        }
        batch.factors = factors(policy.as_deref_mut(), config, step, &batch, &said);

        let mean = if broadcast { mean_weights(config, &batch, k) } else { Vec::new() };
        let told: Vec<AtomicU64> = (0..n).map(|_| AtomicU64::new(0)).collect();
        let hear = |at: usize, loss: f64| told[at].store(loss.to_bits(), Ordering::Relaxed);
        let fill = |at: usize, slots: &mut Vec<(u32, f32)>| {
            let Some(list) = batch.lists[at].filter(|_| batch.factors[at] > 0.0) else { return };
            let mut weights = vec![0f32; list.items.len()];
            batch.weights(config, at, &mut weights);
            if broadcast {
                weights.copy_from_slice(&mean[..list.items.len()]);
            }
            if alpha > 0.0 {
                weights.iter_mut().for_each(|w| *w *= config.dros_scale as f32);
            }
            slots.extend(list.items.iter().zip(&weights).filter(|(_, w)| **w > 0.0).map(|(&item, &w)| (item, w)));
        };
        let over = OverCatalogue {
            look: looks.look.filter(|_| !early),
            slots,
            fill: (slots != Slots::Nowhere).then_some(&fill),
            told: Some(&hear),
        };
        let mut grad = step.loss.grad_with(step.states, step.head, step.targets, step.negatives, step.scale, &over);
        figures.base += grad.sum;
        let told: f64 = told.iter().map(|loss| f64::from_bits(loss.load(Ordering::Relaxed))).sum();
        let mut ranked = match slots {
            Slots::Dros => alpha * told,
            Slots::CrossEntropy => told - batch.entropies(),
            Slots::Nowhere => 0.0,
        };
        if slots != Slots::CrossEntropy {
            ranked += pairwise(fresh.as_mut(), (k, config), dataset, step, &batch, &mut grad);
        }
        grad.sum += ranked;
        figures.ranked += ranked;
        figures.add(&batch, config.lambda_d);
        Ok(grad)
    }
}

/// Recalls what was seen of the batch's targets and looks at those whose turn it is.
fn look_at_some(overlap: &mut Overlap, step: &Step<'_>, k: usize, batch: &mut Batch<'_>) -> Result<()> {
    batch.both = overlap.recall(step.numbers)?;
    let due = overlap.due(step.epoch, step.numbers);
    if due.is_empty() {
        return Ok(());
    }
    let some = Subset::new(step.states, step.targets, &due);
    let (lists, both) = (&batch.lists, &batch.both);
    let look = |at: usize, scores: &[f32]| {
        let Some(list) = &lists[due[at]] else { return };
        both[due[at]].store(in_top_k(scores, list.items, k, &mut Vec::with_capacity(k)), Ordering::Relaxed);
    };
    let over = OverCatalogue { look: Some(&look), ..OverCatalogue::default() };
    scan(&some.states, step.head, some.targets(), &over);
    overlap.remember(step.numbers, &due, &batch.both)
}

/// The part of the ranking term that looks at a few items of each target; returns its sum.
fn pairwise(
    mut fresh: Option<&mut FreshNegatives>,
    (k, config): (usize, &DistillConfig),
    dataset: &Dataset,
    step: &Step<'_>,
    batch: &Batch<'_>,
    grad: &mut LossGrad,
) -> f64 {
    let shared = match (config.loss, config.rd_negatives, step.negatives) {
        (RankingLoss::Bce, RdNegatives::Shared, Negatives::PerTarget { items, per_target }) => {
            Some((items, *per_target))
        }
        _ => None,
    };
    let n_negatives = shared.map_or(if fresh.is_some() { config.n_negatives } else { 0 }, |(_, n)| n);
    let per_target = k + n_negatives;
    let base = seed::derive(step.seed, Stream::Distill, step.epoch, 0);
    let mut items = Vec::with_capacity(step.numbers.len() * per_target);
    for (at, &number) in step.numbers.iter().enumerate() {
        let end = (at + 1) * per_target;
        if let Some(list) = batch.lists[at].filter(|_| batch.factors[at] > 0.0) {
            items.extend_from_slice(list.items);
            if let Some((negatives, n)) = shared {
                items.extend(negatives[at * n..(at + 1) * n].iter().map(|&item| item as u32));
            } else if let Some(fresh) = &mut fresh {
                fresh.draw(dataset, base, number, list.items, n_negatives, &mut items);
            }
        }
        items.resize(end, NO_ITEM);
    }
    let of_row = |at: usize, scores: &[f32], by_score: &mut [f32]| {
        let Some(list) = batch.lists[at] else { return 0.0 };
        match config.loss {
            RankingLoss::Bce => {
                let mut weights = vec![0f32; list.items.len()];
                batch.weights(config, at, &mut weights);
                pointwise(&weights, config.negative_term, scores, by_score)
            }
            RankingLoss::Listwise => {
                listwise(list.fixed, batch.factors[at], config.listwise.temperature, scores, by_score)
            }
        }
    };
    let items = pairs::Items { items: &items, per_target, seen: step.targets.seen };
    pairs::add(grad, step.states, step.head, items, step.scale, &of_row)
}
