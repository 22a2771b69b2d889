//! Two samples of a measured value: whether they differ, by how much, and how sure that is. Both sides of the question
//! are open, better as well as worse; [`compare`](crate::compare) asks the one-sided question that guards a repair.
//!
//! The test is Mann and Whitney's (1947), the size of the difference Hodges and Lehmann's (1963): the median of all
//! differences between a value of the one and a value of the other sample. Its interval comes from the same differences
//! in order, counted off by the normal approximation of the test (Hollander & Wolfe, Nonparametric Statistical Methods,
//! chapter 4). No distribution is assumed, only that the two have the same form.
//!
//! Values that follow each other in time are seldom independent, and then both promise too much. [`inflation`] says by
//! how much the variance is larger than that of independent values, and [`shift`] takes it into account.

use crate::stats::{normal_quantile, upper_tail};

/// Values of a side that are looked at; of more, so many are taken at even distances.
pub const SAMPLE_MAX: usize = 512;
/// Values on each side below which nothing is said.
pub const SAMPLE_MIN: usize = 8;
/// Most by which the variance of a sample is taken to be larger than that of independent values.
const INFLATION_MAX: f64 = 100.0;

/// How the second sample lies to the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Hodges and Lehmann's estimate: by how much values of the second are larger; below 0 when smaller.
    pub by: f64,
    /// Lower end of the interval of `by`.
    pub low: f64,
    /// Upper end of the interval of `by`.
    pub high: f64,
    /// Two-sided probability of a difference at least as clear by chance, 0 to 1.
    pub p_value: f64,
    /// The interval has its confidence. If not, the values are worth too few independent ones for it: it spans all
    /// differences there are, and the test cannot come to a small probability either.
    pub confident: bool,
    /// Values that were looked at on the two sides.
    pub sizes: (usize, usize),
    /// A side had more than [`SAMPLE_MAX`] values, and was thinned.
    pub thinned: bool,
}

/// Whether and by how much `new` differs from `old`, with an interval that holds the true shift with a probability of
/// `confidence` (0.5 to 0.9999, otherwise the nearer end).
///
/// `inflation`: by how much the variance of the two samples' means is larger than that of independent values, 1 or
/// more; see [`inflation`]. What is not finite is left out. Nothing is said below [`SAMPLE_MIN`] values on a side.
pub fn shift(old: &[f64], new: &[f64], confidence: f64, inflation: f64) -> Option<Shift> {
    let (old, old_thinned) = thin(old);
    let (new, new_thinned) = thin(new);
    if old.len() < SAMPLE_MIN || new.len() < SAMPLE_MIN {
        return None;
    }
    let inflation = if inflation.is_finite() {
        inflation.clamp(1.0, INFLATION_MAX)
    } else {
        INFLATION_MAX
    };
    let mut differences = Vec::with_capacity(old.len() * new.len());
    for b in &old {
        differences.extend(new.iter().map(|a| a - b));
    }
    differences.sort_unstable_by(f64::total_cmp);
    let pairs = differences.len();
    let z = normal_quantile(f64::midpoint(1.0, confidence.clamp(0.5, 0.9999)));
    let (m, n) = (old.len() as f64, new.len() as f64);
    let deviation = (inflation * m * n * (m + n + 1.0) / 12.0).sqrt();
    let rank = (pairs as f64 / 2.0 - z * deviation).floor();
    let confident = rank >= 1.0;
    let rank = rank.max(1.0);
    // At most the number of pairs, which is at most SAMPLE_MAX squared.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to half the number of pairs"
    )]
    let rank = rank as usize;
    let low = *differences.get(rank - 1)?;
    let high = *differences.get(pairs - rank)?;
    let middle = differences.get((pairs - 1) / 2)?;
    let by = f64::midpoint(*middle, *differences.get(pairs / 2)?);
    let u = u_of(&old, &new);
    let spread = deviation_of_u(&old, &new) * inflation.sqrt();
    let off = (u - m * n / 2.0).abs();
    let p_value = if spread > 0.0 {
        // Half a step nearer to the middle: U is a number of pairs, the normal distribution is not.
        (2.0 * upper_tail((off - 0.5).max(0.0) / spread)).min(1.0)
    } else {
        1.0
    };
    Some(Shift {
        by,
        low,
        high,
        p_value,
        confident,
        sizes: (old.len(), new.len()),
        thinned: old_thinned || new_thinned,
    })
}

/// By how much the variance of the means of `runs`, each in the order in which it was measured, is larger than that of
/// independent values, at least 1: `(1 + r) / (1 - r)` of a first-order autoregression, with the correlation `r` of
/// neighbours, which is taken to be the same in all runs. A short series shows too small a correlation, by `(1 + 4r) / n`
/// (Marriott & Pope 1954), which is put right. Runs below [`SAMPLE_MIN`] values say nothing about it.
pub fn inflation(runs: &[&[f64]]) -> f64 {
    let (mut neighbours, mut total, mut counted) = (0.0, 0.0, 0.0);
    for run in runs {
        let values: Vec<f64> = run.iter().copied().filter(|v| v.is_finite()).collect();
        if values.len() < SAMPLE_MIN {
            continue;
        }
        let n = values.len() as f64;
        // Of ranks, as the test is: one outlier neither makes nor hides a correlation. Over their variance, so that a
        // longer run does not weigh more than its values.
        let ranks = ranks(&values);
        let mean = f64::midpoint(n, 1.0);
        let squares: f64 = ranks.iter().map(|r| (r - mean).powi(2)).sum();
        if squares <= 0.0 {
            continue;
        }
        let products: f64 = ranks
            .windows(2)
            .filter_map(|w| Some((w.first()? - mean) * (w.last()? - mean)))
            .sum();
        neighbours += products / squares * n;
        total += n;
        counted += 1.0;
    }
    if counted < 1.0 {
        return 1.0;
    }
    let r = neighbours / total;
    let r = r + (1.0 + 4.0 * r) * counted / total;
    if r <= 0.0 {
        return 1.0;
    }
    let r = r.min(0.98);
    ((1.0 + r) / (1.0 - r)).clamp(1.0, INFLATION_MAX)
}

/// Ranks from 1, the mean of them where values are equal.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for run in order.chunk_by(|a, b| a.1.total_cmp(&b.1).is_eq()) {
        let rank = before as f64 + f64::midpoint(run.len() as f64, 1.0);
        for (index, _) in run {
            if let Some(slot) = ranks.get_mut(*index) {
                *slot = rank;
            }
        }
        before += run.len();
    }
    ranks
}

/// At most [`SAMPLE_MAX`] of the finite values, at even distances in their order; whether any were left out.
fn thin(values: &[f64]) -> (Vec<f64>, bool) {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let n = finite.len();
    if n <= SAMPLE_MAX {
        return (finite, false);
    }
    let kept = (0..SAMPLE_MAX).filter_map(|i| finite.get(i * n / SAMPLE_MAX).copied());
    (kept.collect(), true)
}

/// Mann and Whitney's U: the pairs in which the value of `after` is larger, ties counting half.
pub(crate) fn u_of(before: &[f64], after: &[f64]) -> f64 {
    let mut sorted = before.to_vec();
    sorted.sort_by(f64::total_cmp);
    after
        .iter()
        .map(|a| {
            let below = sorted.partition_point(|b| b.total_cmp(a).is_lt());
            let up_to = sorted.partition_point(|b| b.total_cmp(a).is_le());
            f64::midpoint(below as f64, up_to as f64)
        })
        .sum()
}

/// Standard deviation of U where both samples are drawn from the same, with the correction for ties.
pub(crate) fn deviation_of_u(before: &[f64], after: &[f64]) -> f64 {
    let (m, n) = (before.len() as f64, after.len() as f64);
    let all = m + n;
    let mut sorted: Vec<f64> = before.iter().chain(after).copied().collect();
    sorted.sort_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|a, b| a.total_cmp(b).is_eq())
        .map(|run| {
            let t = run.len() as f64;
            t * t * t - t
        })
        .sum();
    let variance = m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    variance.max(0.0).sqrt()
}

#[cfg(test)]
mod tests;
