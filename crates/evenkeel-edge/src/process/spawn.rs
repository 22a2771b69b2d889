//! Starting a service's program so that it outlives Evenkeel: a process group of its own, output appended to a
//! file, no pipe and no terminal, none of Evenkeel's secrets in its environment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::control::{self, ExitWatch, MARK_ENV};
use super::error::SuperviseError;
use super::procinfo::ProcessId;
use crate::target::ServiceSpec;

/// Most of a service's output that an error quotes, in bytes.
const TAIL_LEN_MAX: u64 = 2048;

/// A service that was started.
pub(crate) struct Spawned {
    pub(crate) process: ProcessId,
    pub(crate) watch: ExitWatch,
    /// Where this run's output begins in the output file.
    pub(crate) output_from: u64,
}

/// Where the service's output goes.
pub(crate) fn output_path(spec: &ServiceSpec, data_dir: &Path) -> PathBuf {
    spec.output
        .clone()
        .unwrap_or_else(|| data_dir.join("logs").join(format!("{}.out", spec.name)))
}

fn open_output(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Starts the service's program.
pub(crate) fn spawn(
    spec: &ServiceSpec,
    data_dir: &Path,
    scrub_env: &[String],
    mark: &str,
) -> Result<Spawned, SuperviseError> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(SuperviseError::NoCommand {
            name: spec.name.clone(),
        });
    };
    let path = output_path(spec, data_dir);
    let output = open_output(&path)
        .and_then(|file| Ok((file.metadata()?.len(), file.try_clone()?, file)))
        .map_err(|source| SuperviseError::Output {
            name: spec.name.clone(),
            path,
            source,
        })?;
    let (output_from, stdout, stderr) = output;
    let cwd = spec.cwd.clone().unwrap_or_else(|| PathBuf::from("."));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&cwd)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    for name in scrub_env {
        command.env_remove(name);
    }
    // A service that speaks to Evenkeel's service manager would speak in Evenkeel's name.
    for name in crate::service_manager::ENVIRONMENT {
        command.env_remove(name);
    }
    command.envs(&spec.env).env(MARK_ENV, mark);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let (process, watch) = control::spawn(command).map_err(|source| SuperviseError::Spawn {
        name: spec.name.clone(),
        program: program.clone(),
        cwd,
        source,
    })?;
    Ok(Spawned {
        process,
        watch,
        output_from,
    })
}

/// The end of what was written to the output file since `from`: at most 2 KiB, whole lines.
pub(crate) fn output_tail(path: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        let begin = from.min(end).max(end.saturating_sub(TAIL_LEN_MAX));
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(TAIL_LEN_MAX).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        Ok(match text.split_once('\n') {
            Some((_, rest)) if begin > from => rest.to_owned(),
            _ => text.to_owned(),
        })
    };
    match read() {
        Ok(text) if text.is_empty() => "(nothing)".to_owned(),
        Ok(text) => text,
        Err(e) => format!("(cannot read {}: {e})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_whole_lines_of_this_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.out");
        std::fs::write(&path, "old run\nnew run\n").unwrap();
        assert_eq!(output_tail(&path, 8), "new run");
        assert_eq!(output_tail(&path, 16), "(nothing)");
        assert_eq!(output_tail(&path, 999), "(nothing)", "cut meanwhile");
        let long: Vec<String> = (0..1000).map(|i| format!("line {i}")).collect();
        std::fs::write(&path, long.join("\n")).unwrap();
        let tail = output_tail(&path, 0);
        assert!(tail.len() <= 2048 && tail.starts_with("line ") && tail.ends_with("line 999"));
        assert!(output_tail(&dir.path().join("missing"), 0).contains("cannot read"));
    }
}
