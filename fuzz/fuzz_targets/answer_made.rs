//! Answers of HTTP/1.1 that are made as RFC 9112 has them: each is read as what it was made of, in pieces of any size,
//! and what follows it is left; cut anywhere, it is not complete.

#![no_main]
#![expect(dead_code, unreachable_pub, reason = "the parser as it stands in the product, of which a part is used")]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/evenkeel-stress/src/engine/http1/parser.rs"]
mod parser;

use parser::{Fed, Parser};

#[derive(Debug, Arbitrary)]
enum Framing<'a> {
    Length,
    LengthTwice,
    Chunked { extension: bool, upper: bool, trailers: u8, lead: u8 },
    UntilClose,
    /// 204, 304 or the answer to HEAD, with whatever length they announce.
    None { which: u8, announced: Option<u32> },
    Both { announced: u32, _rest: &'a [u8] },
}

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    old: bool,
    connection: Option<bool>,
    informational: u8,
    headers: Vec<(u8, u8)>,
    framing: Framing<'a>,
    parts: Vec<&'a [u8]>,
    cuts: Vec<u8>,
    after: &'a [u8],
    cut_at: u16,
}

fuzz_target!(|input: Input<'_>| {
    let mut text = Vec::new();
    for i in 0..input.informational % 17 {
        text.extend_from_slice(if i % 2 == 0 { b"HTTP/1.1 100 Continue\r\n\r\n" } else { b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" });
    }
    let parts: Vec<&[u8]> = input.parts.iter().copied().filter(|p| !p.is_empty()).collect();
    let sent: Vec<u8> = parts.concat();
    let (mut status, mut to_head, mut body, mut until_close) = (200, false, sent.clone(), false);
    let mut both = false;
    let mut head = String::new();
    for (name, value) in input.headers.iter().take(parser::HEADERS_MAX - 8) {
        head += &format!("x-{name}: {}\r\n", "v".repeat((*value).into()));
    }
    let chunked = |extension: bool, upper: bool, trailers: u8, lead: u8| {
        let mut out = Vec::new();
        for part in &parts {
            let zeros = "0".repeat(usize::from(lead % 8));
            let size = if upper { format!("{zeros}{:X}", part.len()) } else { format!("{zeros}{:x}", part.len()) };
            out.extend_from_slice(size.as_bytes());
            out.extend_from_slice(if extension { b";name=\"value\"\r\n" } else { b"\r\n" });
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n");
        for i in 0..trailers % 8 {
            out.extend_from_slice(format!("t-{i}: x\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out
    };
    let wire = match input.framing {
        Framing::Length => {
            head += &format!("Content-Length: {}\r\n", sent.len());
            sent
        }
        Framing::LengthTwice => {
            head += &format!("content-length: {0}, {0}\r\ncontent-length: {0}\r\n", sent.len());
            sent
        }
        Framing::Chunked { extension, upper, trailers, lead } => {
            head += "Transfer-Encoding: chunked\r\n";
            chunked(extension, upper, trailers, lead)
        }
        Framing::Both { announced, .. } => {
            both = true;
            head += &format!("content-length: {announced}\r\ntransfer-encoding: Chunked\r\n");
            chunked(false, false, 0, 0)
        }
        Framing::UntilClose => {
            until_close = true;
            sent
        }
        Framing::None { which, announced } => {
            match which % 3 {
                0 => status = 204,
                1 => status = 304,
                _ => to_head = true,
            }
            if let Some(n) = announced {
                head += &format!("content-length: {n}\r\n");
            }
            body.clear();
            Vec::new()
        }
    };
    let mut keep = !input.old && !until_close && !both;
    match input.connection {
        Some(true) => {
            head += "Connection: Keep-Alive\r\n";
            keep |= input.old && !until_close && !both;
        }
        Some(false) => {
            head += "connection: x, close\r\n";
            keep = false;
        }
        None => {}
    }
    let version = u8::from(!input.old);
    text.extend_from_slice(format!("HTTP/1.{version} {status} Some Reason\r\n{head}\r\n").as_bytes());
    text.extend_from_slice(&wire);
    // Long heads are refused by a bound of their own, which the other target looks at.
    if head.len() > parser::HEAD_BYTES_MAX - 100 {
        return;
    }
    let end = text.len();
    let after = if until_close { &[] } else { input.after };
    text.extend_from_slice(after);

    let mut read = Parser::new(to_head);
    let mut got = Vec::new();
    let mut at = 0;
    let mut cuts = input.cuts.iter().map(|n| usize::from(*n) + 1).cycle();
    let surplus = loop {
        let piece = &text[at..(at + cuts.next().unwrap_or(text.len())).min(text.len())];
        at += piece.len();
        match read.feed(piece, &mut |_, b| got.extend_from_slice(b)) {
            Ok(Fed::Done { surplus }) => break surplus + text.len() - at,
            Ok(Fed::More) if at == text.len() => {
                assert!(until_close, "not complete");
                assert!(read.closed());
                break 0;
            }
            Ok(Fed::More) => {}
            Err(violation) => panic!("{violation}: {}", String::from_utf8_lossy(&text)),
        }
    };
    assert_eq!((read.status(), got, surplus), (status, body, after.len()));
    assert_eq!(read.keep_alive(), keep);

    // Without its last byte, or any number of them, it is not complete.
    let cut = usize::from(input.cut_at) % end;
    let mut read = Parser::new(to_head);
    assert_eq!(read.feed(&text[..cut], &mut |_, _| {}), Ok(Fed::More));
    let complete = read.closed();
    assert!(!complete || (until_close && cut >= end - wire.len()), "complete after {cut} of {end} bytes");
});
