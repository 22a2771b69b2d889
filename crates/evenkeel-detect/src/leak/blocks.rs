//! Minima of blocks of equal time, newest last, and what they say of a trend.

use serde::{Deserialize, Serialize};

use crate::stats::{median, theil_sen};

/// Blocks of one time scale that are kept.
pub(super) const BLOCKS: usize = 28;
const MS_PER_HOUR: f64 = 3_600_000.0;

/// The newest block minima of one time scale, in MB. Blocks begin with the process, so each one is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Blocks {
    block_ms: i64,
    /// Oldest first; where a block had no reading, none.
    minima: [Option<f32>; BLOCKS],
    /// Number of the open block since the process began.
    open: i64,
    least: Option<f32>,
}

/// A trend through block minima.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// Theil-Sen slope (Sen 1968).
    pub(super) mb_per_hour: f64,
    /// The same of the last third.
    pub(super) recent_mb_per_hour: f64,
    /// The slope over the whole span, in MB.
    pub(super) rise_mb: f64,
    /// The most that came from one block to the next, in MB.
    pub(super) step_mb: f64,
    /// Lowest of the first third, in MB.
    pub(super) level_mb: f64,
    pub(super) span_hours: f64,
    pub(super) blocks: usize,
    /// One-sided probability of such a trend by chance (Mann 1945, Kendall 1975).
    pub(super) tail: f64,
}

impl Blocks {
    pub(super) fn new(block_ms: i64) -> Self {
        Self {
            block_ms,
            minima: [None; BLOCKS],
            open: 0,
            least: None,
        }
    }

    /// Takes a reading `since_ms` after the process began; true when a block was completed by it. Readings are in order.
    pub(super) fn push(&mut self, since_ms: i64, mb: f64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "megabytes")]
        let mb = mb as f32;
        let block = since_ms / self.block_ms;
        let completed = block > self.open;
        if completed {
            let passed = usize::try_from(block - self.open)
                .unwrap_or(BLOCKS)
                .min(BLOCKS);
            self.minima.rotate_left(passed);
            self.minima[BLOCKS - passed..].fill(None);
            self.minima[BLOCKS - passed] = self.least.take();
            self.open = block;
        }
        self.least = Some(self.least.map_or(mb, |l| l.min(mb)));
        completed
    }

    /// Hours since the first kept block, and MB, of the newest `most` blocks.
    fn points(&self, most: usize) -> Vec<(f64, f64)> {
        let block_hours = self.block_ms as f64 / MS_PER_HOUR;
        let points = (0..).zip(&self.minima).skip(BLOCKS - most.min(BLOCKS));
        points
            .filter_map(|(i, mb)| Some((f64::from(i) * block_hours, f64::from((*mb)?))))
            .collect()
    }

    /// The trend through the newest `most` blocks; `None` below six.
    pub(super) fn trend(&self, most: usize) -> Option<Trend> {
        let points = self.points(most);
        let n = points.len();
        if n < 6 {
            return None;
        }
        let span_hours = points[n - 1].0 - points[0].0;
        let mb_per_hour = theil_sen(&points)?;
        let last = &points[n - (n / 3).max(3)..];
        let first = points.iter().take((n / 3).max(2)).map(|p| p.1);
        Some(Trend {
            mb_per_hour,
            recent_mb_per_hour: theil_sen(last)?,
            rise_mb: mb_per_hour * span_hours,
            step_mb: points
                .windows(2)
                .map(|w| w[1].1 - w[0].1)
                .fold(0.0, f64::max),
            level_mb: first.fold(f64::INFINITY, f64::min),
            span_hours,
            blocks: n,
            tail: mann_kendall(&points),
        })
    }

    /// What every block gained over the one `lag` blocks before it, in MB, oldest first.
    pub(super) fn gains(&self, lag: usize) -> Vec<f64> {
        let pairs = self.minima.iter().zip(self.minima.iter().skip(lag));
        pairs
            .filter_map(|(before, after)| Some(f64::from((*after)?) - f64::from((*before)?)))
            .collect()
    }

    /// From the oldest of the newest `most` blocks to the newest, in MB; `None` below three.
    pub(super) fn gained_mb(&self, most: usize) -> Option<f64> {
        let points = self.points(most);
        let (first, last) = (points.first()?, points.last()?);
        (points.len() >= 3).then_some(last.1 - first.1)
    }

    /// Difference between the highest and the lowest block once `mb_per_hour` are taken out, in MB.
    pub(super) fn swing(&self, mb_per_hour: f64) -> f64 {
        let rest = self
            .points(BLOCKS)
            .into_iter()
            .map(|(h, mb)| mb - mb_per_hour * h);
        let (low, high) = rest.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mb| {
            (low.min(mb), high.max(mb))
        });
        (high - low).max(0.0)
    }

    pub(super) fn median_mb(&self) -> Option<f64> {
        median(self.points(BLOCKS).into_iter().map(|p| p.1).collect())
    }

    /// Least of the newest `most` blocks, in MB.
    pub(super) fn floor_mb(&self, most: usize) -> Option<f64> {
        let newest = self.minima.iter().rev().take(most).flatten().copied();
        newest.reduce(f32::min).map(f64::from)
    }

    /// The newest completed block, in MB.
    pub(super) fn newest_mb(&self) -> Option<f64> {
        self.minima.iter().rev().find_map(|mb| mb.map(f64::from))
    }
}

/// Mann-Kendall's test for a rise: exact for strictly rising values of up to ten points, else the normal
/// approximation with correction for continuity, which is close from ten points on.
fn mann_kendall(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mut s: f64 = 0.0;
    for (i, (_, y0)) in points.iter().enumerate() {
        for (_, y1) in points.iter().skip(i + 1) {
            s += match y1.total_cmp(y0) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Less => -1.0,
            };
        }
    }
    let pairs = n * (n - 1.0) / 2.0;
    if s >= pairs && points.len() <= 10 {
        return (1..=points.len())
            .map(|i| i as f64)
            .product::<f64>()
            .recip();
    }
    let sd = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    crate::stats::upper_tail((s - 1.0) / sd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(block_ms: i64, values: &[f64]) -> Blocks {
        let mut blocks = Blocks::new(block_ms);
        for (i, mb) in (0..).zip(values) {
            blocks.push(i * block_ms, *mb);
        }
        blocks
    }

    #[test]
    fn a_block_keeps_its_least_and_a_gap_is_no_block() {
        let mut blocks = Blocks::new(1000);
        for (at, mb) in [
            (0, 5.0),
            (500, 3.0),
            (999, 4.0),
            (1000, 9.0),
            (5000, 7.0),
            (6000, 1.0),
        ] {
            blocks.push(at, mb);
        }
        let kept: Vec<_> = blocks.minima[BLOCKS - 6..].to_vec();
        assert_eq!(kept, [Some(3.0), Some(9.0), None, None, None, Some(7.0)]);
        assert!(blocks.push(6_000 + 1_000 * 1_000_000, 2.0));
        assert_eq!(
            blocks.points(BLOCKS).len(),
            1,
            "the one before the gap has left but one"
        );
    }

    #[test]
    fn a_trend_has_slope_step_and_chance() {
        let line: Vec<f64> = (0..12).map(|i| 100.0 + 10.0 * f64::from(i)).collect();
        let trend = filled(3_600_000, &line).trend(BLOCKS).unwrap();
        assert!((trend.mb_per_hour - 10.0).abs() < 1e-6, "{trend:?}");
        assert!(
            (trend.rise_mb - 100.0).abs() < 1e-3,
            "the last one is still open: {trend:?}"
        );
        assert!(
            (trend.step_mb - 10.0).abs() < 1e-6 && trend.tail < 1e-4,
            "{trend:?}"
        );
        let flat = filled(3_600_000, &[100.0; 12]).trend(BLOCKS).unwrap();
        assert!(flat.tail > 0.5 && flat.rise_mb.abs() < 1e-9, "{flat:?}");
    }

    #[test]
    fn mann_kendall_has_known_values() {
        let points = |ys: &[f64]| -> Vec<(f64, f64)> { ys.iter().map(|y| (0.0, *y)).collect() };
        let p = mann_kendall(&points(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert!((p - 1.0 / 720.0).abs() < 1e-12);
        // S = 43 of 45 pairs for n = 10: z = 42 / sqrt(125) = 3.757.
        let p = mann_kendall(&points(&[
            2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0,
        ]));
        assert!((p - 8.61e-5).abs() < 2e-6, "{p}");
    }
}
