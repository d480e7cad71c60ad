use super::*;

/// A gate of four experts.
pub(crate) fn gate(name: GateName) -> GateConfig {
    GateConfig {
        name,
        experts: 4,
        top_k: 2,
        legacy_softmax: false,
        hidden: 128,
        noise: 0.1,
        norm: GateNorm::Batch,
        load_balance: 0.0,
    }
}

fn shipped(file: &str) -> TeacherConfig {
    use anyo_core::config::{Context, Request, SearchPath, compose, typed};
    let conf = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    // ilora_paper names no language model.
    let choice = format!("teacher={}", file.trim_end_matches(".yaml"));
    let words = [choice, "teacher.lm=builtin".into()];
    let request = Request {
        app: "run-teacher",
        examples: &[],
        primary: "run-teacher",
        search: &SearchPath::new([conf]),
        words: &words,
        base: None,
        forced: Vec::new(),
        context: Context { now: Default::default(), env: &|_| None },
    };
    typed::<crate::TeacherRunConfig>(&compose(&request).unwrap()).unwrap_or_else(|e| panic!("{file}: {e}")).teacher
}

#[test]
fn shipped_files_have_every_key_and_no_problem() {
    for file in ["ilora.yaml", "ilora_paper.yaml", "lora.yaml", "zeroshot.yaml"] {
        let config = shipped(file);
        assert!(config.problems().is_empty(), "{file}: {:?}", config.problems());
    }
    let (gated, plain) = (shipped("ilora.yaml"), shipped("lora.yaml"));
    assert!(gated.gate.is_some() && plain.gate.is_none() && gated.lora == plain.lora, "the same budget");
    assert!(!shipped("zeroshot.yaml").learns());
    let paper = shipped("ilora_paper.yaml");
    let lora = paper.lora_config().unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.experts, lora.dropout), (8, 32.0, Some(4), 0.1));
    assert_eq!(paper.train.batch_size * paper.train.accumulation, 128);
}

/// specs/ilora.md section 9, test 9: LastFM's peak 7e-4, start and end 7e-6, T = 1870, w = 93, the gate at 0.3 of it.
#[test]
fn the_schedule_is_the_papers() {
    let mut recipe = shipped("ilora_paper.yaml").train.optim;
    recipe.lr = 7e-4;
    let optim = recipe.optim(1870);
    assert_eq!(optim.schedule.warmup_steps, 93);
    let schedule = anyo_core::torch::Schedule::new(&optim.schedule, 1870).unwrap();
    for (step, want) in [(0, 7.0e-6), (46, 3.4977e-4), (93, 7.0e-4), (1870, 7.0e-6)] {
        assert!((optim.lr * schedule.factor(step) - want).abs() < 5e-9, "step {step}");
    }
    let g = recipe.groups.clone();
    assert_eq!((g.gate.lr, g.gate.decay, g.projector.lr, g.projector.decay), (0.3, 1e-5, 1.0, 1e-5));
    assert_eq!((g.lora.lr, g.lora.decay), (1.0, 0.0));
    // Too short for a warm-up.
    assert_eq!(recipe.optim(10).schedule.warmup_steps, 0);
}

#[test]
fn every_problem_is_reported_with_its_key() {
    let mut config = shipped("ilora.yaml");
    config.prompt.window = 0;
    config.lora.as_mut().unwrap().rank = 6;
    config.gate = Some(GateConfig { top_k: 9, noise: -1.0, load_balance: f64::NAN, ..gate(GateName::Topk) });
    config.head.as_mut().unwrap().scale = 0.0;
    config.train.choice_share = 1.5;
    config.train.optim.lr = 0.0;
    config.train.optim.warmup = 1.0;
    config.train.optim.groups.gate.lr = -0.3;
    let keys: Vec<String> = config.problems().into_iter().map(|p| p.key).collect();
    for key in [
        "prompt.window",
        "lora.rank",
        "gate.top_k",
        "gate.noise",
        "gate.load_balance",
        "head.scale",
        "train.choice_share",
        "train.optim.lr",
        "train.optim.warmup",
        "train.optim.groups.gate.lr",
    ] {
        assert!(keys.iter().any(|k| k == key), "{key} is not in {keys:?}");
    }
    let keys = |change: &dyn Fn(&mut TeacherConfig)| -> Vec<String> {
        let mut config = shipped("ilora.yaml");
        change(&mut config);
        config.problems().into_iter().map(|p| p.key).collect()
    };
    assert_eq!(keys(&|c| c.lora = None), ["gate"]);
    assert_eq!(keys(&|c| c.injection = false), ["train.curriculum"]);
    assert_eq!(keys(&|c| c.gate.as_mut().unwrap().name = GateName::Uniform), [] as [&str; 0]);
    assert_eq!(keys(&|c| (c.head, c.train.open_lm_weight) = (None, 0.0)), ["train.choice_share"]);
    let mut value = serde_json::to_value(shipped("ilora.yaml")).unwrap();
    value["gate"]["expert"] = 4.into();
    let error = serde_json::from_value::<TeacherConfig>(value).unwrap_err().to_string();
    assert!(error.contains("expert"), "{error}");
}
