//! The teacher's model and training: specs/ilora.md section 9 on a tiny random language model.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod encoder;
mod forward;
mod learning;
mod made_up;
mod resume;
mod saved;
mod ways;
