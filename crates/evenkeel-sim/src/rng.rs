//! Chance from a seed: the same seed gives the same run, on every machine and in every version of the standard
//! library. Not for secrets.

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n - 1`; 0 when `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        // The upper half of a 32 by 32 bit product: smaller than `n`.
        let product = (self.bits() >> 32) * u64::from(n);
        u32::try_from(product >> 32).unwrap_or(0)
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < permille
    }

    /// A number from `low` to `high`, both included; `low` when there is none.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high.saturating_sub(low)).unwrap_or(0);
        if width == 0 {
            return low;
        }
        // The upper half of a 64 by 64 bit product: at most `width`.
        let product = u128::from(self.bits()) * (u128::from(width) + 1);
        low + i64::try_from(product >> 64).unwrap_or(0)
    }

    /// A number from 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number around 0 with a deviation of 1, roughly normal and never beyond 3.5: the sum of four even ones.
    pub fn bell(&mut self) -> f64 {
        let bits = self.bits();
        let part = |i: u32| ((bits >> (16 * i)) & 0xFFFF) as f64;
        let sum = part(0) + part(1) + part(2) + part(3);
        (sum / 65_536.0 - 2.0) * 1.732_050_8
    }

    /// One of `choices`.
    pub fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        const { assert!(N > 0) };
        let at = self.below(u32::try_from(N).unwrap_or(u32::MAX));
        choices[usize::try_from(at).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_sequence() {
        // From the reference implementation in C with seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn stays_below_its_bound_and_reaches_every_number() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 5];
        for _ in 0..5000 {
            seen[rng.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|n| *n > 800), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn ranges_and_bells_have_the_shape_they_claim() {
        let mut rng = Rng::new(9);
        let drawn: Vec<i64> = (0..2000).map(|_| rng.between(-2, 2)).collect();
        assert!((-2..=2).all(|n| drawn.iter().filter(|d| **d == n).count() > 300));
        assert_eq!(rng.between(5, 1), 5);
        let bells: Vec<f64> = (0..20_000).map(|_| rng.bell()).collect();
        let mean = bells.iter().sum::<f64>() / 20_000.0;
        let spread = (bells.iter().map(|b| b * b).sum::<f64>() / 20_000.0).sqrt();
        assert!(
            mean.abs() < 0.03 && (spread - 1.0).abs() < 0.03,
            "{mean} {spread}"
        );
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.unit())));
    }
}
