//! `[limits]`: how much may be done, whatever a playbook says. Every limit has a default that is safe for one machine.

use serde::{Deserialize, Serialize};

use crate::outcome::doubled;

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// How much may be done. A *heal* is one run of one playbook (one attempt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Heals an hour, in all: 1 to 1 000.
    pub heals_per_hour: u32,
    /// Heals a day, in all: 1 to 10 000.
    pub heals_per_day: u32,
    /// Heals an hour for one service: 1 to 1 000.
    pub heals_per_service_hour: u32,
    /// Heals a day for one service: 1 to 10 000.
    pub heals_per_service_day: u32,
    /// Interruptions (restart, stop, signal) of one service an hour: 1 to 1 000.
    pub restarts_per_service_hour: u32,
    /// The longest wait between attempts, in seconds. The wait begins at `[healing] retry_wait_ms`, doubles with each
    /// failed attempt for the same type, and is forgotten after a success.
    pub cooldown_max_s: u64,
    /// So many cycles for the same anomaly within `flap_window_s`, and it flaps: a person is alerted once, and nothing
    /// is done about it until it has been away for that long: 2 to 32.
    pub flaps: u32,
    /// In seconds.
    pub flap_window_s: u64,
    /// An anomaly that a person was alerted about is not acted on, and not alerted again, until it has been away for
    /// so many seconds.
    pub quiet_s: u64,
    /// So many failed cycles in a row open the breaker: nothing is healed until a person resets it: 1 to 100.
    pub breaker_cycles: u32,
    /// So many services down at once (and more than half of them) are more than a healer should touch: 2 to 1 000.
    pub storm_services: u32,
    /// Of the instances of one service so many must stay up, where there are more than that: at least 1.
    pub min_up: u32,
    /// Of the instances of one service at most so many percent may be down at once; never fewer than one: 1 to 100.
    pub max_down_percent: u32,
    /// And at most so many: at least 1.
    pub max_down: u32,
    /// Longest time of one step, in seconds, whatever its playbook says: 1 to 3 600.
    pub step_timeout_s: u64,
    /// Longest time of one attempt until its last step begins, in seconds: then it is rolled back.
    pub attempt_timeout_s: u64,
    /// Longest time of one cycle, waiting for a person not counted, in seconds: then a person is alerted.
    pub cycle_timeout_s: u64,
    /// How long an approval is waited for, in seconds: 60 to 604 800.
    pub approval_expires_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heals_per_hour: 10,
            heals_per_day: 30,
            heals_per_service_hour: 8,
            heals_per_service_day: 20,
            restarts_per_service_hour: 8,
            cooldown_max_s: 1_800,
            flaps: 5,
            flap_window_s: 86_400,
            quiet_s: 86_400,
            breaker_cycles: 3,
            storm_services: 3,
            min_up: 1,
            max_down_percent: 50,
            max_down: 8,
            step_timeout_s: 600,
            attempt_timeout_s: 1_800,
            cycle_timeout_s: 7_200,
            approval_expires_s: 14_400,
        }
    }
}

/// A limit out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[limits] {key} = {value}: {min} to {max} was expected")]
pub struct LimitError {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// The smallest allowed.
    pub min: u64,
    /// The largest allowed.
    pub max: u64,
}

/// The most that any time limit may be, in seconds: 30 days.
const SECONDS_MAX: u64 = 30 * 86_400;

impl Limits {
    /// Checks every range.
    pub fn check(&self) -> Result<(), LimitError> {
        let rows: [(&'static str, u64, u64, u64); 18] = [
            ("heals_per_hour", self.heals_per_hour.into(), 1, 1_000),
            ("heals_per_day", self.heals_per_day.into(), 1, 10_000),
            (
                "heals_per_service_hour",
                self.heals_per_service_hour.into(),
                1,
                1_000,
            ),
            (
                "heals_per_service_day",
                self.heals_per_service_day.into(),
                1,
                10_000,
            ),
            (
                "restarts_per_service_hour",
                self.restarts_per_service_hour.into(),
                1,
                1_000,
            ),
            ("cooldown_max_s", self.cooldown_max_s, 1, SECONDS_MAX),
            ("flaps", self.flaps.into(), 2, 32),
            ("flap_window_s", self.flap_window_s, 60, SECONDS_MAX),
            ("quiet_s", self.quiet_s, 1, SECONDS_MAX),
            ("breaker_cycles", self.breaker_cycles.into(), 1, 100),
            ("storm_services", self.storm_services.into(), 2, 1_000),
            ("min_up", self.min_up.into(), 1, 1_000),
            ("max_down_percent", self.max_down_percent.into(), 1, 100),
            ("max_down", self.max_down.into(), 1, 1_000),
            ("step_timeout_s", self.step_timeout_s, 1, 3_600),
            ("attempt_timeout_s", self.attempt_timeout_s, 1, SECONDS_MAX),
            ("cycle_timeout_s", self.cycle_timeout_s, 1, SECONDS_MAX),
            ("approval_expires_s", self.approval_expires_s, 60, 604_800),
        ];
        for (key, value, min, max) in rows {
            if !(min..=max).contains(&value) {
                return Err(LimitError {
                    key,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }

    /// How many of `instances` instances may be down at once (SAFETY 13): the smallest of percentage, absolute cap and
    /// floor, and never none, since what cannot be touched cannot be healed. One instance may be down alone: 1 of 1,
    /// 1 of 2, 1 of 3, 2 of 4 by default.
    pub fn may_be_down(&self, instances: u32) -> u32 {
        let by_percent = u64::from(instances) * u64::from(self.max_down_percent) / 100;
        let by_percent = u32::try_from(by_percent).unwrap_or(u32::MAX);
        let by_floor = instances.saturating_sub(self.min_up);
        by_percent.min(by_floor).min(self.max_down).max(1)
    }

    /// The wait after the `failed`th failed attempt in a row, in milliseconds: it doubles from `first_ms`.
    pub fn cooldown_ms(&self, first_ms: u64, failed: u32) -> u64 {
        let longest = self.cooldown_max_s.saturating_mul(1_000).max(first_ms);
        doubled(first_ms, failed, longest)
    }
}

/// Seconds of the configuration as milliseconds.
pub(crate) fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SAFETY 13
    #[test]
    fn the_floor_of_capacity_is_right_for_few_instances_too() {
        let limits = Limits::default();
        let table = [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 1),
            (4, 2),
            (5, 2),
            (10, 5),
            (100, 8),
        ];
        for (instances, down) in table {
            assert_eq!(limits.may_be_down(instances), down, "{instances} instances");
        }
        let strict = Limits {
            min_up: 2,
            ..limits
        };
        assert_eq!([1, 2, 3, 4].map(|n| strict.may_be_down(n)), [1, 1, 1, 2]);
        let careful = Limits {
            max_down: 1,
            ..limits
        };
        assert_eq!(careful.may_be_down(100), 1);
    }

    #[test]
    fn the_wait_doubles_and_has_an_end() {
        let limits = Limits::default();
        let waits: Vec<u64> = (0..8)
            .map(|n| limits.cooldown_ms(60_000, n) / 1_000)
            .collect();
        assert_eq!(waits, [60, 60, 120, 240, 480, 960, 1_800, 1_800]);
        assert_eq!(limits.cooldown_ms(0, 40), 0);
        assert_eq!(limits.cooldown_ms(u64::MAX, 40), u64::MAX);
    }

    #[test]
    fn the_defaults_are_in_their_ranges_and_nonsense_is_not() {
        assert_eq!(Limits::default().check(), Ok(()));
        let none = Limits {
            heals_per_hour: 0,
            ..Limits::default()
        };
        let told = none.check().unwrap_err().to_string();
        assert_eq!(told, "[limits] heals_per_hour = 0: 1 to 1000 was expected");
    }
}
