//! What a collector read of one series at one moment.

use std::sync::Arc;

use evenkeel_core::Timestamp;

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Name of the series: `name{label="value"}`, the labels in the order of their names.
    pub series: Arc<str>,
    /// The service it belongs to, where the configuration says so.
    pub service: Option<Arc<str>>,
    /// When it was true.
    pub at: Timestamp,
    /// The value, always finite; its unit is the series' own.
    pub value: f64,
    /// What kind of figure it is.
    pub kind: ReadingKind,
}

/// What kind of figure a reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadingKind {
    /// A level that goes up and down.
    Gauge,
    /// How much a counter counted, per second, since the reading before.
    Rate,
    /// A quantile over `n` observations since the reading before.
    Quantile {
        /// How many observations.
        n: u64,
    },
    /// A share from 0 to 1 of `n` events.
    Share {
        /// How many events.
        n: u64,
    },
    /// A count from some beginning on: only its differences mean something.
    Total,
}
