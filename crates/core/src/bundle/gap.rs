//! What the distances of a list say as a distribution over its items.

/// `softmax(-(d - smallest d) / τ)`; equal weights where τ is 0.
///
/// Only the gaps inside the list count, so it does not matter where a teacher's distances start.
pub fn gap_softmax(distances: &[f32], tau: f64) -> Vec<f32> {
    let smallest = distances.iter().copied().fold(f32::INFINITY, f32::min);
    let gap = |&d: &f32| f64::from(d - smallest);
    let raw: Vec<f64> = distances.iter().map(|d| if tau > 0.0 { (-gap(d) / tau).exp() } else { 1.0 }).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|w| (w / sum) as f32).collect()
}

/// Standard deviation of a list's distances (of all of them: divided by their number), the τ with which units do not matter.
pub fn deviation(distances: &[f32]) -> f64 {
    let n = distances.len().max(1) as f64;
    let mean = distances.iter().map(|&d| f64::from(d)).sum::<f64>() / n;
    (distances.iter().map(|&d| (f64::from(d) - mean).powi(2)).sum::<f64>() / n).sqrt()
}
