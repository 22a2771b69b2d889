//! What the ledger does with files that SQLite does not: create with the right mode, notice a replaced file,
//! spell a path as a URI. The only module that differs between operating systems.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Creates an empty file that only its owner may read and write, unless there is one. SQLite gives `-wal` and
/// `-shm` the mode of the database. Returns whether it was created.
pub(crate) fn create_private(path: &Path) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(file) => {
            file.sync_all()?;
            sync_directory(path)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    // Directories cannot be synced there; the file system's journal orders names before data.
    Ok(())
}

/// The name of the write-ahead log that SQLite keeps beside a database.
pub(crate) fn wal_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("-wal");
    PathBuf::from(name)
}

/// Whether a write-ahead log with content lies beside the database.
pub(crate) fn has_wal(path: &Path) -> bool {
    // SQLite follows symbolic links before it names the log.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    fs::metadata(wal_path(&real)).is_ok_and(|wal| wal.len() > 0)
}

/// What tells a file from another one that was put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    #[cfg(unix)]
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    /// Windows refuses to delete or replace a file that SQLite has open; that it is there is enough.
    #[cfg(not(unix))]
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|_| Self {
            device: 0,
            inode: 0,
        })
    }
}

/// `file:` URI of a path for SQLite, everything but plain characters percent-encoded.
pub(crate) fn uri(path: &Path, query: &str) -> io::Result<String> {
    let absolute = std::path::absolute(path)?;
    let mut uri = String::from("file:");
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(absolute.as_os_str()).to_vec();
    #[cfg(not(unix))]
    let bytes = {
        let text = absolute.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        format!("///{}", text.replace('\\', "/")).into_bytes()
    };
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/-_.~:".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push('%');
            uri.push_str(&hex::encode_upper([byte]));
        }
    }
    uri.push('?');
    uri.push_str(query);
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn uris_keep_odd_characters_of_a_path() {
        assert_eq!(
            uri(Path::new("/a b/ü?#%.db"), "immutable=1").unwrap(),
            "file:/a%20b/%C3%BC%3F%23%25.db?immutable=1"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        assert!(create_private(&path).unwrap());
        assert!(!create_private(&path).unwrap());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
