//! A linear layer of a language model: a base weight, dense or quantised, and on top of it adapters.

use anyo_core::{Error, Result, torch::Params};
use tch::{Device, Kind, Tensor};

use crate::{
    dense,
    gated::GatedLora,
    lora::{Lora, parameter_name},
    pass::Pass,
    quant::{Base, Quant},
};

/// `y = x W^T + b`, plus what its adapters add.
#[derive(Debug)]
pub struct Linear {
    name: String,
    base: Base,
    bias: Option<Tensor>, // [out]
    adapters: Vec<Adapter>,
    /// The weight before [`Linear::merge`].
    unmerged: Option<Tensor>,
}

/// A named adapter of one layer.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    active: bool,
    kind: AdapterKind,
}

/// What an adapter computes.
#[derive(Debug)]
pub enum AdapterKind {
    /// Plain LoRA.
    Lora(Lora),
    /// LoRA whose experts a gate weighs.
    Gated(GatedLora),
}

impl Adapter {
    /// Its name, `default` unless another was chosen.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether forward passes add it.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// What it computes.
    pub fn kind(&self) -> &AdapterKind {
        &self.kind
    }
}

impl Linear {
    /// A dense layer; `name` is that of the checkpoint without `.weight`, such as `model.layers.0.self_attn.q_proj`.
    ///
    /// It trains its weight exactly if `weight` asks for gradients, as handles of `anyo_core::torch::Params` do.
    pub fn new(name: impl Into<String>, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { name: name.into(), base: Base::Dense(weight), bias, adapters: Vec::new(), unmerged: None }
    }

    /// A frozen layer that is quantised as it is made, so that the dense weight can be dropped tensor by tensor.
    ///
    /// # Errors
    /// As [`Linear::quantize`].
    pub fn quantized(name: impl Into<String>, weight: Tensor, bias: Option<Tensor>, quant: Quant) -> Result<Self> {
        let mut linear = Self::new(name, weight.f_detach()?, bias);
        linear.quantize(quant)?;
        Ok(linear)
    }

    /// Name in the checkpoint, without `.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Features of its input.
    pub fn in_features(&self) -> i64 {
        self.base.shape().1
    }

    /// Features of its output.
    pub fn out_features(&self) -> i64 {
        self.base.shape().0
    }

    /// Bytes of the base weight and bias, without adapters and what [`Linear::merge`] keeps.
    pub fn weight_bytes(&self) -> usize {
        self.base.bytes() + self.bias.as_ref().map_or(0, |bias| bias.numel() * bias.kind().elt_size_in_bytes())
    }

    /// The base weight in the form it is stored.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The dense base weight `[out, in]`; `None` when quantised.
    pub fn weight(&self) -> Option<&Tensor> {
        match &self.base {
            Base::Dense(weight) => Some(weight),
            Base::Int8(_) | Base::Nf4(_) => None,
        }
    }

    /// The bias `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Where the base weight lies.
    pub fn device(&self) -> Device {
        self.base.device()
    }

    /// Whether gradients reach the base weight.
    pub fn trains_base(&self) -> bool {
        self.weight().is_some_and(Tensor::requires_grad)
    }

    /// Cuts weight and bias off from gradients; they keep their memory.
    pub fn freeze(&mut self) {
        if let Base::Dense(weight) = &self.base {
            self.base = Base::Dense(weight.detach());
        }
        self.bias = self.bias.as_ref().map(Tensor::detach);
    }

    /// Replaces the dense weight by its quantised form.
    ///
    /// # Errors
    /// When it is quantised already, trains, has merged adapters, is no matrix of finite numbers, or memory runs out.
    pub fn quantize(&mut self, quant: Quant) -> Result<()> {
        let refuse = |what: &str, hint: &str| {
            Err(Error::Invalid {
                message: format!("layer `{}` cannot be quantised: {what}", self.name),
                hint: Some(hint.into()),
            })
        };
        let Base::Dense(weight) = &self.base else {
            return refuse("it is quantised already", "load the model again from its dense weights");
        };
        if weight.requires_grad() {
            return refuse("its weight trains", "quantised weights are frozen; train adapters on them instead");
        }
        if self.unmerged.is_some() {
            return refuse("adapters are merged into it", "unmerge it first, or merge for good before quantising");
        }
        self.base = Base::quantize(weight, quant).map_err(|error| match error {
            Error::Invalid { message, hint } => {
                Error::Invalid { message: format!("layer `{}`: {message}", self.name), hint }
            }
            other => other,
        })?;
        Ok(())
    }

    /// x `[.., in]` → `[.., out]`, of x's type; with a gated adapter x is `[B, S, in]` or `[B, in]`.
    ///
    /// # Panics
    /// When x has other than `in` features, or an active gated adapter meets a gate that [`crate::check_gate`] refuses.
    pub fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let [y] = Self::forward_each([self], x, pass);
        y
    }

    /// [`Linear::forward`] of several layers of the same input; where that is faster, in one loop over their weights.
    pub(crate) fn forward_each<const L: usize>(layers: [&Self; L], x: &Tensor, pass: &Pass<'_>) -> [Tensor; L] {
        let mut shape = x.size();
        let together = if dense::single_place(&shape) {
            dense::few(x, layers.map(|layer| layer.dense_in(pass)), layers.map(Self::bias), None)
        } else {
            None
        };
        let together = match together {
            Some(ys) if !layers.iter().any(|layer| layer.adds(pass)) => return ys,
            other => other,
        };
        let flat = x.reshape([-1, shape.last().copied().unwrap_or(0)]); // [N, in]
        let mut ys = match together {
            Some(ys) => ys.map(|y| y.flatten(0, -2)),
            None => layers.map(|layer| layer.base_forward(&flat, pass)),
        };
        for (y, layer) in ys.iter_mut().zip(layers) {
            *y = layer.adapted(std::mem::take(y), &flat, pass);
            if let Some(last) = shape.last_mut() {
                *last = layer.out_features();
            }
            *y = y.view(shape.as_slice());
        }
        ys
    }

    /// `residual` plus [`Linear::forward`] of x, both rounded as they are in two steps.
    ///
    /// # Errors
    /// When the residual has another shape than the output.
    pub(crate) fn forward_onto(&self, residual: &Tensor, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        if dense::single_place(&x.size())
            && !self.adds(pass)
            && let Some([sum]) = dense::few(x, [self.dense_in(pass)], [self.bias()], Some(residual))
        {
            return Ok(sum);
        }
        Ok(residual.f_add(&self.forward(x, pass))?)
    }

    /// Whether adapters add something to the base in `pass`.
    fn adds(&self, pass: &Pass<'_>) -> bool {
        !pass.base_only && self.unmerged.is_none() && self.adapters.iter().any(|adapter| adapter.active)
    }

    /// The dense weight that `pass` computes with.
    fn dense_in(&self, pass: &Pass<'_>) -> Option<&Tensor> {
        match &self.unmerged {
            Some(original) if pass.base_only => Some(original),
            _ => self.weight(),
        }
    }

    /// x `[N, in]` → `[N, out]` without adapters that are not merged.
    fn base_forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let bias = self.bias.as_ref();
        match self.dense_in(pass) {
            Some(weight) => dense::linear(x, weight, bias),
            None => self.base.forward(x, bias),
        }
    }

    /// y `[N, out]` plus what the active adapters add for x `[N, in]`.
    fn adapted(&self, mut y: Tensor, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        if !pass.base_only && self.unmerged.is_none() {
            for adapter in self.adapters.iter().filter(|adapter| adapter.active) {
                y = match &adapter.kind {
                    AdapterKind::Lora(lora) => lora.add_to(y, x, None, pass),
                    AdapterKind::Gated(gated) => gated.add_to(y, x, pass),
                };
            }
        }
        y
    }

    /// Its adapters, in the order added.
    pub fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    /// The adapter called `name`.
    pub fn adapter(&self, name: &str) -> Option<&Adapter> {
        self.adapters.iter().find(|adapter| adapter.name == name)
    }

    pub(crate) fn add_adapter(&mut self, name: &str, kind: AdapterKind) {
        self.adapters.push(Adapter { name: name.to_owned(), active: true, kind });
    }

    /// Whether an adapter called `name` may be added, its parameters to `params`.
    pub(crate) fn check_room(&self, name: &str, params: &Params) -> Result<()> {
        if self.adapter(name).is_some() {
            return Err(Error::invalid(format!("layer `{}` has an adapter `{name}` already", self.name)));
        }
        for which in ["lora_A", "lora_B"] {
            let parameter = parameter_name(&self.name, which, name);
            if params.get(&parameter).is_some() {
                return Err(Error::invalid(format!("parameter `{parameter}` exists already")));
            }
        }
        if self.device() != params.device() {
            return Err(Error::invalid(format!(
                "layer `{}` is on {:?}, the parameters on {:?}",
                self.name,
                self.device(),
                params.device()
            )));
        }
        if self.unmerged.is_some() {
            return Err(Error::invalid(format!("layer `{}` has merged adapters; unmerge it first", self.name)));
        }
        Ok(())
    }

    pub(crate) fn active_gated(&self) -> impl Iterator<Item = &GatedLora> {
        self.adapters.iter().filter(|adapter| adapter.active).filter_map(|adapter| match &adapter.kind {
            AdapterKind::Gated(gated) => Some(gated),
            AdapterKind::Lora(_) => None,
        })
    }

    /// Switches the adapter called `name` on or off for later passes; without one of that name nothing happens.
    ///
    /// # Errors
    /// When adapters are merged.
    pub fn set_active(&mut self, name: &str, active: bool) -> Result<()> {
        self.refuse_merged()?;
        self.adapters.iter_mut().filter(|adapter| adapter.name == name).for_each(|adapter| adapter.active = active);
        Ok(())
    }

    /// Takes the adapter called `name` off; without one of that name nothing happens. Its parameters stay in `Params`.
    ///
    /// # Errors
    /// When adapters are merged.
    pub fn remove_adapter(&mut self, name: &str) -> Result<()> {
        self.refuse_merged()?;
        self.adapters.retain(|adapter| adapter.name != name);
        Ok(())
    }

    /// Whether adapters are merged into the weight.
    pub fn is_merged(&self) -> bool {
        self.unmerged.is_some()
    }

    /// Adds the active adapters to the weight, so that passes cost no more than without them; the sum is made in f32 and
    /// rounded once to the weight's type. Keeps the weight as it was for [`Linear::unmerge`]: a layer takes twice the
    /// memory meanwhile. Without adapters nothing happens.
    ///
    /// # Errors
    /// When the base is quantised, trains, an adapter is gated, or it is merged already.
    pub fn merge(&mut self) -> Result<()> {
        if self.adapters.is_empty() {
            return Ok(());
        }
        self.refuse_merged()?;
        let Base::Dense(weight) = &self.base else {
            return Err(Error::Invalid {
                message: format!(
                    "layer `{}` is quantised; adapters cannot be merged into it and taken out again",
                    self.name
                ),
                hint: Some("merge_for_good makes it dense, at that size in memory".into()),
            });
        };
        if weight.requires_grad() {
            return Err(Error::invalid(format!("layer `{}` trains its weight; freeze it before merging", self.name)));
        }
        let merged = self.merged_weight(weight.kind())?;
        if let Base::Dense(original) = std::mem::replace(&mut self.base, Base::Dense(merged)) {
            self.unmerged = Some(original);
        }
        Ok(())
    }

    /// Takes merged adapters out again, exactly; nothing happens without [`Linear::merge`] before.
    pub fn unmerge(&mut self) {
        if let Some(original) = self.unmerged.take() {
            self.base = Base::Dense(original);
        }
    }

    /// Makes the layer dense, of type `kind`, with the active adapters in its weight, and drops all adapters. A quantised
    /// base is dequantised, so the result has its rounding in it and is as large as an unquantised one.
    ///
    /// # Errors
    /// When an adapter is gated, or memory runs out.
    pub fn merge_for_good(&mut self, kind: Kind) -> Result<()> {
        self.unmerge();
        self.base = Base::Dense(self.merged_weight(kind)?);
        self.adapters.clear();
        Ok(())
    }

    fn merged_weight(&self, kind: Kind) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut sum = self.base.dense(Kind::Float);
        for adapter in self.adapters.iter().filter(|adapter| adapter.active) {
            match &adapter.kind {
                AdapterKind::Lora(lora) => sum = sum.f_add(&lora.weight_delta())?,
                AdapterKind::Gated(_) => {
                    return Err(Error::Invalid {
                        message: format!(
                            "adapter `{}` of layer `{}` is gated: its gate differs from row to row",
                            adapter.name, self.name
                        ),
                        hint: Some("GatedLora::weight_delta gives the weight of one row's gate".into()),
                    });
                }
            }
        }
        Ok(sum.f_to_kind(kind)?.f_detach()?)
    }

    fn refuse_merged(&self) -> Result<()> {
        match self.unmerged {
            Some(_) => Err(Error::invalid(format!("adapters of layer `{}` are merged; unmerge it first", self.name))),
            None => Ok(()),
        }
    }
}
