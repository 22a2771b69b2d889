//! Whether the alarm budget is kept where nothing is wrong: realised over nominal alarms, by kind of noise.
//!
//! Beside the detectors by themselves, the whole of what follows series is measured: there an alarm stands for a while.
//!
//! An agent watches one series of each kind for three months, a point a minute, and has the default budget. Every
//! point counts from the first one on: a young series is no excuse.

use evenkeel_core::time::Timestamp;
use evenkeel_detect::budget::{Alarm, AlarmBudget, BudgetConfig, BudgetShare, Spent};
use evenkeel_detect::follow::{Follow, FollowConfig, Kind as FollowedAs, Point};

use crate::detector::{Detector, NAMES};
use crate::noise::{Kind, MONTH, Noise};
use crate::table::Table;

const MONTHS: u64 = 3;
/// The third that is measured, beside the detectors by themselves.
const FOLLOWED: &str = "Evenkeel as the product follows series";
const MINUTE_MS: i64 = 60_000;
const START_MS: i64 = 1_700_000_000_000;

/// Granted and raised, by kind: to notify, to heal.
#[derive(Clone, Debug, Default)]
struct Counted {
    series_months: u64,
    notify: [(f64, f64); Kind::ALL.len()],
    heal: [(f64, f64); Kind::ALL.len()],
}

impl Counted {
    fn add(&mut self, other: &Self) {
        self.series_months += other.series_months;
        for (sums, more) in [
            (&mut self.notify, &other.notify),
            (&mut self.heal, &other.heal),
        ] {
            for (sum, more) in sums.iter_mut().zip(more) {
                sum.0 += more.0;
                sum.1 += more.1;
            }
        }
    }
}

fn agent(detector: &str, seed: u64) -> Counted {
    let mut budget = AlarmBudget::new(BudgetConfig::default());
    let mut series: Vec<(BudgetShare, Noise, Detector)> = (0..)
        .zip(Kind::ALL)
        .map(|(i, kind)| {
            let noise = Noise::new(kind, seed * 1_000 + i);
            (
                BudgetShare::new(START_MS),
                noise,
                Detector::live(detector, 60),
            )
        })
        .collect();
    budget.count_living(series.len());
    let mut counted = Counted::default();
    let mut at_ms = START_MS;
    for _ in 0..MONTHS * MONTH {
        at_ms += MINUTE_MS;
        for (kind, (share, noise, detector)) in series.iter_mut().enumerate() {
            let (_, tail) = detector.push(at_ms, noise.next());
            let Spent { notify, heal } = budget.spent();
            let call = budget.judge(share, at_ms, tail, true);
            let now = budget.spent();
            counted.notify[kind].0 += now.notify.nominal - notify.nominal;
            counted.heal[kind].0 += now.heal.nominal - heal.nominal;
            counted.notify[kind].1 += f64::from(u8::from(call.notify == Alarm::Begins));
            counted.heal[kind].1 += f64::from(u8::from(call.heal == Alarm::Begins));
        }
    }
    counted.series_months = MONTHS * Kind::ALL.len() as u64;
    counted
}

/// The same as the product follows series: what stands in an alarm is not learned, and an alarm that lasts teaches
/// nothing of chance. An alarm is counted when one begins to stand.
fn followed(seed: u64) -> Counted {
    let mut follow = Follow::new(FollowConfig::default());
    let mut series: Vec<(Noise, bool)> = (0..)
        .zip(Kind::ALL)
        .map(|(i, kind)| (Noise::new(kind, seed * 1_000 + i), false))
        .collect();
    let mut counted = Counted::default();
    let mut at = Timestamp::from_millis(START_MS);
    for _ in 0..MONTHS * MONTH {
        at = at.plus_millis(MINUTE_MS);
        for (kind, (noise, _)) in Kind::ALL.iter().zip(&mut series) {
            let point = Point {
                series: kind.in_words(),
                service: None,
                kind: FollowedAs::Gauge,
                at,
                value: noise.next(),
                n: None,
                silent: false,
            };
            follow.observe(&point, at);
        }
        follow.check(at, None, false);
        for (kind, (_, stood)) in series.iter_mut().enumerate() {
            let standing = follow.standing(Kind::ALL[kind].in_words());
            let stands = standing.is_some_and(|s| s.alarmed);
            counted.notify[kind].1 += f64::from(u8::from(stands && !*stood));
            *stood = stands;
        }
    }
    let nominal = follow.budget().spent().notify.nominal / Kind::ALL.len() as f64;
    for notify in &mut counted.notify {
        notify.0 = nominal;
    }
    counted.series_months = MONTHS * Kind::ALL.len() as u64;
    counted
}

/// Runs so many series-months, rounded up to whole agents, whose seeds begin with `first`. What came of each agent is
/// told as it is done: months of ten kinds of noise take long.
pub(crate) fn false_alarms(first: u64, series_months: u64, table: &mut Table) {
    let agents = series_months
        .div_ceil(MONTHS * Kind::ALL.len() as u64)
        .max(1);
    for name in NAMES.into_iter().chain([FOLLOWED]) {
        let mut sum = Counted::default();
        let run = |i| {
            let counted = if name == FOLLOWED {
                followed(first + i)
            } else {
                agent(name, first + i)
            };
            let [notify, heal] = [&counted.notify, &counted.heal].map(total);
            eprintln!(
                "agent {}, {name}: notify {:.0} of {:.2}, heal {:.0} of {:.2}",
                first + i,
                notify.1,
                notify.0,
                heal.1,
                heal.0
            );
            counted
        };
        for counted in crate::parallel(agents, run) {
            sum.add(&counted);
        }
        report(name, &sum, table);
    }
}

fn report(name: &str, sum: &Counted, table: &mut Table) {
    let months = sum.series_months;
    for (purpose, counts) in [("notify", &sum.notify), ("heal", &sum.heal)] {
        let all = total(counts);
        if all.0 <= 0.0 {
            continue;
        }
        table.row(
            &format!(
                "alarms that {purpose}, realised over nominal, {months} clean series-months, {name}"
            ),
            ratio(all),
            "0.5 to 1.5",
        );
        for (kind, counts) in Kind::ALL.iter().zip(counts) {
            table.row(&format!("- {}", kind.in_words()), ratio(*counts), "");
        }
    }
}

/// Granted and raised over all kinds.
fn total(counts: &[(f64, f64); Kind::ALL.len()]) -> (f64, f64) {
    counts
        .iter()
        .fold((0.0, 0.0), |a, c| (a.0 + c.0, a.1 + c.1))
}

fn ratio((nominal, realised): (f64, f64)) -> String {
    format!("{:.2} ({realised:.0} of {nominal:.1})", realised / nominal)
}
