//! How far a row's list is trusted as a whole: a weight outside the normalisation of the list's own weights, by what the
//! teacher thought of the true item. This is what the paper's confidence is for, and what the released code's row
//! normalisation takes away (spec section 5, row 5).

use crate::config::{GateConfig, GateName};

/// The weight of a row whose target has this 1-based `rank` and `distance` with the teacher, 0 to 1; `None`: not ranked.
/// `tau` is that of the form `distance`.
pub fn gate(config: &GateConfig, truth: Option<(u32, f32)>, tau: f64) -> f32 {
    let Some((rank, distance)) = truth else {
        return if config.name == GateName::None { 1.0 } else { config.unknown as f32 };
    };
    let trust = match config.name {
        GateName::None => 1.0,
        GateName::Top => f64::from(u8::from(rank <= config.top)),
        GateName::Gain => 1.0 / f64::from(rank.max(1)).ln_1p() * std::f64::consts::LN_2,
        GateName::Distance if tau > 0.0 => (-f64::from(distance) / tau).exp(),
        GateName::Distance => f64::from(u8::from(distance <= 0.0)),
    };
    trust.max(config.floor) as f32
}

/// Median of the known distances; 0 of none.
pub fn median(mut distances: Vec<f32>) -> f64 {
    if distances.is_empty() {
        return 0.0;
    }
    let middle = distances.len() / 2;
    let (_, median, _) = distances.select_nth_unstable_by(middle, f32::total_cmp);
    f64::from(*median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_by_hand() {
        let config = |name| GateConfig { name, top: 5, floor: 0.1, tau: None, unknown: 0.7 };
        let of = |name, rank, distance| gate(&config(name), Some((rank, distance)), 2.0);
        assert_eq!(of(GateName::None, 900, 50.0), 1.0);
        assert_eq!((of(GateName::Top, 5, 0.0), of(GateName::Top, 6, 0.0)), (1.0, 0.1));
        assert_eq!((of(GateName::Gain, 1, 0.0), of(GateName::Gain, 3, 0.0)), (1.0, 0.5));
        assert!((of(GateName::Distance, 9, 2.0) - (-1f32).exp()).abs() < 1e-6);
        assert_eq!(of(GateName::Distance, 9, 100.0), 0.1);
        assert_eq!(gate(&config(GateName::Gain), None, 1.0), 0.7);
        assert_eq!(gate(&config(GateName::None), None, 1.0), 1.0);
        assert_eq!((median(vec![5.0, 1.0, 3.0]), median(vec![])), (3.0, 0.0));
    }
}
