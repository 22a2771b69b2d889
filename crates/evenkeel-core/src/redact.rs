//! Keeps secrets out of whatever leaves the process: logs, ledger, prompts, alerts, pages.
//!
//! It knows the secret values themselves (from the environment and the configuration) and replaces
//! them wherever they appear, and it hides the value of any key whose name says that it is secret.

use serde_json::Value;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Values shorter than this are not searched for: replacing every `1` would hide nothing and break all.
const SECRET_LEN_MIN: usize = 6;

const SECRET_KEY_PARTS: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "credential",
];

/// Replaces known secrets.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    /// Knows these values. Short ones (under six bytes) are left out.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets
            .into_iter()
            .filter(|s| s.trim().len() >= SECRET_LEN_MIN)
            .collect();
        // The longest first, so that a secret that contains another is replaced whole.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// The text without any known secret.
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in &self.secrets {
            if out.contains(secret.as_str()) {
                out = out.replace(secret.as_str(), REDACTED);
            }
        }
        out
    }

    /// The value without any known secret, and without the value of any key that names one.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(s) => Value::String(self.text(s)),
            Value::Array(items) => Value::Array(items.iter().map(|v| self.value(v)).collect()),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(k, v)| {
                        // Numbers are no secrets (`max_tokens = 4096`), and `${secret.NAME}` names one without holding it.
                        let hidden = is_secret_key(k)
                            && match v {
                                Value::String(s) => !s.contains("${secret."),
                                Value::Array(_) | Value::Object(_) => true,
                                _ => false,
                            };
                        let v = if hidden {
                            Value::String(REDACTED.into())
                        } else {
                            self.value(v)
                        };
                        (self.text(k), v)
                    })
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}

/// Whether a key's name says that its value is secret.
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRET_KEY_PARTS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// SAFETY 22
    #[test]
    fn no_known_secret_survives_in_text_keys_or_values() {
        let r = Redactor::new(["sk-abcdef123456".to_owned(), "x".to_owned()]);
        let v = r.value(&json!({
            "details": "failed with key sk-abcdef123456!",
            "list": ["sk-abcdef123456", 3],
            "api_key": "short",
            "Authorization": "Bearer zzz",
            "sk-abcdef123456": 1,
            "x": "x marks the spot",
            "max_tokens": 4096,
            "header_token": "${secret.NAME}",
        }));
        let text = v.to_string();
        assert!(!text.contains("sk-abcdef"), "{text}");
        assert!(!text.contains("short") && !text.contains("zzz"), "{text}");
        assert!(
            text.contains("x marks the spot"),
            "one-letter values are not secrets: {text}"
        );
    }

    #[test]
    fn a_secret_inside_a_longer_one_does_not_leave_its_tail() {
        let r = Redactor::new(["abcdef".to_owned(), "abcdef-tail".to_owned()]);
        assert_eq!(r.text("abcdef-tail"), REDACTED);
    }
}
