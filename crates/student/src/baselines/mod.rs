//! tmp
use anyo_core::config::{Check, Problem};
use serde::{Deserialize, Serialize};
macro_rules! stub { ($n:ident) => {
/// tmp
#[derive(Debug, Clone, Serialize, Deserialize)] pub struct $n {}
impl Check for $n { fn problems(&self) -> Vec<Problem> { vec![] } } } }
stub!(PopularityConfig); stub!(RecentPopularityConfig); stub!(ItemKnnConfig);
