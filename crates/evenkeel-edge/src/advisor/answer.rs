//! An advisor's answer, read strictly. Pure: text in, four typed fields or an error out.
//!
//! It says nothing about whether the action exists or may run.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::scan::last_object;
use crate::plain::{cut, every_text, one_line, plain};

/// Longest JSON text that is read as an answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest free text that is searched for an answer, in bytes.
pub const FREE_TEXT_BYTES_MAX: usize = 256 * 1024;
/// Longest reasoning that is kept, in bytes; longer ones are cut.
pub const REASONING_BYTES_MAX: usize = 4 * 1024;
/// Longest configuration that is taken, in bytes of JSON; a longer one is an error.
pub const CONFIG_BYTES_MAX: usize = 8 * 1024;
/// Longest raw answer that is kept whole, in bytes of JSON.
pub const RAW_BYTES_MAX: usize = 16 * 1024;
const ACTION_BYTES_MAX: usize = 128;
const CONFIG_KEYS_MAX: usize = 64;
const CONFIG_KEY_BYTES_MAX: usize = 64;

/// A proposal: CONTRACT section 6.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The playbook proposed: 1 to 128 bytes, as given; perhaps one that does not exist.
    pub suggested_action: String,
    /// How sure the advisor says it is, 0 to 1.
    pub confidence: f64,
    /// Why, for a person; at most 4 KiB.
    pub reasoning: String,
    /// Parameters proposed: at most 64, unchecked.
    pub recommended_config: BTreeMap<String, Value>,
    /// The answer as it came, where it is not longer than 16 KiB; else its four fields and a note.
    pub raw: Value,
}

/// Why a text is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is longer than is read.
    #[error("{bytes} bytes are more than the {bytes_max} that are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There is no JSON object in it.
    #[error("there is no JSON object in it")]
    NoObject,
    /// It is not JSON, or not an object, or a field stands twice.
    #[error("not one JSON object: {reason}")]
    NotJson {
        /// The parser's words.
        reason: String,
    },
    /// A field is missing or has another type or size than asked for.
    #[error("`{field}` {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What was expected.
        reason: String,
    },
}

/// The four fields as they may come; a field that stands twice is refused by the reader.
#[derive(Deserialize)]
struct Wire {
    suggested_action: Option<Value>,
    confidence: Option<Value>,
    reasoning: Option<Value>,
    recommended_config: Option<Value>,
}

impl Answer {
    /// Reads a text that is one JSON object and nothing else.
    pub fn from_json(text: &str) -> Result<Self, AnswerError> {
        if text.len() > ANSWER_BYTES_MAX {
            return Err(AnswerError::TooLong {
                bytes: text.len(),
                bytes_max: ANSWER_BYTES_MAX,
            });
        }
        let not_json = |e: serde_json::Error| AnswerError::NotJson {
            reason: one_line(&e.to_string(), 160),
        };
        let raw: Value = serde_json::from_str(text).map_err(not_json)?;
        if !raw.is_object() {
            return Err(AnswerError::NotJson {
                reason: "an object was expected".into(),
            });
        }
        let wire: Wire = serde_json::from_str(text).map_err(not_json)?;
        Self::checked(wire, raw)
    }

    /// Reads a value that somebody else has parsed already.
    pub fn from_value(value: &Value) -> Result<Self, AnswerError> {
        Self::from_json(&value.to_string())
    }

    /// Reads the last JSON object in free text.
    pub fn from_text(text: &str) -> Result<Self, AnswerError> {
        if text.len() > FREE_TEXT_BYTES_MAX {
            return Err(AnswerError::TooLong {
                bytes: text.len(),
                bytes_max: FREE_TEXT_BYTES_MAX,
            });
        }
        Self::from_json(last_object(text).ok_or(AnswerError::NoObject)?)
    }

    /// The four fields.
    pub fn to_json(&self) -> Value {
        json!({
            "suggested_action": self.suggested_action,
            "confidence": self.confidence,
            "reasoning": self.reasoning,
            "recommended_config": self.recommended_config,
        })
    }

    /// The answer with every text passed through `redact`. An advisor was never given a secret; should one have come
    /// back all the same, it goes no further.
    pub(super) fn redacted(self, redact: &impl Fn(&str) -> String) -> Self {
        let config = every_text(&json!(self.recommended_config), redact);
        Self {
            suggested_action: redact(&self.suggested_action),
            confidence: self.confidence,
            reasoning: cut(&redact(&self.reasoning), REASONING_BYTES_MAX),
            recommended_config: match config {
                Value::Object(map) => map.into_iter().collect(),
                _ => BTreeMap::new(),
            },
            raw: every_text(&self.raw, redact),
        }
    }

    fn checked(wire: Wire, raw: Value) -> Result<Self, AnswerError> {
        let suggested_action = match field("suggested_action", wire.suggested_action)? {
            Value::String(s)
                if !s.is_empty()
                    && s.len() <= ACTION_BYTES_MAX
                    && !s.chars().any(char::is_control) =>
            {
                s
            }
            _ => {
                return wrong(
                    "suggested_action",
                    "must be a text of 1 to 128 bytes on one line",
                );
            }
        };
        let confidence = match field("confidence", wire.confidence)?.as_f64() {
            Some(c) if (0.0..=1.0).contains(&c) => c,
            _ => return wrong("confidence", "must be a number from 0 to 1"),
        };
        let reasoning = match field("reasoning", wire.reasoning)? {
            Value::String(s) => cut(&plain(&s), REASONING_BYTES_MAX),
            _ => return wrong("reasoning", "must be a text"),
        };
        let Value::Object(config) = field("recommended_config", wire.recommended_config)? else {
            return wrong(
                "recommended_config",
                "must be an object; {} when there is nothing to set",
            );
        };
        let recommended_config = checked_config(config)?;
        let mut answer = Self {
            suggested_action,
            confidence,
            reasoning,
            recommended_config,
            raw: Value::Null,
        };
        answer.raw = if raw.to_string().len() <= RAW_BYTES_MAX {
            raw
        } else {
            let mut short = answer.to_json();
            short["left_out"] =
                json!("the answer was longer than 16 KiB; only its four fields were kept");
            short
        };
        Ok(answer)
    }
}

fn checked_config(config: Map<String, Value>) -> Result<BTreeMap<String, Value>, AnswerError> {
    let keys_fit = config.len() <= CONFIG_KEYS_MAX
        && config
            .keys()
            .all(|k| (1..=CONFIG_KEY_BYTES_MAX).contains(&k.len()));
    let config: BTreeMap<String, Value> = config.into_iter().collect();
    if !keys_fit || json!(config).to_string().len() > CONFIG_BYTES_MAX {
        return wrong(
            "recommended_config",
            "must have at most 64 keys of 1 to 64 bytes, and 8 KiB in all",
        );
    }
    Ok(config)
}

fn field(name: &'static str, value: Option<Value>) -> Result<Value, AnswerError> {
    value.map_or_else(|| wrong(name, "is missing"), Ok)
}

fn wrong<T>(field: &'static str, reason: &str) -> Result<T, AnswerError> {
    Err(AnswerError::Field {
        field,
        reason: reason.to_owned(),
    })
}

/// JSON Schema of an answer. With `actions`, only these may be suggested.
pub fn json_schema(actions: &[String]) -> Value {
    let mut action = json!({
        "type": "string",
        "description": "Name of the one playbook to run, exactly as offered.",
    });
    if !actions.is_empty() {
        action["enum"] = json!(actions);
    }
    json!({
        "type": "object",
        "properties": {
            "suggested_action": action,
            "confidence": {
                "type": "number", "minimum": 0, "maximum": 1,
                "description": "How sure you are that this removes the cause, 0 to 1.",
            },
            "reasoning": {
                "type": "string",
                "description": "Why, in a few sentences for an operator.",
            },
            "recommended_config": {
                "type": "object",
                "description": "Parameters of that playbook, by name and inside the offered bounds; {} for its defaults.",
            },
        },
        "required": ["suggested_action", "confidence", "reasoning", "recommended_config"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"suggested_action":"increase_db_pool_size","confidence":0.85,
        "reasoning":"pool exhausted","recommended_config":{"pool_size":20,"pool_timeout":30}}"#;

    #[test]
    fn reads_the_specified_answer() {
        let a = Answer::from_json(GOOD).unwrap();
        assert_eq!(a.suggested_action, "increase_db_pool_size");
        assert!((a.confidence - 0.85).abs() < 1e-9);
        assert_eq!(a.recommended_config["pool_size"], json!(20));
        assert_eq!(a.raw["reasoning"], json!("pool exhausted"));
        let b = Answer::from_text(&format!("Sure! ```json\n{GOOD}\n``` Good luck.")).unwrap();
        assert_eq!(a, b);
    }

    /// SAFETY 18: what is not exactly an answer is none.
    #[test]
    fn refuses_what_is_not_exactly_an_answer() {
        let with = |key: &str, value: Value| {
            let mut v: Value = serde_json::from_str(GOOD).unwrap();
            v[key] = value;
            Answer::from_value(&v)
        };
        for (key, value) in [
            ("suggested_action", json!("")),
            ("suggested_action", json!(["a"])),
            ("suggested_action", json!("a\nb")),
            ("suggested_action", json!("x".repeat(129))),
            ("confidence", json!("0.9")),
            ("confidence", json!(1.01)),
            ("confidence", json!(-0.1)),
            ("confidence", Value::Null),
            ("reasoning", json!({})),
            ("recommended_config", json!([])),
            ("recommended_config", Value::Null),
            ("recommended_config", json!({ "k": "v".repeat(9000) })),
            ("recommended_config", json!({ "": 1 })),
        ] {
            let shown = value.to_string();
            match with(key, value) {
                Err(AnswerError::Field { field, .. }) => assert_eq!(field, key, "{shown}"),
                other => panic!("{key} = {shown}: {other:?}"),
            }
        }
        for field in [
            "suggested_action",
            "confidence",
            "reasoning",
            "recommended_config",
        ] {
            let mut v: Value = serde_json::from_str(GOOD).unwrap();
            v.as_object_mut().unwrap().remove(field);
            let e = Answer::from_value(&v).unwrap_err().to_string();
            assert!(e.contains(field) && e.contains("missing"), "{e}");
        }
        for text in [
            "",
            "[]",
            "null",
            "nonsense",
            &GOOD.replace("0.85", "NaN"),
            &GOOD.replace("0.85", "1e999"),
            &GOOD.replace('}', ""),
            &format!("{GOOD} {GOOD}"),
        ] {
            assert!(Answer::from_json(text).is_err(), "{text}");
        }
        assert_eq!(Answer::from_text("I cannot."), Err(AnswerError::NoObject));
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let twice = GOOD.replace(
            "\"confidence\":0.85",
            "\"confidence\":0.1,\"confidence\":0.99",
        );
        let e = Answer::from_json(&twice).unwrap_err();
        assert!(e.to_string().contains("duplicate"), "{e}");
    }

    #[test]
    fn long_answers_are_bounded() {
        let long = json!({
            "suggested_action": "a", "confidence": 1, "reasoning": "r".repeat(30_000),
            "recommended_config": {}, "extra": "x",
        });
        let a = Answer::from_value(&long).unwrap();
        assert!(a.reasoning.len() <= REASONING_BYTES_MAX);
        assert!(a.raw.to_string().len() <= RAW_BYTES_MAX);
        assert!(a.raw["left_out"].is_string() && a.raw.get("extra").is_none());
        let text = format!("{{\"x\":\"{}\"}}", "y".repeat(ANSWER_BYTES_MAX));
        assert!(matches!(
            Answer::from_json(&text),
            Err(AnswerError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn never_panics_on_any_text(text in ".{0,300}") {
            let _ = Answer::from_text(&text);
            let _ = Answer::from_json(&text);
        }

        #[test]
        fn what_is_read_is_inside_its_bounds(
            action in "[a-z_]{1,20}", confidence in 0.0_f64..=1.0, reasoning in ".{0,400}",
        ) {
            let v = json!({
                "suggested_action": action, "confidence": confidence, "reasoning": reasoning,
                "recommended_config": {},
            });
            let a = Answer::from_value(&v).unwrap();
            prop_assert!(a.reasoning.len() <= REASONING_BYTES_MAX);
            prop_assert_eq!(&Answer::from_value(&a.to_json()).unwrap().to_json(), &a.to_json());
        }
    }
}
