//! bf16 products on processors that have no bf16 arithmetic: weights are widened to f32 block by block.

use tch::{Device, Kind, Tensor, no_grad};

/// Elements of the widened block, which should stay in the cache between its making and its use.
const BLOCK: i64 = 1 << 19;

/// Whether libtorch would multiply `weight` in plain loops: bf16 on a CPU for which oneDNN has no bf16 products.
pub(crate) fn wanted(weight: &Tensor) -> bool {
    weight.kind() == Kind::BFloat16 && weight.device() == Device::Cpu && !native()
}

fn native() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // What libtorch asks for before it hands bf16 to oneDNN.
        std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq")
    }
    // Elsewhere nothing is known; libtorch decides.
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// `x W^T` without a graph: x f32 `[N, in]`, W bf16 `[out, in]`, result f32 `[N, out]`.
pub(crate) fn multiply(x: &Tensor, weight: &Tensor) -> Tensor {
    let out = Tensor::empty([x.size()[0], weight.size()[0]], (Kind::Float, Device::Cpu));
    blocks(weight, |start, block| {
        let _ = x.mm_out(&out.narrow(1, start, block.size()[0]), &block.tr());
    });
    out
}

/// `y W` without a graph: y f32 `[N, out]`, W bf16 `[out, in]`, result f32 `[N, in]`.
pub(crate) fn multiply_back(y: &Tensor, weight: &Tensor) -> Tensor {
    let mut out = Tensor::zeros([y.size()[0], weight.size()[1]], (Kind::Float, Device::Cpu));
    blocks(weight, |start, block| {
        let _ = out.addmm_(&y.narrow(1, start, block.size()[0]), block);
    });
    out
}

/// Hands the first row and the f32 copy of each block of rows to `body`.
fn blocks(weight: &Tensor, mut body: impl FnMut(i64, &Tensor)) {
    let (n_out, n_in) = (weight.size()[0], weight.size()[1]);
    let step = (BLOCK / n_in.max(1)).clamp(1, n_out.max(1));
    no_grad(|| {
        let buffer = Tensor::empty([step, n_in], (Kind::Float, Device::Cpu));
        for start in (0..n_out).step_by(step as usize) {
            let n = step.min(n_out - start);
            let mut block = buffer.narrow(0, 0, n);
            block.copy_(&weight.narrow(0, start, n));
            body(start, &block);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_agree_with_f64() {
        tch::manual_seed(5);
        let random = |size: [i64; 2]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        // Several blocks and a rest.
        let weight = random([3000, 400]).to_kind(Kind::BFloat16);
        let exact = weight.to_kind(Kind::Double);
        let (x, y) = (random([7, 400]), random([7, 3000]));
        let off = |got: Tensor, want: Tensor| (got - want).abs().max().double_value(&[]);
        // Sums of n products of size 1 pass √n; each of n additions may round by 6e-8 of that.
        let bound = |n: f64| n.sqrt() * n.sqrt() * 6e-8 * 4.0;
        let got = off(multiply(&x, &weight), x.to_kind(Kind::Double).matmul(&exact.tr()));
        assert!(got < bound(400.0), "{got}");
        let got = off(multiply_back(&y, &weight), y.to_kind(Kind::Double).matmul(&exact));
        assert!(got < bound(3000.0), "{got}");
    }
}
