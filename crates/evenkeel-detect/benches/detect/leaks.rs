//! Injected leaks over noisy daily load, and how often a leak is found where there is none.
//!
//! A leak of 10 MB to 1 GB an hour (each factor as likely) begins after some healthy days, in one of three cases with
//! the process that a deploy started then, or, in one of four, with a service that was never seen before. It is caught
//! when it is found before half of the time in which it fills what was free below 2 GiB.

use evenkeel_detect::leak::Leak;

use crate::memory::{LIMIT_MB, Memory};
use crate::noise::{DAY, MONTH};
use crate::random::Random;
use crate::table::Table;

const MINUTE_MS: i64 = 60_000;
/// Leaks that are injected, for each series-month that is asked for, up to [`LEAKS_MAX`].
const LEAKS_PER_SERIES_MONTH: u64 = 4;
const LEAKS_MAX: u64 = 4_000;

/// What becomes of one leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    MidLife,
    WithADeploy,
    Unknown,
}

struct Outcome {
    begins: Begins,
    mb_per_hour: f64,
    caught: bool,
    /// Found before it was there.
    early: bool,
}

fn inject(seed: u64) -> Outcome {
    let mut random = Random::new(seed ^ 0x1eaf);
    let mut memory = Memory::new(seed);
    let mb_per_hour = random.log_between(10.0, 1_000.0);
    let begins = match random.below(4) {
        0 => Begins::Unknown,
        1 => Begins::WithADeploy,
        _ => Begins::MidLife,
    };
    let healthy = if begins == Begins::Unknown {
        0
    } else {
        2 * DAY + random.bits() % (5 * DAY)
    };
    let mut leak = Leak::new(0, memory.process());
    let (mut at_ms, mut found, mut level) = (0, false, 0.0);
    for _ in 0..healthy {
        at_ms += MINUTE_MS;
        level = memory.next(0.0, true);
        found = leak
            .push(at_ms, memory.process(), level, Some(LIMIT_MB), true)
            .is_some();
    }
    let early = found;
    if begins == Begins::WithADeploy {
        memory.restart();
    }
    if begins == Begins::Unknown {
        level = memory.clone().next(0.0, false);
    }
    let half_minutes = (LIMIT_MB - level).max(0.0) / mb_per_hour * 60.0 / 2.0;
    let mut caught = false;
    let mut minute = 0.0;
    while minute < half_minutes && !caught {
        minute += 1.0;
        at_ms += MINUTE_MS;
        let mb = memory.next(mb_per_hour, false);
        caught = leak
            .push(at_ms, memory.process(), mb, Some(LIMIT_MB), true)
            .is_some();
    }
    Outcome {
        begins,
        mb_per_hour,
        caught: caught && !early,
        early,
    }
}

/// Leaks that were found where there is none: beginnings of a finding, in one month.
fn healthy_month(seed: u64) -> u32 {
    let mut memory = Memory::new(seed ^ 0x00c1_ea00);
    let mut leak = Leak::new(0, memory.process());
    let (mut found, mut before) = (0, None);
    for minute in 1..=MONTH {
        let mb = memory.next(0.0, true);
        let at_ms = i64::try_from(minute).unwrap_or(i64::MAX) * MINUTE_MS;
        let now = leak
            .push(at_ms, memory.process(), mb, Some(LIMIT_MB), true)
            .is_some();
        if now {
            // What comes back within an hour is the same.
            found += u32::from(before.is_none_or(|b| minute - b > 60));
            before = Some(minute);
        }
    }
    found
}

pub(crate) fn leaks(series_months: u64, table: &mut Table) {
    let outcomes = crate::parallel(
        (series_months * LEAKS_PER_SERIES_MONTH).min(LEAKS_MAX),
        inject,
    );
    let share = |of: &dyn Fn(&Outcome) -> bool| {
        let those: Vec<&Outcome> = outcomes.iter().filter(|o| of(o)).collect();
        let caught = those.iter().filter(|o| o.caught).count();
        let percent = 100.0 * caught as f64 / those.len().max(1) as f64;
        format!("{percent:.1} % ({caught} of {})", those.len())
    };
    table.row(
        "leaks of 10 MB to 1 GB an hour, caught before half of the time to the limit",
        share(&|_| true),
        "95 %",
    );
    for (name, begins) in [
        ("- begun within a known process", Begins::MidLife),
        ("- begun with a deploy", Begins::WithADeploy),
        ("- of a service never seen before", Begins::Unknown),
    ] {
        table.row(name, share(&|o| o.begins == begins), "");
    }
    for (from, to) in [(10.0, 32.0), (32.0, 100.0), (100.0, 320.0), (320.0, 1000.0)] {
        let within = |o: &Outcome| (from..to).contains(&o.mb_per_hour);
        table.row(
            &format!("- {from:.0} to {to:.0} MB an hour"),
            share(&within),
            "",
        );
    }
    let early = outcomes.iter().filter(|o| o.early).count();
    table.row(
        "- found before they were there, not counted as caught",
        early.to_string(),
        "",
    );
    let false_alarms = crate::parallel(series_months, healthy_month);
    let alarms: u32 = false_alarms.iter().sum();
    let days = series_months * 30;
    table.row(
        &format!("leaks found where there is none, per 1,000 series-days, {days} series-days"),
        format!(
            "{:.2} ({alarms})",
            1_000.0 * f64::from(alarms) / days as f64
        ),
        "1",
    );
}
