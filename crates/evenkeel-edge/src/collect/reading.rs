//! One figure of one series at one moment, whatever it was read from: a scraped page, a process, a cgroup, a log, a
//! database.

use std::sync::Arc;

use evenkeel_core::Timestamp;

/// What kind of figure a [`Reading`] is: it decides how the figure may be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadingKind {
    /// A level that goes up and down, in its own unit.
    Gauge,
    /// A change per second, made from a counter over the time since the reading before.
    Rate,
    /// A quantile of a distribution over the time since the reading before.
    Quantile {
        /// Values in the distribution: with few of them the quantile says little.
        n: u64,
    },
    /// A part of a whole, from 0 to 1.
    Share {
        /// How much the whole is: with few the share says little.
        n: u64,
    },
    /// A count that only grows, until it begins anew at zero.
    Total,
}

/// One figure. What could not be read is no reading; a reading is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Names the series, the same each time.
    pub series: Arc<str>,
    /// The service that it tells of, where it tells of one.
    pub service: Option<Arc<str>>,
    /// When it was measured.
    pub at: Timestamp,
    /// The figure, in the unit that the series' name says.
    pub value: f64,
    /// What kind of figure it is.
    pub kind: ReadingKind,
}
