//! What is saved is all that was learned, and loads completely or not at all.

use std::collections::BTreeMap;

use anyo_core::torch::load_tensors;
use anyo_lm::{Causal, CausalLm};
use anyo_teacher::{
    PromptMode, PromptSource, Sequence, Side, Teacher,
    config::{Curriculum, GateName},
    row_key,
};
use tch::{Device, Kind, Tensor, no_grad};

use super::made_up::{
    Prompts, Recorder, bits, config, dataset, encoder, fit, gate, lm_config, randomise, teacher, teacher_on,
};

fn logits(teacher: &Teacher) -> Tensor {
    let prompt = Prompts::new().open(&[3, 1], 0, PromptMode::Hybrid).unwrap();
    let states = encoder().states(&[&[3, 1]], &mut |_| Ok(())).unwrap();
    no_grad(|| {
        let gate = teacher.gate(&states, &[row_key(&[3, 1])], anyo_teacher::GateMode::Eval).unwrap();
        let rows = [Sequence { prompt: &prompt, answer: &[] }];
        let prepared = teacher.prepare(&rows, Side::Right).unwrap();
        teacher.lm().logits(&teacher.states(&prepared, gate.as_ref(), None).unwrap()).unwrap()
    })
}

/// specs/ilora.md section 9, test 17: trained to the end with text alone, so that the projector had no gradient.
#[test]
fn a_round_trip_after_a_text_only_last_batch() {
    let data = dataset(&[vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9, 10, 11, 12]], 1);
    for train_tokens in [true, false] {
        let mut config = config();
        config.gate = Some(gate(GateName::Resnet1d));
        config.train.curriculum = Curriculum::AlwaysText;
        config.train_tokens = train_tokens;
        let (trained, fitted) = fit(&config, &data, None, false, &mut Recorder::default());
        assert_eq!(fitted.unwrap().hybrid_share, 0.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.safetensors");
        trained.save(&path, &BTreeMap::from([("seed".into(), "3".into())])).unwrap();
        let saved = load_tensors(&path).unwrap();
        for name in
            ["projector.1.weight", "tokens.rows", "gate.stages.2.2.bn2.running_var", "gate.fc.bias", "head.user.weight"]
        {
            assert!(saved.contains_key(name), "{name}");
        }
        assert!(saved.keys().any(|name| name.contains("lora_A")) && !saved.keys().any(|n| n.contains("embed_tokens")));
        let moved = saved["gate.bn1.running_mean"].abs().max().double_value(&[]);
        assert!(moved > 0.0, "training moved the running statistics");
        // Other initial weights everywhere, also for the added tokens.
        let other = teacher_on(super::made_up::lm(true), &config, &encoder(), 99);
        assert_ne!(logits(&trained), logits(&other));
        other.load(&path).unwrap();
        assert_eq!(logits(&trained), logits(&other), "bit for bit");
        assert_eq!(bits(&trained), bits(&other));
    }
}

#[test]
fn incomplete_or_foreign_files_are_refused_and_change_nothing() {
    let (encoder, config) = (encoder(), config());
    let trained = teacher(&config, &encoder);
    randomise(&trained, 0.3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.safetensors");
    trained.save(&path, &BTreeMap::new()).unwrap();
    let mut plain = config.clone();
    plain.gate = None;
    let other = teacher(&plain, &encoder);
    let before = bits(&other);
    let error = other.load(&path).unwrap_err();
    assert!(error.to_string().contains("unexpected tensor `gate.weight`"), "{error}");
    assert!(error.to_string().contains("teacher.safetensors"), "{error}");
    assert_eq!(bits(&other), before);
    let mut tensors = load_tensors(&path).unwrap();
    tensors.remove("projector.2.bias");
    let error = trained.load_tensors(&tensors).unwrap_err();
    assert!(error.to_string().contains("missing tensor `projector.2.bias`"), "{error}");
    // The same shapes, another language model.
    let foreign = CausalLm::random(lm_config(40, 32, 2, true), Device::Cpu, Kind::Float, 6).unwrap();
    let foreign = teacher_on(foreign, &config, &encoder, 3);
    let error = foreign.load(&path).unwrap_err();
    assert!(error.to_string().contains("trained on the language model D=32 layers=2 checksum="), "{error}");
    assert!(error.hint().unwrap().contains("teacher.lm"));
}
