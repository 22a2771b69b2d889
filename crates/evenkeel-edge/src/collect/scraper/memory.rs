//! What is remembered of one target between two scrapes: a small record for each series, its name once.
//!
//! A series is found again by a hash of its text as the page has it, so that a page which looks as the last one costs no
//! copying. The hash is keyed by chance: a target cannot choose texts that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::histogram::{Histogram, QuantileNames};

/// Scrapes in a row that lack a series after which what it was before no longer counts.
pub const MISSED_MAX: u8 = 3;
/// How long a series that is gone is remembered, in seconds.
pub const FORGET_AFTER_S: u32 = 3600;
/// Texts that are remembered of one series, on average: its labels may come in another order each time.
const TEXTS_PER_SERIES: usize = 3;

/// A hash is its own hash.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Hashed<V> = HashMap<u64, V, BuildHasherDefault<AsItIs>>;

/// What a series is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Its value is told as it is.
    Gauge,
    /// Its rate is told.
    Counter,
    /// It is a bucket of a histogram.
    Bucket { histogram: u32, bucket: u16 },
    /// It says when others began to count.
    Start,
    /// Its labels say something.
    Info,
}

/// One value and its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// NaN: there is none.
    pub(super) value: f64,
    /// By our own steady clock; by the wall clock where the page gave the time.
    pub(super) ms: i64,
    pub(super) is_stamped: bool,
}

impl Point {
    pub(super) const NONE: Self = Self {
        value: f64::NAN,
        ms: 0,
        is_stamped: false,
    };
}

/// What is remembered of one series.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its name; a bucket needs none.
    pub(super) series: Option<Arc<str>>,
    pub(super) what: What,
    /// Series with the same `_created` have the same.
    pub(super) group: u64,
    pub(super) now: Point,
    pub(super) before: Point,
    /// Number of the last scrape that had it.
    pub(super) seen: u32,
    /// When that was, in seconds of our own clock.
    pub(super) seen_s: u32,
    /// Scrapes in a row that did not have it.
    pub(super) missed: u8,
}

/// A family of histograms, which are told together as well.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) names: QuantileNames,
    /// How many sets of labels it has.
    pub(super) sets: u32,
}

/// The series of one target.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hasher: RandomState,
    by_text: Hashed<u32>,
    pub(super) slots: Vec<Slot>,
    pub(super) histograms: Vec<Histogram>,
    pub(super) histogram_of: Hashed<u32>,
    pub(super) families: Vec<Family>,
    pub(super) family_of: Hashed<u32>,
    /// Place of the series that says when a group began.
    pub(super) start_of: Hashed<u32>,
}

impl Memory {
    pub(super) fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    pub(super) fn find(&self, hash: u64) -> Option<u32> {
        self.by_text.get(&hash).copied()
    }

    /// Remembers one more text of a series.
    pub(super) fn alias(&mut self, hash: u64, place: u32) {
        if self.by_text.len() < TEXTS_PER_SERIES * self.slots.len().max(1) {
            self.by_text.insert(hash, place);
        }
    }

    /// Remembers a new series by the hash of its canonical text.
    pub(super) fn add(&mut self, hash: u64, slot: Slot) -> Option<u32> {
        let place = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(slot);
        self.by_text.insert(hash, place);
        Some(place)
    }

    /// Counts a scrape without it for each series that `seen` is not the number of; the names of those that have just
    /// become stale.
    pub(super) fn miss(&mut self, scrape: u32) -> Vec<Arc<str>> {
        let mut gone = Vec::new();
        for slot in &mut self.slots {
            if slot.seen == scrape {
                continue;
            }
            slot.missed = slot.missed.saturating_add(1);
            if slot.missed == MISSED_MAX {
                slot.before = Point::NONE;
                gone.extend(slot.series.clone());
            }
        }
        for histogram in &mut self.histograms {
            if histogram.missed >= MISSED_MAX {
                histogram.forget();
            }
        }
        gone
    }

    /// Forgets what was last seen too long before `now_s`.
    pub(super) fn sweep(&mut self, now_s: u32) {
        let is_old = |slot: &Slot| now_s.saturating_sub(slot.seen_s) >= FORGET_AFTER_S;
        if !self.slots.iter().any(is_old) {
            return;
        }
        let mut places = Vec::with_capacity(self.slots.len());
        let mut kept_len = 0;
        for slot in &self.slots {
            places.push((!is_old(slot)).then_some(kept_len));
            kept_len += u32::from(!is_old(slot));
        }
        self.slots.retain(|slot| !is_old(slot));
        self.slots.shrink_to_fit();
        renumber(&mut self.by_text, &places);
        renumber(&mut self.start_of, &places);
        self.sweep_histograms();
    }

    /// Forgets histograms without buckets, and families without histograms.
    fn sweep_histograms(&mut self) {
        let mut is_used = vec![false; self.histograms.len()];
        for slot in &self.slots {
            if let What::Bucket { histogram, .. } = slot.what {
                is_used[histogram as usize] = true;
            }
        }
        let places = keep(&mut self.histograms, &is_used);
        for slot in &mut self.slots {
            if let What::Bucket { histogram, .. } = &mut slot.what {
                *histogram = places[*histogram as usize].unwrap_or_default();
            }
        }
        renumber(&mut self.histogram_of, &places);
        for family in &mut self.families {
            family.sets = 0;
        }
        for histogram in &self.histograms {
            self.families[histogram.family as usize].sets += 1;
        }
        let is_used: Vec<bool> = self.families.iter().map(|f| f.sets > 0).collect();
        let places = keep(&mut self.families, &is_used);
        for histogram in &mut self.histograms {
            histogram.family = places[histogram.family as usize].unwrap_or_default();
        }
        renumber(&mut self.family_of, &places);
    }
}

/// Keeps the items that are used; where each one is now.
fn keep<T>(items: &mut Vec<T>, is_used: &[bool]) -> Vec<Option<u32>> {
    let mut places = Vec::with_capacity(items.len());
    let mut kept_len = 0;
    for used in is_used {
        places.push(used.then_some(kept_len));
        kept_len += u32::from(*used);
    }
    let mut used = is_used.iter();
    items.retain(|_| used.next().copied().unwrap_or_default());
    places
}

fn renumber(map: &mut Hashed<u32>, places: &[Option<u32>]) {
    map.retain(|_, place| match places.get(*place as usize) {
        Some(Some(now)) => {
            *place = *now;
            true
        }
        _ => false,
    });
    map.shrink_to_fit();
}
