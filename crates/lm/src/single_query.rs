//! Attention of one new token per row on the CPU: rotation, cache and attention in one loop over the key heads.
//!
//! The general way takes some thirty small tensor operations for this, which together cost more than their arithmetic.
//! Scores and sums are f32 whatever the type of the states; a rotated vector is rounded once.

use anyo_core::{
    Result,
    parallel::{SendPtr, for_each_part},
    vecmath::{exp_in_place, max_of},
};
use tch::{Device, Kind, Tensor};

use crate::{attention::Visible, cache::KvCache, dense::bf16_of, rope::Rotation};

/// Sizes and places of one call.
struct Shape {
    n_kv: usize,
    group: usize,
    width: usize,
    rotated: usize,
    /// Positions that a head of the cache has room for.
    room: usize,
    /// Positions filled before this token.
    past: usize,
    /// First position that is seen.
    first: usize,
    /// Whether each row has rotation and mask of its own.
    own_rotation: bool,
    own_mask: bool,
}

/// Attention of q `[B,1,H·Dh]` to the cache of `layer` and the new k and v `[B,1,Hkv·Dh]`, which are written there; gives
/// `[B,1,H·Dh]`. `None`, and nothing done, where the general way is needed.
pub(crate) fn attend(
    [q, k, v]: [&Tensor; 3],
    [h, n_kv, width]: [i64; 3],
    rotation: &Rotation,
    visible: &Visible,
    cache: &mut KvCache,
    layer: usize,
) -> Result<Option<Tensor>> {
    let (b, s, _) = q.size3()?;
    let kind = q.kind();
    let [cos, sin] = rotation.tables();
    let Some((mask, last)) = visible.added_only() else { return Ok(None) };
    let plain = |t: &Tensor| t.device() == Device::Cpu && t.kind() == kind && !t.requires_grad();
    let contiguous = |t: &Tensor| plain(t) && t.is_contiguous();
    let tables = contiguous(cos) && contiguous(sin) && mask.is_none_or(contiguous);
    if s != 1 || ![q, k, v].into_iter().all(plain) || !tables || !matches!(kind, Kind::Float | Kind::BFloat16) {
        return Ok(None);
    }
    let past = cache.len();
    let seen = last.map_or(past + 1, |last| (last as usize).min(past + 1));
    let per_row = |t: &Tensor, n: usize| t.numel() == n || t.numel() == n * b as usize;
    let rotated = cos.size().last().copied().unwrap_or(0) as usize;
    let fits = rotated as i64 <= width && [cos, sin].into_iter().all(|t| per_row(t, rotated));
    let sizes = [(q, h), (k, n_kv), (v, n_kv)].into_iter().all(|(t, heads)| t.size() == [b, 1, heads * width]);
    if !fits || !sizes || mask.is_some_and(|mask| !per_row(mask, seen)) || cache.rows() as i64 != b {
        return Ok(None);
    }
    let (keys, values) = cache.room(layer, &[b, n_kv, 1, width], (kind, Device::Cpu))?;
    let like_cache =
        |t: &Tensor| contiguous(t) && matches!(t.size()[..], [x, y, _, z] if [x, y, z] == [b, n_kv, width]);
    if !like_cache(&keys) || !like_cache(&values) {
        return Ok(None);
    }
    let shape = Shape {
        n_kv: n_kv as usize,
        group: (h / n_kv) as usize,
        width: width as usize,
        rotated,
        room: keys.size()[2] as usize,
        past,
        first: past + 1 - seen,
        own_rotation: cos.numel() > rotated,
        own_mask: mask.is_some_and(|mask| mask.numel() > seen),
    };
    let out = Tensor::f_empty([b, 1, h * width], (kind, Device::Cpu))?;
    let tensors = [&q.f_contiguous()?, &k.f_contiguous()?, &v.f_contiguous()?, cos, sin];
    match kind {
        Kind::Float => run::<f32>(tensors, mask, [&keys, &values, &out], b as usize, &shape),
        _ => run::<half::bf16>(tensors, mask, [&keys, &values, &out], b as usize, &shape),
    }
    Ok(Some(out))
}

/// A number type of states.
trait Number: Copy + Send + Sync {
    fn value(self) -> f32;
    fn of(x: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
}

impl Number for half::bf16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn of(x: f32) -> Self {
        bf16_of(x)
    }
}

fn run<T: Number>(inputs: [&Tensor; 5], mask: Option<&Tensor>, places: [&Tensor; 3], b: usize, shape: &Shape) {
    let [q, k, v, cos, sin] = inputs.map(|t| SendPtr(t.data_ptr().cast::<T>()));
    let mask = mask.map(|t| SendPtr(t.data_ptr().cast::<T>()));
    let [keys, values, out] = places.map(|t| SendPtr(t.data_ptr().cast::<T>()));
    let Shape { n_kv, group, width, rotated, room, past, first, own_rotation, own_mask } = *shape;
    for_each_part(b * n_kv, |part| {
        let row = part / n_kv;
        // SAFETY: the tensors are contiguous, of the sizes that `shape` says, and alive during the loop; the parts are
        // the pairs of row and key head, each of which writes its own head of the cache and its own outputs.
        unsafe {
            let view = |p: SendPtr<T>, start: usize, n: usize| std::slice::from_raw_parts(p.at(start), n);
            let turn = if own_rotation { row * rotated } else { 0 };
            let seen = past + 1 - first;
            let head = Head {
                q: view(q, part * group * width, group * width),
                k: view(k, part * width, width),
                v: view(v, part * width, width),
                cos: view(cos, turn, rotated),
                sin: view(sin, turn, rotated),
                mask: mask.map(|mask| view(mask, if own_mask { row * seen } else { 0 }, seen)),
                keys: std::slice::from_raw_parts_mut(keys.at(part * room * width), (past + 1) * width),
                values: std::slice::from_raw_parts_mut(values.at(part * room * width), (past + 1) * width),
                out: std::slice::from_raw_parts_mut(out.at(part * group * width), group * width),
            };
            dispatch(head, first, width);
        }
    });
}

/// One key head of one row with the query heads that read it.
struct Head<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    cos: &'a [T],
    sin: &'a [T],
    mask: Option<&'a [T]>,
    keys: &'a mut [T],
    values: &'a mut [T],
    out: &'a mut [T],
}

fn dispatch<T: Number>(head: Head<'_, T>, first: usize, width: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2<T: Number>(head: Head<'_, T>, first: usize, width: usize) {
            body(head, first, width);
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: both features were found just now.
            return unsafe { avx2(head, first, width) };
        }
    }
    body(head, first, width);
}

/// Loops rather than iterator chains: their closures would be compiled without the wide instructions.
#[inline(always)]
fn body<T: Number>(head: Head<'_, T>, first: usize, width: usize) {
    let Head { q, k, v, cos, sin, mask, keys, values, out } = head;
    let past = keys.len() / width - 1;
    let mut turned = vec![0f32; width];
    turn(k, cos, sin, &mut turned);
    for (to, &x) in keys[past * width..].iter_mut().zip(&turned) {
        *to = T::of(x);
    }
    values[past * width..].copy_from_slice(v);
    let scale = 1.0 / (width as f32).sqrt();
    let mut weights = vec![0f32; past + 1 - first];
    let mut sum = vec![0f32; width];
    for (q, out) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        turn(q, cos, sin, &mut turned);
        for x in &mut turned {
            *x = T::of(*x).value() * scale;
        }
        for (weight, key) in weights.iter_mut().zip(keys[first * width..].chunks_exact(width)) {
            *weight = dot(&turned, key);
        }
        if let Some(mask) = mask {
            for (weight, &add) in weights.iter_mut().zip(mask) {
                *weight += add.value();
            }
        }
        let max = max_of(&weights);
        let total = exp_in_place(&mut weights, max);
        sum.fill(0.0);
        for (&weight, value) in weights.iter().zip(values[first * width..].chunks_exact(width)) {
            for (sum, &x) in sum.iter_mut().zip(value) {
                *sum = weight.mul_add(x.value(), *sum);
            }
        }
        for (out, &x) in out.iter_mut().zip(&sum) {
            *out = T::of(x / total);
        }
    }
}

/// x at its position: the first numbers turned, the rest as it is.
#[inline(always)]
fn turn<T: Number>(x: &[T], cos: &[T], sin: &[T], to: &mut [f32]) {
    let half = cos.len() / 2;
    for i in 0..half {
        let (low, high) = (x[i].value(), x[i + half].value());
        to[i] = low * cos[i].value() + high * sin[i].value();
        to[i + half] = high * cos[i + half].value() + low * sin[i + half].value();
    }
    for i in 2 * half..x.len() {
        to[i] = x[i].value();
    }
}

#[inline(always)]
fn dot<T: Number>(a: &[f32], b: &[T]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut rest = 0f32;
    for (a, b) in a_parts.remainder().iter().zip(b_parts.remainder()) {
        rest += a * b.value();
    }
    for (a, b) in a_parts.zip(b_parts) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i].value(), lanes[i]);
        }
    }
    let mut sum = rest;
    for lane in lanes {
        sum += lane;
    }
    sum
}
