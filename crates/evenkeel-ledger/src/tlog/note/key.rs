//! Names and public keys: who may sign, and how a verifier names the key that it trusts.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::super::{cosignature, text};

/// The longest verifier or secret key text that is read, in bytes.
pub const KEY_TEXT_BYTES_MAX: usize = 4096;

/// The name of a key: not empty, without Unicode spaces, `+` and ASCII control characters. By custom an address
/// without its scheme, as `example.com/log`; it need not be reachable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    /// Checks and wraps a name.
    pub fn new(name: impl Into<String>) -> Result<Self, KeyError> {
        let name = name.into();
        let refused = |c: char| c.is_whitespace() || c == '+' || c < '\u{20}';
        if name.is_empty() || name.contains(refused) {
            return Err(KeyError::Name);
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

/// How a key signs: the signature type byte of `signed-note`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: Ed25519 over a time and the text of a checkpoint, by a witness ([`cosignature`]).
    CosignatureV1,
    /// Any other byte, as 0x06 for ML-DSA-44: known to exist, not supported.
    Unknown(u8),
}

impl Algorithm {
    /// The algorithm that the byte stands for.
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0x01 => Self::Ed25519,
            0x04 => Self::CosignatureV1,
            other => Self::Unknown(other),
        }
    }

    /// The byte in keys and key ids.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
            Self::Unknown(byte) => byte,
        }
    }
}

/// Why a key or a name was not accepted. No message holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name is not one.
    #[error(
        "a key name must not be empty and must not contain spaces, control characters or `+`; use one like `example.com/log`"
    )]
    Name,
    /// The text does not have the form of a key.
    #[error("not a {expected}: {problem}")]
    Malformed {
        /// The form that was expected.
        expected: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The id in the text is not that of the key beside it.
    #[error(
        "the key of {name} has the id {computed:08x}, its text says {written:08x}; copy it again, whole"
    )]
    WrongId {
        /// The key's name.
        name: KeyName,
        /// The id in the text.
        written: u32,
        /// The id of the name and key in the text.
        computed: u32,
    },
    /// The key's algorithm is not supported here.
    #[error(
        "the key of {name} has the signature type {byte:#04x}, which is not supported here (0x01 Ed25519 and 0x04 timestamped Ed25519 are)"
    )]
    UnknownAlgorithm {
        /// The key's name.
        name: KeyName,
        /// The signature type byte.
        byte: u8,
    },
    /// The bytes are no public key, or one for which anybody can sign.
    #[error("the key of {name} is not a usable Ed25519 public key")]
    PublicKey {
        /// The key's name.
        name: KeyName,
    },
}

/// A public key that a verifier trusts, with its name and algorithm.
///
/// Its text is `name+id+base64(algorithm byte | public key)`, the id as 8 hexadecimal digits: what Go's `sumdb`
/// and the C2SP tools call a vkey. The id is short and no secret: it only tells keys apart.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    id: u32,
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key from its 32 public bytes (RFC 8032). Refused are an unknown algorithm and a key of small order, for
    /// which one signature fits every text.
    pub fn new(name: KeyName, algorithm: Algorithm, public: &[u8; 32]) -> Result<Self, KeyError> {
        if let Algorithm::Unknown(byte) = algorithm {
            return Err(KeyError::UnknownAlgorithm { name, byte });
        }
        match VerifyingKey::from_bytes(public) {
            Ok(key) if !key.is_weak() => Ok(Self::from_parts(name, algorithm, key)),
            _ => Err(KeyError::PublicKey { name }),
        }
    }

    pub(super) fn from_parts(name: KeyName, algorithm: Algorithm, key: VerifyingKey) -> Self {
        let id = key_id(&name, algorithm.byte(), key.as_bytes());
        Self {
            name,
            id,
            algorithm,
            key,
        }
    }

    /// Whose key it is.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The first four bytes of SHA-256(name | 0x0a | algorithm byte | public key), big endian.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How the key signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The 32 bytes of the public key.
    pub fn public(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether a signature line with this name and id claims to be by this key.
    pub(super) fn is_named(&self, name: &str, id: u32) -> bool {
        self.id == id && self.name.as_str() == name
    }

    /// Checks a signature line's bytes on a note's text. Answers with the time that it states, which only a
    /// cosignature does.
    pub(super) fn check(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, DoesNotFit> {
        let (time, message, signature) = match self.algorithm {
            Algorithm::Ed25519 => (None, text.as_bytes().to_vec(), signature),
            Algorithm::CosignatureV1 => {
                let (time, signature) = cosignature::split(signature).ok_or(DoesNotFit)?;
                (Some(time), cosignature::message(text, time), signature)
            }
            Algorithm::Unknown(_) => return Err(DoesNotFit),
        };
        let signature = Signature::from_slice(signature).map_err(|_| DoesNotFit)?;
        // Strict: of each text and key there is one form of each signature, and no key of small order fits all.
        self.key
            .verify_strict(&message, &signature)
            .map_err(|_| DoesNotFit)?;
        Ok(time)
    }
}

/// A signature is not that of the key on the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DoesNotFit;

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.algorithm.byte()];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.id, text::encode(&bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(vkey: &str) -> Result<Self, KeyError> {
        const EXPECTED: &str = "verifier key `name+id+base64`";
        let parts = KeyParts::parse(vkey, EXPECTED)?;
        let name = KeyName::new(parts.name)?;
        let bytes = text::decode(parts.data).ok_or(KeyError::Malformed {
            expected: EXPECTED,
            problem: "its last part is not base64",
        })?;
        let Some((&byte, public)) = bytes.split_first() else {
            return Err(KeyError::Malformed {
                expected: EXPECTED,
                problem: "its last part is empty",
            });
        };
        let computed = key_id(&name, byte, public);
        if computed != parts.id {
            return Err(KeyError::WrongId {
                name,
                written: parts.id,
                computed,
            });
        }
        let algorithm = Algorithm::from_byte(byte);
        if let Algorithm::Unknown(byte) = algorithm {
            return Err(KeyError::UnknownAlgorithm { name, byte });
        }
        match <&[u8; 32]>::try_from(public) {
            Ok(public) => Self::new(name, algorithm, public),
            Err(_) => Err(KeyError::PublicKey { name }),
        }
    }
}

impl Serialize for VerifierKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The three parts of a key's text, not yet checked against each other.
pub(super) struct KeyParts<'a> {
    pub(super) name: &'a str,
    pub(super) id: u32,
    pub(super) data: &'a str,
}

impl<'a> KeyParts<'a> {
    /// Splits at the first two `+`: a name has none, base64 may.
    pub(super) fn parse(text: &'a str, expected: &'static str) -> Result<Self, KeyError> {
        let malformed = |problem| KeyError::Malformed { expected, problem };
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it does not have three parts"));
        };
        if id.len() != 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed("its id is not 8 hexadecimal digits"));
        }
        let id = u32::from_str_radix(id, 16)
            .map_err(|_| malformed("its id is not 8 hexadecimal digits"))?;
        Ok(Self { name, id, data })
    }
}

/// The id that `signed-note` recommends and `tlog-cosignature` demands.
fn key_id(name: &KeyName, algorithm: u8, public: &[u8]) -> u32 {
    let mut sha = Sha256::new_with_prefix(name.as_str());
    sha.update([b'\n', algorithm]);
    sha.update(public);
    let hash: [u8; 32] = sha.finalize().into();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}
