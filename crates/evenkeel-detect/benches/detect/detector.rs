//! What is measured: a streaming detector, and the simple reference that any other should beat.

use evenkeel_detect::ensemble::Ensemble;
use evenkeel_detect::level::Level;

/// A detector of one series. It sees each value once, in order, and nothing else.
pub(crate) trait Detect {
    /// How anomalous the value is, 0 to 1, and the nominal probability of such a value or a rarer one.
    fn push(&mut self, at_ms: i64, value: f64) -> (f64, f64);
}

/// The reference: distance from an exponentially weighted mean in standard deviations, and a rest after an alarm.
#[derive(Clone, Debug)]
pub(crate) struct EwmaZ {
    weight: f64,
    rest: u32,
    quiet: u32,
    seen: u32,
    mean: Option<f64>,
    variance: f64,
}

impl EwmaZ {
    /// A half-life of 60 values; after an alarm the scores of the next `rest` values are damped.
    pub(crate) fn new(rest: u32) -> Self {
        Self {
            weight: 1.0 - 0.5_f64.powf(1.0 / 60.0),
            rest,
            quiet: 0,
            seen: 0,
            mean: None,
            variance: 0.0,
        }
    }
}

impl Detect for EwmaZ {
    fn push(&mut self, _at_ms: i64, value: f64) -> (f64, f64) {
        // What is no number counts too, towards the twenty after which a jump is clipped.
        self.seen += 1;
        if !value.is_finite() {
            return (0.0, 1.0);
        }
        let mean = self.mean.unwrap_or(value);
        let mut sd = self.variance.sqrt();
        if sd == 0.0 {
            sd = mean.abs() * 0.01 + 1e-9;
        }
        let z = (value - mean).abs() / sd;
        let mut score = z / (z + 10.0);
        if self.quiet > 0 {
            self.quiet -= 1;
            score *= 0.3;
        } else if z > 4.0 {
            self.quiet = self.rest;
        }
        let by = value - mean;
        let by = if self.seen > 20 {
            by.clamp(-4.0 * sd, 4.0 * sd)
        } else {
            by
        };
        self.mean = Some(mean + self.weight * by);
        self.variance = (1.0 - self.weight) * (self.variance + self.weight * by * by);
        (score, two_sided(z))
    }
}

/// Probability that a normal variable is at least `z` standard deviations off, either way; relative error below
/// 1.2e-7 (Press et al., "Numerical Recipes", `erfc` by Chebyshev fitting).
pub(crate) fn two_sided(z: f64) -> f64 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let poly = C.iter().rev().fold(0.0, |sum, c| sum * t + c);
    (t * (-x * x + poly).exp()).min(1.0)
}

/// The detectors that are compared, the reference first.
pub(crate) const NAMES: [&str; 2] = ["EWMA-z", "Evenkeel"];

/// One of them.
#[derive(Clone, Debug)]
pub(crate) enum Detector {
    /// The reference.
    EwmaZ(EwmaZ),
    /// What follows live series.
    Ensemble(Box<Ensemble>),
    /// The same as it follows live series: it waits before it learns.
    Level(Box<Level>),
}

impl Detector {
    /// `rest` is the reference's alone.
    pub(crate) fn new(name: &str, rest: u32) -> Self {
        if name == NAMES[0] {
            Self::EwmaZ(EwmaZ::new(rest))
        } else {
            Self::Ensemble(Box::default())
        }
    }

    /// As it follows a live series, where that differs.
    pub(crate) fn live(name: &str, rest: u32) -> Self {
        if name == NAMES[0] {
            Self::new(name, rest)
        } else {
            Self::Level(Box::default())
        }
    }

    pub(crate) fn push(&mut self, at_ms: i64, value: f64) -> (f64, f64) {
        match self {
            Self::EwmaZ(d) => d.push(at_ms, value),
            Self::Ensemble(d) => {
                let score = d.push(at_ms, value);
                (score.anomaly, score.tail)
            }
            Self::Level(d) => {
                let score = d.push(at_ms, value);
                (score.anomaly, score.tail)
            }
        }
    }

    /// Size of its state.
    pub(crate) fn state_bytes(&self) -> usize {
        match self {
            Self::EwmaZ(_) => size_of::<EwmaZ>(),
            Self::Ensemble(_) => size_of::<Ensemble>(),
            Self::Level(_) => size_of::<Level>(),
        }
    }
}
