//! Where the healer stands between what it wants and what it may: mode, pauses, breaker, what is left of the limits.

use evenkeel_core::healer::{Healer, Left};
use evenkeel_core::{Policy, Timestamp};
use serde_json::{Value, json};

/// The whole of it, for programs.
pub fn overview(healer: &Healer, policy: &Policy, now: Timestamp) -> Value {
    let maintenance = policy.maintenance.iter().find_map(|w| {
        let until = w.ends_after(now)?;
        Some(json!({"name": w.name, "until": until}))
    });
    let silences: serde_json::Map<String, Value> = healer
        .orders
        .silences
        .iter()
        .filter(|(_, s)| s.until.is_some_and(|until| now < until))
        .map(|(what, s)| (what.clone(), json!(s)))
        .collect();
    json!({
        "mode": healer.mode(policy),
        "mode_ordered": healer.orders.mode,
        "playbook_modes": policy.playbook_modes.keys().chain(healer.orders.playbook_modes.keys())
            .map(|name| (name.clone(), json!(healer.mode_of(name, policy))))
            .collect::<serde_json::Map<_, _>>(),
        "paused": healer.orders.paused,
        "locked": healer.orders.locked,
        "silences": silences,
        "maintenance": maintenance,
        "breaker": healer.breaker,
        "stuck": healer.stuck,
        "limits": policy.limits,
        "left": left(healer, policy, now),
        "approvals": crate::control::approvals(healer),
    })
}

/// What is left of each limit that is spent: in all, and for each service.
pub fn left(healer: &Healer, policy: &Policy, now: Timestamp) -> Vec<Left> {
    let (spent, limits, topology) = (&healer.spent, &policy.limits, &policy.topology);
    let mut rows = spent.heals_left(now, limits, topology, None);
    let services = topology.nodes.iter().filter(|(_, n)| !n.outside);
    for (name, _) in services {
        let of_it = spent.heals_left(now, limits, topology, Some(name));
        rows.extend(of_it.into_iter().filter(|l| l.service.is_some()));
        rows.push(spent.interruptions_left(now, limits, name));
    }
    rows
}

/// The same for people, a line each. What nobody used and nothing holds back is not said.
pub fn lines(healer: &Healer, policy: &Policy, now: Timestamp) -> Vec<String> {
    let mut out = vec![match &healer.orders.mode {
        Some(m) => format!("Mode: {} (ordered by {} at {})", m.mode, m.by, m.at),
        None => format!("Mode: {} (by configuration)", policy.mode),
    }];
    let mut names: Vec<&String> = policy.playbook_modes.keys().collect();
    names.extend(healer.orders.playbook_modes.keys());
    names.sort();
    names.dedup();
    for name in names {
        out.push(format!("  {name}: {}", healer.mode_of(name, policy)));
    }
    if let Some(p) = &healer.orders.paused {
        out.push(format!("PAUSED by {} at {}: {}", p.by, p.at, p.why));
    }
    for (service, p) in &healer.orders.locked {
        out.push(format!(
            "Locked: {service} by {} at {}: {}",
            p.by, p.at, p.why
        ));
    }
    for (what, s) in &healer.orders.silences {
        if let Some(until) = s.until.filter(|until| now < *until) {
            out.push(format!(
                "Silenced: {what} until {until} by {}: {}",
                s.by, s.why
            ));
        }
    }
    for window in &policy.maintenance {
        if let Some(until) = window.ends_after(now) {
            out.push(format!("Maintenance: {} until {until}", window.name));
        }
    }
    if let Some(open) = &healer.breaker.open {
        out.push(format!(
            "BREAKER OPEN since {}: {}; evenkeel breaker reset",
            open.at, open.why
        ));
    }
    if let Some(id) = &healer.stuck {
        out.push(format!(
            "STUCK: the rollback of {id} failed; put it in order, then: evenkeel unstick --why \"...\""
        ));
    }
    for (cycle, request) in healer.approvals() {
        out.push(format!(
            "Waits for approval: {} {} ({}) until {}",
            request.id,
            request.playbook,
            cycle.anomaly.key(),
            request.expires_at
        ));
    }
    let rows = left(healer, policy, now);
    let in_all: Vec<String> = rows
        .iter()
        .filter(|l| l.service.is_none())
        .map(|l| format!("{} {} of {}", l.limit, l.left, l.of))
        .collect();
    out.push(format!("Limits left: {}", in_all.join(", ")));
    for l in rows.iter().filter(|l| l.service.is_some() && l.left < l.of) {
        out.push(format!(
            "  {}: {} {} of {}",
            l.service.as_deref().unwrap_or(""),
            l.limit,
            l.left,
            l.of
        ));
    }
    out
}
