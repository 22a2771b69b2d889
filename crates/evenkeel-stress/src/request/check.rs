//! What the body of a good answer must be.

use serde::Deserialize;
use serde_json::Value;

use crate::exposition;
use crate::target::PlanError;
use crate::text::bounded;

/// What the body of a good answer must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyCheck {
    /// Holds this text.
    Contains(String),
    /// Is Prometheus text exposition 0.0.4 with at least one sample.
    Metrics,
    /// Is JSON with a certain value in a certain place.
    Json(JsonCheck),
    /// Passes each of these.
    All(Vec<BodyCheck>),
}

/// A place in a JSON document, and what must be there.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonCheck {
    /// The place, as RFC 6901 writes it: `/items/0/id`, or nothing for the whole document.
    pub pointer: String,
    /// What must be there; when left out, anything but nothing.
    #[serde(default)]
    pub equals: Option<Value>,
}

impl BodyCheck {
    /// Checks a body.
    pub(crate) fn judge(&self, body: &[u8]) -> Result<(), String> {
        match self {
            Self::Contains(text) => {
                let needle = text.as_bytes();
                let found = needle.is_empty() || body.windows(needle.len()).any(|w| w == needle);
                if found {
                    Ok(())
                } else {
                    Err(format!("the body does not hold `{}`", bounded(text, 80)))
                }
            }
            Self::Metrics => match exposition::check(body) {
                Ok(found) if found.samples == 0 => Err("the metrics hold no sample".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
            Self::Json(check) => check.judge(body),
            Self::All(all) => all.iter().try_for_each(|check| check.judge(body)),
        }
    }

    /// Whether it could be checked at all.
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        match self {
            Self::Contains(_) | Self::Metrics => Ok(()),
            Self::Json(JsonCheck { pointer, .. }) => {
                if pointer.is_empty() || pointer.starts_with('/') {
                    Ok(())
                } else {
                    Err(PlanError::BadRequest {
                        what: "JSON pointer",
                        value: bounded(pointer, 80),
                        reason: "must start with `/`".to_owned(),
                    })
                }
            }
            Self::All(all) => all.iter().try_for_each(Self::validate),
        }
    }
}

impl JsonCheck {
    fn judge(&self, body: &[u8]) -> Result<(), String> {
        let document: Value =
            serde_json::from_slice(body).map_err(|_| "the body is not JSON".to_owned())?;
        let place = bounded(&self.pointer, 80);
        let Some(found) = document.pointer(&self.pointer) else {
            return Err(format!("the body has nothing at `{place}`"));
        };
        match &self.equals {
            Some(wanted) if !same(found, wanted) => Err(format!(
                "the body has {} at `{place}`, not {}",
                bounded(&found.to_string(), 60),
                bounded(&wanted.to_string(), 60)
            )),
            _ => Ok(()),
        }
    }
}

/// Equal, where 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_place_in_json_is_looked_at() {
        let check = |value| serde_json::from_value::<BodyCheck>(value).unwrap();
        let body = br#"{"status": "ok", "items": [{"id": 7}], "none": null}"#;
        for good in [
            json!({"json": {"pointer": "/status"}}),
            json!({"json": {"pointer": "/status", "equals": "ok"}}),
            json!({"json": {"pointer": "/items/0/id", "equals": 7.0}}),
            json!({"json": {"pointer": "/none"}}),
            json!({"json": {"pointer": ""}}),
            json!({"all": [{"contains": "status"}, {"json": {"pointer": "/items"}}]}),
        ] {
            assert_eq!(check(good.clone()).judge(body), Ok(()), "{good}");
        }
        for (bad, word) in [
            (
                json!({"json": {"pointer": "/status", "equals": "bad"}}),
                "\"ok\"",
            ),
            (json!({"json": {"pointer": "/x"}}), "nothing at"),
            (
                json!({"all": [{"contains": "status"}, {"contains": "zz"}]}),
                "zz",
            ),
        ] {
            assert!(
                check(bad.clone()).judge(body).unwrap_err().contains(word),
                "{bad}"
            );
        }
        let any = check(json!({"json": {"pointer": ""}}));
        assert!(any.judge(b"<html>").unwrap_err().contains("not JSON"));
        let wrong = check(json!({"json": {"pointer": "status"}})).validate();
        assert!(wrong.unwrap_err().to_string().contains("start with"));
    }
}
