//! When the requests of an open loop are due.

use std::fmt;
use std::time::Duration;

use crate::random::Random;
use crate::target::PlanError;

/// Longest run: seven days.
pub(crate) const DURATION_MAX: Duration = Duration::from_hours(7 * 24);
/// Lowest rate, in requests a second.
const RATE_MIN: f64 = 0.001;
/// Highest rate, in requests a second.
const RATE_MAX: f64 = 10_000_000.0;

/// Requests a second: constant, or going evenly from one to another and then staying there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    from: f64,
    to: f64,
    /// Seconds; 0 when constant.
    over: f64,
}

impl Rate {
    /// The same all the time: 0.001 to 10,000,000 a second.
    pub fn constant(per_second: f64) -> Self {
        Self {
            from: per_second,
            to: per_second,
            over: 0.0,
        }
    }

    /// Evenly from `from` to `to` a second within `over`, then staying at `to`. One of the two may be 0.
    pub fn ramp(from: f64, to: f64, over: Duration) -> Self {
        Self {
            from,
            to,
            over: over.as_secs_f64(),
        }
    }

    /// Requests a second after `elapsed`.
    pub fn at(&self, elapsed: Duration) -> f64 {
        let t = elapsed.as_secs_f64();
        if t >= self.over {
            self.to
        } else {
            self.from + (self.to - self.from) * t / self.over
        }
    }

    /// The highest.
    pub fn peak(&self) -> f64 {
        if self.over > 0.0 {
            self.from.max(self.to)
        } else {
            self.to
        }
    }

    /// Requests that are due, on average, within `elapsed`.
    pub fn planned(&self, elapsed: Duration) -> f64 {
        let t = elapsed.as_secs_f64();
        let ramp = t.min(self.over);
        let within = if self.over > 0.0 {
            self.from * ramp + (self.to - self.from) * ramp * ramp / (2.0 * self.over)
        } else {
            0.0
        };
        within + self.to * (t - ramp)
    }

    /// When `n` requests are due, on average, in seconds: the inverse of [`Self::planned`].
    fn due(&self, n: f64) -> f64 {
        let on_ramp = f64::midpoint(self.from, self.to) * self.over;
        if n >= on_ramp {
            return self.over + (n - on_ramp) / self.to;
        }
        // a t + b t² = n, by the form that does not cancel for a small b.
        let a = self.from;
        let b = (self.to - self.from) / (2.0 * self.over);
        2.0 * n / (a + (a * a + 4.0 * b * n).max(0.0).sqrt())
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let good = |r: f64, min: f64| r.is_finite() && (min..=RATE_MAX).contains(&r);
        let ramp = self.over > 0.0;
        let all = if ramp {
            good(self.from, 0.0)
                && good(self.to, 0.0)
                && self.peak() >= RATE_MIN
                && self.over <= DURATION_MAX.as_secs_f64()
        } else {
            good(self.to, RATE_MIN)
        };
        if all {
            Ok(())
        } else {
            Err(PlanError::BadRate(self.to_string()))
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.over > 0.0 {
            write!(f, "{}..{} over {}s", self.from, self.to, self.over)
        } else {
            write!(f, "{}", self.to)
        }
    }
}

/// How the requests of an open loop are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Constant,
    /// At random, each independent of the others (a Poisson process): as many users send them.
    Poisson,
}

/// The moments at which requests are due, in order; it never ends by itself but for a rate that falls to 0.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    rate: Rate,
    /// Requests planned so far; not whole with random arrivals.
    planned: f64,
    step: f64,
    random: Option<Random>,
}

impl Schedule {
    /// The share of the `part`th of `parts` threads; all of them together make the whole schedule.
    ///
    /// Even arrivals are dealt out in turn. Random ones are independent processes at a part of the rate each, which
    /// together are one at the whole rate.
    pub(crate) fn new(rate: Rate, arrivals: Arrivals, seed: u64, part: u32, parts: u32) -> Self {
        let step = f64::from(parts);
        match arrivals {
            Arrivals::Constant => Self {
                rate,
                planned: f64::from(part) - step,
                step,
                random: None,
            },
            Arrivals::Poisson => Self {
                rate,
                planned: 0.0,
                step,
                random: Some(Random::new(seed, u64::from(part))),
            },
        }
    }

    /// When the next request is due after the start.
    pub(crate) fn next_due(&mut self) -> Option<Duration> {
        let gap = self.random.as_mut().map_or(1.0, Random::exponential);
        self.planned += gap * self.step;
        let seconds = self.rate.due(self.planned);
        // At a rate that ends at 0 there are no more after the last one.
        (seconds.is_finite() && seconds <= 2.0 * DURATION_MAX.as_secs_f64())
            .then(|| Duration::from_secs_f64(seconds.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(schedule: &mut Schedule, n: usize) -> Vec<f64> {
        (0..n)
            .map_while(|_| schedule.next_due())
            .map(|d| d.as_secs_f64())
            .collect()
    }

    #[test]
    fn even_arrivals_are_evenly_spaced_and_shared_out_without_gaps() {
        let rate = Rate::constant(100.0);
        let whole = first(&mut Schedule::new(rate, Arrivals::Constant, 1, 0, 1), 400);
        assert!((whole[0], (whole[399] - 3.99).abs() < 1e-9) == (0.0, true));
        let mut parts: Vec<f64> = (0..4)
            .flat_map(|p| first(&mut Schedule::new(rate, Arrivals::Constant, 1, p, 4), 100))
            .collect();
        parts.sort_by(f64::total_cmp);
        for (a, b) in whole.iter().zip(&parts) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn random_arrivals_have_the_mean_and_the_variance_of_their_kind() {
        for parts in [1, 3] {
            let rate = Rate::constant(50.0);
            let mut all: Vec<f64> = (0..parts)
                .flat_map(|p| {
                    first(
                        &mut Schedule::new(rate, Arrivals::Poisson, 7, p, parts),
                        60_000,
                    )
                })
                .filter(|t| *t < 300.0)
                .collect();
            all.sort_by(f64::total_cmp);
            let gaps: Vec<f64> = all.windows(2).map(|w| w[1] - w[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean * 50.0 - 1.0).abs() < 0.03, "{mean}");
            assert!(
                (variance.sqrt() / mean - 1.0).abs() < 0.05,
                "{variance} {mean}"
            );
        }
    }

    #[test]
    fn a_rate_that_falls_to_nothing_ends() {
        let rate = Rate::ramp(10.0, 0.0, Duration::from_secs(10));
        assert!(rate.check().is_ok());
        let all = first(&mut Schedule::new(rate, Arrivals::Constant, 1, 0, 1), 1_000);
        assert_eq!(all.len(), 50, "as many as the ramp has: {all:?}");
    }

    #[test]
    fn impossible_rates_are_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Rate::constant(bad).check().is_err(), "{bad}");
            assert!(
                Rate::ramp(bad, bad, Duration::from_secs(1))
                    .check()
                    .is_err(),
                "{bad}"
            );
        }
        assert!(
            Rate::ramp(0.0, 10.0, Duration::from_secs(1))
                .check()
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn due_undoes_planned(from in 0.0..1e4_f64, to in 0.1..1e4_f64, over in 0.001..1e3_f64, t in 0.0..2e3_f64) {
            let rate = Rate::ramp(from, to, Duration::from_secs_f64(over));
            let n = rate.planned(Duration::from_secs_f64(t));
            let back = rate.due(n);
            prop_assert!((back - t).abs() < 1e-6 * (1.0 + t), "{rate}: {t} {n} {back}");
        }
    }
}
