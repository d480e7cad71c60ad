use anyo_core::torch::load_tensors;

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/token_loss");

struct Case {
    name: String,
    loss: CrossEntropy,
    half: bool,
    hidden: Tensor,
    weight: Tensor,
    targets: Vec<i64>,
    grad_hidden: Tensor,
    grad_weight: Tensor,
    sum: f64,
    count: usize,
}

impl Case {
    /// Allowed gap of f32 gradients. With 9001 logits of up to 15 PyTorch's own f32 gradients are 6e-5 from its f64 ones.
    fn f32_gap(&self) -> f64 {
        if self.name == "blocks" { 3e-5 } else { 3e-6 }
    }
}

fn cases() -> Vec<Case> {
    let info: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{FOLDER}/case.json")).unwrap()).unwrap();
    let mut tensors = load_tensors(format!("{FOLDER}/case.safetensors").as_ref()).unwrap();
    let names = info.as_object().unwrap().keys().filter(|name| *name != "versions");
    names
        .map(|name| {
            let (case, mut take) = (&info[name], |key: &str| tensors.remove(&format!("{name}.{key}")).unwrap());
            Case {
                name: name.clone(),
                loss: CrossEntropy {
                    label_smoothing: case["smoothing"].as_f64().unwrap(),
                    temperature: case["temperature"].as_f64().unwrap(),
                },
                half: case["half"].as_bool().unwrap(),
                hidden: take("hidden"),
                weight: take("weight"),
                targets: take("targets").try_into().unwrap(),
                grad_hidden: take("grad_hidden"),
                grad_weight: take("grad_weight"),
                sum: case["sum"].as_f64().unwrap(),
                count: case["count"].as_u64().unwrap() as usize,
            }
        })
        .collect()
}

fn gap(got: &Tensor, want: &Tensor) -> f64 {
    (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[])
}

#[test]
fn loss_and_gradients_match_pytorch() {
    for case in cases() {
        let kind = if case.half { Kind::BFloat16 } else { Kind::Float };
        let (hidden, weight) = (case.hidden.to_kind(kind), case.weight.to_kind(kind));
        let found = case.loss.grad(&hidden, &weight, &case.targets, 0.5, true).unwrap();
        let (sum, by_weight) = (found.sum.double_value(&[]), found.weight.as_ref().unwrap());
        // In bf16 logits of about 4 are rounded to 1/64 or 1/32, and gradients to 1/256 of themselves.
        let (rtol, atol) = if case.half { (3e-3, 4e-2) } else { (1e-6, 0.5 * case.f32_gap()) };
        let gaps = (gap(&found.hidden, &(&case.grad_hidden * 0.5)), gap(by_weight, &(&case.grad_weight * 0.5)));
        println!("{}: sum {sum} against {}, gradients {gaps:?}", case.name, case.sum);
        assert_eq!(found.count, case.count);
        assert!((sum - case.sum).abs() < rtol * case.sum, "{}", case.name);
        assert!(gaps.0 < atol && gaps.1 < atol, "{}: {gaps:?}", case.name);
        assert_eq!((found.hidden.kind(), by_weight.kind()), (kind, kind));
        assert!(case.loss.grad(&hidden, &weight, &case.targets, 0.5, false).unwrap().weight.is_none());
    }
}

#[test]
fn a_general_head_and_the_surrogate_give_the_same_gradients() {
    for case in cases().into_iter().filter(|case| !case.half) {
        let hidden = case.hidden.set_requires_grad(true);
        let weight = case.weight.set_requires_grad(true);
        let v = weight.size()[0] as usize;
        let inputs = [weight.shallow_clone()];
        let logits = |x: &Tensor| Ok(x.f_matmul(&weight.f_tr()?)?);
        let found = case.loss.grad_through(&hidden, &case.targets, &inputs, 1.0, v, logits).unwrap();
        assert!((found.sum.double_value(&[]) - case.sum).abs() < 1e-6 * case.sum);
        let (by_weight, allowed) = (found.inputs[0].as_ref().unwrap(), case.f32_gap());
        assert!(gap(&found.hidden, &case.grad_hidden) < allowed && gap(by_weight, &case.grad_weight) < allowed);

        let found = case.loss.grad(&hidden, &weight, &case.targets, 1.0, true).unwrap();
        let root = found.surrogate(&hidden, Some(&weight)).unwrap();
        let grads = Tensor::run_backward(&[root], &[&hidden, &weight], false, false);
        assert!(gap(&grads[0], &case.grad_hidden) < allowed && gap(&grads[1], &case.grad_weight) < allowed);
    }
}

#[test]
fn the_tensor_form_used_on_gpus_agrees() {
    // A block that is not contiguous takes the path of devices without the row loop.
    for case in cases().into_iter().filter(|case| !case.half && case.name != "blocks") {
        let keep: Vec<i64> = (0..case.targets.len() as i64).filter(|&i| case.targets[i as usize] != IGNORE).collect();
        let targets: Vec<i64> = keep.iter().map(|&i| case.targets[i as usize]).collect();
        let logits = case.hidden.index_select(0, &Tensor::from_slice(&keep)).matmul(&case.weight.tr());
        let (mut rows, mut columns) = (logits.copy(), logits.tr().contiguous().tr());
        assert!(!columns.is_contiguous());
        let Part::Number(a) = case.loss.turn(&mut rows, &targets, 0.3).unwrap() else { panic!("not the row loop") };
        let Part::OnDevice(b) = case.loss.turn(&mut columns, &targets, 0.3).unwrap() else { panic!("the row loop") };
        assert!((a - b.double_value(&[])).abs() < 1e-5 * a && gap(&rows, &columns) < 1e-6, "{}", case.name);
    }
}

#[test]
fn bad_input_is_told() {
    let hidden = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
    let weight = Tensor::zeros([5, 2], (Kind::Float, Device::Cpu));
    let plain = CrossEntropy::plain();
    let message = |loss: CrossEntropy, weight: &Tensor, targets: &[i64]| {
        loss.grad(&hidden, weight, targets, 1.0, false).unwrap_err().to_string()
    };
    assert!(message(plain, &weight, &[0, 5, 1]).contains("target 5 at place 1"));
    assert!(message(plain, &weight, &[0, -1, 1]).contains("target -1"));
    assert!(message(plain, &weight, &[0]).contains("1 targets for 3 states"));
    assert!(message(plain, &weight.tr().contiguous(), &[0, 1, 1]).contains("2 features, the head has 5"));
    assert!(message(CrossEntropy { label_smoothing: 1.0, ..plain }, &weight, &[0, 1, 1]).contains("smoothing"));
    assert!(message(CrossEntropy { temperature: 0.0, ..plain }, &weight, &[0, 1, 1]).contains("temperature"));
    let none = plain.grad(&hidden, &weight, &[IGNORE; 3], 1.0, true).unwrap();
    assert_eq!((none.count, none.sum.double_value(&[])), (0, 0.0));
    assert_eq!(none.hidden.abs().sum(Kind::Float).double_value(&[]), 0.0);
}

#[test]
fn blocks_of_rows_stay_small() {
    // Phi-4-mini's vocabulary on the CPU: 128 rows are 102 MB, where 2 × 2048 would be 3.28 GB.
    assert_eq!(block_rows(200_064, Device::Cpu), 128);
    assert_eq!(block_rows(4096, Device::Cpu), 256);
    assert_eq!(block_rows(10, Device::Cpu), 4096);
}
