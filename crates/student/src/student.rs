//! A student as built from its configuration, and as a recommender.

use std::collections::BTreeMap;

use anyo_core::{Batch, Error, Recommender, Result, data::Dataset, torch::Params};
use tch::Tensor;

use crate::{
    Caser, Gru4rec, Network, Sasrec, SasrecDllm2rec,
    baselines::{ItemKnn, Popularity},
    batch::Input,
    config::StudentConfig,
    seen::Seen,
};

/// A network with its parameters, ready to train or to rank.
pub struct Student {
    /// The network; its tensors are those of `params`.
    pub network: Box<dyn Network>,
    /// Its parameters by name.
    pub params: Params,
    max_len: usize,
}

impl std::fmt::Debug for Student {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Student")
            .field("n_parameters", &self.params.n_parameters())
            .field("max_len", &self.max_len)
            .finish()
    }
}

impl Student {
    /// A student with new weights.
    ///
    /// # Errors
    /// When the configuration names a recommender without gradients, or memory runs out.
    pub fn new(config: &StudentConfig, n_items: usize, device: tch::Device, seed: u64) -> Result<Self> {
        let mut params = Params::new(device);
        let p = &mut params;
        let network: Box<dyn Network> = match config {
            StudentConfig::Sasrec(c) => Box::new(Sasrec::new(c, n_items, p, seed)?),
            StudentConfig::SasrecDllm2rec(c) => Box::new(SasrecDllm2rec::new(c, n_items, p, seed)?),
            StudentConfig::Gru4rec(c) => Box::new(Gru4rec::new(c, n_items, p, seed)?),
            StudentConfig::Caser(c) => Box::new(Caser::new(c, n_items, p, seed)?),
            other => return Err(Error::invalid(format!("`{}` has no weights to train", other.name()))),
        };
        let max_len = config.recipe().map_or(0, |recipe| recipe.max_len);
        Ok(Self { network, params, max_len })
    }

    /// Takes weights by name, all of them and no others.
    ///
    /// # Errors
    /// When names or shapes do not fit; the message lists every one.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.params.load(tensors)
    }
}

impl Recommender for Student {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let window = |h: &'_ &'_ [u32]| h.len().saturating_sub(self.max_len);
        let histories: Vec<&[u32]> = batch.histories.iter().map(|h| &h[window(h)..]).collect();
        let input = Input::new(&histories, self.network.pad(), self.params.device());
        let head = self.network.head();
        let scores = head.scores(&self.network.newest(&input));
        if let Some(value) = head.seen_value() {
            Seen::of_histories(batch.histories, scores.size()[1] as usize).add(&scores, 0, value);
        }
        Ok(scores)
    }
}

/// The recommender without gradients that `config` names, fitted to the training rows; `None` for the others.
pub fn baseline(config: &StudentConfig, dataset: &Dataset) -> Option<Box<dyn Recommender>> {
    let threads = tch::get_num_threads().max(1) as usize;
    Some(match config {
        StudentConfig::Popularity(_) => Box::new(Popularity::new(dataset)),
        StudentConfig::RecentPopularity(c) => Box::new(Popularity::recent(dataset, c)),
        StudentConfig::ItemKnn(c) => Box::new(ItemKnn::fit(&dataset.train, dataset.n_items(), c, threads)),
        _ => return None,
    })
}
