use tch::Device;

use super::*;

fn config(items: HeadItems, normalize: bool, item_bias: bool) -> HeadConfig {
    HeadConfig { items, dim: 6, normalize, scale: 2.0, item_bias }
}

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn the_loss_is_that_of_a_full_softmax() {
    tch::manual_seed(5);
    let (items, titles) = (randn(&[11, 4]) * 0.01, randn(&[11, 8]) * 30.0 + 7.0);
    for (which, normalize, item_bias) in [
        (HeadItems::Both, false, true),
        (HeadItems::Both, true, false),
        (HeadItems::Id, false, false),
        (HeadItems::Title, true, true),
    ] {
        let mut params = Params::new(Device::Cpu);
        let head = Head::new(&config(which, normalize, item_bias), 8, &items, Some(&titles), &mut params, 1).unwrap();
        if let Some(bias) = params.get("head.bias") {
            no_grad(|| bias.shallow_clone().copy_(&randn(&[11])));
        }
        let states = randn(&[3, 8]).set_requires_grad(true);
        let inputs: Vec<Tensor> =
            params.trainable().map(|(_, t)| t.shallow_clone()).chain([states.shallow_clone()]).collect();
        let found = head.loss(&states, &[3, 0, 10], 0.25).unwrap();
        let scores = head.scores(&states, &head.items().unwrap()).unwrap();
        assert_eq!(scores.size(), [3, 11]);
        let targets = Tensor::from_slice(&[3i64, 0, 10]);
        let plain = scores.cross_entropy_loss::<&Tensor>(&targets, None, tch::Reduction::Sum, -100, 0.0);
        assert!((found.sum.double_value(&[]) - plain.double_value(&[])).abs() < 1e-5, "{which:?}");
        let want = Tensor::run_backward(&[plain * 0.25], &inputs, false, false);
        let got = Tensor::run_backward(&[found.surrogate], &inputs, false, false);
        for (got, want) in got.iter().zip(&want) {
            assert!(want.abs().max().double_value(&[]) > 0.0, "everything learns");
            assert!(got.allclose(want, 1e-4, 1e-6, false), "{which:?}: {got} {want}");
        }
    }
}

#[test]
fn directions_alone_count_with_normalize() {
    let items = randn(&[7, 4]);
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config(HeadItems::Id, true, false), 8, &items, None, &mut params, 1).unwrap();
    let scores = head.scores(&randn(&[5, 8]), &head.items().unwrap()).unwrap();
    assert!(scores.abs().max().double_value(&[]) <= 2.0 + 1e-5, "cosines times the scale");
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let mut params = Params::new(Device::Cpu);
    let error = Head::new(&config(HeadItems::Both, false, true), 8, &randn(&[7, 4]), None, &mut params, 1).unwrap_err();
    assert!(error.to_string().contains("needs the titles"), "{error}");
    let mut params = Params::new(Device::Cpu);
    let error =
        Head::new(&config(HeadItems::Title, false, true), 8, &randn(&[7, 4]), Some(&randn(&[6, 8])), &mut params, 1)
            .unwrap_err();
    assert_eq!(error.to_string(), "6 title encodings for 7 items");
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config(HeadItems::Id, false, true), 8, &randn(&[7, 4]), None, &mut params, 1).unwrap();
    assert!(head.loss(&randn(&[1, 8]), &[7], 1.0).unwrap_err().to_string().contains("target 7"));
}
