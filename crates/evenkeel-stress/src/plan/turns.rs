//! Whose turn it is among several requests, and with which row of data.

use std::sync::Arc;

use crate::data::Rows;
use crate::request::Prepared;

/// Prepared requests and whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns {
    prepared: Vec<Prepared>,
    order: Vec<u16>,
    data: Option<Arc<Rows>>,
}

impl Turns {
    pub(crate) fn new(weights: &[u32], prepared: Vec<Prepared>, data: Option<Arc<Rows>>) -> Self {
        Self {
            prepared,
            order: turns(weights),
            data,
        }
    }

    /// The requests' names, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.prepared.iter().map(|p| p.name.as_str())
    }

    /// Which request the `n`th turn is for.
    pub(crate) fn index(&self, n: u64) -> usize {
        let place = n % self.order.len() as u64;
        usize::try_from(place).map_or(0, |p| usize::from(self.order[p]))
    }

    /// A request by its place.
    pub(crate) fn request(&self, index: usize) -> &Prepared {
        &self.prepared[index]
    }

    /// The row for the `n`th turn.
    pub(crate) fn row(&self, n: u64) -> Option<&[String]> {
        self.data.as_ref().map(|rows| rows.row(n))
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
    use super::turns;

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(turns(&[20, 20]), [0, 1]);
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }
}
