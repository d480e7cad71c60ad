//! Initial weights by PyTorch's formulas, drawn from streams of our own.
//!
//! Each tensor has a stream that depends on the seed and its name only: adding a parameter shifts no other, and
//! libtorch's global generator is not touched.

use rand_chacha::{ChaCha8Rng, rand_core::Rng};
use sha2::{Digest, Sha256};
use tch::Tensor;

use crate::{
    Error, Result,
    seed::{self, Stream},
};

/// How to fill a new weight. Fans follow PyTorch: a weight is `[out, in, kernel…]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All the same.
    Constant(f32),
    /// Uniform in ±`bound`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
    /// Normal around 0.
    Normal {
        /// Standard deviation before any cut.
        std: f64,
    },
    /// Normal around 0, drawn again until within two standard deviations.
    TruncNormal {
        /// Standard deviation before the cut.
        std: f64,
    },
    /// Uniform in ±√(6 / (fan_in + fan_out)).
    XavierUniform,
    /// Normal with standard deviation √(2 / (fan_in + fan_out)).
    XavierNormal,
    /// What `torch.nn.Linear` and `torch.nn.Conv*` do to their weight: uniform in ±1/√fan_in
    /// (`kaiming_uniform_` with a = √5).
    KaimingUniform,
}

impl Init {
    /// What `torch.nn.Linear` and `torch.nn.Conv*` do to their bias: uniform in ±1/√fan_in of the weight.
    pub fn bias(fan_in: i64) -> Self {
        Self::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() }
    }

    /// What `torch.nn.GRU` does to every weight and bias: uniform in ±1/√hidden.
    pub fn gru(hidden: i64) -> Self {
        Self::bias(hidden)
    }

    /// A new f32 CPU tensor of `shape`; the same bits for the same seed, name and shape.
    ///
    /// # Errors
    /// When the formula needs fans and the shape has fewer than two axes, a size is negative, or memory does not suffice.
    pub fn tensor(self, name: &str, shape: &[i64], seed: u64) -> Result<Tensor> {
        if shape.iter().any(|&size| size < 0) {
            return Err(Error::invalid(format!("parameter `{name}` cannot have shape {shape:?}")));
        }
        let n = room_for(name, shape)?;
        let mut rng = seed::rng(seed ^ name_hash(name), Stream::Init, 0, 0);
        let values: Vec<f32> = match self {
            Self::Zeros => vec![0.0; n],
            Self::Ones => vec![1.0; n],
            Self::Constant(value) => vec![value; n],
            Self::Uniform { bound } => uniform(&mut rng, n, bound),
            Self::Normal { std } => normal(&mut rng, n, std, f64::INFINITY),
            Self::TruncNormal { std } => normal(&mut rng, n, std, 2.0),
            Self::XavierUniform => {
                let (fan_in, fan_out) = fans(name, shape)?;
                uniform(&mut rng, n, (6.0 / (fan_in + fan_out)).sqrt())
            }
            Self::XavierNormal => {
                let (fan_in, fan_out) = fans(name, shape)?;
                normal(&mut rng, n, (2.0 / (fan_in + fan_out)).sqrt(), f64::INFINITY)
            }
            Self::KaimingUniform => {
                let (fan_in, _) = fans(name, shape)?;
                uniform(&mut rng, n, 1.0 / fan_in.max(1.0).sqrt())
            }
        };
        Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
    }
}

/// Number of elements, if there is memory for them. An allocation that fails ends the process, and one that the system
/// promised but cannot keep gets it killed; so it is asked before.
fn room_for(name: &str, shape: &[i64]) -> Result<usize> {
    // The numbers, the tensor made of them and the parameter's own copy exist at the same time.
    const COPIES: u64 = 3;
    // Small ones are not worth a look at the system.
    const SMALL: u64 = 64 << 20;
    let product = |n: u64, &size: &i64| n.checked_mul(u64::try_from(size).ok()?);
    let n = shape.iter().try_fold(1, product);
    let bytes = n.and_then(|n| n.checked_mul(COPIES * size_of::<f32>() as u64));
    let available = if bytes.is_some_and(|bytes| bytes <= SMALL) { None } else { crate::memory::available_bytes() };
    let fits = bytes.is_some_and(|bytes| bytes < isize::MAX as u64 && available.is_none_or(|free| bytes <= free));
    match n {
        Some(n) if fits => Ok(n as usize),
        _ => {
            let gib = |bytes: f64| bytes / f64::from(1 << 30);
            let wanted = shape.iter().map(|&size| size as f64).product::<f64>() * 4.0 * COPIES as f64;
            let free = available.map_or(String::new(), |free| format!(", {:.1} GiB are free", gib(free as f64)));
            let message =
                format!("no memory for parameter `{name}` of shape {shape:?}: it needs {:.1} GiB{free}", gib(wanted));
            let hint = "choose a smaller model (width, length, layers) or a smaller catalogue";
            Err(Error::Run { message, hint: Some(hint.into()) })
        }
    }
}

/// First eight bytes of the name's SHA-256.
fn name_hash(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// Inputs that reach one output, and outputs that one input reaches.
fn fans(name: &str, shape: &[i64]) -> Result<(f64, f64)> {
    match *shape {
        [n_out, n_in, ref kernel @ ..] => {
            let field = kernel.iter().product::<i64>() as f64;
            Ok((n_in as f64 * field, n_out as f64 * field))
        }
        _ => Err(Error::invalid(format!("parameter `{name}` needs two axes for this initialisation, got {shape:?}"))),
    }
}

fn uniform(rng: &mut ChaCha8Rng, n: usize, bound: f64) -> Vec<f32> {
    // 24 random bits fill an f32's significand.
    let unit = |rng: &mut ChaCha8Rng| f64::from(rng.next_u32() >> 8) / f64::from(1 << 24);
    (0..n).map(|_| ((2.0 * unit(rng) - 1.0) * bound) as f32).collect()
}

/// Box–Muller, two values from two 53-bit uniforms; values beyond `cut` standard deviations are drawn again.
fn normal(rng: &mut ChaCha8Rng, n: usize, std: f64, cut: f64) -> Vec<f32> {
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut values = Vec::with_capacity(n);
    while values.len() < n {
        let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * unit()).sin_cos();
        for z in [radius * cos, radius * sin] {
            if z.abs() <= cut && values.len() < n {
                values.push((z * std) as f32);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(init: Init, shape: &[i64], name: &str, seed: u64) -> Vec<f32> {
        let tensor = init.tensor(name, shape, seed).unwrap();
        assert_eq!(tensor.size(), shape);
        Vec::<f32>::try_from(tensor.view(-1)).unwrap()
    }

    /// Mean, standard deviation and largest absolute value.
    fn moments(x: &[f32]) -> (f64, f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, var.sqrt(), x.iter().fold(0.0, |max, &x| f64::from(x.abs()).max(max)))
    }

    #[test]
    fn a_tensor_beyond_memory_is_an_error() {
        for shape in [[1 << 40, 4], [i64::MAX, i64::MAX], [1 << 30, 1 << 30]] {
            let error = Init::Zeros.tensor("item_emb.weight", &shape, 1).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("no memory for parameter `item_emb.weight` of shape ["), "{text}");
            assert!(error.hint().unwrap().contains("smaller"));
        }
    }

    #[test]
    fn seed_and_name_decide() {
        let base = values(Init::Normal { std: 1.0 }, &[5, 3], "a", 1);
        assert_eq!(base, values(Init::Normal { std: 1.0 }, &[5, 3], "a", 1));
        assert_ne!(base, values(Init::Normal { std: 1.0 }, &[5, 3], "b", 1));
        assert_ne!(base, values(Init::Normal { std: 1.0 }, &[5, 3], "a", 2));
    }

    #[test]
    fn uniform_forms_have_pytorchs_bounds() {
        // Uniform in ±b has standard deviation b/√3. Linear(200, 100): b = 1/√200; Conv(16, 8, 5×4): fan_in = 160;
        // Xavier on [100, 200]: b = √(6/300).
        for (init, shape, bound) in [
            (Init::KaimingUniform, vec![100, 200], 0.070711),
            (Init::KaimingUniform, vec![160, 8, 5, 4], 0.079057),
            (Init::XavierUniform, vec![100, 200], 0.141421),
            (Init::bias(64), vec![20_000], 0.125),
            (Init::gru(16), vec![20_000], 0.25),
        ] {
            let (mean, std, max) = moments(&values(init, &shape, "w", 3));
            assert!(mean.abs() < 0.02 * bound, "{init:?} mean {mean}");
            assert!((std - bound / 3f64.sqrt()).abs() < 0.01 * bound, "{init:?} std {std}");
            assert!(max <= bound * 1.0001 && max > 0.995 * bound, "{init:?} max {max}");
        }
    }

    #[test]
    fn normal_forms_have_the_right_spread() {
        // N(0,1) cut at ±2 has standard deviation 0.8796; Xavier on [100, 300]: √(2/400).
        for (init, want) in [
            (Init::Normal { std: 0.02 }, 0.02),
            (Init::XavierNormal, 0.070711),
            (Init::TruncNormal { std: 0.02 }, 0.02 * 0.8796),
        ] {
            let (mean, std, max) = moments(&values(init, &[100, 300], "w", 3));
            assert!(mean.abs() < 0.02 * want && (std - want).abs() < 0.02 * want, "{init:?} {mean} {std}");
            if matches!(init, Init::TruncNormal { .. }) {
                assert!(max <= 0.04 && max > 0.0395, "{max}");
            }
        }
    }

    #[test]
    fn constants_and_empty() {
        assert_eq!(values(Init::Zeros, &[2], "w", 0), [0.0, 0.0]);
        assert_eq!(values(Init::Ones, &[2], "w", 0), [1.0, 1.0]);
        assert_eq!(values(Init::Constant(0.5), &[], "w", 0), [0.5]);
        assert_eq!(values(Init::Normal { std: 1.0 }, &[0, 4], "w", 0), [0.0f32; 0]);
    }

    #[test]
    fn a_vector_has_no_fans() {
        let message = Init::XavierNormal.tensor("head.bias", &[7], 0).unwrap_err().to_string();
        assert!(message.contains("`head.bias`") && message.contains("[7]"), "{message}");
        assert!(Init::Zeros.tensor("w", &[-1], 0).is_err());
    }
}
