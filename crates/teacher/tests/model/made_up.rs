//! A tiny language model, an encoder, a catalogue of 24 items and prompts made of a few token ids.

#[allow(dead_code, reason = "shared with other crates' tests, which use all of it")]
#[path = "../../../student/tests/support/data.rs"]
mod data;
#[allow(dead_code, reason = "shared with other crates' tests, which use all of it")]
#[path = "../../../student/tests/support/student.rs"]
mod small;
#[path = "../../../student/tests/support/watch.rs"]
mod watch;

use std::{collections::BTreeMap, path::Path};

use anyo_core::{Result, data::Dataset, eval::EvalConfig, torch::Dtype};
use anyo_lm::{CausalLm, LmConfig, Targets};
use anyo_student::{CheckpointConfig, Student, config::StudentConfig};
use anyo_teacher::{
    AddedTokens, Encoder, Mark, Parts, PromptMode, PromptSource, Prompted, Teacher, TeacherConfig, TeacherFitted,
    TeacherSetup,
    config::{
        Curriculum, GateConfig, GateName, GateNorm, GroupRecipe, Groups, HeadConfig, HeadItems, LoraPart, RecipeConfig,
        TeacherTrainConfig, Unseen,
    },
    encode_titles, fit_teacher,
};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

pub(crate) use self::watch::Recorder;

pub(crate) const N_ITEMS: usize = 24;
/// Tokens of the model: pad, bos, end, cue and question words, then 6 + 6 for titles.
const VOCAB: i64 = 40;
/// The added tokens: no vector, history vector, candidate vector.
pub(crate) const PLAIN: i64 = VOCAB;
pub(crate) const HISTORY: i64 = VOCAB + 1;
pub(crate) const CANDIDATE: i64 = VOCAB + 2;

pub(crate) fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

pub(crate) fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

pub(crate) fn lm_config(vocab: i64, d: i64, layers: i64, tied: bool) -> LmConfig {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": d,
        "intermediate_size": 2 * d, "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": d / 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": tied,
        "initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
    });
    LmConfig::from_text(Path::new("config.json"), &config.to_string()).unwrap()
}

pub(crate) fn lm(tied: bool) -> CausalLm {
    CausalLm::random(lm_config(VOCAB, 32, 2, tied), Device::Cpu, Kind::Float, 5).unwrap()
}

pub(crate) fn student(n_items: usize, d: i64, seed: u64) -> (Student, StudentConfig) {
    let config = small::neural(
        "sasrec_dllm2rec",
        &[("d_model", d.into()), ("dropout", json!(0.3)), ("loss.logq", "none".into())],
    );
    let student = Student::new(&config, n_items, Device::Cpu, seed).unwrap();
    // Item vectors as large as trained ones.
    let table = student.params.get("item_embeddings.weight").unwrap();
    let _ = no_grad(|| table.shallow_clone().f_mul_scalar_(50.0).unwrap());
    (student, config)
}

pub(crate) fn encoder() -> Encoder {
    let (student, config) = student(N_ITEMS, 16, 7);
    Encoder::new(student, &config, "made up").unwrap()
}

/// Newest items of a history that a prompt shows.
const WINDOW: usize = 5;

/// Prompts: BOS, history titles with markers, for choices a bar and candidate titles with markers, a cue.
pub(crate) struct Prompts {
    answers: Vec<Vec<i64>>,
}

impl Prompts {
    pub(crate) fn new() -> Self {
        // A title is one token of six and one of four.
        let title = |i: i64| vec![10 + i / 4, 20 + i % 4, 2];
        Self { answers: (0..N_ITEMS as i64).map(title).collect() }
    }

    fn titles(&self, items: &[u32], marker: i64, into: &mut Prompted) {
        for &item in items {
            into.ids.extend(&self.answers[item as usize][..2]);
            if marker != PLAIN {
                into.marks.push(Mark { position: into.ids.len(), item });
            }
            into.ids.push(marker);
        }
    }

    fn prompt(&self, history: &[u32], candidates: &[u32], template: usize, mode: PromptMode) -> Prompted {
        let markers = if mode == PromptMode::Hybrid { [HISTORY, CANDIDATE] } else { [PLAIN; 2] };
        let mut prompted = Prompted { ids: vec![1, 3 + template as i64], ..Prompted::default() };
        self.titles(&history[history.len().saturating_sub(WINDOW)..], markers[0], &mut prompted);
        if !candidates.is_empty() {
            prompted.ids.push(6);
            self.titles(candidates, markers[1], &mut prompted);
        }
        prompted.ids.push(7);
        prompted
    }
}

impl PromptSource for Prompts {
    fn n_templates(&self) -> usize {
        2
    }

    fn choice(&self, history: &[u32], candidates: &[u32], template: usize, mode: PromptMode) -> Result<Prompted> {
        Ok(self.prompt(history, candidates, template, mode))
    }

    fn open(&self, history: &[u32], template: usize, mode: PromptMode) -> Result<Prompted> {
        Ok(self.prompt(history, &[], template, mode))
    }

    fn answer(&self, item: u32) -> &[i64] {
        &self.answers[item as usize]
    }

    fn banned(&self) -> &[u32] {
        &[0, 40, 41, 42]
    }
}

/// Twenty candidates: the target and the items after it in a fixed order.
pub(crate) fn candidates(epoch: u64, key: u64, _history: &[u32], target: u32) -> Result<Vec<u32>> {
    let mut list: Vec<u32> = (0..20).map(|i| (target + i) % N_ITEMS as u32).collect();
    list.rotate_left((epoch + key) as usize % 20);
    Ok(list)
}

pub(crate) fn gate(name: GateName) -> GateConfig {
    GateConfig {
        name,
        experts: 4,
        top_k: 2,
        legacy_softmax: false,
        hidden: 16,
        noise: 0.1,
        norm: GateNorm::Batch,
        load_balance: 0.0,
    }
}

pub(crate) fn config() -> TeacherConfig {
    let group = GroupRecipe { lr: 1.0, decay: 0.0 };
    TeacherConfig {
        name: "test".into(),
        lm: "builtin".into(),
        dtype: Dtype::Float32,
        encoder_run: None,
        prompt: prompt_config(),
        injection: true,
        train_tokens: true,
        lora: Some(LoraPart { rank: 8, alpha: 16.0, dropout: 0.0, targets: Targets::AllLinear }),
        gate: Some(gate(GateName::Linear)),
        head: Some(HeadConfig {
            items: HeadItems::Both,
            dim: 16,
            normalize: false,
            scale: 1.0,
            item_bias: true,
            id_dropout: 0.0,
            unseen: Unseen::AsOthers,
            prior: 0.0,
            encoder: true,
        }),
        train: TeacherTrainConfig {
            batch_size: 4,
            accumulation: 1,
            epochs: 2,
            max_steps: None,
            max_rows: 0,
            min_history: 1,
            choice_share: 0.5,
            open_lm_weight: 0.5,
            head_weight: 1.0,
            curriculum: Curriculum::Linear,
            sort_chunk: 4,
            checkpointing: false,
            cache_mb: 1,
            valid_every: 4,
            valid_rows: 0,
            metric: "ndcg@10".into(),
            patience: 0,
            log_every: 1,
            checkpoint: CheckpointConfig { every_steps: 0, every_minutes: 0.0, keep: 2 },
            optim: RecipeConfig {
                name: anyo_core::torch::OptimName::Adam,
                lr: 5e-3,
                betas: [0.9, 0.999],
                eps: 1e-8,
                clip_norm: Some(1.0),
                warmup: 0.05,
                floor: 0.01,
                groups: Groups { lora: group, gate: group, projector: group, head: group, tokens: group },
            },
        },
    }
}

pub(crate) fn tokens() -> AddedTokens {
    AddedTokens { first: VOCAB, count: 3, injected: vec![HISTORY, CANDIDATE], pad: 0 }
}

pub(crate) fn teacher_on(lm: CausalLm, config: &TeacherConfig, encoder: &Encoder, seed: u64) -> Teacher {
    let prompts = Prompts::new();
    let titles: Vec<&[i64]> = (0..N_ITEMS as u32).map(|i| &prompts.answer(i)[..2]).collect();
    let titles = encode_titles(&lm, &titles, 5, &mut |_| Ok(())).unwrap();
    let (items, state_width) = (encoder.items(), encoder.state_width());
    Teacher::new(Parts {
        config,
        lm,
        tokens: tokens(),
        items,
        state_width,
        titles: Some(&titles),
        target_counts: &[],
        seed,
    })
    .unwrap()
}

pub(crate) fn teacher(config: &TeacherConfig, encoder: &Encoder) -> Teacher {
    teacher_on(lm(true), config, encoder, 3)
}

/// Gives every trainable weight random values, so that the adapters do something.
pub(crate) fn randomise(teacher: &Teacher, std: f64) {
    no_grad(|| {
        for (_, t) in teacher.params().trainable() {
            let noise = Tensor::randn(t.size(), (Kind::Float, Device::Cpu)) * std;
            let _ = t.shallow_clone().f_add_(&noise).unwrap();
        }
    });
}

/// As for students, in smaller batches.
pub(crate) fn eval_config() -> EvalConfig {
    EvalConfig { batch_size: 8, ..data::eval_config() }
}

/// Sequences of which every item from place `first_target` on is a target; the last one is asked for in validation too.
pub(crate) fn dataset(sequences: &[Vec<u32>], first_target: u32) -> Dataset {
    data::dataset_from(sequences, N_ITEMS, false, first_target)
}

/// A training with [`candidates`], without a folder.
pub(crate) fn setup<'a>(
    config: &'a TeacherConfig,
    dataset: &'a Dataset,
    encoder: &'a Encoder,
    prompts: &'a dyn PromptSource,
    eval: &'a EvalConfig,
) -> TeacherSetup<'a> {
    TeacherSetup {
        config,
        dataset,
        encoder,
        prompts,
        candidates: &candidates,
        soft: None,
        validate: None,
        eval,
        seed: 11,
        folder: None,
        resume: false,
    }
}

/// Trains a teacher with new weights.
pub(crate) fn fit(
    config: &TeacherConfig,
    dataset: &Dataset,
    folder: Option<&Path>,
    resume: bool,
    watch: &mut Recorder,
) -> (Teacher, Result<TeacherFitted>) {
    let (encoder, prompts, eval) = (encoder(), Prompts::new(), eval_config());
    let teacher = teacher(config, &encoder);
    let setup = TeacherSetup { folder, resume, ..setup(config, dataset, &encoder, &prompts, &eval) };
    let fitted = fit_teacher(&setup, &teacher, watch);
    (teacher, fitted)
}

/// The bits of all that is saved.
pub(crate) fn bits(teacher: &Teacher) -> BTreeMap<String, Vec<u32>> {
    small::bits(teacher.params())
}

/// A shipped wording that shows five items.
fn prompt_config() -> anyo_teacher::PromptConfig {
    let folder = tempfile::tempdir().unwrap();
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/teacher/prompt/generic.yaml");
    std::fs::copy(conf, folder.path().join("config.yaml")).unwrap();
    let config: anyo_teacher::PromptConfig = anyo_core::config::load_saved(folder.path()).unwrap();
    anyo_teacher::PromptConfig { window: WINDOW, ..config }
}
