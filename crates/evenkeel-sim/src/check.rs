//! Independent judges of a trace. They know the ledger's entries as JSON and what really happened in the world, and
//! nothing of how the healer decides: where a rule needs logic, it is written here a second time.
//!
//! Which line of `SAFETY.md` a checker covers stands at its function and in its violations.

mod acts;
mod attempts;
mod causes;
mod ends;
mod limits;
mod people;
mod replay;

use std::collections::BTreeMap;
use std::fmt;

use crate::trace::{Entry, Fact, Item, Trace};

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property, in a few words; the same for every violation of it.
    pub rule: &'static str,
    /// Its number in `SAFETY.md`; 0 when it is none of them.
    pub safety: u8,
    /// Index of the item of the trace where it shows.
    pub item: usize,
    /// The cycle; empty when it is none.
    pub workflow: String,
}

/// Violations with the seed and the whole trace: what a failing test prints.
#[derive(Debug)]
pub struct Report<'a> {
    /// The run.
    pub trace: &'a Trace,
    /// What is wrong with it.
    pub violations: &'a [Violation],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for v in self.violations {
            writeln!(
                f,
                "seed {}: item {} [{}]: {} (SAFETY {})",
                self.trace.scenario.seed, v.item, v.workflow, v.rule, v.safety
            )?;
        }
        self.trace.fmt(f)
    }
}

/// Judges a trace; nothing found gives an empty list.
pub fn check(trace: &Trace) -> Vec<Violation> {
    let mut found = Findings::default();
    for (workflow, story) in stories(trace) {
        workflow.clone_into(&mut found.workflow);
        ends::check(trace, &story, &mut found);
        acts::check(&story, &mut found);
        attempts::within_rules(trace, &story, &mut found);
    }
    found.workflow.clear();
    ends::one_at_a_time(trace, &mut found);
    ends::without_ledger(trace, &mut found);
    attempts::remembered(trace, &mut found);
    replay::check(trace, &mut found);
    causes::check(trace, &mut found);
    causes::victims(trace, &mut found);
    limits::check(trace, &mut found);
    limits::alerts(trace, &mut found);
    people::check(trace, &mut found);
    found.violations
}

/// Whether a re-test on record proves a fix: it passed, that could be concluded, and nothing guarded is worse.
fn proves(verification: &serde_json::Value) -> bool {
    let worse = verification["guards"]
        .as_array()
        .is_some_and(|guards| guards.iter().any(|g| g["worse"] == true));
    verification["passed"] == true && verification["inconclusive"] == false && !worse
}

/// Whether a cycle was opened by a person, and by nobody else's choice runs what it runs.
fn by_hand(opened: &serde_json::Value) -> bool {
    opened["plan"].is_object()
}

/// The items of one cycle, each with its index in the trace.
type Story<'a> = Vec<(usize, What<'a>)>;

/// One item of a cycle.
#[derive(Clone, Copy)]
enum What<'a> {
    Entry(&'a Entry),
    Fact(&'a Fact),
}

impl<'a> What<'a> {
    /// The event's name; empty for facts.
    fn event(self) -> &'a str {
        match self {
            Self::Entry(e) => e.event(),
            Self::Fact(_) => "",
        }
    }

    /// The entry's payload; null for facts.
    fn payload(self) -> &'a serde_json::Value {
        match self {
            Self::Entry(e) => &e.payload,
            Self::Fact(_) => &serde_json::Value::Null,
        }
    }

    /// The step that the entry is about.
    fn step(self) -> Option<usize> {
        self.payload()["step"]
            .as_u64()
            .and_then(|s| usize::try_from(s).ok())
    }
}

#[derive(Default)]
struct Findings {
    workflow: String,
    violations: Vec<Violation>,
}

impl Findings {
    /// Notes a violation unless `holds`.
    fn expect(&mut self, holds: bool, safety: u8, item: usize, rule: &'static str) {
        if !holds {
            self.violations.push(Violation {
                rule,
                safety,
                item,
                workflow: self.workflow.clone(),
            });
        }
    }
}

fn stories(trace: &Trace) -> BTreeMap<&str, Story<'_>> {
    let mut stories: BTreeMap<&str, Story<'_>> = BTreeMap::new();
    for (i, item) in trace.items.iter().enumerate() {
        let (workflow, what) = match item {
            Item::Entry(e) => (e.workflow(), What::Entry(e)),
            Item::World { workflow, fact, .. } => (workflow.as_str(), What::Fact(fact)),
        };
        if !workflow.is_empty() {
            stories.entry(workflow).or_default().push((i, what));
        }
    }
    stories
}

/// Type and place of an anomaly: what makes two findings the same one while it lasts.
fn key_of(anomaly: &serde_json::Value) -> String {
    let place = ["test", "series", "service"]
        .into_iter()
        .find_map(|name| anomaly[name].as_str())
        .unwrap_or("");
    format!("{}/{place}", anomaly["type"].as_str().unwrap_or(""))
}
