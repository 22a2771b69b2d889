//! The canonical leaf of an entry and its hash. Pure: bytes in, hash out; no files, no clock, no JSON.
//!
//! ```text
//! leaf       = TAG                          18 bytes, "evenkeel-leaf-v1" 0x0a 0x00
//!            | previous_hash                32 bytes, zeros for the first entry
//!            | sequence                     u64 big endian, from 1
//!            | field(timestamp) | field(actor) | field(action)
//!            | field(resource) | field(subsystem) | field(result)
//!            | SHA-256(payload bytes as stored)
//! field(x)   = length of x in bytes, u32 big endian | x, UTF-8
//! entry_hash = SHA-256(0x00 | leaf)         RFC 6962 section 2.1, MTH({leaf})
//! ```
//!
//! The tag carries the version of the encoding; an encoding that differs in anything has another tag. Only the
//! payload's hash is in the leaf, so a payload can later be dropped without touching the chain.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Domain and version of the leaf encoding; the first bytes of each leaf.
pub const TAG: &[u8; 18] = b"evenkeel-leaf-v1\n\0";

/// RFC 6962's prefix for the hash of a leaf.
const LEAF_PREFIX: u8 = 0x00;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0x0f]];
        byte += 1;
    }
    table
};

/// A SHA-256 hash. In the database and in JSON it is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What stands as `previous_hash` in the first entry.
    pub const ZERO: Self = Self([0; 32]);

    /// Wraps the 32 bytes of a hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads exactly 64 lower-case hexadecimal digits; anything else is `None`, so that each hash has one
    /// spelling only.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let text: &[u8; 64] = text.try_into().ok()?;
        let (mut values, mut wrong) = ([0_u8; 64], 0);
        // Without branches and tables, so that many are read at a time.
        for (value, byte) in values.iter_mut().zip(text) {
            let digit = u8::from(byte.wrapping_sub(b'0') < 10);
            let letter = u8::from(byte.wrapping_sub(b'a') < 6);
            wrong |= (digit | letter) ^ 1;
            *value = (byte & 0x0f) + 9 * letter;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(values.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        (wrong == 0).then_some(Self(bytes))
    }

    /// The 64 digits, without a place on the heap.
    pub(crate) fn to_hex(self) -> HexDigits {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&PAIRS[usize::from(byte)]);
        }
        HexDigits(digits)
    }

    /// SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// A hash as text.
pub(crate) struct HexDigits([u8; 64]);

impl HexDigits {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_hex().as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is hashed of one entry, as the bytes that are stored.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    /// `entry_hash` of the entry before, [`Hash::ZERO`] for the first.
    pub previous_hash: Hash,
    /// Position in the log, from 1.
    pub sequence: u64,
    /// When, as stored.
    pub timestamp: &'a [u8],
    /// Who.
    pub actor: &'a [u8],
    /// Did what.
    pub action: &'a [u8],
    /// To what.
    pub resource: &'a [u8],
    /// In which part of the system.
    pub subsystem: &'a [u8],
    /// How it ended.
    pub result: &'a [u8],
    /// SHA-256 of the payload bytes as stored.
    pub payload_hash: Hash,
}

impl<'a> Leaf<'a> {
    /// Reads canonical bytes, such as a proof carries; `None` for anything that is not exactly one leaf.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(TAG)?;
        let (previous, rest) = rest.split_first_chunk::<32>()?;
        let (sequence, mut rest) = rest.split_first_chunk::<8>()?;
        let mut fields: [&[u8]; 6] = [&[]; 6];
        for field in &mut fields {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            (*field, rest) = after.split_at_checked(length)?;
        }
        let [timestamp, actor, action, resource, subsystem, result] = fields;
        Some(Self {
            previous_hash: Hash(*previous),
            sequence: u64::from_be_bytes(*sequence),
            timestamp,
            actor,
            action,
            resource,
            subsystem,
            result,
            payload_hash: Hash(rest.try_into().ok()?),
        })
    }

    /// The canonical bytes, without RFC 6962's prefix.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        self.write(|part| bytes.extend_from_slice(part));
        bytes
    }

    /// `entry_hash`: the RFC 6962 leaf hash.
    pub fn hash(&self) -> Hash {
        let mut sha = Sha256::new_with_prefix([LEAF_PREFIX]);
        self.write(|part| sha.update(part));
        Hash(sha.finalize().into())
    }

    /// As [`Leaf::hash`], the leaf put together in `scratch` first: fewer and longer strokes of SHA-256.
    pub(crate) fn hash_in(&self, scratch: &mut Vec<u8>) -> Hash {
        scratch.clear();
        scratch.push(LEAF_PREFIX);
        self.write(|part| scratch.extend_from_slice(part));
        Hash::of(scratch)
    }

    fn write(&self, mut out: impl FnMut(&[u8])) {
        out(TAG);
        out(&self.previous_hash.0);
        out(&self.sequence.to_be_bytes());
        let fields = [
            self.timestamp,
            self.actor,
            self.action,
            self.resource,
            self.subsystem,
            self.result,
        ];
        for field in fields {
            let length = u32::try_from(field.len()).expect("SQLite keeps no text of 4 GiB");
            out(&length.to_be_bytes());
            out(field);
        }
        out(&self.payload_hash.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first() -> Leaf<'static> {
        Leaf {
            previous_hash: Hash::ZERO,
            sequence: 1,
            timestamp: b"2026-01-31T12:00:00.000Z",
            actor: b"evenkeel",
            action: b"start_healing_cycle",
            resource: b"service:api",
            subsystem: b"healing",
            result: b"started",
            payload_hash: Hash::of(br#"{"workflow_id":"w-1"}"#),
        }
    }

    fn second() -> Leaf<'static> {
        Leaf {
            previous_hash: first().hash(),
            sequence: 2,
            timestamp: b"2026-01-31T12:00:01.500Z",
            actor: b"grace",
            action: b"chat",
            resource: b"",
            subsystem: "multimodal \u{2192} \u{e9}".as_bytes(),
            result: b"error",
            payload_hash: Hash::of(b"null"),
        }
    }

    /// Computed with Python's hashlib from the layout above, by `struct.pack` and nothing of this crate.
    #[test]
    fn golden_vectors_are_those_of_another_implementation() {
        assert_eq!(
            first().hash().to_string(),
            "ed8b0826c1f1eb03ce4d548a090bd27ca4c34c2e0f6dfbed44111ff7ba25eb7b"
        );
        assert_eq!(
            second().hash().to_string(),
            "a4ae8b3ebc2b60cf8d0d96d8bad3b487e05bd46b04900185412cbc10ba4ebbb8"
        );
    }

    #[test]
    fn the_hash_is_rfc_6962s_hash_of_the_encoded_leaf() {
        let mut prefixed = vec![0];
        prefixed.extend(second().encode());
        assert_eq!(second().hash(), Hash::of(&prefixed));
        assert_eq!(second().hash(), second().hash_in(&mut vec![1, 2, 3]));
    }

    #[test]
    fn a_leaf_is_read_back_and_nothing_else_is_one() {
        let bytes = second().encode();
        let read = Leaf::decode(&bytes).unwrap();
        assert_eq!((read.sequence, read.actor), (2, &b"grace"[..]));
        assert_eq!(read.encode(), bytes);
        for end in 0..bytes.len() {
            assert!(Leaf::decode(&bytes[..end]).is_none(), "{end}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Leaf::decode(&longer).is_none());
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = Hash::of(b"abc");
        let text = hash.to_string();
        assert_eq!(Hash::from_hex(text.as_bytes()), Some(hash));
        assert_eq!(Hash::from_hex(text.to_uppercase().as_bytes()), None);
        assert_eq!(Hash::from_hex(&text.as_bytes()[1..]), None);
        assert_eq!(Hash::from_hex(b""), None);
        for (at, other) in [(0, "g"), (63, "/"), (30, "\u{7f}"), (1, ":"), (2, "`")] {
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, other);
            assert_eq!(Hash::from_hex(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Hash::from_hex(format!("{text}00").as_bytes()), None);
    }

    proptest! {
        /// Bytes that move over a border between two fields are another leaf.
        #[test]
        fn fields_do_not_run_into_each_other(a in ".{0,20}", b in ".{0,20}", cut in 0_usize..40) {
            let joined = format!("{a}{b}");
            let cut = (0..=cut.min(joined.len())).rev().find(|&at| joined.is_char_boundary(at)).unwrap_or(0);
            let one = Leaf { actor: a.as_bytes(), action: b.as_bytes(), ..first() };
            let (c, d) = joined.split_at(cut);
            let other = Leaf { actor: c.as_bytes(), action: d.as_bytes(), ..first() };
            prop_assert_eq!(one.hash() == other.hash(), (a.as_str(), b.as_str()) == (c, d));
        }
    }
}
