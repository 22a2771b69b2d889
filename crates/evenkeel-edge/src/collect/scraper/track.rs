//! One target's pages, one after the other: what is on a page becomes readings, compared with what was there before.
//!
//! Knows no clock and no network: pages and moments are handed in.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::Timestamp;
use regex::Regex;

use super::histogram::{Histogram, QUANTILES, QuantileNames, quantiles};
use super::memory::{Family, Memory, Point, Slot, What};
use crate::collect::buckets::{self, Bucket};
use crate::collect::exposition::{
    DuplicateLabel, Entry, Exposition, FamilyKind, Faults, Format, Role, Sample,
};
use crate::collect::reading::{Reading, ReadingKind};

/// How far the time that a page gives to a sample may be from now, in milliseconds; further, and the sample is stale.
pub const STAMP_AGE_MAX_MS: i64 = 300_000;

/// When a page was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By the wall clock.
    pub(super) at: Timestamp,
    /// By a clock that is never set, in milliseconds from some beginning on.
    pub(super) steady_ms: i64,
}

/// Which series are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) include: Option<Regex>,
    pub(super) exclude: Option<Regex>,
    pub(super) series_max: usize,
    pub(super) service: Option<Arc<str>>,
}

impl Rules {
    fn wants(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|r| r.is_match(name))
            && !self.exclude.as_ref().is_some_and(|r| r.is_match(name))
    }
}

/// What one page gave.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) readings: Vec<Reading>,
    pub(super) faults: Faults,
    pub(super) is_whole: bool,
    /// Wanted series on the page that had no place any more.
    pub(super) dropped: u64,
    /// Samples that make no sense: a counter below zero, a bucket without its bound, a label twice, a time long past.
    pub(super) odd: u64,
    /// Series that stood on the page twice; the first one counts.
    pub(super) twice: u64,
    /// Series that have become stale with this page.
    pub(super) gone: Vec<Arc<str>>,
    /// Series of information, such as a version, that were not there before.
    pub(super) told: Vec<Arc<str>>,
}

/// One target as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// What the names of its series begin with.
    prefix: String,
    memory: Memory,
    scrape: u32,
    /// When the last page was read.
    last: Option<Moment>,
}

impl Track {
    /// A target whose series begin with its name, since another one may have series of the same names.
    pub(super) fn of(target: &str) -> Self {
        Self {
            prefix: format!("{target}/"),
            ..Self::default()
        }
    }

    /// How many series are remembered.
    pub(super) fn series_len(&self) -> usize {
        self.memory.slots.len()
    }

    /// A scrape that failed.
    pub(super) fn fail(&mut self, moment: Moment) {
        self.scrape += 1;
        for histogram in &mut self.memory.histograms {
            histogram.missed = histogram.missed.saturating_add(1);
        }
        self.memory.miss(self.scrape);
        self.memory.sweep(seconds(moment.steady_ms));
    }

    /// A page that was read at `moment`.
    pub(super) fn absorb(
        &mut self,
        page: &[u8],
        format: Format,
        moment: Moment,
        rules: &Rules,
    ) -> Found {
        self.scrape += 1;
        let mut found = Found::default();
        let mut lines = Exposition::new(page, format);
        // Samples of one name stand together: each name is judged once.
        let mut judged = ("", true);
        for entry in lines.by_ref() {
            let Entry::Sample(sample) = entry else {
                continue;
            };
            if sample.kind == FamilyKind::Foreign {
                continue;
            }
            let hash = self.memory.hash(sample.text);
            let place = if let Some(place) = self.memory.find(hash) {
                place
            } else {
                if judged.0 != sample.name.raw {
                    judged = (sample.name.raw, rules.wants(&sample.name.unescape()));
                }
                if !judged.1 {
                    continue;
                }
                match self.meet(&sample, hash, rules, &mut found) {
                    Some(place) => place,
                    None => continue,
                }
            };
            self.take(place, &sample, moment, &mut found);
        }
        found.faults = *lines.faults();
        found.is_whole = lines.is_whole();
        self.tell(moment, rules, &mut found);
        self.roll(&mut found);
        self.memory.sweep(seconds(moment.steady_ms));
        self.last = Some(moment);
        found
    }

    /// Notes the value of a sample.
    fn take(&mut self, place: u32, sample: &Sample<'_>, moment: Moment, found: &mut Found) {
        let slot = &mut self.memory.slots[place as usize];
        if slot.seen == self.scrape {
            found.twice += 1;
            return;
        }
        let value = sample.value;
        let is_odd = match slot.what {
            What::Counter | What::Start => !(value.is_finite() && value >= 0.0),
            What::Bucket { histogram, .. } => {
                let is_gauge = self.memory.histograms[histogram as usize].is_gauge;
                !(value.is_finite() && (is_gauge || value >= 0.0))
            }
            What::Gauge | What::Info => false,
        };
        let is_stale = sample
            .at_ms
            .is_some_and(|at| at.abs_diff(moment.at.as_millis()) > STAMP_AGE_MAX_MS.unsigned_abs());
        if is_odd || is_stale {
            found.odd += 1;
            return;
        }
        slot.seen = self.scrape;
        slot.seen_s = seconds(moment.steady_ms);
        slot.missed = 0;
        slot.now = Point {
            value,
            ms: sample.at_ms.unwrap_or(moment.steady_ms),
            is_stamped: sample.at_ms.is_some(),
        };
        if let What::Bucket { histogram, bucket } = slot.what {
            self.memory.histograms[histogram as usize].set(bucket, value);
        }
    }

    /// A text that was not seen before: another way to write a known series, or a new one.
    fn meet(
        &mut self,
        sample: &Sample<'_>,
        hash: u64,
        rules: &Rules,
        found: &mut Found,
    ) -> Option<u32> {
        let name = sample.name.unescape();
        let Ok(text) = sample.labels.canonical(&name, &[]) else {
            found.odd += 1;
            return None;
        };
        let canonical = self.memory.hash(&text);
        if let Some(place) = self.memory.find(canonical) {
            self.memory.alias(hash, place);
            return Some(place);
        }
        if self.memory.slots.len() >= rules.series_max {
            found.dropped += 1;
            return None;
        }
        let Ok(Some((what, group))) = self.what(sample, &name) else {
            found.odd += 1;
            return None;
        };
        let series = (!matches!(what, What::Bucket { .. } | What::Start))
            .then(|| Arc::from(format!("{}{text}", self.prefix)));
        if what == What::Info && self.last.is_some() {
            found.told.extend(series.clone());
        }
        let slot = Slot {
            series,
            what,
            group,
            now: Point::NONE,
            before: Point::NONE,
            seen: 0,
            seen_s: 0,
            missed: 0,
        };
        let place = self.memory.add(canonical, slot)?;
        if what == What::Start {
            self.memory.start_of.insert(group, place);
        }
        if hash != canonical {
            self.memory.alias(hash, place);
        }
        Some(place)
    }

    /// What a new series is, and the group that it began to count with.
    fn what(
        &mut self,
        sample: &Sample<'_>,
        name: &str,
    ) -> Result<Option<(What, u64)>, DuplicateLabel> {
        use FamilyKind as K;
        let (role, family) = role(sample, name);
        let group = |base: &str| sample.labels.canonical(base, &["le", "quantile"]);
        let base = family.strip_suffix("_total").unwrap_or(family);
        let what = match role {
            Role::Value | Role::Quantile | Role::State => What::Gauge,
            Role::Info => What::Info,
            Role::Sum | Role::Count if sample.kind == K::GaugeHistogram => What::Gauge,
            Role::Total | Role::Sum | Role::Count => What::Counter,
            Role::Created => What::Start,
            Role::Bucket => {
                let bound = sample.labels.get("le").and_then(|le| le.parse().ok());
                let Some(bound) = bound.filter(|b: &f64| !b.is_nan()) else {
                    return Ok(None);
                };
                let group = group(base)?;
                let is_gauge = sample.kind == K::GaugeHistogram;
                let histogram = self.histogram(sample, family, &group, is_gauge)?;
                let place = self.memory.histograms[histogram as usize].bucket(bound);
                return Ok(place.map(|bucket| {
                    let what = What::Bucket { histogram, bucket };
                    (what, self.memory.hash(&group))
                }));
            }
        };
        let group = match what {
            What::Counter | What::Start => self.memory.hash(&group(base)?),
            _ => 0,
        };
        Ok(Some((what, group)))
    }

    /// The place of the histogram that a bucket belongs to.
    fn histogram(
        &mut self,
        sample: &Sample<'_>,
        family: &str,
        group: &str,
        is_gauge: bool,
    ) -> Result<u32, DuplicateLabel> {
        let group = self.memory.hash(group);
        if let Some(place) = self.memory.histogram_of.get(&group) {
            return Ok(*place);
        }
        let prefix = self.prefix.clone();
        let of_labels = names(&prefix, |q| {
            let more = Some(("quantile", q));
            sample.labels.canonical_with(family, &["le"], more)
        })?;
        let of_family = self.memory.hash(family);
        let known = self.memory.family_of.get(&of_family).copied();
        let family = if let Some(place) = known {
            place
        } else {
            let none = crate::collect::exposition::Labels::NONE;
            let together = names(&prefix, |q| {
                none.canonical_with(family, &[], Some(("quantile", q)))
            })?;
            let place = length(&self.memory.families);
            self.memory.families.push(Family {
                names: together,
                sets: 0,
            });
            self.memory.family_of.insert(of_family, place);
            place
        };
        self.memory.families[family as usize].sets += 1;
        let place = length(&self.memory.histograms);
        let histogram = Histogram::new(of_labels, family, group, is_gauge);
        self.memory.histograms.push(histogram);
        self.memory.histogram_of.insert(group, place);
        Ok(place)
    }

    /// Whether a group says that it began to count after the scrape before.
    fn began_anew(&self, group: u64) -> bool {
        let Some(start) = self.memory.start_of.get(&group) else {
            return false;
        };
        let start = &self.memory.slots[*start as usize];
        start.seen == self.scrape && start.now.value > start.before.value
    }

    /// Whether a group that is new here says that it began to count since the page before.
    fn is_younger(&self, group: u64, than: Moment) -> bool {
        let start = self.memory.start_of.get(&group);
        start.is_some_and(|start| {
            let start = &self.memory.slots[*start as usize];
            start.seen == self.scrape && start.now.value * 1000.0 > than.at.as_millis() as f64
        })
    }

    fn tell(&self, moment: Moment, rules: &Rules, found: &mut Found) {
        let mut like = Reading {
            series: Arc::from(""),
            service: rules.service.clone(),
            at: moment.at,
            value: 0.0,
            kind: ReadingKind::Gauge,
        };
        for slot in &self.memory.slots {
            let Some(series) = slot.series.as_ref().filter(|_| slot.seen == self.scrape) else {
                continue;
            };
            let (value, kind) = match slot.what {
                What::Gauge => {
                    // The time of a sample that stands still says that its value does, too.
                    let is_old = slot.now.is_stamped
                        && slot.before.is_stamped
                        && slot.now.ms <= slot.before.ms;
                    ((!is_old).then_some(slot.now.value), ReadingKind::Gauge)
                }
                What::Counter => (self.rate(slot, moment), ReadingKind::Rate),
                _ => continue,
            };
            if let Some(value) = value.filter(|v| v.is_finite()) {
                like.at = if slot.now.is_stamped {
                    Timestamp::from_millis(slot.now.ms)
                } else {
                    moment.at
                };
                found.readings.push(Reading {
                    series: Arc::clone(series),
                    value,
                    kind,
                    ..like.clone()
                });
            }
        }
        like.at = moment.at;
        self.tell_histograms(&like, found);
    }

    /// Increase per second since the scrape before; nothing when there is nothing to compare with.
    fn rate(&self, slot: &Slot, moment: Moment) -> Option<f64> {
        let (now, before) = (slot.now, slot.before);
        let (increase, elapsed_ms) = if before.value.is_nan() {
            // New here. How long it has counted elsewhere is not known, unless it says that it has only begun.
            let last = self
                .last
                .filter(|last| self.is_younger(slot.group, *last))?;
            (now.value, moment.steady_ms - last.steady_ms)
        } else if now.is_stamped != before.is_stamped {
            return None;
        } else if now.value < before.value || self.began_anew(slot.group) {
            (now.value, now.ms - before.ms)
        } else {
            (now.value - before.value, now.ms - before.ms)
        };
        (elapsed_ms > 0).then(|| increase * 1000.0 / elapsed_ms as f64)
    }

    fn tell_histograms(&self, like: &Reading, found: &mut Found) {
        let mut merged: BTreeMap<u32, Vec<Bucket>> = BTreeMap::new();
        for histogram in self.memory.histograms.iter().filter(|h| h.is_seen()) {
            let Some(since) = histogram.since(self.began_anew(histogram.group)) else {
                continue;
            };
            found
                .readings
                .extend(quantiles(&histogram.names, &since, like));
            // One set of labels, all of them together: the same figures, once.
            if self.memory.families[histogram.family as usize].sets > 1 {
                merged.entry(histogram.family).or_default().extend(since);
            }
        }
        for (family, mut since) in merged {
            buckets::merge(&mut since);
            let names = &self.memory.families[family as usize].names;
            found.readings.extend(quantiles(names, &since, like));
        }
    }

    /// Makes ready for the next page.
    fn roll(&mut self, found: &mut Found) {
        for slot in &mut self.memory.slots {
            if slot.seen == self.scrape {
                slot.before = slot.now;
            }
        }
        for histogram in &mut self.memory.histograms {
            if histogram.is_seen() {
                histogram.roll();
                histogram.missed = 0;
            } else if found.is_whole {
                histogram.missed = histogram.missed.saturating_add(1);
            }
        }
        // What a page lacks that was cut off may have stood in the part that is missing.
        if found.is_whole {
            found.gone = self.memory.miss(self.scrape);
        }
    }
}

/// What a sample is, and the name of its family, also where no type was given: then the endings that everybody uses for
/// what counts up must do, or a counter would be taken for a level that never stops to rise.
fn role<'a>(sample: &Sample<'a>, name: &'a str) -> (Role, &'a str) {
    let family = sample.family;
    match sample.kind {
        FamilyKind::Unknown => {
            if let Some(base) = name.strip_suffix("_bucket")
                && sample.labels.get("le").is_some()
            {
                return (Role::Bucket, base);
            }
            let role = if ["_total", "_count", "_sum"]
                .iter()
                .any(|s| name.ends_with(s))
            {
                Role::Total
            } else if name.ends_with("_info") {
                Role::Info
            } else {
                Role::Value
            };
            (role, family)
        }
        // Prometheus text has no word for information: by custom it is a gauge of that name.
        FamilyKind::Gauge if name.ends_with("_info") => (Role::Info, family),
        _ => (sample.role, family),
    }
}

fn names(
    prefix: &str,
    name: impl Fn(&str) -> Result<String, DuplicateLabel>,
) -> Result<QuantileNames, DuplicateLabel> {
    let of = |at: usize| name(QUANTILES[at].1).map(|name| Arc::from(format!("{prefix}{name}")));
    Ok([of(0)?, of(1)?, of(2)?])
}

fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn seconds(ms: i64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or_default()
}
