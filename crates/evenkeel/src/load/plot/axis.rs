//! Axes: where a value lies, and which round values are marked.

use crate::load::figures::number;

/// Marks that are aimed at.
const MARKS: f64 = 5.0;
/// Most marks of an axis, whatever its range.
const MARKS_MAX: usize = 40;

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// Evenly.
    Even,
    /// By their logarithm.
    Log,
    /// By the logarithm of one over what is missing to 1: 90 %, 99 % and 99.9 % are equally far apart.
    Nines,
}

/// An axis from one value to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// Evenly from 0 to `most` or a little beyond, to a round value.
    pub fn from_zero(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 {
            most
        } else {
            1.0
        };
        let step = round_step(most / MARKS);
        let to = (most / step - 1e-9).ceil() * step;
        Self::even(0.0, to, step)
    }

    /// Evenly from 0 to exactly `most`, in seconds; marks are round in seconds, minutes or hours.
    pub fn seconds(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 {
            most
        } else {
            1.0
        };
        let step = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0,
            1_800.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0, 86_400.0,
        ]
        .into_iter()
        .find(|step| most / step <= 10.0)
        .unwrap_or(172_800.0);
        let mut axis = Self::even(0.0, most, step);
        for (value, label) in &mut axis.marks {
            *label = time(*value, most);
        }
        axis
    }

    /// By logarithm over all of `values` that are above 0.
    pub fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let good = values.into_iter().filter(|v| v.is_finite() && *v > 0.0);
        let (low, high) = good.fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 10.0) };
        let candidates: Vec<f64> = (-9..=12)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(power)))
            .collect();
        let from = candidates
            .iter()
            .copied()
            .rfind(|c| *c <= low * 1.000_1)
            .unwrap_or(low);
        let to = candidates
            .iter()
            .copied()
            .find(|c| *c >= high * 0.999_9 && *c > from)
            .unwrap_or(high);
        let decades = (to / from).log10();
        let inside = candidates
            .into_iter()
            .filter(|c| (from * 0.999_9..=to * 1.000_1).contains(c));
        let marks = inside
            .filter(|c| {
                let leading = c / 10_f64.powf((c * 1.000_1).log10().floor());
                decades < 2.5 || (leading - 1.0).abs() < 0.01
            })
            .take(MARKS_MAX)
            .map(|c| (c, plain(c)))
            .collect();
        Self {
            scale: Scale::Log,
            from,
            to,
            marks,
        }
    }

    /// By logarithm where the largest is more than `times` the smallest above 0, else evenly from 0.
    pub fn fitting(values: impl IntoIterator<Item = f64>, times: f64) -> Self {
        let good: Vec<f64> = values
            .into_iter()
            .filter(|v| v.is_finite() && *v > 0.0)
            .collect();
        let most = good.iter().copied().fold(0.0, f64::max);
        let least = good.iter().copied().fold(f64::INFINITY, f64::min);
        if most > least * times {
            Self::log(good)
        } else {
            Self::from_zero(most)
        }
    }

    /// Shares from 0 to `1 - 1 / count`, by nines.
    pub fn nines(count: u64) -> Self {
        let to = 1.0 - 1.0 / (count.max(10) as f64);
        let all = [
            0.0,
            0.5,
            0.9,
            0.99,
            0.999,
            0.9999,
            0.99999,
            0.999_999,
            0.999_999_9,
        ];
        let labels = [
            "0 %",
            "50 %",
            "90 %",
            "99 %",
            "99.9 %",
            "99.99 %",
            "99.999 %",
            "99.9999 %",
            "99.99999 %",
        ];
        let marks = all
            .into_iter()
            .zip(labels)
            .filter(|(value, _)| *value <= to + 1e-12)
            .map(|(value, label)| (value, label.to_owned()))
            .collect();
        Self {
            scale: Scale::Nines,
            from: 0.0,
            to,
            marks,
        }
    }

    fn even(from: f64, to: f64, step: f64) -> Self {
        let marks = (0..MARKS_MAX)
            .map(|i| from + i as f64 * step)
            // A run of 11.99 s ends at the mark of 12 s for whoever looks at it.
            .take_while(|v| *v <= to + step * 0.02)
            .map(|v| (v, plain(v)))
            .collect();
        Self {
            scale: Scale::Even,
            from,
            to,
            marks,
        }
    }

    /// Where a value lies, 0 at the beginning of the axis and 1 at its end; values beyond are put to the ends.
    pub fn place(&self, value: f64) -> f64 {
        let on = |v: f64| match self.scale {
            Scale::Even => v,
            Scale::Log => v.max(1e-12).log10(),
            Scale::Nines => -(1.0 - v).max(1e-12).log10(),
        };
        let (from, to) = (on(self.from), on(self.to));
        let place = (on(value) - from) / (to - from);
        if place.is_finite() {
            place.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// The round values and how they are written.
    pub fn marks(&self) -> &[(f64, String)] {
        &self.marks
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= step * 0.999_999)
        .unwrap_or(power * 10.0)
}

/// A round value without digits that say nothing.
fn plain(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return number(value);
    }
    let text = format!("{value:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A time within a run of `most` seconds: `30 s`, `5 min`, `2 h`.
fn time(seconds: f64, most: f64) -> String {
    if most <= 180.0 {
        format!("{} s", plain(seconds))
    } else if most <= 3.0 * 3_600.0 {
        format!("{} min", plain(seconds / 60.0))
    } else {
        format!("{} h", plain(seconds / 3_600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.marks()
            .iter()
            .map(|(_, label)| label.as_str())
            .collect()
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(
            labels(&Axis::from_zero(0.43)),
            ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
        );
        assert_eq!(
            labels(&Axis::from_zero(9_800.0)),
            ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]
        );
        assert_eq!(
            labels(&Axis::log([0.3, 40.0])),
            ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
        );
        assert_eq!(
            labels(&Axis::log([0.3, 4000.0])),
            ["1", "10", "100", "1,000"]
        );
        assert_eq!(
            labels(&Axis::nines(1_000)),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %"]
        );
        assert_eq!(
            labels(&Axis::seconds(30.0)),
            ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s", "30 s"]
        );
        assert_eq!(labels(&Axis::seconds(600.0))[1], "1 min");
        assert_eq!(labels(&Axis::seconds(11.99)).last(), Some(&"12 s"));
    }

    proptest! {
        #[test]
        fn places_rise_with_values_and_marks_lie_inside(a in 1e-6..1e9_f64, b in 1e-6..1e9_f64, most in 1e-6..1e9_f64) {
            for axis in [Axis::from_zero(most), Axis::seconds(most), Axis::log([a, b]), Axis::fitting([a, b], 50.0), Axis::nines(1_000)] {
                let (low, high) = (axis.place(a.min(b)), axis.place(a.max(b)));
                prop_assert!(low <= high && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
                prop_assert!(axis.marks().len() <= MARKS_MAX && !axis.marks().is_empty());
                for (value, label) in axis.marks() {
                    prop_assert!(!label.is_empty() && (axis.from - 1e-9..=axis.to * 1.03).contains(value), "{axis:?}");
                }
            }
        }

        #[test]
        fn nonsense_does_not_break_an_axis(bad in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(0.0)]) {
            for axis in [Axis::from_zero(bad), Axis::seconds(bad), Axis::log([bad]), Axis::fitting([bad], 2.0), Axis::log([])] {
                prop_assert!((0.0..=1.0).contains(&axis.place(bad)));
                prop_assert!((0.0..=1.0).contains(&axis.place(1.0)));
            }
        }
    }
}
