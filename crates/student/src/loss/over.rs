//! A guest in a loss's pass over the catalogue: it sees the scores before they become gradients, and may count further
//! items of a row as targets, each with a weight.

/// Which term counts a guest's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slots {
    /// None.
    #[default]
    Nowhere,
    /// Cross-entropy over the catalogue: a slot of weight w on item c adds `w (log Σ exp(s_i/T) - s_c/T)`.
    CrossEntropy,
    /// DROS's term: a slot of weight w on item c adds `w` times the term with c in the target's place.
    Dros,
}

/// Sees a target's scores.
pub type Look<'a> = dyn Fn(usize, &[f32]) + Sync + 'a;

/// Appends a target's slots (item, weight).
pub type Fill<'a> = dyn Fn(usize, &mut Vec<(u32, f32)>) + Sync + 'a;

/// The guest's functions. They are called once for each target, in no particular order, on several threads.
///
/// Both see the number of the target in the batch. A guest costs no further pass where the loss makes one anyway.
#[derive(Clone, Copy, Default)]
pub struct OverCatalogue<'a> {
    /// Sees the target's scores `[n_items]`, what a seen item gets included; before [`OverCatalogue::fill`] is asked.
    pub look: Option<&'a Look<'a>>,
    /// Which term counts the slots.
    pub slots: Slots,
    /// Appends the target's slots (item, weight); none leaves the row as it is without a guest.
    pub fill: Option<&'a Fill<'a>>,
    /// Hears the sum of the slots' losses, weights included, for each target that has any.
    pub told: Option<&'a (dyn Fn(usize, f64) + Sync)>,
}

impl std::fmt::Debug for OverCatalogue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverCatalogue").field("look", &self.look.is_some()).field("slots", &self.slots).finish()
    }
}

impl OverCatalogue<'_> {
    /// What of this guest a pass serves that makes its slots in `slots`.
    pub(super) fn only(&self, look: bool, slots: Slots) -> Self {
        let fills = self.slots == slots && self.fill.is_some();
        Self {
            look: self.look.filter(|_| look),
            slots: if fills { slots } else { Slots::Nowhere },
            fill: self.fill.filter(|_| fills),
            told: self.told.filter(|_| fills),
        }
    }

    /// Whether there is anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.look.is_none() && self.fill.is_none()
    }
}
