//! Log-gamma and the tails that rest on it.

use std::f64::consts::TAU;

/// Steps of a series or continued fraction at most; with arguments up to a million some thousands are needed.
const STEPS_MAX: u32 = 20_000;
/// A term that changes less than this no longer counts.
const ENOUGH: f64 = 1e-15;
/// Stands in for a zero in a continued fraction.
const TINY: f64 = 1e-300;
/// Lanczos' shift for the coefficients below.
const SHIFT: f64 = 7.0;
/// Lanczos' coefficients (Lanczos 1964; Godfrey 2001 for 15 digits).
const LANCZOS: [f64; 9] = [
    0.999_999_999_999_809_9,
    676.520_368_121_885_1,
    -1_259.139_216_722_402_8,
    771.323_428_777_653_1,
    -176.615_029_162_140_6,
    12.507_343_278_686_905,
    -0.138_571_095_265_720_12,
    9.984_369_578_019_572e-6,
    1.505_632_735_149_311_6e-7,
];

/// Logarithm of the gamma function of `x > 0`; relative error about 1e-14.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    if x < 0.5 {
        // Reflection: gamma(x) gamma(1 - x) = pi / sin(pi x).
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = (1..9).fold(LANCZOS[0], |sum, i| {
        sum + LANCZOS.get(i).unwrap_or(&0.0) / (x + i as f64)
    });
    let t = x + SHIFT + 0.5;
    0.5 * TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Logarithm of the beta function.
pub(super) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Regularised lower incomplete gamma function, `P(a, x)`: the probability that a Poisson variable with mean `x` is at
/// least `a`. By series below `a + 1` and by Legendre's continued fraction above (Abramowitz & Stegun 6.5.29, 6.5.31).
pub(super) fn gamma_p(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..STEPS_MAX {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * ENOUGH {
                break;
            }
        }
        (front * sum).min(1.0)
    } else {
        let mut divisor = x + 1.0 - a;
        let (mut above, mut below) = (1.0 / TINY, 1.0 / divisor);
        let mut fraction = below;
        for step in 1..STEPS_MAX {
            let step = f64::from(step);
            let factor = -step * (step - a);
            divisor += 2.0;
            below = 1.0 / not_zero(factor * below + divisor);
            above = not_zero(divisor + factor / above);
            fraction *= below * above;
            if (below * above - 1.0).abs() < ENOUGH {
                break;
            }
        }
        (1.0 - front * fraction).clamp(0.0, 1.0)
    }
}

/// Regularised incomplete beta function, `I_x(a, b)`: the probability that of `n` independent events with probability
/// `x` at least `a` happen, with `b = n - a + 1`. By its continued fraction (Abramowitz & Stegun 26.5.8), evaluated
/// as Lentz (1976) does.
pub(super) fn beta_i(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        (front * beta_fraction(x, a, b) / a).min(1.0)
    } else {
        (1.0 - front * beta_fraction(1.0 - x, b, a) / b).clamp(0.0, 1.0)
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let mut above = 1.0;
    let mut below = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = below;
    for step in 1..STEPS_MAX {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for factor in [even, odd] {
            below = 1.0 / not_zero(1.0 + factor * below);
            above = not_zero(1.0 + factor / above);
            fraction *= below * above;
        }
        if (below * above - 1.0).abs() < ENOUGH {
            break;
        }
    }
    fraction
}

fn not_zero(value: f64) -> f64 {
    if value.abs() < TINY { TINY } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        let error = (found - expected).abs() / expected.abs().max(1e-300);
        assert!(error < 1e-11, "{found} is not {expected}");
    }

    #[test]
    fn log_gamma_has_known_values() {
        let pi = std::f64::consts::PI;
        close(ln_gamma(0.5), pi.sqrt().ln());
        close(ln_gamma(1.5), (pi.sqrt() / 2.0).ln());
        close(ln_gamma(0.25), 1.288_022_524_698_077_5);
        close(ln_gamma(5.0), 24_f64.ln());
        close(ln_gamma(171.0), 706.573_062_245_787_4);
        close(ln_gamma(1e6), 12_815_504.569_147_612);
        assert!(ln_gamma(1.0).abs() < 1e-14 && ln_gamma(2.0).abs() < 1e-14);
        // 10! by the sum of logarithms, and the recurrence at an odd place.
        let sum: f64 = (1..=10).map(|i| f64::from(i).ln()).sum();
        close(ln_gamma(11.0), sum);
        close(ln_gamma(4.2), ln_gamma(3.2) + 3.2_f64.ln());
    }

    #[test]
    fn a_poisson_tail_is_the_sum_of_its_terms() {
        for (k, mean) in [(1, 0.3), (5, 2.0), (3, 10.0), (40, 20.0), (10, 60.0)] {
            let mut term = f64::exp(-mean);
            let mut below = 0.0;
            for i in 0..k {
                below += term;
                term *= mean / f64::from(i + 1);
            }
            let found = gamma_p(f64::from(k), mean);
            assert!((found - (1.0 - below)).abs() < 1e-12, "{k} {mean}");
        }
        // Far out: 1 - exp(-m) for one event, and the leading term for many.
        close(gamma_p(1.0, 1e-8), -(-1e-8_f64).exp_m1());
        let leading = (30.0 * 1e-2_f64.ln() - 1e-2 - ln_gamma(31.0)).exp();
        assert!((gamma_p(30.0, 1e-2) / leading - 1.0).abs() < 1e-3);
    }

    #[test]
    fn a_binomial_tail_is_the_sum_of_its_terms() {
        for (k, n, p) in [(1, 10, 0.1), (3, 10, 0.5), (9, 12, 0.2), (60, 100, 0.5)] {
            let term = |i: u32| {
                let (i, n) = (f64::from(i), f64::from(n));
                let choose = ln_gamma(n + 1.0) - ln_gamma(i + 1.0) - ln_gamma(n - i + 1.0);
                (choose + i * f64::ln(p) + (n - i) * f64::ln(1.0 - p)).exp()
            };
            let sum: f64 = (k..=n).map(term).sum();
            close(beta_i(p, f64::from(k), f64::from(n - k + 1)), sum);
        }
        close(beta_i(0.3, 1.0, 1.0), 0.3);
        assert!((beta_i(0.5, 1e5, 1e5) - 0.5).abs() < 1e-8);
    }
}
