//! The statements that make a ledger's tables, triggers, indexes and view, for each format version. They are part of
//! the file format: SQLite keeps their text, and it is compared letter by letter.

/// One object of the schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// `sequence` is the only unique column on purpose: with a second one, `INSERT OR REPLACE` of a correct next entry
/// that repeats an old value there would delete the old row, and no trigger would see it.
static LOG: [Object; 8] = [
    Object {
        kind: "table",
        name: "immutable_log",
        sql: "CREATE TABLE immutable_log (
  sequence INTEGER PRIMARY KEY CHECK (sequence >= 1),
  timestamp TEXT NOT NULL CHECK (length(timestamp) = 24 AND timestamp GLOB '????-??-??T??:??:??.???Z'),
  actor TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 1024),
  action TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 1024),
  resource TEXT NOT NULL CHECK (length(resource) <= 1024),
  subsystem TEXT NOT NULL CHECK (length(subsystem) <= 1024),
  payload TEXT NOT NULL CHECK (json_valid(payload)),
  result TEXT NOT NULL CHECK (length(result) <= 1024),
  entry_hash TEXT NOT NULL CHECK (length(entry_hash) = 64 AND entry_hash NOT GLOB '*[^0-9a-f]*'),
  previous_hash TEXT NOT NULL CHECK (length(previous_hash) = 64 AND previous_hash NOT GLOB '*[^0-9a-f]*')
) STRICT",
    },
    Object {
        kind: "trigger",
        name: "immutable_log_no_delete",
        sql: "CREATE TRIGGER immutable_log_no_delete BEFORE DELETE ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be deleted');
END",
    },
    Object {
        kind: "trigger",
        name: "immutable_log_next_only",
        sql: "CREATE TRIGGER immutable_log_next_only BEFORE INSERT ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: sequence must be the highest one plus 1')
   WHERE NEW.sequence IS NOT coalesce((SELECT max(sequence) FROM immutable_log), 0) + 1;
  SELECT RAISE(ABORT, 'immutable_log is a chain: previous_hash must be the entry_hash of the entry before')
   WHERE NEW.previous_hash IS NOT coalesce(
     (SELECT entry_hash FROM immutable_log ORDER BY sequence DESC LIMIT 1),
     '0000000000000000000000000000000000000000000000000000000000000000');
END",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_action",
        sql: "CREATE INDEX immutable_log_by_action ON immutable_log (action)",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_subsystem",
        sql: "CREATE INDEX immutable_log_by_subsystem ON immutable_log (subsystem)",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_timestamp",
        sql: "CREATE INDEX immutable_log_by_timestamp ON immutable_log (timestamp)",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_workflow",
        sql: "CREATE INDEX immutable_log_by_workflow ON immutable_log (json_extract(payload, '$.workflow_id'))
 WHERE json_extract(payload, '$.workflow_id') IS NOT NULL",
    },
    Object {
        kind: "view",
        name: "playbook_runs",
        sql: "CREATE VIEW playbook_runs AS
SELECT sequence, timestamp,
       json_extract(payload, '$.run_id') AS run_id,
       json_extract(payload, '$.workflow_id') AS workflow_id,
       json_extract(payload, '$.playbook') AS playbook_id,
       json_extract(payload, '$.anomaly_type') AS anomaly_type,
       json_extract(payload, '$.attempt') AS attempt,
       json_extract(payload, '$.started_at') AS started_at,
       json_extract(payload, '$.finished_at') AS finished_at,
       json_extract(payload, '$.duration_ms') AS duration_ms,
       json_extract(payload, '$.steps') AS steps,
       json_extract(payload, '$.verified') AS verified,
       result
  FROM immutable_log
 WHERE action = 'complete_playbook_run'",
    },
];

/// In version 1 nothing at all could be changed.
static NO_UPDATE_V1: Object = Object {
    kind: "trigger",
    name: "immutable_log_no_update",
    sql: "CREATE TRIGGER immutable_log_no_update BEFORE UPDATE ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be changed');
END",
};

/// Since version 2 a payload can be dropped: replaced by its own hash and length, once, and only while the newest
/// entry of the log is the record of that.
static NO_UPDATE: Object = Object {
    kind: "trigger",
    name: "immutable_log_no_update",
    sql: r#"CREATE TRIGGER immutable_log_no_update BEFORE UPDATE ON immutable_log
WHEN NOT coalesce(
  NEW.sequence = OLD.sequence AND NEW.timestamp = OLD.timestamp AND NEW.actor = OLD.actor
  AND NEW.action = OLD.action AND NEW.resource = OLD.resource AND NEW.subsystem = OLD.subsystem
  AND NEW.result = OLD.result AND NEW.entry_hash = OLD.entry_hash AND NEW.previous_hash = OLD.previous_hash
  AND OLD.action NOT IN ('trust_ledger_key', 'rotate_ledger_key', 'drop_payloads', 'stop_ledger_signing',
    'resume_ledger_signing')
  AND substr(OLD.payload, 1, 39) <> '{"evenkeel_dropped_payload":{"sha256":"'
  AND substr(NEW.payload, 40, 64) NOT GLOB '*[^0-9a-f]*'
  AND NEW.payload = '{"evenkeel_dropped_payload":{"sha256":"' || substr(NEW.payload, 40, 64)
    || '","bytes":' || length(CAST(OLD.payload AS BLOB)) || '}}'
  AND EXISTS (
    SELECT 1 FROM immutable_log AS record
     WHERE record.sequence = (SELECT max(sequence) FROM immutable_log) AND record.action = 'drop_payloads'
       AND OLD.sequence BETWEEN json_extract(record.payload, '$.first_sequence')
                            AND json_extract(record.payload, '$.last_sequence')), 0)
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be changed');
END"#,
};

/// What makes the log a transparency log, since version 2. A row of these is never changed, deleted or replaced.
static TRANSPARENCY: [Object; 12] = [
    Object {
        kind: "table",
        name: "ledger_checkpoint",
        sql: "CREATE TABLE ledger_checkpoint (
  tree_size INTEGER PRIMARY KEY CHECK (tree_size >= 1),
  note TEXT NOT NULL CHECK (length(note) BETWEEN 1 AND 16384)
) STRICT",
    },
    Object {
        kind: "trigger",
        name: "ledger_checkpoint_no_update",
        sql: "CREATE TRIGGER ledger_checkpoint_no_update BEFORE UPDATE ON ledger_checkpoint
BEGIN
  SELECT RAISE(ABORT, 'ledger_checkpoint is append-only: a checkpoint cannot be changed');
END",
    },
    Object {
        kind: "trigger",
        name: "ledger_checkpoint_no_delete",
        sql: "CREATE TRIGGER ledger_checkpoint_no_delete BEFORE DELETE ON ledger_checkpoint
BEGIN
  SELECT RAISE(ABORT, 'ledger_checkpoint is append-only: a checkpoint cannot be deleted');
END",
    },
    Object {
        kind: "trigger",
        name: "ledger_checkpoint_next_only",
        sql: "CREATE TRIGGER ledger_checkpoint_next_only BEFORE INSERT ON ledger_checkpoint
BEGIN
  SELECT RAISE(ABORT, 'ledger_checkpoint is append-only: a new checkpoint must be of the whole log as it is now')
   WHERE NEW.tree_size IS NOT (SELECT max(sequence) FROM immutable_log)
      OR EXISTS (SELECT 1 FROM ledger_checkpoint WHERE tree_size >= NEW.tree_size);
END",
    },
    Object {
        kind: "table",
        name: "ledger_cosignature",
        sql: "CREATE TABLE ledger_cosignature (
  tree_size INTEGER NOT NULL,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 1024),
  line TEXT NOT NULL CHECK (length(line) BETWEEN 1 AND 8192),
  received TEXT NOT NULL CHECK (length(received) = 24 AND received GLOB '????-??-??T??:??:??.???Z'),
  PRIMARY KEY (tree_size, line)
) STRICT, WITHOUT ROWID",
    },
    Object {
        kind: "trigger",
        name: "ledger_cosignature_no_update",
        sql: "CREATE TRIGGER ledger_cosignature_no_update BEFORE UPDATE ON ledger_cosignature
BEGIN
  SELECT RAISE(ABORT, 'ledger_cosignature is append-only: a cosignature cannot be changed');
END",
    },
    Object {
        kind: "trigger",
        name: "ledger_cosignature_no_delete",
        sql: "CREATE TRIGGER ledger_cosignature_no_delete BEFORE DELETE ON ledger_cosignature
BEGIN
  SELECT RAISE(ABORT, 'ledger_cosignature is append-only: a cosignature cannot be deleted');
END",
    },
    Object {
        kind: "trigger",
        name: "ledger_cosignature_new_only",
        sql: "CREATE TRIGGER ledger_cosignature_new_only BEFORE INSERT ON ledger_cosignature
BEGIN
  SELECT RAISE(ABORT, 'ledger_cosignature is append-only: this cosignature is there already')
   WHERE EXISTS (SELECT 1 FROM ledger_cosignature WHERE tree_size = NEW.tree_size AND line = NEW.line);
  SELECT RAISE(ABORT, 'ledger_cosignature is about checkpoints: there is none of this tree_size')
   WHERE NOT EXISTS (SELECT 1 FROM ledger_checkpoint WHERE tree_size = NEW.tree_size);
END",
    },
    Object {
        kind: "table",
        name: "ledger_node",
        sql: "CREATE TABLE ledger_node (
  level INTEGER NOT NULL CHECK (level BETWEEN 1 AND 7),
  position INTEGER NOT NULL CHECK (position >= 0),
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID",
    },
    Object {
        kind: "trigger",
        name: "ledger_node_no_update",
        sql: "CREATE TRIGGER ledger_node_no_update BEFORE UPDATE ON ledger_node
BEGIN
  SELECT RAISE(ABORT, 'ledger_node is append-only: a node cannot be changed');
END",
    },
    Object {
        kind: "trigger",
        name: "ledger_node_no_delete",
        sql: "CREATE TRIGGER ledger_node_no_delete BEFORE DELETE ON ledger_node
BEGIN
  SELECT RAISE(ABORT, 'ledger_node is append-only: a node cannot be deleted');
END",
    },
    Object {
        kind: "trigger",
        name: "ledger_node_next_only",
        sql: "CREATE TRIGGER ledger_node_next_only BEFORE INSERT ON ledger_node
BEGIN
  SELECT RAISE(ABORT, 'ledger_node is append-only: position must be the highest one of its level plus 1')
   WHERE NEW.position IS NOT coalesce((SELECT max(position) FROM ledger_node WHERE level = NEW.level), -1) + 1;
  SELECT RAISE(ABORT, 'ledger_node is about complete subtrees: this one is not')
   WHERE coalesce((SELECT max(sequence) FROM immutable_log), 0) >> (8 * NEW.level) <= NEW.position;
END",
    },
];

/// All objects of a format version, in the order in which they are made.
pub(super) fn of(version: i64) -> Vec<&'static Object> {
    if version == 1 {
        LOG.iter().chain([&NO_UPDATE_V1]).collect()
    } else {
        LOG.iter()
            .chain([&NO_UPDATE])
            .chain(&TRANSPARENCY)
            .collect()
    }
}

/// The statements that turn version 1 into version 2.
pub(super) fn upgrade_from_1() -> impl Iterator<Item = &'static str> {
    let drop = ["DROP TRIGGER immutable_log_no_update", NO_UPDATE.sql];
    drop.into_iter()
        .chain(TRANSPARENCY.iter().map(|object| object.sql))
}
