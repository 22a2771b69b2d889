//! The book's page on the file format against the code: the statements of the schema and every test vector in it. The
//! page's vectors were computed from its own rules by another program.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_ledger::export::{jsonl, tiles};
use evenkeel_ledger::leaf::Leaf;
use evenkeel_ledger::merkle::Frontier;
use evenkeel_ledger::tlog::tile::Tile;
use evenkeel_ledger::tlog::{Checkpoint, Cosigner, KeyName, SignedNote};
use evenkeel_ledger::{
    DropSelection, Entry, Hash, Ledger, NewEntry, Reader, VerifyOptions, own, schema,
};
use rusqlite::Connection;

use crate::support::{ORIGIN, Place, entry, signer, signing};

const PAGE: &str = include_str!("../../../../docs/src/ledger-format.md");
const VERSION_1: &str = include_str!("version_1.sql");

/// When the page's witness signs: 2026-01-31T12:00:00Z.
const COSIGNED_UNIX: u64 = 1_769_860_800;

/// The contents of the blocks that stand after this mark, without their fences.
fn blocks(mark: &str) -> Vec<&'static str> {
    let mark = format!("<!-- {mark} -->\n");
    PAGE.split(&mark)
        .skip(1)
        .map(|rest| {
            let fenced = rest.trim_start().strip_prefix("```").expect(&mark);
            let (_, body) = fenced.split_once('\n').expect(&mark);
            body.split_once("```\n").expect(&mark).0
        })
        .collect()
}

fn vector(name: &str) -> &'static str {
    let found = blocks(&format!("vector: {name}"));
    assert_eq!(found.len(), 1, "vectors of the name {name}");
    found[0]
}

fn statements(conn: &Connection) -> BTreeSet<String> {
    let mut select = conn
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        .unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn told(blocks: &[&str]) -> BTreeSet<String> {
    let statements = blocks.iter().flat_map(|block| block.split("\n\n"));
    statements.map(|sql| sql.trim_end().to_owned()).collect()
}

fn witness() -> Cosigner {
    Cosigner::from_seed(KeyName::new("witness.example").unwrap(), [3; 32])
}

/// The leaf of an entry as the page writes it: its columns as JSON.
fn leaf(row: &serde_json::Value) -> Vec<u8> {
    let text = |name: &str| row[name].as_str().unwrap().as_bytes();
    Leaf {
        previous_hash: Hash::from_hex(text("previous_hash")).unwrap(),
        sequence: row["sequence"].as_u64().unwrap(),
        timestamp: text("timestamp"),
        actor: text("actor"),
        action: text("action"),
        resource: text("resource"),
        subsystem: text("subsystem"),
        result: text("result"),
        payload_hash: Hash::of(text("payload")),
    }
    .encode()
}

/// The root over the leaves that the page counts.
fn root(size: u64) -> Hash {
    let mut tree = Frontier::new();
    for n in 1..=size {
        tree.push(Hash::of(&[&[0][..], &n.to_be_bytes()].concat()));
    }
    tree.root()
}

#[test]
fn the_schema_is_told_letter_by_letter() {
    let place = Place::with_entries(1);
    let conn = place.sql();
    let schema_now = statements(&conn);
    assert_eq!(told(&blocks("schema")), schema_now);
    let old = Connection::open_in_memory().unwrap();
    old.execute_batch(VERSION_1).unwrap();
    let only_old: BTreeSet<String> = statements(&old).difference(&schema_now).cloned().collect();
    assert_eq!(told(&blocks("schema of version 1")), only_old);
    let id = schema::APPLICATION_ID;
    assert!(PAGE.contains(&format!("`PRAGMA application_id` is {id} ({id:#x}, ")));
    let version = format!("format version, {}.", schema::VERSION);
    assert!(PAGE.replace('\n', " ").contains(&version));
}

#[test]
fn leaves_are_encoded_as_told() {
    let mut previous = Hash::ZERO;
    for (n, row) in (1..).zip(vector("entries").lines()) {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let bytes = leaf(&row);
        let digits: String = vector(&format!("leaf {n}")).split_whitespace().collect();
        assert_eq!(hex::encode(&bytes), digits, "leaf {n}");
        let read = Leaf::decode(&bytes).unwrap();
        assert_eq!(read.sequence, n);
        assert_eq!(read.previous_hash, previous);
        previous = read.hash();
        assert_eq!(row["entry_hash"], previous.to_string());
    }
    assert_eq!(vector("entries").lines().count(), 2);
}

#[test]
fn roots_are_as_told() {
    let told: BTreeMap<u64, &str> = vector("roots")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(size, root)| (size.parse().unwrap(), root))
        .collect();
    assert!(told.contains_key(&3) && told.contains_key(&300));
    for (size, told) in told {
        assert_eq!(root(size).to_string(), told, "{size} leaves");
    }
}

#[test]
fn keys_and_a_checkpoint_are_as_told() {
    let keys = [
        signer(1).verifier().clone(),
        signer(2).verifier().clone(),
        witness().verifier().clone(),
    ];
    let lines = (1..).zip(&keys).map(|(n, key)| format!("{n:02x} {key}\n"));
    assert_eq!(vector("keys"), lines.collect::<String>());
    let checkpoint = Checkpoint::new(ORIGIN, 300, root(300));
    let mut note = checkpoint.sign(&signer(1)).unwrap();
    note.add(witness().cosign(note.text(), COSIGNED_UNIX))
        .unwrap();
    assert_eq!(note.to_string(), vector("checkpoint"));
    let told: SignedNote = vector("checkpoint").parse().unwrap();
    let verified = told.verify(&keys).unwrap();
    assert!(verified.is_by(&keys[0]) && verified.is_by(&keys[2]));
    assert_eq!(verified.signatures()[1].time, Some(COSIGNED_UNIX));
}

/// A ledger that does what the page says about its whole log.
fn whole_log() -> Place {
    let place = Place::new();
    let ledger = place.open_signed(1);
    let first = NewEntry {
        timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
        action: "start_healing_cycle".to_owned(),
        resource: "service:api".to_owned(),
        subsystem: "healing".to_owned(),
        payload: r#"{"workflow_id":"w-1"}"#.to_owned(),
        result: "started".to_owned(),
        ..entry(0)
    };
    let large = NewEntry {
        actor: "grace".to_owned(),
        action: "chat".to_owned(),
        resource: String::new(),
        subsystem: "chat".to_owned(),
        payload: format!(r#"{{"text":"{}"}}"#, "a".repeat(300)),
        ..entry(2)
    };
    ledger.append_all_blocking(vec![first, large]).unwrap();
    ledger.wait(ledger.rotate_key(signer(2))).unwrap();
    let selection = DropSelection {
        except_subsystem: Some("orchestrator".to_owned()),
        ..DropSelection::default()
    };
    let dropped = ledger.drop_payloads(selection, "retention".to_owned());
    assert_eq!(ledger.wait(dropped).unwrap().entries, 1);
    let newest = ledger.checkpoint().unwrap();
    let line = witness().cosign(newest.note.text(), COSIGNED_UNIX);
    let kept = ledger.add_cosignatures(newest.tree_size, vec![line]);
    assert_eq!(ledger.wait(kept).unwrap(), 1);
    ledger.close().unwrap();
    place
}

#[test]
fn a_whole_log_is_exported_as_told() {
    let place = whole_log();
    let report = place.verify_with(&VerifyOptions {
        log_key: Some(signer(1).verifier().clone()),
        witnesses: vec![witness().verifier().clone()],
        ..VerifyOptions::default()
    });
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!((report.payloads_dropped, report.not_anchored), (1, None));
    let reader = Reader::open(&place.path).unwrap();
    let mut out = Vec::new();
    assert_eq!(jsonl(&reader, &mut out, |_, _| {}).unwrap(), 5);
    assert_eq!(String::from_utf8(out).unwrap(), vector("export"));
}

#[test]
fn a_rotation_is_as_told() {
    let place = whole_log();
    let rotation: Entry = Reader::open(&place.path).unwrap().get(4).unwrap().unwrap();
    assert_eq!(rotation.action, own::ROTATE_KEY);
    assert_eq!(
        rotation.payload_json().unwrap()["note"],
        vector("rotation"),
        "the note in the entry"
    );
    let (old, new) = (signer(1), signer(2));
    let lines = [
        "evenkeel-ledger-key-rotation-v1".to_owned(),
        ORIGIN.to_owned(),
        old.verifier().to_string(),
        new.verifier().to_string(),
        "4".to_owned(),
        rotation.previous_hash.to_string(),
    ];
    let note: SignedNote = vector("rotation").parse().unwrap();
    assert_eq!(note.text(), lines.join("\n") + "\n");
    let keys = [old.verifier().clone(), new.verifier().clone()];
    let verified = note.verify(&keys).unwrap();
    assert!(keys.iter().all(|key| verified.is_by(key)));
}

#[test]
fn the_files_of_a_tiled_log_are_as_told() {
    let place = Place::new();
    let ledger = Ledger::open_with(&place.path, &signing(1)).unwrap();
    ledger
        .append_all_blocking((1..300).map(entry).collect())
        .unwrap();
    ledger.close().unwrap();
    let reader = Reader::open(&place.path).unwrap();
    let dir = place.dir.path().join("tiles");
    assert_eq!(tiles(&reader, &dir, |_, _| {}).unwrap(), 300);
    let mut told = 0;
    for name in vector("tiles").lines() {
        let bytes = std::fs::read(dir.join(name)).expect(name);
        match name {
            "checkpoint" => assert_eq!(bytes, told_note(&reader).as_bytes()),
            "tile/0/001.p/44" => {
                let first = reader.get(257).unwrap().unwrap();
                assert_eq!(bytes.len(), 44 * 32);
                assert_eq!(bytes[..32], *first.entry_hash.as_bytes());
            }
            "tile/entries/000" => {
                let leaf = reader.get(1).unwrap().unwrap().leaf_bytes();
                let length = u16::try_from(leaf.len()).unwrap().to_be_bytes();
                assert!(bytes.starts_with(&[&length[..], &leaf].concat()));
            }
            "tile/1/000.p/1" => assert_eq!(bytes, reader.root_at(256).unwrap().as_bytes()),
            _ => assert!(!bytes.is_empty()),
        }
        told += 1;
    }
    let there = Tile::of_log(300).chain(Tile::entries_of_log(300)).count() + 1;
    assert_eq!(told, there, "the page leaves out a file");
}

fn told_note(reader: &Reader) -> String {
    reader.checkpoint().unwrap().unwrap().to_string()
}
