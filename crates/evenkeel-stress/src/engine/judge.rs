//! Holds an answer against what is expected of it.

use serde_json::Value;

use super::tally::End;
use crate::request::Prepared;
use crate::text::bounded;

/// Most bytes of a bad answer's body that are looked at for its error code.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// Keeps what of an answer's body has to be looked at: nothing of a good one without a check.
#[derive(Debug)]
pub(crate) struct Keeper<'a> {
    what: &'a Prepared,
    /// Most bytes of a good body.
    body_bytes: usize,
    /// Most bytes of this one, once its status is known.
    limit: Option<usize>,
    kept: Vec<u8>,
    whole: bool,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(what: &'a Prepared, body_bytes: usize) -> Self {
        Self {
            what,
            body_bytes,
            limit: None,
            kept: Vec::new(),
            whole: true,
        }
    }

    /// Takes the next piece of the body.
    pub(crate) fn take(&mut self, status: u16, piece: &[u8]) {
        let (what, body_bytes) = (self.what, self.body_bytes);
        let limit =
            *self
                .limit
                .get_or_insert_with(|| match (what.expect.contains(status), &what.check) {
                    (true, None) => 0,
                    (true, Some(_)) => body_bytes,
                    (false, _) => body_bytes.min(ERROR_BODY_BYTES_MAX),
                });
        let room = limit - self.kept.len();
        self.whole &= piece.len() <= room;
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// What the complete answer is worth.
    pub(crate) fn judge(&self, status: u16) -> End {
        let name = &self.what.name;
        let bad = |kind: String, message: String, code| End::BadAnswer {
            status,
            kind,
            message: format!("{name}: {message}"),
            code,
        };
        if !self.what.expect.contains(status) {
            let text = bounded(&String::from_utf8_lossy(&self.kept), 200);
            return bad(
                format!("status_{status}"),
                format!("status {status}: {text}"),
                error_code(&self.kept),
            );
        }
        let reason = match &self.what.check {
            None => return End::Good { status },
            Some(_) if !self.whole => {
                format!("the body is longer than {} bytes", self.body_bytes)
            }
            Some(check) => match check.judge(&self.kept) {
                Ok(()) => return End::Good { status },
                Err(reason) => reason,
            },
        };
        bad("assertion".to_owned(), reason, None)
    }
}

/// The text under `error` of a JSON object.
pub(crate) fn error_code(body: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(body).ok()? {
        Value::Object(mut map) => match map.remove("error") {
            Some(Value::String(code)) if !code.is_empty() => Some(code),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_code_is_a_text_at_the_top() {
        assert_eq!(
            error_code(b"{\"error\":\"pool_timeout\"}").as_deref(),
            Some("pool_timeout")
        );
        for none in [
            &b"{\"error\":{\"a\":1}}"[..],
            b"[1]",
            b"<html>",
            b"",
            b"{\"error\":\"\"}",
        ] {
            assert_eq!(error_code(none), None);
        }
    }
}
