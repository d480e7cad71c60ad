//! Caser in the form of LLaRA and DLLM2Rec: horizontal and vertical filters over a window, untied head (Tang and Wang,
//! WSDM 2018), without the user vector.
//!
//! Tensor names and layouts are those of the released weights.

use anyo_core::{
    Result,
    torch::{Init, Params},
};
use tch::Tensor;

use crate::{
    batch::Input, config::WindowConfig, dropout::Mode, layers::Linear, loss::Head, network::Network,
    sasrec::zero_empty, sasrec_dllm2rec::PytorchDefaults,
};

/// Heights of the horizontal filters, and how many there are of each.
const HEIGHTS: [i64; 3] = [2, 3, 4];
const FILTERS: i64 = 16;

/// The network. Axes: B rows, L `max_len`, D `d_model`.
#[derive(Debug)]
pub struct Caser {
    dropout: f64,
    max_len: usize,
    n_items: i64,
    item_embeddings: Tensor, // [n_items + 1, D]; the last row is the pad
    horizontal: Vec<Linear>, // weights [16, 1, height, D]
    vertical: Linear,        // weight [1, 1, L, 1]
    s_fc: Head,              // [n_items, 16·3 + D]
}

impl Caser {
    /// A network with new weights: items N(0, 0.01²), filters Xavier normal with biases 0.1, the head as PyTorch does.
    ///
    /// # Errors
    /// When a parameter cannot be made (no memory).
    pub fn new(config: &WindowConfig, n_items: usize, params: &mut Params, seed: u64) -> Result<Self> {
        let (d, n) = (config.d_model, n_items as i64);
        let mut make = PytorchDefaults { params, seed };
        let item_embeddings = make.normal("item_embeddings.weight", &[n + 1, d], 0.01)?;
        let mut filters = |name: &str, size: [i64; 4]| -> Result<Linear> {
            let weight = make.tensor(&format!("{name}.weight"), &size, Init::XavierNormal)?;
            Ok(Linear { weight, bias: Some(make.tensor(&format!("{name}.bias"), &size[..1], Init::Constant(0.1))?) })
        };
        let horizontal = (0..HEIGHTS.len())
            .map(|i| filters(&format!("horizontal_cnn.{i}"), [FILTERS, 1, HEIGHTS[i], d]))
            .collect::<Result<_>>()?;
        let vertical = filters("vertical_cnn", [1, 1, config.max_len as i64, 1])?;
        let s_fc = make.head("s_fc", n, FILTERS * HEIGHTS.len() as i64 + d)?;
        let (dropout, max_len) = (config.dropout, config.max_len);
        Ok(Self { dropout, max_len, n_items: n, item_embeddings, horizontal, vertical, s_fc })
    }

    /// State of whole windows, `[B, 16·3 + D]`.
    fn window(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor {
        let (b, width, d) = (input.lens.len() as i64, input.width as i64, self.item_embeddings.size()[1]);
        let items = Tensor::embedding(items, &input.ids, -1, false, false); // [B,T,D]
        let image = (items * input.mask().unsqueeze(-1)) // pads are zero
            .constant_pad_nd([0, 0, 0, self.max_len as i64 - width])
            .unsqueeze(1); // [B,1,L,D]
        let conv =
            |filter: &Linear| image.conv2d(&filter.weight, filter.bias.as_ref(), [1, 1], [0, 0], [1, 1], 1).relu();
        let mut parts: Vec<Tensor> =
            self.horizontal.iter().map(|filter| conv(filter).squeeze_dim(3).amax([2i64], false)).collect();
        parts.push(conv(&self.vertical).view([b, d]));
        mode.dropout(&Tensor::cat(&parts, 1), self.dropout)
    }
}

impl Network for Caser {
    fn pad(&self) -> i64 {
        self.n_items
    }

    fn items(&self) -> &Tensor {
        &self.item_embeddings
    }

    /// The state of the whole window stands at every place: rows of one target read the newest.
    fn states_from(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor {
        self.window(items, input, mode).unsqueeze(1).expand([-1, input.width as i64, -1], false)
    }

    fn newest(&self, input: &Input) -> Tensor {
        zero_empty(self.window(&self.item_embeddings, input, &Mode::Eval), input)
    }

    fn head(&self) -> Head {
        self.s_fc.shallow_clone()
    }
}
