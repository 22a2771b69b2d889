//! A leak told from warm-up: what the memory after each block of the same load says.
//!
//! Pure: readings in, verdict out. Slopes are Theil-Sen's with Sen's interval at 90 %, so that one odd reading (a
//! collection of garbage, a large answer) decides nothing.

use evenkeel_detect::{SlopeInterval, theil_sen_interval};
use serde::Serialize;

/// Confidence of the intervals: the true slope lies below one with a probability of 5 %, and above it with 5 %.
const CONFIDENCE: f64 = 0.9;
/// Least growth over the readings looked at that is called growth, in MB: below it an allocator's own pages, one now and
/// then, make a line as straight as a leak.
const GROWTH_MB_MIN: f64 = 0.25;
/// The same as a share of the first reading.
const GROWTH_SHARE_MIN: f64 = 0.0025;

/// What the course of the memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// No growth that stands out of the noise.
    None,
    /// It grew, and does not any more.
    WarmUp,
    /// It grew, and the later half still grows.
    Leak,
    /// Too few blocks to say.
    Unclear,
}

/// What the readings say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Leak {
    /// Growth over all blocks, in MB for 1,000 requests.
    pub(super) all: Option<SlopeInterval>,
    /// Growth over the later half: what is left of it after the warm-up.
    pub(super) later: Option<SlopeInterval>,
    pub(super) verdict: Verdict,
}

/// Judges readings: requests made so far and memory in MB, in order; the first one before any request.
pub(super) fn judge(readings: &[(u64, f64)]) -> Leak {
    let points: Vec<(f64, f64)> = readings
        .iter()
        .map(|(requests, mb)| (*requests as f64 / 1000.0, *mb))
        .collect();
    // Of six readings the last four, of eleven the last six.
    let half = (points.len() / 2 + 1).min(points.len());
    let late = &points[points.len() - half..];
    let all = theil_sen_interval(&points, CONFIDENCE);
    let later = theil_sen_interval(late, CONFIDENCE);
    let first = points.first().map_or(0.0, |p| p.1);
    let least = GROWTH_MB_MIN.max(GROWTH_SHARE_MIN * first);
    let verdict = match (all, later) {
        (Some(all), Some(later)) => {
            let has_grown = rises(&all, &points, least);
            if has_grown && rises(&later, late, least) {
                Verdict::Leak
            } else if has_grown || stepped_up(first, late, least) {
                Verdict::WarmUp
            } else {
                Verdict::None
            }
        }
        _ => Verdict::Unclear,
    };
    Leak {
        all,
        later,
        verdict,
    }
}

/// Whether a slope is surely above 0, and worth a name over these points.
fn rises(slope: &SlopeInterval, points: &[(f64, f64)], least: f64) -> bool {
    let span = match (points.first(), points.last()) {
        (Some((begin, _)), Some((end, _))) => end - begin,
        _ => 0.0,
    };
    slope.low > 0.0 && slope.slope * span >= least
}

/// Whether the later readings lie above the first by more than they differ among themselves: growth that came at once
/// has too few rising pairs for a slope.
fn stepped_up(first: f64, late: &[(f64, f64)], least: f64) -> bool {
    let low = late.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = late.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    low - first > (high - low).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings of ten blocks of 100 requests: before, and after each.
    fn course(mb: impl Fn(f64) -> f64) -> Vec<(u64, f64)> {
        (0..=10_u32)
            .map(|i| (u64::from(i) * 100, 100.0 + mb(f64::from(i))))
            .collect()
    }

    /// Noise of ±0.5 MB that is the same each time.
    fn noise(i: f64) -> f64 {
        let all = [0.3, -0.4, 0.1, 0.5, -0.2, -0.5, 0.2, 0.0, 0.4, -0.3, 0.1];
        let mut from = all.iter().enumerate().skip_while(|(n, _)| (*n as f64) < i);
        from.next().map_or(0.0, |(_, value)| *value)
    }

    #[test]
    fn a_leak_is_one_and_its_size_is_told() {
        let leak = judge(&course(|i| 2.0 * i + noise(i)));
        assert_eq!(leak.verdict, Verdict::Leak);
        // 2 MB a block of 100 requests.
        let all = leak.all.unwrap();
        assert!(all.low <= 20.0 && 20.0 <= all.high, "{all:?}");
        assert!((all.slope - 20.0).abs() < 1.0, "{all:?}");
        // After a warm-up the leak goes on, at its own rate.
        let leak = judge(&course(|i| 30.0 * (1.0 - (-i).exp()) + 2.0 * i + noise(i)));
        assert_eq!(leak.verdict, Verdict::Leak);
        assert!((leak.later.unwrap().slope - 20.0).abs() < 3.0, "{leak:?}");
    }

    #[test]
    fn growth_that_flattens_is_warm_up() {
        for verdict in [
            judge(&course(|i| 30.0 * (1.0 - (-i).exp()) + noise(i))),
            judge(&course(|i| 12.0 * i.min(4.0) + noise(i))),
            // All at once, before the first look.
            judge(&course(|i| if i > 0.0 { 55.0 + noise(i) } else { 0.0 })),
        ] {
            assert_eq!(verdict.verdict, Verdict::WarmUp, "{verdict:?}");
        }
    }

    #[test]
    fn noise_and_collected_garbage_are_no_growth() {
        for course in [
            course(noise),
            course(|_| 0.0),
            course(|i| -3.0 * i + noise(i)),
            // A collector that lets 30 MB of garbage come together, and takes it away.
            course(|i| 10.0 * (i % 3.0)),
            course(|i| 10.0 * ((i + 2.0) % 4.0)),
            // One reading that stands out.
            course(|i| if i > 5.0 && i < 7.0 { 80.0 } else { noise(i) }),
        ] {
            let leak = judge(&course);
            assert_eq!(leak.verdict, Verdict::None, "{course:?}: {leak:?}");
        }
    }

    #[test]
    fn pages_of_an_allocator_one_now_and_then_are_no_leak() {
        // As a python3 program was seen to grow: 4 KB for 40 requests, on a line.
        assert_eq!(judge(&course(|i| 0.004 * i)).verdict, Verdict::None);
        let warming = judge(&course(|i| if i > 0.0 { 9.0 + 0.004 * i } else { 0.0 }));
        assert_eq!(warming.verdict, Verdict::WarmUp);
        // Of a gigabyte, 1 MB is as little.
        let large: Vec<_> = (0..=10_u32)
            .map(|i| (u64::from(i) * 100, 1_000.0 + 0.1 * f64::from(i)))
            .collect();
        assert_eq!(judge(&large).verdict, Verdict::None);
    }

    #[test]
    fn a_step_in_the_middle_is_no_leak() {
        let leak = judge(&course(|i| if i > 5.0 { 40.0 } else { 0.0 }));
        assert_ne!(leak.verdict, Verdict::Leak, "{leak:?}");
    }

    #[test]
    fn five_blocks_are_enough_for_a_verdict_and_two_are_not() {
        let of = |mb: &[f64]| {
            let readings: Vec<_> = (0_u64..).zip(mb).map(|(i, mb)| (i * 20, *mb)).collect();
            judge(&readings).verdict
        };
        assert_eq!(of(&[0.0, 1.0, 2.1, 2.9, 4.0, 5.2]), Verdict::Leak);
        assert_eq!(of(&[0.0, 9.0, 12.0, 12.1, 12.0, 12.1]), Verdict::WarmUp);
        assert_eq!(of(&[5.0, 4.9, 5.1, 5.0, 4.9, 5.0]), Verdict::None);
        assert_eq!(of(&[0.0, 5.0, 10.0]), Verdict::Unclear);
        assert_eq!(of(&[]), Verdict::Unclear);
    }
}
