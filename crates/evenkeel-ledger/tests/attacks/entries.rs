//! Attacks on entries, without the key: edit, delete, insert, reorder, with and without hashing the rest anew.

use evenkeel_ledger::own;

use crate::contents::{
    ACTION, ACTOR, Contents, ENTRY_HASH, PAYLOAD, PREVIOUS_HASH, RESOURCE, RESULT, Row, SUBSYSTEM,
    TIMESTAMP,
};
use crate::honest::{World, entry};
use crate::rng::Rng;
use crate::tables::uncovered_without;
use crate::{Class, First, Made};

const FIELDS: [usize; 6] = [TIMESTAMP, ACTOR, ACTION, RESOURCE, SUBSYSTEM, RESULT];

fn any(_: &World) -> bool {
    true
}

/// Any entry of the log, up to the one of this sequence.
pub(crate) fn some(rng: &mut Rng, last: i64) -> i64 {
    rng.within(1, last)
}

/// Any that the ledger did not write about itself.
pub(crate) fn some_foreign(rng: &mut Rng, contents: &Contents, first: i64, last: i64) -> i64 {
    let rows = contents.rows.iter();
    let foreign: Vec<i64> = rows
        .filter(|row| (first..=last).contains(&row.sequence) && !row.is_own())
        .map(|row| row.sequence)
        .collect();
    *rng.pick(&foreign)
}

/// Another text of the kind that the column holds.
fn other_text(rng: &mut Rng, text: &str, column: usize) -> String {
    if column == TIMESTAMP {
        let at = *rng.pick(&[3, 6, 9, 12, 15, 18, 22]);
        return flipped(text, at, b"0123456789", rng);
    }
    if column == ENTRY_HASH || column == PREVIOUS_HASH {
        let at = rng.below(64);
        return flipped(text, at, b"0123456789abcdef", rng);
    }
    match rng.below(7) {
        0 => format!("{text} "),
        1 => format!("{text}\0hidden from most tools"),
        2 => format!("\u{200b}{text}"),
        3 => text.replace('e', "\u{435}"),
        4 => text.to_uppercase(),
        5 => "innocent".to_owned(),
        _ if column == ACTION => (*rng.pick(&own::ACTIONS)).to_owned(),
        _ => String::new(),
    }
}

/// The text with another character at a place.
fn flipped(text: &str, at: usize, from: &[u8], rng: &mut Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = *rng.pick(from);
    String::from_utf8(bytes).unwrap()
}

/// Changes one field of a row for certain.
fn edit_row(rng: &mut Rng, row: &mut Row, column: usize) {
    let text = row.texts[column].clone();
    while row.texts[column] == text {
        row.texts[column] = other_text(rng, &text, column);
        // Both must not be empty; that the table demands it is no protection.
        if row.texts[column].is_empty() && (column == ACTOR || column == ACTION) {
            row.texts[column].push('x');
        }
    }
}

pub(crate) const EDIT: Class = Class {
    name: "edit a field",
    fits: any,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let bad = some(rng, contents.size());
        let columns = [&FIELDS[..], &[ENTRY_HASH, PREVIOUS_HASH]].concat();
        let column = *rng.pick(&columns);
        let record = contents.row(bad).is_record() && column == ACTION;
        edit_row(rng, contents.row(bad), column);
        contents.write(&world.contents, path);
        // What a record covered has none now.
        let bare = record.then(|| uncovered_without(&world.contents, |row| row.sequence == bad));
        let bare = bare.into_iter().flatten();
        Made::told(First::At(bare.fold(bad, i64::min)))
    },
};

pub(crate) const EDIT_AND_REHASH: Class = Class {
    name: "edit and re-hash the rest",
    fits: any,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let size = contents.size();
        let bad = some_foreign(rng, &contents, 1, size);
        if rng.once_in(3) {
            // Only its own hash: the entry after it still has the old one.
            let bad = some_foreign(rng, &contents, 1, world.anchored - 1);
            let column = *rng.pick(&[ACTOR, RESOURCE, SUBSYSTEM, RESULT]);
            let row = contents.row(bad);
            edit_row(rng, row, column);
            row.texts[ENTRY_HASH] = row.hash().to_string();
            contents.rebuild_nodes();
            contents.write(&world.contents, path);
            return Made::told(First::Within(bad));
        }
        let column = *rng.pick(&[ACTOR, RESOURCE, SUBSYSTEM, RESULT, PAYLOAD]);
        if column == PAYLOAD {
            contents.row(bad).texts[PAYLOAD] = entry(rng).payload;
        } else {
            edit_row(rng, contents.row(bad), column);
        }
        contents.rehash(bad);
        contents.write(&world.contents, path);
        Made::told(First::Within(bad))
    },
};

pub(crate) const PAYLOAD_ONLY: Class = Class {
    name: "payload only",
    fits: any,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let rows = world.contents.rows.iter();
        let whole: Vec<&Row> = rows.filter(|row| row.dropped().is_none()).collect();
        let row = *rng.pick(&whole);
        let text = row.texts[PAYLOAD].as_str();
        // What a record says decides about others; here only its spelling changes.
        let changes = if row.is_record() { 1 } else { 6 };
        let mut other = match rng.below(changes) {
            0 => format!("{text} "),
            1 => text.replace(": ", ":"),
            2 => text.replace('é', "\\u00e9"),
            3 => text.replace("\"id\"", "\"id\":0,\"id\""),
            4 => "{}".to_owned(),
            _ => entry(rng).payload,
        };
        if other == text {
            other.insert(0, '\n');
        }
        contents.row(row.sequence).texts[PAYLOAD] = other;
        contents.write(&world.contents, path);
        Made::told(First::At(row.sequence))
    },
};

pub(crate) const DELETE: Class = Class {
    name: "delete a row",
    fits: any,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let first = rng.within(1, contents.size() - 1);
        let last = if rng.once_in(2) {
            first
        } else {
            rng.within(first, contents.size() - 1)
        };
        contents
            .rows
            .retain(|row| !(first..=last).contains(&row.sequence));
        contents.write(&world.contents, path);
        let bare = uncovered_without(&world.contents, |row| {
            (first..=last).contains(&row.sequence)
        });
        Made::told(First::At(bare.into_iter().fold(first, i64::min)))
    },
};

pub(crate) const INSERT: Class = Class {
    name: "insert a row",
    fits: any,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let size = contents.size();
        let at = rng.within(1, world.anchored);
        let new = |rng: &mut Rng, sequence: i64, previous: &str| {
            let e = entry(rng);
            let (entry_hash, previous) = (String::new(), previous.to_owned());
            let texts = [
                e.timestamp,
                e.actor,
                e.action,
                e.resource,
                e.subsystem,
                e.payload,
                e.result,
                entry_hash,
                previous,
            ];
            let mut row = Row { sequence, texts };
            row.texts[ENTRY_HASH] = row.hash().to_string();
            row
        };
        let head = contents.rows.last().unwrap().texts[ENTRY_HASH].clone();
        let first = match rng.below(6) {
            // In the middle, and all others moved; then perhaps hashed anew, or with a hash that is none of it.
            how @ 0..3 => {
                let place = usize::try_from(at - 1).unwrap();
                let previous = contents.rows[place].texts[PREVIOUS_HASH].clone();
                let mut row = new(rng, at, &previous);
                if how == 1 {
                    let other = new(rng, at, &head);
                    row.texts[ENTRY_HASH].clone_from(&other.texts[ENTRY_HASH]);
                }
                contents.rows.insert(place, row);
                contents.renumber();
                contents.rebuild_nodes();
                if how == 2 {
                    contents.rehash(at);
                }
                First::Within(at)
            }
            // Before the first.
            3 => {
                let zero = "0".repeat(64);
                let mut row = new(rng, 1, &zero);
                row.sequence = rng.within(-5, 0);
                contents.rows.insert(0, row);
                First::At(1)
            }
            // After the last, as the next, or far away.
            4 => {
                contents.rows.push(new(rng, size + 1, &head));
                First::At(size + 1)
            }
            _ => {
                let far = size + rng.within(2, 1_000_000_000);
                contents.rows.push(new(rng, far, &head));
                First::At(size + 1)
            }
        };
        contents.write(&world.contents, path);
        Made::told(first)
    },
};

pub(crate) const REORDER: Class = Class {
    name: "reorder rows",
    fits: any,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let size = contents.size();
        let last = some_foreign(rng, &contents, 1, size);
        let first = loop {
            let first = some_foreign(rng, &contents, 1, size);
            if first != last {
                break first;
            }
        };
        let (first, last) = (first.min(last), first.max(last));
        let place = |sequence: i64| usize::try_from(sequence - 1).unwrap();
        contents.rows.swap(place(first), place(last));
        contents.renumber();
        let rehashed = rng.once_in(3);
        if rehashed {
            contents.rehash(first);
        }
        contents.write(&world.contents, path);
        // An entry that was exchanged with its neighbour, or with the last one, leaves nobody who knows its hash; what
        // others know of it makes it exact.
        let unknown = first + 1 == last || last == size;
        if rehashed || unknown && last <= world.anchored {
            return Made::told(First::Within(first));
        }
        Made::told(First::At(first))
    },
};
