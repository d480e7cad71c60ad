//! `bench-distill WORK`: what distillation costs, one JSON line per call; our side of `benches/peers/distill.py`.
//!
//! Trains the student alone and distilled for one epoch each, in turns, without validation, on MovieLens-1M with a made-up
//! teacher: lists of twenty random items outside the history and random vectors, which cost what real ones do.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use anyo_core::{
    bundle::{Bundle, BundleWriter, DatasetIdentity, Distance, Flush, Lists, Opened, Position, Spec, Teacher, Wanted},
    data::{self, Dataset, Rows, TargetIndex},
    memory::peak_rss_bytes,
    torch::device,
};
use anyo_distill::{DistillRunConfig, Distillation, TeacherLists};
use anyo_student::{Extra, Student, fit_with};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::Quiet;

/// The works and their overrides.
const WORKS: [(&str, &[&str]); 4] = [
    ("ce", &["student=sasrec", "student.attention_dropout=0", "student.loss.name=ce"]),
    ("bce", &["student=sasrec", "student.attention_dropout=0"]),
    ("dros", &["student=sasrec_dllm2rec", "student.loss.dros_alpha=0.5", "train.batch_size=256"]),
    (
        "released",
        &["student=sasrec_dllm2rec", "student.loss.dros_alpha=1.0", "train.batch_size=256", "distill=dllm2rec_compat"],
    ),
];
/// Items of a made-up list.
const TOP_N: usize = 20;

/// Runs the work that `args` names and returns the line to print. `vectors=N` sets the width of the made-up vectors (64).
///
/// # Errors
/// An unknown work, missing data, or whatever the work meets.
pub fn line(args: &[String]) -> Result<String> {
    let names = WORKS.map(|(name, _)| name).join(", ");
    let [work, extra @ ..] = args else { bail!("which work? one of {names}; then overrides") };
    let Some((_, overrides)) = WORKS.iter().find(|(name, _)| name == work) else {
        bail!("no work `{work}`; one of {names}")
    };
    let (width, extra): (Vec<&String>, Vec<&String>) = extra.iter().partition(|word| word.starts_with("vectors="));
    let width: i64 = width.last().map_or(Ok(64), |word| word["vectors=".len()..].parse())?;
    let config = compose(overrides, &extra)?;
    device::set_threads(config.threads)?;
    let mut dataset = data::load(&config.dataset, &config.data, &mut |_| ())?;
    dataset.valid = Rows::new();
    let folder = std::env::temp_dir().join(format!("anyo-bench-distill-{}", std::process::id()));
    let measured = measure(&config, &dataset, &folder, width);
    let _ = std::fs::remove_dir_all(&folder);
    let (alone, distilled) = measured?;
    let rows = dataset.train.n_targets() as f64;
    Ok(json!({
        "work": work,
        "seconds": distilled,
        "plain_seconds": alone,
        "ratio": distilled / alone,
        "targets_per_s": rows / distilled,
        "vectors": width,
        "peak_rss_mb": peak_rss_bytes() as f64 / 1e6,
    })
    .to_string())
}

fn measure(config: &DistillRunConfig, dataset: &Dataset, folder: &Path, width: i64) -> Result<(f64, f64)> {
    teach(folder, dataset, width)?;
    let wanted = Wanted { rankings: config.distill.wants_rankings(), embeddings: config.distill.wants_embeddings() };
    let bundle = Bundle::open_for_training(folder, dataset, wanted)?;
    let vectors = if wanted.embeddings { Some(bundle.item_embeddings()?.shallow_clone()) } else { None };
    let part = config.student_part();
    let epoch = |guest: bool| -> Result<f64> {
        let mut student = Student::new(&config.student, dataset.n_items(), Device::Cpu, config.seed)?;
        let lists =
            (guest && wanted.rankings).then(|| TeacherLists::new(&bundle, dataset, &config.distill)).transpose()?;
        let vectors = vectors.as_ref().filter(|_| guest);
        let mut distillation =
            Distillation::new(&config.distill, dataset, lists, vectors, None, &mut student, config.seed)?;
        let extra = guest.then_some(&mut distillation as &mut dyn Extra);
        Ok(fit_with(&part.setup(dataset), &student, extra, &mut Quiet::default())?.seconds)
    };
    let alone = epoch(false)?;
    let distilled = epoch(true)?;
    Ok((alone, distilled))
}

/// Writes the made-up teacher's bundle.
fn teach(folder: &Path, dataset: &Dataset, width: i64) -> Result<()> {
    let spec = Spec {
        dataset: DatasetIdentity::of(dataset, Position::Train),
        position: Position::Train,
        top_n: TOP_N,
        exclude_history: false,
        target_may_appear: true,
        confidence: Distance::ScoreGap.confidence(),
        teacher: Teacher { name: "made_up".into(), config: json!(null) },
        selection: json!(null),
    };
    let Opened::Writer(mut writer) = BundleWriter::open(folder, &spec, Flush { rows: 1 << 20, time: Duration::MAX })?
    else {
        bail!("{} is there already", folder.display())
    };
    let (index, n_items) = (TargetIndex::new(&dataset.train), dataset.n_items() as u32);
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % n_items
    };
    let mut lists = Lists::new(TOP_N);
    let distances: Vec<f32> = (0..TOP_N).map(|i| i as f32 * 0.3).collect();
    for number in 0..index.len() {
        let mut items = Vec::with_capacity(TOP_N);
        while items.len() < TOP_N {
            let item = draw();
            if !items.contains(&item) {
                items.push(item);
            }
        }
        lists.push(number as u32, &items, &distances, Some((draw() + 1, 1.0)));
    }
    writer.push(&lists)?;
    let vectors = Tensor::randn([i64::from(n_items), width], (Kind::Float, Device::Cpu));
    writer.finish(Some(&vectors), dataset)?;
    Ok(())
}

fn compose(overrides: &[&str], extra: &[&String]) -> Result<DistillRunConfig> {
    let fixed = ["dataset=movielens-1m", "data.root=../shared/data", "train.epochs=1"];
    let words: Vec<String> = fixed
        .iter()
        .chain(overrides)
        .map(|word| (*word).to_owned())
        .chain(extra.iter().map(|word| (*word).clone()))
        .collect();
    super::compose("run-distill", &words)
}
