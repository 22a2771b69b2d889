//! Makes a step concrete, as the edge does: conditions and templates are filled in, words such as `heaviest` become
//! names, relative changes become absolute ones, and each change gets what takes it back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evenkeel_core::cycle::Cycle;
use evenkeel_core::event::Event;
use evenkeel_core::playbook::action::{Services, SetTunableArgs};
use evenkeel_core::playbook::{Action, Plan, PlannedStep, Prepared, UndoOp};
use evenkeel_core::{Anomaly, expression};
use serde_json::{Map, Value, json};

use super::World;
use super::service::Life;

impl World {
    pub(super) fn prepare(&mut self, cycle: &Cycle, step: usize) -> Event {
        let plan = cycle.run().map(|r| &r.plan);
        let Some(planned) = plan.and_then(|p| p.steps.get(step)) else {
            return refused(step, "the plan has no such step");
        };
        if self.rng.chance(self.odds.refused) {
            return refused(step, "an argument is out of bounds");
        }
        let scope = self.scope(cycle, plan);
        match self.prepared(planned, &scope, &cycle.anomaly) {
            Ok(Some(prepared)) => Event::StepPrepared {
                step,
                prepared: Box::new(prepared),
            },
            Ok(None) => Event::StepSkipped {
                step,
                reason: "its condition does not hold".to_owned(),
            },
            Err(error) => Event::StepRefused { step, error },
        }
    }

    /// What conditions and templates may speak of.
    pub(super) fn scope(&self, cycle: &Cycle, plan: Option<&Plan>) -> Value {
        let tunables: Map<String, Value> = self
            .ground
            .target
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let services: Vec<&str> = self.scenario.services.iter().map(|s| s.name).collect();
        json!({
            "anomaly": serde_json::to_value(&cycle.anomaly).unwrap_or(Value::Null),
            "attempt": cycle.attempt(),
            "findings": cycle.findings(),
            "params": plan.map(|p| &p.params),
            "target": {
                "name": "simulated", "services": services, "tunables": tunables, "mesh": true, "database": true,
            },
        })
    }

    fn prepared(
        &mut self,
        planned: &PlannedStep,
        scope: &Value,
        anomaly: &Anomaly,
    ) -> Result<Option<Prepared>, String> {
        if let Some(when) = &planned.when
            && !self.script.all_hold
            && !expression::eval_condition(when, scope).map_err(|e| e.to_string())?
        {
            return Ok(None);
        }
        let given = serde_json::to_value(&planned.action).map_err(|e| e.to_string())?;
        let filled = if given.to_string().contains("${") {
            let filled = expression::fill(&given, scope).map_err(|e| e.to_string())?;
            serde_json::from_value(filled).map_err(|e| e.to_string())?
        } else {
            planned.action.clone()
        };
        let (action, undo) = self.concrete(filled, anomaly)?;
        Ok(Some(Prepared {
            summary: action.name().to_owned(),
            action,
            undo,
        }))
    }

    /// Those that are not down.
    fn running(&self, names: &[String]) -> Vec<String> {
        let runs = |name: &&String| {
            self.index(name)
                .is_some_and(|s| self.services[s].life != Life::Down)
        };
        names.iter().filter(runs).cloned().collect()
    }

    fn concrete(
        &mut self,
        action: Action,
        anomaly: &Anomaly,
    ) -> Result<(Action, Vec<UndoOp>), String> {
        Ok(match action {
            Action::Restart(mut a) => {
                let services = self.names(&a.services, anomaly)?;
                let running = self.running(&services);
                a.services = Services::Many(services);
                let undo = if running.is_empty() {
                    Vec::new()
                } else {
                    vec![UndoOp::RestartServices { services: running }]
                };
                (Action::Restart(a), undo)
            }
            Action::Stop(mut a) => {
                let services = self.names(&a.services, anomaly)?;
                let running = self.running(&services);
                a.services = Services::Many(services);
                let undo = if running.is_empty() {
                    Vec::new()
                } else {
                    vec![UndoOp::StartServices { services: running }]
                };
                (Action::Stop(a), undo)
            }
            Action::Start(mut a) => {
                a.services = Services::Many(self.names(&a.services, anomaly)?);
                (Action::Start(a), Vec::new())
            }
            Action::WaitReady(mut a) => {
                a.services = Services::Many(self.names(&a.services, anomaly)?);
                (Action::WaitReady(a), Vec::new())
            }
            Action::Signal(mut a) => {
                a.services = Services::Many(self.names(&a.services, anomaly)?);
                (Action::Signal(a), Vec::new())
            }
            Action::SetTunable(a) => self.tunable(&a)?,
            Action::SetConfig(a) => self.ground.prepare_config(a.set),
            Action::RunCommand(a) => {
                let mark = mark_of(&Action::RunCommand(a.clone()));
                let mut undo = Vec::new();
                if a.undo_argv.is_empty() {
                    self.ground.is_for_good(mark);
                } else {
                    // What it puts back is written into it, as a plan of the user's would.
                    let mut argv = a.undo_argv.clone();
                    argv.push(self.mark(&mark).to_string());
                    self.ground.promise(&mark, argv.join(" "));
                    undo.push(UndoOp::Command {
                        argv,
                        cwd: PathBuf::from("/srv/app"),
                    });
                }
                (Action::RunCommand(a), undo)
            }
            Action::Sql(a) => {
                let mark = mark_of(&Action::Sql(a.clone()));
                let undo = a
                    .undo_statement
                    .as_ref()
                    .map(|statement| format!("{statement} -- {}", self.mark(&mark)));
                match &undo {
                    Some(statement) => self.ground.promise(&mark, statement.clone()),
                    None => self.ground.is_for_good(mark),
                }
                let undo = undo.map(|statement| UndoOp::Sql { statement });
                (Action::Sql(a), undo.into_iter().collect())
            }
            Action::HttpRequest(a) => {
                let action = Action::HttpRequest(a);
                self.ground.is_for_good(mark_of(&action));
                (action, Vec::new())
            }
            other => (other, Vec::new()),
        })
    }

    fn mark(&self, mark: &str) -> i64 {
        self.ground.target.marks.get(mark).copied().unwrap_or(0)
    }

    fn tunable(&self, a: &SetTunableArgs) -> Result<(Action, Vec<UndoOp>), String> {
        if !self.ground.target.settings.contains_key(&a.name) {
            return Err(format!("the target has no tunable `{}`", a.name));
        }
        let now = self.ground.number(&a.name) as f64;
        let number = |v: &Option<Value>| v.as_ref().and_then(Value::as_f64);
        let least = number(&a.at_least);
        let wanted = match (number(&a.to), number(&a.factor), least) {
            (Some(to), ..) => to,
            (None, Some(factor), least) => (now * factor).max(least.unwrap_or(0.0)),
            (None, None, Some(least)) => now.max(least),
            (None, None, None) => return Err("no number says what to set".to_owned()),
        };
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and a million")]
        let value = wanted.clamp(0.0, 1_000_000.0) as i64;
        let set = BTreeMap::from([(a.name.clone(), json!(value))]);
        Ok(self.ground.prepare_config(set))
    }

    /// Names in the place of words.
    fn names(&self, services: &Services, anomaly: &Anomaly) -> Result<Vec<String>, String> {
        let all = &self.scenario.services;
        let one = match services {
            Services::One(word) => word.as_str(),
            Services::Many(names) => {
                return match names.iter().find(|n| self.index(n).is_none()) {
                    Some(unknown) => Err(format!("there is no service `{unknown}`")),
                    None => Ok(names.clone()),
                };
            }
        };
        let primary = all[0].name.to_owned();
        Ok(match one {
            "all" => all.iter().map(|s| s.name.to_owned()).collect(),
            "primary" => vec![primary],
            "affected" => vec![anomaly.service.clone().unwrap_or(primary)],
            "heaviest" => {
                let memory = |s: &usize| self.services[*s].seen(&all[*s], self.now).memory_mb;
                let heaviest = (0..all.len())
                    .max_by(|a, b| memory(a).total_cmp(&memory(b)))
                    .unwrap_or(0);
                vec![all[heaviest].name.to_owned()]
            }
            name if self.index(name).is_some() => vec![name.to_owned()],
            name => return Err(format!("there is no service `{name}`")),
        })
    }
}

/// The name of what an action leaves behind that only it knows.
pub(super) fn mark_of(action: &Action) -> String {
    match action {
        Action::RunCommand(a) => a.shell.clone().unwrap_or_else(|| a.argv.join(" ")),
        Action::Sql(a) => a.statement.clone(),
        Action::HttpRequest(a) => format!("{} {}", a.method, a.url),
        other => other.name().to_owned(),
    }
}

fn refused(step: usize, error: &str) -> Event {
    Event::StepRefused {
        step,
        error: error.to_owned(),
    }
}
