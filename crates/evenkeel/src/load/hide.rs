//! Takes out of a run's document what must not leave the process: header values, bodies, rows of data, and what looks
//! like a secret in the query of an address. A target may repeat any of them in its answers.

use std::fmt;
use std::sync::Arc;

use evenkeel_core::redact::{REDACTED, Redactor, is_secret_key};
use evenkeel_stress::{RequestSpec, Rows};

use super::report::Report;
use super::requests::texts_of;

/// Headers whose values say nothing that is to be hidden.
const PLAIN_HEADERS: [&str; 8] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-type",
    "host",
    "user-agent",
];
/// Values of rows shorter than this are not looked for: replacing every `1` would hide nothing and break all.
const ROW_VALUE_BYTES_MIN: usize = 6;
/// What stands where a long text was cut.
const CUT: char = '…';
/// Fewest bytes of a secret that are taken for it where a text was cut in its middle.
const CUT_BYTES_MIN: usize = 3;

/// What must not be shown.
pub(super) struct Hidden {
    secrets: Vec<String>,
    redactor: Redactor,
    rows: Option<Arc<Rows>>,
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.redactor, self.rows)
    }
}

impl Hidden {
    /// Of these requests and rows.
    pub(super) fn new(requests: &[RequestSpec], rows: Option<Arc<Rows>>) -> Self {
        let mut secrets = Vec::new();
        for request in requests {
            for (name, value) in &request.headers.0 {
                if PLAIN_HEADERS.iter().any(|p| name.eq_ignore_ascii_case(p)) {
                    continue;
                }
                secrets.push(value.clone());
                // `Bearer TOKEN`: the token alone is one too.
                secrets.extend(value.split_whitespace().map(str::to_owned));
            }
            if let Some(body) = &request.body {
                texts_of(body, &mut secrets);
            }
            secrets.extend(secrets_of_query(&request.path));
        }
        secrets.retain(|s| s.len() >= ROW_VALUE_BYTES_MIN);
        Self {
            redactor: Redactor::new(secrets.clone()),
            secrets,
            rows,
        }
    }

    /// A text without them.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = self.redactor.text(text);
        for value in self.row_values() {
            if text.contains(value) {
                text = text.replace(value, REDACTED);
            }
        }
        if !text.contains(CUT) {
            return text;
        }
        let pieces: Vec<&str> = text.split(CUT).collect();
        let last = pieces.len() - 1;
        let whole = |(n, piece): (usize, &&str)| {
            if n < last {
                self.without_beginning(piece)
            } else {
                (*piece).to_owned()
            }
        };
        let pieces: Vec<String> = pieces.iter().enumerate().map(whole).collect();
        pieces.join(CUT.encode_utf8(&mut [0; 4]))
    }

    fn row_values(&self) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().flat_map(|rows| rows.iter().flatten());
        rows.map(String::as_str)
            .filter(|value| value.len() >= ROW_VALUE_BYTES_MIN)
    }

    /// A text that was cut, without the beginning of a secret at its end.
    fn without_beginning(&self, piece: &str) -> String {
        let secrets = self.secrets.iter().map(String::as_str);
        let longest = secrets
            .chain(self.row_values())
            .flat_map(|secret| {
                let ends = secret.char_indices().map(|(at, _)| at);
                ends.filter(|at| *at >= CUT_BYTES_MIN && piece.ends_with(&secret[..*at]))
            })
            .max();
        match longest {
            Some(length) => format!("{}{REDACTED}", &piece[..piece.len() - length]),
            None => piece.to_owned(),
        }
    }

    /// The document without them.
    pub(super) fn clean(&self, report: &mut Report) {
        report.run.url = self.text(&report.run.url);
        for sample in &mut report.error_samples {
            *sample = self.text(sample);
        }
        let codes = std::mem::take(&mut report.error_codes);
        for (code, count) in codes {
            *report.error_codes.entry(self.text(&code)).or_default() += count;
        }
        for one in &mut report.per_request {
            one.name = self.text(&one.name);
        }
        if let Some(why) = &mut report.invalid {
            *why = self.text(why);
        }
    }
}

/// Values in a query whose names say that they are secret.
fn secrets_of_query(path: &str) -> impl Iterator<Item = String> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        is_secret_key(name).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::example;

    #[test]
    fn what_a_target_repeats_is_taken_out() {
        let mut request = RequestSpec::post(
            "/login?token=query-secret&page=second",
            serde_json::json!({"user": "body-secret"}),
        );
        let bearer = "Bearer header-secret".to_owned();
        request.headers.0.insert("Authorization".into(), bearer);
        request
            .headers
            .0
            .insert("Accept".into(), "application/json".into());
        let rows = Rows::from_csv("name\nrow-secret\n").unwrap();
        let hidden = Hidden::new(&[request], Some(Arc::new(rows)));
        let mut report = example();
        report.run.url = "http://h/login?token=query-secret&page=second".to_owned();
        report.error_samples = vec![
            "POST /login: status 401: header-secret body-secret row-secret application/json"
                .to_owned(),
        ];
        report
            .error_samples
            .push("found header-se… at `/a`, and row-sec…".to_owned());
        report.error_codes = [("no row-secret".to_owned(), 2), ("other".to_owned(), 1)].into();
        report.per_request[0].name = "POST /login?token=query-secret".to_owned();
        report.invalid = Some("header-secret".to_owned());
        hidden.clean(&mut report);
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains("-secret"), "{text}");
        assert_eq!(
            report.error_samples[1],
            "found [redacted]… at `/a`, and [redacted]…"
        );
        assert!(text.contains("page=second") && text.contains("application/json"));
        assert_eq!(report.error_codes["other"], 1);
    }
}
