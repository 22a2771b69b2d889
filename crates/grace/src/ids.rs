//! Identifiers and timestamps: random hexadecimal ids and RFC 3339 time in UTC.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Longest identifier accepted from outside, in characters.
const ID_MAX: usize = 64;

/// A new identifier: 128 random bits in hexadecimal. Not a secret.
pub(crate) fn new_id() -> String {
    let part = || RandomState::new().build_hasher().finish();
    // The second hash differs: each RandomState has keys of its own.
    format!("{:016x}{:016x}", part(), {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(part());
        hasher.finish()
    })
}

/// Whether an identifier from outside is short and plain enough to be kept and logged.
pub(crate) fn is_plain(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= ID_MAX
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Now, in UTC with milliseconds and `Z`.
pub(crate) fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_plain() {
        let (a, b) = (new_id(), new_id());
        assert_ne!(a, b);
        assert!(is_plain(&a) && a.len() == 32);
        for bad in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn timestamps_are_utc_with_milliseconds() {
        let now = now();
        assert!(now.ends_with('Z') && now.len() == 24, "{now}");
        now.parse::<jiff::Timestamp>().unwrap();
    }
}
