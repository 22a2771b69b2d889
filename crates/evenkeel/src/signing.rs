//! The key that signs the ledger: where it comes from, and how it is exchanged.
//!
//! It lies in a file of its own (mode 0600), in an environment variable, or with a program; never in the database, a
//! snapshot or a log. A new key is put beside the old file before the ledger takes it, and takes the old one's place
//! after: a start in between sees which of the two the ledger trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_edge::ledger_key::KeySource;
use evenkeel_ledger::Reader;
use evenkeel_ledger::tlog::Signer;

use crate::config::{Config, Environment};
use crate::layout::Layout;

/// How long a program may take that prints the key.
const KEY_COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The file with the key.
pub(crate) fn key_file(config: &Config, layout: &Layout) -> PathBuf {
    config
        .ledger
        .key_file
        .as_ref()
        .map_or_else(|| layout.ledger_key(), |file| config.base.join(file))
}

/// A new key lies here until the ledger has taken it.
pub(crate) fn next_key_file(current: &Path) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

/// The signing key, made on first start; nothing where signing is switched off.
pub(crate) async fn signer(
    config: &Config,
    environment: &Environment,
    layout: &Layout,
) -> Result<Option<Arc<Signer>>, String> {
    let ledger = &config.ledger;
    if !ledger.sign {
        return Ok(None);
    }
    let signer = if let Some(name) = &ledger.key_env {
        let text = environment.get(name).ok_or_else(|| {
            format!("{name} is not set; [ledger] key_env says that the ledger's key is there")
        })?;
        // The value itself is never in the error.
        text.trim().parse().map_err(|e| format!("{name}: {e}"))?
    } else if ledger.key_command.is_empty() {
        let file = key_file(config, layout);
        if ledger.key_file.is_none() {
            make_private_dir(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        finish_rotation(&file, &layout.ledger()).await?;
        let source = KeySource::File(file);
        let found = if was_signed(&layout.ledger()) {
            // A new key on a log that has one would look like a forgery.
            source.signer().await
        } else {
            source.signer_or_new().await.map(|found| found.key)
        };
        found.map_err(|e| e.to_string())?
    } else {
        let source = KeySource::Command {
            argv: ledger.key_command.clone(),
            env: std::collections::BTreeMap::new(),
            limit: KEY_COMMAND_LIMIT,
        };
        source.signer().await.map_err(|e| e.to_string())?
    };
    Ok(Some(Arc::new(signer)))
}

/// The directory of a key, its owner's only.
fn make_private_dir(file: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    file.parent().map_or(Ok(()), |dir| builder.create(dir))
}

/// Whether the ledger has a key. Why it cannot be read is told when it is opened.
fn was_signed(ledger: &Path) -> bool {
    Reader::open(ledger)
        .and_then(|reader| reader.keys())
        .is_ok_and(|keys| keys.current().is_some())
}

/// An exchange of keys that was interrupted: the new key counts if the ledger trusts it, and else never did.
async fn finish_rotation(file: &Path, ledger: &Path) -> Result<(), String> {
    let next = next_key_file(file);
    if !next.exists() {
        return Ok(());
    }
    let new = KeySource::File(next.clone()).signer().await;
    let new = new.map_err(|e| e.to_string())?;
    let trusted = Reader::open(ledger)
        .and_then(|reader| reader.keys())
        .map_err(|e| format!("{} was left by an exchange of keys: {e}", next.display()))?;
    let done = if trusted.current() == Some(new.verifier()) {
        std::fs::rename(&next, file)
    } else {
        std::fs::remove_file(&next)
    };
    done.map_err(|e| format!("{}: {e}", next.display()))
}
