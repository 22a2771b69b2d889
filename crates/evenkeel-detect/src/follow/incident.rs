//! Series that left their bands together: one anomaly from the first evidence to the recovery of the last, with the
//! series that left first as its likeliest cause.

use std::collections::BTreeSet;
use std::fmt::Write;

use evenkeel_core::anomaly::{Anomaly, Severity, format_measure};
use evenkeel_core::time::Timestamp;
use serde_json::json;

use super::series::{Alarm, Followed};
use super::{FollowConfig, Kind, kind_of};
use crate::limits::{INCIDENT_MEMBERS_MAX, INCIDENTS_MAX};
use crate::verdict::Verdict;

#[derive(Clone, Debug)]
struct Incident {
    anomaly: Anomaly,
    /// Places of the series in it.
    members: BTreeSet<usize>,
    began: Timestamp,
    /// Another anomaly explains it: it was said so once and is not raised.
    explained: bool,
}

/// The incidents that stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Incidents {
    open: Vec<Incident>,
}

impl Incidents {
    /// Takes the series that have just left their bands, and says what is new and what is over.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        series: &[Followed],
        news: &[usize],
        by: Option<&str>,
        config: &FollowConfig,
    ) -> Vec<Verdict> {
        let mut verdicts = self.close(series);
        let mut news: Vec<usize> = news.to_vec();
        // Who left first is named first; of two at once the rarer.
        news.sort_by(|a, b| {
            order(&series[*a])
                .partial_cmp(&order(&series[*b]))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let mut fresh: Vec<usize> = Vec::new();
        for index in news {
            match self.joins(&series[index], now, config) {
                Some(at) => {
                    self.open[at].members.insert(index);
                }
                None => fresh.push(index),
            }
        }
        if let Some(first) = fresh.first().copied()
            && self.open.len() < INCIDENTS_MAX
        {
            let members: BTreeSet<usize> = fresh.iter().copied().collect();
            let anomaly = describe(&series[first], &members, series);
            if let Some(by) = by {
                verdicts.push(Verdict::Suppressed {
                    key: anomaly.key(),
                    kind: anomaly.kind.clone(),
                    by: by.to_owned(),
                });
            } else {
                verdicts.push(Verdict::Raised(anomaly.clone()));
            }
            self.open.push(Incident {
                anomaly,
                members,
                began: now,
                explained: by.is_some(),
            });
        }
        for incident in self.open.iter_mut().filter(|i| !i.explained) {
            refresh(incident, series);
            let key = incident.anomaly.key();
            if incident.began != now {
                verdicts.push(Verdict::Continues { key });
            }
        }
        verdicts
    }

    fn joins(&self, series: &Followed, now: Timestamp, config: &FollowConfig) -> Option<usize> {
        self.open.iter().position(|incident| {
            let soon = now.millis_since(incident.began) <= config.together_ms;
            let same_service = series.service.is_some()
                && series.service.as_deref() == incident.anomaly.service.as_deref();
            soon || same_service
        })
    }

    fn close(&mut self, series: &[Followed]) -> Vec<Verdict> {
        let mut over = Vec::new();
        self.open.retain_mut(|incident| {
            incident
                .members
                .retain(|m| series.get(*m).is_some_and(|s| s.alarm.is_some()));
            if incident.members.is_empty() {
                if !incident.explained {
                    over.push(Verdict::Cleared {
                        key: incident.anomaly.key(),
                        kind: incident.anomaly.kind.clone(),
                    });
                }
                return false;
            }
            true
        });
        over
    }

    pub(super) fn forget(&mut self, series: &mut [Followed]) -> Vec<String> {
        for s in series {
            s.forget_alarm();
        }
        self.open
            .drain(..)
            .filter(|i| !i.explained)
            .map(|i| i.anomaly.key())
            .collect()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Anomaly> {
        self.open
            .iter()
            .filter(|i| !i.explained)
            .map(|i| &i.anomaly)
    }
}

fn order(series: &Followed) -> (i64, f64) {
    series
        .alarm
        .map_or((i64::MAX, 1.0), |a| (a.since.as_millis(), a.tail))
}

/// Brings the figures of a standing incident up to date.
fn refresh(incident: &mut Incident, series: &[Followed]) {
    let first = incident
        .members
        .iter()
        .find(|m| Some(&*series[**m].name) == incident.anomaly.series.as_deref());
    if let Some(first) = first {
        let fresh = describe(&series[*first], &incident.members, series);
        incident.anomaly = Anomaly {
            since: incident.anomaly.since,
            kind: incident.anomaly.kind.clone(),
            ..fresh
        };
    }
}

fn describe(first: &Followed, members: &BTreeSet<usize>, series: &[Followed]) -> Anomaly {
    let alarm = first.alarm.unwrap_or(Alarm {
        since: first.heard,
        value: 0.0,
        expected: 0.0,
        low: 0.0,
        high: 0.0,
        tail: 1.0,
        a_month: f64::INFINITY,
        strong: false,
        flat: false,
        hits: 0,
        readings: 0,
    });
    let mut others: Vec<&Followed> = members
        .iter()
        .filter_map(|m| series.get(*m))
        .filter(|s| s.name != first.name)
        .collect();
    others.sort_by(|a, b| {
        order(a)
            .partial_cmp(&order(b))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let names: Vec<&str> = others
        .iter()
        .take(INCIDENT_MEMBERS_MAX)
        .map(|s| &*s.name)
        .collect();
    let threshold = if alarm.value >= alarm.expected {
        alarm.high
    } else {
        alarm.low
    };
    Anomaly {
        kind: kind_of(alarm.flat),
        severity: Severity::Low,
        current: alarm.value,
        threshold,
        details: in_words(first, &alarm, others.len()),
        unit: first.kind.unit().to_owned(),
        baseline: Some(alarm.expected),
        test: None,
        series: Some(first.name.to_string()),
        service: first.service.as_deref().map(str::to_owned),
        since: alarm.since,
        score: None,
        context: json!({
            "usual": [alarm.low, alarm.high],
            "tail": alarm.tail,
            "by_chance_a_month": alarm.a_month.is_finite().then_some(alarm.a_month),
            "strong": alarm.strong,
            "hits": alarm.hits,
            "readings": alarm.readings,
            "together_with": names,
            "plot": first.plot(),
        }),
    }
}

fn in_words(series: &Followed, alarm: &Alarm, others: usize) -> String {
    let value = |v: f64| level(v, series.kind);
    let mut text = if alarm.flat {
        format!(
            "{} stands still at {}; it always moved before",
            series.name,
            value(alarm.value)
        )
    } else {
        format!(
            "{} is {}; usual is {} to {}",
            series.name,
            value(alarm.value),
            level(alarm.low, series.kind),
            value(alarm.high)
        )
    };
    let _ = write!(
        text,
        "; {} of the last {} readings",
        alarm.hits, alarm.readings
    );
    // Of all series together: what a person is told of comes from any of them.
    let weeks = 30.0 / 7.0 / alarm.a_month;
    if weeks >= 1e6 {
        text.push_str("; practically never by chance");
    } else if weeks >= 1.5 {
        let _ = write!(text, "; by chance once in {} weeks", grouped(weeks));
    }
    match others {
        0 => {}
        1 => text.push_str("; one more series left its band with it"),
        n => {
            let _ = write!(text, "; {n} more series left their bands with it");
        }
    }
    text
}

/// A level with its unit, as people write it.
pub(crate) fn level(value: f64, kind: Kind) -> String {
    match kind {
        Kind::Errors | Kind::Latency => format_measure(value, kind.unit()),
        Kind::Memory => format!("{} MB", figure(value / 1_048_576.0)),
        Kind::Rate => format!("{}/s", figure(value)),
        Kind::Gauge => figure(value),
    }
}

/// Three significant digits, without an exponent where it reads well.
fn figure(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e7).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 100.0 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// A whole number with commas: `20,000`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}
