//! Where a masked line belongs: a tree of fixed depth (how many tokens, then the first word), and the most similar
//! template in the leaf.
//!
//! After Drain (He, Zhu, Zheng and Lyu: "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017),
//! with three differences. Parameters say nothing about likeness: only words are compared. A leaf that has become
//! crowded takes lines that differ more, and so does not grow with every name that a log mentions. And both the
//! likeness that was enough once and the way through the tree stay enough: the line that a template was made of always
//! finds its way back to it, so that no template is made twice while the first one is there.

use std::collections::BTreeMap;

use super::mask::Masked;
use super::one::Template;
use crate::limits::{LINE_TOKENS_MAX, TEMPLATE_HEADS_MAX, TEMPLATE_LEAF_MAX};

/// Where in the tree: how many tokens, and the hash of the first word, 0 for all others.
pub(super) type LeafKey = (usize, u64);

/// Levels of loggers: they stand in every line, and so lead nowhere.
const LEVELS: [&str; 12] = [
    "trace", "debug", "info", "notice", "warn", "warning", "error", "err", "severe", "critical",
    "fatal", "panic",
];
/// Out of ten words of a log line, those that must be its template's own.
const LIKE: usize = 7;
/// Out of ten words of a log line, those that must be its template's own where too many templates are kept together.
const LIKE_IN_CROWD: usize = 5;

#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    /// Indices of its templates, in the order of their birth.
    pub(super) members: Vec<usize>,
    /// It has had too many templates at once; stays so while it has any.
    pub(super) is_crowded: bool,
}

#[derive(Clone, Debug, Default)]
struct Length {
    /// Leaves of this length that have a first word of their own.
    heads: usize,
    /// There have been too many at once; no further one gets a leaf of its own while there is any leaf.
    is_full: bool,
    leaves: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    leaves: BTreeMap<LeafKey, Leaf>,
    lengths: BTreeMap<usize, Length>,
}

impl Tree {
    /// The leaf of this line: the one that is there, or the one that it would open.
    pub(super) fn key(&self, line: &Masked) -> LeafKey {
        let length = line.tokens().len();
        let own = (length, head(line));
        let is_full = self.lengths.get(&length).is_some_and(|l| l.is_full);
        if is_full && !self.leaves.contains_key(&own) {
            (length, 0)
        } else {
            own
        }
    }

    /// The template in this leaf that the line belongs to.
    pub(super) fn find(&self, key: LeafKey, line: &Masked, all: &[Template]) -> Option<usize> {
        let leaf = self.leaves.get(&key)?;
        let least = if leaf.is_crowded { LIKE_IN_CROWD } else { LIKE };
        let mut best = None;
        let mut most = (0, 0);
        for index in &leaf.members {
            let likeness = all[*index].likeness(line);
            let is_enough = 10 * likeness.words >= least * likeness.of;
            let this = (likeness.words, likeness.same);
            if is_enough && (best.is_none() || this > most) {
                best = Some(*index);
                most = this;
                if likeness.same == line.tokens().len() {
                    break;
                }
            }
        }
        best
    }

    /// Puts a template there.
    pub(super) fn put(&mut self, key: LeafKey, index: usize) {
        let length = self.lengths.entry(key.0).or_default();
        let leaf = self.leaves.entry(key).or_insert_with(|| {
            length.leaves += 1;
            length.heads += usize::from(key.1 != 0);
            Leaf::default()
        });
        length.is_full |= length.heads >= TEMPLATE_HEADS_MAX;
        leaf.members.push(index);
        leaf.is_crowded |= leaf.members.len() > TEMPLATE_LEAF_MAX;
    }

    /// Takes it away again, and its leaf when it is empty.
    pub(super) fn take(&mut self, key: LeafKey, index: usize) {
        let Some(leaf) = self.leaves.get_mut(&key) else {
            return;
        };
        leaf.members.retain(|m| *m != index);
        if !leaf.members.is_empty() {
            return;
        }
        self.leaves.remove(&key);
        if let Some(length) = self.lengths.get_mut(&key.0) {
            length.leaves -= 1;
            length.heads -= usize::from(key.1 != 0);
            if length.leaves == 0 {
                self.lengths.remove(&key.0);
            }
        }
    }

    /// The lengths that are full and the leaves that are crowded, for a saved state.
    pub(super) fn marks(&self) -> (Vec<usize>, Vec<LeafKey>) {
        let full = self
            .lengths
            .iter()
            .filter(|(_, l)| l.is_full)
            .map(|(n, _)| *n);
        let crowded = self
            .leaves
            .iter()
            .filter(|(_, l)| l.is_crowded)
            .map(|(k, _)| *k);
        (full.collect(), crowded.collect())
    }

    /// Sets them again; whatever is not there is left out.
    pub(super) fn mark(&mut self, full: &[usize], crowded: &[LeafKey]) {
        for length in full {
            if let Some(length) = self.lengths.get_mut(length) {
                length.is_full = true;
            }
        }
        for key in crowded {
            if let Some(leaf) = self.leaves.get_mut(key) {
                leaf.is_crowded = true;
            }
        }
    }
}

/// Hash of the first word that is no level; 0 when there is none.
fn head(line: &Masked) -> u64 {
    let words = line.words();
    debug_assert!(line.tokens().len() <= LINE_TOKENS_MAX);
    line.tokens()
        .iter()
        .enumerate()
        .filter(|(i, _)| words >> i & 1 == 1)
        .find(|(_, t)| !is_level(line.text_of(t)))
        .map_or(0, |(_, t)| t.hash)
}

fn is_level(token: &str) -> bool {
    let bare = token.trim_matches(|c: char| c.is_ascii_punctuation());
    bare.len() <= 8 && LEVELS.iter().any(|level| bare.eq_ignore_ascii_case(level))
}
