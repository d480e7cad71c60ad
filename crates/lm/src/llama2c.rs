//! Converts models of the llama2.c project (legacy format, version 0) to Hugging Face format.
//!
//! A file is seven little-endian i32 (width, feed-forward width, layers, heads, key heads, vocabulary, context; a
//! negative vocabulary means an output layer of its own), then f32 tensors without names. Each kind of tensor lies together
//! for all layers. Its rotary embedding turns neighbouring pairs, so the rows of q and k are put into half-split order.

mod tokenizer;

use std::{fs::File, path::Path};

use anyo_core::{Error, Result};
use memmap2::Mmap;
use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use crate::{
    config::{Architecture, LmConfig, RopeConfig, RopeScaling},
    model::CausalLm,
    weights::{TensorInfo, convert},
};

pub use tokenizer::{convert_tokenizer, parse_tokenizer};

const HEADER: usize = 7 * 4;

/// The sizes in the header of a file, checked against each other and against the file's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Width.
    pub dim: usize,
    /// Width of the feed-forward part.
    pub hidden_dim: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Longest sequence.
    pub seq_len: usize,
    /// The output layer is the embedding.
    pub tied: bool,
}

fn bad(path: &Path, message: String) -> Error {
    let hint = "give a model of llama2.c in its legacy format, as `export.py --version 0` writes it";
    Error::Checkpoint { path: path.to_owned(), message, hint: Some(hint.into()) }
}

/// Reads and checks the header at the front of `bytes`, the whole file; `path` is for messages.
///
/// # Errors
/// When a size is not positive or does not divide, or the file is shorter or longer than the sizes say.
pub fn parse_header(path: &Path, bytes: &[u8]) -> Result<Header> {
    let (words, _) = bytes.as_chunks::<4>();
    let Some(words) = words.first_chunk::<7>() else {
        return Err(bad(path, format!("truncated: {} bytes, not even the header of {HEADER}", bytes.len())));
    };
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab, seq_len] = words.map(i32::from_le_bytes);
    if dim.to_le_bytes() == *b"24ka" || dim.to_le_bytes() == *b"42ka" {
        return Err(bad(path, "a file of a newer llama2.c format (ak42), only the legacy format is read".into()));
    }
    let named = [
        ("dim", dim),
        ("hidden_dim", hidden_dim),
        ("n_layers", n_layers),
        ("n_heads", n_heads),
        ("n_kv_heads", n_kv_heads),
        ("seq_len", seq_len),
    ];
    if let Some((name, got)) = named.into_iter().find(|&(_, n)| n <= 0) {
        return Err(bad(path, format!("the header's {name} must be above 0, got {got}")));
    }
    if vocab == 0 {
        return Err(bad(path, "the header's vocab_size must not be 0".into()));
    }
    if n_heads % n_kv_heads != 0 || dim % n_heads != 0 || (dim / n_heads) % 2 != 0 {
        let message = format!(
            "the header's sizes do not fit together: dim {dim}, n_heads {n_heads}, n_kv_heads {n_kv_heads} (heads must \
             divide dim into even parts, and key heads divide heads)"
        );
        return Err(bad(path, message));
    }
    let header = Header {
        dim: dim as usize,
        hidden_dim: hidden_dim as usize,
        n_layers: n_layers as usize,
        n_heads: n_heads as usize,
        n_kv_heads: n_kv_heads as usize,
        vocab_size: vocab.unsigned_abs() as usize,
        seq_len: seq_len as usize,
        tied: vocab > 0,
    };
    let wanted = HEADER as u128 + 4 * header.sections().iter().map(|&(_, n, each)| n as u128 * each).sum::<u128>();
    if wanted != bytes.len() as u128 {
        let what = if wanted > bytes.len() as u128 { "truncated or not such a file" } else { "too long" };
        return Err(bad(path, format!("{what}: {} bytes, the header's sizes need {wanted} ({header:?})", bytes.len())));
    }
    Ok(header)
}

impl Header {
    fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Sections in the order of the file: name of the tensors, how many, and elements of each.
    fn sections(&self) -> [(&'static str, usize, u128); 14] {
        let [d, f, v] = [self.dim, self.hidden_dim, self.vocab_size].map(|n| n as u128);
        let kv = (self.n_kv_heads * self.head_dim()) as u128;
        let tables = self.seq_len as u128 * (self.head_dim() / 2) as u128;
        let n = self.n_layers;
        [
            ("model.embed_tokens.weight", 1, v * d),
            ("input_layernorm.weight", n, d),
            ("self_attn.q_proj.weight", n, d * d),
            ("self_attn.k_proj.weight", n, kv * d),
            ("self_attn.v_proj.weight", n, kv * d),
            ("self_attn.o_proj.weight", n, d * d),
            ("post_attention_layernorm.weight", n, d),
            ("mlp.gate_proj.weight", n, f * d),
            ("mlp.down_proj.weight", n, d * f),
            ("mlp.up_proj.weight", n, f * d),
            ("model.norm.weight", 1, d),
            ("rotary cosines", 1, tables),
            ("rotary sines", 1, tables),
            ("lm_head.weight", usize::from(!self.tied), v * d),
        ]
    }

    /// First element and number of elements of the tensor that Hugging Face calls `name`; in a file of the checked length
    /// no number overflows.
    fn find(&self, name: &str) -> Option<(usize, usize)> {
        let (part, layer) = match name.strip_prefix("model.layers.") {
            Some(rest) => {
                let (i, part) = rest.split_once('.')?;
                (part, i.parse::<usize>().ok()?)
            }
            None => (name, 0),
        };
        let mut at = 0u128;
        for (section, n, each) in self.sections() {
            if section == part && layer < n {
                return Some(((at + layer as u128 * each) as usize, each as usize));
            }
            at += n as u128 * each;
        }
        None
    }

    /// The configuration of the same model in Hugging Face format.
    pub fn config(&self) -> LmConfig {
        LmConfig {
            architecture: Architecture::Llama,
            vocab_size: self.vocab_size,
            hidden_size: self.dim,
            intermediate_size: self.hidden_dim,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim(),
            max_positions: self.seq_len,
            rms_eps: 1e-5,
            rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::Default },
            partial_rotary: 1.0,
            sliding_window: None,
            sliding_layers: Vec::new(),
            tie_embeddings: self.tied,
            attention_bias: false,
            attention_out_bias: false,
            mlp_bias: false,
            // Fixed by the sentencepiece models that llama2.c uses.
            bos: (self.vocab_size > 1).then_some(1),
            eos: if self.vocab_size > 2 { vec![2] } else { Vec::new() },
            pad: None,
            initializer_range: 0.02,
            stored_kind: Some(Kind::Float),
        }
    }
}

/// Loads a llama2.c file.
///
/// # Errors
/// When the file cannot be read, its header is wrong (see [`parse_header`]), or it holds NaN or infinity.
pub fn load(path: &Path, device: Device, kind: Kind) -> Result<CausalLm> {
    let file = File::open(path).map_err(Error::io(path, "open the llama2.c model"))?;
    let length = file.metadata().map_err(Error::io(path, "read the size of the llama2.c model"))?.len();
    if length < HEADER as u64 {
        return Err(bad(path, format!("truncated: {length} bytes, not even the header of {HEADER}")));
    }
    // SAFETY: read only; as with every mapping, another program that shortens the file meanwhile ends this one.
    let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map the llama2.c model"))?;
    let header = parse_header(path, &bytes)?;
    let half = header.head_dim() as i64 / 2;
    let mut source = |name: &str, shape: &[i64]| -> Result<Tensor> {
        let found = header.find(name).filter(|&(_, n)| n as i64 == shape.iter().product::<i64>());
        let Some((start, n)) = found else {
            return Err(bad(path, format!("has no tensor `{name}` of shape {shape:?}")));
        };
        let bytes = &bytes[HEADER + 4 * start..HEADER + 4 * (start + n)];
        let info = TensorInfo { dtype: Dtype::F32, shape: shape.to_vec(), start: 0, end: bytes.len() };
        let source = convert::Source { bytes, file: None };
        let tensor = convert::tensor(path, name, &source, &info, (Kind::Float, Device::Cpu), &|_| ())?;
        let tensor = if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            let d = header.dim as i64;
            // Row 2i + j of a head becomes row j·half + i.
            tensor.f_view([-1, half, 2, d])?.f_transpose(1, 2)?.f_reshape(shape)?
        } else {
            tensor
        };
        Ok(tensor.f_to_kind(kind)?.f_to_device(device)?)
    };
    CausalLm::from_source(header.config(), device, kind, &mut source)
}

/// Writes the model at `model`, and its tokenizer where one is given, as a folder in Hugging Face format.
///
/// # Errors
/// As [`load`] and [`convert_tokenizer`], and when the folder cannot be written.
pub fn convert(model: &Path, tokenizer: Option<&Path>, folder: &Path) -> Result<()> {
    let model = load(model, Device::Cpu, Kind::Float)?;
    // Before the large file, so that a wrong tokenizer leaves nothing behind.
    let tokenizer = tokenizer.map(|path| convert_tokenizer(path, model.config().vocab_size)).transpose()?;
    model.save(folder)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer::save(&tokenizer, folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
