//! Puts a model together from tensors that a source gives by name.

use anyo_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use super::{
    CausalLm, EMBEDDING, HEAD,
    layer::{GateUp, Layer, Norm, Qkv},
};
use crate::{config::LmConfig, linear::Linear, rope::Rope};

/// Where tensors come from and what linear layers go through.
struct Builder<'a> {
    source: &'a mut dyn FnMut(&str, &[i64]) -> Result<Tensor>,
    finish: &'a mut dyn FnMut(Linear) -> Result<Linear>,
}

impl Builder<'_> {
    fn tensor(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let tensor = (self.source)(name, shape)?;
        if tensor.size() != shape {
            let message = format!("tensor `{name}` has shape {:?}, wanted {shape:?}", tensor.size());
            return Err(Error::invalid(message));
        }
        Ok(tensor)
    }

    fn linear(&mut self, name: String, n_out: usize, n_in: usize, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[n_out as i64, n_in as i64])?;
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"), &[n_out as i64])?) } else { None };
        (self.finish)(Linear::new(name, weight, bias))
    }

    fn norm(&mut self, name: String, config: &LmConfig) -> Result<Norm> {
        let weight = self.tensor(&name, &[config.hidden_size as i64])?;
        Ok(Norm { name, weight, eps: config.rms_eps })
    }

    fn layer(&mut self, config: &LmConfig, i: usize) -> Result<Layer> {
        let LmConfig { hidden_size: d, intermediate_size: f, attention_bias, mlp_bias, .. } = *config;
        let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let at = |part: &str| format!("model.layers.{i}.{part}");
        let fused = config.architecture.fused();
        let input_norm = self.norm(at("input_layernorm.weight"), config)?;
        let qkv = if fused {
            Qkv::Fused(self.linear(at("self_attn.qkv_proj"), q + 2 * kv, d, attention_bias)?)
        } else {
            Qkv::Split(
                self.linear(at("self_attn.q_proj"), q, d, attention_bias)?,
                self.linear(at("self_attn.k_proj"), kv, d, attention_bias)?,
                self.linear(at("self_attn.v_proj"), kv, d, attention_bias)?,
            )
        };
        let o = self.linear(at("self_attn.o_proj"), d, q, config.attention_out_bias)?;
        let post_norm = self.norm(at("post_attention_layernorm.weight"), config)?;
        let gate_up = if fused {
            GateUp::Fused(self.linear(at("mlp.gate_up_proj"), 2 * f, d, mlp_bias)?)
        } else {
            GateUp::Split(
                self.linear(at("mlp.gate_proj"), f, d, mlp_bias)?,
                self.linear(at("mlp.up_proj"), f, d, mlp_bias)?,
            )
        };
        let down = self.linear(at("mlp.down_proj"), d, f, mlp_bias)?;
        let heads = [config.n_heads, config.n_kv_heads, config.head_dim].map(|n| n as i64);
        let windowed = config.window(i).is_some();
        Ok(Layer { input_norm, qkv, o, post_norm, gate_up, down, heads, windowed })
    }
}

pub(super) fn model(
    config: LmConfig,
    device: Device,
    kind: Kind,
    source: &mut dyn FnMut(&str, &[i64]) -> Result<Tensor>,
    finish: &mut dyn FnMut(Linear) -> Result<Linear>,
) -> Result<CausalLm> {
    if !matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double) {
        return Err(Error::invalid(format!("a model cannot compute in {kind:?}; choose f32, bf16 or f16")));
    }
    let mut builder = Builder { source, finish };
    let (v, d) = (config.vocab_size, config.hidden_size);
    let embedding = builder.tensor(EMBEDDING, &[v as i64, d as i64])?;
    let layers = (0..config.n_layers).map(|i| builder.layer(&config, i)).collect::<Result<_>>()?;
    let norm = builder.norm("model.norm.weight".to_owned(), &config)?;
    let head = if config.tie_embeddings { None } else { Some(builder.linear(HEAD.to_owned(), v, d, false)?) };
    let rope = Rope::new(&config, kind, device)?;
    Ok(CausalLm { config, device, kind, embedding, layers, norm, head, rope })
}
