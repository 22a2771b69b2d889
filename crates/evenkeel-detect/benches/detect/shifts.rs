//! Shifts injected into real series: from some point on every value is 25 % or 100 % higher, as when a service becomes
//! slower or fails more often. It is caught when the budget to notify is spent on it within five points.
//!
//! A set is watched by one agent with the default budget. Shifts begin at places spread over the second half of each
//! series, away from what is labelled, and where the next five values are alarms without a shift none is counted.

use std::path::Path;

use evenkeel_detect::budget::{AlarmBudget, BudgetConfig, BudgetShare};

use crate::detector::{Detector, NAMES};
use crate::sets::{self, Labelled};
use crate::table::Table;

const WITHIN: usize = 5;
/// Places in each series.
const PLACES: usize = 12;
/// Points between a shift and what is labelled, at least.
const AWAY: usize = 50;
const SHIFTS: [(f64, &str); 2] = [(0.25, "90 %"), (1.0, "99 %")];
/// Parts of the names of series that are response times, errors, crashes or cost.
const LATENCY_OR_ERRORS: [&str; 4] = ["latency", "crash", "TravelTime", "cpc"];

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    caught: u32,
    all: u32,
}

impl Tally {
    fn add(&mut self, caught: bool) {
        self.all += 1;
        self.caught += u32::from(caught);
    }

    fn percent(self) -> String {
        let share = 100.0 * f64::from(self.caught) / f64::from(self.all.max(1));
        format!("{share:.1} % ({} of {})", self.caught, self.all)
    }
}

/// A detector and its part of the budget, at one moment.
#[derive(Clone)]
struct Watching {
    detector: Detector,
    budget: AlarmBudget,
    share: BudgetShare,
}

impl Watching {
    fn push(&mut self, at_ms: i64, value: f64) -> bool {
        let (_, tail) = self.detector.push(at_ms, value);
        self.budget
            .judge(&mut self.share, at_ms, tail, true)
            .notify
            .is_raised()
    }

    /// Whether an alarm is raised within the next points when each is multiplied.
    fn is_alarmed(&self, series: &Labelled, from: usize, factor: f64) -> bool {
        let mut watching = self.clone();
        let points = series.times_ms.iter().zip(&series.values).skip(from);
        points
            .take(WITHIN)
            .any(|(at_ms, value)| watching.push(*at_ms, value * factor))
    }
}

fn places(series: &Labelled) -> Vec<usize> {
    let n = series.values.len();
    let spread = (0..PLACES).map(|k| n / 2 + k * (n / 2 - WITHIN - 1) / PLACES);
    let clear = |at: &usize| {
        let labelled = |(first, last): &(usize, usize)| {
            (first.saturating_sub(AWAY)..=last + AWAY).contains(at)
        };
        !series.windows.iter().any(labelled)
    };
    spread.filter(clear).collect()
}

/// Whether the mean of the shifted points is beyond every mean of as many before: what a fixed limit that knew all of
/// the past could tell. A detector may do better where the series has a course, and not by much where it is noise.
fn stands_out(series: &Labelled, from: usize, factor: f64) -> bool {
    let mean = |w: &[f64]| w.iter().sum::<f64>() / w.len() as f64;
    let means = series.values[..from].windows(WITHIN).map(mean);
    let highest = means.filter(|m| m.is_finite()).fold(f64::MIN, f64::max);
    mean(&series.values[from..from + WITHIN]) * factor > highest
}

/// What is caught of each shift, in all series and in those of latency and errors, and what stands out at all.
fn measure(series: &[Labelled], name: &str, rest: u32) -> [[Tally; 3]; SHIFTS.len()] {
    let share = BudgetConfig::default().notify_alarms_per_month / series.len() as f64;
    let mut tallies = [[Tally::default(); 3]; SHIFTS.len()];
    for s in series {
        let mut watching = Watching {
            detector: Detector::live(name, rest),
            budget: AlarmBudget::new(BudgetConfig {
                heal_alarms_per_month: 0.0,
                notify_alarms_per_month: share,
            }),
            share: BudgetShare::new(s.times_ms.first().copied().unwrap_or(0)),
        };
        let places = places(s);
        let of_kind = LATENCY_OR_ERRORS.iter().any(|k| s.name.contains(k));
        for (i, (at_ms, value)) in s.times_ms.iter().zip(&s.values).enumerate() {
            let zero = s.values[i..].iter().take(WITHIN).all(|v| *v == 0.0);
            if places.contains(&i) && !zero && !watching.is_alarmed(s, i, 1.0) {
                for ((shift, _), [all, kind, limit]) in SHIFTS.iter().zip(&mut tallies) {
                    let caught = watching.is_alarmed(s, i, 1.0 + shift);
                    all.add(caught);
                    limit.add(stands_out(s, i, 1.0 + shift));
                    if of_kind {
                        kind.add(caught);
                    }
                }
            }
            watching.push(*at_ms, *value);
        }
    }
    tallies
}

pub(crate) fn shifts(data: Option<&Path>, table: &mut Table) -> Result<(), String> {
    let Some(data) = data else {
        table.row(
            "shifts in real series",
            "the data is not there".to_owned(),
            "",
        );
        return Ok(());
    };
    for (set, series, rest) in [
        ("NAB", sets::nab(data)?, 150),
        ("cloud", sets::cloud(data)?, 24),
    ] {
        for name in NAMES {
            let tallies = measure(&series, name, rest);
            for ((shift, reach), [all, kind, limit]) in SHIFTS.iter().zip(tallies) {
                let percent = 100.0 * shift;
                table.row(
                    &format!(
                        "shift by {percent:.0} % in {set}, caught within {WITHIN} checks, {name}"
                    ),
                    all.percent(),
                    reach,
                );
                table.row("- of latency and errors", kind.percent(), "");
                let what = "- beyond every mean of five before, which a fixed limit could tell";
                table.row(what, limit.percent(), "");
            }
        }
    }
    Ok(())
}
