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
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    for (i, (x0, y0)) in points.iter().enumerate() {
        for (x1, y1) in points.iter().skip(i + 1) {
            if x1 > x0 {
                slopes.push((y1 - y0) / (x1 - x0));
            }
        }
    }
    median(slopes)
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
}
