//! Memory of a service as it is where nothing leaks: it breathes with load, a collector saws at it, jobs take some at
//! night, caches fill, and now and then it is restarted.

use crate::noise::{Course, DAY};
use crate::random::Random;

/// What a leak is measured against, in MB.
pub(crate) const LIMIT_MB: f64 = 2_048.0;

/// One service's memory, a reading a minute.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    random: Random,
    minute: u64,
    base_mb: f64,
    swing_mb: f64,
    course: Course,
    noise_mb: f64,
    saw_mb: f64,
    saw_minutes: f64,
    sawn: f64,
    job_at: u64,
    job_mb: f64,
    cache_mb: f64,
    cache_minutes: f64,
    growth_a_day: f64,
    restart_days: f64,
    process: u64,
    began: u64,
    leaked_mb: f64,
}

impl Memory {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let base_mb = random.log_between(150.0, 800.0);
        let swing = random.between(0.05, 0.5);
        Self {
            minute: random.bits() % (7 * DAY),
            base_mb,
            swing_mb: base_mb * swing,
            course: Course::new(&mut random, 0.5),
            noise_mb: base_mb * random.between(0.002, 0.03),
            saw_mb: base_mb * random.between(0.02, 0.3),
            saw_minutes: random.log_between(2.0, 60.0),
            sawn: 0.0,
            job_at: random.bits() % DAY,
            job_mb: base_mb * random.between(0.0, 0.4),
            cache_mb: base_mb * random.between(0.0, 0.5),
            cache_minutes: random.log_between(5.0, 180.0),
            growth_a_day: random.between(0.0, 0.005),
            restart_days: random.log_between(3.0, 20.0),
            process: 1,
            began: 0,
            leaked_mb: 0.0,
            random,
        }
    }

    /// The process now, by number.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// Another process, as after a deploy.
    pub(crate) fn restart(&mut self) {
        self.process += 1;
        self.began = self.minute;
        self.leaked_mb = 0.0;
    }

    /// The next minute's reading in MB, with `leak_mb_per_hour` on top; a restart may have come before it.
    pub(crate) fn next(&mut self, leak_mb_per_hour: f64, may_restart: bool) -> f64 {
        self.minute += 1;
        if may_restart && self.random.one_in(self.restart_days * DAY as f64) {
            self.restart();
        }
        let random = &mut self.random;
        self.leaked_mb += leak_mb_per_hour / 60.0;
        // The collector's work goes with the load, and is not quite regular.
        self.sawn += random.between(0.5, 1.5) / self.saw_minutes;
        if self.sawn >= 1.0 {
            self.sawn = random.between(0.0, 0.1);
        }
        let age = (self.minute - self.began) as f64;
        let cache = self.cache_mb * (1.0 - (-age / self.cache_minutes).exp());
        let in_job = (self.minute + DAY - self.job_at) % DAY < 50;
        let job = if in_job { self.job_mb } else { 0.0 };
        let grown = 1.0 + self.growth_a_day * (self.minute as f64 / DAY as f64);
        let load = (self.course.at(self.minute) - 0.5) * self.swing_mb * grown;
        let starting = 1.0 - 0.5 * (-age / 3.0).exp();
        (self.base_mb * starting + load + cache + job + self.saw_mb * self.sawn)
            .max(self.base_mb * 0.3)
            + self.noise_mb * random.normal().abs()
            + self.leaked_mb
    }
}
