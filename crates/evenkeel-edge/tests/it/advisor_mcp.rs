//! The answer tool as a process of its own, as an agent would start it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use evenkeel_edge::advisor::mcp;
use serde_json::{Value, json};

/// Not a test: the other side of the one below, in a process of its own.
#[test]
#[ignore = "started by `a_process_serves_the_tool_until_its_input_ends`"]
fn tool_server_process() {
    mcp::serve_stdio().unwrap();
}

#[test]
fn a_process_serves_the_tool_until_its_input_ends() {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "advisor_mcp::tool_server_process",
        ])
        .env(mcp::ACTIONS_ENV, "scale_up_workers,increase_db_pool_size")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut ask = |message: Value| -> Value {
        writeln!(stdin, "{message}").unwrap();
        // The test harness prints lines of its own; a message may follow on one of them.
        lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|l| serde_json::from_str(l.get(l.find('{')?..)?).ok())
            .unwrap()
    };
    let hello = ask(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18" } }));
    assert_eq!(hello["result"]["serverInfo"]["name"], "evenkeel");
    let tools = ask(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }));
    assert_eq!(tools["result"]["tools"][0]["name"], mcp::TOOL);
    assert_eq!(
        tools["result"]["tools"][0]["inputSchema"]["properties"]["suggested_action"]["enum"],
        json!(["scale_up_workers", "increase_db_pool_size"])
    );
    let refused = ask(
        json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {
        "name": mcp::TOOL, "arguments": { "suggested_action": "rm" } } }),
    );
    assert_eq!(refused["result"]["isError"], true);
    drop(stdin);
    assert!(server.wait().unwrap().success());
}
