//! The store from inside: what only its own connection can show.

use super::*;
use crate::tlog::proof::{LeafNodes, leaf_hash, root};
use crate::tlog::{KeyName, Signer};

fn request(signer: &Signer, size: u8) -> String {
    let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&[n])).collect();
    let root = root(&LeafNodes(&leaves), u64::from(size)).unwrap();
    AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        checkpoint: Checkpoint::new(signer.name(), u64::from(size), root)
            .sign(signer)
            .unwrap(),
    }
    .to_string()
}

/// SAFETY 7: where the record cannot be made durable there is no act; here no cosignature, also not later
#[test]
fn a_store_that_became_read_only_answers_500_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness.db");
    let log = Signer::from_seed(KeyName::new("example.com/log").unwrap(), [1; 32]);
    let witness = Cosigner::from_seed(KeyName::new("example.com/w").unwrap(), [2; 32]);
    let own = [witness.verifier().clone()];
    let store = WitnessStore::open(&path, &own).unwrap();
    store.add_log(log.verifier(), None, 5).unwrap();

    let read_only = |on: bool| {
        let state = store.lock();
        state.conn.pragma_update(None, "query_only", on).unwrap();
    };
    read_only(true);
    let answer = store.add_checkpoint(request(&log, 3).as_bytes(), &witness, 10);
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains('\u{2014}'), "{}", answer.body);
    assert!(matches!(store.failure(), Some(StoreError::Storage { .. })));
    read_only(false);
    let answer = store.add_checkpoint(request(&log, 3).as_bytes(), &witness, 10);
    assert_eq!(answer.status, 500, "a failure is final");

    drop(store);
    let store = WitnessStore::open(&path, &own).unwrap();
    assert_eq!(store.latest("example.com/log").unwrap(), None);
    let answer = store.add_checkpoint(request(&log, 3).as_bytes(), &witness, 10);
    assert_eq!(answer.status, 200);
}
