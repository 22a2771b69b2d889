//! The spellings that all formats of the log share: decimals, base64 and hashes, each with one form only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;

/// The digits of `u64::MAX`.
const DECIMAL_DIGITS_MAX: usize = 20;

/// An ASCII decimal without sign or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.len() <= DECIMAL_DIGITS_MAX
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// RFC 4648 section 4, with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// RFC 4648 section 4 with its padding and with zeros for the bits that are left over, so that each value has
/// one spelling.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A hash as the formats of the log write it: base64.
pub(super) fn encode_hash(hash: &Hash) -> String {
    encode(hash.as_bytes())
}

/// Reads [`encode_hash`]'s form.
pub(super) fn decode_hash(text: &str) -> Option<Hash> {
    // 44 characters are 32 bytes with their padding: a long line is not decoded at all.
    if text.len() != 44 {
        return None;
    }
    let bytes: [u8; 32] = decode(text)?.try_into().ok()?;
    Some(Hash::from_bytes(bytes))
}

/// Whether a note may contain the text: no ASCII control characters but the newline.
pub(super) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x20 || byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_has_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("20852163"), Some(20_852_163));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for wrong in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1_000",
            "0x1",
            "18446744073709551616",
            "99999999999999999999",
            "184467440737095516150",
            "\u{661}",
        ] {
            assert_eq!(decimal(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(decode("AA==").as_deref(), Some(&[0][..]));
        for wrong in ["AB==", "AA=", "AA", "A A=", "AA==\n", "AA-_", "===="] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
        let hash = Hash::of(b"");
        assert_eq!(
            encode_hash(&hash),
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
        assert_eq!(decode_hash(&encode_hash(&hash)), Some(hash));
        assert_eq!(
            decode_hash("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV="),
            None
        );
        assert_eq!(decode_hash(&encode(&[0; 33])), None);
    }
}
