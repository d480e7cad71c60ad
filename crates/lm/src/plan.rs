//! How many bytes a task will need, from the configuration alone: before anything is loaded.
//!
//! Counted is what the process holds beyond its libraries at the worst moment. The formulas follow this crate's own
//! layers (fused attention, norms in f32, logits in blocks), not the textbook's; `activations` derives them.

mod activations;
mod table;

use anyo_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::{
    config::LmConfig,
    train::{OptimizerState, adam8, loss::block_rows},
};
use activations::{Activations, Shape};
pub use table::{bytes_text, parse_bytes};

/// How the weights of linear layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightKind {
    /// 4 bytes each.
    F32,
    /// 2 bytes each.
    Bf16,
    /// 2 bytes each.
    F16,
    /// One byte each and an f32 scale for each row; embedding, head and norms stay in the computing type.
    Int8,
    /// Half a byte each, one byte of scale for 64, an f32 for 64 · 256 (double quantisation); the rest as for int8.
    Nf4,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trained {
    /// Every weight.
    All,
    /// LoRA on the linears whose name ends in one of `targets`; A and B in f32.
    Lora {
        /// R.
        rank: usize,
        /// Last parts of names, such as `q_proj`.
        targets: Vec<String>,
        /// Whether the adapters' inputs go through dropout.
        dropout: bool,
        /// Whether a gate weighs their experts.
        gated: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// One pass over the prompt, then token by token.
    Generate {
        /// B, rows.
        batch: usize,
        /// Tokens of the longest prompt.
        prompt_len: usize,
        /// Tokens with what is generated.
        total_len: usize,
    },
    /// Steps over micro-batches.
    Train {
        /// B of one micro-batch.
        batch: usize,
        /// S.
        seq_len: usize,
        /// Micro-batches of a step.
        micro_batches: usize,
        /// What is trained.
        trained: Trained,
        /// Moments of the optimizer.
        state: OptimizerState,
        /// Whether each layer's activations are computed again in the backward pass.
        checkpointing: bool,
        /// Whether rows hold several documents, which needs a mask.
        packed: bool,
    },
}

/// A question to [`Plan::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRequest {
    /// Storage of the linear layers.
    pub weights: WeightKind,
    /// Bytes of a number in the computing type: 4 for f32, 2 for bf16 and f16.
    pub compute_bytes: usize,
    /// Where it runs.
    pub device: tch::Device,
    /// What is done.
    pub task: Task,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanLine {
    /// What takes the memory.
    pub what: &'static str,
    /// How much.
    pub bytes: u64,
    /// How the number came about.
    pub note: String,
}

/// An estimate of the peak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is held at some time; weights first.
    pub lines: Vec<PlanLine>,
    /// What of it is never held at the same time as the rest: the 8-bit optimizer copies gradients when activations are gone.
    pub overlap: u64,
    /// Parameters of the base model.
    pub parameters: u64,
    /// Parameters that are trained.
    pub trained: u64,
}

impl Plan {
    /// The estimate for `config` under `request`.
    ///
    /// # Errors
    /// When a size is 0, the sequence is longer than the context, a LoRA target matches no linear, or all weights are to be
    /// trained on quantised storage.
    pub fn new(config: &LmConfig, request: &PlanRequest) -> Result<Self> {
        let e = request.compute_bytes as u64;
        if !matches!(e, 2 | 4) {
            return Err(Error::invalid(format!("a number takes 2 or 4 bytes in the computing type, got {e}")));
        }
        let parameters = config.n_parameters();
        let mut plan = Self { lines: Vec::new(), overlap: 0, parameters, trained: 0 };
        plan.push("weights", weight_bytes(config, request), format!("{parameters} parameters, {:?}", request.weights));
        let int8 = request.weights == WeightKind::Int8;
        let quantised = matches!(request.weights, WeightKind::Int8 | WeightKind::Nf4);
        if quantised {
            let (dense, note) = dequantised(config, &request.task);
            plan.push("dequantised", dense * e, note.into());
        }
        let workspace = workspace(request);
        if workspace > 0 {
            plan.push("workspace", workspace, "what matrix products copy their operands into".into());
        }
        match &request.task {
            Task::Generate { batch, prompt_len, total_len } => {
                let (b, prompt, total) = (*batch as u64, *prompt_len as u64, *total_len as u64);
                check(config, b, total)?;
                if prompt == 0 || prompt > total {
                    return Err(Error::invalid(format!("a prompt of {prompt} tokens in {total} in all")));
                }
                let kv = 2 * config.n_layers as u64 * (config.n_kv_heads * config.head_dim) as u64;
                let room = cache_room(prompt, total, config.max_positions as u64);
                plan.push("KV cache", kv * b * room * e, format!("{kv} numbers for each of {b} × {room} tokens"));
                let shape = Shape::new(config, e, b, prompt, int8);
                let inside = shape.inference();
                plan.push("activations", inside, format!("one layer, {b} × {prompt} tokens"));
                // As computed, in f32, and the sampler's copy; then the order of one row.
                let scores = config.vocab_size as u64 * (b * (e + 8) + 16);
                plan.push("logits", scores, format!("{b} rows"));
            }
            Task::Train { batch, seq_len, micro_batches, trained, state, checkpointing, packed } => {
                check(config, *batch as u64, *seq_len as u64)?;
                if quantised && *trained == Trained::All {
                    return Err(Error::Invalid {
                        message: format!("{:?} weights cannot be trained", request.weights),
                        hint: Some("train LoRA adapters on them, or load bf16 or f32".into()),
                    });
                }
                let shapes = trained_shapes(config, trained)?;
                plan.trained = shapes.iter().sum();
                plan.training(trained, &shapes, *micro_batches, *state, e);
                let shape = Shape::new(config, e, *batch as u64, *seq_len as u64, int8);
                let found = Activations::new(&shape, trained, *checkpointing, *packed, request.device);
                let how = if *checkpointing { "inputs of all layers, all of one" } else { "all layers" };
                plan.push("activations", found.kept, format!("{how}, {batch} × {seq_len} tokens"));
                plan.push("backward", found.passing, "what one layer's backward pass holds at once".into());
                let rows = block_rows(config.vocab_size, request.device).min(batch * seq_len) as u64;
                let (v, d) = (config.vocab_size as u64, config.hidden_size as u64);
                let block = rows * v * if e == 4 { 4 } else { 4 + 2 * e };
                // The head's gradient of the loss, beside the one that is collected.
                let head = if *trained == Trained::All { v * d * 4 } else { 0 };
                plan.push("logits", block + head, format!("{rows} rows at once"));
                let gradients = 4 * plan.trained;
                // Measured: the heap does not give the room of activations to gradients, so one set counts beside them.
                // Only the copy that the 8-bit optimizer takes comes when the activations are gone.
                let beside = if *micro_batches > 1 { 2 * gradients } else { gradients };
                let (begin, end) = (found.kept + block + head + beside, plan.bytes("gradients") + found.layer);
                let all = plan.bytes("gradients") + found.kept + found.passing + block + head;
                let without_holes = begin.max(end) + found.passing;
                // Gradients of all weights fill the holes that all layers left; those of adapters are too few to, and with
                // recomputed layers gradients and holes come in turn.
                let filled = if *checkpointing { 0 } else { beside };
                let peak = without_holes.max(begin - filled + found.holes + found.passing);
                if peak > all {
                    plan.push("holes", peak - all, "of the forward pass in the heap".into());
                }
                plan.overlap = all.saturating_sub(peak);
            }
        }
        Ok(plan)
    }

    fn training(&mut self, trained: &Trained, shapes: &[u64], micro_batches: usize, state: OptimizerState, e: u64) {
        let n: u64 = shapes.iter().sum();
        match trained {
            Trained::Lora { rank, .. } => self.push("adapters", 4 * n, format!("{n} parameters of rank {rank}, f32")),
            // f32 weights are their own masters.
            Trained::All if e < 4 => self.push("masters", 4 * n, "f32 copies of the weights".into()),
            Trained::All => {}
        }
        let copies = if micro_batches > 1 || state == OptimizerState::EightBit { 2 } else { 1 };
        self.push("gradients", 4 * n * copies, format!("f32, {copies} at once"));
        let moments = |&n: &u64| match state {
            OptimizerState::EightBit if n >= adam8::SMALLEST as u64 => 2 * n + 8 * n.div_ceil(adam8::BLOCK as u64),
            _ => 8 * n,
        };
        let what = if state == OptimizerState::EightBit { "two moments in 8 bits" } else { "two moments in f32" };
        self.push("optimizer", shapes.iter().map(moments).sum(), what.into());
    }

    fn push(&mut self, what: &'static str, bytes: u64, note: String) {
        self.lines.push(PlanLine { what, bytes, note });
    }

    /// Bytes of the line called `what`; 0 without one.
    pub fn bytes(&self, what: &str) -> u64 {
        self.lines.iter().filter(|line| line.what == what).map(|line| line.bytes).sum()
    }

    /// The peak.
    pub fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.bytes).sum::<u64>() - self.overlap
    }

    /// Refuses what does not fit into `limit` bytes.
    ///
    /// # Errors
    /// With both numbers and the largest part, when the peak is above the limit.
    pub fn fits(&self, limit: u64) -> Result<()> {
        let total = self.total();
        if total <= limit {
            return Ok(());
        }
        let largest = self.lines.iter().max_by_key(|line| line.bytes);
        let most = largest.map_or(String::new(), |l| format!("; most of it are {} ({})", l.what, bytes_text(l.bytes)));
        Err(Error::Invalid {
            message: format!(
                "the plan needs {} ({total} bytes), the limit is {} ({limit} bytes){most}",
                bytes_text(total),
                bytes_text(limit)
            ),
            hint: Some("take a smaller batch or seq_len, checkpointing, 8-bit states, or dtype=int8 or nf4".into()),
        })
    }
}

/// Elements of dense weights that a quantised base holds at once. Autograd keeps each until its layer's backward pass.
fn dequantised(config: &LmConfig, task: &Task) -> (u64, &'static str) {
    let all: u64 = linears(config).map(|(_, o, i)| o * i).sum();
    match task {
        Task::Generate { .. } => {
            let largest = linears(config).map(|(_, o, i)| o * i).max().unwrap_or(0);
            (largest, "the largest linear layer in the computing type")
        }
        Task::Train { checkpointing: true, .. } => {
            (all / (config.n_layers as u64).max(1), "the linear layers of one layer in the computing type")
        }
        Task::Train { .. } => (all, "all linear layers in the computing type, for the backward pass"),
    }
}

/// Buffers of the matrix products on the CPU, for each thread: MKL packs panels of both operands, of a size that its
/// blocking fixes (7 MiB in training, whose products are deeper, 2.25 MiB without; counted at d 384, vocabulary 6000);
/// in half precision oneDNN takes less than 1 MiB. A GPU's are in its allocator, which is not measured.
fn workspace(request: &PlanRequest) -> u64 {
    if request.device != tch::Device::Cpu {
        return 0;
    }
    let threads = tch::get_num_threads().max(1) as u64;
    threads
        * match (request.compute_bytes, &request.task) {
            (2, _) => 1 << 20,
            (_, Task::Generate { .. }) => 9 << 18,
            (_, Task::Train { .. }) => 7 << 20,
        }
}

/// Positions that a cache has room for after growing from the prompt to `total` (see [`crate::KvCache`]).
fn cache_room(prompt: u64, total: u64, max: u64) -> u64 {
    let mut room = 0u64;
    for len in [prompt, total] {
        while room < len {
            let at_least = if room == 0 { len } else { room + 1 };
            room = at_least.max((2 * room).max(at_least + at_least / 4).max(64).min(max));
        }
    }
    room
}

fn check(config: &LmConfig, batch: u64, len: u64) -> Result<()> {
    if batch == 0 || len == 0 {
        return Err(Error::invalid(format!("a plan needs at least one row and one token, got {batch} × {len}")));
    }
    if len > config.max_positions as u64 {
        return Err(Error::Invalid {
            message: format!("{len} tokens are more than the model's context of {}", config.max_positions),
            hint: Some("lower seq_len".into()),
        });
    }
    Ok(())
}

/// Name, outputs and inputs of the linear layers inside the decoder.
fn linears(config: &LmConfig) -> impl Iterator<Item = (String, u64, u64)> {
    config.tensors().into_iter().filter_map(|(name, shape)| match shape[..] {
        [o, i] if name.starts_with("model.layers.") => {
            Some((name.trim_end_matches(".weight").to_owned(), o as u64, i as u64))
        }
        _ => None,
    })
}

fn weight_bytes(config: &LmConfig, request: &PlanRequest) -> u64 {
    let inside: u64 = linears(config).map(|(_, o, i)| o * i).sum();
    let others = (config.n_parameters() - inside) * request.compute_bytes as u64;
    others
        + match request.weights {
            WeightKind::F32 => 4 * inside,
            WeightKind::Bf16 | WeightKind::F16 => 2 * inside,
            WeightKind::Int8 => linears(config).map(|(_, o, i)| o * i + 4 * o).sum(),
            WeightKind::Nf4 => linears(config).map(|(_, o, i)| nf4_bytes(o * i)).sum(),
        }
}

fn nf4_bytes(n: u64) -> u64 {
    let blocks = n.div_ceil(64);
    n.div_ceil(2) + blocks + 4 * blocks.div_ceil(256) + 4
}

/// Elements of each trained tensor.
fn trained_shapes(config: &LmConfig, trained: &Trained) -> Result<Vec<u64>> {
    match trained {
        Trained::All => Ok(config.tensors().iter().map(|(_, s)| s.iter().map(|&n| n as u64).product()).collect()),
        Trained::Lora { rank, targets, .. } => {
            let all: Vec<_> = linears(config).collect();
            let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
            for target in targets {
                if !all.iter().any(|(name, ..)| last(name) == *target) {
                    let mut there: Vec<_> = all.iter().map(|(name, ..)| last(name)).collect();
                    there.sort();
                    there.dedup();
                    return Err(Error::Invalid {
                        message: format!("no linear layer is called `{target}`"),
                        hint: Some(format!("this architecture has {}", there.join(", "))),
                    });
                }
            }
            if *rank == 0 || targets.is_empty() {
                return Err(Error::invalid("LoRA needs a rank of at least 1 and at least one target"));
            }
            let hit = all.into_iter().filter(|(name, ..)| targets.contains(&last(name)));
            Ok(hit.flat_map(|(_, o, i)| [*rank as u64 * i, *rank as u64 * o]).collect())
        }
    }
}

#[cfg(test)]
mod tests;
