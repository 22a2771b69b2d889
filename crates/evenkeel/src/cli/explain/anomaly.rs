//! `evenkeel explain ANOMALY`: what was found, on which evidence, with the series and its band as a small plot.

use evenkeel_core::anomaly::Anomaly;
use evenkeel_detect::follow::Plotted;
use evenkeel_ledger::{Entry, Query, Reader};
use serde_json::{Value, json};

use super::super::table::print;
use super::super::{Exit, Failure, Global};

/// Lines of a plot.
const HEIGHT: usize = 10;

/// The newest finding of a type or a key, if there is one.
pub(super) fn find(reader: &Reader, wanted: &str) -> Result<Option<(Entry, Anomaly)>, Failure> {
    let (kind, place) = wanted.split_once('/').unwrap_or((wanted, ""));
    if evenkeel_core::AnomalyType::new(kind).is_err() {
        return Ok(None);
    }
    let mut query = Query::new().action("anomaly_detected").newest_first();
    if !place.is_empty() {
        query = query.resource(place);
    }
    let mut found = None;
    let flow = reader.for_each(&query, |entry| {
        let payload = entry.payload_json().unwrap_or(Value::Null);
        match serde_json::from_value::<Anomaly>(payload["anomaly"].clone()) {
            Ok(anomaly) if anomaly.kind.as_str() == kind => {
                found = Some((entry, anomaly));
                std::ops::ControlFlow::Break(())
            }
            _ => std::ops::ControlFlow::Continue(()),
        }
    })?;
    debug_assert!(flow.is_continue() || found.is_some());
    Ok(found)
}

pub(super) fn show(
    global: &Global,
    reader: &Reader,
    entry: &Entry,
    anomaly: &Anomaly,
) -> Result<Exit, Failure> {
    let key = anomaly.key();
    let cleared = Query::new()
        .action(evenkeel_core::record::ANOMALY_CLEARED)
        .resource(key.as_str())
        .after(entry.sequence)
        .limit(1);
    let over = reader.query(&cleared)?.first().map(|e| e.timestamp.clone());
    let cycles: Vec<String> = reader
        .query(
            &Query::new()
                .action(super::START)
                .resource(entry.resource.as_str())
                .after(entry.sequence)
                .limit(5),
        )?
        .iter()
        .filter_map(|e| Some(e.payload_json().ok()?["workflow_id"].as_str()?.to_owned()))
        .collect();
    if global.json {
        let value = json!({
            "key": key, "sequence": entry.sequence, "timestamp": entry.timestamp, "anomaly": anomaly,
            "cleared_at": over, "cycles": cycles,
        });
        print(&value.to_string());
        return Ok(Exit::Healthy);
    }
    print(&format!("{key}, {}", anomaly.severity));
    print(&anomaly.details);
    print(&format!(
        "seen since {}, recorded at {} as entry #{}{}",
        anomaly.since,
        entry.timestamp,
        entry.sequence,
        over.map_or_else(String::new, |at| format!(", over at {at}"))
    ));
    if let Some(service) = &anomaly.service {
        print(&format!("service {service}"));
    }
    let points: Vec<Plotted> =
        serde_json::from_value(anomaly.context["plot"].clone()).unwrap_or_default();
    if points.len() >= 2 {
        print("");
        for line in plot(&points) {
            print(&line);
        }
        print(
            "o: measured, X: measured outside its band, :: what was usual then; the newest is on the right",
        );
    }
    let names: Vec<&str> = anomaly.context["together_with"]
        .as_array()
        .map(|a| a.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if !names.is_empty() {
        print("");
        print("left their bands with it, in this order:");
        for name in names {
            print(&format!("  {name}"));
        }
    }
    for cycle in &cycles {
        print(&format!("healed in {cycle}: evenkeel explain {cycle}"));
    }
    Ok(Exit::Healthy)
}

/// The points as lines of text, the scale on the left.
fn plot(points: &[Plotted]) -> Vec<String> {
    let values = points
        .iter()
        .flat_map(|p| [p.value, p.low, p.high])
        .filter(|v| v.is_finite());
    let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low > high {
        return Vec::new();
    }
    let span = if high > low { high - low } else { 1.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the height"
    )]
    let row = |v: f32| {
        let share = ((v - low) / span).clamp(0.0, 1.0);
        (HEIGHT - 1) - (share * (HEIGHT - 1) as f32).round() as usize
    };
    let mut grid = vec![vec![' '; points.len()]; HEIGHT];
    for (x, p) in points.iter().enumerate() {
        if p.low.is_finite() && p.high.is_finite() && p.high >= p.low {
            for line in &mut grid[row(p.high)..=row(p.low)] {
                line[x] = ':';
            }
        }
        if p.value.is_finite() {
            let outside = p.value < p.low || p.value > p.high;
            grid[row(p.value)][x] = if outside { 'X' } else { 'o' };
        }
    }
    let label = |v: f32| {
        format!("{v:.4}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    };
    let (top, bottom) = (label(high), label(low));
    let width = top.len().max(bottom.len());
    grid.into_iter()
        .enumerate()
        .map(|(y, cells)| {
            let scale = match y {
                0 => top.as_str(),
                _ if y == HEIGHT - 1 => bottom.as_str(),
                _ => "",
            };
            let cells: String = cells.into_iter().collect();
            format!("{scale:>width$} |{}", cells.trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_the_band_and_what_left_it() {
        let mut points: Vec<Plotted> = (0..8)
            .map(|i| Plotted {
                value: if i % 2 == 0 { 1.0 } else { 2.0 },
                low: 0.0,
                high: 3.0,
            })
            .collect();
        points.push(Plotted {
            value: 9.0,
            low: 0.0,
            high: 3.0,
        });
        let lines = plot(&points);
        assert_eq!(lines.len(), HEIGHT);
        assert_eq!(lines[0], "9 |        X");
        assert_eq!(lines[HEIGHT - 1], "0 |:::::::::");
        assert!(lines[HEIGHT - 2].contains("o:o:o:o::"), "{lines:?}");
        // What is no number draws nothing, and does not panic.
        assert!(
            plot(&[Plotted {
                value: f32::NAN,
                low: f32::NAN,
                high: f32::NAN
            }])
            .is_empty()
        );
    }
}
