//! The dynamic 8-bit number format: 256 values whose spacing grows with their size, over seven powers of ten.
//!
//! Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (2022), as bitsandbytes builds it
//! (`specs/so8t.md` section 3): for i = 0…6 the midpoints of 2^i (unsigned 2^(i+1)) intervals of [0.1, 1] times
//! 10^(i−6), with both signs if signed, and 0 and 1.
//!
//! Differs: bitsandbytes rounds at each step in f32, this once at the end; values may differ in the last bit.

/// The 256 values in rising order, and the borders between them.
///
/// Used for the scales of NF4 blocks and for the moments of 8-bit Adam.
#[derive(Debug, Clone, PartialEq)]
pub struct DynamicMap {
    values: [f32; 256],
    /// `borders[i]` lies in the middle between values i and i + 1.
    borders: [f32; 255],
}

impl DynamicMap {
    /// From −0.99296875 to 1.
    pub fn signed() -> Self {
        Self::new(true)
    }

    /// From 0 to 1.
    pub fn unsigned() -> Self {
        Self::new(false)
    }

    fn new(signed: bool) -> Self {
        let mut all = vec![0.0, 1.0];
        for i in 0..7 {
            let n = if signed { 1 << i } else { 2 << i };
            let power = 10f64.powi(i - 6);
            for k in 0..n {
                let value = (0.1 + 0.9 * (f64::from(k) + 0.5) / f64::from(n)) * power;
                all.push(value);
                if signed {
                    all.push(-value);
                }
            }
        }
        all.sort_by(f64::total_cmp);
        let mut map = Self { values: [0.0; 256], borders: [0.0; 255] };
        for (to, from) in map.values.iter_mut().zip(&all) {
            *to = *from as f32;
        }
        for (i, border) in map.borders.iter_mut().enumerate() {
            *border = 0.5 * (map.values[i] + map.values[i + 1]);
        }
        map
    }

    /// All values, rising.
    pub fn values(&self) -> &[f32; 256] {
        &self.values
    }

    /// The value of a code.
    #[inline]
    pub fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }

    /// Code of the value nearest to `x`; of two equally near ones the lower. NaN gets the lowest code.
    #[inline]
    pub fn code(&self, x: f32) -> u8 {
        // Eight halvings without a branch that depends on the data: the number of borders below x.
        let (mut at, mut step) = (0usize, 128usize);
        while step > 0 {
            if self.borders[at + step - 1] < x {
                at += step;
            }
            step /= 2;
        }
        at as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_have_the_numbers_of_the_specification() {
        let (signed, unsigned) = (DynamicMap::signed(), DynamicMap::unsigned());
        for map in [&signed, &unsigned] {
            assert!(map.values().windows(2).all(|w| w[0] < w[1]));
            assert_eq!(map.value(255), 1.0);
        }
        assert_eq!((signed.value(0), signed.value(127)), (-0.992_968_75, 0.0));
        assert_eq!((signed.value(126), signed.value(128)), (-5.5e-7, 5.5e-7));
        assert_eq!((unsigned.value(0), unsigned.value(1)), (0.0, 3.25e-7));
        // i = 6 of the unsigned map has 128 intervals: the last midpoint is 1 − 0.45/128.
        assert_eq!(unsigned.value(254), 0.996_484_4);
    }

    #[test]
    fn the_nearest_value_is_found() {
        for map in [DynamicMap::signed(), DynamicMap::unsigned()] {
            for (code, &value) in map.values().iter().enumerate() {
                assert_eq!(map.code(value) as usize, code);
            }
            for i in -1200..1200 {
                let x = i as f32 / 1000.0;
                let best = map.values().iter().map(|v| (v - x).abs()).fold(f32::MAX, f32::min);
                assert!(((map.value(map.code(x)) - x).abs() - best).abs() < 1e-7, "{x}");
            }
        }
        assert_eq!(DynamicMap::signed().code(f32::INFINITY), 255);
        assert_eq!(DynamicMap::signed().code(f32::NEG_INFINITY), 0);
        let signed = DynamicMap::signed();
        assert_eq!((signed.code(-2.0), signed.code(2.0), signed.code(1e-9)), (0, 255, 127));
    }
}
