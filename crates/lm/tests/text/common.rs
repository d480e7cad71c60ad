//! Fixtures, and two small models behind the trait.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use anyo_core::Result;
use anyo_lm::{Causal, LmInput, Pass, Tokenizer};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_folder(&fixture("tokenizer").join(name)).unwrap()
}

/// A folder of the shared data; `None`, with a word on stderr, where it is absent.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no {}", path.display());
    None
}

/// One layer of attention with learned positions and random weights.
pub(crate) struct Tiny {
    embedding: Tensor,
    positions: Tensor,
    projections: [Tensor; 3],
    head: Tensor,
    max_positions: usize,
}

pub(crate) struct TinyCache {
    keys: Option<(Tensor, Tensor)>, // [B,S,D]
}

impl Tiny {
    pub(crate) fn new(vocab: i64, max_positions: i64, seed: u64) -> Self {
        use rand_chacha::{
            ChaCha8Rng,
            rand_core::{Rng, SeedableRng},
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut random = |rows: i64, columns: i64, scale: f64| {
            let values: Vec<f32> = (0..rows * columns)
                .map(|_| ((f64::from(rng.next_u32()) / 2f64.powi(31) - 1.0) * scale) as f32)
                .collect();
            Tensor::from_slice(&values).view([rows, columns])
        };
        let width = 16;
        Self {
            embedding: random(vocab, width, 1.0),
            positions: random(max_positions, width, 1.0),
            projections: [random(width, width, 0.6), random(width, width, 0.6), random(width, width, 0.6)],
            head: random(vocab, width, 1.5),
            max_positions: max_positions as usize,
        }
    }

    /// Logits `[S,V]` of one row without cache or mask.
    pub(crate) fn plain(&self, ids: &[u32]) -> Tensor {
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_slice(&ids).view([1, -1]);
        let hidden = self.hidden(&LmInput { ids, ..LmInput::default() }, None, &Pass::default()).unwrap();
        self.logits(&hidden).unwrap().squeeze_dim(0)
    }
}

impl Causal for Tiny {
    type Cache = TinyCache;

    fn new_cache(&self, _rows: usize) -> TinyCache {
        TinyCache { keys: None }
    }

    fn select_rows(&self, cache: &TinyCache, rows: &[i64]) -> Result<TinyCache> {
        let at = Tensor::from_slice(rows);
        let keys = cache.keys.as_ref().map(|(k, v)| (k.index_select(0, &at), v.index_select(0, &at)));
        Ok(TinyCache { keys })
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(Tensor::embedding(&self.embedding, ids, -1, false, false))
    }

    fn hidden(&self, input: &LmInput, cache: Option<&mut TinyCache>, pass: &Pass<'_>) -> Result<Tensor> {
        let (rows, len) = input.ids.size2().unwrap();
        let past = cache.as_ref().and_then(|c| c.keys.as_ref()).map_or(0, |(k, _)| k.size()[1]);
        let mask = input
            .mask
            .as_ref()
            .map_or_else(|| Tensor::ones([rows, past + len], (Kind::Int64, Device::Cpu)), Tensor::shallow_clone);
        assert_eq!(mask.size(), [rows, past + len]);
        let places = (mask.cumsum(1, Kind::Int64) - 1).clamp_min(0).narrow(1, past, len);
        assert!(i64::try_from(&places.max()).unwrap() < self.max_positions as i64, "a position beyond the context");
        let embedded = input.embeddings.as_ref().map_or_else(|| self.embed(&input.ids).unwrap(), Tensor::shallow_clone);
        let mut x = embedded.reshape([rows * len, -1]) + self.positions.index_select(0, &places.contiguous().view(-1));
        if let Some(gate) = pass.gate {
            assert_eq!(gate.size()[0], rows);
            x = x.view([rows, len, -1]) * gate.unsqueeze(-1);
        }
        let x = x.view([rows, len, -1]);
        let [q, k, v] = [0, 1, 2].map(|i| x.matmul(&self.projections[i]));
        let (k, v) = match cache.as_ref().and_then(|c| c.keys.as_ref()) {
            Some((past_k, past_v)) => (Tensor::cat(&[past_k, &k], 1), Tensor::cat(&[past_v, &v], 1)),
            None => (k, v),
        };
        let causal = Tensor::ones([len, past + len], (Kind::Bool, Device::Cpu)).tril(past);
        let seen = causal.logical_and(&mask.to_kind(Kind::Bool).unsqueeze(1));
        let scores = q.matmul(&k.transpose(1, 2)).masked_fill(&seen.logical_not(), -1e9);
        let hidden = x + scores.softmax(-1, Kind::Float).matmul(&v);
        if let Some(cache) = cache {
            cache.keys = Some((k, v));
        }
        Ok(hidden)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden.matmul(&self.head.tr()))
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn vocab_size(&self) -> usize {
        self.embedding.size()[0] as usize
    }

    fn device(&self) -> Device {
        Device::Cpu
    }
}

/// Says fixed tokens: the last token of the prompt chooses the script.
pub(crate) struct Scripted {
    pub(crate) scripts: Vec<Vec<u32>>,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    /// Rows and columns of each call.
    pub(crate) calls: RefCell<Vec<(i64, i64)>>,
}

impl Scripted {
    pub(crate) fn new(scripts: Vec<Vec<u32>>, vocab: usize) -> Self {
        Self { scripts, vocab, context: 4096, calls: RefCell::new(Vec::new()) }
    }
}

impl Causal for Scripted {
    /// Script and place of each row.
    type Cache = Vec<Option<(usize, usize)>>;

    fn new_cache(&self, rows: usize) -> Self::Cache {
        vec![None; rows]
    }

    fn select_rows(&self, cache: &Self::Cache, rows: &[i64]) -> Result<Self::Cache> {
        Ok(rows.iter().map(|&row| cache[row as usize]).collect())
    }

    fn embed(&self, _ids: &Tensor) -> Result<Tensor> {
        unreachable!("no test injects vectors here")
    }

    fn hidden(&self, input: &LmInput, cache: Option<&mut Self::Cache>, _pass: &Pass<'_>) -> Result<Tensor> {
        let (rows, len) = input.ids.size2().unwrap();
        self.calls.borrow_mut().push((rows, len));
        let cache = cache.expect("generation uses a cache");
        assert_eq!(cache.len() as i64, rows);
        let next: Vec<i64> = (0..rows)
            .map(|row| {
                let last = input.ids.int64_value(&[row, len - 1]) as usize;
                let (script, place) = cache[row as usize].map_or((last % self.scripts.len(), 0), |(s, p)| (s, p + 1));
                cache[row as usize] = Some((script, place));
                i64::from(*self.scripts[script].get(place).unwrap_or(&0))
            })
            .collect();
        let last = Tensor::from_slice(&next).onehot(self.vocab as i64).unsqueeze(1);
        Ok(last.expand([rows, len, self.vocab as i64], false))
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden * 50.0)
    }

    fn max_positions(&self) -> usize {
        self.context
    }

    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn device(&self) -> Device {
        Device::Cpu
    }
}
