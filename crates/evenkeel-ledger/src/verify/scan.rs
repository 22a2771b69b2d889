//! Reading and hashing the log in pieces, on as many threads as wanted, each with a connection of its own. A piece
//! has the same result whoever reads it; the pieces are joined in order, by one thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::DAMAGE_LISTED_MAX;
use crate::check::{COLUMNS, Chain, to_i64, to_u64};
use crate::dropped::Record;
use crate::merkle::Frontier;
use crate::nodes::WIDTH;
use crate::signed::{self, Own};
use crate::tlog::{Checkpoint, SignatureLine, SignedNote, VerifiedSignature, VerifierKey};
use crate::{Damage, DamageKind, Hash, LedgerError, connect, own};

/// Entries in a piece: a multiple of the tree's width.
pub(super) const CHUNK_ENTRIES: i64 = 1024;

/// Pieces that may wait for an earlier one to be joined, for each thread.
const AHEAD: usize = 4;

/// What every thread has to know.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) path: &'a Path,
    /// The last entry to read.
    pub(super) last: i64,
    pub(super) own: &'a Own,
    /// Records of dropped payloads, by sequence.
    pub(super) records: &'a [(u64, Record)],
    pub(super) witnesses: &'a [VerifierKey],
    /// Whether the file has the tables of a transparency log.
    pub(super) has_tree: bool,
}

/// A payload that is gone.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub(super) sequence: u64,
    pub(super) timestamp: Vec<u8>,
    pub(super) subsystem: Vec<u8>,
    pub(super) bytes: u64,
}

/// A cosignature that holds.
#[derive(Debug, Clone)]
pub(super) struct Cosigned {
    pub(super) tree_size: u64,
    pub(super) by: String,
    pub(super) time: Option<u64>,
}

/// What one piece of the log turned out to be.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Entries before this piece, by sequence.
    pub(super) start: u64,
    /// Rows read.
    pub(super) entries: u64,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    /// Recomputed hashes of the entries with a possible sequence.
    pub(super) leaves: Vec<Hash>,
    /// If any entry is damaged: the hashes that all had when they were written, as far as the rows tell.
    pub(super) written: Option<Vec<Hash>>,
    /// Whether these are the entries after `start`, without a hole.
    pub(super) regular: bool,
    /// Roots of each complete 256 of them, if regular.
    pub(super) tiles: Vec<Hash>,
    pub(super) damage: Vec<Damage>,
    pub(super) damage_count: u64,
    /// First entry whose content or place is wrong.
    pub(super) first_bad: Option<u64>,
    /// Entries of the ledger about itself.
    pub(super) own: Vec<u64>,
    pub(super) dropped: u64,
    /// For each record by its place: payloads and bytes found dropped.
    pub(super) recorded: BTreeMap<usize, (u64, u64)>,
    /// Dropped payloads that no record covers.
    pub(super) unrecorded: Vec<Gone>,
    /// Checkpoints over entries that end in this piece, with the root that they state if they hold.
    pub(super) checkpoints: Vec<(u64, Option<Hash>)>,
    pub(super) cosigned: Vec<Cosigned>,
    /// What ended the reading of this piece.
    pub(super) error: Option<rusqlite::Error>,
}

impl Chunk {
    fn add(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_LISTED_MAX {
            self.damage.push(damage);
        }
    }
}

pub(super) fn select() -> String {
    format!(
        "SELECT {COLUMNS} FROM immutable_log NOT INDEXED WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence"
    )
}

/// Reads everything and gives the pieces to `each` in order, until one has an error or `each` breaks off.
pub(super) fn pieces(
    plan: &Plan<'_>,
    conn: &Connection,
    threads: usize,
    mut each: impl FnMut(Chunk) -> bool,
) -> Result<(), LedgerError> {
    let cursor = Cursor::new(threads * AHEAD);
    if threads <= 1 {
        while let Some((_, range)) = cursor.claim(plan, conn) {
            cursor.joined();
            if !each(read(plan, conn, range)) {
                break;
            }
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        for _ in 0..threads {
            let (sender, cursor) = (sender.clone(), &cursor);
            scope.spawn(move || work(plan, cursor, &sender));
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut going = true;
        let mut failed = None;
        // Ends when every thread has: they stop at the end of the log, and when told.
        for piece in receiver {
            match piece {
                Ok((index, chunk)) => {
                    waiting.insert(index, chunk);
                }
                Err(error) => {
                    failed.get_or_insert(error);
                    cursor.stop();
                }
            }
            while let Some(chunk) = waiting.remove(&next).filter(|_| going) {
                next += 1;
                cursor.joined();
                going = each(chunk);
                if !going {
                    cursor.stop();
                }
            }
        }
        // A thread that could not even open the file leaves the report unfinished.
        match failed {
            Some(error) if going => Err(error),
            _ => Ok(()),
        }
    })
}

fn work(plan: &Plan<'_>, cursor: &Cursor, sender: &Sender<Result<(usize, Chunk), LedgerError>>) {
    let conn = match connect::reader_of_any(plan.path) {
        Ok(conn) => conn,
        Err(error) => {
            let _ = sender.send(Err(error));
            return;
        }
    };
    while let Some((index, range)) = cursor.claim(plan, &conn) {
        if sender.send(Ok((index, read(plan, &conn, range)))).is_err() {
            return;
        }
    }
}

/// Where the next piece begins. Holes are stepped over, so there are no more pieces than rows.
#[derive(Debug)]
struct Cursor {
    place: Mutex<Place>,
    moved: Condvar,
    ahead_max: usize,
}

#[derive(Debug)]
struct Place {
    next: usize,
    joined: usize,
    /// The last sequence that was given away.
    after: i64,
    done: bool,
}

impl Cursor {
    fn new(ahead_max: usize) -> Self {
        let place = Place {
            next: 0,
            joined: 0,
            after: i64::MIN,
            done: false,
        };
        Self {
            place: Mutex::new(place),
            moved: Condvar::new(),
            ahead_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number and range (after, up to) of the next piece. Waits while too many pieces wait to be joined.
    fn claim(&self, plan: &Plan<'_>, conn: &Connection) -> Option<(usize, (i64, i64))> {
        let mut place = self.lock();
        while !place.done && place.next >= place.joined + self.ahead_max {
            place = self
                .moved
                .wait(place)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if place.done || place.after >= plan.last {
            return None;
        }
        // If even this cannot be read, reading the piece says why.
        let found = conn
            .prepare_cached(
                "SELECT min(sequence) FROM immutable_log NOT INDEXED WHERE sequence > ?1",
            )
            .and_then(|mut select| {
                select.query_row([place.after], |row| row.get::<_, Option<i64>>(0))
            })
            .unwrap_or(Some(place.after.saturating_add(1)));
        let Some(found) = found.filter(|found| *found <= plan.last) else {
            place.done = true;
            return None;
        };
        let start = if found < 1 {
            i64::MIN
        } else {
            (found - 1) / CHUNK_ENTRIES * CHUNK_ENTRIES
        };
        let end = start.max(0).saturating_add(CHUNK_ENTRIES).min(plan.last);
        let index = place.next;
        place.next += 1;
        place.after = end;
        Some((index, (start, end)))
    }

    fn joined(&self) {
        self.lock().joined += 1;
        self.moved.notify_all();
    }

    fn stop(&self) {
        self.lock().done = true;
        self.moved.notify_all();
    }
}

fn read(plan: &Plan<'_>, conn: &Connection, (start, end): (i64, i64)) -> Chunk {
    let mut chunk = Chunk {
        start: to_u64(start),
        ..Chunk::default()
    };
    let result = rows(plan, conn, start, end, &mut chunk).and_then(|()| {
        if plan.has_tree {
            nodes(conn, &mut chunk)?;
            let notes = checkpoints(plan, conn, start, end, &mut chunk)?;
            cosignatures(plan, conn, start, end, &notes, &mut chunk)?;
        }
        Ok(())
    });
    chunk.error = result.err();
    chunk
}

fn rows(
    plan: &Plan<'_>,
    conn: &Connection,
    start: i64,
    end: i64,
    chunk: &mut Chunk,
) -> rusqlite::Result<()> {
    let mut chain = chain_before(conn, start)?;
    let mut statement = conn.prepare_cached(&select())?;
    let mut rows = statement.query(params![start, end])?;
    while let Some(row) = rows.next()? {
        let checked = chain.check(row, conn)?;
        let sequence = to_u64(checked.sequence);
        chunk.entries += 1;
        chunk.first.get_or_insert(sequence);
        chunk.last = Some(sequence);
        if checked.damage.is_some() && chunk.written.is_none() {
            chunk.written = Some(chunk.leaves.clone());
        }
        if checked.sequence >= 1 {
            chunk.leaves.push(checked.hash);
            chunk
                .written
                .as_mut()
                .into_iter()
                .for_each(|written| written.push(checked.written));
        }
        if let ValueRef::Text(action) = row.get_ref(3)?
            && own::is_own(action)
        {
            chunk.own.push(sequence);
        }
        if let Some(dropped) = checked.dropped {
            let timestamp = match row.get_ref(1)? {
                ValueRef::Text(timestamp) => timestamp,
                _ => &[],
            };
            chunk.dropped += 1;
            let subsystem = match row.get_ref(5)? {
                ValueRef::Text(subsystem) => subsystem,
                _ => &[],
            };
            let gone = Gone {
                sequence,
                timestamp: timestamp.to_vec(),
                subsystem: subsystem.to_vec(),
                bytes: dropped.bytes,
            };
            match covering(plan.records, &gone) {
                Some(record) => {
                    let sum = chunk.recorded.entry(record).or_default();
                    sum.0 += 1;
                    sum.1 = sum.1.saturating_add(dropped.bytes);
                }
                None => chunk.unrecorded.push(gone),
            }
        }
        if let Some(damage) = checked.damage {
            chunk.first_bad = chunk.first_bad.or(damage.sequence);
            chunk.add(damage);
        }
    }
    chunk.regular = chunk.leaves.len() as u64 == chunk.entries
        && chunk.last.unwrap_or(0) == chunk.start + chunk.entries;
    Ok(())
}

/// The record that dropped a payload: the first one after it that covers it, for it would have dropped it.
pub(super) fn covering(records: &[(u64, Record)], gone: &Gone) -> Option<usize> {
    let after = records.partition_point(|(at, _)| *at <= gone.sequence);
    let found = records[after..].iter().position(|(_, record)| {
        record.covers(gone.sequence, &gone.timestamp, &gone.subsystem, gone.bytes)
    });
    found.map(|place| after + place)
}

/// The chain as the rows before a piece leave it. Their own damage is told by the piece that has them.
fn chain_before(conn: &Connection, start: i64) -> rusqlite::Result<Chain> {
    if start < 1 {
        return Ok(Chain::from_start().without_json());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM immutable_log NOT INDEXED WHERE sequence BETWEEN 1 AND ?1 ORDER BY sequence DESC LIMIT 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([start])?;
    let Some(row) = rows.next()? else {
        return Ok(Chain::from_start().without_json());
    };
    let mut chain = Chain::from_middle(row.get(0)?).without_json();
    chain.check(row, conn)?;
    Ok(chain)
}

/// Compares the stored nodes over entries that are whole.
fn nodes(conn: &Connection, chunk: &mut Chunk) -> rusqlite::Result<()> {
    if !chunk.regular {
        return Ok(());
    }
    let width = usize::try_from(WIDTH).expect("256");
    let mut select =
        conn.prepare_cached("SELECT hash FROM ledger_node WHERE level = 1 AND position = ?1")?;
    let first = chunk.start / WIDTH;
    let mut damaged = Vec::new();
    for (position, tile) in (first..).zip(chunk.leaves.chunks_exact(width)) {
        let mut tree = Frontier::new();
        for leaf in tile {
            tree.push(*leaf);
        }
        let root = tree.root();
        chunk.tiles.push(root);
        let whole = chunk
            .first_bad
            .is_none_or(|bad| bad > (position + 1) * WIDTH);
        let mut rows = select.query([to_i64(position)])?;
        let same = match rows.next()? {
            Some(row) => row.get_ref(0)? == ValueRef::Blob(root.as_bytes()),
            None => false,
        };
        if whole && !same {
            damaged.push(Damage {
                sequence: Some(position * WIDTH + 1),
                kind: DamageKind::NodeDiffers { level: 1, position },
            });
        }
    }
    for damage in damaged {
        chunk.add(damage);
    }
    Ok(())
}

/// Checks form and signature of the checkpoints that end in this piece. Returns the text of those that hold.
fn checkpoints(
    plan: &Plan<'_>,
    conn: &Connection,
    start: i64,
    end: i64,
    chunk: &mut Chunk,
) -> rusqlite::Result<BTreeMap<u64, String>> {
    let mut select = conn.prepare_cached(
        "SELECT tree_size, note FROM ledger_checkpoint WHERE tree_size > ?1 AND tree_size <= ?2 ORDER BY tree_size",
    )?;
    let mut rows = select.query(params![start, end])?;
    let mut texts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let tree_size = to_u64(row.get(0)?);
        let checked = match row.get_ref(1)? {
            ValueRef::Text(note) => {
                signed::check(tree_size, &String::from_utf8_lossy(note), &plan.own.keys)
            }
            _ => Err(DamageKind::CheckpointInvalid {
                tree_size,
                detail: "it is no text".to_owned(),
            }),
        };
        let root = match checked {
            Ok(checkpoint) => {
                texts.insert(tree_size, checkpoint.to_text());
                Some(checkpoint.root)
            }
            Err(kind) => {
                chunk.add(Damage {
                    sequence: Some(tree_size),
                    kind,
                });
                None
            }
        };
        chunk.checkpoints.push((tree_size, root));
    }
    Ok(texts)
}

/// Checks the cosignatures of the witnesses that are known.
fn cosignatures(
    plan: &Plan<'_>,
    conn: &Connection,
    start: i64,
    end: i64,
    texts: &BTreeMap<u64, String>,
    chunk: &mut Chunk,
) -> rusqlite::Result<()> {
    let mut select = conn.prepare_cached(
        "SELECT tree_size, name, line FROM ledger_cosignature WHERE tree_size > ?1 AND tree_size <= ?2
          ORDER BY tree_size, line",
    )?;
    let mut rows = select.query(params![start, end])?;
    while let Some(row) = rows.next()? {
        let tree_size = to_u64(row.get(0)?);
        let (name, line): (String, String) = (row.get(1)?, row.get(2)?);
        let stands = chunk.checkpoints.iter().any(|(size, _)| *size == tree_size);
        let checked = match texts.get(&tree_size) {
            Some(text) => cosignature(text, &name, &line, plan.witnesses),
            // The checkpoint is there and damaged, which is told.
            None if stands => Ok(None),
            None => Err("there is no such checkpoint".to_owned()),
        };
        match checked {
            Ok(Some(signature)) => chunk.cosigned.push(Cosigned {
                tree_size,
                by: name,
                time: signature.time,
            }),
            Ok(None) => {}
            Err(detail) => chunk.add(Damage {
                sequence: Some(tree_size),
                kind: DamageKind::CosignatureInvalid {
                    tree_size,
                    name,
                    detail,
                },
            }),
        }
    }
    Ok(())
}

/// A cosignature that holds; `None` if its witness is not known.
fn cosignature(
    text: &str,
    name: &str,
    line: &str,
    witnesses: &[VerifierKey],
) -> Result<Option<VerifiedSignature>, String> {
    let line: SignatureLine = line.parse().map_err(|error| format!("{error}"))?;
    if line.name() != name {
        return Err(format!("it is by {}", line.name()));
    }
    let known = |key: &VerifierKey| key.name() == line.name() && key.id() == line.id();
    if !witnesses.iter().any(known) {
        return Ok(None);
    }
    let note = SignedNote::new(text, vec![line]).map_err(|error| error.to_string())?;
    let verified = note.verify(witnesses).map_err(|error| error.to_string())?;
    Ok(verified.signatures().first().cloned())
}

/// A checkpoint's own statement, from a note given by somebody.
pub(super) fn statement(note: &SignedNote) -> Result<Checkpoint, LedgerError> {
    Checkpoint::parse(note.text())
        .map_err(|error| LedgerError::invalid("against", format!("is not a checkpoint: {error}")))
}
