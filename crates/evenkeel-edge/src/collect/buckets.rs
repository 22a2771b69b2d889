//! Quantiles of histograms that were counted in buckets.
//!
//! As Prometheus has it (`histogram_quantile`,
//! <https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile>): linear inside a bucket; the
//! first bucket begins at 0 when its bound lies above; above the last finite bound nothing is known but that bound.

/// One bucket: its upper bound, and how many observations lie in it and in no lower one.
pub type Bucket = (f64, f64);

/// Adds up buckets with the same bound and puts them in order.
pub fn merge(buckets: &mut Vec<Bucket>) {
    buckets.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    buckets.dedup_by(|next, kept| {
        let is_same = next.0.total_cmp(&kept.0).is_eq();
        if is_same {
            kept.1 += next.1;
        }
        is_same
    });
}

/// How many observations there are.
pub fn count(buckets: &[Bucket]) -> f64 {
    buckets.iter().map(|(_, n)| n).sum()
}

/// The value that a share `q` (0 to 1) of the observations did not exceed, in the unit of the bounds; the buckets are in
/// order, each bound once. `None` when there are no observations or no finite bound.
pub fn quantile(buckets: &[Bucket], q: f64) -> Option<f64> {
    let count = count(buckets);
    if !(count > 0.0 && (0.0..=1.0).contains(&q)) {
        return None;
    }
    let rank = q * count;
    let (mut below, mut lower) = (0.0, None);
    for &(upper, inside) in buckets {
        if upper.is_infinite() {
            break;
        }
        if inside > 0.0 && below + inside >= rank {
            let from = match lower {
                Some(lower) => lower,
                None if upper > 0.0 => 0.0,
                None => return Some(upper),
            };
            let share = ((rank - below) / inside).clamp(0.0, 1.0);
            return Some(from + (upper - from) * share);
        }
        below += inside;
        lower = Some(upper);
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quantile_is_linear_inside_its_bucket() {
        let buckets = [(0.1, 60.0), (0.5, 30.0), (f64::INFINITY, 10.0)];
        for (q, expected) in [
            (0.0, 0.0),
            (0.3, 0.05),
            (0.6, 0.1),
            (0.75, 0.3),
            (0.9, 0.5),
            (0.99, 0.5),
        ] {
            let found = quantile(&buckets, q).unwrap();
            assert!((found - expected).abs() < 1e-12, "{q}: {found}");
        }
        assert_eq!(quantile(&[(-1.0, 5.0), (1.0, 5.0)], 0.25), Some(-1.0));
        assert_eq!(quantile(&[(-1.0, 5.0), (1.0, 5.0)], 0.75), Some(0.0));
        assert_eq!(quantile(&[(f64::INFINITY, 5.0)], 0.5), None);
        assert_eq!(quantile(&[(1.0, 0.0)], 0.5), None);
        assert_eq!(quantile(&buckets, f64::NAN), None);
    }

    proptest! {
        /// Against a plain walk over the observations: the quantile lies in the bucket that holds the observation.
        #[test]
        fn a_quantile_lies_in_the_right_bucket(
            counts in prop::collection::vec(0_u32..20, 1..8),
            q in 0.0..=1.0_f64,
        ) {
            let mut buckets: Vec<Bucket> = counts.iter().enumerate()
                .flat_map(|(i, n)| [(i as f64 + 1.0, f64::from(*n)); 2])
                .collect();
            buckets.reverse();
            merge(&mut buckets);
            let all: Vec<usize> = counts.iter().enumerate()
                .flat_map(|(i, n)| vec![i; 2 * *n as usize])
                .collect();
            let found = quantile(&buckets, q);
            prop_assert_eq!(found.is_some(), !all.is_empty());
            if let Some(found) = found {
                let rank = (q * all.len() as f64).ceil().max(1.0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
                let at = all[(rank as usize - 1).min(all.len() - 1)] as f64;
                prop_assert!(found >= at - 1e-9 && found <= at + 1.0 + 1e-9, "{found} for bucket {at}");
            }
        }
    }
}
