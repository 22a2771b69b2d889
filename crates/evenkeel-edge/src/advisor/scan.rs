//! Finds the last whole JSON object in free text. Pure; never panics; its work is bounded.

use serde_json::Value;

/// So many opening braces may lead nowhere before the search gives up: keeps hostile text from costing quadratic time.
const FALSE_STARTS_MAX: usize = 256;
/// Deepest nesting that is followed; the JSON parser goes no deeper either.
const DEPTH_MAX: usize = 128;

/// The last outermost `{…}` in `text` that is a JSON object, as it stands there.
///
/// Prose, code fences and braces that belong to neither are stepped over.
///
/// ```
/// use evenkeel_edge::advisor::scan::last_object;
/// assert_eq!(last_object(r#"I'd say {"a": {"b": "}"}} - {sure}"#), Some(r#"{"a": {"b": "}"}}"#));
/// ```
pub fn last_object(text: &str) -> Option<&str> {
    let mut last = None;
    let mut from = 0;
    let mut false_starts = 0;
    while let Some(open) = text[from..].find('{').map(|i| from + i) {
        let whole = balanced_len(&text.as_bytes()[open..])
            .map(|len| &text[open..open + len])
            .filter(|s| serde_json::from_str::<Value>(s).is_ok());
        if let Some(object) = whole {
            last = Some(object);
            from = open + object.len();
        } else {
            false_starts += 1;
            if false_starts > FALSE_STARTS_MAX {
                break;
            }
            from = open + 1;
        }
    }
    last
}

/// Length of the balanced object that `bytes` start with; braces and brackets inside strings do not count.
fn balanced_len(bytes: &[u8]) -> Option<usize> {
    let mut open: Vec<u8> = Vec::new();
    let mut in_string = false;
    let mut escaped = false;
    for (i, b) in bytes.iter().enumerate() {
        if in_string {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match b {
            b'"' => in_string = true,
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => {
                if open.pop() != Some(*b) {
                    return None;
                }
                if open.is_empty() {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        if open.len() > DEPTH_MAX {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_last_object_among_prose() {
        for (text, expected) in [
            ("", None),
            ("no braces", None),
            ("{", None),
            ("{]}", None),
            ("{}", Some("{}")),
            ("```json\n{\"a\":1}\n```", Some("{\"a\":1}")),
            ("{\"a\":1} then {\"b\":[2,{}]} done", Some("{\"b\":[2,{}]}")),
            (
                "use {braces and {\"a\":\"\\\"}\"}",
                Some("{\"a\":\"\\\"}\"}"),
            ),
            ("{ see {\"a\":1} }", Some("{\"a\":1}")),
            ("{\"a\":1} and {don't}", Some("{\"a\":1}")),
            ("{\"ü\":\"😀}\"}", Some("{\"ü\":\"😀}\"}")),
        ] {
            assert_eq!(last_object(text), expected, "{text}");
        }
    }

    #[test]
    fn hostile_nesting_is_given_up_on_in_time() {
        let text = "{".repeat(200_000);
        let started = std::time::Instant::now();
        assert_eq!(last_object(&text), None);
        assert!(started.elapsed().as_secs() < 5);
        assert_eq!(last_object(&"{\"a\":".repeat(100_000)), None);
    }

    proptest! {
        /// SAFETY 18: garbage is refused, never a crash.
        #[test]
        fn never_panics(text in "[{}\\[\\]\"\\\\a:,1ü \n]{0,200}") {
            if let Some(found) = last_object(&text) {
                prop_assert!(serde_json::from_str::<Value>(found).is_ok_and(|v| v.is_object()));
            }
        }

        #[test]
        fn an_object_is_found_whatever_stands_around_it(
            before in "[^{}]{0,40}", after in "[^{}]{0,40}", key in ".{0,20}", value in ".{0,20}",
        ) {
            let object = serde_json::json!({ key: [value] }).to_string();
            let text = format!("{before}{object}{after}");
            prop_assert_eq!(last_object(&text), Some(object.as_str()));
        }
    }
}
