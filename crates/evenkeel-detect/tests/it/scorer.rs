//! The benchmark's scorer, against figures of an independent one (NAB's rules in Python) for the same small case:
//! six series with a score each six hours, some with equal scores, some windows within the probation.

#[path = "../../benches/detect/score.rs"]
mod score;

use score::{BUDGETS, Found, Scored, delay, frozen, label_windows, nab, recall_at};

const CASE: &str = include_str!("../data/score/case.csv");
const SIX_HOURS_MS: i64 = 6 * 3_600_000;

/// The windows of neighbouring labels.
fn runs(labels: &[bool]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for i in (0..labels.len()).filter(|i| labels[*i]) {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == i => *last = i,
            _ => found.push((i, i)),
        }
    }
    found
}

fn case(windows: fn(&[bool]) -> Vec<(usize, usize)>) -> Vec<Scored> {
    let rows: Vec<Vec<&str>> = CASE
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect())
        .collect();
    rows.chunk_by(|a, b| a[0] == b[0])
        .map(|rows| {
            let times: Vec<i64> = (0..).zip(rows).map(|(i, _)| i * SIX_HOURS_MS).collect();
            let labels: Vec<bool> = rows.iter().map(|r| r[1] == "1").collect();
            let scores: Vec<f64> = rows
                .iter()
                .map(|r| r[2].parse().expect("a number"))
                .collect();
            Scored::new(&times, &scores, &windows(&labels))
        })
        .collect()
}

fn recalls(all: &[Scored]) -> String {
    let cells = BUDGETS.map(|b| {
        recall_at(all, b).map_or("none".to_owned(), |f| {
            format!(
                "{:.3} (delay {:.2})",
                f.recall,
                delay(all, f.threshold).expect("a hit")
            )
        })
    });
    cells.join(", ")
}

fn frozen_recalls(all: &[Scored]) -> String {
    let say = |f: Found| format!("{:.3} at {:.2}", f.recall, f.rate);
    BUDGETS
        .map(|b| frozen(all, b).map_or("none".to_owned(), say))
        .join(", ")
}

#[test]
fn the_profiles_agree() {
    let figures = nab(&case(runs)).map(|s| format!("{s:.2}"));
    assert_eq!(figures, ["50.53", "40.64", "58.69"]);
}

#[test]
fn recall_at_a_budget_agrees() {
    assert_eq!(
        recalls(&case(runs)),
        "0.500 (delay 0.66), 0.500 (delay 0.66), 0.500 (delay 0.66), 0.875 (delay 0.03)"
    );
    assert_eq!(
        recalls(&case(label_windows)),
        "0.571 (delay 0.58), 0.571 (delay 0.58), 0.571 (delay 0.58), 1.000 (delay 0.12)"
    );
}

#[test]
fn frozen_thresholds_agree() {
    let same = |cell: &str| [cell; 4].join(", ");
    assert_eq!(frozen_recalls(&case(runs)), same("0.333 at 0.15"));
    assert_eq!(frozen_recalls(&case(label_windows)), same("0.400 at 0.15"));
}

#[test]
fn a_silent_detector_scores_nothing_and_a_perfect_one_everything() {
    let times: Vec<i64> = (0..200).map(|i| i * SIX_HOURS_MS).collect();
    let silent = Scored::new(&times, &[0.0; 200], &[(100, 110)]);
    assert!(recall_at(&[silent], 0.5).is_none());
    let mut scores = [0.0; 200];
    scores[100] = 1.0;
    let perfect = Scored::new(&times, &scores, &[(100, 110)]);
    assert!(
        nab(std::slice::from_ref(&perfect))
            .iter()
            .all(|s| (s - 100.0).abs() < 0.5)
    );
    let found = recall_at(&[perfect], 0.25).unwrap();
    assert!((found.recall - 1.0).abs() < 1e-9 && found.rate < 1e-9);
}
