//! Inclusion and consistency proofs by the algorithms of RFC 6962 and RFC 9162, unchanged.
//!
//! A log's tree is asked for the roots of complete subtrees only ([`Nodes`]), which never change once they exist
//! and may so be kept. A proof asks for the largest that will do: at most two for each of its hashes, whatever
//! the log's size.
//!
//! To verify ([`verify_inclusion`], [`verify_consistency`]) neither a log nor trust in it is needed: a leaf's hash,
//! sizes and roots of checkpoints, and the proof.

use crate::Hash;
use crate::merkle::node_hash;

mod verify;

pub use verify::{ProofError, verify_consistency, verify_inclusion};

/// The most hashes in an inclusion proof, that of a log of nearly 2^64 entries.
pub const INCLUSION_HASHES_MAX: usize = 64;

/// The most hashes in a consistency proof. More than 64 are only needed between logs of over 2^63 entries.
pub const CONSISTENCY_HASHES_MAX: usize = 65;

/// RFC 6962's root of the log without entries: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Hash::of(b"")
}

/// RFC 6962's hash of a leaf: SHA-256(0x00 | data).
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut prefixed = Vec::with_capacity(data.len() + 1);
    prefixed.push(0x00);
    prefixed.extend_from_slice(data);
    Hash::of(&prefixed)
}

/// Where the hashes of a log's complete subtrees come from.
pub trait Nodes {
    /// Why a hash could not be had.
    type Error;

    /// The root of the complete subtree over the leaves `index << level` up to `(index + 1) << level`, exclusive;
    /// level 0 (of 63) is a leaf's hash. Only subtrees within the size given to the caller are asked for.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

impl<N: Nodes + ?Sized> Nodes for &N {
    type Error = N::Error;

    fn node(&self, level: u32, index: u64) -> Result<Hash, N::Error> {
        (**self).node(level, index)
    }
}

/// Why a proof could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError<E> {
    /// There is no such entry in a log of that size.
    #[error("the log of {size} entries has no entry with the index {index}")]
    NoSuchEntry {
        /// The entry, from 0.
        index: u64,
        /// Number of entries.
        size: u64,
    },
    /// The older log is larger than the newer one.
    #[error("a log of {new} entries cannot have grown from one of {old}")]
    Shrunk {
        /// Number of entries before.
        old: u64,
        /// Number of entries after.
        new: u64,
    },
    /// A hash of the tree could not be had.
    #[error(transparent)]
    Nodes(#[from] E),
}

/// The root of the log's first `size` entries: RFC 6962's MTH. Asks for one node for each bit set in `size`.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 {
        return Ok(empty_root());
    }
    range_root(nodes, 0, size)
}

/// The proof that the entry is in the log's first `size` entries: RFC 6962 section 2.1.1, PATH. From the leaf's
/// sibling up to a child of the root.
pub fn inclusion<N: Nodes>(
    nodes: &N,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<N::Error>> {
    if index >= size {
        return Err(ProveError::NoSuchEntry { index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = split(start, end);
        if index < middle {
            path.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the log's first `old` entries are the beginning of its first `new` ones: RFC 6962 section 2.1.2,
/// PROOF. Empty where there is nothing to show: `old` is 0 or equals `new`.
pub fn consistency<N: Nodes>(
    nodes: &N,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<N::Error>> {
    if old > new {
        return Err(ProveError::Shrunk { old, new });
    }
    let mut proof = Vec::new();
    if old == 0 {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    while end != old {
        let middle = split(start, end);
        if old <= middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    // The subtree that ends where the old log does; the whole old log is known to whoever verifies.
    if start != 0 {
        proof.push(range_root(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Where RFC 6962 splits a range of at least two leaves: after the largest power of two that leaves a right side.
fn split(start: u64, end: u64) -> u64 {
    let below = end - start - 1;
    start + (1 << below.ilog2())
}

/// The root over a range that is not empty and whose start is a multiple of a power of two not below its length,
/// as all ranges are that [`split`] makes: complete subtrees, the smallest at the right.
fn range_root<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let mut at = end;
    let mut right: Option<Hash> = None;
    while at > start {
        let level = (at - start).trailing_zeros();
        at -= 1 << level;
        let left = nodes.node(level, at >> level)?;
        right = Some(match right {
            None => left,
            Some(right) => node_hash(&left, &right),
        });
    }
    Ok(right.unwrap_or_else(empty_root))
}

/// The leaf hashes of a small log in memory. Each node is computed anew from its leaves.
#[derive(Debug, Clone, Copy)]
pub struct LeafNodes<'a>(pub &'a [Hash]);

/// A subtree was asked for that the leaves at hand do not fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log at hand has only {leaves} entries")]
pub struct NotInLog {
    /// How many leaves there are.
    pub leaves: usize,
}

impl Nodes for LeafNodes<'_> {
    type Error = NotInLog;

    fn node(&self, level: u32, index: u64) -> Result<Hash, NotInLog> {
        let missing = NotInLog {
            leaves: self.0.len(),
        };
        let width = 1_usize.checked_shl(level).ok_or(missing)?;
        let start = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(width))
            .ok_or(missing)?;
        let end = start.checked_add(width).ok_or(missing)?;
        let mut row = self.0.get(start..end).ok_or(missing)?.to_vec();
        while let [first, rest @ ..] = row.as_slice() {
            if rest.is_empty() {
                return Ok(*first);
            }
            row = row
                .chunks_exact(2)
                .map(|pair| node_hash(&pair[0], &pair[1]))
                .collect();
        }
        Err(missing)
    }
}

#[cfg(test)]
mod tests;
