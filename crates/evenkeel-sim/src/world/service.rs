//! A service at work: load by the time of day, workers and who waits for them, memory, starts that take time and
//! sometimes fail, and what it feels of the services it needs.

use crate::fault::{DAY_MS, HOUR_MS};
use crate::scenario::ServiceSpec;

/// Memory at which a process is killed for it, as a multiple of what it began with and never below 1000 MB more.
pub const MEMORY_MAX_FACTOR: f64 = 4.0;
/// Response times above this are time-outs, in milliseconds.
pub const DEADLINE_MS: f64 = 5_000.0;

/// The life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs and is ready.
    Up,
    /// It was started, and is ready then, in milliseconds since the run began.
    Starting(i64),
    /// There is none.
    Down,
}

/// Settings that a process read when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Requests worked on at once.
    pub workers: i64,
    /// Connections to the database.
    pub pool: i64,
    /// Requests per second that the limiter lets through.
    pub rate_limit: i64,
    /// Entries that its cache keeps.
    pub cache: i64,
    /// How long it waits for what is outside, in milliseconds.
    pub upstream_timeout_ms: i64,
}

/// What is wrong with a service now, apart from its load: a sum over the causes that are there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strain {
    /// It answers nothing.
    pub hung: bool,
    /// Share of requests that fail for a cause of their own, 0 to 1.
    pub errors: f64,
    /// Each answer takes this much longer, in milliseconds.
    pub delay_ms: f64,
    /// Requests are so many times as many.
    pub load: f64,
    /// Memory grows by so many MB an hour.
    pub leak: f64,
    /// More memory than usual for a while, in MB.
    pub extra_mb: f64,
    /// Errors in its log: the database is locked.
    pub locked: bool,
    /// Errors in its log: no connection was free in time.
    pub no_connection: bool,
}

impl Strain {
    /// Nothing is wrong.
    pub const NONE: Self = Self {
        hung: false,
        errors: 0.0,
        delay_ms: 0.0,
        load: 1.0,
        leak: 0.0,
        extra_mb: 0.0,
        locked: false,
        no_connection: false,
    };

    /// Nothing is wrong beyond what its service always has.
    pub fn is_calm(&self, spec: &ServiceSpec) -> bool {
        let calm = Self {
            errors: spec.error_share,
            ..Self::NONE
        };
        *self == calm
    }

    /// Another share of requests fails, apart from those that fail already.
    pub fn fail(&mut self, share: f64) {
        self.errors = 1.0 - (1.0 - self.errors) * (1.0 - share.clamp(0.0, 1.0));
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its process, where there is one.
    pub life: Life,
    /// Identity of the newest process; it changes with each start.
    pub process: u64,
    /// When that process was started, in milliseconds since the run began.
    pub started: i64,
    /// What it read then.
    pub in_force: InForce,
    /// What is wrong with it.
    pub strain: Strain,
    /// Memory that had leaked at `leaked_at`, in MB.
    pub leaked_mb: f64,
    /// When `leaked_mb` was true, in milliseconds since the run began.
    pub leaked_at: i64,
    /// What its version needs in memory, as a share of what it was set up with.
    pub size: f64,
    /// When something about it changed last, in milliseconds since the run began.
    pub touched: i64,
    /// Requests and failed ones since its counters were read last.
    pub counted: (f64, f64),
    /// Until when they are counted, in milliseconds since the run began.
    pub counted_at: i64,
}

/// What a client of a service would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers.
    Answers,
    /// Nobody listens.
    Refused,
    /// Somebody listens and says nothing.
    Silent,
}

/// What can be measured of a service at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Whether it answers.
    pub reach: Reach,
    /// Share of requests that fail, 0 to 1.
    pub errors: f64,
    /// Time of half of the answers, in milliseconds.
    pub latency_ms: f64,
    /// Requests per second.
    pub load: f64,
    /// More requests than its limiter lets through.
    pub limited: bool,
    /// Resident memory, in MB.
    pub memory_mb: f64,
}

impl Service {
    /// Memory that has leaked by `now`, in MB.
    pub fn leaked(&self, now: i64) -> f64 {
        let hours = (now - self.leaked_at).max(0) as f64 / HOUR_MS as f64;
        self.leaked_mb + self.strain.leak * hours
    }

    /// Memory beyond which the process is killed, in MB.
    pub fn memory_max(&self, spec: &ServiceSpec) -> f64 {
        (spec.memory_mb * MEMORY_MAX_FACTOR).max(spec.memory_mb + 1000.0)
    }

    /// When the process will be killed for its memory, if it goes on like this.
    pub fn out_of_memory_at(&self, spec: &ServiceSpec, now: i64) -> Option<i64> {
        if self.strain.leak <= 0.0 || self.life != Life::Up {
            return None;
        }
        let room = self.memory_max(spec) - spec.memory_mb * self.size - self.leaked(now);
        let hours = (room / self.strain.leak).clamp(0.0, 100_000.0);
        #[expect(clippy::cast_possible_truncation, reason = "at most 100 000 hours")]
        let ms = (hours * HOUR_MS as f64) as i64;
        Some(now + ms.max(1))
    }

    /// Counts requests up to `now`, as they were since the last time. What nobody answers is not counted: whoever
    /// counts is gone.
    pub fn count(&mut self, spec: &ServiceSpec, now: i64) {
        let seen = self.seen(spec, now);
        if seen.reach == Reach::Answers {
            let requests = seen.load * (now - self.counted_at).max(0) as f64 / 1000.0;
            self.counted.0 += requests;
            self.counted.1 += requests * seen.errors;
        }
        self.counted_at = now;
    }

    /// What is seen of it at `now`.
    pub fn seen(&self, spec: &ServiceSpec, now: i64) -> Seen {
        let day = now as f64 / DAY_MS as f64;
        let season = 1.0 + spec.swing * wave(day - spec.peak);
        let load = spec.load * season * (1.0 + spec.growth * day) * self.strain.load;
        let memory_mb = spec.memory_mb * self.size
            + self.strain.extra_mb
            + self.leaked(now)
            + spec.memory_mb * 0.05 * season;
        let reach = match self.life {
            Life::Up if self.strain.hung => Reach::Silent,
            Life::Up => Reach::Answers,
            Life::Starting(_) | Life::Down => Reach::Refused,
        };
        let mut errors = self.strain.errors.max(spec.error_share);
        let allowed = self.in_force.rate_limit.max(1) as f64;
        let limited = load > allowed;
        let passed = if limited {
            errors = 1.0 - (1.0 - errors) * allowed / load;
            allowed
        } else {
            load
        };
        let busy = passed / (self.in_force.workers.max(1) as f64 * spec.per_worker);
        let waiting = if busy < 0.95 {
            spec.latency_ms * (1.0 + busy * busy / (1.0 - busy))
        } else {
            // Who comes waits until it is too late.
            errors = 1.0 - (1.0 - errors) / busy.max(1.0);
            DEADLINE_MS * 0.9
        };
        Seen {
            reach,
            errors,
            latency_ms: (waiting + self.strain.delay_ms).min(DEADLINE_MS),
            load,
            limited,
            memory_mb,
        }
    }
}

/// A day's wave: 1 at whole numbers, -1 halfway, without a sine.
fn wave(days: f64) -> f64 {
    let phase = days - days.floor();
    let ramp = (phase * 2.0 - 1.0).abs();
    // Smooth at both ends.
    let eased = ramp * ramp * (3.0 - 2.0 * ramp);
    eased * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ServiceSpec {
        ServiceSpec {
            name: "api",
            load: 100.0,
            swing: 0.3,
            peak: 0.5,
            growth: 0.0,
            per_worker: 40.0,
            latency_ms: 50.0,
            memory_mb: 100.0,
            start_ms: 1000,
            error_share: 0.002,
            needs: Vec::new(),
            instance_of: 0,
        }
    }

    fn service() -> Service {
        Service {
            life: Life::Up,
            process: 1,
            started: 0,
            in_force: InForce {
                workers: 8,
                pool: 10,
                rate_limit: 100_000,
                cache: 1000,
                upstream_timeout_ms: 10_000,
            },
            strain: Strain::NONE,
            leaked_mb: 0.0,
            leaked_at: 0,
            size: 1.0,
            touched: 0,
            counted: (0.0, 0.0),
            counted_at: 0,
        }
    }

    #[test]
    fn load_follows_the_day_and_waits_for_workers() {
        let (spec, mut service) = (spec(), service());
        let noon = service.seen(&spec, DAY_MS / 2);
        let night = service.seen(&spec, DAY_MS);
        assert!((noon.load - 130.0).abs() < 1e-6 && (night.load - 70.0).abs() < 1e-6);
        assert!(noon.latency_ms > night.latency_ms);
        service.strain.load = 10.0;
        let flooded = service.seen(&spec, DAY_MS / 2);
        assert!(
            flooded.errors > 0.5 && flooded.latency_ms > 4000.0,
            "{flooded:?}"
        );
        service.in_force.workers = 64;
        let helped = service.seen(&spec, DAY_MS / 2);
        assert!(helped.errors < 0.01, "{helped:?}");
    }

    #[test]
    fn a_leak_ends_the_process_when_it_says() {
        let (spec, mut service) = (spec(), service());
        service.strain.leak = 100.0;
        let at = service.out_of_memory_at(&spec, 0).unwrap();
        let room = service.memory_max(&spec) - spec.memory_mb;
        assert!((service.leaked(at) - room).abs() < 0.01);
        service.strain.leak = 0.0;
        assert_eq!(service.out_of_memory_at(&spec, 0), None);
    }

    #[test]
    fn shares_of_errors_add_up_to_at_most_all() {
        let mut strain = Strain::NONE;
        strain.fail(0.5);
        strain.fail(0.5);
        assert!((strain.errors - 0.75).abs() < 1e-9);
        strain.fail(7.0);
        assert!((strain.errors - 1.0).abs() < 1e-9);
    }
}
