//! Any bytes are an answer of HTTP/1.1, in pieces of any size: no panic, the same whatever the pieces, and nothing kept
//! beyond its bound.

#![no_main]
#![expect(dead_code, unreachable_pub, reason = "the parser as it stands in the product, of which a part is used")]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/evenkeel-stress/src/engine/http1/parser.rs"]
mod parser;

use parser::{Fed, Parser, Violation};

/// What was read: the status, the body, whether the connection is kept, and how many bytes came after the end.
type Whole = (u16, Vec<u8>, bool, usize);

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    to_head: bool,
    /// Lengths of pieces, in turn; none means one by one.
    cuts: Vec<u16>,
    bytes: &'a [u8],
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, to_head: bool, total: usize) -> Result<Option<Whole>, Violation> {
    let mut parser = Parser::new(to_head);
    let mut body = Vec::new();
    let mut fed = 0;
    for piece in pieces {
        fed += piece.len();
        let taken = parser.feed(piece, &mut |status, bytes| {
            assert!((200..1000).contains(&status), "a body before its status: {status}");
            body.extend_from_slice(bytes);
        })?;
        assert!(parser.held() <= parser::HEAD_BYTES_MAX, "{} bytes kept", parser.held());
        assert!(body.len() <= fed, "more body than came");
        if let Fed::Done { surplus } = taken {
            assert!(surplus <= piece.len());
            return Ok(Some((parser.status(), body, parser.keep_alive(), surplus + total - fed)));
        }
    }
    let ended = parser.closed();
    Ok(ended.then(|| (parser.status(), body, parser.keep_alive(), 0)))
}

fuzz_target!(|input: Input<'_>| {
    let Input { to_head, cuts, bytes } = input;
    let whole = read(std::iter::once(bytes), to_head, bytes.len());
    let mut rest = bytes;
    let mut lengths = cuts.iter().map(|n| usize::from(*n)).cycle();
    let mut empty = 0;
    let pieces = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        let mut length = lengths.next().unwrap_or(1);
        // Empty pieces change nothing either, but there is an end to them.
        if length == 0 {
            empty += 1;
            length = usize::from(empty > 8);
        }
        let (piece, later) = rest.split_at(length.min(rest.len()));
        rest = later;
        Some(piece)
    });
    let parts = read(pieces, to_head, bytes.len());
    match (&whole, &parts) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        // A wrong head is looked at when a line of it ends, and may have grown too long by then.
        (Err(Violation::Head(_)), Err(Violation::HeadTooLong)) => {}
        (Err(a), Err(b)) => assert_eq!(a, b),
        // A head that is cut in the middle of a line is looked at only when the line ends, which it does not.
        (Err(Violation::Head(_)), Ok(None)) => {}
        (a, b) => panic!("whole {a:?}, in pieces {b:?}"),
    }
});
