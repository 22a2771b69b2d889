//! Down and hung: the process is gone or refuses, or it lives and does not answer.
//!
//! What the supervisor saw counts at once. Probes count in a row and endpoint by endpoint, so that one stall that
//! two endpoints met in the same round is one failure, and any answer of the service, even a bad one, ends the row.
//! Failures further apart than five intervals are no row; nor are those of one round, however often it asked: a row
//! spans half an interval at least. Whoever restarts a service by hand is done sooner (SAFETY 2).

use std::collections::BTreeMap;

use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::limits::{CLOCK_JUMP_FLOOR_MS, ENDPOINTS_MAX, REASON_MAX, SERVICES_MAX};
use crate::sample::ProbeError;
use crate::slot::{Evaluation, Finding};
use crate::verdict::MeasureNow;

/// Anomalies of service `S` have the series `liveness/S`.
pub const SERIES_PREFIX: &str = "liveness/";
/// The name of a target that is one service without a name.
pub const UNNAMED: &str = "target";

/// Failures in a row of one endpoint.
#[derive(Clone, Copy, Debug)]
struct Row {
    kind: ProbeError,
    count: u32,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Service {
    down: Option<(Timestamp, String)>,
    last_up: Option<Timestamp>,
    rows: BTreeMap<String, Row>,
    probed: bool,
    answered: bool,
    answered_fresh: bool,
}

/// What is known of a service at a check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) service: String,
    pub(crate) down: Evaluation,
    pub(crate) hung: Evaluation,
}

/// The monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness {
    services: BTreeMap<String, Service>,
}

impl Liveness {
    fn service(&mut self, name: Option<&str>) -> Option<&mut Service> {
        let name = name.unwrap_or(UNNAMED);
        if self.services.len() >= SERVICES_MAX && !self.services.contains_key(name) {
            return None;
        }
        Some(self.services.entry(name.to_owned()).or_default())
    }

    /// The supervisor saw the process end. One that ended before the service was last up again is history.
    pub(crate) fn down(&mut self, name: &str, at: Timestamp, detail: &str) {
        let Some(service) = self.service(Some(name)) else {
            return;
        };
        if service.down.is_some() || service.last_up.is_some_and(|up| at < up) {
            return;
        }
        let detail = detail
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(REASON_MAX)
            .collect();
        service.down = Some((at, detail));
        service.answered = false;
        service.answered_fresh = false;
    }

    /// The service is running and ready.
    pub(crate) fn up(&mut self, name: &str, at: Timestamp) {
        let Some(service) = self.service(Some(name)) else {
            return;
        };
        if service.down.as_ref().is_some_and(|(down, _)| at < *down) {
            return;
        }
        service.down = None;
        service.last_up = Some(at);
        service.rows.clear();
    }

    pub(crate) fn probe(
        &mut self,
        name: Option<&str>,
        endpoint: &str,
        at: Timestamp,
        error: Option<ProbeError>,
        config: &DetectConfig,
    ) {
        let apart = config
            .interval_ms
            .saturating_mul(5)
            .max(CLOCK_JUMP_FLOOR_MS);
        let Some(service) = self.service(name) else {
            return;
        };
        if service.last_up.is_some_and(|up| at < up) {
            return;
        }
        service.probed = true;
        let kind = match error {
            None | Some(ProbeError::Status(_)) => {
                service.rows.clear();
                service.answered = true;
                service.answered_fresh = true;
                return;
            }
            Some(kind @ (ProbeError::Refused | ProbeError::Timeout)) => kind,
            // Something was there and something was wrong: neither an answer nor silence.
            Some(ProbeError::Reset | ProbeError::Other) => return,
        };
        service.answered = false;
        if service.rows.len() >= ENDPOINTS_MAX && !service.rows.contains_key(endpoint) {
            return;
        }
        let new = Row {
            kind,
            count: 0,
            first: at,
            last: at,
        };
        let row = service.rows.entry(endpoint.to_owned()).or_insert(new);
        if row.kind != kind || at.millis_since(row.last) > apart {
            *row = new;
        }
        row.count = row.count.saturating_add(1);
        row.last = at;
    }

    /// Forgets rows; what the supervisor said stands.
    pub(crate) fn reset(&mut self, name: Option<&str>) {
        for (key, service) in &mut self.services {
            if name.is_none_or(|n| n == key) {
                service.rows.clear();
                service.answered = false;
                service.answered_fresh = false;
            }
        }
    }

    pub(crate) fn evaluate(&mut self, config: &DetectConfig) -> Vec<Condition> {
        self.services
            .iter_mut()
            .map(|(name, service)| {
                let (down, hung) = judge(name, service, config);
                service.answered_fresh = false;
                Condition {
                    service: name.clone(),
                    down,
                    hung,
                }
            })
            .collect()
    }

    /// Known states: `false` while down or hung, `true` after an answer or, without probes, after the supervisor's
    /// word.
    pub(crate) fn up_by_service(&self, config: &DetectConfig) -> BTreeMap<String, bool> {
        self.services
            .iter()
            .filter_map(|(name, s)| {
                let failing = s.down.is_some() || s.worst(config).is_some();
                let up = s.answered || (!s.probed && s.last_up.is_some());
                (failing || up).then(|| (name.clone(), !failing))
            })
            .collect()
    }

    /// Failures in a row of one service: 0 when it answers.
    pub(crate) fn measure(&self, name: &str) -> Option<MeasureNow> {
        let service = self.services.get(name)?;
        let row = service.rows.values().map(|r| r.count).max().unwrap_or(0);
        let failures = row.max(u32::from(service.down.is_some()));
        let known =
            failures > 0 || service.answered || (!service.probed && service.last_up.is_some());
        known.then_some(MeasureNow {
            value: f64::from(failures),
            unit: "count",
            samples: 1,
            enough: true,
        })
    }
}

impl Service {
    /// The longest row that is long enough.
    fn worst(&self, config: &DetectConfig) -> Option<(&str, Row)> {
        self.rows
            .iter()
            .filter(|(_, r)| {
                let needed = needed(r.kind, config);
                let span = r.last.millis_since(r.first);
                r.count >= needed && (needed <= 1 || span >= config.interval_ms / 2)
            })
            .max_by_key(|(_, r)| (r.kind == ProbeError::Refused, r.count))
            .map(|(endpoint, row)| (endpoint.as_str(), *row))
    }
}

fn needed(kind: ProbeError, config: &DetectConfig) -> u32 {
    if kind == ProbeError::Refused {
        config.refused_in_a_row
    } else {
        config.timeouts_in_a_row
    }
}

fn judge(name: &str, service: &Service, config: &DetectConfig) -> (Evaluation, Evaluation) {
    let finding = |current: u32, threshold: u32, details: String, since, cause: &str| {
        Evaluation::bad(Finding {
            current: f64::from(current),
            threshold: f64::from(threshold),
            unit: "count",
            details,
            service: Some(name.to_owned()),
            source: format!("{SERIES_PREFIX}{name}"),
            since,
            context: json!({ "cause": cause }),
        })
    };
    if let Some((since, detail)) = &service.down {
        let details = format!("{name} is down: {detail}");
        return (
            finding(1, 1, details, *since, "process_ended"),
            Evaluation::OVER,
        );
    }
    if let Some((endpoint, row)) = service.worst(config) {
        let Row {
            kind, count, first, ..
        } = row;
        let limit = needed(kind, config);
        if kind == ProbeError::Refused {
            let details =
                format!("{name} is down: {count} probes in a row were refused ({endpoint})");
            return (
                finding(count, limit, details, first, "refused"),
                Evaluation::OVER,
            );
        }
        let details = format!(
            "{name} hangs: {count} probes in a row had no answer within {:.0} ms ({endpoint})",
            config.probe_deadline_ms
        );
        return (
            Evaluation::OVER,
            finding(count, limit, details, first, "no_answer"),
        );
    }
    let good = service.answered_fresh || (!service.probed && service.last_up.is_some());
    if good {
        (Evaluation::GOOD, Evaluation::GOOD)
    } else {
        (Evaluation::UNKNOWN, Evaluation::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Seen;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn config() -> DetectConfig {
        DetectConfig {
            interval_ms: 1000,
            ..DetectConfig::default()
        }
    }

    fn seen(monitor: &mut Liveness) -> (Seen, Seen) {
        let conditions = monitor.evaluate(&config());
        assert_eq!(conditions.len(), 1);
        (conditions[0].down.seen, conditions[0].hung.seen)
    }

    fn after(probes: &[(i64, &str, Option<ProbeError>)]) -> (Seen, Seen) {
        let mut monitor = Liveness::default();
        for (ms, endpoint, error) in probes {
            monitor.probe(Some("api"), endpoint, at(*ms), *error, &config());
        }
        seen(&mut monitor)
    }

    #[test]
    fn rows_of_probes() {
        use ProbeError::{Refused, Reset, Status, Timeout};
        let none = (Seen::Unknown, Seen::Unknown);
        let down = (Seen::Bad, Seen::Over);
        let hung = (Seen::Over, Seen::Bad);
        for (probes, expected) in [
            (vec![(0, "h", Some(Refused))], none),
            (
                vec![(0, "h", Some(Refused)), (1000, "h", Some(Refused))],
                down,
            ),
            (
                vec![(0, "h", Some(Timeout)), (1000, "h", Some(Timeout))],
                hung,
            ),
            // A probe that was repeated at once, and then a second round.
            (
                vec![(0, "h", Some(Refused)), (50, "h", Some(Refused))],
                none,
            ),
            (
                vec![
                    (0, "h", Some(Refused)),
                    (50, "h", Some(Refused)),
                    (1000, "h", Some(Refused)),
                ],
                down,
            ),
            // Two endpoints in one round are one failure each.
            (vec![(0, "h", Some(Timeout)), (0, "x", Some(Timeout))], none),
            // A mixed row, and one with an hour between.
            (
                vec![(0, "h", Some(Refused)), (1000, "h", Some(Timeout))],
                none,
            ),
            (
                vec![(0, "h", Some(Refused)), (3_600_000, "h", Some(Refused))],
                none,
            ),
            (
                vec![
                    (0, "h", Some(Refused)),
                    (500, "h", Some(Reset)),
                    (1000, "h", Some(Refused)),
                ],
                down,
            ),
            // Any answer ends it, from any endpoint.
            (
                vec![
                    (0, "h", Some(Timeout)),
                    (500, "x", Some(Status(500))),
                    (1000, "h", Some(Timeout)),
                ],
                (Seen::Good, Seen::Good),
            ),
        ] {
            assert_eq!(after(&probes), expected, "{probes:?}");
        }
    }

    #[test]
    fn the_supervisor_is_believed_at_once_and_in_order() {
        let mut monitor = Liveness::default();
        monitor.up("api", at(0));
        assert_eq!(seen(&mut monitor).0, Seen::Good);
        monitor.down("api", at(10), "killed by signal 9");
        assert_eq!(seen(&mut monitor).0, Seen::Bad);
        monitor.probe(Some("api"), "h", at(11), None, &config());
        assert_eq!(
            seen(&mut monitor).0,
            Seen::Bad,
            "an answer that was on its way is no resurrection"
        );
        monitor.up("api", at(20));
        monitor.down("api", at(15), "late news");
        assert_ne!(
            seen(&mut monitor).0,
            Seen::Bad,
            "what ended before it was up again is history"
        );
        monitor.probe(
            Some("api"),
            "h",
            at(18),
            Some(ProbeError::Refused),
            &config(),
        );
        monitor.probe(
            Some("api"),
            "h",
            at(30),
            Some(ProbeError::Refused),
            &config(),
        );
        assert_ne!(
            seen(&mut monitor).0,
            Seen::Bad,
            "a refusal before it was up does not count"
        );
        assert!((monitor.measure("api").unwrap().value - 1.0).abs() < 1e-9);
    }
}
