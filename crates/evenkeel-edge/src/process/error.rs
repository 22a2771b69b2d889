//! What can go wrong with a service, each with what to do about it.

use std::path::PathBuf;

use super::event::Exit;

/// An operation on a service that did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// No such service in the target.
    #[error("there is no service `{name}`; configured are: {known}")]
    UnknownService {
        /// What was asked for.
        name: String,
        /// The configured names, the most similar first.
        known: String,
    },
    /// The services depend on each other in a circle.
    #[error("the services depend on each other in a circle: remove one of their `depends_on`")]
    Circle,
    /// It can only be attached to.
    #[error(
        "service `{name}` cannot be started: it has no `command`, Evenkeel only attaches to it; give \
         `[[target.services]]` a `command`, or restart it by the means that started it"
    )]
    NoCommand {
        /// The service.
        name: String,
    },
    /// An attach-only service was not found.
    #[error("service `{name}` is not running: {looked}; start it, or give it a `command`")]
    NotFound {
        /// The service.
        name: String,
        /// Where it was looked for.
        looked: String,
    },
    /// The operation needs a running process.
    #[error("service `{name}` is not running; start it first")]
    NotRunning {
        /// The service.
        name: String,
    },
    /// A service it depends on is not ready.
    #[error(
        "service `{name}` needs `{dependency}`, which is not ready; start `{dependency}` first"
    )]
    DependencyNotReady {
        /// The service.
        name: String,
        /// What it needs.
        dependency: String,
    },
    /// Somebody else listens on the service's port.
    #[error(
        "service `{name}` was not started: port {port} is in use by {holder}; stop that process or change the port"
    )]
    PortInUse {
        /// The service.
        name: String,
        /// The port.
        port: u16,
        /// Its process and command, as far as they may be seen.
        holder: String,
    },
    /// The program could not be started.
    #[error(
        "service `{name}`: cannot run `{program}` in {}: {source}; check `command` and `cwd`",
        cwd.display()
    )]
    Spawn {
        /// The service.
        name: String,
        /// The program.
        program: String,
        /// The directory it should run in.
        cwd: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The output file could not be opened.
    #[error(
        "service `{name}`: cannot open its output file {}: {source}; check `output` and its permissions",
        path.display()
    )]
    Output {
        /// The service.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error(
        "service `{name}` ended with {exit} after {waited_ms} ms, before it was ready; its output ends with:\n{output}"
    )]
    ExitedWhileStarting {
        /// The service.
        name: String,
        /// How it ended.
        exit: Exit,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// The last lines of its output, at most 2 KiB, without known secrets.
        output: String,
    },
    /// It did not get ready in time. It is left running.
    #[error(
        "service `{name}` did not get ready within {waited_ms} ms ({last}) and is left running; raise \
         `start_timeout_ms` or check `ready`; its output ends with:\n{output}"
    )]
    NotReady {
        /// The service.
        name: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// What the last try met.
        last: String,
        /// The last lines of its output, at most 2 KiB, without known secrets.
        output: String,
    },
    /// `ready.http` is a path and the target has no `base_url`.
    #[error(
        "service `{name}`: `ready.http` is the path `{path}`, but the target has no `base_url`: set it"
    )]
    NoBaseUrl {
        /// The service.
        name: String,
        /// The path.
        path: String,
    },
    /// It did not end, not even when killed.
    #[error(
        "service `{name}` (process {pid}) did not end within {waited_ms} ms, not even by SIGKILL; it may hang in the \
         kernel: look at its disk or mount"
    )]
    DoesNotEnd {
        /// The service.
        name: String,
        /// Its process.
        pid: u32,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The operating system refused a signal.
    #[error(
        "service `{name}`: cannot signal process {pid}: {source}; run Evenkeel as the user that owns the service"
    )]
    Signal {
        /// The service.
        name: String,
        /// The process.
        pid: u32,
        /// Why.
        source: std::io::Error,
    },
    /// A process could not be watched.
    #[error("service `{name}`: cannot watch process {pid}: {source}; Linux 5.4 or newer is needed")]
    Watch {
        /// The service.
        name: String,
        /// The process.
        pid: u32,
        /// Why.
        source: std::io::Error,
    },
    /// What runs could not be written down, so nothing was started or stopped.
    #[error("cannot write {}: {source}; free space or fix permissions: nothing was started or stopped", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
