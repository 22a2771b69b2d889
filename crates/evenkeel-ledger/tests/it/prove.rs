//! Proofs from the file, checked by the algorithms of the RFCs and nothing of the store.

use evenkeel_ledger::tlog::{Checkpoint, Cosigner, KeyName, proof};
use evenkeel_ledger::{DropSelection, LedgerError, Query, Reader};

use crate::support::{Place, entry, signer};

#[test]
fn each_entry_is_proved_by_the_newest_checkpoint() {
    let place = Place::signed_in_groups(600, 100);
    let ledger = place.open_signed(1);
    let witness = Cosigner::from_seed(KeyName::new("witness").unwrap(), [7; 32]);
    let text = ledger.checkpoint().unwrap().note.text().to_owned();
    ledger
        .wait(ledger.add_cosignatures(601, vec![witness.cosign(&text, 5)]))
        .unwrap();
    let reader = Reader::open(&place.path).unwrap();
    let log_key = signer(1).verifier().clone();
    for sequence in [1, 2, 255, 256, 257, 512, 513, 600, 601] {
        let bundle = reader.prove(sequence, None).unwrap();
        let entry = reader.get(sequence).unwrap().unwrap();
        let leaf = proof::leaf_hash(bundle.extra.as_ref().unwrap());
        assert_eq!(leaf, entry.entry_hash);
        let shown = bundle
            .verify(
                &leaf,
                std::slice::from_ref(&log_key),
                &[witness.verifier().clone()],
                1,
            )
            .unwrap();
        assert_eq!(shown.checkpoint.size, 601);
        // Of another entry it shows nothing.
        let other = reader.get(sequence % 601 + 1).unwrap().unwrap().entry_hash;
        assert!(
            bundle
                .verify(&other, std::slice::from_ref(&log_key), &[], 0)
                .is_err()
        );
    }
    // By an older checkpoint, which does not have the newest entries.
    assert!(reader.prove(101, Some(101)).is_ok());
    for (sequence, size) in [(102, Some(101)), (1, Some(9)), (0, None), (602, None)] {
        assert!(
            matches!(
                reader.prove(sequence, size),
                Err(LedgerError::NotProvable { .. })
            ),
            "{sequence}"
        );
    }
    assert_eq!(
        reader.cosigned_by("witness").unwrap(),
        reader.checkpoint().unwrap()
    );
    assert_eq!(reader.cosigned_by("nobody").unwrap(), None);
    assert_eq!(reader.keys().unwrap().current(), Some(&log_key));
}

#[test]
fn the_log_is_shown_to_have_only_grown() {
    let place = Place::signed_in_groups(600, 100);
    let reader = Reader::open(&place.path).unwrap();
    let root = |size| reader.root_at(size).unwrap();
    let newest = Checkpoint::parse(reader.checkpoint().unwrap().unwrap().text()).unwrap();
    assert_eq!(root(601), newest.root);
    for old in [1, 101, 255, 256, 300, 600, 601] {
        let proof = reader.consistency(old, 601).unwrap();
        proof::verify_consistency(old, 601, &proof, &root(old), &root(601)).unwrap();
        assert!(
            proof::verify_consistency(old, 601, &proof, &root(599), &root(601)).is_err()
                || old == 599
        );
    }
    for (old, new) in [(602, 601), (1, 602)] {
        assert!(matches!(
            reader.consistency(old, new),
            Err(LedgerError::NotProvable { .. })
        ));
    }
    assert!(reader.root_at(602).is_err());
}

/// Without the payload the proof is the same.
#[test]
fn an_entry_is_proved_after_its_payload_was_dropped() {
    let place = Place::signed(3);
    let ledger = place.open_signed(1);
    let mut large = entry(4);
    large.payload = format!("\"{}\"", "x".repeat(1000));
    let sealed = ledger.append_blocking(large).unwrap();
    let reader = Reader::open(&place.path).unwrap();
    let before = reader.prove(sealed.sequence, None).unwrap();
    ledger
        .wait(ledger.drop_payloads(DropSelection::default(), "old".to_owned()))
        .unwrap();
    assert_eq!(reader.prove(sealed.sequence, Some(5)).unwrap(), before);
    assert_eq!(proof::leaf_hash(&before.extra.unwrap()), sealed.entry_hash);
}

#[test]
fn what_was_never_signed_cannot_be_proved() {
    let place = Place::with_entries(3);
    let reader = Reader::open(&place.path).unwrap();
    assert_eq!(reader.checkpoint().unwrap(), None);
    assert_eq!(reader.keys().unwrap().current(), None);
    assert!(matches!(
        reader.prove(1, None),
        Err(LedgerError::NotProvable { .. })
    ));
    // The tree is there all the same.
    assert_eq!(reader.root_at(3).unwrap(), place.verify().merkle_root);
}

/// What an export is made of: payloads as stored, leaves that hash to `entry_hash`, and the tiles over them.
#[test]
fn an_export_has_all_that_it_takes_to_verify_it() {
    let place = Place::signed_in_groups(600, 100);
    let reader = Reader::open(&place.path).unwrap();
    let mut hashes = Vec::new();
    let _: std::ops::ControlFlow<()> = reader
        .for_each(&Query::new(), |entry| {
            assert_eq!(proof::leaf_hash(&entry.leaf_bytes()), entry.entry_hash);
            hashes.push(entry.entry_hash);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let mut tiles = Vec::new();
    for (index, width) in [(0, 256), (1, 256), (2, 89)] {
        tiles.extend(reader.tile_hashes(0, index, width).unwrap());
    }
    assert_eq!(tiles, hashes);
    let above = reader.tile_hashes(1, 0, 2).unwrap();
    for (tile, root) in hashes.chunks(256).zip(above) {
        assert_eq!(proof::root(&proof::LeafNodes(tile), 256).unwrap(), root);
    }
    for (level, index, width) in [(0, 2, 90), (1, 0, 3), (0, 0, 0), (0, 0, 257), (8, 0, 1)] {
        assert!(reader.tile_hashes(level, index, width).is_err());
    }
}
