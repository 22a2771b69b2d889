//! From rarity to a score that may be compared between series, and that speaks up once.
//!
//! Three habits. A *restless* series, whose fourth greatest event is rarer than the fourth of so many points should
//! be, is believed less, in proportion. What *stands* already is not news: while an event decays, only what exceeds
//! it counts, and the rest is turned down. And what *grows* while something stands counts for more: evidence that
//! adds up point after point is worth more than one point's.

#![expect(
    clippy::cast_possible_truncation,
    reason = "rarities need no more than the 7 digits of an f32, places among eight events no more than a byte"
)]

use serde::{Deserialize, Serialize};

/// Greatest events remembered.
const EVENTS: usize = 8;
/// Points within which rarities are one event.
const EVENT_POINTS: u16 = 50;
/// Which of the greatest events (from 0) speaks for the series: a few true incidents make nobody restless.
const SPEAKER: usize = 3;
/// Decades by which the speaker may exceed what chance gives before the series counts as restless.
const REST: f64 = 1.0;
/// How much of the restlessness is taken off the score.
const RESTLESS_SHARE: f64 = 0.4;
/// Half life of what stands, in points of five minutes.
const STANDS_POINTS: f64 = 20.0;
/// It is in between a matter of points and of time: the half life in points goes down with the interval's power.
const STANDS_POWER: f64 = 0.2;
/// What must be exceeded by how many decades to be news.
const NEWS: f64 = 0.2;
/// How much of what stands is added to what exceeds it.
const GROWTH: f64 = 0.5;
/// The score of what is no news, and how much of its rarity is left.
const OLD_NEWS: f64 = -2.0;
const OLD_NEWS_SHARE: f64 = 0.1;

/// What a series has had of rarities.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Damping {
    stands: f64,
    events: [f32; EVENTS],
    since_event: u16,
    /// The event that is going on, counted from 1; 0 before the first.
    event: u8,
}

impl Damping {
    /// Decades to take off this series' rarities for being restless. `chance` is the rarity that once in all its
    /// points is by chance.
    pub(super) fn restlessness(&self, chance: f64) -> f64 {
        let mut sorted = self.events;
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        RESTLESS_SHARE * (f64::from(sorted[SPEAKER]) - chance - REST).max(0.0)
    }

    /// The score of a rarity (decades, per five minutes of the series' time), which is then remembered.
    /// `interval` is the usual time between points, in units of five minutes.
    pub(super) fn push(&mut self, rarity: f64, chance: f64, interval: f64) -> f64 {
        let heard = if rarity > self.stands + NEWS {
            GROWTH.mul_add(self.stands, rarity)
        } else {
            OLD_NEWS_SHARE.mul_add(rarity, OLD_NEWS)
        };
        let score = heard - self.restlessness(chance);
        let half_lives = (interval.powf(STANDS_POWER) / STANDS_POINTS).min(10.0);
        self.stands = (self.stands * (-half_lives).exp2()).max(rarity);
        self.remember(rarity as f32);
        score
    }

    fn remember(&mut self, rarity: f32) {
        self.since_event = self.since_event.saturating_add(1);
        if self.since_event <= EVENT_POINTS && self.event > 0 {
            let event = &mut self.events[usize::from(self.event) - 1];
            if rarity > *event {
                *event = rarity;
                self.since_event = 0;
            }
            return;
        }
        let least = (0..EVENTS).fold(0, |least, i| {
            if self.events[i] < self.events[least] {
                i
            } else {
                least
            }
        });
        if rarity > self.events[least] {
            self.events[least] = rarity;
            self.event = least as u8 + 1;
            self.since_event = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_again_is_no_news_for_a_while() {
        let mut damping = Damping::default();
        for _ in 0..10 {
            damping.push(0.0, 3.0, 1.0);
        }
        assert!(damping.push(6.0, 3.0, 1.0) > 5.0);
        assert!(damping.push(6.0, 3.0, 1.0) < 0.0);
        for _ in 0..200 {
            damping.push(0.0, 3.0, 1.0);
        }
        assert!(damping.push(6.0, 3.0, 1.0) > 5.0);
    }

    #[test]
    fn what_grows_counts_for_more() {
        let mut damping = Damping::default();
        let first = damping.push(4.0, 3.0, 1.0);
        assert!(damping.push(5.0, 3.0, 1.0) > first + 2.0);
    }

    #[test]
    fn a_restless_series_is_believed_less() {
        let mut damping = Damping::default();
        let mut scores = Vec::new();
        for i in 0..2000 {
            let rarity = if i % 200 == 0 { 8.0 } else { 0.0 };
            let score = damping.push(rarity, 3.0, 1.0);
            if rarity > 0.0 {
                scores.push(score);
            }
        }
        assert!(scores[9] < scores[0] - 1.0, "{scores:?}");
        assert!(damping.restlessness(3.0) > 1.0);
    }
}
