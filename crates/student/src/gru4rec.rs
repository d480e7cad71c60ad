//! GRU4Rec in the form of LLaRA and DLLM2Rec: one GRU layer over item vectors, untied head (Hidasi et al., ICLR 2016).
//!
//! Tensor names and layouts are those of the released weights and of `torch.nn.GRU`.
//!
//! Differs: rows run padded and the state after the newest item is picked, where the original packs them; same result.

use anyo_core::{
    Result,
    torch::{Init, Params},
};
use tch::Tensor;

use crate::{
    batch::Input,
    config::WindowConfig,
    dropout::Mode,
    loss::Head,
    network::Network,
    sasrec_dllm2rec::{PytorchDefaults, pick_newest},
};

/// The network.
#[derive(Debug)]
pub struct Gru4rec {
    dropout: f64,
    n_items: i64,
    item_embeddings: Tensor, // [n_items + 1, D]; the last row is the pad
    gru: [Tensor; 4],        // weights [3D, D] twice, biases [3D] twice: input side, hidden side (reset, update, new)
    s_fc: Head,
}

impl Gru4rec {
    /// A network with new weights: items N(0, 0.01²), the GRU U(±1/√D), the head as PyTorch does.
    ///
    /// # Errors
    /// When a parameter cannot be made (no memory).
    pub fn new(config: &WindowConfig, n_items: usize, params: &mut Params, seed: u64) -> Result<Self> {
        let (d, n) = (config.d_model, n_items as i64);
        let mut make = PytorchDefaults { params, seed };
        Ok(Self {
            dropout: config.dropout,
            n_items: n,
            item_embeddings: make.normal("item_embeddings.weight", &[n + 1, d], 0.01)?,
            gru: [
                make.tensor("gru.weight_ih_l0", &[3 * d, d], Init::gru(d))?,
                make.tensor("gru.weight_hh_l0", &[3 * d, d], Init::gru(d))?,
                make.tensor("gru.bias_ih_l0", &[3 * d], Init::gru(d))?,
                make.tensor("gru.bias_hh_l0", &[3 * d], Init::gru(d))?,
            ],
            s_fc: make.head("s_fc", n, d)?,
        })
    }
}

impl Network for Gru4rec {
    fn pad(&self) -> i64 {
        self.n_items
    }

    fn items(&self) -> &Tensor {
        &self.item_embeddings
    }

    fn states_from(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor {
        let items = Tensor::embedding(items, &input.ids, -1, false, false); // [B,T,D]
        let x = mode.dropout(&items, self.dropout);
        let (b, d) = (input.lens.len() as i64, self.item_embeddings.size()[1]);
        let start = Tensor::zeros([1, b, d], (x.kind(), x.device()));
        let train = matches!(mode, Mode::Train(_));
        x.gru(&start, &self.gru, true, 1, 0.0, train, false, true).0
    }

    fn newest(&self, input: &Input) -> Tensor {
        pick_newest(&self.states(input, &Mode::Eval), input)
    }

    fn head(&self) -> Head {
        self.s_fc.shallow_clone()
    }
}
