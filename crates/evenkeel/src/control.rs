//! How people give orders to a running Evenkeel: a local socket that only its own user can open, and, where it is
//! configured, HTTP with a token. Both take the same few questions, and answer when the order is durable.
//!
//! A small task of its own serves them, so that a pause counts at once, whatever the healing loop waits for.

mod http;
#[cfg(unix)]
mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_core::order::Order;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::layout::Layout;
use crate::mind::{Mind, MindError};
use crate::ui::Ui;

/// Largest question, in bytes.
pub const QUESTION_LEN_MAX: usize = 64 * 1024;
/// Longest reason and name, in bytes.
pub const TEXT_LEN_MAX: usize = 500;
/// Longest silence, in milliseconds: 90 days.
pub const SILENCE_MS_MAX: i64 = 90 * 86_400_000;
#[cfg(unix)]
/// How long a client of the socket may take for its question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
#[cfg(unix)]
/// Most clients of the socket at once.
const CLIENTS_MAX: usize = 16;
/// How often it is looked whether an approval has expired.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Give an order.
    Order {
        /// The order.
        order: Order,
    },
    /// Say yes to a plan.
    Approve {
        /// The approval's id.
        id: String,
        /// What was seen: its `binds`.
        binds: String,
    },
    /// Say no to a plan.
    Deny {
        /// The approval's id.
        id: String,
        /// Why.
        why: String,
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// It counts, and is durable.
    pub ok: bool,
    /// One sentence.
    pub message: String,
}

impl Ask {
    /// What is wrong with it, if anything: bounds on texts and times.
    pub fn check(&self, now: evenkeel_core::Timestamp) -> Result<(), String> {
        let texts: Vec<&str> = match self {
            Self::Order { order } => match order {
                Order::SetMode { playbook, .. } => playbook.iter().map(String::as_str).collect(),
                Order::Pause { service, why } => service
                    .iter()
                    .map(String::as_str)
                    .chain([why.as_str()])
                    .collect(),
                Order::Resume { service } => service.iter().map(String::as_str).collect(),
                Order::Silence { what, until, why } => {
                    if *until <= now || until.millis_since(now) > SILENCE_MS_MAX {
                        return Err("a silence lasts from now to at most 90 days".to_owned());
                    }
                    vec![what, why]
                }
                Order::Unsilence { what } => vec![what],
                Order::ResetBreaker { why } | Order::Unstick { why } => vec![why],
                Order::MarkDeploy { version, service } => {
                    if version.trim().is_empty() {
                        return Err("a deploy has a version: write one, such as v2".to_owned());
                    }
                    service
                        .iter()
                        .map(String::as_str)
                        .chain([version.as_str()])
                        .collect()
                }
                Order::Relearn { series, why } => series
                    .iter()
                    .map(String::as_str)
                    .chain([why.as_str()])
                    .collect(),
                Order::Repaired { what, why } => what
                    .iter()
                    .map(String::as_str)
                    .chain([why.as_str()])
                    .collect(),
            },
            Self::Approve { id, binds } => vec![id, binds],
            Self::Deny { id, why } => vec![id, why],
        };
        match texts
            .iter()
            .find(|t| t.len() > TEXT_LEN_MAX || t.contains('\0'))
        {
            Some(_) => Err(format!("texts have at most {TEXT_LEN_MAX} bytes")),
            None => Ok(()),
        }
    }
}

/// Does what was asked; ready when it is durable.
pub async fn carry_out(mind: &Mind, ui: &Ui, by: &str, ask: Ask) -> Answer {
    let done = match ask.check(crate::clock::now()) {
        Err(problem) => Err(problem),
        Ok(()) => order(mind, by, ask).await.map_err(|e| e.to_string()),
    };
    match done {
        Ok(message) => {
            ui.note(format!("{by}: {message}"));
            Answer { ok: true, message }
        }
        Err(message) => Answer { ok: false, message },
    }
}

async fn order(mind: &Mind, by: &str, ask: Ask) -> Result<String, MindError> {
    match ask {
        Ask::Approve { id, binds } => {
            let cycle = mind.approve(by, &id, &binds).await?;
            Ok(format!("{id} is approved; {} goes on", cycle.workflow_id))
        }
        Ask::Deny { id, why } => {
            let cycle = mind.deny(by, &id, &why).await?;
            Ok(format!("{id} is denied; {} ends", cycle.workflow_id))
        }
        Ask::Order { order } => {
            let said = describe(&order);
            mind.order(by, order).await?;
            Ok(said)
        }
    }
}

/// What an order means, in one sentence.
pub fn describe(order: &Order) -> String {
    match order {
        Order::SetMode { mode, playbook } => {
            let whom = playbook.as_deref().unwrap_or("everything");
            match mode {
                Some(mode) => format!("the mode of {whom} is {mode}"),
                None => format!("the mode of {whom} is as the configuration has it"),
            }
        }
        Order::Pause { service, .. } => match service {
            Some(name) => format!("{name} is locked: nothing is done to it"),
            None => "paused: no step and no rollback begins; a step under way ends".to_owned(),
        },
        Order::Resume { service } => match service {
            Some(name) => format!("{name} is unlocked"),
            None => "resumed; what is still wrong is looked at again".to_owned(),
        },
        Order::Silence { what, until, .. } => format!("{what} is silenced until {until}"),
        Order::Unsilence { what } => format!("{what} is not silenced any more"),
        Order::ResetBreaker { .. } => "the breaker is closed".to_owned(),
        Order::Repaired { what, .. } => format!(
            "{} is repaired; when it comes back it is healed anew",
            what.as_deref().unwrap_or("everything that was handed over")
        ),
        Order::Unstick { .. } => "the failed rollback is put in order; healing goes on".to_owned(),
        Order::MarkDeploy { version, service } => format!(
            "{} is deployed{}: what is usual is learned anew, errors and leaks excepted",
            version,
            service
                .as_ref()
                .map_or_else(String::new, |s| format!(" in {s}"))
        ),
        Order::Relearn { series: None, .. } => {
            "every series is learned anew; what it shows from now on is usual".to_owned()
        }
        Order::Relearn {
            series: Some(series),
            ..
        } => format!("{series} is learned anew; what it shows from now on is usual"),
    }
}

/// The name that whoever runs this command goes by.
pub(crate) fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|key| std::env::var(key).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| "somebody".to_owned())
}

/// Whoever serves orders; ends with it.
pub(crate) struct Control {
    tasks: Vec<JoinHandle<()>>,
    socket: std::path::PathBuf,
    /// Where HTTP is served, if it is.
    pub(crate) http: Option<SocketAddr>,
}

impl Drop for Control {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Nobody answers there any more; one that a crash leaves is removed by the next start.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Control {
    /// Starts to serve: the socket always (where the platform has one), HTTP at `api` with this token.
    pub(crate) async fn start(
        mind: &Mind,
        ui: &Ui,
        layout: &Layout,
        api: Option<(SocketAddr, String)>,
    ) -> Result<Self, String> {
        let mut tasks = vec![tokio::spawn(expire(mind.clone(), ui.clone()))];
        #[cfg(unix)]
        tasks.push(socket::serve(
            &layout.control_socket(),
            mind.clone(),
            ui.clone(),
        )?);
        let mut http = None;
        if let Some((addr, token)) = api {
            let (addr, task) = http::serve(addr, token, mind.clone(), ui.clone()).await?;
            http = Some(addr);
            tasks.push(task);
        }
        Ok(Self {
            tasks,
            socket: layout.control_socket(),
            http,
        })
    }
}

/// Ends approvals that nobody gave in time.
async fn expire(mind: Mind, ui: Ui) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match mind.expire().await {
            Ok(Some(cycle)) => ui.warn(format!(
                "{}: the approval was not given in time",
                cycle.workflow_id
            )),
            Ok(None) => {}
            Err(e) => {
                tracing::warn!(
                    subsystem = "evenkeel",
                    "an approval could not be ended: {e}"
                );
                return;
            }
        }
    }
}

/// Approvals that are waited for, as people and programs read them.
pub fn approvals(healer: &evenkeel_core::healer::Healer) -> Vec<Value> {
    healer
        .approvals()
        .map(|(cycle, request)| {
            let plan = cycle.plan();
            json!({
                "id": request.id, "binds": request.binds, "playbook": request.playbook,
                "expires_at": request.expires_at, "workflow_id": cycle.workflow_id,
                "anomaly": cycle.anomaly, "tier": plan.map(|p| p.tier), "risk": plan.map(|p| p.risk),
                "params": plan.map(|p| &p.params), "steps": plan.map(|p| &p.steps),
                "chosen_by": plan.map(|p| p.chosen_by),
            })
        })
        .collect()
}

#[cfg(unix)]
pub(crate) use socket::ask;

/// Without local sockets there is only HTTP.
#[cfg(not(unix))]
pub(crate) fn ask(_: &std::path::Path, _: &Ask) -> Result<Answer, String> {
    Err("this platform has no local sockets; use the HTTP interface ([api] listen)".to_owned())
}
