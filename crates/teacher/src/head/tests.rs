use tch::Device;

use super::*;

fn config(items: HeadItems, normalize: bool, item_bias: bool) -> HeadConfig {
    HeadConfig {
        items,
        dim: 6,
        normalize,
        scale: 2.0,
        item_bias,
        id_dropout: 0.0,
        unseen: Unseen::AsOthers,
        prior: 0.0,
        encoder: true,
    }
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
        let head =
            Head::new(&config(which, normalize, item_bias), 8, &items, Some(&titles), &[], &mut params, 1).unwrap();
        if let Some(bias) = params.get("head.bias") {
            no_grad(|| bias.shallow_clone().copy_(&randn(&[11])));
        }
        let states = randn(&[3, 8]).set_requires_grad(true);
        let inputs: Vec<Tensor> =
            params.trainable().map(|(_, t)| t.shallow_clone()).chain([states.shallow_clone()]).collect();
        let found = head.loss(&states, &[3, 0, 10], None, 0.25, 1).unwrap();
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

/// Against PyTorch's cross-entropy with probabilities as targets.
#[test]
fn a_share_of_the_aim_is_the_list() {
    tch::manual_seed(9);
    let (items, titles) = (randn(&[6, 4]), randn(&[6, 8]));
    // Item 1 is no training target: the softmax leaves it out, and its weight goes to the others of the list.
    let config = HeadConfig { unseen: Unseen::ByTitle, ..config(HeadItems::Both, false, true) };
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config, 8, &items, Some(&titles), &[3, 0, 1, 2, 2, 5], &mut params, 1).unwrap();
    let states = randn(&[3, 8]).set_requires_grad(true);
    let inputs: Vec<Tensor> =
        params.trainable().map(|(_, t)| t.shallow_clone()).chain([states.shallow_clone()]).collect();
    let lists: [&[(u32, f32)]; 3] = [&[(2, 0.5), (1, 0.2), (4, 0.3)], &[], &[(1, 1.0)]];
    let (targets, scale) = ([5, 0, 2], 0.25);
    for share in [0.0, 0.4, 1.0] {
        let aim = Aim { share, lists: lists.to_vec() };
        let found = head.loss(&states, &targets, Some(&aim), scale, 1).unwrap();
        // Over items 0, 2, 3, 4, 5; rows without a list, or with nothing known in it, aim at their true items alone.
        let (a, b) = (0.5 / 0.8 * share as f32, 0.3 / 0.8 * share as f32);
        let aims = [0.0, a, 0.0, b, 1.0 - share as f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
        let aims = Tensor::from_slice(&aims).view([3, 5]);
        let known = Tensor::from_slice(&[0i64, 2, 3, 4, 5]);
        let scores = head.scores(&states, &head.items().unwrap()).unwrap().index_select(1, &known);
        let want = scores.cross_entropy_loss::<&Tensor>(&aims, None, tch::Reduction::Sum, -100, 0.0);
        assert!((found.sum.double_value(&[]) - want.double_value(&[])).abs() < 1e-5, "{share}");
        if share == 1.0 {
            let entropy = -(0.625f64 * 0.625f64.ln() + 0.375 * 0.375f64.ln());
            assert!((found.kl.unwrap() - (want.double_value(&[]) - entropy)).abs() < 1e-5);
        }
        let want = Tensor::run_backward(&[want * scale], &inputs, false, false);
        let got = Tensor::run_backward(&[found.surrogate], &inputs, false, false);
        assert!(got.iter().zip(&want).all(|(got, want)| got.allclose(want, 1e-4, 1e-6, false)), "{share}");
    }
}

#[test]
fn directions_alone_count_with_normalize() {
    let items = randn(&[7, 4]);
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config(HeadItems::Id, true, false), 8, &items, None, &[], &mut params, 1).unwrap();
    let scores = head.scores(&randn(&[5, 8]), &head.items().unwrap()).unwrap();
    assert!(scores.abs().max().double_value(&[]) <= 2.0 + 1e-5, "cosines times the scale");
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let mut params = Params::new(Device::Cpu);
    let error =
        Head::new(&config(HeadItems::Both, false, true), 8, &randn(&[7, 4]), None, &[], &mut params, 1).unwrap_err();
    assert!(error.to_string().contains("needs the titles"), "{error}");
    let mut params = Params::new(Device::Cpu);
    let error = Head::new(
        &config(HeadItems::Title, false, true),
        8,
        &randn(&[7, 4]),
        Some(&randn(&[6, 8])),
        &[],
        &mut params,
        1,
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "6 title encodings for 7 items");
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config(HeadItems::Id, false, true), 8, &randn(&[7, 4]), None, &[], &mut params, 1).unwrap();
    assert!(head.loss(&randn(&[1, 8]), &[7], None, 1.0, 1).unwrap_err().to_string().contains("target 7"));
}

#[test]
fn unseen_items_are_ranked_by_their_titles_alone() {
    tch::manual_seed(6);
    let (items, titles) = (randn(&[5, 4]), randn(&[5, 8]));
    let config = HeadConfig { unseen: Unseen::ByTitle, ..config(HeadItems::Both, false, true) };
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config, 8, &items, Some(&titles), &[3, 0, 1, 0, 2], &mut params, 1).unwrap();
    let states = randn(&[2, 8]);
    // The softmax runs over items 0, 2 and 4.
    let scores = head.scores(&states, &head.items().unwrap()).unwrap();
    let seen = scores.index_select(1, &Tensor::from_slice(&[0i64, 2, 4]));
    let want =
        seen.cross_entropy_loss::<&Tensor>(&Tensor::from_slice(&[2i64, 0]), None, tch::Reduction::Sum, -100, 0.0);
    let found = head.loss(&states, &[4, 0], None, 1.0, 1).unwrap();
    assert!((found.sum.double_value(&[]) - want.double_value(&[])).abs() < 1e-5);
    // Other encoder vectors of the unseen change nothing.
    let other = items.copy();
    let _ = other.get(1).fill_(9.0);
    let mut again = Params::new(Device::Cpu);
    // (the table is centred as a whole, so the seen rows move with it: compare the unseen only)
    let changed = Head::new(&config, 8, &other, Some(&titles), &[3, 0, 1, 0, 2], &mut again, 1).unwrap();
    let vectors = |head: &Head| head.items().unwrap().vectors.index_select(0, &Tensor::from_slice(&[1i64, 3]));
    assert!(vectors(&head).equal(&vectors(&changed)));
    assert!(head.loss(&states, &[1, 0], None, 1.0, 1).unwrap_err().to_string().contains("target 1"));
    let mut third = Params::new(Device::Cpu);
    let error = Head::new(&config, 8, &items, Some(&titles), &[1], &mut third, 1).unwrap_err();
    assert!(error.to_string().contains("1 counts"), "{error}");
}

#[test]
fn dropped_encoder_vectors_depend_on_the_seed_alone() {
    tch::manual_seed(7);
    let (items, titles) = (randn(&[200, 4]), randn(&[200, 8]));
    let config = HeadConfig { id_dropout: 0.25, ..config(HeadItems::Both, false, false) };
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config, 8, &items, Some(&titles), &[], &mut params, 1).unwrap();
    let whole = head.items().unwrap().vectors;
    let dropped = |seed| {
        let vectors = head.items_without(Some(seed)).unwrap().vectors;
        let changed = (&vectors - &whole).abs().sum_dim_intlist(1, false, Kind::Float).gt(0.0);
        (vectors, changed.sum(Kind::Int64).int64_value(&[]))
    };
    let ((a, n), (b, _), (c, _)) = (dropped(1), dropped(1), dropped(2));
    assert!(a.equal(&b) && !a.equal(&c));
    // 50 expected, deviation 6.1
    assert!((25..75).contains(&n), "{n}");
}

#[test]
fn the_prior_is_whole_in_the_loss_and_as_kept_in_the_ranking() {
    tch::manual_seed(8);
    let (items, titles) = (randn(&[3, 4]), randn(&[3, 8]));
    let config = HeadConfig { prior: 1.0, ..config(HeadItems::Both, false, false) };
    let mut params = Params::new(Device::Cpu);
    let head = Head::new(&config, 8, &items, Some(&titles), &[7, 0, 1], &mut params, 1).unwrap();
    let states = randn(&[2, 8]);
    let scores = |share| {
        head.keep_prior(share).unwrap();
        head.scores(&states, &head.items().unwrap()).unwrap()
    };
    let (none, half, all) = (scores(0.0), scores(0.5), scores(1.0));
    // (n + 1/2) / 9.5
    let log = Tensor::from_slice(&[(7.5f32 / 9.5).ln(), (0.5f32 / 9.5).ln(), (1.5f32 / 9.5).ln()]);
    assert!((&none + &log).allclose(&all, 1e-5, 1e-6, false) && (&none + log * 0.5).allclose(&half, 1e-5, 1e-6, false));
    let want = all.cross_entropy_loss::<&Tensor>(&Tensor::from_slice(&[2i64, 0]), None, tch::Reduction::Sum, -100, 0.0);
    let _ = scores(0.0);
    let found = head.loss(&states, &[2, 0], None, 1.0, 1).unwrap();
    assert!((found.sum.double_value(&[]) - want.double_value(&[])).abs() < 1e-5);
    assert!(params.get("head.prior_kept").is_some(), "it is saved");
}

#[test]
fn an_encoder_says_nothing_of_items_it_never_met() {
    let (items, titles) = (randn(&[3, 4]), randn(&[3, 8]));
    let scores = Tensor::from_slice2(&[[3.0f32, 50.0, -1.0], [0.0, -9.0, 8.0]]);
    let head = |unseen| {
        let config = HeadConfig { unseen, ..config(HeadItems::Both, false, false) };
        Head::new(&config, 8, &items, Some(&titles), &[7, 0, 1], &mut Params::new(Device::Cpu), 1).unwrap()
    };
    // means over items 0 and 2: 1 and 4
    let wanted = Tensor::from_slice2(&[[2.0f32, 0.0, -2.0], [-4.0, 0.0, 4.0]]);
    assert!(head(Unseen::ByTitle).of_known(&scores).unwrap().equal(&wanted));
    assert!(head(Unseen::AsOthers).of_known(&scores).unwrap().equal(&scores));
    let mut params = Params::new(Device::Cpu);
    let config = config(HeadItems::Both, false, false);
    let head = Head::new(&config, 8, &items, Some(&titles), &[], &mut params, 1).unwrap();
    assert_eq!(head.encoder_share().unwrap(), 0.0);
    head.keep_encoder(0.25).unwrap();
    assert_eq!(params.get("head.encoder_kept").unwrap().double_value(&[0]), 0.25, "it is saved");
}
