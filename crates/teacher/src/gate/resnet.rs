//! The gate of the released code: a small ResNet along the state's features, taken as one channel of length d.

use anyo_core::{
    Error, Result,
    torch::{Init, Params},
};
use tch::{Kind, Tensor};

use crate::config::GateNorm;

/// Channels of the three stages.
const WIDTHS: [i64; 3] = [16, 32, 64];
const BLOCKS: usize = 3;
/// Below this length the last stage would see a single sample.
const SHORTEST: i64 = 8;
const GROUPS: i64 = 8;
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Convolution and stages as He et al. (2016) describe them for CIFAR, with shortcuts without weights.
///
/// Axes: B rows, C channels, L samples. Names follow PyTorch's modules: `gate.conv1.weight`, `gate.bn1.weight`,
/// `gate.stages.0.1.conv2.weight`, `gate.fc.bias`; batch norm adds the buffers `running_mean` and `running_var`.
///
/// Differs: the number of experts is free (the released code fixes 4), and group norm can stand in for batch norm.
#[derive(Debug)]
pub(super) struct Resnet1d {
    conv1: Tensor, // [16,1,3]
    bn1: Norm,
    blocks: Vec<Block>,
    fc: (Tensor, Tensor), // [E,64], [E]
}

#[derive(Debug)]
struct Block {
    conv1: Tensor, // [C,C_in,3]
    bn1: Norm,
    conv2: Tensor, // [C,C,3]
    bn2: Norm,
    stride: i64,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    /// Running mean and variance of batch norm.
    running: Option<(Tensor, Tensor)>,
}

struct Maker<'a> {
    params: &'a mut Params,
    seed: u64,
    norm: GateNorm,
}

impl Maker<'_> {
    fn conv(&mut self, name: &str, out: i64, input: i64) -> Result<Tensor> {
        self.params.create(format!("gate.{name}.weight"), &[out, input, 3], Init::KaimingUniform, self.seed)
    }

    fn norm(&mut self, name: &str, c: i64) -> Result<Norm> {
        let weight = self.params.create(format!("gate.{name}.weight"), &[c], Init::Ones, self.seed)?;
        let bias = self.params.create(format!("gate.{name}.bias"), &[c], Init::Zeros, self.seed)?;
        let mut buffer = |which: &str, init: Init| {
            let name = format!("gate.{name}.{which}");
            self.params.add_buffer(name.clone(), init.tensor(&name, &[c], self.seed)?)
        };
        let running = match self.norm {
            GateNorm::Batch => Some((buffer("running_mean", Init::Zeros)?, buffer("running_var", Init::Ones)?)),
            GateNorm::Group => None,
        };
        Ok(Norm { weight, bias, running })
    }
}

impl Norm {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        Ok(match &self.running {
            Some((mean, var)) => x.f_batch_norm(
                Some(&self.weight),
                Some(&self.bias),
                Some(mean),
                Some(var),
                train,
                MOMENTUM,
                EPS,
                false,
            )?,
            None => x.f_group_norm(GROUPS, Some(&self.weight), Some(&self.bias), EPS, false)?,
        })
    }
}

fn conv(x: &Tensor, weight: &Tensor, stride: i64) -> Result<Tensor> {
    Ok(x.f_conv1d(weight, None::<&Tensor>, stride, 1, 1, 1)?)
}

impl Block {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let inner = self.bn1.forward(&conv(x, &self.conv1, self.stride)?, train)?.f_relu()?;
        let out = self.bn2.forward(&conv(&inner, &self.conv2, 1)?, train)?;
        let more = self.conv1.size()[0] - self.conv1.size()[1];
        let shortcut = match self.stride {
            1 => x.shallow_clone(),
            // Every second sample, zeros for the new channels on both sides.
            step => x.f_slice(2, None, None, step)?.f_constant_pad_nd([0, 0, more / 2, more - more / 2])?,
        };
        Ok(out.f_add(&shortcut)?.f_relu()?)
    }
}

impl Resnet1d {
    pub(super) fn new(d: i64, experts: i64, norm: GateNorm, params: &mut Params, seed: u64) -> Result<Self> {
        if d < SHORTEST {
            return Err(Error::Invalid {
                message: format!("gate resnet1d needs states of at least {SHORTEST} features, got {d}"),
                hint: Some("take a wider encoder or teacher.gate.name=linear".into()),
            });
        }
        let mut make = Maker { params, seed, norm };
        let conv1 = make.conv("conv1", WIDTHS[0], 1)?;
        let bn1 = make.norm("bn1", WIDTHS[0])?;
        let mut blocks = Vec::new();
        let mut input = WIDTHS[0];
        for (stage, width) in WIDTHS.into_iter().enumerate() {
            for block in 0..BLOCKS {
                let at = |part: &str| format!("stages.{stage}.{block}.{part}");
                blocks.push(Block {
                    conv1: make.conv(&at("conv1"), width, input)?,
                    bn1: make.norm(&at("bn1"), width)?,
                    conv2: make.conv(&at("conv2"), width, width)?,
                    bn2: make.norm(&at("bn2"), width)?,
                    stride: if stage > 0 && block == 0 { 2 } else { 1 },
                });
                input = width;
            }
        }
        let last = WIDTHS[2];
        let fc = (
            make.params.create("gate.fc.weight", &[experts, last], Init::KaimingUniform, seed)?,
            make.params.create("gate.fc.bias", &[experts], Init::bias(last), seed)?,
        );
        Ok(Self { conv1, bn1, blocks, fc })
    }

    /// Logits `[B,E]` of states `[B,d]`.
    pub(super) fn forward(&self, states: &Tensor, train: bool) -> Result<Tensor> {
        let x = conv(&states.f_unsqueeze(1)?, &self.conv1, 1)?; // [B,16,d]
        let mut x = self.bn1.forward(&x, train)?.f_relu()?;
        for block in &self.blocks {
            x = block.forward(&x, train)?;
        }
        let pooled = x.f_mean_dim(2, false, Kind::Float)?; // [B,64]
        Ok(pooled.f_linear(&self.fc.0, Some(&self.fc.1))?)
    }
}
