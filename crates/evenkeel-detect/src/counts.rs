//! Counts tested as counts: whether a share of failures, or a number of events, is beyond what it usually is.
//!
//! A share is not a number with a spread of its own: 2 of 10 is no evidence, 200 of 1000 may be. The baseline is what
//! was counted while all was well, window by window: how large the share is, and how much it varies from window to
//! window beyond chance (overdispersion, by moments: Williams 1982). The tail probability of a new window is that of a
//! beta-binomial with this mean and correlation, widened by how little is known of the mean; with no overdispersion and
//! much known it is the binomial. Plain counts over time are gamma-Poisson likewise, in the limit Poisson.
//!
//! A difference that is real may still be too small to matter: each test has a smallest effect, absolute and relative,
//! and a smallest number of events. Whoever learns decides when: nothing here learns by itself, so nothing that creeps
//! up becomes normal.

use serde::{Deserialize, Serialize};

pub(crate) mod gamma;

use gamma::{beta_i, gamma_p, ln_beta, ln_gamma};

/// Events of a window beyond which numbers are scaled down: more add little where the share itself varies, and fewer
/// events are less evidence, never more.
pub const WINDOW_EVENTS_MAX: u64 = 20_000;
/// Windows after which what was learned counts half: two weeks of minutes.
const WINDOWS_MAX: f64 = 20_160.0;
/// Correlation within a window that is assumed before anything is known.
const CORRELATION_PRIOR: f64 = 0.005;
/// Windows that this assumption counts as.
const PRIOR_WINDOWS: f64 = 10.0;
/// Windows below which a baseline says nothing.
const WINDOWS_MIN: f64 = 5.0;
/// Largest correlation that is believed.
const CORRELATION_MAX: f64 = 0.5;
/// Below this, variation from window to window is none: the tail is the binomial's or Poisson's.
const NO_VARIATION: f64 = 1e-9;
/// A term of a sum that is this part of it no longer counts.
const ENOUGH: f64 = 1e-16;

/// What is worth acting on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Effect {
    /// Events in a window below which nothing is said, 1 at least.
    pub events_min: u64,
    /// By how much the share (0 to 1), or the events per second, must exceed the usual.
    pub more_by: f64,
    /// By what factor of the usual, 1 at least.
    pub more_times: f64,
}

impl Default for Effect {
    fn default() -> Self {
        Self {
            events_min: 20,
            more_by: 0.01,
            more_times: 1.5,
        }
    }
}

/// What a window came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountTest {
    /// Probability of so many or more, by chance, where all is as usual.
    pub tail: f64,
    /// Share, or events per second, of the window.
    pub value: f64,
    /// The usual one.
    pub usual: f64,
    /// The difference is large enough to act on.
    pub matters: bool,
}

/// What a share of failures usually is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareBaseline {
    windows: f64,
    failures: f64,
    events: f64,
    /// Sum of failures squared over events.
    squares: f64,
}

impl ShareBaseline {
    /// Learns a window of `failures` among `events`; one without events, or with more failures than events, is none.
    pub fn learn(&mut self, failures: u64, events: u64) {
        if events == 0 || failures > events {
            return;
        }
        let (k, n) = scaled(failures, events);
        self.windows += 1.0;
        self.failures += k;
        self.events += n;
        self.squares += k * k / n;
        if self.windows > WINDOWS_MAX {
            for sum in [
                &mut self.windows,
                &mut self.failures,
                &mut self.events,
                &mut self.squares,
            ] {
                *sum /= 2.0;
            }
        }
    }

    /// Windows learned from, as far as they still count.
    pub fn windows(&self) -> f64 {
        self.windows
    }

    /// The usual share, 0 to 1; Jeffreys' estimate, which is never quite 0.
    pub fn share(&self) -> f64 {
        (self.failures + 0.5) / (self.events + 1.0)
    }

    /// Correlation of two events of one window, 0 to 0.5: 0 is independence.
    pub fn correlation(&self) -> f64 {
        let p = self.share();
        let pearson = (self.squares - 2.0 * p * self.failures + p * p * self.events)
            / (p * (1.0 - p)).max(f64::MIN_POSITIVE);
        let pairs = self.events - self.windows;
        let prior = PRIOR_WINDOWS * (self.events / self.windows.max(1.0)).max(1.0);
        let excess = pearson - (self.windows - 1.0).max(0.0) + prior * CORRELATION_PRIOR;
        (excess / (pairs + prior)).clamp(0.0, CORRELATION_MAX)
    }

    /// Probability of at least `failures` among `events` where all is as usual; `None` where too little is known, or
    /// there are no such numbers.
    pub fn tail(&self, failures: u64, events: u64) -> Option<f64> {
        if self.windows < WINDOWS_MIN || events == 0 || failures > events {
            return None;
        }
        let (k, n) = scaled(failures, events);
        // How little is known of the mean is one more variation that all events of a window share.
        let variation = self.correlation() + 1.0 / (self.events + 2.0);
        Some(share_tail(k, n, self.share(), variation))
    }

    /// Tests a window; `None` where too little is known or counted.
    pub fn test(&self, failures: u64, events: u64, effect: &Effect) -> Option<CountTest> {
        if events < effect.events_min.max(1) {
            return None;
        }
        let tail = self.tail(failures, events)?;
        let value = failures as f64 / events as f64;
        Some(CountTest {
            tail,
            value,
            usual: self.share(),
            matters: matters(value, self.share(), effect),
        })
    }
}

/// What a number of events over time usually is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateBaseline {
    windows: f64,
    events: f64,
    seconds: f64,
    /// Sum of events squared over seconds.
    squares: f64,
}

impl RateBaseline {
    /// Learns a window of `events` in `seconds`; one without duration is none.
    pub fn learn(&mut self, events: u64, seconds: f64) {
        if !(seconds.is_finite() && seconds > 0.0) {
            return;
        }
        let k = events as f64;
        self.windows += 1.0;
        self.events += k;
        self.seconds += seconds;
        self.squares += k * k / seconds;
        if self.windows > WINDOWS_MAX {
            for sum in [
                &mut self.windows,
                &mut self.events,
                &mut self.seconds,
                &mut self.squares,
            ] {
                *sum /= 2.0;
            }
        }
    }

    /// The usual number of events per second; never quite 0 after the first window.
    pub fn per_second(&self) -> f64 {
        (self.events + 0.5) / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Square of the coefficient of variation of the rate from window to window, beyond chance, 0 to 1.
    pub fn variation(&self) -> f64 {
        let rate = self.per_second();
        let chi2 = self.squares / rate - 2.0 * self.events + rate * self.seconds;
        let prior = PRIOR_WINDOWS * (self.events / self.windows.max(1.0)).max(1.0);
        let excess = chi2 - (self.windows - 1.0).max(0.0) + prior * CORRELATION_PRIOR;
        (excess / (self.events + prior)).clamp(0.0, 1.0)
    }

    /// Probability of at least `events` in `seconds` where all is as usual.
    pub fn tail(&self, events: u64, seconds: f64) -> Option<f64> {
        let (mean, variation) = self.expected(seconds)?;
        Some(rate_tail(events as f64, mean, variation))
    }

    /// Probability of at most `events` in `seconds` where all is as usual.
    pub fn tail_below(&self, events: u64, seconds: f64) -> Option<f64> {
        let (mean, variation) = self.expected(seconds)?;
        Some(1.0 - rate_tail(events as f64 + 1.0, mean, variation))
    }

    /// Tests a window for too many; `None` where too little is known, or fewer than `events_min` were counted *and*
    /// were to be expected.
    pub fn test(&self, events: u64, seconds: f64, effect: &Effect) -> Option<CountTest> {
        let (mean, variation) = self.expected(seconds)?;
        if events < effect.events_min && mean < effect.events_min as f64 {
            return None;
        }
        let (value, usual) = (events as f64 / seconds, self.per_second());
        Some(CountTest {
            tail: rate_tail(events as f64, mean, variation),
            value,
            usual,
            matters: matters(value, usual, effect),
        })
    }

    fn expected(&self, seconds: f64) -> Option<(f64, f64)> {
        let known = self.windows >= WINDOWS_MIN && seconds.is_finite() && seconds > 0.0;
        known.then(|| {
            let unknown = 1.0 / (self.events + 1.0);
            (self.per_second() * seconds, self.variation() + unknown)
        })
    }
}

fn matters(value: f64, usual: f64, effect: &Effect) -> bool {
    value - usual >= effect.more_by && value >= usual * effect.more_times
}

fn scaled(failures: u64, events: u64) -> (f64, f64) {
    let (k, n) = (failures as f64, events as f64);
    if events <= WINDOW_EVENTS_MAX {
        return (k, n);
    }
    let most = WINDOW_EVENTS_MAX as f64;
    ((k / n * most).floor(), most)
}

/// P(K >= k) of `n` events with mean `share`, two of which correlate by `correlation`: beta-binomial, exactly, by
/// summing the shorter side.
fn share_tail(k: f64, n: f64, share: f64, correlation: f64) -> f64 {
    if k <= 0.0 {
        return 1.0;
    }
    if correlation < NO_VARIATION {
        return beta_i(share, k, n - k + 1.0);
    }
    let size = 1.0 / correlation.min(CORRELATION_MAX) - 1.0;
    let (a, b) = (share * size, (1.0 - share) * size);
    let ln_norm = ln_gamma(n + 1.0) - ln_beta(a, b);
    let term = |j: f64| {
        let ln_choose = ln_norm - ln_gamma(j + 1.0) - ln_gamma(n - j + 1.0);
        (ln_choose + ln_beta(j + a, n - j + b)).exp()
    };
    // At most n steps, and n is bounded.
    let upwards = k > n * share;
    let mut at = if upwards { k } else { k - 1.0 };
    let mut part = term(at);
    let mut sum = part;
    while if upwards { at < n } else { at > 0.0 } {
        if upwards {
            part *= (n - at) / (at + 1.0) * (at + a) / (n - at - 1.0 + b);
            at += 1.0;
        } else {
            part *= at / (n - at + 1.0) * (n - at + b) / (at - 1.0 + a);
            at -= 1.0;
        }
        sum += part;
        if part < sum * ENOUGH {
            break;
        }
    }
    if upwards {
        sum.min(1.0)
    } else {
        (1.0 - sum).clamp(0.0, 1.0)
    }
}

/// P(K >= k) of a Poisson variable whose mean varies like a gamma variable: negative binomial.
fn rate_tail(k: f64, mean: f64, variation: f64) -> f64 {
    if k <= 0.0 {
        return 1.0;
    }
    if variation < NO_VARIATION {
        return gamma_p(k, mean);
    }
    let size = 1.0 / variation;
    beta_i(mean / (mean + size), k, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    impl Draws {
        fn failures(&mut self, events: u64, share: f64) -> u64 {
            (0..events).map(|_| u64::from(self.unit() <= share)).sum()
        }

        fn poisson(&mut self, mean: f64) -> u64 {
            let (least, mut product, mut k) = ((-mean).exp(), self.unit(), 0);
            while product > least {
                product *= self.unit();
                k += 1;
            }
            k
        }
    }

    #[test]
    fn the_beta_binomial_has_known_values() {
        // a = b = 1 is uniform on 0 to n: correlation 1/3.
        for k in 1..=10_u32 {
            let found = share_tail(f64::from(k), 10.0, 0.5, 1.0 / 3.0);
            assert!((found - f64::from(11 - k) / 11.0).abs() < 1e-12, "{k}");
        }
        // Without correlation it is binomial, and near it with next to none.
        let binomial = beta_i(0.02, 9.0, 192.0);
        assert!((share_tail(9.0, 200.0, 0.02, 0.0) / binomial - 1.0).abs() < 1e-12);
        assert!((share_tail(9.0, 200.0, 0.02, 1e-8) / binomial - 1.0).abs() < 1e-4);
        // By SciPy's `betabinom`, one on each side of the mean.
        assert!((share_tail(25.0, 500.0, 0.02, 0.01) - 0.052_956_201_978_0).abs() < 1e-10);
        assert!((share_tail(10.0, 20_000.0, 0.001, 0.001) - 0.613_958_372_145).abs() < 1e-9);
    }

    #[test]
    fn the_negative_binomial_has_known_values() {
        // Size 1 is geometric: P(K >= k) = (mean / (1 + mean))^k.
        for k in 1..8 {
            let expected = (3.0_f64 / 4.0).powi(k);
            assert!((rate_tail(f64::from(k), 3.0, 1.0) - expected).abs() < 1e-12);
        }
        let poisson = rate_tail(12.0, 4.0, 0.0);
        assert!(
            (poisson - 9.152_291_472_700_6e-4).abs() < 1e-12,
            "{poisson}"
        );
        // By SciPy's `nbinom`.
        assert!((rate_tail(40.0, 20.0, 0.05) - 0.004_320_749_841_64).abs() < 1e-12);
        assert!((rate_tail(12.0, 4.0, 1e-8) / poisson - 1.0).abs() < 1e-4);
    }

    #[test]
    fn moments_find_what_the_windows_were_made_with() {
        let mut draws = Draws(1);
        let (mut steady, mut restless) = (ShareBaseline::default(), ShareBaseline::default());
        for i in 0..4_000 {
            steady.learn(draws.failures(200, 0.05), 200);
            // Half the windows at 2 %, half at 8 %: correlation 0.03^2 / (0.05 * 0.95) = 0.0189.
            let share = if i % 2 == 0 { 0.02 } else { 0.08 };
            restless.learn(draws.failures(200, share), 200);
        }
        assert!((steady.share() - 0.05).abs() < 0.002);
        assert!(steady.correlation() < 0.0005, "{}", steady.correlation());
        assert!(
            (restless.correlation() - 0.0189).abs() < 0.002,
            "{}",
            restless.correlation()
        );
        let mut rate = RateBaseline::default();
        for i in 0..4_000 {
            // Coefficient of variation 0.5 of the rate.
            rate.learn(draws.poisson(if i % 2 == 0 { 5.0 } else { 15.0 }), 60.0);
        }
        assert!((rate.per_second() - 10.0 / 60.0).abs() < 0.005);
        assert!(
            (rate.variation() - 0.25).abs() < 0.03,
            "{}",
            rate.variation()
        );
    }

    /// Share of clean windows with a tail of at most `nominal`, over nominal: after `learned` windows.
    fn realised(learned: usize, nominal: f64) -> f64 {
        let (mut draws, mut rare, mut all) = (Draws(9), 0_u32, 0_u32);
        for _ in 0..40 {
            let mut baseline = ShareBaseline::default();
            for _ in 0..learned {
                baseline.learn(draws.failures(100, 0.03), 100);
            }
            for _ in 0..500 {
                let tail = baseline.tail(draws.failures(100, 0.03), 100).unwrap();
                rare += u32::from(tail <= nominal);
                all += 1;
            }
        }
        f64::from(rare) / f64::from(all) / nominal
    }

    #[test]
    fn tails_are_what_they_claim_with_much_and_with_little_learned() {
        for learned in [5, 20, 500] {
            let ratio = realised(learned, 0.01);
            assert!(ratio < 1.3, "{learned} windows: {ratio}");
        }
        assert!(
            realised(500, 0.01) > 0.3,
            "not blind: {}",
            realised(500, 0.01)
        );
    }

    #[test]
    fn a_real_rise_is_rare_and_matters_and_chance_does_not() {
        let mut baseline = ShareBaseline::default();
        for _ in 0..100 {
            baseline.learn(1, 100);
        }
        let effect = Effect::default();
        let doubled = baseline.test(40, 1000, &effect).unwrap();
        assert!(doubled.tail < 1e-4 && doubled.matters, "{doubled:?}");
        // Beyond chance, and too small to act on.
        let slight = baseline.test(280, 20_000, &effect).unwrap();
        assert!(!slight.matters, "{slight:?}");
        let chance = baseline.test(3, 100, &effect).unwrap();
        assert!(chance.tail > 0.05, "{chance:?}");
        assert_eq!(baseline.test(19, 19, &effect), None, "too few");
        assert_eq!(
            ShareBaseline::default().test(50, 100, &effect),
            None,
            "nothing known"
        );
    }

    #[test]
    fn more_events_than_are_looked_at_are_scaled_down() {
        let mut baseline = ShareBaseline::default();
        for _ in 0..100 {
            baseline.learn(10_000_000, 1_000_000_000);
        }
        let tail = baseline.tail(20_000_000, 1_000_000_000).unwrap();
        assert!(tail < 1e-3, "{tail}");
        assert!(baseline.tail(10_000_000, 1_000_000_000).unwrap() > 0.1);
        baseline.learn(u64::MAX, u64::MAX);
        baseline.learn(5, 4);
        assert!(baseline.share() < 1.0 && baseline.windows() < 102.0);
    }

    #[test]
    fn plain_counts_are_tested_both_ways() {
        let mut draws = Draws(4);
        let mut baseline = RateBaseline::default();
        for _ in 0..500 {
            baseline.learn(draws.poisson(30.0), 60.0);
        }
        baseline.learn(7, f64::NAN);
        assert!(baseline.tail(60, 60.0).unwrap() < 1e-5);
        assert!(baseline.tail(30, 60.0).unwrap() > 0.3);
        assert!(baseline.tail_below(8, 60.0).unwrap() < 1e-4);
        assert!(baseline.tail_below(30, 60.0).unwrap() > 0.3);
        // Twice as long, twice as many.
        assert!(baseline.tail(60, 120.0).unwrap() > 0.3);
        let found = baseline.test(60, 60.0, &Effect::default()).unwrap();
        assert!(
            found.matters && (found.value - 1.0).abs() < 1e-9,
            "{found:?}"
        );
        let mut quiet = RateBaseline::default();
        for _ in 0..500 {
            quiet.learn(0, 60.0);
        }
        assert_eq!(quiet.test(3, 60.0, &Effect::default()), None, "too few");
        assert!(quiet.tail(3, 60.0).unwrap() < 1e-4);
    }
}
