//! Queries, counts, streaming, and reading without the right to write.

use std::ops::ControlFlow;

use evenkeel_ledger::{Counts, Exclude, LedgerError, NewEntry, Order, Query, Reader};

use crate::support::{Place, entry, timestamp};

fn numbered(entries: &[evenkeel_ledger::Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.sequence).collect()
}

/// Ten entries: odd ones of healing with a workflow, even ones of the target.
fn mixed() -> Place {
    let place = Place::new();
    let ledger = place.open();
    let entries = (1..=10).map(|n| {
        let healing = n % 2 == 1;
        let mut new = entry(n);
        if healing {
            new.subsystem = "healing".into();
            new.action = if n == 9 {
                "complete_healing_cycle"
            } else {
                "start_step"
            }
            .into();
            new.payload = format!(r#"{{"workflow_id":"w-{}","the-key":"v","n":{n}}}"#, n / 5);
        } else {
            new.actor = "grace".into();
            new.result = if n == 4 { "error" } else { "success" }.into();
        }
        new
    });
    ledger.append_all_blocking(entries.collect()).unwrap();
    place
}

#[test]
fn filters_order_and_limit() {
    let place = mixed();
    let reader = Reader::open(&place.path).unwrap();
    let sequences = |query: Query| numbered(&reader.query(&query).unwrap());
    assert_eq!(sequences(Query::new()), (1..=10).collect::<Vec<_>>());
    assert_eq!(
        sequences(Query::new().subsystem("healing")),
        [1, 3, 5, 7, 9]
    );
    assert_eq!(
        sequences(Query::new().action("complete_healing_cycle")),
        [9]
    );
    assert_eq!(sequences(Query::new().actor("grace").result("error")), [4]);
    assert_eq!(sequences(Query::new().resource("service:6")), [6]);
    assert_eq!(sequences(Query::new().since(timestamp(8))), [8, 9, 10]);
    assert_eq!(sequences(Query::new().until(timestamp(3))), [1, 2]);
    assert_eq!(sequences(Query::new().after(7).before(10)), [8, 9]);
    assert_eq!(
        sequences(Query::new().payload("workflow_id", "w-1")),
        [5, 7, 9]
    );
    assert_eq!(
        sequences(Query::new().payload("the-key", "v").after(4).limit(1)),
        [5]
    );
    assert_eq!(sequences(Query::new().newest_first().limit(3)), [10, 9, 8]);
    assert_eq!(
        sequences(Query::new().order(Order::OldestFirst).limit(2)),
        [1, 2]
    );
    assert_eq!(sequences(Query::new().after(u64::MAX)), [0; 0]);
    assert_eq!(numbered(&reader.tail(3).unwrap()), [8, 9, 10]);
    assert_eq!(
        reader
            .count(&Query::new().subsystem("healing").limit(1))
            .unwrap(),
        5
    );
    assert_eq!(reader.head().unwrap(), place.open().head());
    assert_eq!(reader.get(5).unwrap().unwrap().sequence, 5);
    assert_eq!(reader.get(11).unwrap(), None);
    assert_eq!(reader.get(0).unwrap(), None);
    // Values are bound: quotes are only quotes.
    assert_eq!(sequences(Query::new().actor("' OR 1=1 --")), [0; 0]);
    for query in [
        Query::new().payload("a'b", "x"),
        Query::new().payload("", "x"),
        Query::new().since("now"),
        Query::new().until("2026-01-31"),
    ] {
        assert!(
            matches!(reader.query(&query), Err(LedgerError::Invalid { .. })),
            "{query:?}"
        );
    }
}

#[test]
fn the_queries_use_their_indexes() {
    let place = mixed();
    let conn = place.sql();
    for (filter, index) in [
        (
            "action = 'x' ORDER BY sequence DESC LIMIT 10",
            "immutable_log_by_action",
        ),
        (
            "subsystem = 'x' AND sequence > 5 ORDER BY sequence LIMIT 10",
            "immutable_log_by_subsystem",
        ),
        (
            "json_extract(payload, '$.workflow_id') = ?1 ORDER BY sequence",
            "immutable_log_by_workflow",
        ),
        (
            "timestamp >= 'x' AND +action = 'y'",
            "immutable_log_by_timestamp",
        ),
    ] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM immutable_log WHERE {filter}");
        let mut statement = conn.prepare(&sql).unwrap();
        if statement.parameter_count() > 0 {
            statement.raw_bind_parameter(1, "w").unwrap();
        }
        let plan: String = {
            let mut rows = statement.raw_query();
            let mut lines = String::new();
            while let Some(row) = rows.next().unwrap() {
                lines += &row.get::<_, String>(3).unwrap();
            }
            lines
        };
        assert!(plan.contains(index), "{filter}: {plan}");
    }
}

#[test]
fn streaming_gives_every_entry_once_and_can_stop() {
    let place = Place::with_entries(1000);
    let ledger = place.open();
    for _ in 0..8 {
        ledger
            .append_all_blocking((0..1000).map(entry).collect())
            .unwrap();
    }
    let reader = ledger.reader().unwrap();
    let mut seen = 0;
    let flow: ControlFlow<()> = reader
        .for_each(&Query::new().subsystem("watchdog"), |entry| {
            seen += 1;
            assert_eq!(entry.sequence, seen);
            // Appends meanwhile neither block nor prolong it.
            if seen.is_multiple_of(2000) {
                ledger.append_blocking(crate::support::entry(1)).unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((flow, seen), (ControlFlow::Continue(()), 9000));
    let stopped = reader.for_each(&Query::new().after(4090), |entry| match entry.sequence {
        4100 => ControlFlow::Break("here"),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(stopped.unwrap(), ControlFlow::Break("here"));
}

#[test]
fn error_share_counts_the_targets_errors_only() {
    let place = Place::new();
    let ledger = place.open();
    let of = |n, actor: &str, result: &str| NewEntry {
        actor: actor.into(),
        result: result.into(),
        subsystem: if n == 9 { "self_test" } else { "api" }.into(),
        ..entry(n)
    };
    ledger
        .append_all_blocking(vec![
            of(1, "grace", "error"),
            of(2, "grace", "success"),
            of(3, "grace", "Error"),
            of(4, "grace", "denied"),
            of(5, "evenkeel", "failed"),
            of(6, "grace", "timeout"),
            of(7, "grace", "failed"),
            of(8, "grace", ""),
            of(9, "grace", "failure"),
        ])
        .unwrap();
    let reader = ledger.reader().unwrap();
    let share = |since, exclude| reader.error_share(&timestamp(since), exclude).unwrap();
    let ours = Exclude {
        actors: &["evenkeel", "evenkeel-cli"],
        subsystems: &["self_test"],
    };
    assert_eq!(
        share(0, Exclude::default()),
        Counts {
            failed: 6,
            total: 9
        }
    );
    assert_eq!(
        share(0, ours),
        Counts {
            failed: 4,
            total: 7
        }
    );
    assert_eq!(
        share(4, ours),
        Counts {
            failed: 2,
            total: 4
        }
    );
    assert_eq!(share(100, ours), Counts::default());
    // In parts each entry counts once, wherever it is cut.
    for cut in 0..=9 {
        let part = |after, until| reader.error_share_between(after, until, ours).unwrap();
        let (one, two) = (part(0, cut), part(cut, 9));
        assert_eq!((one.failed + two.failed, one.total + two.total), (4, 7));
    }
    assert!(matches!(
        reader.error_share("x", ours),
        Err(LedgerError::Invalid { .. })
    ));
}

#[test]
fn playbook_runs_are_counted_and_shown() {
    let place = Place::new();
    let ledger = place.open();
    for (n, result) in [(1, "failed"), (2, "success"), (3, "failed"), (4, "success")] {
        let payload = format!(
            r#"{{"run_id":"r-{n}","workflow_id":"w","playbook":"scale_up_workers","anomaly_type":"latency_spike",
                "attempt":{n},"started_at":"a","finished_at":"b","duration_ms":12,"steps":[1,2],"verified":true}}"#
        );
        let action = "complete_playbook_run".to_owned();
        ledger
            .append_blocking(NewEntry {
                action,
                payload,
                result: result.into(),
                ..entry(n)
            })
            .unwrap();
    }
    ledger.append_blocking(entry(5)).unwrap();
    let reader = ledger.reader().unwrap();
    assert_eq!(
        reader.playbook_run_counts(&timestamp(0), "").unwrap(),
        Counts {
            failed: 2,
            total: 4
        }
    );
    assert_eq!(
        reader.playbook_run_counts(&timestamp(2), "").unwrap(),
        Counts {
            failed: 1,
            total: 3
        }
    );
    let shown: String = place
        .sql()
        .query_row(
            "SELECT sequence || '|' || timestamp || '|' || run_id || '|' || workflow_id || '|' || playbook_id || '|' ||
                    anomaly_type || '|' || attempt || '|' || started_at || '|' || finished_at || '|' ||
                    duration_ms || '|' || steps || '|' || verified || '|' || result
               FROM playbook_runs WHERE sequence = 3",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        shown,
        format!(
            "3|{}|r-3|w|scale_up_workers|latency_spike|3|a|b|12|[1,2]|1|failed",
            timestamp(3)
        )
    );
}

#[test]
fn a_reader_sees_what_was_acknowledged_and_cannot_write() {
    let place = Place::new();
    let ledger = place.open();
    let reader = ledger.reader().unwrap();
    for n in 1..=20 {
        let entry = ledger.append_blocking(entry(n)).unwrap();
        assert_eq!(reader.head().unwrap().hash, entry.entry_hash);
    }
    // A copy made with SQLite's own means is a ledger like any other.
    let copy = place.dir.path().join("copy.db");
    place
        .sql()
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    assert_eq!(Reader::open(&copy).unwrap().head().unwrap(), ledger.head());
    assert!(
        evenkeel_ledger::verify(&copy, |_, _| {})
            .unwrap()
            .is_sound()
    );
}
