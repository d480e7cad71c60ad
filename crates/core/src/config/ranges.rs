//! Range checks of a typed configuration, with few words for each.

use super::{Check, Problem};

/// Collects what is out of range, key by key, for [`Check::problems`].
#[derive(Debug, Default)]
pub struct Ranges(pub Vec<Problem>);

impl Ranges {
    /// Any other problem.
    pub fn push(&mut self, key: &str, message: String) {
        self.0.push(Problem::new(key, message));
    }

    /// From `low` up.
    pub fn at_least(&mut self, key: &str, got: f64, low: f64) {
        if got < low {
            self.push(key, format!("wanted at least {low}, got {got}"));
        }
    }

    /// Above 0 and finite.
    pub fn positive(&mut self, key: &str, got: f64) {
        if !(got > 0.0 && got.is_finite()) {
            self.push(key, format!("wanted a number above 0, got {got}"));
        }
    }

    /// From 0 up and finite.
    pub fn not_negative(&mut self, key: &str, got: f64) {
        if !(got >= 0.0 && got.is_finite()) {
            self.push(key, format!("wanted a number from 0 up, got {got}"));
        }
    }

    /// From 0 up to but not including 1, as a dropout.
    pub fn probability(&mut self, key: &str, got: f64) {
        if !(0.0..1.0).contains(&got) {
            self.push(key, format!("wanted 0 up to but not including 1, got {got}"));
        }
    }

    /// From 0 to 1.
    pub fn share(&mut self, key: &str, got: f64) {
        if !(0.0..=1.0).contains(&got) {
            self.push(key, format!("wanted 0 to 1, got {got}"));
        }
    }

    /// The problems of a part, below its key.
    pub fn nested(&mut self, key: &str, part: &(impl Check + ?Sized)) {
        self.0.extend(part.problems().into_iter().map(|problem| problem.under(key)));
    }
}
