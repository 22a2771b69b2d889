//! What has been spent of the limits: heals and interruptions, by when and on what.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::policy::limits::{DAY_MS, HOUR_MS};
use crate::policy::{Limits, Topology};
use crate::time::Timestamp;

/// Most heals that are remembered: as many as the largest daily limit.
pub const HEALS_MAX: usize = 10_000;
/// Most interruptions that are remembered for one service: as many as the largest hourly limit.
pub const INTERRUPTIONS_MAX: usize = 1_000;

/// One run of a playbook that was allowed to act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heal {
    /// When it began.
    pub at: Timestamp,
    /// The service that the anomaly named; none: the one that answers for the target.
    pub service: Option<String>,
}

/// What has been spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Heals of the last day, oldest first.
    pub heals: VecDeque<Heal>,
    /// Interruptions of the last day, by service, oldest first.
    pub interruptions: BTreeMap<String, VecDeque<Timestamp>>,
}

/// A limit and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The limit's key in `[limits]`.
    pub limit: &'static str,
    /// The service, for limits of services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How much is allowed.
    pub of: u32,
    /// How much of it is left.
    pub left: u32,
}

/// Whether `then` lies less than `span_ms` before `now`. A clock that was set back makes nothing older.
fn within(now: Timestamp, then: Timestamp, span_ms: i64) -> bool {
    now.millis_since(then) < span_ms
}

fn count<'a>(now: Timestamp, times: impl Iterator<Item = &'a Timestamp>, span_ms: i64) -> u32 {
    u32::try_from(times.filter(|at| within(now, **at, span_ms)).count()).unwrap_or(u32::MAX)
}

impl Spent {
    /// A run begins.
    pub(crate) fn heal(&mut self, at: Timestamp, service: Option<&str>) {
        self.heals.push_back(Heal {
            at,
            service: service.map(str::to_owned),
        });
        while self.heals.len() > HEALS_MAX
            || self
                .heals
                .front()
                .is_some_and(|h| !within(at, h.at, DAY_MS))
        {
            self.heals.pop_front();
        }
    }

    /// A service is about to be interrupted.
    pub(crate) fn interrupt(&mut self, at: Timestamp, service: &str) {
        let times = self.interruptions.entry(service.to_owned()).or_default();
        times.push_back(at);
        while times.len() > INTERRUPTIONS_MAX
            || times.front().is_some_and(|t| !within(at, *t, DAY_MS))
        {
            times.pop_front();
        }
    }

    /// Each limit of heals and what is left of it: in all, and for `service`.
    pub fn heals_left(
        &self,
        now: Timestamp,
        limits: &Limits,
        topology: &Topology,
        service: Option<&str>,
    ) -> Vec<Left> {
        let all = |span| count(now, self.heals.iter().map(|h| &h.at), span);
        let row = |limit, service: Option<&str>, of: u32, used: u32| Left {
            limit,
            service: service.map(str::to_owned),
            of,
            left: of.saturating_sub(used),
        };
        let mut rows = vec![
            row("heals_per_hour", None, limits.heals_per_hour, all(HOUR_MS)),
            row("heals_per_day", None, limits.heals_per_day, all(DAY_MS)),
        ];
        if let Some(name) = service {
            let of_it = |span| {
                let times = self
                    .heals
                    .iter()
                    .filter(|h| h.service.as_deref().or(topology.front.as_deref()) == Some(name));
                count(now, times.map(|h| &h.at), span)
            };
            rows.push(row(
                "heals_per_service_hour",
                service,
                limits.heals_per_service_hour,
                of_it(HOUR_MS),
            ));
            rows.push(row(
                "heals_per_service_day",
                service,
                limits.heals_per_service_day,
                of_it(DAY_MS),
            ));
        }
        rows
    }

    /// What is left of the interruptions of a service.
    pub fn interruptions_left(&self, now: Timestamp, limits: &Limits, service: &str) -> Left {
        let used = self
            .interruptions
            .get(service)
            .map_or(0, |times| count(now, times.iter(), HOUR_MS));
        Left {
            limit: "restarts_per_service_hour",
            service: Some(service.to_owned()),
            of: limits.restarts_per_service_hour,
            left: limits.restarts_per_service_hour.saturating_sub(used),
        }
    }

    /// The limit of heals that is used up, as a sentence.
    pub fn used_up(
        &self,
        now: Timestamp,
        limits: &Limits,
        topology: &Topology,
        service: Option<&str>,
    ) -> Option<String> {
        let spent = self
            .heals_left(now, limits, topology, service)
            .into_iter()
            .find(|row| row.left == 0)?;
        let of = spent
            .service
            .map(|s| format!(" for {s}"))
            .unwrap_or_default();
        Some(format!(
            "the limit {} = {}{of} is used up",
            spent.limit, spent.of
        ))
    }
}
