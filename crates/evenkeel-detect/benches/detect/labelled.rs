//! Recall on labelled series.

use std::path::Path;

use crate::detector::{Detector, NAMES};
use crate::score::{BUDGETS, Found, Scored, delay, frozen, nab as nab_scores, recall_at};
use crate::sets::{self, Labelled};
use crate::table::Table;

const ABSENT: &str = "The labelled series are not part of the sources: give their directory by `--data DIR` or \
    `EVENKEEL_BENCH_DATA`. `nab/` is the Numenta Anomaly Benchmark (<https://github.com/numenta/NAB>: `data/`, and \
    `labels/combined_windows.json` in it), `cloud/` Microsoft's Cloud Monitoring Dataset \
    (<https://github.com/microsoft/cloud-monitoring-dataset>).";

/// NAB's profiles, and recall at budgets.
pub(crate) fn nab(data: Option<&Path>, table: &mut Table) -> Result<(), String> {
    let Some(data) = data else {
        absent("NAB", table);
        return Ok(());
    };
    let series = sets::nab(data)?;
    for name in NAMES {
        let scored = run(&series, |_| Detector::new(name, 150));
        let [standard, less_alarms, less_missed] = nab_scores(&scored);
        table.row(
            &format!("NAB, standard / low FP / low FN, {name}"),
            format!("{standard:.2} / {less_alarms:.2} / {less_missed:.2}"),
            "above 70.1 / 67.0",
        );
        recall(
            "NAB",
            name,
            &scored,
            ".45 / .64 / .80 at 0.25 / 0.5 / 1",
            table,
        );
    }
    Ok(())
}

/// Recall at budgets in the cloud's set.
pub(crate) fn cloud(data: Option<&Path>, table: &mut Table) -> Result<(), String> {
    let Some(data) = data else {
        absent("cloud", table);
        return Ok(());
    };
    let series = sets::cloud(data)?;
    for name in NAMES {
        let scored = run(&series, |_| Detector::new(name, 24));
        recall(
            "cloud",
            name,
            &scored,
            "frozen .30 at 0.25, .50 at 1",
            table,
        );
    }
    Ok(())
}

fn absent(set: &str, table: &mut Table) {
    table.row(
        &format!("{set}, all rows"),
        "the data is not there".to_owned(),
        "",
    );
    table.note(ABSENT.to_owned());
}

fn run(series: &[Labelled], detector: impl Fn(&Labelled) -> Detector) -> Vec<Scored> {
    series
        .iter()
        .map(|s| {
            let mut detector = detector(s);
            let points = s.times_ms.iter().zip(&s.values);
            let scores: Vec<f64> = points.map(|(t, v)| detector.push(*t, *v).0).collect();
            Scored::new(&s.times_ms, &scores, &s.windows)
        })
        .collect()
}

fn recall(set: &str, name: &str, scored: &[Scored], reach: &str, table: &mut Table) {
    let list = |what: &dyn Fn(f64) -> Option<Found>| -> String {
        let cells =
            BUDGETS.map(|b| what(b).map_or("none".to_owned(), |f| format!("{:.3}", f.recall)));
        cells.join(" / ")
    };
    let budgets = BUDGETS.map(|b| b.to_string()).join(" / ");
    table.row(
        &format!("{set}, recall at {budgets} false alarms per series in 30 days, {name}"),
        list(&|b| recall_at(scored, b)),
        reach,
    );
    let realised =
        BUDGETS.map(|b| frozen(scored, b).map_or("none".to_owned(), |f| format!("{:.2}", f.rate)));
    table.row(
        &format!(
            "the same, threshold from every other series (realised {})",
            realised.join(" / ")
        ),
        list(&|b| frozen(scored, b)),
        reach,
    );
    let late = BUDGETS.map(|b| {
        let found = recall_at(scored, b).and_then(|f| delay(scored, f.threshold));
        found.map_or("none".to_owned(), |d| format!("{d:.2}"))
    });
    table.row(
        &format!("{set}, median delay within a window, {name}"),
        late.join(" / "),
        "",
    );
}
