//! How fast one core is, and how much is kept of a series.

use std::hint::black_box;
use std::time::Instant;

use crate::detector::{Detector, NAMES};
use crate::noise::{Kind, Noise};
use crate::table::Table;

const POINTS: usize = 500_000;
const TIMES: usize = 5;
const MINUTE_MS: i64 = 60_000;

/// Points a second on one core, over every kind of noise in turn: the median of some runs.
pub(crate) fn speed(table: &mut Table) {
    for name in NAMES {
        let mut rates: Vec<f64> = (0..TIMES).map(|_| rate(name)).collect();
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
        let bytes = Detector::new(name, 60).state_bytes();
        table.row(
            &format!("state of a series in bytes, {name}"),
            bytes.to_string(),
            "2,560",
        );
    }
    let bytes = size_of::<evenkeel_detect::leak::Leak>();
    table.row("state of a series in bytes, leak", bytes.to_string(), "");
}

fn rate(name: &str) -> f64 {
    let mut seconds = 0.0;
    for (seed, kind) in (0..).zip(Kind::ALL) {
        let mut noise = Noise::new(kind, seed);
        let values: Vec<f64> = (0..POINTS / Kind::ALL.len())
            .map(|_| noise.next())
            .collect();
        let mut detector = Detector::new(name, 60);
        let begin = Instant::now();
        for (i, value) in (0..).zip(&values) {
            black_box(detector.push(i * MINUTE_MS, *value));
        }
        seconds += begin.elapsed().as_secs_f64();
    }
    POINTS as f64 / seconds
}
