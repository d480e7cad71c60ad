//! What training needs besides the model: labels, packing, the loss over the vocabulary, steps and optimizer states.

mod accumulate;
pub mod adam8;
mod batch;
pub mod loss;
pub mod masks;
pub mod packing;
pub(crate) mod softmax_row;
pub mod step;
mod trainable;

pub use accumulate::{Accumulator, HeadWeight};
pub use adam8::Adam8;
pub use batch::Batch;
pub use loss::{CrossEntropy, TokenLoss};
pub use masks::{Example, IGNORE, Segment, Truncation};
pub use packing::{Overlong, PackConfig, PackReport, PackedRow, pack};
pub use step::{GroupConfig, LmOptimizer, OptimizerState, StepFigures, Stopwatch};
pub use trainable::Trainable;
