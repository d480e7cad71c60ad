//! tmp speed probe
use std::{collections::HashMap, time::Instant};
use anyo_core::{data::Rows, torch::Params, seed::{self, Stream}};
use anyo_student::{*, batch::{Examples, Input, Sampler}, config::*, loss::Loss, dropout::Mode};
use tch::{Device, Tensor, Kind};
fn main() {
    anyo_core::memory::keep_freed_memory();
    tch::set_num_threads(2);
    let args: Vec<String> = std::env::args().collect();
    let loss_name = match args[1].as_str() { "ce" => LossName::Ce, "ss" => LossName::SampledSoftmax, _ => LossName::Bce };
    let max_len: usize = args[2].parse().unwrap(); let d: i64 = args[3].parse().unwrap(); let bs: usize = args[4].parse().unwrap();
    let ad: f64 = args[5].parse().unwrap(); let modern = args.get(6).is_some();
    let text = std::fs::read_to_string("../shared/data/movielens-1m/sequences.tsv").unwrap();
    let mut map: HashMap<u32, u32> = HashMap::new();
    let mut rows = Rows::new(); let mut test = Rows::new();
    for (u, line) in text.lines().enumerate() {
        let items: Vec<u32> = line.split('\t').nth(1).unwrap().split(' ').map(|x| { let x: u32 = x.parse().unwrap(); let n = map.len() as u32; *map.entry(x).or_insert(n) }).collect();
        let n = items.len();
        rows.push(u as u32, items[..n-2].iter().copied(), 1); test.push_eval(u as u32, &items[..n-1], items[n-1]);
    }
    let n_items = map.len();
    let counts = rows.target_counts(n_items);
    let loss = LossConfig { name: loss_name, n_negatives: if loss_name == LossName::Bce {1} else {512}, negatives: Negatives::Uniform, logq: LogQ::Negatives, gbce_t: 0.75, temperature: 1.0, dros_alpha: 0.0, dros_beta: 1.0 };
    let cfg = SasrecConfig { max_len, d_model: d, n_blocks: 2, n_heads: 1, dropout: 0.2, attention_dropout: ad, norm: if modern {Norm::Pre} else {Norm::Query}, ffn: if modern {Ffn::Swiglu} else {Ffn::Relu}, ffn_ratio: 1.0, scale_embeddings: !modern, norm_eps: 1e-8, init: InitKind::XavierNormal, rows: RowsKind::EveryPosition, loss: loss.clone(), optim: serde_json::from_str(r#"{"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": null,"schedule": {"name": "constant", "warmup_steps": 0, "total_steps": null, "floor": 0.0}}"#).unwrap() };
    let mut params = Params::new(Device::Cpu);
    let net = Sasrec::new(&cfg, n_items, &mut params, 1).unwrap();
    let ex = Examples::new(&rows, RowsKind::EveryPosition, max_len, n_items);
    println!("items {n_items} targets {}", ex.n_targets());
    let l = Loss::new(&loss, &counts); let mut sampler = Sampler::new(&loss, &counts);
    let t0 = Instant::now();
    let (mut tb, mut tf, mut tl, mut tbw, mut to) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let mut sum = 0.0; let mut nt = 0;
    for (i, b) in ex.epoch(bs, true, 1, 0).iter().enumerate() {
        let t = Instant::now();
        let batch = ex.batch(b, net.pad(), Device::Cpu);
        let neg = ex.negatives(&batch, &mut sampler, 1, 0, i as u64);
        tb += t.elapsed().as_secs_f64(); let t = Instant::now();
        let mode = Mode::train(seed::derive(1, Stream::Dropout, 0, i as u64));
        let states = net.states(&batch.input, &mode).view([-1, d]).index_select(0, &Tensor::from_slice(&batch.places));
        tf += t.elapsed().as_secs_f64(); let t = Instant::now();
        let head = net.head();
        let g = l.grad(&states.detach(), &head, &batch.positives, &neg, 1.0 / batch.positives.len() as f64);
        sum += g.sum; nt += batch.positives.len();
        tl += t.elapsed().as_secs_f64(); let t = Instant::now();
        params.zero_grad();
        g.surrogate(&states, &head).backward();
        tbw += t.elapsed().as_secs_f64(); let t = Instant::now();
        tch::no_grad(|| for (_, p) in params.trainable() { let mut p = p.shallow_clone(); let g = p.grad(); p -= g * 0.1; });
        to += t.elapsed().as_secs_f64();
    }
    println!("epoch {:.2}s  batch {tb:.2} fwd {tf:.2} loss {tl:.2} bwd {tbw:.2} opt {to:.2} loss {:.4} rss {} MB", t0.elapsed().as_secs_f64(), sum / nt as f64, anyo_core::memory::peak_rss_bytes() / 1000000);
    let t0 = Instant::now();
    let _g = tch::no_grad_guard();
    let mut order: Vec<usize> = (0..test.len()).collect(); order.sort_by_key(|&r| test.history(r).len());
    let mut hits = 0.0;
    for chunk in order.chunks(128) {
        let h: Vec<&[u32]> = chunk.iter().map(|&r| { let h = test.history(r); &h[h.len().saturating_sub(max_len)..] }).collect();
        let input = Input::new(&h, net.pad(), Device::Cpu);
        let s = net.head().scores(&net.newest(&input));
        hits += s.sum(Kind::Float).double_value(&[]);
    }
    println!("rank {:.0} users/s {hits}", test.len() as f64 / t0.elapsed().as_secs_f64());
}
