//! Appending: order, atomicity, refusals that touch one entry only, closing.

use std::collections::HashSet;

use evenkeel_ledger::{
    BATCH_ENTRIES_MAX, Entry, FIELD_BYTES_MAX, Hash, Head, LedgerError, NewEntry, Order,
    PAYLOAD_BYTES_MAX, Query,
};
use proptest::prelude::*;

use crate::support::{Place, entry};

#[tokio::test]
async fn entries_come_back_sealed_and_chained() {
    let place = Place::new();
    let ledger = place.open();
    assert_eq!(
        ledger.head(),
        Head {
            sequence: 0,
            hash: Hash::ZERO
        }
    );
    let first = ledger.append(entry(1)).await.unwrap();
    let second = ledger.append(entry(2)).await.unwrap();
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_eq!(first.previous_hash.to_string(), "0".repeat(64));
    assert_eq!(second.previous_hash, first.entry_hash);
    assert_eq!(
        ledger.head(),
        Head {
            sequence: 2,
            hash: second.entry_hash
        }
    );
    assert_eq!(first.payload, entry(1).payload);
    assert_eq!(ledger.reader().unwrap().tail(10).unwrap(), [first, second]);
}

#[test]
fn many_threads_get_one_contiguous_chain() {
    let place = Place::new();
    let ledger = place.open();
    let (threads, each) = (8, 50);
    let mut all: Vec<Entry> = std::thread::scope(|scope| {
        let appending: Vec<_> = (0..threads)
            .map(|thread| {
                let ledger = ledger.clone();
                scope.spawn(move || {
                    (0..each)
                        .flat_map(|n| {
                            let n = thread * 1000 + n;
                            if n % 10 == 0 {
                                let batch = vec![entry(n), entry(n), entry(n)];
                                let batch = ledger.append_all_blocking(batch).unwrap();
                                assert_eq!(batch[2].sequence, batch[0].sequence + 2);
                                batch
                            } else {
                                vec![ledger.append_blocking(entry(n)).unwrap()]
                            }
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        appending
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    ledger.close().unwrap();
    all.sort_by_key(|entry| entry.sequence);
    let expected = threads * (each + 2 * 5);
    assert!(all.iter().map(|entry| entry.sequence).eq(1..=expected));
    assert!(
        all.windows(2)
            .all(|pair| pair[0].entry_hash == pair[1].previous_hash)
    );
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(report.entries, expected);
    assert_eq!(report.head, all.last().unwrap().entry_hash);
}

#[test]
fn a_bad_entry_is_refused_alone() {
    let place = Place::new();
    let ledger = place.open();
    let bad = [
        NewEntry {
            payload: "{".into(),
            ..entry(1)
        },
        NewEntry {
            payload: format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX)),
            ..entry(1)
        },
        NewEntry {
            resource: "x".repeat(FIELD_BYTES_MAX + 1),
            ..entry(1)
        },
        NewEntry {
            timestamp: "yesterday".into(),
            ..entry(1)
        },
    ];
    for bad in bad {
        let refused = ledger.append_blocking(bad.clone());
        assert!(
            matches!(refused, Err(LedgerError::Invalid { .. })),
            "{refused:?}"
        );
        // Atomic: the good ones of its batch are not written either.
        let refused = ledger.append_all_blocking(vec![entry(1), bad, entry(2)]);
        assert!(
            matches!(refused, Err(LedgerError::Invalid { .. })),
            "{refused:?}"
        );
    }
    let too_many = (0..=BATCH_ENTRIES_MAX as u64).map(entry).collect();
    assert!(matches!(
        ledger.append_all_blocking(too_many),
        Err(LedgerError::Invalid { .. })
    ));
    assert_eq!(ledger.append_all_blocking(Vec::new()).unwrap(), []);
    assert_eq!(ledger.append_blocking(entry(1)).unwrap().sequence, 1);
    assert_eq!(ledger.failure().map(|error| error.to_string()), None);
}

#[test]
fn what_was_accepted_is_written_before_the_last_handle_is_gone() {
    let place = Place::new();
    let ledger = place.open();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let ledger = ledger.clone();
            std::thread::spawn(move || ledger.append_blocking(entry(n)).unwrap().entry_hash)
        })
        .collect();
    drop(ledger);
    let hashes: HashSet<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    // The handles are gone and the file is closed: no write-ahead log is left beside it.
    assert!(!place.dir.path().join("evenkeel.db-wal").exists());
    let found = place.open().reader().unwrap().tail(10).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|entry| entry.entry_hash)
            .collect::<HashSet<_>>(),
        hashes
    );
}

#[test]
fn after_close_every_handle_is_refused() {
    let place = Place::with_entries(1);
    let ledger = place.open();
    let other = ledger.clone();
    ledger.close().unwrap();
    ledger.close().unwrap();
    let refused = other.append_blocking(entry(2));
    assert!(
        matches!(refused, Err(LedgerError::Closed { .. })),
        "{refused:?}"
    );
    assert_eq!(place.open().append_blocking(entry(2)).unwrap().sequence, 2);
}

/// Blocking inside a runtime is impolite, but must not panic: a shutdown path may do it.
#[tokio::test]
async fn blocking_append_works_inside_a_runtime() {
    let place = Place::new();
    assert_eq!(place.open().append_blocking(entry(1)).unwrap().sequence, 1);
}

#[test]
fn two_processes_worth_of_writers_share_one_chain() {
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    for n in 0..5 {
        assert_eq!(one.append_blocking(entry(n)).unwrap().sequence, 2 * n + 1);
        assert_eq!(other.append_blocking(entry(n)).unwrap().sequence, 2 * n + 2);
    }
    drop((one, other));
    assert!(place.verify().is_sound());
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<f64>()
            .prop_filter("JSON has no NaN", |x| x.is_finite())
            .prop_map(|x| format!("{x:e}")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "[ -~]{0,8}",
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            (".{0,4}", inner).prop_map(|(key, value)| {
                format!("{{{} : {value}}}", serde_json::to_string(&key).unwrap())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Honest logs never raise an alarm, whatever is in them; and what the checks before the queue let pass, the
    /// table takes: a refusal there would not be `Invalid`.
    #[test]
    fn whatever_is_accepted_is_kept_byte_for_byte_and_verifies(
        entries in prop::collection::vec((json(), ".{1,20}", ".{0,20}"), 1..12),
    ) {
        let place = Place::new();
        let ledger = place.open();
        let mut kept = Vec::new();
        for (n, (payload, actor, result)) in entries.into_iter().enumerate() {
            let new = NewEntry { payload, actor, result, ..entry(n as u64) };
            match ledger.append_blocking(new.clone()) {
                Ok(entry) => {
                    prop_assert_eq!(&entry.payload, &new.payload);
                    kept.push(entry);
                }
                Err(LedgerError::Invalid { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
        let read = ledger.reader().unwrap().query(&Query::new().order(Order::OldestFirst)).unwrap();
        prop_assert_eq!(&read, &kept);
        let report = place.verify();
        prop_assert!(report.is_sound(), "{:?}", report.damage);
        prop_assert_eq!(report.entries, kept.len() as u64);
    }
}
