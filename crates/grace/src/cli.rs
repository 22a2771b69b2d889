//! The command line: which process to become, and with which settings.
//! Roles are separate processes; each builds its own small runtime.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::error::GraceError;
use crate::process::{Shutdown, say};
use crate::settings::Settings;
use crate::{api, collector, hold_lock, upstream};

/// Longest wait for blocking work that is still running when a process ends.
const RUNTIME_END: Duration = Duration::from_millis(200);

/// Arguments of Grace; another command line can flatten them.
#[derive(Debug, Clone, Args)]
pub struct GraceArgs {
    /// The process to become; `all` when left out.
    #[command(subcommand)]
    pub role: Option<Role>,
    /// Settings file (TOML); the defaults when left out
    #[arg(long, global = true, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Directory at which relative paths start
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    pub root: PathBuf,
    /// What stands between the program and Grace's own arguments when it starts itself again,
    /// as in `["grace"]` when Grace is a subcommand. Not an argument: the embedding sets it.
    #[arg(skip)]
    pub exec_prefix: Vec<String>,
}

/// The processes Grace consists of, and the programs around it.
#[derive(Debug, Clone, Subcommand)]
pub enum Role {
    /// The API, with the metrics collector as its child process
    All,
    /// The HTTP service
    Api,
    /// Scrapes the API's metrics and writes summaries into the database
    MetricsCollector(CollectorArgs),
    /// A stand-in for a model server
    Upstream(UpstreamArgs),
    /// Another program that takes the database's write lock and keeps it
    HoldLock(HoldLockArgs),
    /// Prints the settings, with the meaning of each key
    PrintSettings,
}

/// Arguments of the metrics collector.
#[derive(Debug, Clone, Default, Args)]
pub struct CollectorArgs {
    /// Address scraped, instead of the one of the settings
    #[arg(long, hide = true)]
    api_url: Option<String>,
    /// End when standard input ends
    #[arg(long, hide = true)]
    lifeline: bool,
}

/// Arguments of the model server's stand-in.
#[derive(Debug, Clone, Args)]
pub struct UpstreamArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8702")]
    pub listen: SocketAddr,
    /// Time each answer takes, in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub delay_ms: u64,
    /// Answers worked on at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
}

/// Arguments of the program that holds the lock.
#[derive(Debug, Clone, Args)]
pub struct HoldLockArgs {
    /// The database file
    #[arg(long, value_name = "PATH")]
    pub db: PathBuf,
    /// Longest time to hold the lock, in seconds (1 to 120)
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=120))]
    pub seconds: u64,
    /// Take the lock with BEGIN EXCLUSIVE instead of BEGIN IMMEDIATE
    #[arg(long)]
    pub exclusive: bool,
}

/// Becomes the chosen process; returns when it has ended in good order (SIGTERM, SIGINT, or its
/// time is up).
///
/// # Errors
/// See [`GraceError`]: settings that are not valid, a port in use, a database that cannot be used.
pub fn run(args: GraceArgs) -> Result<(), GraceError> {
    let settings = match &args.settings {
        Some(file) => Settings::load(&args.root.join(file))?,
        None => Settings::default(),
    };
    if matches!(args.role, Some(Role::PrintSettings)) {
        say(settings.to_commented_toml().trim_end());
        return Ok(());
    }
    let settings = settings.rooted(&args.root);
    let blocking = settings.database.pool_size + settings.server.workers + 4;
    // One thread is enough for what waits; what computes or queries runs on the blocking threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(blocking)
        .thread_name("grace-blocking")
        .build()
        .map_err(GraceError::io("start the runtime"))?;
    let ended = runtime.block_on(become_role(args, settings));
    runtime.shutdown_timeout(RUNTIME_END);
    ended
}

async fn become_role(args: GraceArgs, mut settings: Settings) -> Result<(), GraceError> {
    let lifeline = matches!(&args.role, Some(Role::MetricsCollector(c)) if c.lifeline);
    let shutdown = Shutdown::install(lifeline)?;
    match args.role.clone().unwrap_or(Role::All) {
        Role::All => {
            let child = CollectorCommand::new(&args)?;
            api::run(settings, Some(child), shutdown).await
        }
        Role::Api => api::run(settings, None, shutdown).await,
        Role::MetricsCollector(collector) => {
            if let Some(url) = collector.api_url {
                settings.metrics.api_url = url;
            }
            collector::run(settings, shutdown).await
        }
        Role::Upstream(up) => {
            let delay = Duration::from_millis(up.delay_ms);
            upstream::run(up.listen, delay, up.concurrency.into(), shutdown).await
        }
        Role::HoldLock(hold) => {
            let path = args.root.join(&hold.db);
            hold_lock::run(&path, hold.seconds, hold.exclusive, shutdown).await
        }
        Role::PrintSettings => Ok(()),
    }
}

/// How to start the metrics collector as a child process.
#[derive(Debug)]
pub(crate) struct CollectorCommand {
    program: PathBuf,
    args: Vec<std::ffi::OsString>,
}

impl CollectorCommand {
    fn new(args: &GraceArgs) -> Result<Self, GraceError> {
        let program =
            std::env::current_exe().map_err(GraceError::io("find the path of this program"))?;
        let mut list: Vec<std::ffi::OsString> = args.exec_prefix.iter().map(Into::into).collect();
        list.push("metrics-collector".into());
        let mut path_arg = |name: &str, path: &Path| {
            list.push(name.into());
            list.push(path.into());
        };
        path_arg("--root", &args.root);
        if let Some(file) = &args.settings {
            path_arg("--settings", file);
        }
        Ok(Self {
            program,
            args: list,
        })
    }

    /// The command for a collector of the API at `addr`. It ends when its standard input does.
    pub(crate) fn command(&self, addr: SocketAddr) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .arg("--lifeline")
            .arg("--api-url")
            .arg(format!("http://{addr}"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Outer {
        #[arg(long, global = true)]
        verbose: bool,
        #[command(subcommand)]
        command: Inner,
    }

    #[derive(Debug, Subcommand)]
    enum Inner {
        Grace(GraceArgs),
    }

    fn parse(line: &str) -> GraceArgs {
        let Inner::Grace(args) = Outer::try_parse_from(line.split(' ')).unwrap().command;
        args
    }

    #[test]
    fn it_fits_into_another_command_line() {
        Outer::command().debug_assert();
        assert!(parse("x grace").role.is_none());
        let args = parse("x grace --settings a.toml hold-lock --db d --for 3 --root r --verbose");
        assert_eq!(args.settings.as_deref(), Some(Path::new("a.toml")));
        assert_eq!(args.root, Path::new("r"));
        assert!(matches!(args.role, Some(Role::HoldLock(hold)) if hold.seconds == 3));
        assert!(
            Outer::try_parse_from(["x", "grace", "hold-lock", "--db", "d", "--for", "0"]).is_err()
        );
    }

    #[test]
    fn the_collector_is_started_with_the_embeddings_prefix() {
        let mut args = parse("x grace --settings a.toml --root r");
        args.exec_prefix = vec!["grace".into()];
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        let command = CollectorCommand::new(&args).unwrap().command(addr);
        let given: Vec<_> = command
            .as_std()
            .get_args()
            .map(|a| a.to_str().unwrap())
            .collect();
        let line = format!("x {}", given.join(" "));
        let again = parse(&line);
        let Some(Role::MetricsCollector(collector)) = again.role else {
            panic!("{line}");
        };
        assert!(collector.lifeline);
        assert_eq!(collector.api_url.as_deref(), Some("http://127.0.0.1:9"));
        assert_eq!((again.settings, again.root), (args.settings, args.root));
    }
}
