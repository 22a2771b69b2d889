//! One SQL statement on the target's SQLite database, with a bounded wait and bounded findings.

use std::time::Duration;

use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{InterruptHandle, params_from_iter};
use serde_json::{Map, Value, json};

use super::run::{Done, failed};
use super::{Executor, OUTPUT_LEN_MAX, ROWS_MAX, cut};
use crate::snapshot::sqlite::open_foreign;

/// Statements that do more than change rows.
const REFUSED: [&str; 6] = ["attach", "detach", "pragma", "vacuum", "begin", "savepoint"];
/// Longest text of one value in the findings, in bytes.
const VALUE_LEN_MAX: usize = 2_000;

/// Whether a statement may be run at all.
pub(super) fn permitted(statement: &str) -> Result<(), String> {
    let word: String = statement
        .trim_start()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect::<String>()
        .to_ascii_lowercase();
    if word.is_empty() {
        return Err("`sql` needs one statement, without a comment before it".into());
    }
    if REFUSED.contains(&word.as_str()) {
        return Err(format!(
            "`{}` is not run: it reaches beyond the rows of the target's database",
            word.to_ascii_uppercase()
        ));
    }
    Ok(())
}

impl Executor {
    pub(super) async fn sql(&self, statement: &str, params: &[Value], timeout: Duration) -> Done {
        let Some(db) = &self.target.database else {
            return failed("the target has no SQLite database");
        };
        if let Err(e) = permitted(statement) {
            return failed(&e);
        }
        let params: Vec<SqlValue> = params.iter().map(sql_value).collect();
        let (path, statement) = (db.path.clone(), statement.to_owned());
        // Less than the step's own limit, so that the database can say who is in the way.
        let busy = timeout.mul_f32(0.8).min(Duration::from_secs(10));
        let read_only = statement
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("select");
        let opened = tokio::task::spawn_blocking(move || {
            let conn = open_foreign(&path, !read_only)?;
            conn.busy_timeout(busy)?;
            Ok::<_, rusqlite::Error>(conn)
        })
        .await;
        let conn = match opened {
            Ok(Ok(conn)) => conn,
            Ok(Err(e)) => return failed(&format!("{}: {e}", db.path.display())),
            Err(e) => return failed(&format!("an error in Evenkeel itself: {e}")),
        };
        // When this future is dropped (out of time, asked to stop), the statement ends too.
        let _interrupt = Interrupt(conn.get_interrupt_handle());
        let redactor = self.redactor.clone();
        super::run::blocking(move || match execute(&conn, &statement, &params) {
            Ok((message, findings)) => Ok((message, redactor.value(&findings))),
            Err(e) => failed(&format!("the statement failed: {e}")),
        })
        .await
    }
}

struct Interrupt(InterruptHandle);

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

fn execute(
    conn: &rusqlite::Connection,
    statement: &str,
    params: &[SqlValue],
) -> rusqlite::Result<(String, Value)> {
    let mut prepared = conn.prepare(statement)?;
    if prepared.column_count() == 0 {
        let changed = prepared.execute(params_from_iter(params))?;
        return Ok((
            format!("{changed} rows changed"),
            json!({"changed": changed}),
        ));
    }
    let names: Vec<String> = prepared.column_names().map(str::to_owned).collect();
    let mut found = prepared.query(params_from_iter(params))?;
    let (mut rows, mut bytes, mut total) = (Vec::new(), 0, 0u64);
    // Every row is stepped through: a statement that writes and returns rows is done only at its end.
    while let Some(row) = found.next()? {
        total += 1;
        if rows.len() >= ROWS_MAX || bytes >= OUTPUT_LEN_MAX {
            continue;
        }
        let mut map = Map::new();
        for (i, name) in names.iter().enumerate() {
            map.insert(name.clone(), json_value(row.get_ref(i)?));
        }
        let row = Value::Object(map);
        bytes += row.to_string().len();
        rows.push(row);
    }
    Ok((
        format!("{total} rows"),
        json!({"rows": rows, "total": total}),
    ))
}

fn sql_value(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Bool(b) => SqlValue::Integer(i64::from(*b)),
        Value::Number(n) => n.as_i64().map_or_else(
            || SqlValue::Real(n.as_f64().unwrap_or(0.0)),
            SqlValue::Integer,
        ),
        Value::String(s) => SqlValue::Text(s.clone()),
        other => SqlValue::Text(other.to_string()),
    }
}

fn json_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => i.into(),
        ValueRef::Real(x) => x.into(),
        ValueRef::Text(t) => cut(&String::from_utf8_lossy(t), VALUE_LEN_MAX).into(),
        ValueRef::Blob(b) => format!("[{} bytes]", b.len()).into(),
    }
}
