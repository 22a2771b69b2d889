//! Reads answers of HTTP/1.1 (RFC 9112) from bytes as they come, in pieces of any size.
//!
//! It believes nothing: heads, informational answers, chunk extensions and trailers are bounded, and what is not
//! HTTP/1.1 is an error, never a guess. It touches no socket.

use std::mem::MaybeUninit;

/// Longest head of an answer, in bytes; also the longest trailer.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most headers of an answer.
pub const HEADERS_MAX: usize = 256;
/// Most informational answers (100, 103) before the real one.
const INFORMATIONAL_MAX: u8 = 16;
/// Longest extension of a chunk, in bytes.
const EXTENSION_BYTES_MAX: u16 = 4096;

/// What came back is not HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Its head cannot be read.
    #[error("the head of the answer is not HTTP/1.1: {0}")]
    Head(httparse::Error),
    /// Its head does not end.
    #[error("the head of the answer is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// It answers on and on without an answer.
    #[error("more than {INFORMATIONAL_MAX} informational answers came before the real one")]
    Informational,
    /// It wants to speak another protocol.
    #[error("the answer switches protocols, which was not asked for")]
    Upgrade,
    /// Its status is below 100.
    #[error("the answer's status {0:03} is none: they begin at 100")]
    Status(u16),
    /// Its length is no number, or two.
    #[error("the answer's content-length is not one number")]
    Length,
    /// A chunk cannot be read.
    #[error("a chunk of the answer is not as RFC 9112 has it")]
    Chunk,
    /// Its trailer does not end.
    #[error("the trailer of the answer is longer than {HEAD_BYTES_MAX} bytes")]
    TrailerTooLong,
}

/// What came of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// The answer is not complete.
    More,
    /// The answer is complete; so many bytes of the piece came after it.
    Done {
        /// Bytes after its end.
        surplus: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunk(Chunk),
    UntilClose,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size { value: u64, digits: u8 },
    Extension { value: u64, bytes: u16 },
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    LineStart { bytes: u32 },
    Line { bytes: u32 },
    LastLf,
}

/// Reads one answer.
#[derive(Clone, Debug)]
pub struct Parser {
    state: State,
    /// What of a head came so far, when it did not come in one piece.
    head: Vec<u8>,
    to_head: bool,
    informational: u8,
    status: u16,
    keep_alive: bool,
    begun: bool,
}

impl Parser {
    /// For the answer to one request. `to_head`: that request's method is HEAD, so the answer has no body.
    pub fn new(to_head: bool) -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
            to_head,
            informational: 0,
            status: 0,
            keep_alive: true,
            begun: false,
        }
    }

    /// The status, once the head was read; before that 0.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection can be used again after this answer.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether any byte of the answer came.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Bytes of a head that are kept until the rest of it comes: at most [`HEAD_BYTES_MAX`].
    pub fn held(&self) -> usize {
        self.head.len()
    }

    /// Takes the next piece; what of it is body goes to `body`, with the status. Not to be called again after an error or the end.
    pub fn feed(
        &mut self,
        piece: &[u8],
        body: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<Fed, Violation> {
        self.begun |= !piece.is_empty();
        let mut rest = piece;
        loop {
            match self.state {
                State::Done => {
                    return Ok(Fed::Done {
                        surplus: rest.len(),
                    });
                }
                State::Head => match self.feed_head(rest)? {
                    None => return Ok(Fed::More),
                    Some(used) => rest = &rest[used..],
                },
                _ if rest.is_empty() => return Ok(Fed::More),
                State::UntilClose => {
                    body(self.status, rest);
                    return Ok(Fed::More);
                }
                State::Length(left) => {
                    let n = usize::try_from(left).map_or(rest.len(), |l| l.min(rest.len()));
                    body(self.status, &rest[..n]);
                    rest = &rest[n..];
                    self.state = match left - n as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                }
                State::Chunk(Chunk::Data(left)) => {
                    let n = usize::try_from(left).map_or(rest.len(), |l| l.min(rest.len()));
                    body(self.status, &rest[..n]);
                    rest = &rest[n..];
                    self.state = State::Chunk(match left - n as u64 {
                        0 => Chunk::DataCr,
                        left => Chunk::Data(left),
                    });
                }
                State::Chunk(chunk) => {
                    self.state = chunk.after(rest[0])?;
                    rest = &rest[1..];
                }
            }
        }
    }

    /// The connection was closed: true when that is how the answer ends.
    pub fn closed(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.state == State::Done
    }

    /// Takes what belongs to the head: how many bytes of the piece, or nothing while it is not complete.
    fn feed_head(&mut self, piece: &[u8]) -> Result<Option<usize>, Violation> {
        if self.head.is_empty() {
            // What is beyond the longest head is not looked at, so that the size of a piece makes no difference.
            let piece = &piece[..piece.len().min(HEAD_BYTES_MAX)];
            if let Some(length) = self.read_head(piece)? {
                return Ok(Some(length));
            }
            if piece.len() == HEAD_BYTES_MAX {
                return Err(Violation::HeadTooLong);
            }
            self.head = piece.to_vec();
            return Ok(None);
        }
        let before = self.head.len();
        let room = HEAD_BYTES_MAX.saturating_sub(before);
        let taken = piece.len().min(room);
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(&piece[..taken]);
        // A head ends with a line; without the end of one there is nothing to read anew.
        let found = if piece[..taken].contains(&b'\n') {
            self.read_head(&head)?
        } else {
            None
        };
        match found {
            Some(length) => Ok(Some(length.saturating_sub(before))),
            None if head.len() == HEAD_BYTES_MAX => Err(Violation::HeadTooLong),
            None => {
                self.head = head;
                Ok(None)
            }
        }
    }

    /// Reads a head from the start of `bytes`: its length, once it is complete.
    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut headers,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(Violation::Head(error)),
        };
        let status = response.code.unwrap_or(0);
        match status {
            0..=99 => return Err(Violation::Status(status)),
            101 => return Err(Violation::Upgrade),
            100..=199 => {
                self.informational += 1;
                return if self.informational > INFORMATIONAL_MAX {
                    Err(Violation::Informational)
                } else {
                    Ok(Some(length))
                };
            }
            _ => {}
        }
        self.status = status;
        let framing = Framing::of(&response)?;
        self.keep_alive = framing.keep_alive;
        self.state = if self.to_head || status == 204 || status == 304 {
            State::Done
        } else if let Some(chunked) = framing.chunked {
            if chunked {
                State::Chunk(Chunk::Size {
                    value: 0,
                    digits: 0,
                })
            } else {
                State::UntilClose
            }
        } else {
            match framing.length {
                Some(0) => State::Done,
                Some(length) => State::Length(length),
                None => State::UntilClose,
            }
        };
        if self.state == State::UntilClose {
            self.keep_alive = false;
        }
        Ok(Some(length))
    }
}

/// How an answer's body ends, by its headers (RFC 9112, section 6.3).
struct Framing {
    /// Whether the last transfer coding is `chunked`; nothing where there is none.
    chunked: Option<bool>,
    length: Option<u64>,
    keep_alive: bool,
}

impl Framing {
    fn of(response: &httparse::Response<'_, '_>) -> Result<Self, Violation> {
        let mut framing = Self {
            chunked: None,
            length: None,
            keep_alive: response.version == Some(1),
        };
        for header in response.headers.iter() {
            // Told apart by length first: this runs for every header of every answer.
            match header.name.len() {
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    for token in tokens(header.value) {
                        if token.eq_ignore_ascii_case(b"close") {
                            framing.keep_alive = false;
                        } else if token.eq_ignore_ascii_case(b"keep-alive")
                            && response.version == Some(0)
                        {
                            framing.keep_alive = true;
                        }
                    }
                }
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    for token in tokens(header.value) {
                        let length = number(token).ok_or(Violation::Length)?;
                        if framing.length.is_some_and(|other| other != length) {
                            return Err(Violation::Length);
                        }
                        framing.length = Some(length);
                    }
                    if framing.length.is_none() {
                        return Err(Violation::Length);
                    }
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if let Some(last) = tokens(header.value).last() {
                        framing.chunked = Some(last.eq_ignore_ascii_case(b"chunked"));
                    }
                }
                _ => {}
            }
        }
        // Both at once is how requests are smuggled: the chunks count, and nothing more comes over this connection.
        if framing.chunked.is_some() && framing.length.is_some() {
            framing.keep_alive = false;
        }
        Ok(framing)
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|t| !t.is_empty())
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |n, d| {
        let digit = d.is_ascii_digit().then(|| u64::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

impl Chunk {
    /// The state after one byte that is not data.
    fn after(self, byte: u8) -> Result<State, Violation> {
        let chunk = match (self, byte) {
            (Self::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == 16 {
                    return Err(Violation::Chunk);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Self::Size {
                    value: (value << 4) | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(Violation::Chunk),
            (Self::Size { value, .. } | Self::Extension { value, .. }, b'\r') => {
                Self::SizeEnd(value)
            }
            (Self::Size { value, .. }, b';' | b' ' | b'\t') => Self::Extension { value, bytes: 0 },
            (Self::Extension { value, bytes }, b) if b != b'\n' && bytes < EXTENSION_BYTES_MAX => {
                Self::Extension {
                    value,
                    bytes: bytes + 1,
                }
            }
            (Self::SizeEnd(0), b'\n') => Self::LineStart { bytes: 0 },
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size {
                value: 0,
                digits: 0,
            },
            (Self::LineStart { .. }, b'\r') => Self::LastLf,
            (Self::LastLf, b'\n') => return Ok(State::Done),
            (Self::LineStart { bytes } | Self::Line { bytes }, b) => {
                if bytes as usize >= HEAD_BYTES_MAX {
                    return Err(Violation::TrailerTooLong);
                }
                let bytes = bytes + 1;
                if b == b'\n' {
                    Self::LineStart { bytes }
                } else {
                    Self::Line { bytes }
                }
            }
            _ => return Err(Violation::Chunk),
        };
        Ok(State::Chunk(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Status, body, whether kept alive, and surplus; or nothing while it is not complete.
    type Read = Result<Option<(u16, Vec<u8>, bool, usize)>, Violation>;

    fn read(pieces: &[&[u8]], to_head: bool, closed: bool) -> Read {
        let mut parser = Parser::new(to_head);
        let mut body = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            match parser.feed(piece, &mut |_, b| body.extend_from_slice(b))? {
                Fed::More => {}
                Fed::Done { surplus } => {
                    let later: usize = pieces[i + 1..].iter().map(|p| p.len()).sum();
                    return Ok(Some((
                        parser.status(),
                        body,
                        parser.keep_alive(),
                        surplus + later,
                    )));
                }
            }
        }
        if closed && parser.closed() {
            return Ok(Some((parser.status(), body, parser.keep_alive(), 0)));
        }
        Ok(None)
    }

    fn whole(text: &[u8]) -> Read {
        read(&[text], false, true)
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        for (text, status, body, keep, surplus) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcde"[..], 200, &b"abc"[..], true, 2),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nconnection: close\r\n\r\nabc", 200, b"abc", false, 0),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", 200, b"abc", false, 0),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", 200, b"a", false, 0),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: Keep-Alive\r\n\r\na", 200, b"a", true, 0),
            (b"HTTP/1.1 204 No\r\ncontent-length: 3\r\n\r\n", 204, b"", true, 0),
            (b"HTTP/1.1 304 No\r\n\r\n", 304, b"", true, 0),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 201 OK\r\ncontent-length: 0\r\n\r\n",
             201, b"", true, 0),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: 1\r\n\r\nzz",
             200, b"abc0123456789", true, 2),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n0\r\n\r\n", 200, b"", false, 0),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: 1\r\n\r\nabc", 200, b"abc", false, 0),
        ] {
            let expected = Some((status, body.to_vec(), keep, surplus));
            assert_eq!(whole(text), Ok(expected), "{}", String::from_utf8_lossy(text));
            // The same, byte by byte.
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(read(&bytes, false, true), whole(text), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_cut_is_not_complete() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab";
        for n in 0..=text.len() {
            assert_eq!(whole(&text[..n]), Ok(None), "{n}");
        }
        let head = read(
            &[b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"],
            true,
            false,
        );
        assert_eq!(head, Ok(Some((200, Vec::new(), true, 0))));
    }

    #[test]
    fn the_longest_head_is_the_same_in_one_piece_and_in_many() {
        let frame = "HTTP/1.1 200 OK\r\nx: \r\ncontent-length: 0\r\n\r\n".len();
        for (length, fits) in [(HEAD_BYTES_MAX, true), (HEAD_BYTES_MAX + 1, false)] {
            let value = "y".repeat(length - frame);
            let text = format!("HTTP/1.1 200 OK\r\nx: {value}\r\ncontent-length: 0\r\n\r\n");
            for size in [1, 1000, HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX, length] {
                let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let expected = if fits {
                    Ok(Some((200, Vec::new(), true, 0)))
                } else {
                    Err(Violation::HeadTooLong)
                };
                assert_eq!(read(&pieces, false, true), expected, "{length} by {size}");
            }
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let flood = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX + 1)
        );
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        let on_and_on = "HTTP/1.1 103 Early\r\n\r\n".repeat(17);
        let extension = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}",
            "x".repeat(5000)
        );
        let trailer = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}",
            "x: y\r\n".repeat(20_000)
        );
        for (text, wanted) in [
            (flood.as_str(), "head of the answer is not"),
            (&long, "longer than"),
            (&on_and_on, "informational"),
            (&extension, "chunk"),
            (&trailer, "trailer"),
            ("HTTP/1.1 101 Switch\r\n\r\n", "switches"),
            ("HTTP/1.0 020 Odd\r\n\r\n", "020"),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
                "one number",
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
                "one number",
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
                "one number",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
                "chunk",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab",
                "chunk",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\n",
                "chunk",
            ),
            ("SSH-2.0-OpenSSH\r\n", "head of the answer is not"),
        ] {
            let error = whole(text.as_bytes()).expect_err(&text[..text.len().min(80)]);
            assert!(error.to_string().contains(wanted), "{error}");
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(700).collect();
            assert!(read(&pieces, false, true).is_err(), "{wanted} in pieces");
        }
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(
            parts in prop::collection::vec(0_usize..3, 0..40),
            cuts in prop::collection::vec(0_usize..2000, 0..20),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let lines = ["content-length: 300\r\n", "transfer-encoding: chunked\r\n", "x: y\r\n"];
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            for p in parts.iter().take(4) {
                text.extend_from_slice(lines[*p].as_bytes());
            }
            text.extend_from_slice(b"\r\n");
            text.extend_from_slice(&body);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(read(&pieces, false, true), whole(&text));
        }
    }
}
