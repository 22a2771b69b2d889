//! The Merkle tree of RFC 6962 over leaf hashes, streaming. Pure.
//!
//! [`Frontier`] keeps the roots of the complete subtrees only: 64 hashes at most, whatever the log's length.

use sha2::{Digest, Sha256};

use crate::Hash;

/// RFC 6962's prefix for the hash of two subtrees.
const NODE_PREFIX: u8 = 0x01;

/// SHA-256(0x01 | left | right), RFC 6962 section 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut sha = Sha256::new_with_prefix([NODE_PREFIX]);
    sha.update(left.as_bytes());
    sha.update(right.as_bytes());
    Hash::from_bytes(sha.finalize().into())
}

/// The right edge of a growing tree: one root for each bit that is set in the number of leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    leaves: u64,
    /// Roots of complete subtrees, the largest first.
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves so far.
    pub fn len(&self) -> u64 {
        self.leaves
    }

    /// Whether there is no leaf yet.
    pub fn is_empty(&self) -> bool {
        self.leaves == 0
    }

    /// Adds a leaf by its leaf hash (the entry's `entry_hash`).
    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf, |_, _, _| {});
    }

    /// Adds the root of a complete subtree of 2^`height` leaves; the leaves so far must be a multiple of that. Tells
    /// `complete` of each subtree that is complete now, itself first: height, position among those of its height, root.
    pub(crate) fn push_subtree(
        &mut self,
        height: u32,
        root: Hash,
        mut complete: impl FnMut(u32, u64, &Hash),
    ) {
        debug_assert_eq!(self.leaves & ((1 << height) - 1), 0, "subtrees are aligned");
        let (mut at, mut position, mut hash) = (height, self.leaves >> height, root);
        complete(at, position, &hash);
        // Each trailing one of the count is a complete subtree that waits for a sibling of its height.
        while position & 1 == 1
            && let Some(left) = self.subtrees.pop()
        {
            hash = node_hash(&left, &hash);
            at += 1;
            position >>= 1;
            complete(at, position, &hash);
        }
        self.subtrees.push(hash);
        self.leaves += 1 << height;
    }

    /// The root, RFC 6962's MTH; of the empty tree SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(last) = subtrees.next() else {
            return Hash::of(b"");
        };
        subtrees.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 6962 section 2.1 word for word: split at the largest power of two smaller than n.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of(b""),
            [only] => *only,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&mth(&leaves[..split]), &mth(&leaves[split..]))
            }
        }
    }

    fn leaf(data: &[u8]) -> Hash {
        Hash::of(&[&[0], data].concat())
    }

    /// The eight inputs that Certificate Transparency's own tests use; roots computed with Python's hashlib
    /// by the recursive definition.
    #[test]
    fn small_trees_have_the_known_roots() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Frontier::new();
        assert!(tree.is_empty());
        assert_eq!(tree.root().to_string(), roots[0]);
        for (input, root) in inputs.iter().zip(&roots[1..]) {
            tree.push(leaf(input));
            assert_eq!(tree.root().to_string(), *root, "{} leaves", tree.len());
        }
    }

    proptest! {
        #[test]
        fn streaming_equals_the_recursive_definition(leaves in 0_u16..300) {
            let hashes: Vec<Hash> = (0..leaves).map(|n| leaf(&n.to_be_bytes())).collect();
            let mut tree = Frontier::new();
            for hash in &hashes {
                tree.push(*hash);
            }
            prop_assert_eq!(tree.len(), u64::from(leaves));
            prop_assert!(tree.subtrees.len() <= 64);
            prop_assert_eq!(tree.root(), mth(&hashes));
        }

        /// Whole subtrees, or leaf after leaf: the same tree, and the same subtrees are told of.
        #[test]
        fn subtrees_can_be_pushed_whole(tiles in 0_u64..20, rest in 0_u16..16) {
            let hashes: Vec<Hash> = (0..u16::try_from(tiles).unwrap() * 16 + rest).map(|n| leaf(&n.to_be_bytes())).collect();
            let (mut one, mut other) = (Frontier::new(), Frontier::new());
            let (mut told_one, mut told_other) = (Vec::new(), Vec::new());
            for hash in &hashes {
                one.push_subtree(0, *hash, |height, position, hash| told_one.push((height, position, *hash)));
            }
            let (whole, single) = hashes.split_at(hashes.len() / 16 * 16);
            for tile in whole.chunks(16) {
                other.push_subtree(4, mth(tile), |height, position, hash| told_other.push((height, position, *hash)));
            }
            for hash in single {
                other.push_subtree(0, *hash, |height, position, hash| told_other.push((height, position, *hash)));
            }
            prop_assert_eq!(&one, &other);
            let in_tiles = usize::try_from(tiles).unwrap() * 16;
            told_one.retain(|(height, position, _)| *height >= 4 || (usize::try_from(*position).unwrap() << height) >= in_tiles);
            prop_assert_eq!(told_one, told_other);
        }
    }
}
