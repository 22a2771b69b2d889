//! What is usual of a series, by its type: a share of failures is counted, everything else has a level.

use serde::{Deserialize, Serialize};

use super::{Kind, Point};
use crate::counts::{Effect, ShareBaseline};
use crate::level::Level;

/// How many standard deviations of a share its band is wide, for a person to look at.
const BAND_SIGMAS: f64 = 3.0;

/// What was learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Model {
    Level(Box<Level>),
    Share(ShareBaseline),
}

/// What it says of one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usual {
    /// Probability of such a reading or a rarer one.
    pub(super) tail: f64,
    pub(super) expected: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Enough is known to judge.
    pub(super) learned: bool,
}

impl Model {
    /// Failures that were counted among a known number are a share; whatever else is a level.
    pub(super) fn new(point: &Point<'_>) -> Self {
        if point.kind == Kind::Errors && point.n.is_some() {
            Self::Share(ShareBaseline::default())
        } else {
            Self::Level(Box::default())
        }
    }

    /// From nothing again.
    pub(super) fn forget(&mut self) {
        *self = match self {
            Self::Level(_) => Self::Level(Box::default()),
            Self::Share(_) => Self::Share(ShareBaseline::default()),
        };
    }

    /// Judges a reading, and learns it afterwards where `learns`.
    pub(super) fn push(&mut self, point: &Point<'_>, learns: bool) -> Usual {
        match self {
            Self::Level(level) => {
                let at_ms = point.at.as_millis();
                let score = if learns {
                    level.push(at_ms, point.value)
                } else {
                    level.judge(at_ms, point.value)
                };
                Usual {
                    tail: score.tail,
                    expected: score.expected,
                    low: score.low,
                    high: score.high,
                    learned: level.learned(),
                }
            }
            Self::Share(baseline) => {
                let events = point.n.unwrap_or(0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of a count, so between 0 and the count"
                )]
                let failures = (point.value.clamp(0.0, 1.0) * events as f64).round() as u64;
                let test = baseline.test(failures, events, &Effect::default());
                let share = baseline.share();
                let sigma = (share * (1.0 - share) / events.max(1) as f64
                    * (1.0 + baseline.correlation() * events.saturating_sub(1) as f64))
                    .sqrt();
                if learns {
                    baseline.learn(failures, events);
                }
                Usual {
                    tail: test.filter(|t| t.matters).map_or(1.0, |t| t.tail),
                    expected: share,
                    low: 0.0,
                    high: (share + BAND_SIGMAS * sigma).min(1.0),
                    learned: test.is_some(),
                }
            }
        }
    }
}
