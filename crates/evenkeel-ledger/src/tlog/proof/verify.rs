//! The verifier's side, RFC 9162 sections 2.1.3.2 and 2.1.4.2, step by step. The names are the RFC's: `fn` and `sn`
//! walk from the leaf (`first`) and from the last leaf (`second`) to the root.

use crate::Hash;
use crate::merkle::node_hash;

use super::empty_root;

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
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
    /// The proof has more or fewer hashes than one for these sizes.
    #[error("the proof has {hashes} hashes, which is not what these sizes need")]
    Length {
        /// How many it has.
        hashes: usize,
    },
    /// The proof does not lead to the older root.
    #[error(
        "the proof does not lead to the old root: what was there before is not the beginning of the log"
    )]
    OldRoot,
    /// The proof does not lead to the root, the newer one of two.
    #[error("the proof does not lead to the root of the log")]
    Root,
}

/// Checks that the entry with this leaf hash is at `index` (from 0) in the log with this size and root.
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::NoSuchEntry { index, size });
    }
    let length = ProofError::Length {
        hashes: proof.len(),
    };
    let mut walk = Walk {
        first: index,
        second: size - 1,
    };
    let mut hash = *leaf_hash;
    for sibling in proof {
        hash = match walk.step().ok_or(length)? {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
    }
    if walk.second != 0 {
        return Err(length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Checks that the log with the old size and root is the beginning of the one with the new size and root.
///
/// The proof is empty where there is nothing to show, and then the roots must speak for themselves: with equal
/// sizes they must be equal, and a log of size 0 has the one root [`empty_root`].
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    let length = ProofError::Length {
        hashes: proof.len(),
    };
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    if old == 0 && *old_root != empty_root() {
        return Err(ProofError::OldRoot);
    }
    if old == 0 || old == new {
        return match proof {
            [] if old == new && old_root != new_root => Err(ProofError::Root),
            [] => Ok(()),
            _ => Err(length),
        };
    }
    // An old log that is a complete subtree is the first node of the way, and its root is known.
    let (start, rest) = if old.is_power_of_two() {
        if proof.is_empty() {
            return Err(length);
        }
        (old_root, proof)
    } else {
        proof.split_first().ok_or(length)?
    };
    let mut walk = Walk {
        first: old - 1,
        second: new - 1,
    };
    walk.skip_while_right();
    let (mut old_hash, mut new_hash) = (*start, *start);
    for sibling in rest {
        match walk.step().ok_or(length)? {
            Side::Left => {
                old_hash = node_hash(sibling, &old_hash);
                new_hash = node_hash(sibling, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, sibling),
        }
    }
    if walk.second != 0 {
        return Err(length);
    }
    if old_hash != *old_root {
        return Err(ProofError::OldRoot);
    }
    if new_hash != *new_root {
        return Err(ProofError::Root);
    }
    Ok(())
}

/// On which side of the hash so far the next one of the proof is.
enum Side {
    Left,
    Right,
}

/// The way up, as positions on the level reached so far: the RFC's `fn` and `sn`.
struct Walk {
    first: u64,
    second: u64,
}

impl Walk {
    /// Goes over one hash of the proof; `None` at the root, where none can follow.
    fn step(&mut self) -> Option<Side> {
        if self.second == 0 {
            return None;
        }
        let side = if self.first & 1 == 1 || self.first == self.second {
            // On the right edge the levels without a sibling are passed.
            while self.first & 1 == 0 && self.first != 0 {
                self.up();
            }
            Side::Left
        } else {
            Side::Right
        };
        self.up();
        Some(side)
    }

    /// To the root of the largest complete subtree that ends at `first`.
    fn skip_while_right(&mut self) {
        while self.first & 1 == 1 {
            self.up();
        }
    }

    fn up(&mut self) {
        self.first >>= 1;
        self.second >>= 1;
    }
}
