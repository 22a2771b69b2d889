//! Roots, proofs and tiles against `ct-merkle` and `tlog_tiles`, which share no line with this crate: the same
//! bytes where something is made, the same verdict where something is checked, spoiled proofs included.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use evenkeel_ledger::Hash;
use evenkeel_ledger::tlog::Nodes as _;
use evenkeel_ledger::tlog::proof::{
    LeafNodes, consistency, inclusion, leaf_hash, root, verify_consistency, verify_inclusion,
};
use evenkeel_ledger::tlog::tile::{Content, TILE_WIDTH, Tile, encode_hashes};
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::{HashReader, stored_hash_index, stored_hashes};

/// One log in three implementations.
struct Log {
    ours: Vec<Hash>,
    ct: MemoryBackedTree<Sha256, Vec<u8>>,
    tiles: Stored,
}

struct Stored(Vec<tlog_tiles::Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|&at| self.0[index(at)]).collect())
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn theirs(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

fn all_theirs(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(theirs).collect()
}

fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

fn data(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

fn ct_root(root: &Hash, size: u64) -> RootHash<Sha256> {
    RootHash::new((*root.as_bytes()).into(), size)
}

impl Log {
    fn of(size: u64) -> Self {
        let mut log = Self {
            ours: Vec::new(),
            ct: MemoryBackedTree::new(),
            tiles: Stored(Vec::new()),
        };
        for number in 0..size {
            let data = data(number);
            log.ours.push(leaf_hash(&data));
            let stored = stored_hashes(number, &data, &log.tiles).unwrap();
            log.tiles.0.extend(stored);
            log.ct.push(data);
        }
        log
    }

    fn nodes(&self) -> LeafNodes<'_> {
        LeafNodes(&self.ours)
    }
}

/// What is checked, as each implementation is asked.
#[derive(Debug, Clone)]
struct Included {
    leaf: u64,
    index: u64,
    size: u64,
    proof: Vec<Hash>,
    root: Hash,
}

impl Included {
    /// Whether it verifies; all three must agree.
    fn verdict(&self) -> bool {
        let leaf = leaf_hash(&data(self.leaf));
        let (index, size) = (self.index, self.size);
        let ours = verify_inclusion(&leaf, index, size, &self.proof, &self.root).is_ok();
        let ct = ct_root(&self.root, size)
            .verify_inclusion(
                &data(self.leaf),
                index,
                &InclusionProof::from_bytes(bytes(&self.proof)),
            )
            .is_ok();
        let tiles = tlog_tiles::check_record(
            &all_theirs(&self.proof),
            size,
            theirs(&self.root),
            index,
            theirs(&leaf),
        )
        .is_ok();
        assert_eq!((ours, ours), (ct, tiles), "ct-merkle, tlog_tiles: {self:?}");
        ours
    }
}

#[derive(Debug, Clone)]
struct Grown {
    old: u64,
    new: u64,
    proof: Vec<Hash>,
    old_root: Hash,
    new_root: Hash,
}

impl Grown {
    /// Whether it verifies; all three must agree. Only for sizes from 1: the others define nothing for 0.
    fn verdict(&self) -> bool {
        let (old, new) = (self.old, self.new);
        let ours = verify_consistency(old, new, &self.proof, &self.old_root, &self.new_root);
        let ours = ours.is_ok();
        let proof = ConsistencyProof::try_from_bytes(bytes(&self.proof)).unwrap();
        let ct = ct_root(&self.new_root, new)
            .verify_consistency(&ct_root(&self.old_root, old), &proof)
            .is_ok();
        let tiles = tlog_tiles::check_tree(
            &all_theirs(&self.proof),
            new,
            theirs(&self.new_root),
            old,
            theirs(&self.old_root),
        )
        .is_ok();
        assert_eq!((ours, ours), (ct, tiles), "ct-merkle, tlog_tiles: {self:?}");
        ours
    }
}

#[test]
fn roots_and_proofs_are_those_of_other_implementations() {
    for size in (1..=33).chain([63, 64, 65, 100, 127, 128, 129, 255, 256, 257]) {
        let log = Log::of(size);
        let nodes = log.nodes();
        let top = root(&nodes, size).unwrap();
        assert_eq!(top.as_bytes()[..], log.ct.root().as_bytes()[..], "{size}");
        let tiles = tlog_tiles::tree_hash(size, &log.tiles).unwrap();
        assert_eq!(theirs(&top), tiles);
        for number in (0..size).step_by(if size > 33 { 7 } else { 1 }) {
            let proof = inclusion(&nodes, number, size).unwrap();
            let ct = log.ct.prove_inclusion(index(number));
            assert_eq!(bytes(&proof), ct.as_bytes(), "{number} of {size}");
            let tiles = tlog_tiles::prove_record(size, number, &log.tiles).unwrap();
            assert_eq!(all_theirs(&proof), tiles);
            let included = Included {
                leaf: number,
                index: number,
                size,
                proof,
                root: top,
            };
            assert!(included.verdict());

            let old = number + 1;
            let proof = consistency(&nodes, old, size).unwrap();
            let ct = log.ct.prove_consistency(index(size - old));
            assert_eq!(bytes(&proof), ct.as_bytes(), "{old} to {size}");
            let tiles = tlog_tiles::prove_tree(size, old, &log.tiles).unwrap();
            assert_eq!(all_theirs(&proof), tiles);
            let grown = Grown {
                old,
                new: size,
                proof,
                old_root: root(&nodes, old).unwrap(),
                new_root: top,
            };
            assert!(grown.verdict());
        }
    }
}

#[test]
fn tiles_are_those_of_another_implementation() {
    const HEIGHT: u8 = 8;
    for size in [1, 255, 256, 257, 700] {
        let log = Log::of(size);
        let nodes = log.nodes();
        let mut paths = Vec::new();
        for tile in Tile::of_log(size) {
            let Content::Hashes(level) = tile.content() else {
                panic!("{tile}");
            };
            let first = tile.index() * u64::from(TILE_WIDTH);
            let hashes: Vec<Hash> = (first..first + u64::from(tile.width()))
                .map(|at| nodes.node(u32::from(level) * 8, at).unwrap())
                .collect();
            let other =
                tlog_tiles::Tile::new(HEIGHT, level, tile.index(), u32::from(tile.width()), false);
            let read = other.read_data(&log.tiles).unwrap();
            assert_eq!(encode_hashes(&hashes).unwrap(), read, "{tile} of {size}");
            paths.push(with_height(&tile));
        }
        let mut other: Vec<String> = tlog_tiles::Tile::new_tiles(HEIGHT, 0, size)
            .iter()
            .map(tlog_tiles::Tile::path)
            .collect();
        other.sort_unstable();
        paths.sort_unstable();
        assert_eq!(paths, other, "{size}");
    }
    // Their hashes are kept in an order of their own; that ours agree is checked above, this that it is read right.
    assert_eq!(stored_hash_index(1, 0), 2);
}

/// The other crate's paths name the height and call entries data.
fn with_height(tile: &Tile) -> String {
    let path = tile.to_string().replacen("entries", "data", 1);
    path.replacen("tile/", "tile/8/", 1)
}

/// A way to spoil a list of hashes.
#[derive(Debug, Clone)]
enum Spoil {
    Flip(prop::sample::Index, usize),
    CutEnd,
    CutStart,
    Append([u8; 32]),
    Prepend([u8; 32]),
    Swap(prop::sample::Index),
    Double(prop::sample::Index),
    Random(Vec<[u8; 32]>),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0_usize..256).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        1 => Just(Spoil::CutEnd),
        1 => Just(Spoil::CutStart),
        1 => any::<[u8; 32]>().prop_map(Spoil::Append),
        1 => any::<[u8; 32]>().prop_map(Spoil::Prepend),
        1 => at().prop_map(Spoil::Swap),
        1 => at().prop_map(Spoil::Double),
        1 => prop::collection::vec(any::<[u8; 32]>(), 0..12).prop_map(Spoil::Random),
    ]
}

fn flip(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Hash::from_bytes(bytes)
}

impl Spoil {
    fn apply(&self, proof: &mut Vec<Hash>) {
        let length = proof.len();
        match self {
            Self::Append(hash) => proof.push(Hash::from_bytes(*hash)),
            Self::Prepend(hash) => proof.insert(0, Hash::from_bytes(*hash)),
            Self::Random(hashes) => {
                *proof = hashes.iter().copied().map(Hash::from_bytes).collect();
            }
            _ if length == 0 => {}
            Self::Flip(at, bit) => {
                let at = at.index(length);
                proof[at] = flip(&proof[at], *bit);
            }
            Self::CutEnd => proof.truncate(length - 1),
            Self::CutStart => drop(proof.drain(..1)),
            Self::Swap(at) => proof.swap(at.index(length), 0),
            Self::Double(at) => {
                let at = at.index(length);
                proof.insert(at, proof[at]);
            }
        }
    }
}

proptest! {
    /// A spoiled list of hashes is refused by all three.
    #[test]
    fn spoiled_proofs_are_refused_by_all(size in 1_u64..200, at: u64, spoil in spoil()) {
        let log = Log::of(size);
        let nodes = log.nodes();
        let top = root(&nodes, size).unwrap();
        let at = at % size;
        let mut included = Included {
            leaf: at, index: at, size, proof: inclusion(&nodes, at, size).unwrap(), root: top,
        };
        let good = included.proof.clone();
        spoil.apply(&mut included.proof);
        prop_assert_eq!(included.verdict(), included.proof == good);

        let old = at + 1;
        let mut grown = Grown {
            old, new: size, proof: consistency(&nodes, old, size).unwrap(),
            old_root: root(&nodes, old).unwrap(), new_root: top,
        };
        let good = grown.proof.clone();
        spoil.apply(&mut grown.proof);
        prop_assert_eq!(grown.verdict(), grown.proof == good);
    }

    /// Wrong places, sizes and roots, together with spoiled hashes: the same verdict by all three. (Not always a
    /// refusal: one path may be that of logs of several sizes. The root says which size it is of only because both
    /// are signed together.)
    #[test]
    fn verdicts_are_those_of_other_implementations(
        size in 1_u64..100, at: u64, other_at in 0_u64..110, other_size in 1_u64..110,
        which in 0_u8..64, bit in 0_usize..256, spoil in spoil(),
    ) {
        let log = Log::of(size);
        let nodes = log.nodes();
        let top = root(&nodes, size).unwrap();
        let at = at % size;
        let has = |flag: u8| which & flag != 0;
        let mut included = Included {
            leaf: at, index: at, size, proof: inclusion(&nodes, at, size).unwrap(), root: top,
        };
        if has(1) { included.leaf = other_at; }
        if has(2) { included.index = other_at; }
        if has(4) { included.size = other_size; }
        if has(8) { included.root = flip(&top, bit); }
        if has(16) { spoil.apply(&mut included.proof); }
        let right = included.leaf == at && included.root == top;
        prop_assert!(!included.verdict() || right);

        let old = at + 1;
        let mut grown = Grown {
            old, new: size, proof: consistency(&nodes, old, size).unwrap(),
            old_root: root(&nodes, old).unwrap(), new_root: top,
        };
        if has(1) { grown.old = other_at.max(1); }
        if has(2) { grown.new = other_size; }
        if has(4) { grown.old_root = flip(&grown.old_root, bit); }
        if has(8) { grown.new_root = flip(&top, bit); }
        if has(16) { spoil.apply(&mut grown.proof); }
        grown.verdict();
    }

    #[test]
    fn tile_paths_are_those_of_another_implementation(
        level in 0_u8..64, index: u64, shift in 0_u32..64, width in 1..=TILE_WIDTH, tail in "[0-9x/.p]{1,24}",
    ) {
        let index = index >> shift;
        for (content, is_data) in [(Content::Hashes(level), false), (Content::Entries, true)] {
            let tile = Tile::new(content, index, width).unwrap();
            let level = if is_data { 0 } else { level };
            let other = tlog_tiles::Tile::new(8, level, index, u32::from(width), is_data);
            prop_assert_eq!(with_height(&tile), other.path());
        }
        // A width of 0 they answer with a panic.
        if !tail.contains(".p/0") {
            let ours = Tile::parse(&format!("tile/{level}/{tail}"));
            let other = tlog_tiles::Tile::from_path(&format!("tile/8/{level}/{tail}"));
            prop_assert_eq!(ours.is_ok(), other.is_ok(), "{}", tail);
        }
    }
}
