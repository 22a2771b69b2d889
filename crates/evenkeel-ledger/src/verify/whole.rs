//! The order of a verification: schema and keys, then every entry, then what only the whole can tell.

use std::path::Path;

use rusqlite::Connection;

use super::join::{Join, Mark};
use super::scan::{self, Plan, covering, statement};
use super::{Anchor, Findings, Report, Stop, VerifyOptions, is_damage};
use crate::check::to_u64;
use crate::dropped::Record;
use crate::error::describe;
use crate::signed::{self, Own};
use crate::tlog::{SignedNote, Verified};
use crate::{Damage, DamageKind, Hash, LedgerError, connect, keys, nodes, own, schema};

/// How a checkpoint that the caller gave is called.
const GIVEN: &str = "a checkpoint from elsewhere";

pub(super) fn run(
    conn: &Connection,
    path: &Path,
    options: &VerifyOptions,
    progress: &mut impl FnMut(u64, u64),
    report: &mut Report,
    findings: &mut Findings,
) -> Result<(), Stop> {
    let outside = outside(&options.against)?;
    for fault in schema::faults(conn)? {
        findings.add(fault);
    }
    // Without the table, or with another one, there is nothing more to read; that is reported already.
    if !schema::has_log(conn)? || conn.prepare(&scan::select()).is_err() {
        return Ok(());
    }
    let last: Option<i64> = conn.query_row(
        "SELECT max(sequence) FROM immutable_log NOT INDEXED",
        [],
        |row| row.get(0),
    )?;
    let last = last.unwrap_or(0);
    let size = to_u64(last);
    let has_tree = has_tree(conn);
    let (own, damage) = own_entries(conn, size)?;
    let records = records(conn, i64::MAX)?;
    report.origin = own.keys.origin().map(str::to_owned);
    report.log_key = own.keys.current().cloned();
    report.signing_stopped = own.stopped;
    if let Some(damage) = damage {
        findings.add(damage);
    }
    keys_fit(&own, options, &outside, findings);

    let plan = Plan {
        path,
        last,
        own: &own,
        records: &records,
        witnesses: &options.witnesses,
        has_tree,
    };
    let marks: Vec<Mark> = outside.iter().map(|(mark, _)| mark.clone()).collect();
    let mut join = Join::new(&plan, conn, &marks);
    let integrity = std::thread::scope(|scope| {
        // SQLite checks alone and longest, on one thread: beside the hashing if there is more than one.
        let beside = (options.integrity_check && options.threads > 1)
            .then(|| scope.spawn(|| integrity_beside(path)));
        let hashing = options.threads - usize::from(beside.is_some());
        let mut ended = Ok(());
        scan::pieces(&plan, conn, hashing, |chunk| {
            ended = join.take(chunk, report, findings);
            progress(report.entries, size.max(report.entries));
            ended.is_ok()
        })?;
        ended?;
        match beside {
            Some(beside) => beside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map(Some),
            None if options.integrity_check => Ok(Some(integrity(conn)?)),
            None => Ok(None),
        }
    })?;
    if report.entries == 0 {
        progress(0, 0);
    }
    report.merkle_root = join.root();
    report.checkpoints = join.checkpoints;
    report.newest_checkpoint = join.newest;
    hidden(&join.own, &own, findings);
    dropped(conn, &records, size, &join, findings)?;
    ends(conn, size, has_tree, &own, join.newest, report, findings)?;
    anchors(&outside, &join, options, size, report, findings);
    if let Some(Some(detail)) = integrity {
        not_json(conn, findings)?;
        findings.add_closing(Damage {
            sequence: None,
            kind: DamageKind::Inconsistent { detail },
        });
    }
    Ok(())
}

/// Checkpoints given by the caller, by size, with the place of each in what was given.
fn outside(against: &[SignedNote]) -> Result<Vec<(Mark, &SignedNote)>, LedgerError> {
    let mut outside = Vec::new();
    for note in against {
        let checkpoint = statement(note)?;
        let mark = Mark {
            size: checkpoint.size,
            root: checkpoint.root,
            outside: None,
        };
        outside.push((mark, note));
    }
    outside.sort_by_key(|(mark, _)| mark.size);
    for (place, (mark, _)) in outside.iter_mut().enumerate() {
        mark.outside = Some(place);
    }
    Ok(outside)
}

/// Whether the tables of a transparency log can be read; that they are not what they should be is told by the schema.
fn has_tree(conn: &Connection) -> bool {
    [
        "SELECT level, position, hash FROM ledger_node",
        "SELECT tree_size, note FROM ledger_checkpoint",
        "SELECT tree_size, name, line, received FROM ledger_cosignature",
    ]
    .iter()
    .all(|sql| conn.prepare(sql).is_ok())
}

/// What the log says of itself. Entries that cannot even be read are told by the scan.
fn own_entries(conn: &Connection, size: u64) -> rusqlite::Result<(Own, Option<Damage>)> {
    match signed::own(conn, size) {
        Err(error) if is_damage(&error) => {
            let kind = DamageKind::OwnEntry {
                detail: describe(&error),
            };
            Ok((
                Own::default(),
                Some(Damage {
                    sequence: None,
                    kind,
                }),
            ))
        }
        other => other,
    }
}

/// Keys that the caller knows, and the signatures of checkpoints that the caller has.
fn keys_fit(
    own: &Own,
    options: &VerifyOptions,
    outside: &[(Mark, &SignedNote)],
    findings: &mut Findings,
) {
    if let Some(pinned) = &options.log_key
        && own.keys.first() != Some(pinned)
    {
        let first = own.keys.periods().first();
        let found = first.map_or_else(
            || "the log has no key".to_owned(),
            |(_, key)| format!("the log's first key is {}", keys::name(key)),
        );
        findings.add(Damage {
            sequence: first.map(|(sequence, _)| *sequence),
            kind: DamageKind::KeySubstituted {
                detail: format!("{found}, and should be {}", keys::name(pinned)),
            },
        });
    }
    let keys: Vec<_> = own
        .keys
        .periods()
        .iter()
        .map(|(_, key)| key.clone())
        .collect();
    for (mark, note) in outside {
        let found = note.text().lines().next().unwrap_or_default();
        match own.keys.origin() {
            Some(origin) if origin != found => findings.add(Damage {
                sequence: None,
                kind: DamageKind::OriginDiffers {
                    expected: origin.to_owned(),
                    found: found.to_owned(),
                    by: GIVEN.to_owned(),
                },
            }),
            Some(_) => {
                if let Err(error) = note.verify(&keys) {
                    let detail = format!(
                        "the checkpoint of {} entries from elsewhere is not by a key of this log ({error})",
                        mark.size
                    );
                    findings.add(Damage {
                        sequence: None,
                        kind: DamageKind::KeySubstituted { detail },
                    });
                }
            }
            // It never signed anything, or forgot that it did.
            None => {
                let detail = format!(
                    "the log has no key, and signed the checkpoint of {} entries from elsewhere",
                    mark.size
                );
                findings.add(Damage {
                    sequence: None,
                    kind: DamageKind::KeySubstituted { detail },
                });
            }
        }
    }
}

/// The records of dropped payloads. One that cannot be read covers nothing, and is told by what it does not cover.
fn records(conn: &Connection, last: i64) -> rusqlite::Result<Vec<(u64, Record)>> {
    let mut select = conn.prepare_cached(
        "SELECT sequence, payload FROM immutable_log WHERE action = ?1 AND sequence <= ?2 ORDER BY sequence",
    )?;
    let mut rows = select.query(rusqlite::params![own::DROP_PAYLOADS, last])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(1)?.as_str().unwrap_or_default();
        if let Ok(record) = serde_json::from_str::<Record>(payload) {
            records.push((to_u64(row.get(0)?), record));
        }
    }
    Ok(records)
}

/// Entries of the ledger about itself that the index does not show: whoever opens the ledger does not see them.
fn hidden(seen: &[u64], own: &Own, findings: &mut Findings) {
    for sequence in seen {
        if !own.listed.contains(sequence) {
            let detail = "the index on action does not show it".to_owned();
            findings.add(Damage {
                sequence: Some(*sequence),
                kind: DamageKind::OwnEntry { detail },
            });
        }
    }
}

/// Dropped payloads and their records: each payload has one, and each record has as many as it says.
fn dropped(
    conn: &Connection,
    known: &[(u64, Record)],
    size: u64,
    join: &Join<'_>,
    findings: &mut Findings,
) -> rusqlite::Result<()> {
    if !join.unrecorded.is_empty() {
        // A live ledger may have recorded them since.
        let now = records(conn, i64::MAX)?;
        for gone in &join.unrecorded {
            if covering(&now, gone).is_none() {
                findings.add(Damage {
                    sequence: Some(gone.sequence),
                    kind: DamageKind::DroppedWithoutRecord,
                });
            }
        }
    }
    for (place, (sequence, record)) in known.iter().enumerate() {
        let (found, found_bytes) = join.recorded.get(&place).copied().unwrap_or_default();
        if *sequence <= size && (record.entries, record.bytes) != (found, found_bytes) {
            findings.add(Damage {
                sequence: Some(*sequence),
                kind: DamageKind::DropDiffers {
                    recorded: record.entries,
                    recorded_bytes: record.bytes,
                    found,
                    found_bytes,
                },
            });
        }
    }
    Ok(())
}

/// Checkpoints that must be there, an end that must be signed, and rows that speak of more entries than there are.
fn ends(
    conn: &Connection,
    size: u64,
    has_tree: bool,
    own: &Own,
    newest: Option<u64>,
    report: &mut Report,
    findings: &mut Findings,
) -> rusqlite::Result<()> {
    let mut add = |sequence, kind| {
        findings.add(Damage {
            sequence: Some(sequence),
            kind,
        });
    };
    for sequence in &own.signed {
        if !has_tree || signed::at(conn, *sequence)?.is_none() {
            add(*sequence, DamageKind::CheckpointMissing);
        }
    }
    let newest = newest.unwrap_or(0);
    if own.keys.current().is_some() {
        report.unsigned = size.saturating_sub(newest);
    }
    if !has_tree {
        return Ok(());
    }
    let mut cut = false;
    // Each in one statement: a live ledger grows meanwhile.
    for (sql, by) in [
        (
            "SELECT (SELECT max(tree_size) FROM ledger_checkpoint), (SELECT coalesce(max(sequence), 0) FROM immutable_log)",
            "a checkpoint in the file",
        ),
        (
            "SELECT (SELECT max(tree_size) FROM ledger_cosignature), (SELECT coalesce(max(sequence), 0) FROM immutable_log)",
            "a cosignature in the file",
        ),
    ] {
        let (expected, found): (Option<i64>, i64) =
            conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let Some(expected) = expected.filter(|expected| *expected > found) {
            let (expected, found) = (to_u64(expected), to_u64(found));
            cut = true;
            add(
                found + 1,
                DamageKind::TailCut {
                    expected,
                    found,
                    by: by.to_owned(),
                },
            );
        }
    }
    // Of a log that was cut, the checkpoints after the cut are no tail's.
    if !cut && report.unsigned > 0 && newest > 0 && !own.stops.contains(&(newest + 1)) {
        add(newest + 1, DamageKind::UnsignedTail);
    }
    // Levels and sizes of one moment.
    conn.execute_batch("BEGIN")?;
    let found: rusqlite::Result<_> = conn
        .query_row(
            "SELECT coalesce(max(sequence), 0) FROM immutable_log NOT INDEXED",
            [],
            |row| row.get(0),
        )
        .and_then(|now: i64| Ok((to_u64(now), nodes::surplus(conn, to_u64(now))?)));
    conn.execute_batch("COMMIT")?;
    if let (now, Some(kind)) = found? {
        add(now + 1, kind);
    }
    Ok(())
}

/// Who elsewhere stands for how much, and checkpoints from elsewhere that the log is too short for.
fn anchors(
    outside: &[(Mark, &SignedNote)],
    join: &Join<'_>,
    options: &VerifyOptions,
    size: u64,
    report: &mut Report,
    findings: &mut Findings,
) {
    let mut anchored: Vec<Anchor> = join
        .cosigned
        .values()
        .map(|cosigned| Anchor {
            by: cosigned.by.clone(),
            tree_size: cosigned.tree_size,
            time: cosigned.time,
        })
        .collect();
    for (place, (mark, note)) in outside.iter().enumerate() {
        if mark.size > size {
            findings.add(Damage {
                sequence: Some(size + 1),
                kind: DamageKind::TailCut {
                    expected: mark.size,
                    found: size,
                    by: GIVEN.to_owned(),
                },
            });
        }
        let empty = mark.size == 0 && mark.root == Hash::of(b"");
        if !join.outside_fits[place] || empty {
            continue;
        }
        let verified = note.verify(&options.witnesses);
        let by_witnesses = verified.iter().flat_map(Verified::signatures);
        anchored.extend(by_witnesses.map(|signature| Anchor {
            by: signature.key.name().to_owned(),
            tree_size: mark.size,
            time: signature.time,
        }));
        let by = GIVEN.to_owned();
        anchored.push(Anchor {
            by,
            tree_size: mark.size,
            time: None,
        });
    }
    // The most of each is enough.
    anchored.sort_by(|a, b| (&a.by, b.tree_size, b.time).cmp(&(&b.by, a.tree_size, a.time)));
    anchored.dedup_by(|next, kept| next.by == kept.by);
    let most = anchored
        .iter()
        .map(|anchor| anchor.tree_size)
        .max()
        .unwrap_or(0);
    report.not_anchored = (most < size).then_some((most + 1, size));
    report.anchored = anchored;
}

fn integrity_beside(path: &Path) -> Result<Option<String>, Stop> {
    Ok(integrity(&connect::reader_of_any(path)?)?)
}

/// What SQLite's own check complains of first.
fn integrity(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let found = conn.query_row("PRAGMA integrity_check(1)", [], |row| {
        row.get::<_, String>(0)
    });
    match found {
        Ok(ok) if ok == "ok" => Ok(None),
        Ok(detail) => Ok(Some(detail)),
        Err(error) if is_damage(&error) => Ok(Some(describe(&error))),
        Err(error) => Err(error),
    }
}

/// SQLite found something: which payloads are no JSON it does not say.
fn not_json(conn: &Connection, findings: &mut Findings) -> rusqlite::Result<()> {
    let mut select = conn.prepare(
        "SELECT sequence FROM immutable_log NOT INDEXED WHERE NOT json_valid(payload) ORDER BY sequence LIMIT 100",
    )?;
    let rows = select.query_map([], |row| row.get::<_, i64>(0))?;
    for sequence in rows {
        let sequence = match sequence {
            Ok(sequence) => to_u64(sequence),
            // Told already, by what found it.
            Err(error) if is_damage(&error) => break,
            Err(error) => return Err(error),
        };
        findings.add(Damage {
            sequence: Some(sequence),
            kind: DamageKind::InvalidJson,
        });
    }
    Ok(())
}
