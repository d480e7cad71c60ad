//! int8 and NF4 against a NumPy reference (fixtures/quant).

use anyo_lm::{
    Linear, Pass,
    quant::{Base, Quant, QuantRow, compare, report},
};
use tch::{Kind, no_grad};

use super::{assert_close, eval, llama_like, lora::adapted, noise, tensors};

const CASES: [&str; 2] = ["odd", "large"];

#[test]
fn nf4_has_the_reference_bytes_and_values() {
    let want = tensors("quant/quant.safetensors");
    for case in CASES {
        for (name, double) in [("plain", false), ("double", true)] {
            let Base::Nf4(weight) = Base::quantize(&want[&format!("{case}.weight")], Quant::Nf4 { double }).unwrap()
            else {
                panic!()
            };
            assert_eq!(weight.codes(), &want[&format!("{case}.nf4_{name}.bytes")], "{case} {name}");
            let values = &want[&format!("{case}.nf4_{name}.values")];
            assert_close(name, &weight.dequantize(Kind::Float), values, 1e-6);
            assert_close(name, &weight.dequantize(Kind::BFloat16), &values.to_kind(Kind::BFloat16), 5e-3);
            let n = values.numel() as f64;
            let blocks = (n / 64.0).ceil();
            let bytes =
                (n / 2.0).ceil() + if double { blocks + 4.0 * (blocks / 256.0).ceil() + 4.0 } else { 4.0 * blocks };
            assert_eq!(weight.bytes() as f64, bytes);
        }
    }
}

#[test]
fn int8_has_the_reference_codes() {
    let want = tensors("quant/quant.safetensors");
    for case in CASES {
        let weight = &want[&format!("{case}.weight")];
        let Base::Int8(int8) = Base::quantize(weight, Quant::INT8).unwrap() else { panic!() };
        assert_eq!(int8.codes(), &want[&format!("{case}.int8.codes")]);
        assert_eq!(int8.bytes(), weight.numel() + 4 * weight.size()[0] as usize);
        assert_eq!(int8.absmax(), &weight.abs().amax([1].as_slice(), false));
    }
}

#[test]
fn outputs_and_input_gradients_are_the_references() {
    let want = tensors("quant/quant.safetensors");
    for case in CASES {
        for (name, quant) in [("nf4", Quant::NF4), ("int8", Quant::INT8)] {
            let get = |key: &str| &want[&format!("{case}.{name}.{key}")];
            let weight = want[&format!("{case}.weight")].shallow_clone();
            let linear = Linear::quantized("w", weight, None, quant).unwrap();
            let x = want[&format!("{case}.x")].copy().set_requires_grad(true);
            let y = linear.forward(&x, &eval());
            assert_close(case, &y, get("y"), 1e-5);
            (y * get("dy")).sum(Kind::Float).backward();
            assert_close(case, &x.grad(), get("dx"), 1e-5);
            // Without gradients: all rows at once, and NF4 by the kernel for few rows, which rounds no rows together.
            let x = x.detach();
            assert_close(case, &linear.forward(&x, &eval()), get("y"), 1e-5);
            if name == "nf4" {
                assert_close(case, &linear.forward(&x.narrow(0, 2, 3), &eval()), &get("y").narrow(0, 2, 3), 1e-5);
            }
            let half = linear.forward(&x.to_kind(Kind::BFloat16), &eval());
            assert_eq!(half.kind(), Kind::BFloat16);
            assert_close(case, &half, get("y"), 1e-2);
        }
    }
}

#[test]
fn few_rows_give_what_many_give() {
    let weight = noise(&[40, 192], 1.0);
    let bias = noise(&[40], 2.0);
    for quant in [Quant::INT8, Quant::Int8 { threshold: None }, Quant::NF4, Quant::Nf4 { double: false }] {
        let linear = Linear::quantized("w", weight.shallow_clone(), Some(bias.shallow_clone()), quant).unwrap();
        for rows in [1, 3, 8] {
            let x = noise(&[rows, 192], 3.0) * 4.0;
            let with_graph = linear.forward(&x.copy().set_requires_grad(true), &eval());
            assert_close("few rows", &linear.forward(&x, &eval()), &with_graph.detach(), 1e-5);
            // A graph that does not reach x changes nothing.
            assert_close("no_grad", &no_grad(|| linear.forward(&x, &eval())), &with_graph.detach(), 1e-5);
        }
    }
}

#[test]
fn adapters_train_on_a_quantised_base_as_on_its_dense_form() {
    for quant in [Quant::Int8 { threshold: None }, Quant::NF4] {
        let ((mut linear, params), (other, other_params)) =
            (adapted(Kind::Float, |_| {}), adapted(Kind::Float, |_| {}));
        linear.quantize(quant).unwrap();
        let dense = linear.base().dense(Kind::Float);
        no_grad(|| other.weight().unwrap().shallow_clone().copy_(&dense));
        let gradients = |linear: &Linear| {
            let x = noise(&[2, 6, 64], 5.0).set_requires_grad(true);
            linear.forward(&x, &Pass::default()).square().sum(Kind::Float).backward();
            x.grad()
        };
        assert_close("dx", &gradients(&linear), &gradients(&other), 1e-5);
        for ((name, p), (_, q)) in params.trainable().zip(other_params.trainable()) {
            assert_close(name, &p.grad(), &q.grad(), 1e-5);
        }
    }
}

#[test]
fn a_layer_is_quantised_once_and_only_if_frozen() {
    let mut linear = Linear::new("w", noise(&[6, 64], 1.0), None);
    let before = linear.weight_bytes();
    linear.quantize(Quant::NF4).unwrap();
    assert_eq!((before, linear.weight_bytes()), (6 * 64 * 4, 6 * 32 + 6 + 4 + 4));
    assert!(linear.weight().is_none() && !linear.trains_base());
    let message = linear.quantize(Quant::INT8).unwrap_err().to_string();
    assert_eq!(message, "layer `w` cannot be quantised: it is quantised already");
    let mut trained = Linear::new("w", noise(&[6, 64], 1.0).set_requires_grad(true), None);
    assert!(trained.quantize(Quant::INT8).unwrap_err().to_string().contains("its weight trains"));
    let bad = noise(&[6, 64], 1.0);
    let _ = bad.get(0).get(0).fill_(f64::NAN);
    let message = Linear::quantized("model.q_proj", bad, None, Quant::INT8).unwrap_err().to_string();
    assert!(message.contains("layer `model.q_proj`: the weight holds NaN or infinity"), "{message}");
}

#[test]
fn the_report_measures_each_layer() {
    let (weight, x) = (noise(&[48, 128], 1.0), noise(&[2, 5, 128], 2.0));
    let int8 = compare("w", &weight, Quant::INT8, Some(&x)).unwrap();
    let nf4 = compare("w", &weight, Quant::NF4, Some(&x)).unwrap();
    assert_eq!((int8.bytes_before, int8.bytes_after), (48 * 128 * 4, 48 * 128 + 48 * 4));
    // int8: half a step of at most 1/127; uniform noise of a step s has RMS s/√12, the weights' is 1/√3.
    assert!(int8.max_abs <= 0.5 / 127.0 * 1.001, "{}", int8.max_abs);
    assert!((int8.relative_rmse - 0.5 / 127.0).abs() < 3e-4, "{}", int8.relative_rmse);
    // NF4: half the widest gap between levels, (1 − 0.696)/2, is the largest error of a block with scale 1.
    assert!(nf4.max_abs < 0.16 && nf4.relative_rmse > 0.05 && nf4.relative_rmse < 0.15, "{nf4:?}");
    let base = Base::quantize(&weight, Quant::NF4).unwrap();
    let (got, want) = (base.forward(&x.view([10, 128]), None), x.view([10, 128]).matmul(&weight.tr()));
    let ratio = (got - &want).square().mean(Kind::Double).sqrt() / want.square().mean(Kind::Double).sqrt();
    assert!((nf4.output_relative_rmse - ratio.double_value(&[])).abs() < 1e-6);
    let text = serde_json::to_string(&nf4).unwrap();
    assert!(text.contains(r#""quant":{"nf4":{"double":true}}"#), "{text}");
    assert_eq!(serde_json::from_str::<QuantRow>(&text).unwrap().name, "w");
    let rows = report(&llama_like(), Quant::INT8).unwrap();
    assert_eq!((rows.len(), rows[10].name.as_str(), rows[10].out_features), (11, "lm_head", 6));
    assert!(rows.iter().all(|row| row.output_relative_rmse < 0.02 && row.output_relative_rmse > 0.0), "{rows:?}");
    let message = compare("w", &weight, Quant::NF4, Some(&noise(&[3, 4], 0.0))).unwrap_err().to_string();
    assert_eq!(message, "activations of `w` must have 128 features, got the shape [3, 4]");
}
