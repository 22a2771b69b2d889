//! Amp's event stream: one JSON object a line, of which only two kinds matter. Unknown kinds and fields are passed over.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::advisor::answer::{Answer, FREE_TEXT_BYTES_MAX};
use crate::advisor::mcp::TOOL;

/// Longest line that is read, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Longest stream that is read, in bytes.
pub(super) const STREAM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What may be an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// It came through the tool.
    Submitted(Box<Answer>),
    /// These were its closing words.
    Said(String),
}

/// What the stream has said so far.
#[derive(Debug, Default)]
pub(super) struct Listener {
    submitted: Option<Answer>,
    /// What came through the tool and is no answer.
    misfit: Option<String>,
    said: Option<String>,
    /// Amp's own report that it failed.
    pub(super) failure: Option<String>,
    /// The closing message was seen.
    pub(super) is_done: bool,
}

impl Listener {
    /// Reads to the closing message, to the end of the stream, or to the first bound that is broken.
    pub(super) async fn listen(
        &mut self,
        mut stream: impl AsyncRead + Unpin,
    ) -> Result<(), &'static str> {
        let mut line = Vec::new();
        let mut chunk = vec![0_u8; 64 * 1024];
        let mut total = 0;
        while let Ok(n @ 1..) = stream.read(&mut chunk).await {
            total += n;
            if total > STREAM_BYTES_MAX {
                return Err("more than 16 MiB were sent");
            }
            let mut rest = &chunk[..n];
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                if line.len() + end > LINE_BYTES_MAX {
                    return Err("a line longer than 1 MiB was sent");
                }
                line.extend_from_slice(&rest[..end]);
                self.hear(&line);
                if self.is_done {
                    return Ok(());
                }
                line.clear();
                rest = &rest[end + 1..];
            }
            line.extend_from_slice(rest);
            if line.len() > LINE_BYTES_MAX {
                return Err("a line longer than 1 MiB was sent");
            }
        }
        self.hear(&line);
        Ok(())
    }

    /// Takes in one line.
    fn hear(&mut self, line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            return;
        };
        match message["type"].as_str() {
            Some("assistant") => {
                for part in message["message"]["content"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    self.hear_part(part);
                }
            }
            Some("result") => {
                self.is_done = true;
                if message["is_error"] == true {
                    let why = message["error"]
                        .as_str()
                        .or(message["result"].as_str())
                        .unwrap_or("no reason given");
                    self.failure = Some(why.to_owned());
                } else if let Some(text) = message["result"].as_str() {
                    self.say(text);
                }
            }
            _ => {}
        }
    }

    fn hear_part(&mut self, part: &Value) {
        match part["type"].as_str() {
            // An input that does not fit was refused by the tool, and the agent told so; an earlier one that fitted
            // was meant to be replaced only by one that fits too.
            Some("tool_use") if part["name"].as_str().is_some_and(|n| n.ends_with(TOOL)) => {
                if let Ok(answer) = Answer::from_value(&part["input"]) {
                    self.submitted = Some(answer);
                } else {
                    self.misfit = Some(part["input"].to_string());
                }
            }
            Some("text") => {
                if let Some(text) = part["text"].as_str() {
                    self.say(text);
                }
            }
            _ => {}
        }
    }

    /// Keeps the end of a text: an answer closes it.
    fn say(&mut self, text: &str) {
        let from = text.ceil_char_boundary(text.len().saturating_sub(FREE_TEXT_BYTES_MAX));
        self.said = Some(text[from..].to_owned());
    }

    /// The likeliest answer: the tool's; else the closing words; else what did not fit, so that it can be said why.
    pub(super) fn heard(&mut self) -> Option<Heard> {
        if let Some(answer) = self.submitted.take() {
            return Some(Heard::Submitted(Box::new(answer)));
        }
        let words_fit = self
            .said
            .as_deref()
            .is_some_and(|s| Answer::from_text(s).is_ok());
        let (first, second) = if words_fit || self.misfit.is_none() {
            (self.said.take(), self.misfit.take())
        } else {
            (self.misfit.take(), self.said.take())
        };
        first.or(second).map(Heard::Said)
    }

    /// Whether an answer came through the tool.
    pub(super) fn has_submission(&self) -> bool {
        self.submitted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn listened(input: &[u8]) -> (Listener, Result<(), &'static str>) {
        let mut l = Listener::default();
        let end = l.listen(input).await;
        (l, end)
    }

    fn answer(action: &str) -> Value {
        json!({ "suggested_action": action, "confidence": 0.5, "reasoning": "r", "recommended_config": {} })
    }

    fn assistant(part: &Value) -> String {
        json!({ "type": "assistant", "message": { "content": [part] } }).to_string() + "\n"
    }

    #[tokio::test]
    async fn the_last_fitting_submission_goes_before_words() {
        let tool = |input: Value| {
            assistant(
                &json!({ "type": "tool_use", "name": "mcp__evenkeel__submit_recommendation", "input": input }),
            )
        };
        let stream = [
            "garbage\n".to_owned(),
            json!({ "type": "new_kind", "x": 1 }).to_string() + "\n",
            tool(answer("first")),
            tool(answer("second")),
            tool(json!({ "suggested_action": "third" })),
            assistant(&json!({ "type": "text", "text": answer("words").to_string() })),
            json!({ "type": "result", "result": "done" }).to_string() + "\n",
            "never read".to_owned(),
        ]
        .concat();
        let (mut l, end) = listened(stream.as_bytes()).await;
        assert_eq!(end, Ok(()));
        let Some(Heard::Submitted(a)) = l.heard() else {
            panic!("{l:?}")
        };
        assert_eq!(a.suggested_action, "second");
    }

    #[tokio::test]
    async fn what_did_not_fit_the_tool_is_heard_when_nothing_better_was_said() {
        let misfit = assistant(
            &json!({ "type": "tool_use", "name": "submit_recommendation", "input": { "confidence": 2 } }),
        );
        let done = "{\"type\":\"result\",\"result\":\"Done.\"}";
        let (mut l, _) = listened(format!("{misfit}{done}").as_bytes()).await;
        assert_eq!(l.heard(), Some(Heard::Said("{\"confidence\":2}".into())));
        let words = json!({ "type": "result", "result": answer("words").to_string() });
        let (mut l, _) = listened(format!("{misfit}{words}").as_bytes()).await;
        assert!(matches!(l.heard(), Some(Heard::Said(s)) if s.contains("words")));
    }

    #[tokio::test]
    async fn words_and_failures_are_heard() {
        let (mut l, _) = listened(br#"{"type":"result","is_error":false,"result":"so {}"}"#).await;
        assert_eq!(l.heard(), Some(Heard::Said("so {}".into())));
        let (l, _) =
            listened(br#"{"type":"result","is_error":true,"error":"out of credits"}"#).await;
        assert_eq!(l.failure.as_deref(), Some("out of credits"));
    }

    #[tokio::test]
    async fn lines_and_streams_are_bounded() {
        let long = vec![b'x'; LINE_BYTES_MAX + 2];
        assert!(listened(&long).await.1.unwrap_err().contains("1 MiB"));
        let line = [&b"x"[..], &[b' '; 4094], b"\n"].concat();
        let many = line.repeat(STREAM_BYTES_MAX / line.len() + 1);
        assert!(listened(&many).await.1.unwrap_err().contains("16 MiB"));
    }
}
