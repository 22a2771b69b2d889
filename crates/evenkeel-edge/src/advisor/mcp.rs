//! The tool an agent answers through: a Model Context Protocol server over standard input and output.
//!
//! One tool, `submit_recommendation`, whose input is the answer. The server checks the input and says what is wrong
//! with it, so that the agent can correct itself at once; it stores nothing, starts nothing and reads nothing but its
//! input. What the agent submitted is read from the agent's own event stream.
//!
//! JSON-RPC 2.0, one message a line (<https://modelcontextprotocol.io/specification>).

use std::io::{self, BufRead, Read as _, Write};

use serde_json::{Value, json};

use super::answer::{Answer, json_schema};

/// Name of the tool.
pub const TOOL: &str = "submit_recommendation";
/// Environment key with the playbooks that may be suggested, separated by commas.
pub const ACTIONS_ENV: &str = "EVENKEEL_ADVISOR_ACTIONS";
/// Longest message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: u64 = 256 * 1024;
/// After so many messages the server ends: no advice takes that many.
pub const MESSAGES_MAX: usize = 10_000;

const PROTOCOL_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;

/// Serves standard input and output until input ends; blocks. For a hidden subcommand of the product.
///
/// The playbooks on offer are read from [`ACTIONS_ENV`].
pub fn serve_stdio() -> io::Result<()> {
    let actions: Vec<String> = std::env::var(ACTIONS_ENV)
        .unwrap_or_default()
        .split(',')
        .filter(|a| !a.is_empty())
        .map(str::to_owned)
        .collect();
    serve(&mut io::stdin().lock(), &mut io::stdout().lock(), &actions)
}

/// Serves `input` and `output` until input ends. `actions` are the playbooks on offer; empty: any name.
pub fn serve(
    input: &mut impl BufRead,
    output: &mut impl Write,
    actions: &[String],
) -> io::Result<()> {
    for _ in 0..MESSAGES_MAX {
        let reply = match read_line(input)? {
            Line::End => return Ok(()),
            Line::TooLong => Some(error(&Value::Null, PARSE_ERROR, "the message is too long")),
            Line::Text(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => None,
            Line::Text(bytes) => match serde_json::from_slice::<Value>(&bytes) {
                Ok(message) => respond(&message, actions),
                Err(_) => Some(error(&Value::Null, PARSE_ERROR, "the message is not JSON")),
            },
        };
        if let Some(reply) = reply {
            writeln!(output, "{reply}")?;
            output.flush()?;
        }
    }
    Ok(())
}

enum Line {
    Text(Vec<u8>),
    TooLong,
    End,
}

fn read_line(input: &mut impl BufRead) -> io::Result<Line> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(MESSAGE_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') || (line.len() as u64) < MESSAGE_BYTES_MAX {
        return Ok(Line::Text(line));
    }
    input.skip_until(b'\n')?;
    Ok(Line::TooLong)
}

/// The reply to one message; none to a notification. Pure.
pub fn respond(message: &Value, actions: &[String]) -> Option<Value> {
    let method = message.get("method").and_then(Value::as_str);
    let id = message.get("id");
    let (Some(method), true) = (method, message["jsonrpc"] == "2.0") else {
        // An answer to a question we never ask has an id and no method; it needs no reply.
        let is_answer = message.get("result").is_some() || message.get("error").is_some();
        return (!is_answer).then(|| {
            error(
                id.unwrap_or(&Value::Null),
                INVALID_REQUEST,
                "a JSON-RPC 2.0 request was expected",
            )
        });
    };
    let id = id?;
    let params = &message["params"];
    Some(match method {
        "initialize" => {
            let asked = params["protocolVersion"].as_str().unwrap_or_default();
            let version = PROTOCOL_VERSIONS
                .iter()
                .find(|v| **v == asked)
                .unwrap_or(&PROTOCOL_VERSIONS[1]);
            result(
                id,
                &json!({
                    "protocolVersion": version,
                    "capabilities": { "tools": {} },
                    "serverInfo": { "name": "evenkeel", "version": env!("CARGO_PKG_VERSION") },
                }),
            )
        }
        "ping" => result(id, &json!({})),
        "tools/list" => result(
            id,
            &json!({ "tools": [{
                "name": TOOL,
                "description": "Submit your one recommendation. Nothing is run by calling it; the proposal is \
                    checked and decided upon afterwards.",
                "inputSchema": json_schema(actions),
            }] }),
        ),
        "tools/call" if params["name"] == TOOL => {
            let (text, is_error) = match judged(&params["arguments"], actions) {
                Ok(()) => (
                    "Taken. You are done; do not call any other tool.".to_owned(),
                    false,
                ),
                Err(reason) => (
                    format!("Not taken: {reason}. Correct it and call again."),
                    true,
                ),
            };
            result(
                id,
                &json!({ "content": [{ "type": "text", "text": text }], "isError": is_error }),
            )
        }
        "tools/call" => error(id, INVALID_PARAMS, "there is no such tool"),
        _ => error(id, METHOD_NOT_FOUND, "there is no such method"),
    })
}

fn judged(arguments: &Value, actions: &[String]) -> Result<(), String> {
    let answer = Answer::from_value(arguments).map_err(|e| e.to_string())?;
    if actions.is_empty() || actions.contains(&answer.suggested_action) {
        Ok(())
    } else {
        Err(format!(
            "`suggested_action` must be one of {}",
            actions.join(", ")
        ))
    }
}

fn result(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn talk(input: &str, actions: &[&str]) -> Vec<Value> {
        let actions: Vec<String> = actions.iter().map(|a| (*a).to_owned()).collect();
        let mut out = Vec::new();
        serve(&mut input.as_bytes(), &mut out, &actions).unwrap();
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    #[test]
    fn a_whole_conversation() {
        let call = |id: u32, action: &str| {
            json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": TOOL,
                "arguments": { "suggested_action": action, "confidence": 0.5, "reasoning": "r",
                    "recommended_config": {} } } })
        };
        let input = [
            json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize",
                "params": { "protocolVersion": "2024-11-05", "capabilities": {} } }),
            json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
            json!({ "jsonrpc": "2.0", "id": "one", "method": "tools/list" }),
            call(2, "drop_database"),
            call(3, "scale_up_workers"),
            json!({ "jsonrpc": "2.0", "id": 4, "method": "ping" }),
            json!({ "jsonrpc": "2.0", "id": 5, "method": "resources/list" }),
            json!({ "jsonrpc": "2.0", "id": 6, "method": "tools/call", "params": { "name": "bash" } }),
        ]
        .map(|m| m.to_string())
        .join("\n");
        let out = talk(&input, &["scale_up_workers"]);
        assert_eq!(out.len(), 7, "no reply to the notification: {out:?}");
        assert_eq!(out[0]["result"]["protocolVersion"], "2024-11-05");
        let tools = out[1]["result"]["tools"].as_array().unwrap();
        assert_eq!(tools.len(), 1);
        assert_eq!(
            tools[0]["inputSchema"]["properties"]["suggested_action"]["enum"],
            json!(["scale_up_workers"])
        );
        assert_eq!(out[2]["result"]["isError"], true);
        assert_eq!(out[3]["result"]["isError"], false);
        assert_eq!(out[4]["result"], json!({}));
        assert_eq!(out[5]["error"]["code"], METHOD_NOT_FOUND);
        assert_eq!(out[6]["error"]["code"], INVALID_PARAMS);
    }

    #[test]
    fn garbage_is_answered_and_the_talk_goes_on() {
        let long = "x".repeat(usize::try_from(MESSAGE_BYTES_MAX).unwrap() + 10);
        let input = format!(
            "not json\n[]\n{{\"id\":1}}\n\n{{\"id\":7,\"result\":{{}}}}\n{long}\n\
             {{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"}}"
        );
        let out = talk(&input, &[]);
        let codes: Vec<_> = out.iter().map(|m| m["error"]["code"].as_i64()).collect();
        assert_eq!(
            codes,
            [
                Some(PARSE_ERROR),
                Some(INVALID_REQUEST),
                Some(INVALID_REQUEST),
                Some(PARSE_ERROR),
                None
            ]
        );
        assert_eq!(out[4]["id"], 9);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}", method in "[a-z/]{0,12}", id in prop::option::of(0..9)) {
            talk(&text, &[]);
            let message = json!({ "jsonrpc": "2.0", "method": method, "id": id, "params": text });
            let _ = respond(&message, &[]);
        }
    }
}
