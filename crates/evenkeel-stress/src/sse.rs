//! A bounded parser of server-sent events.
//!
//! Bytes in, events out, wherever the bytes are cut. It touches no network.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.

/// Longest line that is accepted, in bytes.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Most data of one event, in bytes.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// Its `event` field; empty where the stream names none, which means `message`.
    pub event: String,
    /// Its `data` fields, joined by line feeds.
    pub data: String,
    /// The last `id` that the stream has named.
    pub id: String,
}

/// A stream that goes beyond the parser's bounds. Nothing more can be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line without end.
    #[error("the event stream holds a line of more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// An event without end.
    #[error("the event stream holds an event of more than {DATA_BYTES_MAX} bytes")]
    EventTooLong,
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    event: String,
    id: String,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    after_cr: bool,
    begun: bool,
}

impl SseParser {
    /// A parser at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, SseError> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    if let Some(event) = self.end_line()? {
                        events.push(event);
                    }
                }
                _ if self.line.len() >= LINE_BYTES_MAX => return Err(SseError::LineTooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, SseError> {
        let line = std::mem::take(&mut self.line);
        let mut line: &[u8] = &line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(at) => {
                let value = &line[at + 1..];
                (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        let value = String::from_utf8_lossy(value);
        match name {
            b"data" => {
                if self.data.len() + value.len() + 1 > DATA_BYTES_MAX {
                    return Err(SseError::EventTooLong);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(&value);
            }
            b"event" => self.event = value.into_owned(),
            b"id" if !value.contains('\0') => self.id = value.into_owned(),
            // Comments keep a connection alive; `retry` is for browsers; others mean nothing.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then(|| SseEvent {
            event,
            data,
            id: self.id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] = b"\xef\xbb\xbf: hello\n\nevent: a\ndata: 1\ndata:  2\nid: x\n\n\
        data\r\n\r\nevent: dropped\n\ndata:{\"k\":\"\xc3\xa4:b\"}\rretry: 5\rnonsense\r\rdata: unfinished";

    fn whole() -> Vec<SseEvent> {
        SseParser::new().push(STREAM).unwrap()
    }

    #[test]
    fn reads_events_as_the_standard_says() {
        let event = |event: &str, data: &str| SseEvent {
            event: event.into(),
            data: data.into(),
            id: "x".into(),
        };
        let expected = [
            event("a", "1\n 2"),
            event("", ""),
            event("", "{\"k\":\"ä:b\"}"),
        ];
        assert_eq!(whole(), expected);
    }

    #[test]
    fn endless_lines_and_events_are_refused() {
        let mut parser = SseParser::new();
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(parser.push(&long), Err(SseError::LineTooLong));
        let mut parser = SseParser::new();
        let mut line = b"data:".to_vec();
        line.extend(vec![b'x'; 200 * 1024]);
        line.push(b'\n');
        let result = (0..6).find_map(|_| parser.push(&line).err());
        assert_eq!(result, Some(SseError::EventTooLong));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.push(0);
            cuts.push(STREAM.len());
            cuts.sort_unstable();
            let mut parser = SseParser::new();
            let mut events = Vec::new();
            for pair in cuts.windows(2) {
                events.extend(parser.push(&STREAM[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(events, whole());
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SseParser::new().push(&bytes);
        }
    }
}
