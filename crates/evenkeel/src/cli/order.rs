//! Orders to the healer: mode, pause, silence, breaker, unstick, approvals. A running Evenkeel takes them over its local
//! socket; when none runs, the ledger takes them, and the next start goes by them.

use evenkeel_core::healer::Healer;
use evenkeel_core::order::Order;
use evenkeel_core::{Mode, Timestamp};
use serde_json::{Value, json};

use super::check::configuration;
use super::ledger::reader;
use super::run::runtime;
use super::table::{print, table};
use super::{Exit, Failure, Global, SpanMillis};
use crate::clock;
use crate::control::{self, Answer, Ask};
use crate::journal::Journal;
use crate::layout::Layout;
use crate::mind::Mind;
use crate::secrets;
use crate::signing;
use crate::state;

/// `evenkeel mode`.
pub(super) fn mode(
    global: &Global,
    mode: Option<Mode>,
    by_configuration: bool,
    playbook: Option<String>,
) -> Result<Exit, Failure> {
    if mode.is_none() && !by_configuration {
        return super::status::status(global);
    }
    if let (Some(name), Ok((_, _, known))) = (&playbook, configuration(global))
        && !known.iter().any(|k| k.playbook.name == *name)
    {
        return Err(Failure::usage(format!(
            "there is no playbook `{name}`; see `evenkeel playbook list`"
        )));
    }
    order(global, Order::SetMode { mode, playbook })
}

/// `evenkeel silence`.
pub(super) fn silence(
    global: &Global,
    what: String,
    span: SpanMillis,
    why: String,
) -> Result<Exit, Failure> {
    let kind = what.split('/').next().unwrap_or("");
    if evenkeel_core::AnomalyType::new(kind).is_err() {
        return Err(Failure::usage(format!(
            "`{what}` is no anomaly type and no key; write one as `evenkeel history` shows it, such as latency_spike"
        )));
    }
    let until = clock::now().plus_millis(span.0);
    order(global, Order::Silence { what, until, why })
}

/// Gives an order.
pub(super) fn order(global: &Global, order: Order) -> Result<Exit, Failure> {
    send(global, &Ask::Order { order })
}

/// `evenkeel approve`: yes to what the ledger shows now.
pub(super) fn approve(global: &Global, id: &str) -> Result<Exit, Failure> {
    let healer = remembered(global)?;
    let asked = healer.approvals().find(|(_, r)| r.id == id);
    let Some((_, request)) = asked else {
        return Err(Failure::usage(format!(
            "no approval `{id}` is waited for; see `evenkeel approvals`"
        )));
    };
    let ask = Ask::Approve {
        id: id.to_owned(),
        binds: request.binds.clone(),
    };
    send(global, &ask)
}

/// `evenkeel deny`.
pub(super) fn deny(global: &Global, id: &str, why: String) -> Result<Exit, Failure> {
    let id = id.to_owned();
    send(global, &Ask::Deny { id, why })
}

/// `evenkeel approvals`.
pub(super) fn approvals(global: &Global) -> Result<Exit, Failure> {
    let healer = remembered(global)?;
    let rows = control::approvals(&healer);
    if global.json {
        print(&json!(rows).to_string());
        return Ok(Exit::Healthy);
    }
    if rows.is_empty() {
        print("Nothing waits for an approval.");
        return Ok(Exit::Healthy);
    }
    let mut t = table([
        "id",
        "playbook",
        "for",
        "risk",
        "tier",
        "expires",
        "what it would do",
    ]);
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    for (cycle, request) in healer.approvals() {
        let Some(plan) = cycle.plan() else { continue };
        let steps: Vec<String> = plan
            .steps
            .iter()
            .map(|s| format!("{}: {}", s.id, s.action.name()))
            .collect();
        let params: Vec<String> = plan
            .params
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let does = if params.is_empty() {
            steps.join(", ")
        } else {
            format!("{} with {}", steps.join(", "), params.join(", "))
        };
        t.add_row([
            request.id.clone(),
            plan.playbook.clone(),
            format!("{} ({})", cycle.anomaly.key(), cycle.anomaly.details),
            plan.risk.to_string(),
            plan.tier.to_string(),
            request.expires_at.to_string(),
            does,
        ]);
    }
    print(&t.to_string());
    let first = rows.first().map(|r| text(&r["id"])).unwrap_or_default();
    print(&format!(
        "evenkeel approve {first}, or evenkeel deny {first} --why \"...\"; `--json` shows every step"
    ));
    Ok(Exit::Healthy)
}

fn remembered(global: &Global) -> Result<Healer, Failure> {
    let (_, reader) = reader(global)?;
    state::replay(&reader).map_err(|e| Failure::ledger_damaged(e.to_string()))
}

fn send(global: &Global, ask: &Ask) -> Result<Exit, Failure> {
    let now: Timestamp = clock::now();
    ask.check(now).map_err(Failure::usage)?;
    let layout = Layout::existing(&global.data_dir, crate::config::Profile::Service);
    let answer = if layout.is_locked() {
        control::ask(&layout.control_socket(), ask).map_err(Failure::target)?
    } else {
        offline(global, ask)?
    };
    if global.json {
        print(&json!(answer).to_string());
    } else if answer.ok {
        print(&answer.message);
    }
    if answer.ok {
        Ok(Exit::Healthy)
    } else if global.json {
        Ok(Exit::Unhealed)
    } else {
        Err(Failure::usage(answer.message))
    }
}

/// Writes an order into the ledger of an Evenkeel that does not run.
fn offline(global: &Global, ask: &Ask) -> Result<Answer, Failure> {
    let Ask::Order { order } = ask else {
        return Err(Failure::target(
            "Evenkeel does not run: start it, and it asks again if the trouble is still there",
        ));
    };
    let (config, environment, playbooks) = configuration(global)?;
    let layout = Layout::new(&global.data_dir, config.profile);
    let _lock = layout.lock()?;
    layout.create()?;
    let redactor = evenkeel_core::redact::Redactor::new(
        secrets::collect(&config, &environment, &playbooks).into_values(),
    );
    runtime()?.block_on(async {
        let options = evenkeel_ledger::Options {
            signer: signing::signer(&config, &environment, &layout)
                .await
                .map_err(Failure::target)?,
            ..evenkeel_ledger::Options::default()
        };
        let ledger = evenkeel_ledger::Ledger::open_with(layout.ledger(), &options)?;
        let healer =
            state::replay(&ledger.reader()?).map_err(|e| Failure::ledger_damaged(e.to_string()))?;
        let journal = Journal::new(ledger.clone(), std::sync::Arc::new(redactor));
        let mind = Mind::new(healer, journal, config.policy());
        mind.order(&control::who(), order.clone())
            .await
            .map_err(|e| Failure::target(e.to_string()))?;
        drop(mind);
        ledger.close()?;
        Ok(Answer {
            ok: true,
            message: format!(
                "{}; Evenkeel does not run now, the next start goes by it",
                control::describe(order)
            ),
        })
    })
}
