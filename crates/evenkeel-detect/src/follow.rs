//! Any number of series, each learned by itself, with one budget of alarms spread over them.
//!
//! A reading is judged against the usual band of its own series the moment it comes ([`crate::ensemble`]); a check turns what was
//! seen since the last one into verdicts. What is found here is `drift` or `flatline`: noted, never acted on. Series
//! that leave their bands together are one incident, the one that left first named first.
//!
//! Learning stops while it is frozen, and in a series that stands in an alarm (SAFETY 17). A new level that stays
//! without other trouble becomes usual after [`FollowConfig::adopt_after_ms`]; errors and memory never do, but by a
//! person's word. After a deploy a series is learned anew, these two excepted.
//!
//! What is not a number, not newer, late or from the future is dropped and counted before it is looked at
//! (SAFETY 11).

mod flat;
mod incident;
mod model;
mod series;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_core::anomaly::{Anomaly, AnomalyType};
use evenkeel_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::budget::{AlarmBudget, BudgetConfig};
use crate::leak::{Leak, LeakFinding};
use crate::limits::{
    EVENTS_MIN, FOLLOWED_LATE_MS, FOLLOWED_NAME_MAX, FUTURE_TOLERANCE_MS, LEAKS_MAX, MARKS_MAX,
    SERIES_FORGET_MS,
};
use crate::telemetry::DropReason;
use crate::verdict::Verdict;
use incident::Incidents;
pub(crate) use incident::level;
use series::{Followed, Judgement};
pub use state::{StateError, VERSION as STATE_VERSION};

/// How series are followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FollowConfig {
    /// Most series; further ones are refused and counted. One takes about 3 KiB.
    pub series_max: usize,
    /// Alarms of notes (drift, flat line) a month that chance alone may raise, over all series.
    pub notify_alarms_per_month: f64,
    /// The same for what is strong enough to act on.
    pub heal_alarms_per_month: f64,
    /// How long a new level must stay without other trouble until it is usual, in milliseconds.
    pub adopt_after_ms: i64,
    /// How long after a deploy nothing is judged, in milliseconds.
    pub deploy_window_ms: i64,
    /// Series that leave their bands within this time are one incident, in milliseconds.
    pub together_ms: i64,
}

impl Default for FollowConfig {
    fn default() -> Self {
        Self {
            series_max: 10_000,
            notify_alarms_per_month: 5.0,
            heal_alarms_per_month: 1.0,
            adopt_after_ms: 86_400_000,
            deploy_window_ms: 1_800_000,
            together_ms: 600_000,
        }
    }
}

impl FollowConfig {
    fn budget(&self) -> BudgetConfig {
        BudgetConfig {
            heal_alarms_per_month: self.heal_alarms_per_month,
            notify_alarms_per_month: self.notify_alarms_per_month,
        }
    }
}

/// What a series shows; decides which direction is trouble, and what may become usual by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something that goes up and down.
    Gauge,
    /// Events a second.
    Rate,
    /// A quantile of response times, in milliseconds.
    Latency,
    /// A share of failures, 0 to 1.
    Errors,
    /// Memory, in bytes.
    Memory,
}

impl Kind {
    /// Less of it is never trouble.
    pub fn is_upward(self) -> bool {
        matches!(self, Self::Latency | Self::Errors | Self::Memory)
    }

    /// A higher level never becomes usual by itself (SAFETY 17).
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::Errors | Self::Memory)
    }

    /// Its unit, as [`Anomaly::unit`] has it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Gauge => "",
            Self::Rate => "per_s",
            Self::Latency => "ms",
            Self::Errors => "ratio",
            Self::Memory => "B",
        }
    }
}

/// What was said of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Said {
    Deploy,
    Relearn,
}

/// One value of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point<'a> {
    /// The series, by its whole name.
    pub series: &'a str,
    /// The service that it belongs to, where one is known.
    pub service: Option<&'a str>,
    /// What it shows.
    pub kind: Kind,
    /// When it was measured.
    pub at: Timestamp,
    /// The value.
    pub value: f64,
    /// Events that a share or a quantile rests on; nothing where that is not known.
    pub n: Option<u64>,
    /// It is learned and never raises anything: somebody else judges it.
    pub silent: bool,
}

/// One point of a plot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plotted {
    /// What was measured.
    pub value: f32,
    /// Lower end of what was usual then.
    pub low: f32,
    /// Upper end of what was usual then.
    pub high: f32,
}

/// How one series stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Its name.
    pub series: String,
    /// The service that it belongs to.
    pub service: Option<String>,
    /// What it shows.
    pub kind: Kind,
    /// The newest value.
    pub value: f64,
    /// The middle of what is usual now.
    pub expected: f64,
    /// Lower end of what is usual now.
    pub low: f64,
    /// Upper end of what is usual now.
    pub high: f64,
    /// Probability of such a value or a rarer one, by what was learned.
    pub tail: f64,
    /// It is learned well enough to be judged.
    pub learned: bool,
    /// It stands in an alarm.
    pub alarmed: bool,
}

/// All that is followed.
#[derive(Clone, Debug)]
pub struct Follow {
    config: FollowConfig,
    by_name: BTreeMap<Arc<str>, usize>,
    series: Vec<Followed>,
    /// Places of series that are gone.
    free: Vec<usize>,
    services: BTreeSet<Arc<str>>,
    incidents: Incidents,
    budget: AlarmBudget,
    frozen: bool,
    /// Some series stands in an alarm: what leaves its band meanwhile tells nothing of chance.
    alarmed: bool,
    /// Per service, the whole target under the empty name: until when nothing is judged after a deploy.
    settling: BTreeMap<String, Timestamp>,
    /// Deploys and words of a person that were taken in already: kind and name, and when they were said.
    taken: BTreeMap<(Said, String), Timestamp>,
    /// The long view of each series of memory.
    leaks: BTreeMap<String, Leak>,
    last_check: Option<Timestamp>,
    dropped: BTreeMap<DropReason, u64>,
}

impl Follow {
    /// Nothing is followed yet.
    pub fn new(config: FollowConfig) -> Self {
        let budget = AlarmBudget::new(config.budget());
        Self {
            config,
            by_name: BTreeMap::new(),
            series: Vec::new(),
            free: Vec::new(),
            services: BTreeSet::new(),
            incidents: Incidents::default(),
            budget,
            frozen: false,
            alarmed: false,
            settling: BTreeMap::new(),
            taken: BTreeMap::new(),
            leaks: BTreeMap::new(),
            last_check: None,
            dropped: BTreeMap::new(),
        }
    }

    /// Takes a reading; `now` is the time of the check that it belongs to.
    pub fn observe(&mut self, point: &Point<'_>, now: Timestamp) {
        if let Err(reason) = self.take(point, now) {
            let count = self.dropped.entry(reason).or_insert(0);
            *count = count.saturating_add(1);
        }
    }

    /// Takes a reading of a process's memory, in MB, for the long view: `process` tells one process from the next. With
    /// `learns` false nothing becomes usual.
    pub fn memory(&mut self, series: &str, process: u64, at: Timestamp, mb: f64, learns: bool) {
        if !self.leaks.contains_key(series) {
            if self.leaks.len() >= LEAKS_MAX {
                return;
            }
            let leak = Leak::new(at.as_millis(), process);
            self.leaks.insert(series.to_owned(), leak);
        }
        if let Some(leak) = self.leaks.get_mut(series) {
            leak.push(at.as_millis(), process, mb, None, learns && !self.frozen);
        }
    }

    /// The series whose memory is looked at for long, and the leak that is found in each, if one is.
    pub fn leaks(&self) -> impl Iterator<Item = (&str, Option<LeakFinding>)> {
        self.leaks
            .iter()
            .map(|(series, leak)| (series.as_str(), leak.finding()))
    }

    fn take(&mut self, point: &Point<'_>, now: Timestamp) -> Result<(), DropReason> {
        if !point.value.is_finite() {
            return Err(DropReason::NotFinite);
        }
        if point.n.is_some_and(|n| n < EVENTS_MIN) {
            // Too few events say nothing, and the series is not missing for that.
            if let Some(index) = self.by_name.get(point.series) {
                self.series[*index].heard = now;
            }
            return Ok(());
        }
        let age = now.millis_since(point.at);
        if age < -FUTURE_TOLERANCE_MS {
            return Err(DropReason::Future);
        }
        if age > FOLLOWED_LATE_MS {
            return Err(DropReason::Late);
        }
        if point.series.is_empty() || point.series.len() > FOLLOWED_NAME_MAX {
            return Err(DropReason::Absurd);
        }
        let index = self.index_of(point, now)?;
        let settling = self.is_settling(index, now);
        // SAFETY 17: what stands in an alarm does not learn from it.
        let frozen = self.frozen || self.series[index].alarm.is_some();
        let series = &mut self.series[index];
        if series.last.is_some_and(|last| point.at <= last) {
            return Err(DropReason::NotNewer);
        }
        series.push(
            point,
            now,
            frozen,
            settling,
            !self.alarmed,
            &mut self.budget,
        );
        self.alarmed |= series.pending.is_some();
        Ok(())
    }

    fn index_of(&mut self, point: &Point<'_>, now: Timestamp) -> Result<usize, DropReason> {
        if let Some(index) = self.by_name.get(point.series) {
            return Ok(*index);
        }
        let name: Arc<str> = Arc::from(point.series);
        let service = point.service.map(|s| self.intern(s));
        let fresh = Followed::new(Arc::clone(&name), service, point, now);
        // The place of one that is gone is taken again, so that places stay few.
        let index = if let Some(free) = self.free.pop() {
            self.series[free] = fresh;
            free
        } else if self.series.len() >= self.config.series_max {
            return Err(DropReason::TooManySeries);
        } else {
            self.series.push(fresh);
            self.series.len() - 1
        };
        self.by_name.insert(name, index);
        Ok(index)
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.services.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        self.services.insert(Arc::clone(&new));
        new
    }

    fn is_settling(&self, index: usize, now: Timestamp) -> bool {
        let until = |name: &str| self.settling.get(name).is_some_and(|until| now < *until);
        let service = self.series[index].service.as_deref();
        until("") || service.is_some_and(until)
    }

    /// The regular check. `by` is the key of an anomaly that explains whatever is seen; `trouble` that something with a
    /// fixed limit is wrong, so that no new level is taken for usual.
    pub fn check(&mut self, now: Timestamp, by: Option<&str>, trouble: bool) -> Vec<Verdict> {
        self.look_at_the_clock(now);
        self.forget_the_silent(now);
        self.settling.retain(|_, until| now < *until);
        let judged = |s: &&Followed| !s.gone && !s.silent;
        self.budget
            .count_living(self.series.iter().filter(judged).count());
        let mut news: Vec<usize> = Vec::new();
        for (index, series) in self.series.iter_mut().enumerate() {
            if series.gone {
                continue;
            }
            if series.judge(now, &self.config, trouble || self.frozen) == Judgement::Began {
                news.push(index);
            }
        }
        let verdicts = self
            .incidents
            .step(now, &self.series, &news, by, &self.config);
        self.alarmed = self.series.iter().any(|s| s.alarm.is_some());
        self.last_check = Some(now);
        verdicts
    }

    fn look_at_the_clock(&mut self, now: Timestamp) {
        if self.last_check.is_some_and(|last| now < last) {
            // The clock was set back: newer readings have smaller times from now on, and what was settling is settled.
            for series in &mut self.series {
                series.last = None;
                series.heard = now;
            }
            self.settling.clear();
        }
    }

    fn forget_the_silent(&mut self, now: Timestamp) {
        for (index, series) in self.series.iter_mut().enumerate() {
            let silent = now.millis_since(series.heard);
            let after = series.stale_after_ms().saturating_mul(20);
            if !series.gone && silent > after.max(SERIES_FORGET_MS) {
                series.forget_alarm();
                series.gone = true;
                self.by_name.remove(&series.name);
                self.free.push(index);
            }
        }
    }

    /// Learning stops: in incidents, fixes and maintenance.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// A new version is there since `at`, of one service or of everything: its series are learned anew, errors and
    /// memory excepted, and nothing of it is judged for a while. The same deploy counts once. Whether it was new.
    pub fn deployed(&mut self, service: Option<&str>, at: Timestamp) -> bool {
        if !self.is_news(Said::Deploy, service, at) {
            return false;
        }
        let until = at.plus_millis(self.config.deploy_window_ms);
        self.settling
            .insert(service.unwrap_or("").to_owned(), until);
        for series in &mut self.series {
            let concerned = service.is_none() || series.service.as_deref() == service;
            if concerned && !series.kind.needs_a_person() {
                series.relearn();
            }
        }
        true
    }

    /// A person said at `at` that what a series shows is healthy; of every series when none is named. The same word
    /// counts once. How many series are learned anew.
    pub fn relearn(&mut self, name: Option<&str>, at: Timestamp) -> usize {
        if !self.is_news(Said::Relearn, name, at) {
            return 0;
        }
        let mut count = 0;
        for series in &mut self.series {
            if !series.gone && name.is_none_or(|name| *series.name == *name) {
                series.relearn();
                count += 1;
            }
        }
        count
    }

    fn is_news(&mut self, said: Said, name: Option<&str>, at: Timestamp) -> bool {
        let key = (said, name.unwrap_or("").to_owned());
        if self.taken.get(&key).is_some_and(|known| at <= *known) {
            return false;
        }
        if self.taken.len() >= MARKS_MAX && !self.taken.contains_key(&key) {
            let oldest = self.taken.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.taken.remove(&oldest);
            }
        }
        self.taken.insert(key, at);
        true
    }

    /// Begins the windows of standing alarms anew; returns the keys of those that are forgotten.
    pub fn reset(&mut self) -> Vec<String> {
        self.incidents.forget(&mut self.series)
    }

    /// The anomalies that stand.
    pub fn active(&self) -> impl Iterator<Item = &Anomaly> {
        self.incidents.active()
    }

    /// How many series are followed.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Nothing is followed.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// One series as it stands.
    pub fn standing(&self, name: &str) -> Option<Standing> {
        let index = self.by_name.get(name)?;
        Some(self.series[*index].standing())
    }

    /// Every series as it stands, by name.
    pub fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        self.by_name
            .values()
            .map(|index| self.series[*index].standing())
    }

    /// The newest points of one series with the band of their time, oldest first.
    pub fn plot(&self, name: &str) -> Vec<Plotted> {
        self.by_name
            .get(name)
            .map_or_else(Vec::new, |index| self.series[*index].plot())
    }

    /// The budget, for the report.
    pub fn budget(&self) -> &AlarmBudget {
        &self.budget
    }

    /// Readings dropped so far, by reason.
    pub fn dropped(&self) -> &BTreeMap<DropReason, u64> {
        &self.dropped
    }

    /// The habits in force.
    pub fn config(&self) -> &FollowConfig {
        &self.config
    }
}

/// The type of an anomaly found in a series.
pub(crate) fn kind_of(flat: bool) -> AnomalyType {
    AnomalyType::known(if flat {
        AnomalyType::FLATLINE
    } else {
        AnomalyType::DRIFT
    })
}
