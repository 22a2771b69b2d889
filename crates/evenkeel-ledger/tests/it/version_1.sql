CREATE TABLE immutable_log (
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
) STRICT;
CREATE TRIGGER immutable_log_no_update BEFORE UPDATE ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be changed');
END;
CREATE TRIGGER immutable_log_no_delete BEFORE DELETE ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be deleted');
END;
CREATE TRIGGER immutable_log_next_only BEFORE INSERT ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: sequence must be the highest one plus 1')
   WHERE NEW.sequence IS NOT coalesce((SELECT max(sequence) FROM immutable_log), 0) + 1;
  SELECT RAISE(ABORT, 'immutable_log is a chain: previous_hash must be the entry_hash of the entry before')
   WHERE NEW.previous_hash IS NOT coalesce(
     (SELECT entry_hash FROM immutable_log ORDER BY sequence DESC LIMIT 1),
     '0000000000000000000000000000000000000000000000000000000000000000');
END;
CREATE INDEX immutable_log_by_action ON immutable_log (action);
CREATE INDEX immutable_log_by_subsystem ON immutable_log (subsystem);
CREATE INDEX immutable_log_by_timestamp ON immutable_log (timestamp);
CREATE INDEX immutable_log_by_workflow ON immutable_log (json_extract(payload, '$.workflow_id'))
 WHERE json_extract(payload, '$.workflow_id') IS NOT NULL;
CREATE VIEW playbook_runs AS
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
 WHERE action = 'complete_playbook_run';
