//! Secret keys: the text they are kept as, and signing. The secret is wiped from memory on drop and shown by no
//! `Debug` and no error.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::{Zeroize as _, Zeroizing};

use super::super::text;
use super::key::KeyParts;
use super::{Algorithm, KeyError, KeyName, SignatureLine, VerifierKey};

/// What a secret key's text begins with.
const SECRET_PREFIX: &str = "PRIVATE+KEY+";

/// A key that signs notes with Ed25519 (type 0x01): the log's own key.
///
/// Its text is `PRIVATE+KEY+name+id+base64(algorithm byte | seed)`, as Go's `sumdb/note` writes it.
pub struct Signer(SecretKey);

impl Signer {
    /// A key from its 32 secret bytes (the seed of RFC 8032). They must be random and used for nothing else, not
    /// for a [`Cosigner`](crate::tlog::Cosigner) either.
    pub fn from_seed(name: KeyName, seed: [u8; 32]) -> Self {
        Self(SecretKey::from_seed(name, Algorithm::Ed25519, seed))
    }

    /// Whose key it is.
    pub fn name(&self) -> &str {
        self.0.verifier.name()
    }

    /// The public key, for those who verify.
    pub fn verifier(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// The secret as text, to be kept where nobody else can read it.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        self.0.to_text()
    }

    /// Signs a note's text, which must end with a newline to be one.
    pub fn sign(&self, text: &str) -> SignatureLine {
        self.0.line(self.0.sign(text.as_bytes()).to_vec())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, secret not shown)", self.verifier())
    }
}

impl FromStr for Signer {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        SecretKey::parse(text, Algorithm::Ed25519).map(Self)
    }
}

/// What all secret keys have in common.
pub(in crate::tlog) struct SecretKey {
    verifier: VerifierKey,
    /// Wiped on drop by its own crate.
    key: SigningKey,
}

impl SecretKey {
    pub(in crate::tlog) fn from_seed(
        name: KeyName,
        algorithm: Algorithm,
        mut seed: [u8; 32],
    ) -> Self {
        let key = SigningKey::from_bytes(&seed);
        seed.zeroize();
        let verifier = VerifierKey::from_parts(name, algorithm, key.verifying_key());
        Self { verifier, key }
    }

    pub(in crate::tlog) fn parse(text: &str, algorithm: Algorithm) -> Result<Self, KeyError> {
        const EXPECTED: &str = "secret key `PRIVATE+KEY+name+id+base64`";
        let malformed = |problem| KeyError::Malformed {
            expected: EXPECTED,
            problem,
        };
        let rest = text
            .strip_prefix(SECRET_PREFIX)
            .ok_or_else(|| malformed("it does not begin with `PRIVATE+KEY+`"))?;
        let parts = KeyParts::parse(rest, EXPECTED)?;
        let name = KeyName::new(parts.name)?;
        let bytes = text::decode(parts.data)
            .map(Zeroizing::new)
            .ok_or_else(|| malformed("its last part is not base64"))?;
        let Some((&byte, seed)) = bytes.split_first() else {
            return Err(malformed("its last part is empty"));
        };
        match Algorithm::from_byte(byte) {
            Algorithm::Unknown(byte) => return Err(KeyError::UnknownAlgorithm { name, byte }),
            found if found != algorithm => {
                return Err(malformed(match algorithm {
                    Algorithm::CosignatureV1 => "it is not a witness's key (signature type 0x04)",
                    _ => "it is not a log's key (signature type 0x01)",
                }));
            }
            _ => {}
        }
        let seed: [u8; 32] = seed
            .try_into()
            .map_err(|_| malformed("its secret is not 32 bytes long"))?;
        let secret = Self::from_seed(name.clone(), algorithm, seed);
        let computed = secret.verifier.id();
        if computed != parts.id {
            return Err(KeyError::WrongId {
                name,
                written: parts.id,
                computed,
            });
        }
        Ok(secret)
    }

    pub(in crate::tlog) fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(in crate::tlog) fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 33]);
        bytes[0] = self.verifier.algorithm().byte();
        bytes[1..].copy_from_slice(self.key.as_bytes());
        let secret = Zeroizing::new(text::encode(bytes.as_slice()));
        let (name, id) = (self.verifier.name(), self.verifier.id());
        Zeroizing::new(format!("{SECRET_PREFIX}{name}+{id:08x}+{}", *secret))
    }

    pub(in crate::tlog) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    pub(in crate::tlog) fn line(&self, signature: Vec<u8>) -> SignatureLine {
        SignatureLine {
            name: self.verifier.name().to_owned(),
            id: self.verifier.id(),
            signature,
        }
    }
}
