//! Tokens of the HTTP interfaces: a file that only its owner reads, made when it does not exist.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};

/// Length of a token that is made, in random bytes.
const TOKEN_LEN: usize = 32;
/// Shortest token that is taken, in characters.
const TOKEN_CHARS_MIN: usize = 16;

/// A token that cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[error("token file {file}: {reason}")]
pub struct TokenError {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub reason: String,
}

/// Reads the token, or makes one (mode 0600).
pub fn token(file: &Path) -> Result<String, TokenError> {
    let failed = |reason: String| TokenError {
        file: file.to_path_buf(),
        reason,
    };
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().len() >= TOKEN_CHARS_MIN => return Ok(text.trim().to_owned()),
        Ok(_) => {
            return Err(failed(
                "holds fewer than 16 characters; remove it, and a new one is made".into(),
            ));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e.to_string())),
    }
    let mut bytes = [0u8; TOKEN_LEN];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(|e| {
            failed(format!(
                "no random bytes: {e}; write a token of your own into it"
            ))
        })?;
    let token = hex::encode(bytes);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|e| failed(e.to_string()))?;
    }
    let mut f = options.open(file).map_err(|e| failed(e.to_string()))?;
    f.write_all(token.as_bytes())
        .map_err(|e| failed(e.to_string()))?;
    Ok(token)
}

/// Whether a request carries this token.
pub(crate) fn bearer_matches(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "))
        .unwrap_or("");
    same(given.as_bytes(), token.as_bytes())
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |d, (x, y)| d | (x ^ y)) == 0
}
