//! Configuration files on disk: confined reading, and replacement that is whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{EditError, Format};
use crate::target::confine;

/// Largest configuration file that is read, in bytes.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Why a configuration file was not read or changed. It is as it was in every case but the one that says so.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Its path, or a link on it, leads out of the target's directory.
    #[error("{file} leads out of {root}; only files below it are read and changed")]
    Outside {
        /// The path as given.
        file: PathBuf,
        /// The directory.
        root: PathBuf,
    },
    /// Not there, or not a plain file.
    #[error(
        "{file} is not there, or is not a plain file: create it, or take it out of `config_files`"
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// Larger than [`FILE_LEN_MAX`].
    #[error("{file} is larger than {FILE_LEN_MAX} bytes, which no configuration file should be")]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// Not UTF-8.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// The file.
        file: PathBuf,
    },
    /// The ending says nothing.
    #[error("{file}: the format is not known; .env, .toml, .yaml, .yml and .json are")]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },
    /// The text was not edited.
    #[error("{file}: {source}")]
    Edit {
        /// The file.
        file: PathBuf,
        /// Why.
        source: EditError,
    },
    /// Somebody else changed it in this moment.
    #[error("{file} was changed by somebody else in this moment; it was left alone, try again")]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// The operating system refused.
    #[error("{file}: {what}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its words.
        source: io::Error,
    },
}

/// One change of a file: a value to set, or `None` to remove the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Dotted key.
    pub key: String,
    /// The new value.
    pub value: Option<Value>,
}

/// The file's text and format. `file` may be relative to `root`, and must be below it, links followed.
pub fn read_text(root: &Path, file: &Path) -> Result<(Format, String), ConfigError> {
    let file = locate(root, file)?;
    let format =
        Format::of(&file).ok_or_else(|| ConfigError::UnknownFormat { file: file.clone() })?;
    Ok((format, read_bounded(&file)?))
}

/// The value of one key of a file; `None` when the key is absent.
pub fn read(root: &Path, file: &Path, key: &str) -> Result<Option<Value>, ConfigError> {
    let (format, text) = read_text(root, file)?;
    super::get(format, &text, key).map_err(|source| ConfigError::Edit {
        file: file.to_owned(),
        source,
    })
}

/// Applies all edits to a file, in order, at once or not at all. Returns whether the file had to be changed.
///
/// The new file has the mode and the owner of the old one and takes its place atomically; file and directory are
/// synced.
pub fn apply(root: &Path, file: &Path, edits: &[Edit]) -> Result<bool, ConfigError> {
    let (format, old) = read_text(root, file)?;
    let mut text = old.clone();
    for edit in edits {
        let edited = match &edit.value {
            Some(value) => super::set(format, &text, &edit.key, value),
            None => match super::remove(format, &text, &edit.key) {
                Err(EditError::Absent { .. }) => Ok(text.clone()),
                other => other,
            },
        };
        text = edited.map_err(|source| ConfigError::Edit {
            file: file.to_owned(),
            source,
        })?;
    }
    if text == old {
        return Ok(false);
    }
    let real = locate(root, file)?;
    replace_file(&real, text.as_bytes(), Some(old.as_bytes()))?;
    Ok(true)
}

/// Where a file really is, links followed; an error when that is not below `root` or it is not a plain file.
pub(crate) fn locate(root: &Path, file: &Path) -> Result<PathBuf, ConfigError> {
    let outside = || ConfigError::Outside {
        file: file.to_owned(),
        root: root.to_owned(),
    };
    let clean = confine(root, file).ok_or_else(outside)?;
    let missing = |_| ConfigError::Missing {
        file: clean.clone(),
    };
    let real_root = fs::canonicalize(root).map_err(missing)?;
    let real = fs::canonicalize(&clean).map_err(missing)?;
    if !real.starts_with(&real_root) {
        return Err(outside());
    }
    if real.is_file() {
        Ok(real)
    } else {
        Err(ConfigError::Missing { file: clean })
    }
}

fn read_bounded(file: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::Io {
        file: file.to_owned(),
        what: "it cannot be read",
        source,
    };
    let mut bytes = Vec::new();
    open_plain(file)
        .map_err(io)?
        .take(FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(ConfigError::TooLarge {
            file: file.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText {
        file: file.to_owned(),
    })
}

/// Opens a file whose links have been resolved: the last part is no link any more.
fn open_plain(file: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::{Mode, OFlags};
        let fd = rustix::fs::open(
            file,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(File::from(fd))
    }
    #[cfg(not(unix))]
    File::open(file)
}

/// Puts `bytes` in the place of an existing file, atomically, keeping mode and owner. With `expected`, only when the
/// file still holds exactly that.
pub(crate) fn replace_file(
    file: &Path,
    bytes: &[u8],
    expected: Option<&[u8]>,
) -> Result<(), ConfigError> {
    let io = |what: &'static str| {
        move |source: io::Error| ConfigError::Io {
            file: file.to_owned(),
            what,
            source,
        }
    };
    let dir = file.parent().unwrap_or(Path::new("."));
    let meta = fs::metadata(file).map_err(io("it cannot be looked at"))?;
    let mut temp = tempfile::Builder::new()
        .prefix(".evenkeel-")
        .tempfile_in(dir)
        .map_err(io("no file can be made beside it"))?;
    temp.write_all(bytes)
        .map_err(io("its new text cannot be written"))?;
    #[cfg(unix)]
    keep_owner(temp.as_file(), &meta).map_err(io("its owner cannot be kept"))?;
    temp.as_file()
        .set_permissions(meta.permissions())
        .map_err(io("its mode cannot be kept"))?;
    temp.as_file()
        .sync_all()
        .map_err(io("its new text cannot be synced"))?;
    if let Some(expected) = expected {
        let now = fs::read(file).map_err(io("it cannot be read again"))?;
        if now != expected {
            return Err(ConfigError::Changed {
                file: file.to_owned(),
            });
        }
    }
    temp.persist(file)
        .map_err(|e| io("it cannot be replaced")(e.error))?;
    sync_dir(dir).map_err(io(
        "its directory cannot be synced (the new text is in place)",
    ))
}

#[cfg(unix)]
fn keep_owner(temp: &File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let new = temp.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        rustix::fs::fchown(
            temp,
            Some(rustix::fs::Uid::from_raw(old.uid())),
            Some(rustix::fs::Gid::from_raw(old.gid())),
        )?;
    }
    Ok(())
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}
