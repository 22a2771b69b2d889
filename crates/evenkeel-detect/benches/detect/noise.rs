//! Clean series, one value a minute, of the kinds that services have. Nothing in them is an anomaly.

use std::f64::consts::TAU;

use crate::random::Random;

/// Minutes of a day.
pub(crate) const DAY: u64 = 1440;
/// Minutes of a month of 30 days.
pub(crate) const MONTH: u64 = 30 * DAY;

/// How values vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Independent and normal.
    Gaussian,
    /// Independent, Student's t with three degrees of freedom.
    StudentT,
    /// Independent, log-normal.
    LogNormal,
    /// First-order autoregression, 0.9.
    Autocorrelated,
    /// A slow walk that reverts over a day or so, and noise on it.
    Wandering,
    /// By day and week, and noise.
    Seasonal,
    /// Jobs every hour and every night, none quite as the one before.
    Bursts,
    /// By day, and the noise is in proportion to the level.
    LevelDependent,
    /// Poisson, at a rate that may vary by day.
    Counts,
    /// Poisson at a rate that varies from minute to minute.
    Overdispersed,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Gaussian,
        Self::StudentT,
        Self::LogNormal,
        Self::Autocorrelated,
        Self::Wandering,
        Self::Seasonal,
        Self::Bursts,
        Self::LevelDependent,
        Self::Counts,
        Self::Overdispersed,
    ];

    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Gaussian => "Gaussian",
            Self::StudentT => "Student t, 3 degrees",
            Self::LogNormal => "log-normal",
            Self::Autocorrelated => "autoregressive, 0.9",
            Self::Wandering => "wandering",
            Self::Seasonal => "seasonal",
            Self::Bursts => "bursts",
            Self::LevelDependent => "level-dependent",
            Self::Counts => "counts",
            Self::Overdispersed => "overdispersed counts",
        }
    }
}

/// A daily and weekly course around 1.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    day: f64,
    second: f64,
    phase: f64,
    weekend: f64,
}

impl Course {
    /// `swing` is half of what lies between the quietest and the busiest hour, as a share of the level.
    pub(crate) fn new(random: &mut Random, swing: f64) -> Self {
        Self {
            day: swing,
            second: swing * random.between(0.0, 0.4),
            phase: random.unit(),
            weekend: random.between(0.6, 1.0),
        }
    }

    pub(crate) fn at(&self, minute: u64) -> f64 {
        let day = minute as f64 / DAY as f64 + self.phase;
        let course = 1.0 + self.day * (TAU * day).sin() + self.second * (2.0 * TAU * day).cos();
        // Weekends come and go over some hours.
        let week = (day / 7.0).fract() * 7.0;
        let weekend = ((week - 5.0) * 6.0).clamp(0.0, 1.0) * ((7.0 - week) * 6.0).clamp(0.0, 1.0);
        course * (1.0 - (1.0 - self.weekend) * weekend)
    }
}

/// A series that never ends.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    kind: Kind,
    random: Random,
    minute: u64,
    level: f64,
    scale: f64,
    shape: f64,
    course: Course,
    walk: f64,
    hourly: u64,
    nightly: u64,
}

impl Noise {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let level = random.log_between(1.0, 1e4);
        let swing = random.between(0.1, 0.6);
        Self {
            kind,
            minute: 0,
            level,
            scale: level * random.log_between(0.01, 0.15),
            shape: random.unit(),
            course: Course::new(&mut random, swing),
            walk: 0.0,
            hourly: random.bits() % 60,
            nightly: random.bits() % DAY,
            random,
        }
    }

    /// The next minute's value.
    pub(crate) fn next(&mut self) -> f64 {
        let minute = self.minute;
        self.minute += 1;
        let random = &mut self.random;
        match self.kind {
            Kind::Gaussian => self.level + self.scale * random.normal(),
            Kind::StudentT => self.level + self.scale * random.t3(),
            Kind::LogNormal => self.level * ((0.3 + 0.7 * self.shape) * random.normal()).exp(),
            Kind::Autocorrelated => {
                self.walk = 0.9 * self.walk + (1.0 - 0.9_f64.powi(2)).sqrt() * random.normal();
                self.level + self.scale * self.walk
            }
            Kind::Wandering => {
                self.walk = 0.999 * self.walk + (1.0 - 0.999_f64.powi(2)).sqrt() * random.normal();
                self.level + self.scale * (2.0 * self.walk + 0.3 * random.normal())
            }
            Kind::Seasonal => self.level * self.course.at(minute) + self.scale * random.normal(),
            Kind::Bursts => {
                let mut value = self.level + self.scale * random.normal();
                if minute % 60 == self.hourly {
                    value += self.level * (0.5 + self.shape) * random.between(0.8, 1.2);
                }
                if (minute + DAY - self.nightly) % DAY < 25 && !random.one_in(20.0) {
                    value += self.level * (1.0 + self.shape) * random.between(0.7, 1.3);
                }
                value
            }
            Kind::LevelDependent => {
                let level = self.level * self.course.at(minute);
                level * (1.0 + 0.15 * self.shape * random.normal())
            }
            Kind::Counts => {
                let mean = 40_f64.powf(self.shape);
                let course = if self.hourly.is_multiple_of(2) {
                    self.course.at(minute)
                } else {
                    1.0
                };
                random.poisson(mean * course)
            }
            Kind::Overdispersed => {
                let mean = 40_f64.powf(self.shape) * random.gamma(2.0 + self.scale.fract() * 8.0);
                random.poisson(mean)
            }
        }
    }
}
