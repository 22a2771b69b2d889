//! The tables of Grace's database, and the policies and history a new one begins with.

use rusqlite::{Connection, TransactionBehavior};

use super::DbError;

/// Version of the tables below, kept in `user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE policies (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    priority INTEGER NOT NULL,
    effect TEXT NOT NULL CHECK (effect IN ('allow', 'deny')),
    subject TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL
) STRICT;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    subject TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('allow', 'deny')),
    policy TEXT NOT NULL
) STRICT;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    session_id TEXT NOT NULL,
    modality TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE TABLE usage (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    route TEXT NOT NULL,
    session_id TEXT NOT NULL
) STRICT;
CREATE TABLE metric_summaries (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    requests_total INTEGER NOT NULL,
    server_errors_total INTEGER NOT NULL,
    latency_p95_ms REAL,
    resident_bytes INTEGER,
    sessions INTEGER,
    pool_in_use INTEGER,
    pool_timeouts_total INTEGER
) STRICT;
";

/// Priority, name, effect, then glob patterns of subject, action and resource. The lowest
/// priority that matches decides; nothing matches means deny.
const POLICIES: [(i64, &str, &str, &str, &str, &str); 16] = [
    (10, "deny_secret_export", "deny", "*", "export", "secret/*"),
    (20, "deny_guest_write", "deny", "guest:*", "write", "*"),
    (21, "deny_guest_delete", "deny", "guest:*", "delete", "*"),
    (30, "deny_audit_delete", "deny", "*", "delete", "audit/*"),
    (31, "deny_audit_write", "deny", "*", "write", "audit/*"),
    (
        40,
        "allow_operator_restart",
        "allow",
        "operator:*",
        "restart",
        "service/*",
    ),
    (
        41,
        "allow_operator_scale",
        "allow",
        "operator:*",
        "scale",
        "service/*",
    ),
    (50, "allow_agent_read", "allow", "agent:*", "read", "*"),
    (
        51,
        "allow_agent_summarise",
        "allow",
        "agent:*",
        "summarise",
        "document/*",
    ),
    (52, "deny_agent_deploy", "deny", "agent:*", "deploy", "*"),
    (
        60,
        "allow_user_read_documents",
        "allow",
        "user:*",
        "read",
        "document/*",
    ),
    (
        61,
        "allow_user_write_notes",
        "allow",
        "user:*",
        "write",
        "note/*",
    ),
    (62, "allow_user_chat", "allow", "user:*", "chat", "model/*"),
    (
        70,
        "allow_guest_read_public",
        "allow",
        "guest:*",
        "read",
        "document/public/*",
    ),
    (
        80,
        "allow_operator_read",
        "allow",
        "operator:*",
        "read",
        "*",
    ),
    (
        90,
        "allow_operator_deploy",
        "allow",
        "operator:*",
        "deploy",
        "service/*",
    ),
];

/// Brings the database to the current tables. Writes nothing when it is there already, so that a
/// start succeeds while another program holds the write lock.
pub(crate) fn migrate(connection: &mut Connection, history_rows: u32) -> Result<(), DbError> {
    if version(connection)? == VERSION {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, now that no other process can be at it.
    match version(&tx)? {
        VERSION => return Ok(()),
        0 => {}
        newer => {
            return Err(DbError::Failed(format!(
                "its tables have version {newer}, this program knows {VERSION}"
            )));
        }
    }
    tx.execute_batch(TABLES)?;
    {
        let mut insert = tx.prepare(
            "INSERT INTO policies (priority, name, effect, subject, action, resource)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for policy in POLICIES {
            insert.execute(policy)?;
        }
    }
    seed_history(&tx, history_rows)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(())
}

/// The history a new installation begins with: the same every time, spread over the policies.
fn seed_history(connection: &Connection, rows: u32) -> rusqlite::Result<()> {
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1),
         request AS (
             SELECT i,
                    CASE i % 4 WHEN 0 THEN 'user:' WHEN 1 THEN 'agent:'
                               WHEN 2 THEN 'operator:' ELSE 'guest:' END || (i * 7919 % 97) AS subject,
                    CASE i / 4 % 6 WHEN 0 THEN 'read' WHEN 1 THEN 'write' WHEN 2 THEN 'summarise'
                                   WHEN 3 THEN 'restart' WHEN 4 THEN 'delete' ELSE 'chat' END AS action,
                    CASE i / 24 % 5 WHEN 0 THEN 'document/' WHEN 1 THEN 'note/' WHEN 2 THEN 'service/'
                                    WHEN 3 THEN 'document/public/' ELSE 'audit/' END || (i * 31 % 211) AS resource
             FROM n)
         INSERT INTO decisions (at, subject, action, resource, decision, policy)
         SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 1767225600 + i * 60, 'unixepoch'),
                request.subject, request.action, request.resource,
                coalesce(p.effect, 'deny'), coalesce(p.name, 'default_deny')
         FROM request LEFT JOIN policies p ON p.id = (
             SELECT id FROM policies q
             WHERE request.subject GLOB q.subject AND request.action GLOB q.action
               AND request.resource GLOB q.resource
             ORDER BY q.priority LIMIT 1)",
        [rows],
    )?;
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
