//! The dynamic 8-bit map: 256 values whose spacing grows with their size (Dettmers, 2021, "8-bit Optimizers via
//! Block-wise Quantization").

/// The 256 values in ascending order, largest 1. Signed: from −0.99296875, with 0 at index 127; unsigned: from 0.
///
/// Decade i of seven (10^(i−6)) holds 2^i midpoints of equal intervals of [0.1, 1] for each sign, or 2^(i+1) without
/// signs. Differs: bitsandbytes rounds at each step in f32, this once at the end; values may differ in the last bit.
pub fn dynamic_map(signed: bool) -> [f32; 256] {
    let mut values = vec![0.0f64, 1.0];
    for i in 0..7 {
        let n = if signed { 1 << i } else { 2 << i };
        for j in 0..n {
            let value = (0.1 + 0.9 * (f64::from(j) + 0.5) / f64::from(n)) * 10f64.powi(i - 6);
            values.push(value);
            if signed {
                values.push(-value);
            }
        }
    }
    values.sort_by(f64::total_cmp);
    let mut map = [0.0; 256];
    for (to, from) in map.iter_mut().zip(values) {
        *to = from as f32;
    }
    map
}

/// Index of the value of an ascending `map` that is nearest to `x`; the lower of two equally near ones.
pub fn nearest(map: &[f32; 256], x: f32) -> u8 {
    let above = map.partition_point(|&value| value < x).min(255);
    let below = above.saturating_sub(1);
    if x - map[below] <= map[above] - x { below as u8 } else { above as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_corners() {
        let (signed, unsigned) = (dynamic_map(true), dynamic_map(false));
        assert_eq!((signed[0], signed[127], signed[255]), (-0.992_968_75, 0.0, 1.0));
        assert_eq!((unsigned[0], unsigned[1], unsigned[255]), (0.0, 3.25e-7, 1.0));
        for map in [&signed, &unsigned] {
            assert!(map.windows(2).all(|pair| pair[0] < pair[1]));
            for (i, &value) in map.iter().enumerate() {
                assert_eq!(nearest(map, value), i as u8);
            }
        }
        assert_eq!((nearest(&signed, -2.0), nearest(&signed, 2.0), nearest(&signed, 1e-9)), (0, 255, 127));
    }
}
