//! Honest logs, made by the ledger itself: random lengths and batches, keys that change, payloads that are dropped, the
//! file closed and opened, signing stopped and resumed, two writers, old formats; and one honest witness who saw some of
//! it, by the specification's own decision.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_ledger::leaf::Leaf;
use evenkeel_ledger::tlog::witness::decide;
use evenkeel_ledger::tlog::{
    AddCheckpoint, Checkpoint, Cosigner, Decision, KeyName, Known, SignedNote, Signer, VerifierKey,
};
use evenkeel_ledger::{
    DROP_BYTES_MIN, DropSelection, Hash, Ledger, NewEntry, Options, Reader, VerifyOptions, schema,
};
use rusqlite::{Connection, params};
use tempfile::TempDir;

use crate::contents::Contents;
use crate::rng::Rng;

const ORIGIN: &str = "evenkeel/00112233445566778899aabbccddeeff";
pub(crate) const WITNESS: &str = "witness.example/one";

/// What may happen to a log, beside entries.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(crate) struct Shape {
    pub(crate) entries: i64,
    pub(crate) batch_max: i64,
    pub(crate) old_format: bool,
    pub(crate) rotations: bool,
    pub(crate) drops: bool,
    /// Signing stops now and then, by a person or because the key is not there.
    pub(crate) pauses: bool,
    /// Two writers at the same file.
    pub(crate) two: bool,
    /// The witness's cosignatures are kept in the file too.
    pub(crate) cosigned: bool,
    /// Entries after the last checkpoint that the witness saw.
    pub(crate) unanchored: bool,
}

impl Shape {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        // Some are long enough for a stored node or two.
        let long = rng.once_in(8);
        Self {
            entries: if long {
                rng.within(250, 560)
            } else {
                rng.within(5, 60)
            },
            batch_max: if long { 90 } else { 20 },
            old_format: rng.once_in(8),
            rotations: rng.once_in(3),
            drops: rng.once_in(3),
            pauses: rng.once_in(4),
            two: rng.once_in(6),
            cosigned: rng.once_in(2),
            unanchored: rng.once_in(3),
        }
    }

    /// Of every kind some, for attacks that need one.
    pub(crate) fn for_attacks(place: usize, rng: &mut Rng) -> Self {
        Self {
            entries: if place % 5 == 4 {
                rng.within(257, 330)
            } else {
                rng.within(20, 60)
            },
            batch_max: if place % 5 == 4 { 90 } else { 14 },
            old_format: place % 7 == 6,
            rotations: place % 3 == 1,
            drops: place % 4 == 2,
            pauses: place % 6 == 5,
            two: false,
            cosigned: place.is_multiple_of(2),
            unanchored: place % 5 == 3,
        }
    }
}

/// A copy of the file at an earlier time, with the key of that time.
#[derive(Debug)]
pub(crate) struct Old {
    pub(crate) path: PathBuf,
    pub(crate) size: i64,
    pub(crate) signer: Arc<Signer>,
}

/// An honest log, closed, and what is known of it elsewhere.
#[derive(Debug)]
pub(crate) struct World {
    _dir: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) contents: Contents,
    /// The log's keys in their order: what a thief has.
    pub(crate) keys: Vec<Arc<Signer>>,
    /// The witness, for attacks that replay what it signed; its key no thief has.
    pub(crate) witness: VerifierKey,
    /// The last checkpoint that the witness cosigned, with its signature: the one thing from elsewhere.
    pub(crate) anchor: SignedNote,
    pub(crate) anchored: i64,
    /// Dropped payloads with their sequences, as they were.
    pub(crate) payloads: Vec<(i64, String)>,
    pub(crate) olds: Vec<Old>,
}

impl World {
    /// What the verifier is given: the one checkpoint from elsewhere, and the witness's key. Not the log's own.
    pub(crate) fn options(&self) -> VerifyOptions {
        VerifyOptions {
            against: vec![self.anchor.clone()],
            ..self.without_anchor()
        }
    }

    pub(crate) fn without_anchor(&self) -> VerifyOptions {
        VerifyOptions {
            threads: 1,
            witnesses: vec![self.witness.clone()],
            ..VerifyOptions::default()
        }
    }

    /// The largest size below `sequence` for which the witness stands by a signature that is still in the file.
    pub(crate) fn vouched_below(&self, now: &Contents, sequence: i64) -> i64 {
        let kept = now.cosignatures.iter();
        kept.filter(|row| row.0 < sequence && self.contents.cosignatures.contains(row))
            .filter(|row| now.checkpoints.get(&row.0) == self.contents.checkpoints.get(&row.0))
            .map(|row| row.0)
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn build(rng: &mut Rng, shape: Shape) -> Self {
        let dir = scratch();
        let path = dir.path().join("evenkeel.db");
        let mut maker = Maker::new(dir.path(), rng.next());
        if shape.old_format {
            version_1(&path, rng);
        }
        let mut left = shape.entries;
        while left > 0 {
            let batch = rng.within(1, shape.batch_max).min(left);
            left -= batch;
            maker.step(rng, &shape, batch);
        }
        maker.finish(rng, &shape);
        let contents = Contents::read(&path);
        let size = i64::try_from(maker.witness.known.unwrap().size).unwrap();
        Self {
            _dir: dir,
            path,
            contents,
            keys: maker.keys,
            witness: maker.witness.cosigner.verifier().clone(),
            anchor: maker.witness.last.unwrap(),
            anchored: size,
            payloads: maker.payloads,
            olds: maker.olds,
        }
    }
}

/// A directory in memory where there is one.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.unwrap()
}

pub(crate) fn signer(seed: [u8; 32]) -> Arc<Signer> {
    Arc::new(Signer::from_seed(KeyName::new(ORIGIN).unwrap(), seed))
}

fn options(signer: Option<Arc<Signer>>) -> Options {
    Options {
        signer,
        clock: || "2026-01-31T12:00:00Z".parse().unwrap(),
        ..Options::default()
    }
}

/// More entries by the ledger itself, as whoever has file and key can make them.
pub(crate) fn append(path: &Path, signer: &Arc<Signer>, rng: &mut Rng, batches: usize) {
    let ledger = Ledger::open_with(path, &options(Some(Arc::clone(signer)))).unwrap();
    for _ in 0..batches {
        let batch = entries(rng, 6);
        ledger.append_all_blocking(batch).unwrap();
    }
    ledger.close().unwrap();
}

fn entries(rng: &mut Rng, most: i64) -> Vec<NewEntry> {
    let count = rng.within(1, most);
    (0..count).map(|_| entry(rng)).collect()
}

/// An entry that is like no other.
pub(crate) fn entry(rng: &mut Rng) -> NewEntry {
    let (id, second) = (rng.next(), rng.within(0, 59));
    let filling = if rng.once_in(3) {
        "lorem ipsum ".repeat(rng.below(50) + 25)
    } else {
        String::new()
    };
    let pick = |rng: &mut Rng, from: &[&str]| (*rng.pick(from)).to_owned();
    NewEntry {
        timestamp: format!(
            "2026-01-31T12:{:02}:{second:02}.{:03}Z",
            rng.within(0, 59),
            id % 1000
        ),
        actor: pick(rng, &["evenkeel", "post_boot_orchestrator", "ops/Zoë"]),
        action: pick(
            rng,
            &["check", "start_healing_cycle", "complete_playbook_run"],
        ),
        resource: pick(rng, &["", "service:api", "signal:error_rate"]),
        subsystem: pick(rng, &["", "watchdog", "orchestrator"]),
        payload: format!(
            r#"{{"id": "{id:016x}", "workflow_id":"w-{second}",  "text":"é é {filling}"}}"#
        ),
        result: pick(rng, &["", "success", "failed"]),
    }
}

/// What a witness knows, and what it does about a checkpoint.
#[derive(Debug)]
struct Witness {
    cosigner: Cosigner,
    log_keys: Vec<VerifierKey>,
    known: Option<Known>,
    last: Option<SignedNote>,
}

#[derive(Debug)]
struct Maker {
    path: PathBuf,
    ledger: Option<Ledger>,
    /// Whether the ledger is open with its key.
    signing: bool,
    stopped: bool,
    keys: Vec<Arc<Signer>>,
    key_seed: u64,
    witness: Witness,
    payloads: Vec<(i64, String)>,
    olds: Vec<Old>,
}

impl Maker {
    fn new(dir: &Path, key_seed: u64) -> Self {
        let mut seeds = Rng::new("keys", key_seed);
        let first = signer(seeds.bytes());
        let name = KeyName::new(WITNESS).unwrap();
        let witness = Witness {
            cosigner: Cosigner::from_seed(name, seeds.bytes()),
            log_keys: vec![first.verifier().clone()],
            known: None,
            last: None,
        };
        Self {
            path: dir.join("evenkeel.db"),
            ledger: None,
            signing: true,
            stopped: false,
            keys: vec![first],
            key_seed: seeds.next(),
            witness,
            payloads: Vec::new(),
            olds: Vec::new(),
        }
    }

    fn ledger(&mut self) -> &Ledger {
        let signer = self.signing.then(|| Arc::clone(self.keys.last().unwrap()));
        self.ledger
            .get_or_insert_with(|| Ledger::open_with(&self.path, &options(signer)).unwrap())
    }

    fn close(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.close().unwrap();
        }
    }

    /// A batch, and what else happens to a log.
    fn step(&mut self, rng: &mut Rng, shape: &Shape, batch: i64) {
        let batch: Vec<NewEntry> = (0..batch).map(|_| entry(rng)).collect();
        self.ledger().append_all_blocking(batch).unwrap();
        if shape.two && rng.once_in(2) && self.signing && !self.stopped {
            append(&self.path, self.keys.last().unwrap(), rng, 1);
        }
        if self.signing && !self.stopped {
            if shape.rotations && rng.once_in(5) {
                self.rotate();
            }
            if rng.once_in(2) {
                self.visit(shape.cosigned);
            }
        }
        if shape.drops && rng.once_in(3) {
            self.drop_payloads(rng);
        }
        if shape.pauses && rng.once_in(4) {
            self.pause_or_go_on();
        }
        if rng.once_in(4) {
            self.reopen(shape.pauses && rng.once_in(3));
        }
    }

    fn finish(&mut self, rng: &mut Rng, shape: &Shape) {
        if self.stopped {
            if !self.signing {
                self.reopen(false);
            }
            self.pause_or_go_on();
        }
        if !self.signing {
            self.reopen(false);
        }
        self.reopen(false);
        let last = entries(rng, 6);
        self.ledger().append_all_blocking(last).unwrap();
        self.visit(shape.cosigned);
        if shape.unanchored {
            for _ in 0..2 {
                let more = entries(rng, 3);
                self.ledger().append_all_blocking(more).unwrap();
            }
        }
        self.close();
    }

    fn rotate(&mut self) {
        self.key_seed += 1;
        let next = signer(Rng::new("next key", self.key_seed).bytes());
        let ledger = self.ledger().clone();
        ledger.wait(ledger.rotate_key(Arc::clone(&next))).unwrap();
        // The operator tells the witness.
        self.witness.log_keys.push(next.verifier().clone());
        self.keys.push(next);
    }

    fn pause_or_go_on(&mut self) {
        if !self.signing {
            return;
        }
        let ledger = self.ledger().clone();
        let reason = "a person decided so".to_owned();
        if self.stopped {
            ledger.wait(ledger.resume_signing(reason)).unwrap();
        } else {
            ledger.wait(ledger.stop_signing(reason)).unwrap();
        }
        self.stopped = !self.stopped;
    }

    /// Closes the file, keeps a copy if its end is signed, and opens it, perhaps without the key.
    fn reopen(&mut self, without_key: bool) {
        self.close();
        if self.signing && !self.stopped {
            let path = self.path.with_extension(format!("{}.old", self.olds.len()));
            std::fs::copy(&self.path, &path).unwrap();
            let size = Reader::open(&path).unwrap().head().unwrap().sequence;
            let signer = Arc::clone(self.keys.last().unwrap());
            let size = i64::try_from(size).unwrap();
            self.olds.push(Old { path, size, signer });
        }
        self.signing = !without_key;
        self.ledger();
    }

    fn drop_payloads(&mut self, rng: &mut Rng) {
        let ledger = self.ledger().clone();
        let before: Vec<_> = Reader::open(&self.path).unwrap().tail(1000).unwrap();
        let size = ledger.head().sequence;
        let first = rng.next() % size + 1;
        let selection = DropSelection {
            first_sequence: first,
            last_sequence: first + rng.next() % size,
            before: rng
                .once_in(3)
                .then(|| "2026-01-31T12:40:00.000Z".to_owned()),
            bytes_min: DROP_BYTES_MIN + rng.next() % 300,
            ..DropSelection::default()
        };
        ledger
            .wait(ledger.drop_payloads(selection, "old".to_owned()))
            .unwrap();
        let after = Reader::open(&self.path).unwrap();
        for then in before {
            let now = after.get(then.sequence).unwrap().unwrap();
            if now.payload != then.payload {
                let sequence = i64::try_from(then.sequence).unwrap();
                self.payloads.push((sequence, then.payload));
            }
        }
    }

    /// The log shows its newest checkpoint to the witness, through the bytes of the protocol.
    fn visit(&mut self, keep: bool) {
        let ledger = self.ledger().clone();
        let reader = Reader::open(&self.path).unwrap();
        let note = reader.checkpoint().unwrap().unwrap();
        let size = Checkpoint::parse(note.text()).unwrap().size;
        let old_size = self.witness.known.map_or(0, |known| known.size);
        let request = AddCheckpoint {
            old_size,
            proof: reader.consistency(old_size, size).unwrap(),
            checkpoint: note,
        };
        let request = AddCheckpoint::parse(request.to_string().as_bytes()).unwrap();
        let witness = &mut self.witness;
        let decision = decide(witness.known.as_ref(), Some(&witness.log_keys), &request);
        let Decision::Cosign { checkpoint } = decision else {
            panic!("an honest log was refused: {decision:?}");
        };
        let (size, root) = (checkpoint.size, checkpoint.root);
        witness.known = Some(Known { size, root });
        let line = witness
            .cosigner
            .cosign(request.checkpoint.text(), 1_769_860_800 + size);
        let mut note = request.checkpoint;
        note.add_verified(line.clone(), witness.cosigner.verifier())
            .unwrap();
        witness.last = Some(note);
        if keep {
            let kept = ledger.wait(ledger.add_cosignatures(size, vec![line]));
            assert!(kept.unwrap() <= 1);
        }
    }
}

/// A file of format version 1 with some entries, as the program of that time left it.
fn version_1(path: &Path, rng: &mut Rng) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
        .unwrap();
    conn.execute_batch(include_str!("../it/version_1.sql"))
        .unwrap();
    conn.execute_batch(&format!(
        "PRAGMA application_id = {}; PRAGMA user_version = 1; BEGIN",
        schema::APPLICATION_ID
    ))
    .unwrap();
    let mut previous_hash = Hash::ZERO;
    for (sequence, new) in (1..).zip(entries(rng, 30)) {
        let hash = Leaf {
            previous_hash,
            sequence,
            timestamp: new.timestamp.as_bytes(),
            actor: new.actor.as_bytes(),
            action: new.action.as_bytes(),
            resource: new.resource.as_bytes(),
            subsystem: new.subsystem.as_bytes(),
            result: new.result.as_bytes(),
            payload_hash: Hash::of(new.payload.as_bytes()),
        }
        .hash();
        conn.execute(
            "INSERT INTO immutable_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                i64::try_from(sequence).unwrap(),
                new.timestamp,
                new.actor,
                new.action,
                new.resource,
                new.subsystem,
                new.payload,
                new.result,
                hash.to_string(),
                previous_hash.to_string(),
            ],
        )
        .unwrap();
        previous_hash = hash;
    }
    conn.execute_batch("COMMIT").unwrap();
}

/// Sequences of the entries that brought a key.
pub(crate) fn key_entries(contents: &Contents) -> BTreeSet<i64> {
    use crate::contents::ACTION;
    use evenkeel_ledger::own::{ROTATE_KEY, TRUST_KEY};
    let rows = contents.rows.iter();
    rows.filter(|row| [TRUST_KEY, ROTATE_KEY].contains(&row.texts[ACTION].as_str()))
        .map(|row| row.sequence)
        .collect()
}
