//! Selection policies: how much each labelled target counts in the distillation.
