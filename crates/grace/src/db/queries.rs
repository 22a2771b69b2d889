//! What Grace asks of its database. Each function is one unit of work on one connection;
//! everything that writes begins its transaction as a writer, so that a lock held elsewhere is
//! waited for at its start.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde::Serialize;

use crate::ids;

/// Messages and usage rows kept.
const LOG_ROWS_MAX: i64 = 10_000;

/// A policy with what it did over the kept history.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyReport {
    name: String,
    priority: i64,
    effect: String,
    subject: String,
    action: String,
    resource: String,
    /// Requests of the history its patterns match.
    matched: i64,
    /// Requests of the history it decided.
    decided: i64,
    last_used: Option<String>,
}

/// A decision and what it rests on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Decision {
    /// `allow` or `deny`.
    pub(crate) effect: String,
    /// The policy that decided, or `default_deny`.
    pub(crate) policy: String,
    /// Comparable requests of the history, and the share of them that was allowed.
    pub(crate) precedents: i64,
    pub(crate) precedents_allowed: f64,
}

/// One row of the metrics collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) at: String,
    pub(crate) requests_total: i64,
    pub(crate) server_errors_total: i64,
    pub(crate) latency_p95_ms: Option<f64>,
    pub(crate) resident_bytes: Option<i64>,
    pub(crate) sessions: Option<i64>,
    pub(crate) pool_in_use: Option<i64>,
    pub(crate) pool_timeouts_total: Option<i64>,
}

/// The kept history by hour of the day.
#[derive(Debug, Serialize)]
pub(crate) struct Slot {
    hour: String,
    decisions: i64,
    denied: i64,
    subjects: i64,
}

/// What `/api/metrics/summary` reports.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    latest: Option<Summary>,
    summaries: i64,
    resident_bytes_max: Option<i64>,
    usage_rows: i64,
    decisions_by_hour: Vec<Slot>,
}

fn writer(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// The trivial query behind `/ready`.
pub(crate) fn ping(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM policies", [], |row| row.get(0))
}

/// All policies with their effect over the history: a full scan of it against every pattern.
pub(crate) fn policies(connection: &Connection) -> rusqlite::Result<Vec<PolicyReport>> {
    let mut statement = connection.prepare(
        "SELECT p.name, p.priority, p.effect, p.subject, p.action, p.resource,
                coalesce(s.matched, 0), coalesce(s.decided, 0), s.last_used
         FROM policies p LEFT JOIN (
             SELECT q.id AS id, count(*) AS matched, sum(d.policy = q.name) AS decided,
                    max(CASE WHEN d.policy = q.name THEN d.at END) AS last_used
             FROM decisions d CROSS JOIN policies q
             WHERE d.subject GLOB q.subject AND d.action GLOB q.action
               AND d.resource GLOB q.resource
             GROUP BY q.id) s ON s.id = p.id
         ORDER BY p.priority",
    )?;
    statement
        .query_map([], |row| {
            Ok(PolicyReport {
                name: row.get(0)?,
                priority: row.get(1)?,
                effect: row.get(2)?,
                subject: row.get(3)?,
                action: row.get(4)?,
                resource: row.get(5)?,
                matched: row.get(6)?,
                decided: row.get(7)?,
                last_used: row.get(8)?,
            })
        })?
        .collect()
}

/// Decides by the policies, and reads how comparable requests of the history went.
pub(crate) fn evaluate(
    connection: &Connection,
    subject: &str,
    action: &str,
    resource: &str,
) -> rusqlite::Result<Decision> {
    let decided: Option<(String, String)> = connection
        .query_row(
            "SELECT effect, name FROM policies
             WHERE ?1 GLOB subject AND ?2 GLOB action AND ?3 GLOB resource
             ORDER BY priority LIMIT 1",
            [subject, action, resource],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (effect, policy) = decided.unwrap_or_else(|| ("deny".into(), "default_deny".into()));
    // Comparable: the same action, on the same kind of resource, by the same kind of subject, and
    // open to the same policies.
    let (precedents, allowed): (i64, Option<f64>) = connection.query_row(
        "SELECT count(*), avg(d.decision = 'allow') FROM decisions d
         WHERE d.action = ?2
           AND substr(d.subject, 1, instr(d.subject || ':', ':'))
             = substr(?1, 1, instr(?1 || ':', ':'))
           AND substr(d.resource, 1, instr(d.resource || '/', '/'))
             = substr(?3, 1, instr(?3 || '/', '/'))
           AND NOT EXISTS (
               SELECT 1 FROM policies q
               WHERE (d.subject GLOB q.subject AND d.action GLOB q.action
                      AND d.resource GLOB q.resource)
                  <> (?1 GLOB q.subject AND ?2 GLOB q.action AND ?3 GLOB q.resource))",
        [subject, action, resource],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(Decision {
        effect,
        policy,
        precedents,
        precedents_allowed: allowed.unwrap_or(0.0),
    })
}

/// Writes a decision into the history, which keeps its newest `history_rows`.
pub(crate) fn record_decision(
    connection: &mut Connection,
    (subject, action, resource): (&str, &str, &str),
    decision: &Decision,
    history_rows: u32,
) -> rusqlite::Result<i64> {
    let tx = writer(connection)?;
    tx.prepare_cached(
        "INSERT INTO decisions (at, subject, action, resource, decision, policy)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        ids::now(),
        subject,
        action,
        resource,
        decision.effect,
        decision.policy
    ])?;
    let id = tx.last_insert_rowid();
    tx.prepare_cached("DELETE FROM decisions WHERE id <= ?1")?
        .execute([id - i64::from(history_rows)])?;
    tx.commit()?;
    Ok(id)
}

/// Stores a chat message.
pub(crate) fn store_message(
    connection: &mut Connection,
    session_id: &str,
    modality: &str,
    message: &str,
) -> rusqlite::Result<i64> {
    let tx = writer(connection)?;
    tx.prepare_cached(
        "INSERT INTO messages (at, session_id, modality, message) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute([&ids::now(), session_id, modality, message])?;
    let id = tx.last_insert_rowid();
    tx.prepare_cached("DELETE FROM messages WHERE id <= ?1")?
        .execute([id - LOG_ROWS_MAX])?;
    tx.commit()?;
    Ok(id)
}

/// Reports the collector's rows and the history, and writes a usage row.
pub(crate) fn overview(
    connection: &mut Connection,
    route: &str,
    session_id: &str,
) -> rusqlite::Result<Overview> {
    let tx = writer(connection)?;
    tx.prepare_cached("INSERT INTO usage (at, route, session_id) VALUES (?1, ?2, ?3)")?
        .execute([&ids::now(), route, session_id])?;
    let id = tx.last_insert_rowid();
    tx.prepare_cached("DELETE FROM usage WHERE id <= ?1")?
        .execute([id - LOG_ROWS_MAX])?;
    // The lock is given back before the long read.
    tx.commit()?;

    let latest = connection
        .query_row(
            "SELECT at, requests_total, server_errors_total, latency_p95_ms, resident_bytes,
                    sessions, pool_in_use, pool_timeouts_total
             FROM metric_summaries ORDER BY id DESC LIMIT 1",
            [],
            |row| {
                Ok(Summary {
                    at: row.get(0)?,
                    requests_total: row.get(1)?,
                    server_errors_total: row.get(2)?,
                    latency_p95_ms: row.get(3)?,
                    resident_bytes: row.get(4)?,
                    sessions: row.get(5)?,
                    pool_in_use: row.get(6)?,
                    pool_timeouts_total: row.get(7)?,
                })
            },
        )
        .optional()?;
    let (summaries, resident_bytes_max) = connection.query_row(
        "SELECT count(*), max(resident_bytes) FROM metric_summaries",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let usage_rows = connection.query_row("SELECT count(*) FROM usage", [], |row| row.get(0))?;
    let decisions_by_hour = connection
        .prepare_cached(
            "SELECT strftime('%H', at) AS hour, count(*), sum(decision = 'deny'),
                    count(DISTINCT subject)
             FROM decisions GROUP BY hour ORDER BY hour",
        )?
        .query_map([], |row| {
            Ok(Slot {
                hour: row.get(0)?,
                decisions: row.get(1)?,
                denied: row.get(2)?,
                subjects: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Overview {
        latest,
        summaries,
        resident_bytes_max,
        usage_rows,
        decisions_by_hour,
    })
}

/// Writes a row of the collector; the newest `keep_rows` stay.
pub(crate) fn store_summary(
    connection: &mut Connection,
    summary: &Summary,
    keep_rows: u32,
) -> rusqlite::Result<()> {
    let tx = writer(connection)?;
    tx.execute(
        "INSERT INTO metric_summaries (at, requests_total, server_errors_total, latency_p95_ms,
             resident_bytes, sessions, pool_in_use, pool_timeouts_total)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            summary.at,
            summary.requests_total,
            summary.server_errors_total,
            summary.latency_p95_ms,
            summary.resident_bytes,
            summary.sessions,
            summary.pool_in_use,
            summary.pool_timeouts_total
        ],
    )?;
    let id = tx.last_insert_rowid();
    tx.execute(
        "DELETE FROM metric_summaries WHERE id <= ?1",
        [id - i64::from(keep_rows)],
    )?;
    tx.commit()
}
