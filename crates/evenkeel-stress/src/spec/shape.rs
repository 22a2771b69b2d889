//! How a test shapes its load: a rate, for how long, with which pauses; read from configuration.

use std::fmt;
use std::time::Duration;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{TestKind, TestSpec};
use crate::plan::{Arrivals, HttpVersion, Limits, Load, Plan, Rate, Think, Transport, Until};
use crate::target::BaseUrl;
use crate::text::bounded;
use crate::words;

/// Connections of an open loop whose test names no `concurrency`.
const OPEN_CONNECTIONS: u32 = 50;

impl TestSpec {
    /// Requests at once of an open loop, or of a closed one that lasts a time.
    fn connections(&self) -> u32 {
        match (self.concurrency, self.rate) {
            (None, Some(_)) => OPEN_CONNECTIONS,
            _ => self.concurrency(),
        }
    }

    /// How long the declared load lasts, warm-up included; nothing where requests are counted.
    pub(super) fn load_ms(&self) -> f64 {
        self.duration_s
            .map_or(0.0, |d| (d + self.warm_up_s.unwrap_or(0.0)) * 1000.0)
    }

    /// The load that this test makes on `base`; a target that hangs ends it after one round of time-outs.
    pub(crate) fn plan(&self, base: BaseUrl) -> Plan {
        let load = match (self.rate, self.duration_s) {
            (Some(rate), duration) => Load::Open {
                rate,
                arrivals: self.arrivals.unwrap_or_default(),
                duration: seconds(duration.unwrap_or(0.0)),
                connections: self.connections(),
            },
            (None, Some(duration)) => Load::Closed {
                connections: self.connections(),
                until: Until::Elapsed(seconds(duration)),
                think: self.think_ms.unwrap_or_default(),
            },
            (None, None) => return self.counted_plan(base, self.requests(), self.concurrency()),
        };
        self.with_load(base, load, u64::from(self.connections()))
    }

    /// The same with so many requests, and at most so many at once.
    pub(crate) fn counted_plan(&self, base: BaseUrl, requests: u64, concurrency: u32) -> Plan {
        let load = Load::Closed {
            connections: concurrency,
            until: Until::Requests(requests),
            think: self.think_ms.unwrap_or_default(),
        };
        self.with_load(base, load, u64::from(concurrency).min(requests))
    }

    fn with_load(&self, base: BaseUrl, load: Load, at_once: u64) -> Plan {
        let version = if self.http2.unwrap_or(false) {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        };
        Plan {
            data: self.rows.clone(),
            load,
            transport: Transport {
                version,
                authorities: self.authorities.clone(),
                ..Transport::default()
            },
            warm_up: seconds(self.warm_up_s.unwrap_or(0.0)),
            limits: Limits {
                connect: Duration::from_millis(self.connect_timeout_ms()),
                request: Duration::from_millis(self.request_timeout_ms()),
                give_up_after_timeouts: u32::try_from(at_once).ok(),
                ..Limits::default()
            },
            ..Plan::closed(base, self.resolved_endpoints(), 1, 1)
        }
    }

    /// Blocks of a memory test: one for each round of `concurrency` requests, at most ten, where none are named.
    pub fn blocks(&self) -> u32 {
        self.blocks.unwrap_or_else(|| {
            let rounds = self.requests() / u64::from(self.concurrency().max(1));
            u32::try_from(rounds.clamp(1, 10)).unwrap_or(10)
        })
    }

    /// What the direct queries of a `sql-pool` test are.
    pub(crate) fn pool_load(&self) -> crate::world::PoolLoad {
        let parallel = self.concurrency();
        crate::world::PoolLoad {
            parallel,
            queries: self.queries.unwrap_or_else(|| parallel.into()),
            pool_size: self.pool_size.unwrap_or(parallel).min(POOL_SIZE_MAX),
            acquire_timeout: Duration::from_millis(self.acquire_timeout_ms.unwrap_or(5_000)),
            query_timeout: Duration::from_millis(self.request_timeout_ms()),
            connect_timeout: Duration::from_millis(self.connect_timeout_ms()),
        }
    }

    pub(super) fn check_shape(&self) -> Result<(), String> {
        if self.kind == TestKind::Mesh {
            return Ok(());
        }
        if let Some(rate) = self.rate {
            if self.duration_s.is_none() {
                return Err("`rate` needs `duration_s`, for how long".to_owned());
            }
            if self.think_ms.is_some() {
                return Err(
                    "`think_ms` means nothing beside `rate`: requests leave when they are due"
                        .to_owned(),
                );
            }
            if rate.peak() > RATE_MAX {
                return Err(format!(
                    "`rate` is {rate}; at most {RATE_MAX} a second are made"
                ));
            }
        } else if self.arrivals.is_some() {
            return Err("`arrivals` means nothing without `rate`".to_owned());
        }
        if self.duration_s.is_some() && self.requests.is_some() {
            return Err(
                "`requests` and `duration_s` both say when it ends; leave one out".to_owned(),
            );
        }
        if self.warm_up_s.is_some() && self.duration_s.is_none() {
            return Err("`warm_up_s` needs `duration_s`".to_owned());
        }
        if self.kind == TestKind::Memory && u64::from(self.blocks()) > self.requests() {
            return Err("there are fewer `requests` than `blocks`".to_owned());
        }
        let Ok(base) = BaseUrl::parse("http://localhost") else {
            return Ok(());
        };
        if self.endpoints.is_empty() {
            return Ok(());
        }
        self.plan(base).check().map_err(|e| e.to_string())
    }
}

/// Highest rate of a test, in requests a second.
pub(super) const RATE_MAX: f64 = 100_000.0;
/// Most connections of the pool of direct queries.
pub const POOL_SIZE_MAX: u32 = 256;
/// Most direct queries of one test.
pub const POOL_QUERIES_MAX: u64 = 100_000;

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or_default()
}

/// `200`, `"200"` or `"100..500 over 30s"`.
pub(super) fn de_rate<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Rate>, D::Error> {
    struct Reader;
    impl Visitor<'_> for Reader {
        type Value = Rate;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("requests a second, such as 200, or \"100..500 over 30s\"")
        }

        fn visit_f64<E: de::Error>(self, rate: f64) -> Result<Rate, E> {
            let rate = Rate::constant(rate);
            rate.check().map_err(E::custom)?;
            Ok(rate)
        }

        fn visit_i64<E: de::Error>(self, rate: i64) -> Result<Rate, E> {
            self.visit_f64(rate as f64)
        }

        fn visit_u64<E: de::Error>(self, rate: u64) -> Result<Rate, E> {
            self.visit_f64(rate as f64)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
            let rate = parse_rate(text).ok_or_else(|| {
                E::custom(format!(
                    "`{}` is no rate; write 200, or \"100..500 over 30s\"",
                    bounded(text, 40)
                ))
            })?;
            rate.check().map_err(E::custom)?;
            Ok(rate)
        }
    }
    d.deserialize_any(Reader).map(Some)
}

/// How long a ramp takes is said here: the rate does not know how long the test is.
fn parse_rate(text: &str) -> Option<Rate> {
    let pace = words::pace(text).ok()?;
    match pace.over {
        Some(over) => (!over.is_zero()).then(|| Rate::ramp(pace.from, pace.to, over)),
        None => (!pace.is_ramp()).then(|| Rate::constant(pace.to)),
    }
}

pub(super) fn de_arrivals<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Arrivals>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        Constant,
        Poisson,
    }
    Ok(Some(match Name::deserialize(d)? {
        Name::Constant => Arrivals::Constant,
        Name::Poisson => Arrivals::Poisson,
    }))
}

/// `100`, or `[50, 200]`, in milliseconds.
pub(super) fn de_think<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Think>, D::Error> {
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = Think;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a pause in milliseconds, such as 100, or the shortest and longest, such as [50, 200]")
        }

        fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Think, E> {
            let ms = u64::try_from(ms).map_err(|_| E::custom("a pause is not below 0"))?;
            self.visit_u64(ms)
        }

        fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Think, E> {
            let pause = Duration::from_millis(ms);
            Ok(Think {
                min: pause,
                max: pause,
            })
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Think, A::Error> {
            let both = (seq.next_element::<u64>()?, seq.next_element::<u64>()?);
            let ((Some(min), Some(max)), None) = (both, seq.next_element::<u64>()?) else {
                return Err(de::Error::invalid_length(2, &self));
            };
            Ok(Think {
                min: Duration::from_millis(min),
                max: Duration::from_millis(max),
            })
        }
    }
    d.deserialize_any(Reader).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rate_makes_an_open_loop_and_a_duration_a_closed_one() {
        let base = || BaseUrl::parse("http://h").unwrap();
        let spec = read(json!({
            "name": "x", "kind": "latency", "endpoints": ["/"], "rate": "100..500 over 0.5m", "duration_s": 60,
            "warm_up_s": 1.5, "arrivals": "poisson", "http2": true, "expect_within_ms": 250, "p99_limit_ms": 900,
        }))
        .unwrap();
        let plan = spec.plan(base());
        let Load::Open {
            rate,
            arrivals,
            duration,
            connections,
        } = plan.load
        else {
            panic!("{:?}", plan.load);
        };
        assert_eq!(rate, Rate::ramp(100.0, 500.0, Duration::from_secs(30)));
        assert_eq!(
            (arrivals, duration.as_secs(), connections),
            (Arrivals::Poisson, 60, 50)
        );
        assert_eq!(plan.warm_up, Duration::from_millis(1_500));
        assert_eq!(plan.transport.version, HttpVersion::Http2);
        assert_eq!(plan.requests[0].expect_within_ms, Some(250.0));
        assert!((spec.expected_max_ms() - (3_000.0 + 61_500.0)).abs() < 1e-9);
        let closed = read(json!({
            "name": "x", "kind": "mix", "endpoints": ["/"], "duration_s": 2, "think_ms": [50, 200], "concurrency": 3,
        }));
        let plan = closed.unwrap().plan(base());
        let think = Think {
            min: Duration::from_millis(50),
            max: Duration::from_millis(200),
        };
        let until = Until::Elapsed(Duration::from_secs(2));
        assert_eq!(
            plan.load,
            Load::Closed {
                connections: 3,
                until,
                think
            }
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_reason() {
        for (more, word) in [
            (json!({"rate": 10}), "duration_s"),
            (json!({"rate": 0, "duration_s": 1}), "rate"),
            (json!({"rate": "10.. over", "duration_s": 1}), "is no rate"),
            (
                json!({"rate": "1..5 over 0s", "duration_s": 1}),
                "is no rate",
            ),
            (json!({"rate": "1..5", "duration_s": 1}), "is no rate"),
            (json!({"rate": 200_000, "duration_s": 1}), "at most"),
            (json!({"rate": 10, "duration_s": 0}), "duration_s"),
            (
                json!({"rate": 10, "duration_s": 1, "requests": 5}),
                "both say",
            ),
            (
                json!({"rate": 10, "duration_s": 1, "think_ms": 5}),
                "think_ms",
            ),
            (json!({"arrivals": "poisson"}), "without `rate`"),
            (
                json!({"arrivals": "even", "rate": 1, "duration_s": 1}),
                "poisson",
            ),
            (json!({"warm_up_s": 1}), "duration_s"),
            (json!({"think_ms": [5]}), "2"),
            (json!({"think_ms": -5}), "below 0"),
            (json!({"think_ms": [9, 5]}), "pause"),
            (json!({"blocks": 5}), "means nothing"),
            (json!({"pool_size": 5}), "means nothing"),
            (json!({"expect_within_ms": 0}), "expect_within_ms"),
        ] {
            let mut test = json!({"name": "x", "kind": "mix", "endpoints": ["/"]});
            for (key, value) in more.as_object().unwrap() {
                test[key] = value.clone();
            }
            let error = read(test).expect_err(&more.to_string());
            assert!(error.contains(word), "{more}: {error}");
        }
        let memory = |blocks: u32| json!({"name": "x", "kind": "memory", "endpoints": ["/"], "requests": 9, "blocks": blocks});
        assert!(read(memory(9)).is_ok());
        assert!(read(memory(10)).unwrap_err().contains("fewer"));
    }

    #[test]
    fn the_blocks_of_a_memory_test_are_rounds_of_its_load() {
        let blocks = |more: serde_json::Value| {
            let mut test = json!({"name": "x", "kind": "memory", "endpoints": ["/"]});
            for (key, value) in more.as_object().unwrap() {
                test[key] = value.clone();
            }
            read(test).unwrap().blocks()
        };
        assert_eq!(blocks(json!({})), 5);
        assert_eq!(blocks(json!({"requests": 5_000})), 10);
        assert_eq!(blocks(json!({"requests": 4})), 1);
        assert_eq!(blocks(json!({"blocks": 30, "requests": 600})), 30);
    }
}
