//! NF4: four bits per weight, sixteen levels at the quantiles of a normal distribution, one scale per 64 weights
//! (Dettmers et al., 2023, "QLoRA"); packing and values as bitsandbytes stores them.
//!
//! Blocks run over the row-major elements, across rows where the width is no multiple of 64. With double quantisation
//! the scales themselves take 8 bits: 0.5 + 1/64 + 4/16384 bytes per weight in all, 4.127 bits.

use anyo_core::{
    Error, Result, best_of_machine,
    parallel::{SendPtr, for_each_part},
    torch::{
        dims,
        raw::{slice, slice_mut},
    },
};
use tch::{Device, Kind, Tensor};

use super::{
    dynamic_map::DynamicMap,
    kernel::{self, Number, Packed},
};

/// Weights that share one scale.
pub const BLOCK: usize = 64;
/// Scales that share one scale of their own.
const SCALE_BLOCK: usize = 256;

/// The sixteen levels.
pub const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Both levels of each byte: high half first.
static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [CODE[byte >> 4], CODE[byte & 15]];
        byte += 1;
    }
    pairs
};

/// A matrix `[out, in]` in NF4.
#[derive(Debug)]
pub struct Nf4Weight {
    n_out: i64,
    n_in: i64,
    codes: Tensor, // [ceil(out·in / 2)] u8, the first of two weights in the high half
    scales: Scales,
}

/// Largest absolute weight of each block.
#[derive(Debug)]
enum Scales {
    Plain(Tensor), // [blocks] f32
    Double {
        codes: Tensor,  // [blocks] u8, indices into `map`
        absmax: Tensor, // [ceil(blocks / 256)] f32
        offset: f32,
        map: Box<DynamicMap>,
    },
}

impl Nf4Weight {
    /// Quantises `weight` `[out, in]` of any float type; `double`: the scales too.
    ///
    /// # Errors
    /// When it is no matrix, holds NaN or infinity, or memory does not suffice.
    pub fn quantize(weight: &Tensor, double: bool) -> Result<Self> {
        let [n_out, n_in] = dims("weight", weight, ["out", "in"])?;
        let device = weight.device();
        let dense = weight.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let values = slice::<f32>(&dense);
        let n_blocks = values.len().div_ceil(BLOCK);
        let mut codes = Tensor::f_zeros([values.len().div_ceil(2) as i64], (Kind::Uint8, Device::Cpu))?;
        let mut absmax = vec![0f32; n_blocks];
        let (to, scale) = (SendPtr(slice_mut::<u8>(&mut codes).as_mut_ptr()), SendPtr(absmax.as_mut_ptr()));
        let group = 64;
        for_each_part(n_blocks.div_ceil(group), |part| {
            for i in part * group..n_blocks.min((part + 1) * group) {
                let block = &values[i * BLOCK..values.len().min((i + 1) * BLOCK)];
                // SAFETY: block `i` owns its scale and these bytes; blocks start at even elements.
                let (packed, scale) = unsafe {
                    let n_bytes = block.len().div_ceil(2);
                    (std::slice::from_raw_parts_mut(to.at(i * BLOCK / 2), n_bytes), &mut *scale.at(i))
                };
                *scale = quantize_block(block, packed);
            }
        });
        if absmax.iter().any(|x| !x.is_finite()) {
            return Err(Error::invalid("the weight holds NaN or infinity and cannot be quantised"));
        }
        let scales = if double { Scales::double(&absmax)? } else { Scales::Plain(Tensor::f_from_slice(&absmax)?) };
        Ok(Self { n_out, n_in, codes: codes.f_to_device(device)?, scales: scales.moved_to(device)? })
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (i64, i64) {
        (self.n_out, self.n_in)
    }

    /// Bytes that the weight takes.
    pub fn bytes(&self) -> usize {
        self.codes.numel()
            + match &self.scales {
                Scales::Plain(absmax) => 4 * absmax.numel(),
                Scales::Double { codes, absmax, .. } => codes.numel() + 4 * absmax.numel() + 4,
            }
    }

    /// The packed bytes, `[ceil(out·in / 2)]` in u8.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.codes.device()
    }

    /// The scale of each block as used, `[blocks]` in f32.
    pub fn scales(&self) -> Tensor {
        match &self.scales {
            Scales::Plain(absmax) => absmax.shallow_clone(),
            Scales::Double { codes, absmax, offset, map } => {
                let map = Tensor::from_slice(map.values()).to_device(codes.device());
                let blocks =
                    absmax.repeat_interleave_self_int(SCALE_BLOCK as i64, 0, None).narrow(0, 0, codes.size()[0]);
                map.index_select(0, &codes.to_kind(Kind::Int64)) * blocks + f64::from(*offset)
            }
        }
    }

    /// The weights as used, `[out, in]` of type `kind`.
    pub fn dequantize(&self, kind: Kind) -> Tensor {
        if self.device() == Device::Cpu {
            kernel::unpack_all(&self.packed(), self.n_out, self.n_in, kind)
        } else {
            self.dequantize_with_tensors(kind)
        }
    }

    /// The same with tensor operations, for other devices.
    fn dequantize_with_tensors(&self, kind: Kind) -> Tensor {
        let n = self.n_out * self.n_in;
        let code = Tensor::from_slice(&CODE).to_device(self.device());
        let halves = [self.codes.bitwise_right_shift_tensor_scalar(4), self.codes.bitwise_and(15)];
        let levels = code.index_select(0, &Tensor::stack(&halves, 1).view([-1]).to_kind(Kind::Int)).narrow(0, 0, n);
        let scales = self.scales().repeat_interleave_self_int(BLOCK as i64, 0, None).narrow(0, 0, n);
        (levels * scales).view([self.n_out, self.n_in]).to_kind(kind)
    }

    /// `x W^T` without unpacking to memory where that is possible: x `[N, in]` in f32 on the CPU.
    pub(super) fn multiply(&self, x: &Tensor) -> Option<Tensor> {
        // A row that starts inside a block would need the rest of it.
        (self.n_in > 0 && (self.n_in as usize).is_multiple_of(BLOCK))
            .then(|| kernel::multiply(&self.packed(), x, self.n_out as usize, self.n_in as usize))
    }

    fn packed(&self) -> View<'_> {
        let scales = match &self.scales {
            Scales::Plain(absmax) => ScaleView::Plain(slice(absmax)),
            Scales::Double { codes, absmax, offset, map } => {
                ScaleView::Double { codes: slice(codes), absmax: slice(absmax), offset: *offset, map }
            }
        };
        View { codes: slice(&self.codes), scales }
    }
}

impl Scales {
    fn double(absmax: &[f32]) -> Result<Self> {
        let map = Box::new(DynamicMap::signed());
        let offset = (absmax.iter().map(|&x| f64::from(x)).sum::<f64>() / absmax.len().max(1) as f64) as f32;
        let mut codes = Vec::with_capacity(absmax.len());
        let mut outer = Vec::with_capacity(absmax.len().div_ceil(SCALE_BLOCK));
        for block in absmax.chunks(SCALE_BLOCK) {
            let largest = block.iter().map(|x| (x - offset).abs()).fold(0f32, f32::max);
            let unit = if largest > 0.0 { largest } else { 1.0 };
            codes.extend(block.iter().map(|x| map.code((x - offset) / unit)));
            outer.push(largest);
        }
        Ok(Self::Double { codes: Tensor::f_from_slice(&codes)?, absmax: Tensor::f_from_slice(&outer)?, offset, map })
    }

    fn moved_to(self, device: Device) -> Result<Self> {
        Ok(match self {
            Self::Plain(absmax) => Self::Plain(absmax.f_to_device(device)?),
            Self::Double { codes, absmax, offset, map } => {
                Self::Double { codes: codes.f_to_device(device)?, absmax: absmax.f_to_device(device)?, offset, map }
            }
        })
    }
}

/// Writes the codes of one block and returns its scale; NaN or infinity if the block has one.
fn quantize_block(block: &[f32], packed: &mut [u8]) -> f32 {
    // `max` of the standard library drops NaN.
    let absmax = block.iter().fold(0f32, |a, x| if x.abs() > a || x.is_nan() { x.abs() } else { a });
    let inverse = if absmax > 0.0 { 1.0 / absmax } else { 0.0 };
    // The inverse of a subnormal number is infinite; such a block counts as zero.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    for (byte, pair) in packed.iter_mut().zip(block.chunks(2)) {
        let low = pair.get(1).map_or(7, |&x| level(x * inverse));
        *byte = level(pair[0] * inverse) << 4 | low;
    }
    absmax
}

/// Index of the nearest level; the lower one exactly between two.
#[inline(always)]
fn level(x: f32) -> u8 {
    const MIDPOINTS: [f32; 15] = {
        let mut midpoints = [0.0; 15];
        let mut i = 0;
        while i < 15 {
            midpoints[i] = ((CODE[i] as f64 + CODE[i + 1] as f64) / 2.0) as f32;
            i += 1;
        }
        midpoints
    };
    MIDPOINTS.iter().map(|&midpoint| u8::from(x > midpoint)).sum()
}

struct View<'a> {
    codes: &'a [u8],
    scales: ScaleView<'a>,
}

enum ScaleView<'a> {
    Plain(&'a [f32]),
    Double { codes: &'a [u8], absmax: &'a [f32], offset: f32, map: &'a DynamicMap },
}

impl ScaleView<'_> {
    #[inline(always)]
    fn at(&self, block: usize) -> f32 {
        match self {
            Self::Plain(absmax) => absmax[block],
            Self::Double { codes, absmax, offset, map } => {
                map.value(codes[block]) * absmax[block / SCALE_BLOCK] + offset
            }
        }
    }
}

impl Packed for View<'_> {
    fn unpack<T: Number>(&self, start: usize, out: &mut [T]) {
        debug_assert!(start.is_multiple_of(BLOCK));
        for (i, block) in out.chunks_mut(BLOCK).enumerate() {
            let scale = self.scales.at(start / BLOCK + i);
            let codes = &self.codes[(start + i * BLOCK) / 2..];
            match (<&mut [T; BLOCK]>::try_from(&mut *block), codes.first_chunk()) {
                (Ok(block), Some(codes)) => unpack_block(codes, scale, block),
                _ => unpack_part(codes, scale, block),
            }
        }
    }
}

best_of_machine! {
    /// Look-ups first, arithmetic after: the second loop runs eight lanes at a time, which doubles the speed of the whole
    /// (one thread, 5.2 against 2.4 billion weights per second; shuffles in registers in place of the table were no
    /// faster).
    fn unpack_block<T: Number>(codes: &[u8; BLOCK / 2], scale: f32, out: &mut [T; BLOCK]) {
        let mut levels = [0f32; BLOCK];
        for (pair, &code) in levels.chunks_exact_mut(2).zip(codes) {
            pair.copy_from_slice(&PAIRS[usize::from(code)]);
        }
        for (to, level) in out.iter_mut().zip(levels) {
            *to = T::of(level * scale);
        }
    }
}

/// The last block, where it is not full.
fn unpack_part<T: Number>(codes: &[u8], scale: f32, out: &mut [T]) {
    for (pair, &code) in out.chunks_mut(2).zip(codes) {
        for (to, level) in pair.iter_mut().zip(PAIRS[usize::from(code)]) {
            *to = T::of(level * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_worked_by_hand() {
        // specs/so8t.md section 7, test 13.
        let x = Tensor::from_slice(&[2f32, -2.0, 0.1, 0.5, -0.7, 0.0]).view([2, 3]);
        for double in [false, true] {
            let weight = Nf4Weight::quantize(&x, double).unwrap();
            assert_eq!(slice::<u8>(weight.codes()), [0xf0, 0x8a, 0x37]);
            let got = weight.dequantize(Kind::Float);
            assert_eq!(got.size(), [2, 3]);
            for (got, want) in slice::<f32>(&got).iter().zip([2.0, -2.0, 0.159_160_6, 0.492_224_6, -0.789_835, 0.0]) {
                assert!((got - want).abs() < 1e-6, "{got} {want}");
            }
        }
    }

    #[test]
    fn tensor_operations_give_the_same() {
        // 3·75 = 225 elements: an odd number, and a last block that is not full.
        let x = (Tensor::arange(225, (Kind::Float, Device::Cpu)) * 0.7).sin().view([3, 75]);
        for double in [false, true] {
            let weight = Nf4Weight::quantize(&x, double).unwrap();
            for kind in [Kind::Float, Kind::BFloat16] {
                let difference = (weight.dequantize(kind) - weight.dequantize_with_tensors(kind)).abs().max();
                assert!(difference.double_value(&[]) < 1e-6, "{kind:?}");
            }
        }
    }

    #[test]
    fn zeros_and_bad_numbers() {
        let zeros = Nf4Weight::quantize(&Tensor::zeros([2, 64], (Kind::Float, Device::Cpu)), true).unwrap();
        assert_eq!(zeros.dequantize(Kind::Float).abs().max().double_value(&[]), 0.0);
        for bad in [f64::NAN, f64::INFINITY] {
            let x = Tensor::ones([2, 64], (Kind::Float, Device::Cpu));
            let _ = x.get(1).get(3).fill_(bad);
            let message = Nf4Weight::quantize(&x, true).unwrap_err().to_string();
            assert!(message.contains("NaN or infinity"), "{message}");
        }
        let vector = Tensor::ones([4], (Kind::Float, Device::Cpu));
        assert!(Nf4Weight::quantize(&vector, true).unwrap_err().to_string().contains("[out,in]"));
    }
}
