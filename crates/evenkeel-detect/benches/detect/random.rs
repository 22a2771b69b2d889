//! Seeded randomness for the generators: the same seed gives the same series everywhere.

use std::f64::consts::TAU;

/// `xoshiro256++` (Blackman & Vigna 2021), seeded by `SplitMix64` (Steele et al. 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
    /// The second of a pair of normal draws.
    spare: Option<f64>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = at;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state, spare: None }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let found = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        found
    }

    /// Above 0 and at most 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Between two positive numbers, each factor as likely.
    pub(crate) fn log_between(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub(crate) fn one_in(&mut self, n: f64) -> bool {
        self.unit() * n <= 1.0
    }

    /// One of 0 to `n - 1`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "smaller than n")]
        let found = ((u128::from(self.bits()) * n as u128) >> 64) as usize;
        found
    }

    /// Standard normal (Box & Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let (sin, cos) = (TAU * self.unit()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Student's t with three degrees of freedom.
    pub(crate) fn t3(&mut self) -> f64 {
        let z = self.normal();
        let chi2: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        z / (chi2 / 3.0).sqrt()
    }

    /// Gamma with mean 1 and a shape of at least 1 (Marsaglia & Tsang 2000).
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v / shape;
            }
        }
    }

    /// Poisson, by multiplication (Knuth): for means up to some hundreds.
    pub(crate) fn poisson(&mut self, mean: f64) -> f64 {
        let least = (-mean).exp();
        let (mut product, mut k) = (self.unit(), 0.0);
        while product > least {
            product *= self.unit();
            k += 1.0;
        }
        k
    }
}
