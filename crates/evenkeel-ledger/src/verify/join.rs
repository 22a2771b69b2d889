//! Joining the pieces of a log in order: the tree over all of it, compared with every checkpoint on the way, those of
//! the file and those from elsewhere; and the sums that only the whole has.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::scan::{Chunk, Cosigned, Gone, Plan};
use super::{Findings, Report};
use crate::merkle::Frontier;
use crate::nodes::{Node, WIDTH, WIDTH_BITS};
use crate::{Damage, DamageKind, Hash};

/// Dropped payloads without a record that are kept to be looked at again; more are damage for certain.
const UNRECORDED_MAX: usize = 10_000;

/// A root that the tree must have at some size.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) size: u64,
    pub(super) root: Hash,
    /// Which of the checkpoints from elsewhere; `None` for one in the file.
    pub(super) outside: Option<usize>,
}

/// What is known after the pieces so far.
#[derive(Debug)]
pub(super) struct Join<'a> {
    plan: &'a Plan<'a>,
    conn: &'a Connection,
    /// Checkpoints from elsewhere, by size.
    outside: &'a [Mark],
    tree: Frontier,
    /// The tree over the hashes that the entries had when they were written, once they differ from what is stored.
    written: Option<Frontier>,
    /// Whether every entry so far has its place, so that sizes mean something.
    regular: bool,
    first_bad: Option<u64>,
    /// Largest size at which a checkpoint of the file fits.
    good: u64,
    /// Largest size at which one from elsewhere fits, or one that a witness cosigned: whoever has the key made the
    /// others fit.
    good_outside: u64,
    /// Whether a checkpoint of the file did not fit; those after it cannot either.
    differs: bool,
    /// Which of the checkpoints from elsewhere fit.
    pub(super) outside_fits: Vec<bool>,
    pub(super) checkpoints: u64,
    pub(super) newest: Option<u64>,
    /// The newest cosignature of each witness, on a checkpoint that fits.
    pub(super) cosigned: BTreeMap<String, Cosigned>,
    pub(super) recorded: BTreeMap<usize, (u64, u64)>,
    pub(super) unrecorded: Vec<Gone>,
    pub(super) own: Vec<u64>,
}

impl<'a> Join<'a> {
    pub(super) fn new(plan: &'a Plan<'a>, conn: &'a Connection, outside: &'a [Mark]) -> Self {
        Self {
            plan,
            conn,
            outside,
            tree: Frontier::new(),
            written: None,
            regular: true,
            first_bad: None,
            good: 0,
            good_outside: 0,
            differs: false,
            outside_fits: vec![false; outside.len()],
            checkpoints: 0,
            newest: None,
            cosigned: BTreeMap::new(),
            recorded: BTreeMap::new(),
            unrecorded: Vec::new(),
            own: Vec::new(),
        }
    }

    pub(super) fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Takes the next piece. Returns the error that its reading ended with.
    pub(super) fn take(
        &mut self,
        mut chunk: Chunk,
        report: &mut Report,
        findings: &mut Findings,
    ) -> rusqlite::Result<()> {
        report.entries += chunk.entries;
        report.first_sequence = report.first_sequence.or(chunk.first);
        report.last_sequence = chunk.last.or(report.last_sequence);
        if let Some(head) = chunk.leaves.last() {
            report.head = *head;
        }
        report.payloads_dropped += chunk.dropped;
        let listed = chunk.damage.len() as u64;
        for damage in std::mem::take(&mut chunk.damage) {
            findings.add(damage);
        }
        findings.count_only(chunk.damage_count - listed);
        self.first_bad = self.first_bad.or(chunk.first_bad);
        self.own.append(&mut chunk.own);
        for (record, (entries, bytes)) in std::mem::take(&mut chunk.recorded) {
            let sum = self.recorded.entry(record).or_default();
            *sum = (sum.0 + entries, sum.1.saturating_add(bytes));
        }
        for gone in std::mem::take(&mut chunk.unrecorded) {
            if self.unrecorded.len() < UNRECORDED_MAX {
                self.unrecorded.push(gone);
            } else {
                findings.count_only(1);
            }
        }
        self.checkpoints += chunk.checkpoints.len() as u64;
        self.newest = chunk
            .checkpoints
            .last()
            .map(|(size, _)| *size)
            .or(self.newest);
        self.regular &= chunk.regular && chunk.start == self.tree.len();
        if !self.regular {
            for leaf in chunk.leaves {
                self.tree.push(leaf);
            }
            return chunk.error.map_or(Ok(()), Err);
        }
        let marks = self.marks(&chunk.checkpoints);
        if chunk.written.is_some() && self.written.is_none() {
            self.written = Some(self.tree.clone());
        }
        let fitting = self.grow(&chunk, &marks, findings)?;
        for cosigned in chunk.cosigned {
            if fitting.contains(&cosigned.tree_size) {
                self.cosigned.insert(cosigned.by.clone(), cosigned);
            }
        }
        chunk.error.map_or(Ok(()), Err)
    }

    /// The roots to compare in the next piece, by size.
    fn marks(&self, checkpoints: &[(u64, Option<Hash>)]) -> Vec<Mark> {
        let from = self.tree.len();
        let mut marks: Vec<Mark> = checkpoints
            .iter()
            .filter_map(|(size, root)| {
                let (size, root, outside) = (*size, (*root)?, None);
                Some(Mark {
                    size,
                    root,
                    outside,
                })
            })
            .collect();
        let outside = self.outside.iter().filter(|mark| mark.size > from);
        marks.extend(outside.cloned());
        marks.sort_by_key(|mark| mark.size);
        marks
    }

    /// Grows the tree by a piece: by whole tiles where no checkpoint is in between. Returns the sizes that fit.
    fn grow(
        &mut self,
        chunk: &Chunk,
        marks: &[Mark],
        findings: &mut Findings,
    ) -> rusqlite::Result<Vec<u64>> {
        let mut marks = marks.iter().peekable();
        let mut fitting = Vec::new();
        let width = usize::try_from(WIDTH).expect("256");
        for (at, tile) in chunk.leaves.chunks(width).enumerate() {
            let end = self.tree.len() + tile.len() as u64;
            let marked = marks.peek().is_some_and(|mark| mark.size <= end);
            let mut complete: Vec<Node> = Vec::new();
            let mut note = |height: u32, position: u64, hash: &Hash| {
                // Level 1 was compared where it was made.
                complete.extend(Node::of(height, position, hash).filter(|node| node.level > 1));
            };
            match chunk.tiles.get(at) {
                Some(root) if !marked && self.written.is_none() => {
                    self.tree.push_subtree(WIDTH_BITS, *root, &mut note);
                }
                _ => {
                    let written = chunk.written.as_ref().unwrap_or(&chunk.leaves);
                    for (leaf, written) in tile.iter().zip(&written[at * width..]) {
                        self.tree.push_subtree(0, *leaf, &mut note);
                        self.written.iter_mut().for_each(|tree| tree.push(*written));
                        while let Some(mark) = marks.next_if(|mark| mark.size == self.tree.len()) {
                            match (mark.root == self.tree.root(), mark.outside) {
                                (true, None) => {
                                    self.good = mark.size;
                                    fitting.push(mark.size);
                                    let mut cosigned = chunk.cosigned.iter();
                                    if cosigned.any(|by| by.tree_size == mark.size) {
                                        self.good_outside = mark.size;
                                    }
                                }
                                (true, Some(outside)) => {
                                    self.good_outside = mark.size;
                                    self.outside_fits[outside] = true;
                                }
                                (false, _) => self.mismatch(mark, findings),
                            }
                        }
                    }
                }
            }
            for node in complete {
                self.compare(&node, findings)?;
            }
        }
        Ok(fitting)
    }

    /// A root that differs is told unless it follows from what was told before.
    fn mismatch(&mut self, mark: &Mark, findings: &mut Findings) {
        let (by, good) = if mark.outside.is_some() {
            // The damage that was told is all there is: without it the entries are those that were signed.
            let mut written = self.written.iter();
            if written.any(|written| written.root() == mark.root) {
                return;
            }
            ("the checkpoint from elsewhere", self.good_outside)
        } else {
            let explained = self.first_bad.is_some_and(|bad| bad <= mark.size);
            if explained || std::mem::replace(&mut self.differs, true) {
                return;
            }
            ("the checkpoint in the file", self.good)
        };
        findings.add(Damage {
            sequence: Some(good + 1),
            kind: DamageKind::RootDiffers {
                tree_size: mark.size,
                first: good + 1,
                by: by.to_owned(),
            },
        });
    }

    fn compare(&self, node: &Node, findings: &mut Findings) -> rusqlite::Result<()> {
        if !self.plan.has_tree || self.first_bad.is_some() {
            return Ok(());
        }
        if node.stored(self.conn)?.as_deref() != Some(node.hash.as_bytes()) {
            let first = (node.position << (WIDTH_BITS * node.level)) + 1;
            findings.add(Damage {
                sequence: Some(first),
                kind: DamageKind::NodeDiffers {
                    level: node.level,
                    position: node.position,
                },
            });
        }
        Ok(())
    }
}
