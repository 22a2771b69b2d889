//! What load is made: which requests, how many, how many at once, and within which limits.

use std::time::Duration;

use crate::request::{Prepared, RequestSpec};
use crate::target::{BaseUrl, PlanError};

/// Most connections that one run opens.
pub const CONNECTIONS_MAX: u32 = 10_000;
/// Most requests that one run sends.
pub const REQUESTS_MAX: u64 = 100_000_000;
/// Most different requests in one plan.
pub const SPECS_MAX: usize = 1_000;

/// How requests are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Load {
    /// Each of `concurrency` connections sends its next request when the last one was answered.
    ///
    /// All connections are opened first, and their first requests then leave together.
    Closed {
        /// Requests in all, 1 to [`REQUESTS_MAX`].
        requests: u64,
        /// Connections, 1 to [`CONNECTIONS_MAX`]; more than `requests` are not opened.
        concurrency: u32,
    },
}

/// Bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one connection to be opened.
    pub connect: Duration,
    /// For one request, from its start to the last byte of its answer.
    pub request: Duration,
    /// Most bytes of a body that are kept for checks; the rest is read and thrown away.
    pub body_bytes: usize,
    /// The run ends early after this many time-outs in a row; nothing means never.
    ///
    /// A target that hangs otherwise holds a run for requests / concurrency × `request`.
    pub give_up_after_timeouts: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(10),
            body_bytes: 1024 * 1024,
            give_up_after_timeouts: None,
        }
    }
}

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub base: BaseUrl,
    /// Which requests, in turn by their weights.
    pub requests: Vec<RequestSpec>,
    /// How many and how fast.
    pub load: Load,
    /// Bounds.
    pub limits: Limits,
}

impl Plan {
    /// A closed loop with default limits.
    pub fn closed(base: BaseUrl, requests: Vec<RequestSpec>, total: u64, concurrency: u32) -> Self {
        Self {
            base,
            requests,
            load: Load::Closed {
                requests: total,
                concurrency,
            },
            limits: Limits::default(),
        }
    }

    /// Whether it could be run.
    pub fn check(&self) -> Result<(), PlanError> {
        self.prepare().map(|_| ())
    }

    pub(crate) fn prepare(&self) -> Result<Turns, PlanError> {
        let within = |what, value: u64, min, max| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(PlanError::OutOfRange {
                    what,
                    value,
                    min,
                    max,
                })
            }
        };
        let Load::Closed {
            requests,
            concurrency,
        } = self.load;
        within("requests", requests, 1, REQUESTS_MAX)?;
        within("concurrency", concurrency.into(), 1, CONNECTIONS_MAX.into())?;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        within(
            "request_timeout_ms",
            millis(self.limits.request),
            1,
            3_600_000,
        )?;
        within(
            "connect_timeout_ms",
            millis(self.limits.connect),
            1,
            3_600_000,
        )?;
        if self.requests.is_empty() {
            return Err(PlanError::NoRequests);
        }
        within(
            "number of endpoints",
            self.requests.len() as u64,
            1,
            SPECS_MAX as u64,
        )?;
        let prepared = self
            .requests
            .iter()
            .map(|r| r.prepare(&self.base))
            .collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<u32> = self.requests.iter().map(|r| r.weight).collect();
        Ok(Turns {
            order: turns(&weights),
            prepared,
        })
    }
}

/// Prepared requests and whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns {
    prepared: Vec<Prepared>,
    order: Vec<u16>,
}

impl Turns {
    /// The request for the `n`th turn.
    pub(crate) fn at(&self, n: u64) -> &Prepared {
        let place = n % self.order.len() as u64;
        let index = usize::try_from(place).map_or(0, |p| usize::from(self.order[p]));
        &self.prepared[index]
    }
}

/// Smooth weighted round robin (as nginx does it): heavy requests are spread, not sent in a row.
fn turns(weights: &[u32]) -> Vec<u16> {
    let shared = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|w| i64::from(w / shared)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for (i, w) in weights.iter().enumerate() {
                credit[i] += w;
                if credit[i] > credit[best] {
                    best = i;
                }
            }
            credit[best] -= total;
            u16::try_from(best).unwrap_or(0)
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(turns(&[20, 20]), [0, 1]);
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn plans_out_of_range_are_refused() {
        let base = BaseUrl::parse("http://h:1").unwrap();
        let get = vec![RequestSpec::get("/")];
        assert!(
            Plan::closed(base.clone(), get.clone(), 1, 1)
                .check()
                .is_ok()
        );
        assert!(
            Plan::closed(base.clone(), get.clone(), 0, 1)
                .check()
                .is_err()
        );
        assert!(Plan::closed(base.clone(), get, 1, 0).check().is_err());
        let none = Plan::closed(base, Vec::new(), 1, 1).check();
        assert_eq!(none.unwrap_err(), PlanError::NoRequests);
    }
}
