//! Shifts injected into real series: from some point on every value is 25 % or 100 % higher, as when a service becomes
//! slower or fails more often. It is caught when the budget to notify is spent on it within five points.
//!
//! A set is watched by one agent with the default budget, as the product follows it. Shifts begin at places spread over the second half of each
//! series, away from what is labelled, and where the next five values are alarms without a shift none is counted.
//!
//! Most of the series swing by more than the shift every day, so each figure stands beside what could be told at all
//! ([`crate::hindsight`]), and for two groups besides: the series that are response times and errors, and those whose
//! noise is small beside the shift.

use std::path::Path;

use evenkeel_core::time::Timestamp;
use evenkeel_detect::budget::{AlarmBudget, BudgetConfig, BudgetShare, MONTH_MS};
use evenkeel_detect::follow::{Follow, FollowConfig, Kind, Point};

use crate::detector::{Detector, NAMES};
use crate::hindsight::Hindsight;
use crate::sets::{self, Labelled};
use crate::table::Table;

const WITHIN: usize = 5;
/// The one series of each agent.
const SERIES: &str = "series";
/// Places in each series.
const PLACES: usize = 12;
/// Points between a shift and what is labelled, at least.
const AWAY: usize = 50;
const SHIFTS: [(f64, &str); 2] = [(0.25, "90 %"), (1.0, "99 %")];
/// Series are quiet, for a shift, when their noise is below this share of it.
const QUIET: f64 = 1.0 / 3.0;
/// Series that are response times or errors, by the beginnings of their names, with the reason. They were chosen by
/// what their sets say of them, not by what came of it.
const LATENCY_OR_ERRORS: [(&str, Kind, &str); 5] = [
    (
        "realKnownCause/ec2_request_latency_system_failure",
        Kind::Latency,
        "named a request latency, though the set's own page calls it processor time",
    ),
    (
        "realTraffic/TravelTime_",
        Kind::Latency,
        "how long a way through a road takes",
    ),
    (
        "middle-tier-api-dependency-latency/",
        Kind::Latency,
        "how long calls of another service take",
    ),
    (
        "application-crash-rate-1/",
        Kind::Errors,
        "crashes of an application",
    ),
    (
        "application-crash-rate-2/",
        Kind::Errors,
        "the share of an application's sessions that crash",
    ),
];
/// Groups of series, in the order in which they are told.
const GROUPS: [&str; 3] = [
    "all series",
    "response times and errors",
    "noise below a third of the shift",
];

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

/// A series under watch, at one moment.
#[derive(Clone)]
enum Watching {
    /// By a bare detector, with its part of the budget.
    Bare(Box<(Detector, AlarmBudget, BudgetShare)>),
    /// As the product follows it: what stands in an alarm is not learned.
    Followed(Box<Follow>, Kind),
}

impl Watching {
    /// By the detector of this name, with so many alarms a month.
    fn new(name: &str, rest: u32, start_ms: i64, alarms: f64, kind: Kind) -> Self {
        if name == NAMES[0] {
            let budget = AlarmBudget::new(BudgetConfig {
                heal_alarms_per_month: 0.0,
                notify_alarms_per_month: alarms,
            });
            let share = BudgetShare::new(start_ms);
            return Self::Bare(Box::new((Detector::live(name, rest), budget, share)));
        }
        let config = FollowConfig {
            heal_alarms_per_month: 0.0,
            notify_alarms_per_month: alarms,
            ..FollowConfig::default()
        };
        Self::Followed(Box::new(Follow::new(config)), kind)
    }

    /// Whether it stands in an alarm with this value.
    fn push(&mut self, at_ms: i64, value: f64) -> bool {
        match self {
            Self::Bare(bare) => {
                let (detector, budget, share) = &mut **bare;
                let (_, tail) = detector.push(at_ms, value);
                budget.judge(share, at_ms, tail, true).notify.is_raised()
            }
            Self::Followed(follow, kind) => {
                let at = Timestamp::from_millis(at_ms);
                let point = Point {
                    series: SERIES,
                    service: None,
                    kind: *kind,
                    at,
                    value,
                    n: None,
                    silent: false,
                };
                follow.observe(&point, at);
                follow.check(at, None, false);
                follow.standing(SERIES).is_some_and(|s| s.alarmed)
            }
        }
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
    spread.filter(|at| is_clear(series, *at)).collect()
}

/// Away from what is labelled.
fn is_clear(series: &Labelled, at: usize) -> bool {
    let labelled =
        |(first, last): &(usize, usize)| (first.saturating_sub(AWAY)..=last + AWAY).contains(&at);
    !series.windows.iter().any(labelled)
}

/// What became of the places of a group: told by the detector, by hindsight, by both.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    series: u32,
    caught: Tally,
    hindsight: Tally,
    /// Of what hindsight can tell.
    both: Tally,
}

impl Group {
    fn add(&mut self, caught: bool, told: bool) {
        self.caught.add(caught);
        self.hindsight.add(told);
        if told {
            self.both.add(caught);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.series += 1;
        for (sum, more) in [
            (&mut self.caught, other.caught),
            (&mut self.hindsight, other.hindsight),
            (&mut self.both, other.both),
        ] {
            sum.caught += more.caught;
            sum.all += more.all;
        }
    }
}

/// Every place of one series, for each shift.
fn of_series(series: &Labelled, hindsight: &Hindsight<'_>, fresh: Watching) -> [Group; 2] {
    let mut watching = fresh;
    let mut found = [Group::default(); SHIFTS.len()];
    let places = places(series);
    for (i, (at_ms, value)) in series.times_ms.iter().zip(&series.values).enumerate() {
        let zero = series.values[i..].iter().take(WITHIN).all(|v| *v == 0.0);
        if places.contains(&i) && !zero && !watching.is_alarmed(series, i, 1.0) {
            for ((shift, _), group) in SHIFTS.iter().zip(&mut found) {
                let caught = watching.is_alarmed(series, i, 1.0 + shift);
                group.add(caught, hindsight.tells(i, WITHIN, 1.0 + shift));
            }
        }
        watching.push(*at_ms, *value);
    }
    found
}

/// How many false alarms a month a series is granted.
#[derive(Clone, Copy, Debug)]
enum Grant {
    /// Its part of what an agent that watches the whole set is granted by default.
    OfTheSet,
    /// One in its own length, which is what hindsight is granted.
    AsHindsight,
}

impl Grant {
    fn alarms_per_month(self, series: &Labelled, of: usize) -> f64 {
        match self {
            Self::OfTheSet => BudgetConfig::default().notify_alarms_per_month / of as f64,
            Self::AsHindsight => {
                let (first, last) = (series.times_ms.first(), series.times_ms.last());
                let length_ms = first.zip(last).map_or(0, |(first, last)| last - first);
                MONTH_MS / (length_ms.max(1) as f64)
            }
        }
    }
}

type Measured = [[Group; GROUPS.len()]; SHIFTS.len()];

/// What is caught of each shift, by group.
fn measure(series: &[Labelled], name: &str, rest: u32, grant: Grant) -> Measured {
    let mut groups = Measured::default();
    for s in series {
        let hindsight = Hindsight::of(s, |at| is_clear(s, at));
        let start_ms = s.times_ms.first().copied().unwrap_or(0);
        let named = LATENCY_OR_ERRORS
            .iter()
            .find(|(n, ..)| s.name.starts_with(n));
        let kind = named.map_or(Kind::Gauge, |(_, kind, _)| *kind);
        let alarms = grant.alarms_per_month(s, series.len());
        let watching = Watching::new(name, rest, start_ms, alarms, kind);
        let of_series = of_series(s, &hindsight, watching);
        let noise = hindsight.noise();
        for (((shift, _), groups), found) in SHIFTS.iter().zip(&mut groups).zip(&of_series) {
            let quiet = noise.is_some_and(|n| n < QUIET * shift);
            for (group, belongs) in groups.iter_mut().zip([true, named.is_some(), quiet]) {
                if belongs {
                    group.merge(found);
                }
            }
        }
        let each = of_series.map(|g| {
            format!(
                "{} of {} (hindsight {}, both {})",
                g.caught.caught, g.caught.all, g.hindsight.caught, g.both.caught
            )
        });
        let noise = noise.map_or("unknown".to_owned(), |n| format!("{:.0} %", 100.0 * n));
        eprintln!(
            "{name}, {grant:?}, {}, noise {noise}: {}",
            s.name,
            each.join("; ")
        );
    }
    groups
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
            let of_the_set = measure(&series, name, rest, Grant::OfTheSet);
            let as_hindsight = measure(&series, name, rest, Grant::AsHindsight);
            for (i, (shift, reach)) in SHIFTS.iter().enumerate() {
                for (j, of) in GROUPS.iter().enumerate() {
                    let percent = 100.0 * shift;
                    let group = of_the_set[i][j];
                    table.row(
                        &format!(
                            "shift by {percent:.0} % in {set}, {of} ({} series), caught within {WITHIN} checks, {name}",
                            group.series
                        ),
                        group.caught.percent(),
                        reach,
                    );
                    for (what, group) in [
                        ("- hindsight, and what is caught of that", group),
                        ("- the same at hindsight's budget", as_hindsight[i][j]),
                    ] {
                        let told = [group.hindsight, group.both].map(Tally::percent);
                        table.row(what, told.join("; "), "");
                    }
                }
            }
        }
    }
    Ok(())
}
