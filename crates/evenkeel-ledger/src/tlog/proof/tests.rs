//! Proofs: against the definition, against each other, and against spoiled ones.

use std::cell::Cell;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::merkle::Frontier;

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// RFC 6962 section 2.1.1, word for word.
fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
    if d.len() == 1 {
        return Vec::new();
    }
    let k = d.len().next_power_of_two() / 2;
    let (mut path, other) = if m < k {
        (path(m, &d[..k]), mth(&d[k..]))
    } else {
        (path(m - k, &d[k..]), mth(&d[..k]))
    };
    path.push(other);
    path
}

/// RFC 6962 section 2.1.2, word for word.
fn subproof(m: usize, d: &[Hash], b: bool) -> Vec<Hash> {
    if m == d.len() {
        return if b { Vec::new() } else { vec![mth(d)] };
    }
    let k = d.len().next_power_of_two() / 2;
    let (mut proof, other) = if m <= k {
        (subproof(m, &d[..k], b), mth(&d[k..]))
    } else {
        (subproof(m - k, &d[k..], false), mth(&d[..k]))
    };
    proof.push(other);
    proof
}

fn mth(d: &[Hash]) -> Hash {
    let mut tree = Frontier::new();
    for leaf in d {
        tree.push(*leaf);
    }
    tree.root()
}

#[test]
fn every_small_log_has_the_rfcs_roots_and_proofs_and_they_verify() {
    const LARGEST: u64 = 40;
    let all = leaves(40);
    let nodes = LeafNodes(&all);
    let roots: Vec<Hash> = (0..=all.len()).map(|size| mth(&all[..size])).collect();
    for (size, d) in (0..=LARGEST).zip((0..=all.len()).map(|size| &all[..size])) {
        let new_root = roots[d.len()];
        assert_eq!(root(&nodes, size), Ok(new_root));
        for (index, leaf) in (0..size).zip(d) {
            let m = usize::try_from(index).unwrap();
            let proof = inclusion(&nodes, index, size).unwrap();
            assert_eq!(proof, path(m, d), "{index} of {size}");
            assert_eq!(
                verify_inclusion(leaf, index, size, &proof, &new_root),
                Ok(())
            );
        }
        for (old, old_root) in (0..=size).zip(&roots) {
            let m = usize::try_from(old).unwrap();
            let proof = consistency(&nodes, old, size).unwrap();
            if old > 0 {
                assert_eq!(proof, subproof(m, d, true), "{old} to {size}");
            }
            assert_eq!(
                verify_consistency(old, size, &proof, old_root, &new_root),
                Ok(())
            );
        }
    }
}

/// A proof for one entry and size shows nothing of any other, though its hashes are right.
#[test]
fn a_proof_fits_its_own_place_only() {
    const LARGEST: u64 = 17;
    let all = leaves(17);
    let nodes = LeafNodes(&all);
    for size in 1..=LARGEST {
        for index in 0..size {
            let proof = inclusion(&nodes, index, size).unwrap();
            for (other_size, other) in
                (1..=LARGEST).flat_map(|size| (0..LARGEST).map(move |index| (size, index)))
            {
                let root = root(&nodes, other_size).unwrap();
                let leaf = nodes.node(0, index).unwrap();
                let verdict = verify_inclusion(&leaf, other, other_size, &proof, &root);
                assert_eq!(
                    verdict.is_ok(),
                    (other, other_size) == (index, size),
                    "{index} of {size} as {other} of {other_size}"
                );
            }
        }
    }
}

#[test]
fn questions_without_an_answer_are_errors() {
    let all = leaves(4);
    let nodes = LeafNodes(&all);
    assert_eq!(
        inclusion(&nodes, 4, 4),
        Err(ProveError::NoSuchEntry { index: 4, size: 4 })
    );
    assert_eq!(
        inclusion(&nodes, 0, 0),
        Err(ProveError::NoSuchEntry { index: 0, size: 0 })
    );
    assert_eq!(
        consistency(&nodes, 4, 3),
        Err(ProveError::Shrunk { old: 4, new: 3 })
    );
    let missing = NotInLog { leaves: 4 };
    assert_eq!(root(&nodes, 5), Err(missing));
    assert_eq!(root(&nodes, u64::MAX), Err(missing));
    assert_eq!(inclusion(&nodes, 0, 5), Err(ProveError::Nodes(missing)));
    assert_eq!(nodes.node(u32::MAX, 0), Err(missing));
    assert_eq!(nodes.node(63, u64::MAX), Err(missing));

    let hash = Hash::ZERO;
    assert_eq!(
        verify_inclusion(&hash, 4, 4, &[], &hash),
        Err(ProofError::NoSuchEntry { index: 4, size: 4 })
    );
    assert_eq!(
        verify_inclusion(&hash, 0, 0, &[], &hash),
        Err(ProofError::NoSuchEntry { index: 0, size: 0 })
    );
    assert_eq!(
        verify_consistency(2, 1, &[], &hash, &hash),
        Err(ProofError::Shrunk { old: 2, new: 1 })
    );
}

#[test]
fn an_empty_proof_shows_only_what_needs_none() {
    let (a, b, empty) = (Hash::of(b"a"), Hash::of(b"b"), empty_root());
    assert_eq!(verify_consistency(0, 5, &[], &empty, &a), Ok(()));
    assert_eq!(verify_consistency(0, 0, &[], &empty, &empty), Ok(()));
    assert_eq!(verify_consistency(5, 5, &[], &a, &a), Ok(()));
    let length = |hashes| Err(ProofError::Length { hashes });
    let cases = [
        (0, 0, &[][..], empty, a, Err(ProofError::Root)),
        (0, 5, &[], a, a, Err(ProofError::OldRoot)),
        (0, 5, &[a], empty, a, length(1)),
        (5, 5, &[], a, b, Err(ProofError::Root)),
        (5, 5, &[a], a, a, length(1)),
        (4, 5, &[], a, a, length(0)),
        (3, 5, &[], a, a, length(0)),
        (1, 2, &[], a, a, length(0)),
    ];
    for (old, new, proof, old_root, new_root, verdict) in cases {
        assert_eq!(
            verify_consistency(old, new, proof, &old_root, &new_root),
            verdict,
            "{old} to {new}"
        );
    }
}

/// A log that exists only as a rule: every node's hash follows from its place. Counts what is asked for, and that
/// it lies within the log.
struct Endless {
    size: u64,
    asked: Cell<usize>,
}

impl Endless {
    fn new(size: u64) -> Self {
        let asked = Cell::new(0);
        Self { size, asked }
    }
}

impl Nodes for Endless {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        assert!(level < 64);
        let last = (u128::from(index) + 1) << level;
        assert!(last <= u128::from(self.size), "{level} {index}");
        self.asked.set(self.asked.get() + 1);
        // All leaves are alike, so that the root of a subtree depends on its level alone and is quickly had.
        Ok((0..level).fold(leaf_hash(b"alike"), |hash, _| node_hash(&hash, &hash)))
    }
}

#[test]
fn the_largest_logs_have_short_proofs() {
    for size in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1, 1 << 62, 3] {
        for index in [0, 1, 2, size / 2, size - 2, size - 1] {
            let nodes = Endless::new(size);
            let top = root(&nodes, size).unwrap();
            let proof = inclusion(&nodes, index, size).unwrap();
            assert!(proof.len() <= INCLUSION_HASHES_MAX);
            let leaf = leaf_hash(b"alike");
            assert_eq!(verify_inclusion(&leaf, index, size, &proof, &top), Ok(()));
            let old = index + 1;
            let old_root = root(&nodes, old).unwrap();
            let proof = consistency(&nodes, old, size).unwrap();
            assert!(proof.len() <= CONSISTENCY_HASHES_MAX);
            assert_eq!(
                verify_consistency(old, size, &proof, &old_root, &top),
                Ok(())
            );
        }
    }
    let longest = consistency(&Endless::new(u64::MAX), 3, u64::MAX).unwrap();
    assert_eq!(longest.len(), CONSISTENCY_HASHES_MAX);
    let longest = inclusion(&Endless::new(u64::MAX), 0, u64::MAX).unwrap();
    assert_eq!(longest.len(), INCLUSION_HASHES_MAX);
}

#[test]
fn few_nodes_are_asked_for() {
    let nodes = Endless::new(1_000_000_000);
    root(&nodes, nodes.size).unwrap();
    assert_eq!(nodes.asked.take(), 13, "bits set in the size");
    inclusion(&nodes, 123_456_789, nodes.size).unwrap();
    assert!(nodes.asked.take() <= 2 * 30);
    consistency(&nodes, 123_456_789, nodes.size).unwrap();
    assert!(nodes.asked.take() <= 2 * 31);
}

/// One hash changed, the first or the last left out, one added.
fn changed(
    proof: &[Hash],
    at: prop::sample::Index,
    flip: impl Fn(&Hash) -> Hash,
    more: Hash,
) -> [Vec<Hash>; 4] {
    let mut flipped = proof.to_vec();
    let at = at.index(proof.len());
    flipped[at] = flip(&proof[at]);
    let longer = [proof, &[more]].concat();
    let shorter = proof[..proof.len() - 1].to_vec();
    [flipped, longer, shorter, proof[1..].to_vec()]
}

proptest! {
    #[test]
    fn no_proof_panics(
        a: u64, b: u64, hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..70), root: [u8; 32],
    ) {
        let proof: Vec<Hash> = hashes.into_iter().map(Hash::from_bytes).collect();
        let root = Hash::from_bytes(root);
        for (a, b) in [(a, b), (a % 100, b % 100), (a, u64::MAX), (u64::MAX, u64::MAX), (0, b)] {
            prop_assert!(verify_inclusion(&root, a, b, &proof, &root).is_err() || b == 1);
            let _ = verify_consistency(a, b, &proof, &root, &root);
        }
    }

    #[test]
    fn a_changed_proof_is_refused(
        size in 2_u64..300, at: u64, old: u64, hash: prop::sample::Index, bit in 0_usize..256,
    ) {
        let all = leaves(usize::try_from(size).unwrap());
        let nodes = LeafNodes(&all);
        let top = root(&nodes, size).unwrap();
        let (index, old) = (at % size, 1 + old % (size - 1));
        let leaf = nodes.node(0, index).unwrap();
        let old_root = root(&nodes, old).unwrap();
        let flip = |hash: &Hash| {
            let mut bytes = *hash.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Hash::from_bytes(bytes)
        };
        let inclusion = inclusion(&nodes, index, size).unwrap();
        let consistency = consistency(&nodes, old, size).unwrap();
        for proof in changed(&inclusion, hash, flip, top) {
            prop_assert!(verify_inclusion(&leaf, index, size, &proof, &top).is_err());
        }
        for proof in changed(&consistency, hash, flip, top) {
            prop_assert!(verify_consistency(old, size, &proof, &old_root, &top).is_err());
        }
        prop_assert_eq!(
            verify_inclusion(&flip(&leaf), index, size, &inclusion, &top), Err(ProofError::Root)
        );
        prop_assert_eq!(
            verify_inclusion(&leaf, index, size, &inclusion, &flip(&top)), Err(ProofError::Root)
        );
        prop_assert!(verify_consistency(old, size, &consistency, &flip(&old_root), &top).is_err());
        prop_assert!(verify_consistency(old, size, &consistency, &old_root, &flip(&top)).is_err());
    }
}
