//! What load is made: which requests, how many, how fast, how many at once, and within which limits.

mod pace;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::data::Rows;
use crate::request::RequestSpec;
use crate::target::{BaseUrl, PlanError};

pub use pace::{Arrivals, Rate};
pub(crate) use pace::{DURATION_MAX, Schedule};
pub(crate) use turns::Turns;

/// Most connections that one run opens.
pub const CONNECTIONS_MAX: u32 = 20_000;
/// Most requests that one run sends.
pub const REQUESTS_MAX: u64 = 100_000_000_000;
/// Most different requests in one plan.
pub const SPECS_MAX: usize = 1_000;
/// Most threads that make load.
pub const THREADS_MAX: u32 = 64;
/// Most requests at once on one connection of HTTP/2.
pub const STREAMS_MAX: u32 = 1_000;
/// Most requests under way at once: connections times streams.
pub const AT_ONCE_MAX: u32 = 100_000;
/// Longest pause between an answer and the next request of a closed loop.
pub const THINK_MAX: Duration = Duration::from_hours(1);

/// How requests are paced.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Load {
    /// Each of the connections sends its next request when the last one was answered: what is measured depends on how
    /// fast the target answers.
    ///
    /// All connections are opened first, and their first requests then leave together.
    Closed {
        /// Connections, 1 to [`CONNECTIONS_MAX`]; more than requests are not opened.
        connections: u32,
        /// When it ends.
        until: Until,
        /// Pause between an answer and the next request on the same connection.
        think: Think,
    },
    /// Requests leave when they are planned to, however slow the target is; one that finds no free connection leaves
    /// late, and is measured from when it was planned. None is skipped.
    Open {
        /// How many a second.
        rate: Rate,
        /// How they are spread.
        arrivals: Arrivals,
        /// For how long requests are planned, up to seven days. What is then still waiting is sent for at most the
        /// time limit of a request, and the rest is counted as not sent.
        duration: Duration,
        /// Connections, 1 to [`CONNECTIONS_MAX`]: as many requests can be under way at once (times
        /// [`Transport::streams`]).
        connections: u32,
    },
}

impl Load {
    /// Connections at most.
    pub fn connections(&self) -> u32 {
        match *self {
            Self::Closed { connections, .. } | Self::Open { connections, .. } => connections,
        }
    }
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After so many requests, 1 to [`REQUESTS_MAX`].
    Requests(u64),
    /// After so long, up to seven days; requests that are under way then are awaited, up to their limit.
    Elapsed(Duration),
}

/// A pause, drawn evenly between two bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Think {
    /// Shortest.
    pub min: Duration,
    /// Longest; up to [`THINK_MAX`].
    pub max: Duration,
}

/// How connections are made and used.
#[derive(Clone, Debug, PartialEq)]
pub struct Transport {
    /// The protocol spoken.
    pub version: HttpVersion,
    /// Whether a connection is used again; when not, each request opens its own, and the time of that is measured
    /// with it.
    pub keep_alive: bool,
    /// Requests at once on one connection: 1, for HTTP/2 up to [`STREAMS_MAX`].
    pub streams: u32,
    /// PEM certificates of the authorities that are trusted with `https://`; nothing means those of this system.
    pub authorities: Option<Arc<[u8]>>,
    /// Where the target is, tried in this order; nothing means that its name is looked up when the run begins.
    pub addresses: Option<Vec<SocketAddr>>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            version: HttpVersion::Http1,
            keep_alive: true,
            streams: 1,
            authorities: None,
            addresses: None,
        }
    }
}

/// A version of HTTP. With TLS it is agreed on by ALPN (RFC 7301); without, HTTP/2 is spoken from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http1,
    /// HTTP/2 (RFC 9113).
    Http2,
}

/// Bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// For one connection to be opened, TLS included.
    pub connect: Duration,
    /// For one request, from its start to the last byte of its answer.
    pub request: Duration,
    /// Most bytes of a body that are kept for checks; the rest is read and thrown away.
    pub body_bytes: usize,
    /// The run ends early after this many time-outs in a row; nothing means never.
    ///
    /// A target that hangs otherwise holds a run for requests / connections × `request`.
    pub give_up_after_timeouts: Option<u32>,
    /// The run ends early when more than this share of its last requests failed, 0 to 1; nothing means never.
    ///
    /// It is looked at every second, over the last ten seconds, from 100 requests on.
    pub stop_at_error_share: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(10),
            body_bytes: 1024 * 1024,
            give_up_after_timeouts: None,
            stop_at_error_share: None,
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
    /// Rows for `${column}` in paths, header values and bodies; one row a request, in turn.
    pub data: Option<Arc<Rows>>,
    /// How many and how fast.
    pub load: Load,
    /// How connections are made.
    pub transport: Transport,
    /// Requests that are due within this time of the start are made and not counted. It comes before the requests or
    /// the duration of [`Load`].
    pub warm_up: Duration,
    /// Threads that make the load, 1 to [`THREADS_MAX`]; connections are shared out among them. One is enough for some
    /// tens of thousands of requests a second.
    pub threads: u32,
    /// Where random arrivals and pauses begin: the same seed gives the same.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
}

impl Plan {
    /// `total` requests in a closed loop over `connections`, on one thread, without warm-up, with default limits.
    pub fn closed(base: BaseUrl, requests: Vec<RequestSpec>, total: u64, connections: u32) -> Self {
        let load = Load::Closed {
            connections,
            until: Until::Requests(total),
            think: Think::default(),
        };
        Self::new(base, requests, load)
    }

    /// An open loop with evenly spaced requests, on one thread, without warm-up, with default limits.
    pub fn open(
        base: BaseUrl,
        requests: Vec<RequestSpec>,
        rate: Rate,
        duration: Duration,
        connections: u32,
    ) -> Self {
        let load = Load::Open {
            rate,
            arrivals: Arrivals::Constant,
            duration,
            connections,
        };
        Self::new(base, requests, load)
    }

    fn new(base: BaseUrl, requests: Vec<RequestSpec>, load: Load) -> Self {
        Self {
            base,
            requests,
            data: None,
            load,
            transport: Transport::default(),
            warm_up: Duration::ZERO,
            threads: 1,
            seed: 1,
            limits: Limits::default(),
        }
    }

    /// Whether it could be run.
    pub fn check(&self) -> Result<(), PlanError> {
        self.prepare().map(|_| ())
    }

    pub(crate) fn prepare(&self) -> Result<Turns, PlanError> {
        self.check_numbers()?;
        if self.requests.is_empty() {
            return Err(PlanError::NoRequests);
        }
        let prepared = self
            .requests
            .iter()
            .map(|r| r.prepare(&self.base, self.data.as_deref()))
            .collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<u32> = self.requests.iter().map(|r| r.weight).collect();
        Ok(Turns::new(&weights, prepared, self.data.clone()))
    }

    fn check_numbers(&self) -> Result<(), PlanError> {
        match self.load {
            Load::Closed { until, think, .. } => {
                match until {
                    Until::Requests(n) => within("requests", n, 1, REQUESTS_MAX)?,
                    Until::Elapsed(d) => duration("duration_ms", d, DURATION_MAX)?,
                }
                if think.min > think.max {
                    return Err(PlanError::OutOfRange {
                        what: "shortest pause in ms",
                        value: millis(think.min),
                        min: 0,
                        max: millis(think.max),
                    });
                }
                within(
                    "longest pause in ms",
                    millis(think.max),
                    0,
                    millis(THINK_MAX),
                )?;
            }
            Load::Open {
                rate, duration: d, ..
            } => {
                rate.check()?;
                duration("duration_ms", d, DURATION_MAX)?;
            }
        }
        let connections = self.load.connections();
        within("connections", connections.into(), 1, CONNECTIONS_MAX.into())?;
        within("threads", self.threads.into(), 1, THREADS_MAX.into())?;
        let streams = match self.transport.version {
            HttpVersion::Http1 => 1,
            HttpVersion::Http2 => STREAMS_MAX,
        };
        within("streams", self.transport.streams.into(), 1, streams.into())?;
        let at_once = u64::from(connections) * u64::from(self.transport.streams);
        within("connections times streams", at_once, 1, AT_ONCE_MAX.into())?;
        within(
            "warm-up in ms",
            millis(self.warm_up),
            0,
            millis(DURATION_MAX),
        )?;
        let hour = Duration::from_hours(1);
        duration("request_timeout_ms", self.limits.request, hour)?;
        duration("connect_timeout_ms", self.limits.connect, hour)?;
        if let Some(share) = self.limits.stop_at_error_share
            && !(0.0..=1.0).contains(&share)
        {
            return Err(PlanError::BadShare(share.to_string()));
        }
        within(
            "number of endpoints",
            self.requests.len() as u64,
            u64::from(!self.requests.is_empty()),
            SPECS_MAX as u64,
        )
    }
}

fn within(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), PlanError> {
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
}

fn duration(what: &'static str, value: Duration, max: Duration) -> Result<(), PlanError> {
    within(what, millis(value), 1, millis(max))
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_out_of_range_are_refused() {
        let base = BaseUrl::parse("http://h:1").unwrap();
        let get = vec![RequestSpec::get("/")];
        let good = Plan::closed(base.clone(), get.clone(), 1, 1);
        assert!(good.check().is_ok());
        let none = Plan::closed(base.clone(), Vec::new(), 1, 1).check();
        assert_eq!(none.unwrap_err(), PlanError::NoRequests);
        assert!(
            Plan::closed(base.clone(), get.clone(), 0, 1)
                .check()
                .is_err()
        );
        assert!(
            Plan::closed(base.clone(), get.clone(), 1, 0)
                .check()
                .is_err()
        );
        let second = Duration::from_secs(1);
        let no_rate = Plan::open(base, get, Rate::constant(0.0), second, 1);
        assert!(no_rate.check().is_err());
        for spoil in [
            (|p| p.threads = 0) as fn(&mut Plan),
            |p| p.transport.streams = 2,
            |p| p.limits.request = Duration::ZERO,
            |p| p.limits.stop_at_error_share = Some(1.5),
            |p| p.limits.stop_at_error_share = Some(f64::NAN),
            |p| {
                p.load = Load::Closed {
                    connections: 1,
                    until: Until::Requests(1),
                    think: Think {
                        min: Duration::from_secs(2),
                        max: Duration::from_secs(1),
                    },
                };
            },
        ] {
            let mut plan = good.clone();
            spoil(&mut plan);
            assert!(plan.check().is_err(), "{plan:?}");
        }
    }
}
