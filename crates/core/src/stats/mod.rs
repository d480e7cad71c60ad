//! Is the difference real? Paired comparisons of recommenders on the same users, without any model.
//!
//! - [`Paired`]: rows of several methods grouped by user; means, bootstrap intervals, paired differences with p values.
//! - [`wilcoxon`]: the signed-rank test, exact for few users.
//! - [`holm`]: p values corrected for how many there are.
//! - [`cohens_dz`], [`rank_biserial`]: how large a difference is, beside how sure.
//! - [`Spread`]: mean and deviation over seeds.
//!
//! `docs/specification/09_comparison.md` has the definitions with their sources.

mod effect;
mod holm;
mod normal;
mod paired;
mod wilcoxon;

pub use effect::{Spread, cohens_dz, rank_biserial};
pub use holm::holm;
pub use normal::{erfc, two_sided};
pub use paired::{Difference, Draws, Paired};
pub use wilcoxon::{EXACT_UP_TO, Wilcoxon, Zeros, wilcoxon};
