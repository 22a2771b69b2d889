//! Which statuses are good.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::target::PlanError;
use crate::text::bounded;

/// A set of HTTP statuses: `200`, `"2xx"`, `"200-399"`, or a list of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl Default for StatusSet {
    fn default() -> Self {
        Self::range(200, 299)
    }
}

impl StatusSet {
    /// One status.
    pub fn one(status: u16) -> Self {
        Self(vec![(status, status)])
    }

    /// All from `first` to `last`, both included.
    pub fn range(first: u16, last: u16) -> Self {
        Self(vec![(first, last)])
    }

    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(a, b)| (*a..=*b).contains(&status))
    }

    /// Reads `200`, `2xx` or `200-299`.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let number = |t: &str| {
            t.trim()
                .parse::<u16>()
                .ok()
                .filter(|n| (100..=599).contains(n))
        };
        let lower = text.trim().to_ascii_lowercase();
        let found = if let Some(class) = lower.strip_suffix("xx") {
            class
                .parse::<u16>()
                .ok()
                .filter(|c| (1..=5).contains(c))
                .map(|c| (c * 100, c * 100 + 99))
        } else if let Some((a, b)) = lower.split_once('-') {
            number(a).zip(number(b)).filter(|(a, b)| a <= b)
        } else {
            number(&lower).map(|n| (n, n))
        };
        found
            .map(|range| Self(vec![range]))
            .ok_or_else(|| PlanError::BadRequest {
                what: "status",
                value: bounded(text, 40),
                reason: "is no status; write 200, \"2xx\" or \"200-299\"".to_owned(),
            })
    }
}

impl<'de> Deserialize<'de> for StatusSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Statuses;
        impl<'de> Visitor<'de> for Statuses {
            type Value = StatusSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 200, \"2xx\" or \"200-299\", or a list of them")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<StatusSet, E> {
                self.visit_str(&n.to_string())
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<StatusSet, E> {
                self.visit_str(&n.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusSet, E> {
                StatusSet::parse(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StatusSet, A::Error> {
                let mut all = Vec::new();
                while let Some(StatusSet(part)) = seq.next_element()? {
                    all.extend(part);
                    if all.len() > 64 {
                        return Err(de::Error::custom("more than 64 statuses are listed"));
                    }
                }
                if all.is_empty() {
                    return Err(de::Error::custom("an empty list accepts no status at all"));
                }
                Ok(StatusSet(all))
            }
        }
        deserializer.deserialize_any(Statuses)
    }
}
