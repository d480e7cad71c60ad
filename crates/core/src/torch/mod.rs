//! Tensors: devices, named parameters, optimizers, schedules, checkpoints.
//!
//! Axis letters: `B` rows, `S` positions, `D` features.

pub mod checkpoint;
pub mod device;
mod dropout;
pub mod init;
mod kernel;
pub mod optim;
pub mod params;
pub mod raw;
mod saved;
pub mod schedule;
pub mod shape;
pub mod step;
pub mod tensor_file;

pub use checkpoint::{Checkpoints, Due};
pub use device::{Chosen, DeviceChoice, Dtype};
pub use dropout::DropoutStream;
pub use init::Init;
pub use kernel::Coefficients;
pub use optim::{Group, OptimConfig, OptimName, Optimizer, Resume};
pub use params::{Params, Role};
pub use saved::{DataIdentity, Saved};
pub use schedule::{Schedule, ScheduleConfig, ScheduleName};
pub use shape::dims;
pub use step::{Gradients, StepReport};
pub use tensor_file::{load_tensors, save_model, save_tensors};
