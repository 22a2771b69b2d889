//! A strict checker of the Prometheus text exposition format, version 0.0.4.
//!
//! It says whether a scraper could read a body; it keeps no values. The input is bounded by its
//! caller. A missing line feed at the very end is accepted, as Prometheus itself does.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::HashSet;

use crate::text::bounded;

/// What a readable body holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposition {
    /// Lines with a value.
    pub samples: usize,
    /// Metrics with a `# TYPE` line.
    pub typed: usize,
}

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metrics cannot be read: line {line}: {reason}")]
pub struct ExpositionError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Checks a whole body.
pub fn check(body: &[u8]) -> Result<Exposition, ExpositionError> {
    let text = std::str::from_utf8(body).map_err(|e| ExpositionError {
        line: body[..e.valid_up_to()].split(|b| *b == b'\n').count(),
        reason: "it is not UTF-8".to_owned(),
    })?;
    let mut found = Exposition::default();
    let mut state = Seen::default();
    for (index, line) in text.split('\n').enumerate() {
        let result = match line.trim_matches([' ', '\t']) {
            "" => Ok(()),
            line if line.starts_with('#') => comment(&line[1..], &mut state, &mut found),
            line => sample(line, &mut state).map(|()| found.samples += 1),
        };
        result.map_err(|reason| ExpositionError {
            line: index + 1,
            reason,
        })?;
    }
    Ok(found)
}

#[derive(Default)]
struct Seen<'a> {
    helped: HashSet<&'a str>,
    typed: HashSet<&'a str>,
    sampled: HashSet<&'a str>,
}

fn comment<'a>(rest: &'a str, seen: &mut Seen<'a>, found: &mut Exposition) -> Result<(), String> {
    let rest = rest.trim_start_matches([' ', '\t']);
    let (word, rest) = split_word(rest);
    if word != "HELP" && word != "TYPE" {
        return Ok(());
    }
    let (name, rest) = split_word(rest);
    if !is_name(name, true) {
        return Err(format!("`{}` is no metric name", bounded(name, 60)));
    }
    if word == "HELP" {
        if !seen.helped.insert(name) {
            return Err(format!("a second HELP for {}", bounded(name, 60)));
        }
        return Ok(());
    }
    let kind = rest.trim_matches([' ', '\t']);
    if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind) {
        return Err(format!("`{}` is no metric type", bounded(kind, 60)));
    }
    if seen.sampled.contains(name) {
        return Err(format!("TYPE of {} after its samples", bounded(name, 60)));
    }
    if !seen.typed.insert(name) {
        return Err(format!("a second TYPE for {}", bounded(name, 60)));
    }
    found.typed += 1;
    Ok(())
}

fn sample<'a>(line: &'a str, seen: &mut Seen<'a>) -> Result<(), String> {
    let end = line
        .find(['{', ' ', '\t'])
        .ok_or_else(|| format!("`{}` has no value", bounded(line, 60)))?;
    let name = &line[..end];
    if !is_name(name, true) {
        return Err(format!("`{}` is no metric name", bounded(name, 60)));
    }
    seen.sampled.insert(name);
    let rest = line[end..].trim_start_matches([' ', '\t']);
    let rest = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => rest,
    };
    let mut words = rest.split([' ', '\t']).filter(|w| !w.is_empty());
    let value = words.next().ok_or("the value is missing")?;
    if value.parse::<f64>().is_err() {
        return Err(format!("`{}` is no number", bounded(value, 60)));
    }
    if let Some(time) = words.next()
        && time.parse::<i64>().is_err()
    {
        return Err(format!("`{}` is no timestamp", bounded(time, 60)));
    }
    match words.next() {
        None => Ok(()),
        Some(more) => Err(format!("`{}` after the timestamp", bounded(more, 60))),
    }
}

/// Reads labels up to the closing brace and returns what follows it.
fn labels(mut rest: &str) -> Result<&str, String> {
    let mut names = HashSet::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once('=').ok_or("a label without `=`")?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name, false) {
            return Err(format!("`{}` is no label name", bounded(name, 60)));
        }
        if !names.insert(name) {
            return Err(format!("label {} stands twice", bounded(name, 60)));
        }
        let after = after.trim_start_matches([' ', '\t']);
        let value = after
            .strip_prefix('"')
            .ok_or_else(|| format!("label {} has no quoted value", bounded(name, 60)))?;
        rest = quoted(value)?.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err(format!("no `,` or `}}` after label {}", bounded(name, 60))),
        }
    }
}

/// Reads a quoted value after its opening quote and returns what follows the closing one.
fn quoted(text: &str) -> Result<&str, String> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(&text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, '\\' | '"' | 'n')) => {}
                _ => return Err("an escape other than \\\\, \\\" and \\n".to_owned()),
            },
            _ => {}
        }
    }
    Err("a label value without its closing quote".to_owned())
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches([' ', '\t']))
}

fn is_name(name: &str, colon: bool) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "# HELP http_requests_total Requests, with a \\ and a \"quote\".\n\
        # TYPE http_requests_total counter\n\
        http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
        http_requests_total { path=\"C:\\\\a\\n\\\"b\\\"} #\" , } 3.5e+7\n\n\
        # just a comment\n\
        rpc_seconds{quantile=\"0.99\",} NaN\n\
        up +Inf -3982045\n\
        a:b 1";

    #[test]
    fn reads_what_the_format_allows() {
        let found = check(GOOD.as_bytes()).unwrap();
        assert_eq!(
            found,
            Exposition {
                samples: 5,
                typed: 1
            }
        );
        assert_eq!(check(b"").unwrap(), Exposition::default());
    }

    #[test]
    fn says_which_line_is_wrong_and_why() {
        for (bad, line, word) in [
            ("<html>\n", 1, "no value"),
            ("up 1\n<html> <body>\n", 2, "no metric name"),
            ("up\n", 1, "no value"),
            ("up{ 1\n", 1, "`=`"),
            ("up{a=\"b} 1\n", 1, "closing quote"),
            ("up{a=\"\\t\"} 1\n", 1, "escape"),
            ("up{a=\"b\" c=\"d\"} 1\n", 1, "after label a"),
            ("up{a=\"b\",a=\"c\"} 1\n", 1, "twice"),
            ("up{1a=\"b\"} 1\n", 1, "label name"),
            ("up{a=b} 1\n", 1, "quoted"),
            ("up one\n", 1, "no number"),
            ("up 1 soon\n", 1, "timestamp"),
            ("up 1 2 3\n", 1, "after the timestamp"),
            ("# TYPE up thing\n", 1, "no metric type"),
            ("# TYPE up gauge\n# TYPE up gauge\n", 2, "second TYPE"),
            ("up 1\n# TYPE up gauge\n", 2, "after its samples"),
            ("# HELP 9up x\n", 1, "no metric name"),
            ("{\"error\":\"x\"}\n", 1, "no metric name"),
            ("up{} \n", 1, "missing"),
        ] {
            let error = check(bad.as_bytes()).expect_err(bad);
            assert_eq!(error.line, line, "{bad:?}: {error}");
            assert!(error.reason.contains(word), "{bad:?}: {error}");
        }
        assert_eq!(check(b"up 1\n\xff 2").unwrap_err().line, 2);
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = check(&body);
        }

        #[test]
        fn never_panics_on_nearly_right_text(body in "[a-c{}=\"\\\\, #HELPTY\n0-9.+-]{0,200}") {
            let _ = check(body.as_bytes());
        }

        #[test]
        fn a_cut_or_changed_body_never_panics(cut in 0..GOOD.len(), byte in any::<u8>()) {
            let mut body = GOOD.as_bytes().to_vec();
            body[cut] = byte;
            let _ = check(&body);
            let _ = check(&body[..cut]);
        }

        #[test]
        fn what_is_written_right_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            label in "[a-zA-Z_][a-zA-Z0-9_]{0,20}",
            value in any::<f64>(),
            text in "\\PC{0,30}",
        ) {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let body = format!("# TYPE {name} gauge\n{name}{{{label}=\"{escaped}\"}} {value}\n");
            prop_assert_eq!(check(body.as_bytes()), Ok(Exposition { samples: 1, typed: 1 }));
        }
    }
}
