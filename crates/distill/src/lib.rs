//! Distillation: a student learns from a teacher bundle (DLLM2Rec, and what goes beyond it).

pub mod policy;
