//! A witness's store: what it answers, what it never forgets, and what it keeps against a log that forked. SAFETY 21:
//! rewrite, old copy and split view are noticed by one who holds a checkpoint elsewhere.

use std::collections::BTreeMap;
use std::sync::Mutex;

use evenkeel_ledger::Hash;
use evenkeel_ledger::tlog::proof::{LeafNodes, consistency, leaf_hash, root, verify_consistency};
use evenkeel_ledger::tlog::witness::{parse_cosignatures_body, parse_size_body};
use evenkeel_ledger::tlog::{
    AddCheckpoint, Checkpoint, Cosigner, KeyName, SignedNote, Signer, VerifierKey,
};
use evenkeel_ledger::witness::{
    EVIDENCE_MAX, EvidenceKind, KEYS_PER_LOG_MAX, Response, StoreError, WitnessStore,
};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

const ORIGIN: &str = "example.com/log";

fn signer(name: &str, seed: u8) -> Signer {
    Signer::from_seed(KeyName::new(name).unwrap(), [seed; 32])
}

/// A log in memory; from `fork_at` on its entries depend on `branch`.
struct Log {
    signer: Signer,
    leaves: Vec<Hash>,
}

impl Log {
    fn new(entries: u64, fork_at: u64, branch: u8) -> Self {
        let leaf = |n: u64| {
            let branch = if n < fork_at { 0 } else { branch };
            leaf_hash(&[&n.to_be_bytes()[..], &[branch]].concat())
        };
        Self {
            signer: signer(ORIGIN, 1),
            leaves: (0..entries).map(leaf).collect(),
        }
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        Checkpoint::new(ORIGIN, size, root(&LeafNodes(&self.leaves), size).unwrap())
    }

    fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        AddCheckpoint {
            old_size: old,
            proof: consistency(&LeafNodes(&self.leaves), old, new).unwrap_or_default(),
            checkpoint: self.checkpoint(new).sign(&self.signer).unwrap(),
        }
    }
}

struct Witness {
    dir: TempDir,
    cosigner: Cosigner,
    store: WitnessStore,
}

impl Witness {
    fn new() -> Self {
        let witness = Self::strange();
        let key = signer(ORIGIN, 1).verifier().clone();
        assert!(witness.store.add_log(&key, None, 100).unwrap());
        witness
    }

    /// One that knows no log.
    fn strange() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cosigner = Cosigner::from_seed(KeyName::new("example.com/w").unwrap(), [9; 32]);
        let store = WitnessStore::open(
            &dir.path().join("witness.db"),
            &[cosigner.verifier().clone()],
        )
        .unwrap();
        Self {
            dir,
            cosigner,
            store,
        }
    }

    fn keys(&self) -> [VerifierKey; 1] {
        [self.cosigner.verifier().clone()]
    }

    fn reopened(self) -> Self {
        let Self {
            dir,
            cosigner,
            store,
        } = self;
        drop(store);
        let own = [cosigner.verifier().clone()];
        let store = WitnessStore::open(&dir.path().join("witness.db"), &own).unwrap();
        Self {
            dir,
            cosigner,
            store,
        }
    }

    fn ask(&self, request: &AddCheckpoint, now: u64) -> Response {
        self.store
            .add_checkpoint(request.to_string().as_bytes(), &self.cosigner, now)
    }

    /// Asks, and checks that a cosignature was answered. Its time.
    fn cosigned(&self, request: &AddCheckpoint, now: u64) -> u64 {
        let answer = self.ask(request, now);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let lines = parse_cosignatures_body(answer.body.as_bytes()).unwrap();
        let note = SignedNote::new(request.checkpoint.text(), lines).unwrap();
        note.verify(&self.keys()).unwrap().signatures()[0]
            .time
            .unwrap()
    }

    fn size(&self) -> u64 {
        let latest = self.store.latest(ORIGIN).unwrap();
        latest.map_or(0, |latest| latest.checkpoint.size)
    }

    fn sql(&self) -> Connection {
        Connection::open(self.store.path()).unwrap()
    }
}

fn refused(answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert!(!answer.body.contains('\u{2014}'), "{}", answer.body);
}

#[test]
fn a_log_that_grows_is_cosigned_and_remembered() {
    let witness = Witness::new();
    let log = Log::new(20, 20, 0);
    assert_eq!(witness.cosigned(&log.request(0, 3), 1000), 1000);
    assert_eq!(witness.cosigned(&log.request(3, 3), 1001), 1001);
    assert_eq!(witness.cosigned(&log.request(3, 17), 1002), 1002);
    let witness = witness.reopened();
    let latest = witness.store.latest(ORIGIN).unwrap().unwrap();
    assert_eq!(latest.checkpoint, log.checkpoint(17));
    assert_eq!(latest.cosigned_unix, 1002);
    latest.note.verify(&witness.keys()).unwrap();
    latest
        .note
        .verify(std::slice::from_ref(log.signer.verifier()))
        .unwrap();
    let [known] = witness.store.logs().unwrap().try_into().unwrap();
    assert_eq!(
        (known.size, known.added_unix, known.evidence),
        (Some(17), 100, 0)
    );
    assert_eq!(witness.cosigned(&log.request(17, 20), 1003), 1003);
}

#[test]
fn time_never_goes_back() {
    let witness = Witness::new();
    let log = Log::new(9, 9, 0);
    assert_eq!(witness.cosigned(&log.request(0, 3), 1000), 1000);
    assert_eq!(witness.cosigned(&log.request(3, 4), 400), 1000);
    let witness = witness.reopened();
    assert_eq!(witness.cosigned(&log.request(4, 5), 0), 1000);
    assert_eq!(witness.cosigned(&log.request(5, 6), 1001), 1001);
    let far = i64::MAX as u64;
    assert_eq!(witness.cosigned(&log.request(6, 7), u64::MAX), far);
    assert_eq!(witness.reopened().cosigned(&log.request(7, 8), 5), far);
}

#[test]
fn each_wrong_request_has_its_status() {
    let log = Log::new(20, 20, 0);
    refused(&Witness::strange().ask(&log.request(0, 3), 1), 404);

    let witness = Witness::new();
    witness.cosigned(&log.request(0, 8), 1);
    let conflict = witness.ask(&log.request(0, 9), 2);
    refused(&conflict, 409);
    assert_eq!(conflict.content_type, "text/x.tlog.size");
    assert_eq!(parse_size_body(conflict.body.as_bytes()), Some(8));
    // SAFETY 21: an old copy of the log put back is behind its witness
    assert_eq!(witness.ask(&log.request(5, 5), 2).body, "8\n");
    refused(
        &witness.ask(
            &AddCheckpoint {
                old_size: 12,
                ..log.request(8, 11)
            },
            2,
        ),
        400,
    );

    // SAFETY 21: a substituted key, with the log's own name
    let thief = Log {
        signer: signer(ORIGIN, 66),
        leaves: log.leaves.clone(),
    };
    refused(&witness.ask(&thief.request(8, 9), 2), 403);
    let mut forged = log.request(8, 9);
    let stolen = log.request(8, 10).checkpoint.signatures()[0].clone();
    forged.checkpoint = SignedNote::new(forged.checkpoint.text(), vec![stolen]).unwrap();
    refused(&witness.ask(&forged, 2), 403);

    for garbage in [
        &b""[..],
        b"old 0\n",
        b"old 8\n\nx\n",
        b"\xff\xff",
        &vec![b'A'; 80_000],
    ] {
        refused(
            &witness.store.add_checkpoint(garbage, &witness.cosigner, 2),
            400,
        );
    }
    assert_eq!(witness.size(), 8);
    assert_eq!(witness.store.evidence(ORIGIN).unwrap(), []);
    assert_eq!(witness.cosigned(&log.request(8, 9), 2), 2);
}

/// SAFETY 21: a split view at one size is refused, and what is kept proves the fork to anybody with the log's key
#[test]
fn another_root_of_the_same_size_is_evidence() {
    let witness = Witness::new();
    let (log, fork) = (Log::new(20, 20, 0), Log::new(20, 6, 1));
    let keys = [log.signer.verifier().clone()];
    witness.cosigned(&log.request(0, 8), 1);
    // First with wrong old sizes, which alone would be no sign of anything.
    for (old, now) in [(0, 7), (3, 8), (8, 9)] {
        let answer = witness.ask(&fork.request(old, 8), now);
        refused(&answer, 409);
        assert_eq!(parse_size_body(answer.body.as_bytes()), Some(8));
    }
    let witness = witness.reopened();
    let [kept] = witness.store.evidence(ORIGIN).unwrap().try_into().unwrap();
    assert_eq!((kept.kind, kept.seen_unix), (EvidenceKind::OtherRoot, 7));
    assert_eq!(kept.request, fork.request(0, 8), "kept once, the first");
    assert!(kept.proves_fork(&keys));
    assert!(!kept.proves_fork(&[signer(ORIGIN, 66).verifier().clone()]));
    let known = kept.known.unwrap();
    known.verify(&witness.keys()).unwrap();
    assert_eq!(known.text(), log.checkpoint(8).to_text());
    assert_eq!(
        witness.cosigned(&log.request(8, 9), 8),
        8,
        "the true log goes on"
    );
}

/// SAFETY 21: a rewrite signed with the stolen key is refused where it is larger too
#[test]
fn a_larger_fork_is_refused_and_kept() {
    let witness = Witness::new();
    let (log, fork) = (Log::new(20, 20, 0), Log::new(20, 6, 1));
    let keys = [log.signer.verifier().clone()];
    witness.cosigned(&log.request(0, 8), 1);
    refused(&witness.ask(&fork.request(8, 15), 2), 422);
    // The same signed text again, with other proofs and with signatures that anybody can add: kept once.
    let mut again = fork.request(8, 15);
    again.proof.push(Hash::ZERO);
    let stranger = signer("stranger.example", 5);
    again
        .checkpoint
        .add(stranger.sign(again.checkpoint.text()))
        .unwrap();
    refused(&witness.ask(&again, 3), 422);
    let [kept] = witness.store.evidence(ORIGIN).unwrap().try_into().unwrap();
    assert_eq!(kept.kind, EvidenceKind::BadProof);
    assert_eq!(kept.request, fork.request(8, 15));
    assert!(!kept.proves_fork(&keys), "a bad proof alone proves nothing");
    assert_eq!(witness.size(), 8);
}

#[test]
fn the_empty_log_with_another_root_is_evidence_by_itself() {
    let witness = Witness::new();
    let log = Log::new(3, 3, 0);
    let signed = Checkpoint::new(ORIGIN, 0, Hash::ZERO);
    let request = AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        checkpoint: signed.sign(&log.signer).unwrap(),
    };
    refused(&witness.ask(&request, 1), 409);
    let [kept] = witness.store.evidence(ORIGIN).unwrap().try_into().unwrap();
    assert!(kept.known.is_none() && kept.proves_fork(&[log.signer.verifier().clone()]));
}

#[test]
fn evidence_is_bounded_and_one_kind_does_not_push_out_the_other() {
    let witness = Witness::new();
    let (log, fork) = (Log::new(300, 300, 0), Log::new(300, 6, 1));
    witness.cosigned(&log.request(0, 8), 1);
    for new in 9..=(9 + EVIDENCE_MAX as u64) {
        refused(&witness.ask(&fork.request(8, new), 2), 422);
    }
    assert_eq!(witness.store.evidence(ORIGIN).unwrap().len(), EVIDENCE_MAX);
    refused(&witness.ask(&fork.request(8, 8), 2), 409);
    let kept = witness.store.evidence(ORIGIN).unwrap();
    assert_eq!(kept.len(), EVIDENCE_MAX + 1);
    assert_eq!(kept[EVIDENCE_MAX].kind, EvidenceKind::OtherRoot);

    // Few but long ones: the bytes are bounded too.
    let witness = Witness::new();
    witness.cosigned(&log.request(0, 8), 1);
    for new in 9..40 {
        let mut checkpoint = fork.checkpoint(new);
        checkpoint.extensions.push("x".repeat(60_000));
        let request = AddCheckpoint {
            checkpoint: checkpoint.sign(&fork.signer).unwrap(),
            ..fork.request(8, new)
        };
        refused(&witness.ask(&request, 2), 422);
    }
    assert_eq!(witness.store.evidence(ORIGIN).unwrap().len(), 17);
    assert!(witness.store.failure().is_none());
}

#[test]
fn a_log_may_change_its_key_when_the_operator_says_so() {
    let witness = Witness::new();
    let log = Log::new(20, 20, 0);
    witness.cosigned(&log.request(0, 8), 1);
    let rotated = Log {
        signer: signer("example.com/log-2", 4),
        leaves: log.leaves.clone(),
    };
    refused(&witness.ask(&rotated.request(8, 9), 2), 403);
    let key = rotated.signer.verifier();
    assert!(witness.store.add_log(key, Some(ORIGIN), 2).unwrap());
    assert!(
        !witness.store.add_log(key, Some(ORIGIN), 3).unwrap(),
        "known"
    );
    witness.cosigned(&rotated.request(8, 9), 3);
    let witness = witness.reopened();
    let [known] = witness.store.logs().unwrap().try_into().unwrap();
    assert_eq!(known.keys, [log.signer.verifier().clone(), key.clone()]);

    for seed in 0..KEYS_PER_LOG_MAX - 2 {
        let key = signer(ORIGIN, 100 + u8::try_from(seed).unwrap());
        assert!(witness.store.add_log(key.verifier(), None, 4).unwrap());
    }
    let one_more = witness
        .store
        .add_log(signer(ORIGIN, 99).verifier(), None, 4);
    assert!(matches!(one_more, Err(StoreError::TooMany { .. })));
    let not_a_logs = witness.store.add_log(&witness.keys()[0], None, 4);
    assert!(matches!(not_a_logs, Err(StoreError::NotALogKey { .. })));
    for origin in ["", "two\nlines", "tab\t"] {
        let refused = witness.store.add_log(key, Some(origin), 4);
        assert!(
            matches!(refused, Err(StoreError::Origin { .. })),
            "{origin:?}"
        );
    }
}

/// SAFETY 21: 64 at once, of a log and its fork: whatever was cosigned is one history, and the store never shrinks
#[test]
fn requests_at_once_never_get_cosignatures_for_two_histories() {
    let witness = Witness::new();
    let logs = [Log::new(200, 200, 0), Log::new(200, 5, 1)];
    let cosigned = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for n in 0..64_u64 {
            let (witness, cosigned, log) = (&witness, &cosigned, &logs[(n % 2) as usize]);
            scope.spawn(move || {
                let new = 6 + n;
                let mut old = 0;
                // A conflict names the size to ask with; with each of them the log has grown meanwhile.
                for _ in 0..70 {
                    let answer = witness.ask(&log.request(old, new), 50);
                    match answer.status {
                        200 => {
                            let root = log.checkpoint(new).root;
                            assert_eq!(cosigned.lock().unwrap().insert(new, root), None);
                            return;
                        }
                        409 => {
                            let known = parse_size_body(answer.body.as_bytes()).unwrap();
                            assert!(known >= old, "the witness went back to {known}");
                            if known >= new {
                                return;
                            }
                            old = known;
                        }
                        422 => return,
                        other => panic!("{other}: {}", answer.body),
                    }
                }
                panic!("{n} was never answered");
            });
        }
    });
    let cosigned: Vec<(u64, Hash)> = cosigned.into_inner().unwrap().into_iter().collect();
    assert_eq!(cosigned.last().unwrap().0, witness.size());
    let histories = logs.iter().filter(|log| {
        cosigned
            .iter()
            .all(|(size, root)| log.checkpoint(*size).root == *root)
    });
    assert_eq!(histories.count(), 1);
    for pair in cosigned.windows(2) {
        let [(old, old_root), (new, new_root)] = pair else {
            unreachable!()
        };
        let verified = logs.iter().any(|log| {
            let proof = log.request(*old, *new).proof;
            verify_consistency(*old, *new, &proof, old_root, new_root).is_ok()
        });
        assert!(verified, "{old} and {new}");
    }
}

/// Two processes with one store: the transaction, not a lock in memory, keeps them in one order.
#[test]
fn two_stores_on_one_file_agree() {
    let witness = Witness::new();
    let second = WitnessStore::open(witness.store.path(), &witness.keys()).unwrap();
    let log = Log::new(100, 100, 0);
    let granted = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for store in [&witness.store, &second] {
            let (granted, cosigner, log) = (&granted, &witness.cosigner, &log);
            scope.spawn(move || {
                for new in 1..40 {
                    let request = log.request(new - 1, new).to_string();
                    let answer = store.add_checkpoint(request.as_bytes(), cosigner, 5);
                    match answer.status {
                        200 => granted.lock().unwrap().push(new),
                        409 => {}
                        other => panic!("{other}: {}", answer.body),
                    }
                }
            });
        }
    });
    let mut granted = granted.into_inner().unwrap();
    granted.sort_unstable();
    let before = granted.len();
    granted.dedup();
    assert_eq!(
        granted.len(),
        before,
        "one size was cosigned from two old ones"
    );
    assert_eq!(granted.last().copied().unwrap(), witness.size());
}

/// SAFETY 7: what lies in a file that nobody will open again is not durable
#[cfg(unix)]
#[test]
fn a_store_that_was_taken_away_signs_nothing_more() {
    let witness = Witness::new();
    let log = Log::new(9, 9, 0);
    witness.cosigned(&log.request(0, 3), 1);
    std::fs::rename(witness.store.path(), witness.dir.path().join("away.db")).unwrap();
    refused(&witness.ask(&log.request(3, 4), 2), 500);
    assert!(matches!(
        witness.store.failure(),
        Some(StoreError::Replaced { .. })
    ));
    refused(&witness.ask(&log.request(3, 4), 2), 500);
}

#[test]
fn a_lock_held_by_others_is_no_failure() {
    let witness = Witness::new();
    let log = Log::new(9, 9, 0);
    let other = witness.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    refused(&witness.ask(&log.request(0, 3), 2), 500);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(witness.cosigned(&log.request(0, 3), 3), 3);
}

#[test]
fn other_files_are_refused_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(
        &path,
        "not a database, and long enough to be looked at by its reader\n",
    )
    .unwrap();
    assert!(matches!(
        WitnessStore::open(&path, &[]),
        Err(StoreError::NotAStore { .. })
    ));

    let foreign = dir.path().join("foreign.db");
    let sql = Connection::open(&foreign).unwrap();
    sql.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(sql);
    let before = std::fs::read(&foreign).unwrap();
    assert!(matches!(
        WitnessStore::open(&foreign, &[]),
        Err(StoreError::NotAStore { .. })
    ));
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    let witness = Witness::new();
    witness
        .sql()
        .pragma_update(None, "user_version", 2)
        .unwrap();
    let newer = WitnessStore::open(witness.store.path(), &witness.keys());
    assert!(matches!(
        newer,
        Err(StoreError::NewerVersion { found: 2, .. })
    ));
    let nowhere = WitnessStore::open(&dir.path().join("no/such"), &[]);
    assert!(matches!(nowhere, Err(StoreError::Open { .. })));
}

#[cfg(unix)]
#[test]
fn the_store_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let witness = Witness::new();
    let mode = std::fs::metadata(witness.store.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// SAFETY 21: what was changed in the witness's own file is noticed when it is opened
#[test]
fn a_store_that_was_changed_is_refused() {
    let log = Log::new(20, 20, 0);
    let fork = Log::new(20, 2, 1).request(0, 8).checkpoint;
    let smaller = log.request(0, 5).checkpoint;
    let changes = [
        "UPDATE latest SET size = '3'".to_owned(),
        format!("UPDATE latest SET root = '{}'", Hash::ZERO),
        "UPDATE latest SET cosigned_unix = 1".to_owned(),
        format!("UPDATE latest SET note = '{fork}'"),
        format!(
            "UPDATE latest SET note = '{smaller}', size = '5', root = '{}'",
            log.checkpoint(5).root
        ),
        "UPDATE latest SET note = replace(note, '8', '9'), size = '9'".to_owned(),
        "UPDATE latest SET cosignature = replace(cosignature, 'example.com/w', 'example.com/v')"
            .to_owned(),
        "DELETE FROM logs".to_owned(),
        "DROP TRIGGER fork_evidence_no_delete".to_owned(),
        "CREATE TRIGGER t AFTER UPDATE ON latest BEGIN DELETE FROM logs; END".to_owned(),
    ];
    for change in changes {
        let witness = Witness::new();
        witness.cosigned(&log.request(0, 8), 7);
        drop(WitnessStore::open(witness.store.path(), &witness.keys()).unwrap());
        witness.sql().execute_batch(&change).unwrap();
        let opened = WitnessStore::open(witness.store.path(), &witness.keys());
        assert!(
            matches!(opened, Err(StoreError::DoesNotVerify { .. })),
            "{change}: {opened:?}"
        );
    }
    // Nobody's key is no key, and a witness that changed its key still knows the one before.
    let witness = Witness::new();
    witness.cosigned(&log.request(0, 8), 7);
    let next = Cosigner::from_seed(KeyName::new("example.com/w2").unwrap(), [8; 32]);
    let path = witness.store.path();
    assert!(WitnessStore::open(path, &[]).is_err());
    assert!(WitnessStore::open(path, &[next.verifier().clone()]).is_err());
    let both = [next.verifier().clone(), witness.cosigner.verifier().clone()];
    assert!(WitnessStore::open(path, &both).is_ok());
    let sql = witness.sql();
    let fork = Log::new(20, 2, 1);
    refused(&witness.ask(&fork.request(8, 8), 9), 409);
    assert!(sql.execute("DELETE FROM fork_evidence", []).is_err());
    assert!(
        sql.execute("UPDATE fork_evidence SET kind = 'bad_proof'", [])
            .is_err()
    );
}

#[derive(Debug, Clone)]
enum Spoil {
    Cut(usize),
    Put(usize, u8),
    Insert(usize, u8),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (0_usize..600).prop_map(Spoil::Cut),
        (0_usize..600, any::<u8>()).prop_map(|(at, byte)| Spoil::Put(at, byte)),
        (0_usize..600, any::<u8>()).prop_map(|(at, byte)| Spoil::Insert(at, byte)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_change_what_is_known(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..4),
                                     spoils in proptest::collection::vec(spoil(), 1..12)) {
        let witness = Witness::new();
        let log = Log::new(20, 20, 0);
        witness.cosigned(&log.request(0, 7), 1);
        let before = witness.store.latest(ORIGIN).unwrap();
        for body in bodies {
            refused(&witness.store.add_checkpoint(&body, &witness.cosigner, 2), 400);
        }
        let good = log.request(7, 13).to_string().into_bytes();
        for spoil in spoils {
            let mut body = good.clone();
            match spoil {
                Spoil::Cut(at) => body.truncate(at.min(good.len() - 1)),
                Spoil::Put(at, byte) => body[at % good.len()] = byte,
                Spoil::Insert(at, byte) => body.insert(at % good.len(), byte),
            }
            if body != good {
                let answer = witness.store.add_checkpoint(&body, &witness.cosigner, 2);
                prop_assert!(matches!(answer.status, 400 | 403 | 404 | 409 | 422), "{}", answer.status);
            }
        }
        prop_assert_eq!(witness.store.latest(ORIGIN).unwrap(), before);
        prop_assert!(witness.store.failure().is_none());
    }
}
