//! Other people's programs, run once: in a process group of their own, which is gone when this is.
//!
//! Not for the target's services: those live on when Evenkeel dies (SAFETY 22); these must not.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How long reading goes on after the program has ended, for what is still in its pipes.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// How long a killed program may take to be gone.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// What programs of the operator's get of Evenkeel's environment; secrets are not in it.
pub(crate) const ENV_KEPT: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "SystemRoot",
    "TMPDIR",
];

/// A running program. Dropping it kills its whole process group.
///
/// A program that moves a child into another group or session keeps that child out of reach.
pub(crate) struct Outside {
    child: Child,
    reaped: bool,
}

impl Outside {
    /// Starts it with all three streams piped. On systems without process groups only the program itself is killed.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        Ok(Self {
            child: command.spawn()?,
            reaped: false,
        })
    }

    /// Its streams; once.
    pub(crate) fn streams(&mut self) -> Option<(ChildStdin, ChildStdout, ChildStderr)> {
        Some((
            self.child.stdin.take()?,
            self.child.stdout.take()?,
            self.child.stderr.take()?,
        ))
    }

    /// Returns when the program has ended by itself. What it started may still run.
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        #[cfg(unix)]
        {
            // Looking without reaping: as long as the leader is not reaped, nobody else can get its group's number.
            use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
            let Some(pid) = self.pid() else {
                return Ok(());
            };
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let mut pause = Duration::from_millis(1);
            // Bounded by whoever awaits this, with a time limit.
            loop {
                match waitid(
                    WaitId::Pid(Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?),
                    options,
                ) {
                    Ok(None) => {}
                    Ok(Some(_)) => return Ok(()),
                    Err(e) if e == rustix::io::Errno::INTR => {}
                    Err(e) => return Err(e.into()),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(25));
            }
        }
        #[cfg(not(unix))]
        self.child.wait().await.map(drop)
    }

    /// Kills whatever is left of the group and gives the program's exit status.
    pub(crate) async fn finish(mut self) -> io::Result<ExitStatus> {
        self.kill_group();
        let status = tokio::time::timeout(DEATH_LIMIT, self.child.wait())
            .await
            .map_err(|_| {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it was killed and does not die: it hangs in the operating system",
                )
            })??;
        self.reaped = true;
        Ok(status)
    }

    #[cfg(unix)]
    fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|id| i32::try_from(id).ok())
    }

    fn kill_group(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.pid().and_then(rustix::process::Pid::from_raw) {
            // An error means that there is nobody left.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        #[cfg(not(unix))]
        let _ = self.child.start_kill();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill_group();
        }
    }
}

/// What a program that was run to its end has left.
pub(crate) struct Captured {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Kept,
    pub(crate) stderr: Kept,
}

/// Why there is nothing to show for it.
#[derive(Debug)]
pub(crate) enum CaptureError {
    /// It could not be started, or watched.
    Io(io::Error),
    /// It was still running at the limit, and was killed.
    TimedOut,
}

/// Runs a program to its end, with `input` on its standard input, and keeps the first `bytes_max` bytes of each of its
/// two outputs.
pub(crate) async fn capture(
    command: &mut Command,
    input: &[u8],
    bytes_max: usize,
    limit: Duration,
) -> Result<Captured, CaptureError> {
    let mut outside = Outside::spawn(command).map_err(CaptureError::Io)?;
    let (stdin, stdout, stderr) = outside.streams().expect("spawned with its streams piped");
    let mut out = Kept::new(bytes_max);
    let mut err = Kept::new(bytes_max);
    {
        let streams = async {
            tokio::join!(feed(stdin, input), out.fill(stdout), err.fill(stderr));
        };
        tokio::pin!(streams);
        let ended = async {
            let mut flowing = true;
            let mut ended = std::pin::pin!(outside.ended());
            let result = loop {
                tokio::select! {
                    result = &mut ended => break result,
                    () = &mut streams, if flowing => flowing = false,
                }
            };
            if flowing {
                let _ = tokio::time::timeout(DRAIN_LIMIT, &mut streams).await;
            }
            result
        };
        tokio::time::timeout(limit, ended)
            .await
            .map_err(|_| CaptureError::TimedOut)?
            .map_err(CaptureError::Io)?;
    }
    let status = outside.finish().await.map_err(CaptureError::Io)?;
    Ok(Captured {
        status,
        stdout: out,
        stderr: err,
    })
}

/// Writes the input and closes the pipe. A reader that does not want it all is no error.
pub(crate) async fn feed(mut stdin: impl AsyncWrite + Unpin, input: &[u8]) {
    if stdin.write_all(input).await.is_ok() {
        let _ = stdin.shutdown().await;
    }
}

/// The first bytes of a stream. The rest is read and thrown away, so that the writer is never held up.
pub(crate) struct Kept {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_cut: bool,
}

impl Kept {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            is_cut: false,
        }
    }

    /// Reads to the end of the stream or to its first error.
    pub(crate) async fn fill(&mut self, mut stream: impl AsyncRead + Unpin) {
        let mut chunk = vec![0_u8; 8 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut chunk).await {
            let room = self.bytes_max - self.bytes.len();
            self.is_cut |= n > room;
            self.bytes.extend_from_slice(&chunk[..n.min(room)]);
        }
    }

    /// What was kept, as it is.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was kept, as text. Where the end is missing the last kilobyte goes too: half a secret stands there
    /// perhaps, which no redaction would recognise.
    pub(crate) fn text(&self) -> String {
        let end = if self.is_cut {
            self.bytes.len().saturating_sub(1024)
        } else {
            self.bytes.len()
        };
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }
}
