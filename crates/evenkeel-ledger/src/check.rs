//! Re-hashing rows as they are stored: the one place that decides whether a row continues the chain. Used when
//! a ledger is opened and when it is verified. Reads only.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::dropped::DroppedPayload;
use crate::leaf::{Hash, Leaf};
use crate::{Damage, DamageKind, Entry, entry};

/// The columns of an entry in the order in which this crate reads them.
pub(crate) const COLUMNS: &str = "sequence, timestamp, actor, action, resource, subsystem, payload, result, entry_hash, previous_hash";

/// Entries read in one statement, so that a long scan does not hold a snapshot of a live ledger.
pub(crate) const CHUNK_ENTRIES: i64 = 4096;

/// Walks along the chain. Feed it rows in sequence order.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// Sequence that the next row has to have.
    next: i64,
    /// What the next row's `previous_hash` has to be, if the rows before can tell.
    link: Option<Hash>,
    /// Also good as a link, after a row whose stored hash was not that of its content.
    link_recomputed: Option<Hash>,
    /// Whether payloads are also read as JSON.
    json: bool,
    /// The leaf in one piece, kept for its room.
    scratch: Vec<u8>,
}

/// What one row turned out to be.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) sequence: i64,
    /// The hash of what is stored, whatever `entry_hash` says.
    pub(crate) hash: Hash,
    /// The hash that the entry had when it was written, as far as the rows tell.
    pub(crate) written: Hash,
    /// What is left of the payload, if it was dropped and the entry's hash agrees.
    pub(crate) dropped: Option<DroppedPayload>,
    pub(crate) damage: Option<Damage>,
}

impl Chain {
    /// From the first entry on.
    pub(crate) fn from_start() -> Self {
        Self::new(1, Some(Hash::ZERO))
    }

    /// After an entry that is known to be good.
    pub(crate) fn after(sequence: u64, hash: Hash) -> Self {
        Self::new(to_i64(sequence) + 1, Some(hash))
    }

    /// From somewhere in the middle: the first row's link is believed.
    pub(crate) fn from_middle(sequence: i64) -> Self {
        Self::new(sequence, None)
    }

    fn new(next: i64, link: Option<Hash>) -> Self {
        Self {
            next,
            link,
            link_recomputed: None,
            json: true,
            scratch: Vec::new(),
        }
    }

    /// Leaves it to others to look whether payloads are JSON.
    pub(crate) fn without_json(self) -> Self {
        Self {
            json: false,
            ..self
        }
    }

    /// Checks one row, selected as [`COLUMNS`]. One damage for a row: the first that explains it.
    pub(crate) fn check(&mut self, row: &Row<'_>, conn: &Connection) -> rusqlite::Result<Checked> {
        let ValueRef::Integer(sequence) = row.get_ref(0)? else {
            return Ok(self.malformed(self.next, "sequence"));
        };
        if sequence < self.next {
            let damage = Damage {
                sequence: Some(to_u64(self.next)),
                kind: DamageKind::StrayRow { found: sequence },
            };
            return Ok(Checked {
                sequence,
                hash: Hash::ZERO,
                written: Hash::ZERO,
                dropped: None,
                damage: Some(damage),
            });
        }
        let mut damage = None;
        if sequence > self.next {
            let kind = DamageKind::Gap { found: sequence };
            damage = Some(Damage {
                sequence: Some(to_u64(self.next)),
                kind,
            });
            (self.next, self.link, self.link_recomputed) = (sequence, None, None);
        }
        let raw = match RawEntry::read(row)? {
            Ok(raw) => raw,
            Err(column) => {
                let checked = self.malformed(sequence, column);
                return Ok(Checked {
                    damage: damage.or(checked.damage),
                    ..checked
                });
            }
        };
        let (hash, dropped) = raw.hash(to_u64(sequence), &mut self.scratch);
        let linked = self.link.is_none()
            || self.link == Some(raw.previous_hash)
            || self.link_recomputed == Some(raw.previous_hash);
        let written = if hash == raw.entry_hash {
            hash
        } else {
            told_by_next(conn, sequence)?.unwrap_or(raw.entry_hash)
        };
        let kind = if !linked {
            Some(DamageKind::BrokenLink)
        } else if hash != raw.entry_hash && hash == written {
            Some(DamageKind::HashEdited)
        } else if hash != raw.entry_hash {
            Some(DamageKind::ContentEdited)
        } else if self.json && !entry::is_json(raw.payload) {
            Some(DamageKind::InvalidJson)
        } else {
            None
        };
        let own = kind.map(|kind| Damage {
            sequence: Some(to_u64(sequence)),
            kind,
        });
        self.next = sequence.saturating_add(1);
        self.link = Some(raw.entry_hash);
        self.link_recomputed = Some(hash).filter(|hash| *hash != raw.entry_hash);
        Ok(Checked {
            sequence,
            hash,
            written,
            dropped,
            damage: damage.or(own),
        })
    }

    fn malformed(&mut self, sequence: i64, column: &'static str) -> Checked {
        (self.next, self.link, self.link_recomputed) = (sequence.saturating_add(1), None, None);
        let kind = DamageKind::Malformed { column };
        let damage = Damage {
            sequence: Some(to_u64(sequence)),
            kind,
        };
        Checked {
            sequence,
            hash: Hash::ZERO,
            written: Hash::ZERO,
            dropped: None,
            damage: Some(damage),
        }
    }
}

/// The hash that an entry had when it was written: the entry after it still carries it.
fn told_by_next(conn: &Connection, sequence: i64) -> rusqlite::Result<Option<Hash>> {
    let mut next = conn.prepare_cached(
        "SELECT previous_hash FROM immutable_log NOT INDEXED WHERE sequence = ?1",
    )?;
    let mut rows = next.query([sequence.saturating_add(1)])?;
    Ok(match rows.next()? {
        Some(row) => hash_column(row.get_ref(0)?),
        None => None,
    })
}

/// An entry as it lies in the row, nothing copied.
struct RawEntry<'a> {
    timestamp: &'a [u8],
    actor: &'a [u8],
    action: &'a [u8],
    resource: &'a [u8],
    subsystem: &'a [u8],
    payload: &'a [u8],
    result: &'a [u8],
    entry_hash: Hash,
    previous_hash: Hash,
}

impl<'a> RawEntry<'a> {
    /// The inner error names the column that does not hold what it should.
    fn read(row: &'a Row<'_>) -> rusqlite::Result<Result<Self, &'static str>> {
        const NAMES: [&str; 7] = [
            "timestamp",
            "actor",
            "action",
            "resource",
            "subsystem",
            "payload",
            "result",
        ];
        let mut texts: [&[u8]; 7] = [&[]; 7];
        for (at, (text, name)) in texts.iter_mut().zip(NAMES).enumerate() {
            let ValueRef::Text(bytes) = row.get_ref(at + 1)? else {
                return Ok(Err(name));
            };
            *text = bytes;
        }
        let Some(entry_hash) = hash_column(row.get_ref(8)?) else {
            return Ok(Err("entry_hash"));
        };
        let Some(previous_hash) = hash_column(row.get_ref(9)?) else {
            return Ok(Err("previous_hash"));
        };
        let [
            timestamp,
            actor,
            action,
            resource,
            subsystem,
            payload,
            result,
        ] = texts;
        Ok(Ok(Self {
            timestamp,
            actor,
            action,
            resource,
            subsystem,
            payload,
            result,
            entry_hash,
            previous_hash,
        }))
    }

    /// The hash of what is stored. A payload that was dropped is taken by the hash that it left, if that is what
    /// `entry_hash` was made from.
    fn hash(&self, sequence: u64, scratch: &mut Vec<u8>) -> (Hash, Option<DroppedPayload>) {
        if let Some(dropped) = DroppedPayload::parse(self.payload) {
            let hash = self.leaf(sequence, dropped.sha256).hash_in(scratch);
            if hash == self.entry_hash {
                return (hash, Some(dropped));
            }
        }
        let leaf = self.leaf(sequence, Hash::of(self.payload));
        (leaf.hash_in(scratch), None)
    }

    fn leaf(&self, sequence: u64, payload_hash: Hash) -> Leaf<'a> {
        Leaf {
            previous_hash: self.previous_hash,
            sequence,
            timestamp: self.timestamp,
            actor: self.actor,
            action: self.action,
            resource: self.resource,
            subsystem: self.subsystem,
            result: self.result,
            payload_hash,
        }
    }
}

pub(crate) fn hash_column(value: ValueRef<'_>) -> Option<Hash> {
    match value {
        ValueRef::Text(text) => Hash::from_hex(text),
        _ => None,
    }
}

/// A row as an [`Entry`], without checking its hash.
pub(crate) fn to_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let hash = |at: usize| {
        hash_column(row.get_ref(at)?).ok_or_else(|| {
            let message = format!("column {at} is not 64 lower-case hexadecimal digits");
            rusqlite::Error::FromSqlConversionFailure(
                at,
                rusqlite::types::Type::Text,
                message.into(),
            )
        })
    };
    Ok(Entry {
        sequence: to_u64(row.get(0)?),
        timestamp: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        resource: row.get(4)?,
        subsystem: row.get(5)?,
        payload: row.get(6)?,
        result: row.get(7)?,
        entry_hash: hash(8)?,
        previous_hash: hash(9)?,
    })
}

/// SQLite's integers are signed; a sequence below zero is damage and shows as 0.
pub(crate) fn to_u64(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or(0)
}

/// Sequences beyond what SQLite can count do not occur; a filter may name one and then matches nothing.
pub(crate) fn to_i64(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX - 1)
}
