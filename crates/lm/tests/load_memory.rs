//! The peak while loading, in a process of its own: what the tests beside use would hide it.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyo_core::memory::peak_rss_bytes;
use anyo_lm::{CausalLm, LmConfig, LoadOptions};
use serde_json::{Map, json};
use tch::{Device, Kind};

/// A model of zeros in bf16, written without holding it.
fn write_model(folder: &Path, config: &LmConfig) {
    fs::write(folder.join("config.json"), serde_json::to_string(&config.to_json(Kind::BFloat16)).unwrap()).unwrap();
    let (mut header, mut at) = (Map::new(), 0);
    for (name, shape) in config.tensors() {
        let end = at + 2 * shape.iter().product::<i64>();
        let _ = header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = BufWriter::new(File::create(folder.join("model.safetensors")).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0u8; 1 << 16];
    while at > 0 {
        let n = at.min(1 << 16);
        file.write_all(&zeros[..n as usize]).unwrap();
        at -= n;
    }
    file.into_inner().unwrap().sync_all().unwrap();
}

#[test]
fn the_peak_is_near_the_models_size() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"model_type": "llama", "vocab_size": 60000, "hidden_size": 512, "intermediate_size": 1024,
        "num_hidden_layers": 6, "num_attention_heads": 8, "tie_word_embeddings": true}"#;
    let config = LmConfig::from_text(Path::new("config.json"), text).unwrap();
    write_model(folder.path(), &config);
    // libtorch's own start.
    drop(
        tch::Tensor::zeros([64, 64], (Kind::Float, Device::Cpu))
            .matmul(&tch::Tensor::ones([64, 64], (Kind::Float, Device::Cpu))),
    );
    let before = peak_rss_bytes();
    for (dtype, size) in [(Kind::BFloat16, 2), (Kind::Float, 4)] {
        let model = CausalLm::load(folder.path(), &LoadOptions { device: Device::Cpu, dtype }).unwrap();
        let bytes = size * config.n_parameters();
        assert_eq!(model.dense_bytes() as u64, bytes);
        let grown = peak_rss_bytes() - before;
        println!("{dtype:?}: {bytes} bytes of weights, peak grew by {grown}, {:.3} times", grown as f64 / bytes as f64);
        // One block of the file and the tables beside the weights.
        assert!(grown < bytes + bytes / 20 + (48 << 20), "{dtype:?}: {grown} for {bytes}");
    }
}
