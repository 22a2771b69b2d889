//! One thing that goes wrong at one place, on purpose: how a playbook is put through everything
//! ([`crate::rehearsal`]).

use crate::trace::Extent;

/// What goes wrong where; by default nothing, and chance has its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Whether the re-test passes; `None` leaves it to the world's state.
    pub helps: Option<bool>,
    /// This step says that it failed, each time, and did so much.
    pub fails: Option<(usize, Extent)>,
    /// The result of this step is lost the first time: the healer dies after the step, before its record.
    pub loses: Option<usize>,
    /// The healer dies after so many records.
    pub dies_after: Option<u32>,
    /// A rollback breaks off.
    pub rollback_breaks: bool,
    /// Conditions of steps hold, whatever they say.
    pub all_hold: bool,
}
