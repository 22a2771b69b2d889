//! How fast one core is, and how much is kept of a series.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use crate::detector::{Detector, NAMES};
use crate::noise::{Kind, Noise};
use crate::table::Table;

const POINTS: usize = 500_000;
const TIMES: usize = 5;
const MINUTE_MS: i64 = 60_000;
/// How a live series is followed: what is suspicious is judged before it is learned.
const AS_LIVE: &str = "Evenkeel as it follows live series";

/// Points a second on one core, over every kind of noise in turn: the median of some runs.
pub(crate) fn speed(table: &mut Table) {
    let all = [
        (NAMES[0], Detector::new(NAMES[0], 60)),
        (NAMES[1], Detector::new(NAMES[1], 60)),
        (AS_LIVE, Detector::live(NAMES[1], 60)),
    ];
    for (name, fresh) in &all {
        let mut rates: Vec<f64> = (0..TIMES).map(|_| rate(fresh)).collect();
        rates.sort_by(f64::total_cmp);
        table.row(
            &format!("points a second, one core, {name} (least, median, most of {TIMES})"),
            format!(
                "{:.0} / {:.0} / {:.0}",
                rates[0],
                rates[TIMES / 2],
                rates[TIMES - 1]
            ),
            "2,000,000",
        );
        let bytes = fresh.state_bytes();
        table.row(
            &format!("state of a series in bytes, {name}"),
            bytes.to_string(),
            "2,560",
        );
    }
    let bytes = size_of::<evenkeel_detect::leak::Leak>();
    table.row("state of a series in bytes, leak", bytes.to_string(), "");
}

fn rate(fresh: &Detector) -> f64 {
    let mut seconds = 0.0;
    for (seed, kind) in (0..).zip(Kind::ALL) {
        let mut noise = Noise::new(kind, seed);
        let values: Vec<f64> = (0..POINTS / Kind::ALL.len())
            .map(|_| noise.next())
            .collect();
        let mut detector = fresh.clone();
        let begin = on_core();
        for (i, value) in (0..).zip(&values) {
            black_box(detector.push(i * MINUTE_MS, *value));
        }
        seconds += on_core() - begin;
    }
    POINTS as f64 / seconds
}

/// Seconds that this thread was on a core, so that what runs beside it costs it nothing but caches; by the clock where
/// the system does not say.
fn on_core() -> f64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let scheduled = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = scheduled.and_then(|s| s.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGAN.elapsed().as_secs_f64(), |ns| ns / 1e9)
}
