//! Distillation as a guest of the student's training loop.

use std::sync::atomic::{AtomicU64, Ordering};

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals, StudentSignals, TeacherSignals,
    data::Dataset,
    eval::NO_ITEM,
    parallel::SendPtr,
    seed::{self, Stream},
};
use anyo_student::{
    Added, EXTRA_PREFIX, Extra, Step, Student, Tables,
    batch::Negatives,
    loss::{LossGrad, OverCatalogue, Slots, scan},
};
use tch::{Device, Kind, Tensor};

use crate::{
    config::{DistillConfig, DrosTerm, Over, RankingLoss, RdNegatives},
    figures::Figures,
    fuse::{Vectors, attach},
    lists::{List, TeacherLists},
    look::{Said, in_top_k, say},
    negatives::FreshNegatives,
    pairs,
    terms::{listwise, pointwise},
    weights::mix,
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
    /// Bits of the candidates in the student's list as last seen, `[targets]`; where they are not seen in every epoch.
    overlap: Option<Tensor>,
}

/// What the loss of one batch needs of its N targets.
struct Batch<'a> {
    lists: Vec<Option<List<'a>>>,
    /// Bits of the candidates that are in the student's top K, `[N]`.
    both: Vec<AtomicU64>,
    /// λ, gate and policy, `[N]`.
    factors: Vec<f32>,
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
            let overlap = kept.then(|| {
                let zeros = Tensor::f_zeros([lists.n_targets() as i64], (Kind::Int64, Device::Cpu))?;
                student.params.add_buffer(format!("{EXTRA_PREFIX}overlap"), zeros)
            });
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
        let alpha = if config.dros == DrosTerm::None || config.loss != RankingLoss::Bce {
            0.0
        } else {
            step.loss.dros_alpha() * f64::from(u8::from(config.dros_scale > 0.0))
        };
        let refresh = gamma > 0.0 && step.epoch.is_multiple_of(config.consistency.every);
        let asks = policy.as_ref().is_some_and(|policy| policy.needs() == Needs::StudentScores);
        let mut batch = Batch {
            lists: step.numbers.iter().map(|&number| lists.get(number)).collect(),
            both: (0..n).map(|_| AtomicU64::new(0)).collect(),
            factors: Vec::new(),
        };
        if let (Some(overlap), false) = (&*overlap, refresh) {
            recall(overlap, step.numbers, &mut batch.both)?;
        }
        let mut said = if asks { vec![Said::default(); n] } else { Vec::new() };
        let said_at = SendPtr(said.as_mut_ptr());
        let (lists, both, positives) = (&batch.lists, &batch.both, step.targets.positives);
        let look = move |at: usize, scores: &[f32]| {
            let Some(list) = &lists[at] else { return };
            if refresh || asks {
                let bits = in_top_k(scores, list.items, k, &mut Vec::with_capacity(k));
                both[at].store(bits, Ordering::Relaxed);
            }
            if asks {
                // SAFETY: each target has its own place.
                unsafe { *said_at.at(at) = say(scores, positives[at] as u32) };
            }
        };
        let broadcast = alpha > 0.0 && config.dros == DrosTerm::Broadcast;
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
        let in_catalogue = config.loss == RankingLoss::Listwise && config.listwise.over == Over::Catalogue;
        let slots = match () {
            () if in_catalogue => Slots::CrossEntropy,
            () if alpha > 0.0 => Slots::Dros,
            () => Slots::Nowhere,
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
        if !in_catalogue {
            ranked += pairwise(fresh.as_mut(), (k, config), dataset, step, &batch, &mut grad);
        }
        grad.sum += ranked;
        if let (Some(overlap), true) = (overlap, refresh) {
            remember(overlap, step.numbers, &batch.both)?;
        }
        figures.targets += n as f64;
        figures.ranked += ranked;
        for (at, list) in batch.lists.iter().enumerate() {
            let Some(list) = list else { continue };
            figures.labelled += 1.0;
            figures.entropy += f64::from(list.info.entropy);
            figures.overlap += share(&batch.both[at], list);
            figures.weight += f64::from(batch.factors[at]) / config.lambda_d;
        }
        Ok(grad)
    }
}

impl Batch<'_> {
    /// Weights of a target's candidates with everything that multiplies the row.
    fn weights(&self, config: &DistillConfig, at: usize, out: &mut [f32]) {
        let Some(list) = &self.lists[at] else { return };
        let both = self.both[at].load(Ordering::Relaxed);
        match config.loss {
            RankingLoss::Bce => mix(list.fixed, both, config.weights.consistency as f32, config.weights.form, out),
            RankingLoss::Listwise => out.copy_from_slice(list.fixed),
        }
        out.iter_mut().for_each(|w| *w *= self.factors[at]);
    }

    /// Sum of the entropies of the teacher's distributions with what multiplies each row: what a cross-entropy exceeds the
    /// divergence by.
    fn entropies(&self) -> f64 {
        let of = |(list, &factor): (&Option<List<'_>>, &f32)| {
            list.map_or(0.0, |list| f64::from(factor * crate::weights::entropy(list.fixed)))
        };
        self.lists.iter().zip(&self.factors).map(of).sum()
    }
}

/// Mean weight of each place over the labelled targets, `[K]`: what the released code's broadcast comes to.
fn mean_weights(config: &DistillConfig, batch: &Batch<'_>, k: usize) -> Vec<f32> {
    let (mut sums, mut n) = (vec![0f64; k], 0.0);
    let mut weights = vec![0f32; k];
    for (at, list) in batch.lists.iter().enumerate() {
        let Some(list) = list else { continue };
        let len = list.items.len();
        batch.weights(config, at, &mut weights[..len]);
        sums.iter_mut().zip(&weights[..len]).for_each(|(sum, &w)| *sum += f64::from(w));
        n += 1.0;
    }
    sums.iter().map(|sum| (sum / f64::max(n, 1.0)) as f32).collect()
}

/// Share of a list's items (the first 64) that are in the student's too.
fn share(both: &AtomicU64, list: &List<'_>) -> f64 {
    f64::from(both.load(Ordering::Relaxed).count_ones()) / list.items.len().clamp(1, 64) as f64
}

fn recall(overlap: &Tensor, numbers: &[u32], both: &mut [AtomicU64]) -> Result<()> {
    let bits = overlap.f_index_select(0, &ids(numbers, overlap.device()))?.f_to_device(Device::Cpu)?;
    for (both, bits) in both.iter_mut().zip(Vec::<i64>::try_from(&bits)?) {
        *both = AtomicU64::new(bits as u64);
    }
    Ok(())
}

fn remember(overlap: &mut Tensor, numbers: &[u32], both: &[AtomicU64]) -> Result<()> {
    let bits: Vec<i64> = both.iter().map(|bits| bits.load(Ordering::Relaxed) as i64).collect();
    let bits = Tensor::from_slice(&bits).to_device(overlap.device());
    let places = ids(numbers, overlap.device());
    let _ = overlap.f_index_copy_(0, &places, &bits)?;
    Ok(())
}

fn ids(numbers: &[u32], device: Device) -> Tensor {
    Tensor::from_slice(&numbers.iter().map(|&n| i64::from(n)).collect::<Vec<_>>()).to_device(device)
}

/// λ times gate times policy of each target; 0 without a list.
fn factors(
    policy: Option<&mut (dyn SelectionPolicy + 'static)>,
    config: &DistillConfig,
    step: &Step<'_>,
    batch: &Batch<'_>,
    said: &[Said],
) -> Vec<f32> {
    let lambda = config.lambda_d as f32;
    let mut factors: Vec<f32> =
        batch.lists.iter().map(|list| list.map_or(0.0, |list| lambda * list.info.gate)).collect();
    let Some(policy) = policy else { return factors };
    let labelled: Vec<usize> = (0..factors.len()).filter(|&at| batch.lists[at].is_some()).collect();
    let infos: Vec<_> = labelled.iter().filter_map(|&at| Some(batch.lists[at]?.info)).collect();
    let numbers: Vec<u32> = labelled.iter().map(|&at| step.numbers[at]).collect();
    let said: Vec<Said> = labelled.iter().filter_map(|&at| said.get(at).copied()).collect();
    let overlap: Vec<f32> = match said.is_empty() {
        true => Vec::new(),
        false => labelled.iter().filter_map(|&at| Some(share(&batch.both[at], &batch.lists[at]?) as f32)).collect(),
    };
    let (entropy, margin, loss): (Vec<f32>, Vec<f32>, Vec<f32>) = (
        said.iter().map(|s| s.entropy).collect(),
        said.iter().map(|s| s.margin).collect(),
        said.iter().map(|s| s.loss).collect(),
    );
    let rank: Vec<u32> = said.iter().map(|s| s.true_rank).collect();
    let true_rank: Vec<u32> = infos.iter().map(|info| info.true_rank).collect();
    let of = |pick: fn(&crate::lists::RowInfo) -> f32| infos.iter().map(pick).collect::<Vec<f32>>();
    let (distance, first, spread) = (of(|i| i.true_distance), of(|i| i.first_distance), of(|i| i.spread));
    let weights = policy.weights(&Signals {
        epoch: step.epoch,
        epochs: step.epochs,
        seed: seed::derive(step.seed, Stream::Distill, step.epoch, step.batch + 1),
        targets: &numbers,
        student: StudentSignals {
            entropy: &entropy,
            margin: &margin,
            true_rank: &rank,
            loss: &loss,
            overlap: &overlap,
        },
        teacher: TeacherSignals {
            true_rank: &true_rank,
            true_distance: &distance,
            first_distance: &first,
            spread: &spread,
        },
    });
    for (&at, weight) in labelled.iter().zip(weights) {
        factors[at] *= weight;
    }
    factors
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
