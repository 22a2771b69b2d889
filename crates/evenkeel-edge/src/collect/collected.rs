//! What one look at a source gave: the readings, and what it could not read.

use std::sync::Arc;

use evenkeel_core::Timestamp;

use super::reading::{Reading, ReadingKind};

/// A figure, or a group of figures below one name, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingReading {
    /// The series; with `/*` at its end all series that begin so.
    pub series: Arc<str>,
    /// The service that it would have told of.
    pub service: Option<Arc<str>>,
    /// When it was looked for.
    pub at: Timestamp,
    /// Why it is missing, in words.
    pub reason: String,
}

/// What one look gave. A figure stands in at most one of the two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// What was read.
    pub readings: Vec<Reading>,
    /// What could not be read, also because this system does not have it. The share of a limit that is not set, and
    /// what needs an earlier look to compare with, are in neither.
    pub missing: Vec<MissingReading>,
}

impl Collected {
    /// Adds what another look gave.
    pub fn extend(&mut self, other: Self) {
        self.readings.extend(other.readings);
        self.missing.extend(other.missing);
    }
}

/// Collects the figures of one service below one name.
#[derive(Debug)]
pub(super) struct Collecting {
    prefix: String,
    service: Option<Arc<str>>,
    at: Timestamp,
    pub(super) collected: Collected,
}

impl Collecting {
    pub(super) fn new(prefix: String, service: Option<Arc<str>>, at: Timestamp) -> Self {
        Self {
            prefix,
            service,
            at,
            collected: Collected::default(),
        }
    }

    fn series(&self, name: &str) -> Arc<str> {
        format!("{}/{name}", self.prefix).into()
    }

    /// A figure that was read; one that is not finite is missing.
    pub(super) fn put(&mut self, name: &str, kind: ReadingKind, value: f64) {
        if !value.is_finite() {
            return self.missing(name, "it is not a finite number");
        }
        self.collected.readings.push(Reading {
            series: self.series(name),
            service: self.service.clone(),
            at: self.at,
            value,
            kind,
        });
    }

    /// A figure that could not be read.
    pub(super) fn missing(&mut self, name: &str, reason: impl Into<String>) {
        self.collected.missing.push(MissingReading {
            series: self.series(name),
            service: self.service.clone(),
            at: self.at,
            reason: reason.into(),
        });
    }

    /// One or the other.
    pub(super) fn figure(&mut self, name: &str, kind: ReadingKind, value: Result<f64, String>) {
        match value {
            Ok(value) => self.put(name, kind, value),
            Err(reason) => self.missing(name, reason),
        }
    }
}
