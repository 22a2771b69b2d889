//! The few statistics that the monitors share. Each is total: empty input gives `None`, never a panic or a NaN.

/// Lower end of Wilson's score interval (Wilson 1927) for a share of `errors` in `total`, one-sided at the normal
/// quantile `z`; with `z = 0` the share itself. 0 when nothing was counted.
pub(crate) fn wilson_lower(errors: u64, total: u64, z: f64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let n = total as f64;
    let p = errors as f64 / n;
    let z2 = z * z;
    let centre = p + z2 / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).max(0.0).sqrt();
    ((centre - half) / (1.0 + z2 / n)).max(0.0)
}

/// Nearest-rank 95th percentile.
pub(crate) fn p95(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * 95).div_ceil(100);
    values.get(rank.checked_sub(1)?).copied()
}

/// Median; the mean of the middle two when their number is even.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values.get(middle).copied()
    } else {
        let upper = values.get(middle)?;
        let lower = values.get(middle.checked_sub(1)?)?;
        Some(f64::midpoint(*lower, *upper))
    }
}

/// Theil-Sen slope (Sen 1968): the median of the slopes of all pairs, in units of `y` per unit of `x`. `None`
/// below two points with different `x`.
pub(crate) fn theil_sen(points: &[(f64, f64)]) -> Option<f64> {
    median(pair_slopes(points))
}

fn pair_slopes(points: &[(f64, f64)]) -> Vec<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    for (i, (x0, y0)) in points.iter().enumerate() {
        for (x1, y1) in points.iter().skip(i + 1) {
            if x1 > x0 {
                slopes.push((y1 - y0) / (x1 - x0));
            }
        }
    }
    slopes
}

/// Most points of which Kendall's distribution is counted out; above it is as good as normal.
const COUNTED_POINTS_MAX: usize = 40;
/// Most points that an interval is made of: their pairs are all looked at.
const INTERVAL_POINTS_MAX: usize = 1_000;

/// A slope and the interval that holds the true one with the confidence asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlopeInterval {
    /// The Theil-Sen slope, in units of `y` per unit of `x`.
    pub slope: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Theil-Sen slope with its distribution-free interval (Sen 1968, section 5): the pairs' slopes in order, cut off on
/// both sides where Kendall's statistic of a series without trend would fall with the probability that is left.
///
/// That distribution is counted out for up to 40 points, and taken as normal with Kendall's variance
/// n (n - 1) (2 n + 5) / 18 above. Ties in `y` widen the interval rather than narrow it.
///
/// Points are `(x, y)` with rising `x`. `None` when `x` does not rise, a value is not finite, there are more than 1,000
/// points, or too few of them for this `confidence` (above 0, below 1): at 0.9 it takes four, at 0.95 five.
pub fn theil_sen_interval(points: &[(f64, f64)], confidence: f64) -> Option<SlopeInterval> {
    let finite = points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
    let rising = points.windows(2).all(|w| w[0].0 < w[1].0);
    let asked = confidence > 0.0 && confidence < 1.0;
    if !finite || !rising || !asked || points.len() > INTERVAL_POINTS_MAX {
        return None;
    }
    let mut slopes = pair_slopes(points);
    slopes.sort_by(f64::total_cmp);
    let cut = cut_off(points.len(), (1.0 - confidence) / 2.0)?;
    Some(SlopeInterval {
        slope: median(slopes.clone())?,
        low: *slopes.get(cut)?,
        high: *slopes.get(slopes.len().checked_sub(cut + 1)?)?,
    })
}

/// How many of the slopes fall away on either side so that at most `tail` is left out there; `None` when even the
/// extreme slopes leave out more.
fn cut_off(points: usize, tail: f64) -> Option<usize> {
    let pairs = points * points.saturating_sub(1) / 2;
    if points > COUNTED_POINTS_MAX {
        let n = points as f64;
        let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        let cut = (pairs as f64 - quantile_above(tail) * deviation) / 2.0;
        // It is within 0 and `pairs`: the deviation is far below the number of pairs.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number between 0 and the number of pairs"
        )]
        return Some((cut.floor() - 1.0).max(0.0) as usize);
    }
    // The share of orders of n different values that have k descents among their pairs, built up value by value.
    let mut shares = vec![1.0];
    for n in 2..=points {
        let mut next = vec![0.0; shares.len() + n - 1];
        for (k, share) in shares.iter().enumerate() {
            for slot in &mut next[k..k + n] {
                *slot += share / n as f64;
            }
        }
        shares = next;
    }
    let mut left_out = 0.0;
    let mut cut = None;
    for (k, share) in shares.iter().enumerate().take(pairs) {
        left_out += share;
        if left_out > tail {
            break;
        }
        cut = Some(k);
    }
    cut
}

/// The normal quantile above which `tail` lies, for tails up to a half.
fn quantile_above(tail: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if upper_tail(middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Probability that a standard normal variable exceeds `z`: formula 26.2.17 of Abramowitz and Stegun, error below
/// 7.5e-8.
pub(crate) fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    density * poly
}

/// The value that a standard normal variable stays below with probability `p`, for `p` from 0.5 to 0.99999: by halving
/// an interval, to the precision of [`upper_tail`].
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 6.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if upper_tail(middle) > 1.0 - p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_a_value_worked_out_by_hand() {
        // Worked out by hand: (0.4353 - 0.2741) / 1.2706.
        assert!((wilson_lower(3, 10, 1.644_853_6) - 0.1270).abs() < 5e-4);
        assert!((wilson_lower(12, 100, 0.0) - 0.12).abs() < 1e-12);
        assert!(wilson_lower(0, 50, 1.2816) <= 1e-12);
        assert!(wilson_lower(0, 0, 1.2816).abs() < 1e-12);
    }

    #[test]
    fn quantiles_of_the_normal_distribution_agree_with_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959_964),
            (0.995, 2.575_829),
            (0.9995, 3.290_527),
        ] {
            assert!((normal_quantile(p) - z).abs() < 2e-4, "{p}");
        }
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        assert_eq!(p95(vec![]), None);
        assert_eq!(p95(vec![7.0]), Some(7.0));
        assert_eq!(p95((1..=100).map(f64::from).collect()), Some(95.0));
        assert_eq!(p95((1..=20).map(f64::from).collect()), Some(19.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn theil_sen_is_not_moved_by_an_outlier() {
        let mut points: Vec<(f64, f64)> = (0..10)
            .map(|i| (f64::from(i), 2.0 * f64::from(i)))
            .collect();
        points[4].1 = 1000.0;
        assert!((theil_sen(&points).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(theil_sen(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }

    #[test]
    fn kendall_cuts_off_what_the_published_tables_say() {
        // Hollander and Wolfe, table A.30: upper tail of S for n = 4, 5, 6, 8, 10.
        // n = 4: P(S >= 6) = 0.042; n = 5: P(S >= 8) = 0.042, P(S >= 10) = 0.0083; n = 6: P(S >= 11) = 0.028.
        assert_eq!(cut_off(3, 0.05), None);
        assert_eq!((cut_off(4, 0.05), cut_off(4, 0.025)), (Some(0), None));
        assert_eq!((cut_off(5, 0.05), cut_off(5, 0.025)), (Some(1), Some(0)));
        assert_eq!((cut_off(6, 0.03), cut_off(6, 0.025)), (Some(2), Some(1)));
        // n = 10: P(S >= 23) = 0.023, P(S >= 21) = 0.036.
        assert_eq!(
            (cut_off(10, 0.025), cut_off(10, 0.037)),
            (Some(11), Some(12))
        );
        // Where the counting ends, the normal form agrees with it within a few of 780 pairs.
        let counted = cut_off(COUNTED_POINTS_MAX, 0.025).unwrap() as f64;
        let n = COUNTED_POINTS_MAX as f64;
        let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        assert!((counted - (780.0 - 1.959_964 * deviation) / 2.0).abs() < 3.0);
    }

    #[test]
    fn an_interval_holds_the_slope_as_often_as_it_says() {
        // Uniform noise around a slope of 0.5, from a fixed generator; 90 % of 2,000 intervals should hold it.
        let mut state = 7_u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        for n in [6, 11, 45] {
            let mut held = 0;
            for _ in 0..2_000 {
                let points: Vec<_> = (0..n)
                    .map(|i| (f64::from(i), 0.5 * f64::from(i) + noise()))
                    .collect();
                let found = theil_sen_interval(&points, 0.9).unwrap();
                assert!(found.low <= found.slope && found.slope <= found.high);
                held += i32::from(found.low <= 0.5 && 0.5 <= found.high);
            }
            let share = f64::from(held) / 2_000.0;
            // Never less than promised (three standard errors), and not wastefully more.
            assert!((0.88..0.96).contains(&share), "{n} points: {share}");
        }
    }

    #[test]
    fn what_cannot_have_an_interval_has_none() {
        let line = |n: i32| -> Vec<_> { (0..n).map(|i| (f64::from(i), f64::from(i))).collect() };
        assert_eq!(theil_sen_interval(&line(3), 0.9), None);
        assert_eq!(theil_sen_interval(&[], 0.9), None);
        let exact = theil_sen_interval(&line(4), 0.9).unwrap();
        assert!((exact.slope - 1.0).abs() < 1e-12 && (exact.low - exact.high).abs() < 1e-12);
        let mut broken = line(6);
        broken[2].1 = f64::NAN;
        assert_eq!(theil_sen_interval(&broken, 0.9), None);
        broken[2] = broken[1];
        assert_eq!(theil_sen_interval(&broken, 0.9), None);
        assert_eq!(theil_sen_interval(&line(6), 1.0), None);
        assert_eq!(theil_sen_interval(&line(1_001), 0.9), None);
    }
}
