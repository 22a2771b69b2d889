//! One histogram of one target: its buckets now and at the scrape before, and the quantiles of what came in between.

use std::sync::Arc;

use crate::collect::buckets::{self, Bucket};
use crate::collect::reading::{Reading, ReadingKind};

/// The quantiles that are told of each histogram, and how their label has them.
pub(super) const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];

/// The names of its quantiles, in the order of [`QUANTILES`].
pub(super) type QuantileNames = [Arc<str>; QUANTILES.len()];

/// The buckets of one set of labels.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) names: QuantileNames,
    /// Place of its family among the target's.
    pub(super) family: u32,
    /// What its `_created` goes by.
    pub(super) group: u64,
    /// Whether it tells what is there now, and does not count up.
    pub(super) is_gauge: bool,
    /// Scrapes in a row that did not have it.
    pub(super) missed: u8,
    bounds: Vec<f64>,
    /// Cumulative; NaN when this scrape did not have it (yet).
    now: Vec<f64>,
    before: Vec<f64>,
}

impl Histogram {
    pub(super) fn new(names: QuantileNames, family: u32, group: u64, is_gauge: bool) -> Self {
        Self {
            names,
            family,
            group,
            is_gauge,
            missed: 0,
            bounds: Vec::new(),
            now: Vec::new(),
            before: Vec::new(),
        }
    }

    /// The place of the bucket with that upper bound, which is made when it is new; nothing when there are too many.
    pub(super) fn bucket(&mut self, bound: f64) -> Option<u16> {
        let known = self.bounds.iter().position(|b| b.total_cmp(&bound).is_eq());
        let at = known.unwrap_or(self.bounds.len());
        let place = u16::try_from(at).ok()?;
        if known.is_none() {
            self.bounds.push(bound);
            self.now.push(f64::NAN);
            self.before.push(f64::NAN);
        }
        Some(place)
    }

    pub(super) fn set(&mut self, bucket: u16, value: f64) {
        if let Some(now) = self.now.get_mut(usize::from(bucket)) {
            *now = value;
        }
    }

    pub(super) fn is_seen(&self) -> bool {
        self.now.iter().any(|v| !v.is_nan())
    }

    /// What was observed since the scrape before, by bucket; nothing when that cannot be told. A bound that one of the
    /// two scrapes lacks is passed over: its observations stand in the next higher one.
    pub(super) fn since(&self, began_anew: bool) -> Option<Vec<Bucket>> {
        let pairs = || self.now.iter().zip(&self.before);
        let is_reset = began_anew || pairs().any(|(now, before)| now < before);
        let mut cumulative: Vec<Bucket> = self
            .bounds
            .iter()
            .zip(pairs())
            .filter_map(|(bound, (now, before))| {
                let more = if self.is_gauge {
                    *now
                } else if before.is_nan() {
                    f64::NAN
                } else if is_reset {
                    *now
                } else {
                    now - before
                };
                (!more.is_nan()).then_some((*bound, more))
            })
            .collect();
        cumulative.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        // Without its last bucket the whole is not known.
        if cumulative.last()?.0 != f64::INFINITY {
            return None;
        }
        let mut below: f64 = 0.0;
        for (_, n) in &mut cumulative {
            // Read while it was counted, a higher bucket can lag behind a lower one.
            let up_to = n.max(below);
            *n = up_to - below;
            below = up_to;
        }
        Some(cumulative)
    }

    /// What is now is before, for the next scrape.
    pub(super) fn roll(&mut self) {
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.fill(f64::NAN);
    }

    /// What was counted is too old to compare with.
    pub(super) fn forget(&mut self) {
        self.before.fill(f64::NAN);
    }
}

/// Readings of the quantiles of `buckets`, which are in order.
pub(super) fn quantiles<'a>(
    names: &'a QuantileNames,
    buckets: &'a [Bucket],
    like: &'a Reading,
) -> impl Iterator<Item = Reading> + 'a {
    let n = whole(buckets::count(buckets));
    names
        .iter()
        .zip(QUANTILES)
        .filter_map(move |(series, (q, _))| {
            let value = buckets::quantile(buckets, q).filter(|v| v.is_finite())?;
            Some(Reading {
                series: Arc::clone(series),
                value,
                kind: ReadingKind::Quantile { n },
                ..like.clone()
            })
        })
}

/// A count that a counter kept as a floating-point number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and a negative count is none"
)]
fn whole(count: f64) -> u64 {
    count.round().max(0.0) as u64
}
