//! Conditions and templates in playbooks: CEL expressions over what is known about a case.
//!
//! A condition is one expression (`when: attempt > 1`). A template is a text with `${...}` in it; a text that
//! is one whole `${...}` keeps the type of its value. `${secret.NAME}` is left as it stands: secrets are filled
//! in at the edge, at the moment of acting, so that no record ever holds one.

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Names an expression may use.
pub const VARIABLES: [&str; 5] = ["anomaly", "attempt", "findings", "params", "target"];

/// Longest expression accepted, in bytes.
pub const EXPRESSION_LEN_MAX: usize = 512;

/// Deepest nesting of brackets accepted; the parser is recursive.
const DEPTH_MAX: usize = 16;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExpressionError {
    /// Too long or too deeply nested to be looked at.
    #[error(
        "the expression is too large: at most {EXPRESSION_LEN_MAX} bytes and {DEPTH_MAX} nested brackets"
    )]
    TooLarge,
    /// Not CEL.
    #[error("`{expression}` is not a CEL expression: {reason}")]
    Syntax {
        /// The text.
        expression: String,
        /// The parser's words.
        reason: String,
    },
    /// Uses a name that does not exist.
    #[error("`{name}` is not known here; known are {}", VARIABLES.join(", "))]
    UnknownName {
        /// The name.
        name: String,
    },
    /// Could not be evaluated over the values at hand.
    #[error("`{expression}` cannot be evaluated: {reason}")]
    Evaluation {
        /// The text.
        expression: String,
        /// What went wrong.
        reason: String,
    },
    /// A condition that is neither true nor false.
    #[error("`{expression}` is a condition, so it must be true or false; it is {found}")]
    NotBoolean {
        /// The text.
        expression: String,
        /// What it evaluated to.
        found: String,
    },
    /// `${` without `}`.
    #[error("`{text}` opens `${{` and never closes it")]
    Unclosed {
        /// The template.
        text: String,
    },
}

/// Checks an expression without evaluating it.
pub fn check(expression: &str) -> Result<(), ExpressionError> {
    let program = compile(expression)?;
    let references = program.references();
    match references
        .variables()
        .into_iter()
        .find(|name| !VARIABLES.contains(name))
    {
        Some(name) => Err(ExpressionError::UnknownName {
            name: name.to_owned(),
        }),
        None => Ok(()),
    }
}

/// Checks every `${...}` in a text.
pub fn check_template(text: &str) -> Result<(), ExpressionError> {
    for part in parts(text)? {
        if let Part::Expression(e) = part {
            check(e)?;
        }
    }
    Ok(())
}

/// Evaluates a condition over `scope`, an object with the names of [`VARIABLES`].
pub fn eval_condition(expression: &str, scope: &Value) -> Result<bool, ExpressionError> {
    match eval(expression, scope)? {
        Value::Bool(b) => Ok(b),
        other => Err(ExpressionError::NotBoolean {
            expression: expression.to_owned(),
            found: other.to_string(),
        }),
    }
}

/// A value whose whole numbers are CEL's `int`, as the literals of an expression are: there is no arithmetic between
/// `int` and `uint`, and `params.size * 2` must be.
struct Whole<'a>(&'a Value);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(n) => match n.as_i64() {
                Some(whole) => serializer.serialize_i64(whole),
                None => n.serialize(serializer),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Whole)),
            Value::Object(map) => serializer.collect_map(map.iter().map(|(k, v)| (k, Whole(v)))),
            other => other.serialize(serializer),
        }
    }
}

/// Evaluates an expression over `scope`.
pub fn eval(expression: &str, scope: &Value) -> Result<Value, ExpressionError> {
    let failed = |reason: String| ExpressionError::Evaluation {
        expression: expression.to_owned(),
        reason,
    };
    let program = compile(expression)?;
    let mut context = cel::Context::default();
    if let Value::Object(map) = scope {
        for (name, value) in map {
            context
                .add_variable(name.as_str(), Whole(value))
                .map_err(|e| failed(e.to_string()))?;
        }
    }
    let value = program
        .execute(&context)
        .map_err(|e| failed(e.to_string()))?;
    value.json().map_err(|e| failed(e.to_string()))
}

/// Fills every `${...}` in every text inside `value`.
pub fn fill(value: &Value, scope: &Value) -> Result<Value, ExpressionError> {
    Ok(match value {
        Value::String(text) => fill_text(text, scope)?,
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|v| fill(v, scope))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| Ok((k.clone(), fill(v, scope)?)))
                .collect::<Result<_, ExpressionError>>()?,
        ),
        other => other.clone(),
    })
}

fn fill_text(text: &str, scope: &Value) -> Result<Value, ExpressionError> {
    let parts = parts(text)?;
    if let [Part::Expression(e)] = parts.as_slice() {
        return eval(e, scope);
    }
    let mut out = String::with_capacity(text.len());
    for part in parts {
        match part {
            Part::Text(t) => out.push_str(t),
            Part::Expression(e) => match eval(e, scope)? {
                Value::String(s) => out.push_str(&s),
                other => out.push_str(&other.to_string()),
            },
        }
    }
    Ok(Value::String(out))
}

enum Part<'a> {
    Text(&'a str),
    Expression(&'a str),
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, ExpressionError> {
    let mut out = Vec::new();
    let (mut rest, mut plain_from) = (text, text);
    while let Some(open) = rest.find("${") {
        let inside = &rest[open + 2..];
        let close = inside.find('}').ok_or_else(|| ExpressionError::Unclosed {
            text: text.chars().take(80).collect(),
        })?;
        let expression = inside[..close].trim();
        let after = &inside[close + 1..];
        if !expression.starts_with("secret.") {
            let plain = &plain_from[..plain_from.len() - rest.len() + open];
            if !plain.is_empty() {
                out.push(Part::Text(plain));
            }
            out.push(Part::Expression(expression));
            plain_from = after;
        }
        rest = after;
    }
    if !plain_from.is_empty() {
        out.push(Part::Text(plain_from));
    }
    Ok(out)
}

fn compile(expression: &str) -> Result<cel::Program, ExpressionError> {
    let mut depth = 0usize;
    let mut deepest = 0usize;
    for c in expression.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    // Chains of unary and ternary operators recurse too; the length bound keeps them short.
    if expression.len() > EXPRESSION_LEN_MAX || deepest > DEPTH_MAX {
        return Err(ExpressionError::TooLarge);
    }
    cel::Program::compile(expression).map_err(|e| ExpressionError::Syntax {
        expression: expression.to_owned(),
        reason: e.to_string().lines().next().unwrap_or("").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Value {
        json!({
            "anomaly": {"type": "error_rate_spike", "current": 0.12, "severity": "high"},
            "attempt": 2,
            "findings": {"look": {"patterns": {"database_locked": 3}}},
            "params": {"size": 20, "name": "api"},
            "target": {"services": ["api"], "tunables": {"workers": 4}},
        })
    }

    #[test]
    fn conditions() {
        for (expression, expected) in [
            ("attempt > 1", true),
            ("anomaly.type == 'latency_spike'", false),
            ("'database_locked' in findings.look.patterns", true),
            (
                "has(findings.look) && findings.look.patterns.database_locked >= 3",
                true,
            ),
            ("has(findings.other)", false),
            ("params.size * 2 - attempt == 38", true),
            ("findings.look.patterns.database_locked + 1 > attempt", true),
            (
                "'workers' in target.tunables && anomaly.current > 0.05",
                true,
            ),
        ] {
            assert_eq!(
                eval_condition(expression, &scope()),
                Ok(expected),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_is_not_a_condition_is_an_error() {
        assert!(matches!(
            eval_condition("attempt", &scope()),
            Err(ExpressionError::NotBoolean { .. })
        ));
        assert!(matches!(
            eval_condition("findings.other.x > 1", &scope()),
            Err(ExpressionError::Evaluation { .. })
        ));
        assert!(matches!(
            check("attempt >"),
            Err(ExpressionError::Syntax { .. })
        ));
        assert_eq!(
            check("atempt > 1"),
            Err(ExpressionError::UnknownName {
                name: "atempt".into()
            })
        );
        assert_eq!(check(&"(".repeat(400)), Err(ExpressionError::TooLarge));
        assert_eq!(check(&"x".repeat(600)), Err(ExpressionError::TooLarge));
    }

    #[test]
    fn templates_keep_types_and_leave_secrets_alone() {
        let filled = fill(
            &json!({"a": "${params.size}", "b": "pool-${params.size}-${params.name}", "c": "Bearer ${secret.KEY}", "d": ["${attempt}"]}),
            &scope(),
        )
        .unwrap();
        assert_eq!(
            filled,
            json!({"a": 20, "b": "pool-20-api", "c": "Bearer ${secret.KEY}", "d": [2]})
        );
        assert!(fill(&json!("${params.size"), &scope()).is_err());
        assert!(check_template("x ${nobody.here} y").is_err());
        assert!(check_template("x ${secret.K} ${params.a}").is_ok());
    }
}
