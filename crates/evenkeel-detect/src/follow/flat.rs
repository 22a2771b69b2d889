//! A series that always moved and stands still: a stuck sensor, a stopped exporter, a frozen queue.
//!
//! How often a value equals the one before is learned outside of long runs, and so is the longest run. A run is an alarm
//! when it is several times the longest ever seen and improbable as well; a series that often repeats itself never is.

use serde::{Deserialize, Serialize};

/// Readings below which nothing is said.
const READINGS_MIN: u32 = 200;
/// A run below this many readings is none.
const RUN_MIN: u32 = 12;
/// How many times the longest run ever.
const LONGER: u32 = 4;
/// A series in which more of the values repeat their predecessor is never called flat.
const REPEATS_MAX: f64 = 0.5;

/// What is known of repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flat {
    last: u64,
    readings: u32,
    repeats: u32,
    run: u32,
    longest: u32,
}

impl Flat {
    /// Takes a reading; the probability of such a run where it is an alarm, else nothing.
    pub(super) fn push(&mut self, value: f64, learns: bool) -> Option<f64> {
        let bits = value.to_bits();
        if bits == self.last && self.readings > 0 {
            self.run = self.run.saturating_add(1);
        } else {
            if learns {
                self.longest = self.longest.max(self.run);
                self.repeats = self.repeats.saturating_add(self.run.min(RUN_MIN));
            }
            self.run = 0;
        }
        self.last = bits;
        if learns && self.run < RUN_MIN {
            self.readings = self.readings.saturating_add(1);
        }
        let share = (f64::from(self.repeats) + 1.0) / (f64::from(self.readings) + 2.0);
        let long = RUN_MIN.max(self.longest.saturating_mul(LONGER));
        (self.readings >= READINGS_MIN && share <= REPEATS_MAX && self.run >= long)
            .then(|| share.powi(i32::try_from(self.run).unwrap_or(i32::MAX)))
    }

    /// It stands still now.
    pub(super) fn stands(&self) -> bool {
        self.run > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(usual: &[f64], run: usize) -> Option<f64> {
        let mut flat = Flat::default();
        for i in 0..400 {
            assert_eq!(flat.push(usual[i % usual.len()], true), None, "reading {i}");
        }
        (0..run).filter_map(|_| flat.push(42.0, false)).last()
    }

    #[test]
    fn only_what_always_moved_is_flat() {
        let moving: Vec<f64> = (0..7).map(f64::from).collect();
        assert!(after(&moving, 20).is_some_and(|p| p < 1e-20));
        assert!(after(&moving, 5).is_none(), "a short run");
        assert!(after(&[0.0], 100).is_none(), "it never moved");
        let steps: Vec<f64> = (0..40).map(|i| f64::from(i / 8)).collect();
        assert!(after(&steps, 200).is_none(), "it often stands still");
        let sometimes: Vec<f64> = (0..60).map(|i| f64::from((i / 6).max(i - 54))).collect();
        assert!(after(&sometimes, 20).is_none(), "such runs were seen");
    }
}
