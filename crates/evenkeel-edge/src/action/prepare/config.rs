//! Making changes of configuration ready: absolute values inside their bounds, and the keys before and after.

use std::collections::BTreeMap;

use evenkeel_core::playbook::action::{SetConfigArgs, SetTunableArgs};
use evenkeel_core::playbook::parse::nearest;
use evenkeel_core::playbook::{Action, KeyChange, UndoOp};
use evenkeel_core::redact::is_secret_key;
use serde_json::Value;

use super::super::cut;
use super::{Made, PrepareError, Preparing};
use crate::config_edit::{self, ConfigError};
use crate::target::Tunable;

impl Preparing<'_> {
    pub(super) fn set_tunable(&self, a: &SetTunableArgs) -> Result<Made, PrepareError> {
        let target = &self.executor.target;
        let Some(tunable) = target.tunables.get(&a.name) else {
            let hint = nearest(&a.name, target.tunables.keys().map(String::as_str))
                .map_or_else(String::new, |h| format!(" ({h})"));
            return Err(self.refused(format!(
                "the target has no tunable `{0}`{hint}: configure [target.tunables.{0}] with its `file` and `key`",
                cut(&a.name, 64)
            )));
        };
        let present = config_edit::read(&target.root, &tunable.file, &tunable.key)
            .map_err(|e| self.config(e))?;
        let value = self.tuned(a, tunable, present.as_ref())?;
        let service = tunable
            .service
            .clone()
            .or_else(|| target.primary().map(|s| s.name.clone()));
        self.set_config(
            SetConfigArgs {
                file: self.executor.short(&tunable.file),
                set: BTreeMap::from([(tunable.key.clone(), value)]),
            },
            service.as_slice(),
        )
    }

    /// The absolute value that a tunable gets: inside its bounds, whole where it is whole now.
    fn tuned(
        &self,
        a: &SetTunableArgs,
        tunable: &Tunable,
        present: Option<&Value>,
    ) -> Result<Value, PrepareError> {
        let number = |what: &str, v: &Value| {
            v.as_f64()
                .filter(|x| x.is_finite())
                .ok_or_else(|| self.refused(format!("`{what}` is {v}, and a number was expected")))
        };
        if !a.is_one_change() {
            return Err(
                self.refused("`set_tunable` needs exactly one of `to`, `factor` and `at_least`")
            );
        }
        let least = a.at_least.as_ref().map(|v| number("at_least", v));
        let least = least.transpose()?;
        let wanted = match (&a.to, &a.factor, present) {
            (Some(to), ..) => match to.as_f64() {
                Some(x) => x,
                None if tunable.min.is_some() || tunable.max.is_some() => {
                    return Err(self.refused(format!(
                        "the tunable `{}` has bounds, so it takes a number and not {to}",
                        a.name
                    )));
                }
                None => return Ok(to.clone()),
            },
            (None, Some(factor), Some(now)) => {
                let wanted = number(&tunable.key, now)? * number("factor", factor)?;
                least.map_or(wanted, |least| wanted.max(least))
            }
            (None, Some(_), None) => {
                return Err(self.refused(format!(
                    "`{}` is not set in {}, so there is nothing to multiply: write it there, or use `to`",
                    tunable.key,
                    self.executor.short(&tunable.file)
                )));
            }
            (None, None, now) => {
                let now = now.map(|now| number(&tunable.key, now)).transpose()?;
                // One of them is there.
                now.into_iter().chain(least).fold(f64::MIN, f64::max)
            }
        };
        let mut value = wanted;
        let whole = match present {
            Some(Value::Number(n)) => !n.is_f64(),
            _ => wanted.fract() == 0.0,
        };
        if whole {
            value = value.round();
        }
        // The bounds have the last word.
        if let Some(max) = tunable.max.filter(|max| value > *max) {
            value = if whole { max.floor() } else { max };
        }
        if let Some(min) = tunable.min.filter(|min| value < *min) {
            value = if whole { min.ceil() } else { min };
        }
        if !value.is_finite() {
            return Err(self.refused(format!("`{}` would become {value}", a.name)));
        }
        // 2^53: beyond it not every whole number has a float of its own.
        if whole && value.abs() <= 9_007_199_254_740_992.0 {
            let text = format!("{value:.0}");
            return Ok(text.parse::<i64>().map_or(Value::from(value), Value::from));
        }
        Ok(Value::from(value))
    }

    pub(super) fn set_config(
        &self,
        a: SetConfigArgs,
        services: &[String],
    ) -> Result<Made, PrepareError> {
        let executor = self.executor;
        let file = executor.config_file(&a.file).map_err(|e| self.refused(e))?;
        if a.set.is_empty() || a.set.len() > 32 {
            return Err(self.refused("`set_config` sets 1 to 32 keys"));
        }
        let (format, text) =
            config_edit::read_text(&executor.target.root, &file).map_err(|e| self.config(e))?;
        let edit = |source| {
            self.config(ConfigError::Edit {
                file: file.clone(),
                source,
            })
        };
        let mut after_text = text.clone();
        let mut said = Vec::new();
        for (key, value) in &a.set {
            after_text = config_edit::set(format, &after_text, key, value).map_err(edit)?;
            let before = config_edit::get(format, &text, key).map_err(edit)?;
            let after = config_edit::get(format, &after_text, key).map_err(edit)?;
            for v in [&before, &after].into_iter().flatten() {
                let known = v
                    .as_str()
                    .is_some_and(|s| is_secret_key(key) || executor.redactor.text(s) != s);
                if known {
                    return Err(self.refused(format!(
                        "`{key}` in {} looks like a secret, and a record would have to hold it",
                        a.file
                    )));
                }
            }
            said.push((key, before, after));
        }
        // What the undo has to remove is the outermost table that did not exist, once.
        let mut keys: Vec<KeyChange> = Vec::new();
        for (key, before, _) in &said {
            let outermost = match before {
                Some(_) => (*key).clone(),
                None => config_edit::outermost_missing(format, &text, key)
                    .map_err(edit)?
                    .unwrap_or_else(|| (*key).clone()),
            };
            let after = config_edit::get(format, &after_text, &outermost)
                .map_err(edit)?
                .unwrap_or(Value::Null);
            let unchanged = before
                .as_ref()
                .is_some_and(|b| config_edit::same(b, &after));
            if !unchanged && keys.iter().all(|k| k.key != outermost) {
                keys.push(KeyChange {
                    key: outermost,
                    before: before.clone(),
                    after,
                });
            }
        }
        let show = |v: &Option<Value>| v.as_ref().map_or("nothing".to_owned(), Value::to_string);
        let name = executor.short(&file);
        let summary = if keys.is_empty() {
            let all: Vec<String> = said
                .iter()
                .map(|(key, _, after)| format!("{key} = {}", show(after)))
                .collect();
            format!("already {} in {name}", all.join(", "))
        } else {
            let all: Vec<String> = said
                .iter()
                .map(|(key, before, after)| format!("{key} {} -> {}", show(before), show(after)))
                .collect();
            format!("set {} in {name}", all.join(", "))
        };
        let mut undo = Vec::new();
        if !keys.is_empty() {
            undo.push(UndoOp::RestoreKeys {
                file: file.clone(),
                keys,
            });
            if !services.is_empty() {
                undo.push(UndoOp::RestartServices {
                    services: services.to_vec(),
                });
            }
        }
        Ok((
            Action::SetConfig(SetConfigArgs {
                file: name,
                set: a.set,
            }),
            undo,
            summary,
        ))
    }
}
