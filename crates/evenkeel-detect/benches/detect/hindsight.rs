//! What could be told at all of a shift: simple statistics that know the whole series beforehand.
//!
//! Each of them is a mean of the newest 1, 3 or 5 values: as it is, against the twelve values before it, and against the
//! same time of the day before, the latter two as a difference and as a ratio. A shift can be told when any of them goes
//! beyond all that it ever is in the series without the shift, labelled trouble excepted. That is generous: they know
//! the future, the best one is taken each time, and one alarm in the length of a series is far more than its part of the
//! budget. A detector that finds less may still have had no chance; it hardly finds more.

use crate::sets::Labelled;

/// Values whose mean is taken.
const WIDTHS: [usize; 3] = [1, 3, 5];
/// Values before those.
const BEFORE: usize = 12;
/// Ways of looking at a mean.
const WAYS: usize = 5;
const STATISTICS: usize = WIDTHS.len() * WAYS;
const DAY_MS: i64 = 86_400_000;
/// A value stands for the same time of the day before when it is this close to it, in usual intervals.
const CLOSE: i64 = 2;
/// Standard deviations of a normal variable in its median absolute deviation.
const SIGMAS: f64 = 1.4826;

/// A series with what it ever is.
pub(crate) struct Hindsight<'a> {
    series: &'a Labelled,
    /// Index of the value a day before each.
    day_before: Vec<Option<usize>>,
    most: [f64; STATISTICS],
}

impl<'a> Hindsight<'a> {
    /// `clear` says which places are away from what is labelled.
    pub(crate) fn of(series: &'a Labelled, clear: impl Fn(usize) -> bool) -> Self {
        let mut hindsight = Self {
            day_before: day_before(&series.times_ms),
            series,
            most: [f64::MIN; STATISTICS],
        };
        for at in (0..series.values.len()).filter(|at| clear(*at)) {
            let now = hindsight.look(at, |i| series.values[i]);
            for (most, now) in hindsight.most.iter_mut().zip(now) {
                // What is no number is never more.
                *most = most.max(now);
            }
        }
        hindsight
    }

    /// Whether values multiplied by `factor` from index `from` on can be told within so many.
    pub(crate) fn tells(&self, from: usize, within: usize, factor: f64) -> bool {
        let shifted = |i: usize| self.series.values[i] * if i < from { 1.0 } else { factor };
        (from..from + within).any(|at| {
            let now = self.look(at, shifted);
            now.iter().zip(&self.most).any(|(now, most)| now > most)
        })
    }

    /// Every statistic at an index; NaN where there are too few values.
    fn look(&self, at: usize, value: impl Fn(usize) -> f64) -> [f64; STATISTICS] {
        let mut found = [f64::NAN; STATISTICS];
        for (width, found) in WIDTHS.iter().zip(found.chunks_exact_mut(WAYS)) {
            let mean = |until: usize, of: usize| {
                let values = (until + 1).checked_sub(of).map(|from| from..=until);
                values.map_or(f64::NAN, |r| r.map(&value).sum::<f64>() / of as f64)
            };
            let now = mean(at, *width);
            let before = at
                .checked_sub(*width)
                .map_or(f64::NAN, |until| mean(until, BEFORE));
            let yesterday = self.day_before[at].map_or(f64::NAN, |until| mean(until, *width));
            let ratio = |of: f64| if of > 0.0 { now / of } else { f64::NAN };
            found.copy_from_slice(&[
                now,
                now - before,
                ratio(before),
                now - yesterday,
                ratio(yesterday),
            ]);
        }
        found
    }

    /// The noise of the series, as a share of its level: the robust spread of what separates each value from the one a
    /// day before, over the median size of a value. Nothing where days cannot be compared.
    pub(crate) fn noise(&self) -> Option<f64> {
        let values = &self.series.values;
        let pairs = self.day_before.iter().zip(values);
        let residuals: Vec<f64> = pairs
            .filter_map(|(before, value)| before.map(|b| value - values[b]))
            .collect();
        let middle = median(residuals.clone())?;
        let spread = SIGMAS * median(residuals.iter().map(|r| (r - middle).abs()).collect())?;
        let level = median(values.iter().map(|v| v.abs()).collect())?;
        (level > 0.0).then(|| spread / level)
    }
}

fn day_before(times_ms: &[i64]) -> Vec<Option<usize>> {
    let gaps = times_ms.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a gap")]
    let close = median(gaps).map_or(0, |gap| gap as i64) * CLOSE;
    let of = |at_ms: &i64| {
        let wanted = at_ms - DAY_MS;
        let next = times_ms.partition_point(|t| *t <= wanted);
        let index = next.checked_sub(1)?;
        (wanted - times_ms[index] <= close).then_some(index)
    };
    times_ms.iter().map(of).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|v| v.is_finite());
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
