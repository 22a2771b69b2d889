//! The local socket: one JSON question a connection, one JSON answer. Its file is readable by its user alone, and who
//! asks is known by the kernel's word.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Answer, Ask, CLIENTS_MAX, QUESTION_LEN_MAX, QUESTION_TIMEOUT, carry_out};
use crate::mind::Mind;
use crate::ui::Ui;

/// How long a client waits for the answer: an order waits for the disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest path of a socket that every Unix takes, in bytes.
const PATH_LEN_MAX: usize = 100;

/// A question as it comes over the socket.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sent {
    /// The name that the asker goes by; the kernel says which user it is.
    by: String,
    #[serde(flatten)]
    ask: Ask,
}

/// A way to `path` that is short enough: sockets take about 100 bytes. Where the path itself is too long, the way leads
/// through the directory's handle below `/proc`.
fn short(path: &Path) -> Result<(PathBuf, Option<std::fs::File>), String> {
    if path.as_os_str().len() <= PATH_LEN_MAX {
        return Ok((path.to_path_buf(), None));
    }
    let too_long = || {
        format!(
            "{}: the path is too long for a socket; choose a shorter --data-dir",
            path.display()
        )
    };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(too_long());
    };
    if !cfg!(target_os = "linux") {
        return Err(too_long());
    }
    let handle = std::fs::File::open(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&handle);
    Ok((
        Path::new(&format!("/proc/self/fd/{fd}")).join(name),
        Some(handle),
    ))
}

/// Serves at `path`. Whoever calls holds the data directory, so a socket that lies there is left from a crash.
pub(super) fn serve(path: &Path, mind: Mind, ui: Ui) -> Result<JoinHandle<()>, String> {
    let failed = |e: std::io::Error| format!("the control socket {}: {e}", path.display());
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    if let Some(dir) = path.parent() {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let (way, _handle) = short(path)?;
    let listener = UnixListener::bind(way).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    Ok(tokio::spawn(async move {
        loop {
            let Ok(turn) = Arc::clone(&clients).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (mind, ui) = (mind.clone(), ui.clone());
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(ANSWER_TIMEOUT, one(stream, &mind, &ui)).await;
                        drop(turn);
                    });
                }
                // Too many open files, say: not at once again.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }))
}

async fn one(mut stream: UnixStream, mind: &Mind, ui: &Ui) -> std::io::Result<()> {
    let answer = match tokio::time::timeout(QUESTION_TIMEOUT, question(&mut stream)).await {
        Ok(Ok(Sent { by, ask })) => {
            let name: String = by.chars().filter(|c| !c.is_control()).take(64).collect();
            let uid = stream.peer_cred()?.uid();
            carry_out(mind, ui, &format!("{name} (uid {uid})"), ask).await
        }
        Ok(Err(message)) => Answer { ok: false, message },
        Err(_) => Answer {
            ok: false,
            message: "no question came in time".to_owned(),
        },
    };
    let mut text = serde_json::to_string(&answer).unwrap_or_default();
    text.push('\n');
    stream.write_all(text.as_bytes()).await
}

async fn question(stream: &mut UnixStream) -> Result<Sent, String> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0u8; 4096];
        let n = stream.read(&mut part).await.map_err(|e| e.to_string())?;
        bytes.extend_from_slice(&part[..n]);
        if bytes.len() > QUESTION_LEN_MAX {
            return Err(format!("a question has at most {QUESTION_LEN_MAX} bytes"));
        }
        if n == 0 || bytes.ends_with(b"\n") {
            break;
        }
    }
    serde_json::from_slice(&bytes).map_err(|e| format!("no question that is known: {e}"))
}

/// Asks a running Evenkeel, and waits for its answer.
pub(crate) fn ask(path: &Path, ask: &Ask) -> Result<Answer, String> {
    let failed = |e: std::io::Error| {
        format!(
            "Evenkeel is running, and its control socket {} does not answer: {e}",
            path.display()
        )
    };
    let (way, _handle) = short(path)?;
    let mut stream = std::os::unix::net::UnixStream::connect(way).map_err(failed)?;
    for set in [
        std::os::unix::net::UnixStream::set_read_timeout,
        std::os::unix::net::UnixStream::set_write_timeout,
    ] {
        set(&stream, Some(ANSWER_TIMEOUT)).map_err(failed)?;
    }
    let sent = Sent {
        by: crate::control::who(),
        ask: ask.clone(),
    };
    let mut text = serde_json::to_string(&sent).map_err(|e| e.to_string())?;
    text.push('\n');
    stream.write_all(text.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream)
        .take(QUESTION_LEN_MAX as u64)
        .read_line(&mut line)
        .map_err(failed)?;
    serde_json::from_str(&line).map_err(|e| format!("the answer cannot be read: {e}"))
}
