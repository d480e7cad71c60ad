//! `run-lm plan`.

use anyo_core::{Result, memory::available_bytes};
use anyo_lm::{
    LmConfig,
    plan::{Plan, PlanRequest, Task, Trained, WeightKind, parse_bytes},
    train::OptimizerState,
};
use tch::{Device, Kind};

use super::{
    PlanConfig,
    config::{PlanTask, Quantize},
    print,
};

pub(super) fn run(config: PlanConfig) -> Result<()> {
    let device = config.device.choose()?.device;
    let found = Plan::new(&LmConfig::from_folder(&config.model)?, &request(&config, device))?;
    print(&format!("{}\n", found.to_string().trim_end()));
    let limit = match &config.limit {
        Some(text) => Some(parse_bytes(text)?),
        None if device == Device::Cpu => available_bytes(),
        None => None,
    };
    match limit {
        Some(limit) => {
            found.fits(limit)?;
            print(&format!("fits into {}\n", anyo_lm::plan::bytes_text(limit)));
        }
        None => print("give limit=… to check it against the GPU's memory\n"),
    }
    Ok(())
}

fn request(config: &PlanConfig, device: Device) -> PlanRequest {
    let kind = config.dtype.kind();
    let trained = match config.task {
        PlanTask::Full => Trained::All,
        _ => Trained::Lora { rank: config.rank, targets: config.targets.clone(), dropout: true, gated: false },
    };
    let task = match config.task {
        PlanTask::Generate => Task::Generate {
            batch: config.batch,
            prompt_len: config.prompt_len.min(config.seq_len),
            total_len: config.seq_len,
        },
        _ => Task::Train {
            batch: config.batch,
            seq_len: config.seq_len,
            micro_batches: config.accumulation,
            trained,
            state: if config.adam8 { OptimizerState::EightBit } else { OptimizerState::F32 },
            checkpointing: config.checkpointing,
            packed: config.packed,
        },
    };
    let weights = match (config.quantize, kind) {
        (Quantize::Int8, _) => WeightKind::Int8,
        (Quantize::Nf4, _) => WeightKind::Nf4,
        (Quantize::None, Kind::BFloat16) => WeightKind::Bf16,
        (Quantize::None, _) => WeightKind::F32,
    };
    PlanRequest { weights, compute_bytes: kind.elt_size_in_bytes(), device, task }
}
