//! What the healer may do at all, whatever a playbook says: modes, limits, windows, and what belongs together.
//!
//! A [`Policy`] comes from the configuration. It is handed in at every decision, and is no part of what is remembered:
//! a changed limit counts from the next decision on, and what is remembered ([`crate::healer`]) stays true under any.

pub mod incident;
pub mod limits;
pub mod mode;
pub mod window;

use std::collections::{BTreeMap, BTreeSet};

pub use incident::Topology;
pub use limits::Limits;
pub use mode::Mode;
pub use window::Window;

/// What holds for every decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// How freely the healer acts, unless a person ordered otherwise.
    pub mode: Mode,
    /// The same for single playbooks, by name.
    pub playbook_modes: BTreeMap<String, Mode>,
    /// How much it may do.
    pub limits: Limits,
    /// Recurring times in which nothing is done.
    pub maintenance: Vec<Window>,
    /// An anomaly that comes back within this time after its fix means that the fix did not last, in milliseconds.
    pub recurrence_window_ms: i64,
    /// The first wait after a failed attempt or a fix that did not last, in milliseconds; it doubles.
    pub retry_wait_ms: u64,
    /// The target's services, what they stand on, and which are instances of one.
    pub topology: Topology,
    /// What people call the target: a part of what an approval binds.
    pub target: String,
}

/// What a decision has to know of the present world, read at the moment of deciding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The file `PAUSE` lies in the data directory.
    pub pause_file: bool,
    /// Services that do not run now.
    pub down: BTreeSet<String>,
    /// Why the next snapshot would not fit on the disk.
    pub no_room: Option<String>,
}
