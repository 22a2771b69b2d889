//! Files that are there whole or not at all, and never take another's place by accident.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// So many files of one second and type may stand beside each other.
const SUFFIX_MAX: u32 = 1_000;

/// Writes `<dir>/<stem>.<extension>`, or `<stem>-2.<extension>` and so on when that is taken: readable by its owner
/// only, complete and on disk when this returns.
pub(crate) fn create(dir: &Path, stem: &str, extension: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let mut file = written(dir, bytes)?;
    for n in 1..=SUFFIX_MAX {
        let name = if n == 1 {
            format!("{stem}.{extension}")
        } else {
            format!("{stem}-{n}.{extension}")
        };
        let path = dir.join(name);
        match file.persist_noclobber(&path) {
            Ok(_) => {
                sync_dir(dir)?;
                return Ok(path);
            }
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => file = e.file,
            Err(e) => return Err(e.error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{SUFFIX_MAX} files named {stem} are there already; move old ones away"),
    ))
}

/// Writes a file at exactly this path, where there is none yet: readable by its owner only, complete and on disk when
/// this returns. Its directory must be there.
pub(crate) fn create_exactly(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    written(dir, bytes)?
        .persist_noclobber(path)
        .map_err(|e| e.error)?;
    sync_dir(dir)
}

/// Puts new content in the place of an existing file, at once.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    written(dir, bytes)?.persist(path).map_err(|e| e.error)?;
    sync_dir(dir)
}

fn written(dir: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        .suffix(".tmp")
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "same shape as where a directory can be synchronised"
)]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_file_of_the_same_name_stands_beside_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = ["one", "two", "three"]
            .iter()
            .map(|t| create(dir.path(), "x", "txt", t.as_bytes()).unwrap())
            .collect();
        assert_eq!(names[0], dir.path().join("x.txt"));
        assert_eq!(names[2], dir.path().join("x-3.txt"));
        assert_eq!(std::fs::read_to_string(&names[0]).unwrap(), "one");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            3,
            "no temporary file stays"
        );
    }
}
