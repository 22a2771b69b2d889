//! Attacks on the end of the log and on all of it: cut, rewritten with the stolen key, put back, shown in two versions.

use std::path::Path;
use std::sync::Arc;

use evenkeel_ledger::tlog::Signer;

use crate::contents::{ACTOR, PAYLOAD, RESOURCE, RESULT};
use crate::entries::some_foreign;
use crate::honest::{Old, World, append, entry};
use crate::rng::Rng;
use crate::tables::uncovered_without;
use crate::{Class, First, Made};

pub(crate) const CUT_TAIL: Class = Class {
    name: "cut the tail",
    fits: |_| true,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let left = rng.within(0, contents.size() - 1);
        contents.rows.retain(|row| row.sequence <= left);
        contents.write(&world.contents, path);
        let bare = uncovered_without(&world.contents, |row| row.sequence > left);
        Made::told(First::At(bare.into_iter().fold(left + 1, i64::min)))
    },
};

pub(crate) const CUT_TAIL_WHOLE: Class = Class {
    name: "cut the tail with its checkpoints",
    fits: |world| world.contents.checkpoints.range(..world.anchored).count() > 0,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let sizes: Vec<i64> = world
            .contents
            .checkpoints
            .range(..world.anchored)
            .map(|(size, _)| *size)
            .collect();
        // Mostly where it was signed, as somebody does who knows the format.
        let signed = *rng.pick(&sizes);
        let left = if rng.once_in(4) {
            rng.within(signed, world.anchored - 1)
        } else {
            signed
        };
        contents.rows.retain(|row| row.sequence <= left);
        contents.checkpoints.retain(|size, _| *size <= left);
        contents.cosignatures.retain(|row| row.0 <= left);
        contents
            .nodes
            .retain(|(_, position), _| (position + 1) * 256 <= left);
        contents.write(&world.contents, path);
        let bare = uncovered_without(&world.contents, |row| row.sequence > left);
        let unsigned = contents.checkpoint_below(left + 1);
        // A stretch that was not signed, and says so, may end there too.
        let stop = contents.rows.get(usize::try_from(unsigned).unwrap());
        let says_so =
            stop.is_some_and(|row| row.texts[crate::contents::ACTION] == "stop_ledger_signing");
        let first = if unsigned < left && !says_so {
            unsigned + 1
        } else {
            left + 1
        };
        let first = bare.into_iter().fold(first, i64::min);
        if first == left + 1 {
            return Made::only_elsewhere(First::At(first));
        }
        Made::told(First::At(first))
    },
};

pub(crate) const REWRITE: Class = Class {
    name: "whole rewrite with the stolen key",
    fits: |_| true,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let bad = some_foreign(rng, &contents, 1, world.anchored);
        let place = usize::try_from(bad - 1).unwrap();
        let with_drops = !world.payloads.is_empty();
        let mut from = bad;
        match rng.below(if with_drops { 2 } else { 4 }) {
            0 => contents.row(bad).texts[*rng.pick(&[ACTOR, RESOURCE, RESULT])].push_str(" or not"),
            1 if contents.row(bad).dropped().is_none() => {
                contents.row(bad).texts[PAYLOAD] = entry(rng).payload;
            }
            1 => contents.row(bad).texts[ACTOR].push('x'),
            // All that comes after moves.
            2 => {
                contents.rows.remove(place);
                contents.renumber();
                from = (bad - 1).max(1);
                move_checkpoints(&mut contents, bad, -1);
            }
            _ => {
                let mut row = contents.rows[place].clone();
                row.texts[PAYLOAD] = entry(rng).payload;
                contents.rows.insert(place, row);
                contents.renumber();
                move_checkpoints(&mut contents, bad, 1);
            }
        }
        contents.resign(from, &world.keys);
        // The witness's key was not stolen; what it signed of the part that stays may be left or not.
        let left = if rng.once_in(2) { bad } else { 0 };
        contents.cosignatures.retain(|row| row.0 < left);
        contents.write(&world.contents, path);
        // One entry less may be one less than the witness saw; more is not known then.
        if contents.size() < world.anchored {
            return Made::only_elsewhere(First::At(contents.size() + 1));
        }
        Made::only_elsewhere(First::Within(bad))
    },
};

/// The checkpoints from an entry on are about one entry more or less.
fn move_checkpoints(contents: &mut crate::contents::Contents, from: i64, by: i64) {
    let moved = std::mem::take(&mut contents.checkpoints).into_iter();
    contents.checkpoints = moved
        .map(|(size, note)| (if size >= from { size + by } else { size }, note))
        .filter(|(size, _)| *size > 0)
        .collect();
}

/// Copies from before the last checkpoint that the witness saw.
fn olds(world: &World) -> Vec<&Old> {
    let olds = world.olds.iter();
    olds.filter(|old| (1..world.anchored).contains(&old.size))
        .collect()
}

pub(crate) const OLD_COPY: Class = Class {
    name: "old copy put back",
    fits: |world| !olds(world).is_empty(),
    attack: |rng, world, path| {
        let old = *rng.pick(&olds(world));
        std::fs::copy(&old.path, path).unwrap();
        Made::only_elsewhere(First::At(old.size + 1))
    },
};

pub(crate) const SPLIT_VIEW: Class = Class {
    name: "split view",
    fits: |world| !olds(world).is_empty(),
    attack: |rng, world, path| {
        let old = *rng.pick(&olds(world));
        std::fs::copy(&old.path, path).unwrap();
        let size = fork(path, &old.signer, rng, world.anchored);
        // One that is shorter than what the witness saw lacks entries, and more is not known of it.
        let first = if size < world.anchored {
            First::At(size + 1)
        } else {
            First::Within(old.size + 1)
        };
        Made::only_elsewhere(first)
    },
};

/// Goes on from an old copy with other entries, by the log's own key. Mostly as long as the other log.
fn fork(path: &Path, signer: &Arc<Signer>, rng: &mut Rng, size: i64) -> i64 {
    let short = rng.once_in(4);
    // Each batch has an entry at least.
    for _ in 0..=size {
        append(path, signer, rng, 2);
        let now = crate::contents::Contents::read(path).size();
        if short || now >= size {
            return now;
        }
    }
    panic!("{size} batches and not {size} entries");
}
