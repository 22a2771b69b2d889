//! The command line: what can be asked, and how each command ends.
//!
//! Exit codes: 0 healthy or healed, 1 anomalies left unhealed, 2 usage or configuration, 3 target or environment,
//! 4 the ledger does not verify, 5 internal.

mod check;
mod detect;
mod exit;
mod explain;
mod forecast;
mod heal;
mod history;
mod ledger;
mod load;
mod logs;
mod order;
mod playbook;
mod replay;
mod run;
mod snapshot;
mod status;
mod table;
mod witness;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use evenkeel_core::order::Order;

pub use exit::{Exit, Failure};
#[cfg(feature = "demo")]
pub(crate) use ledger::describe as describe_ledger;
#[cfg(feature = "demo")]
pub(crate) use run::{runtime, start_log};

const EXIT_CODES: &str = "Exit codes:
  0  healthy, or healed
  1  anomalies are left unhealed
  2  usage or configuration
  3  the target or the environment (port, disk, permissions)
  4  the ledger does not verify
  5  internal error";

/// Self-healing for services, with proof.
///
/// Stress-tests a service after boot, learns what healthy looks like, watches for drift, takes a snapshot, runs a
/// playbook, proves the fix by running the failed test again, takes it back when it did not help, asks an advisor after
/// three failures, calls a person when that fails too, and writes every step into a log that nobody can quietly edit.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, after_help = EXIT_CODES, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "evenkeel.toml",
        env = "EVENKEEL_CONFIG"
    )]
    pub config: PathBuf,
    /// Where ledger, baseline, snapshots and logs lie
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "evenkeel-data",
        env = "EVENKEEL_DATA_DIR"
    )]
    pub data_dir: PathBuf,
    /// One JSON object a line (or one document), for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more, on standard error
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole loop on a real service with a real fault
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoArgs),
    /// Guard the configured target: boot gate, stress test, baseline, watchdog, healing
    Run {
        /// Run the post-boot workflow once, and end
        #[arg(long)]
        once: bool,
    },
    /// Run the stress tests against the running target
    Stress {
        /// Only this test (by name, or a part of it); may be given several times
        #[arg(long = "test", value_name = "NAME")]
        tests: Vec<String>,
    },
    /// Make load on an address and measure what comes of it; needs no configuration
    Load(Box<crate::load::args::LoadArgs>),
    /// What healthy looks like
    #[command(subcommand)]
    Baseline(BaselineCommand),
    /// What the watchdog saw last, open cycles, failed attempts
    Status,
    /// How freely it acts: shadow (works everything out, does nothing), approve (asks first), auto (tiers decide)
    Mode {
        /// The mode; without one, `status` is shown
        #[arg(value_parser = parse_mode)]
        mode: Option<evenkeel_core::Mode>,
        /// Only for this playbook
        #[arg(long, value_name = "NAME")]
        playbook: Option<String>,
        /// As the configuration has it again
        #[arg(long, conflicts_with = "mode")]
        by_configuration: bool,
    },
    /// What waits for a person's approval
    Approvals,
    /// Say yes to a plan that waits, as `approvals` shows it: once, and to exactly this
    Approve {
        /// Its id
        id: String,
    },
    /// Say no to a plan that waits
    Deny {
        /// Its id
        id: String,
        /// Why, for whoever reads the ledger
        #[arg(long)]
        why: String,
    },
    /// Hands off: no step and no rollback begins until `resume`. A file PAUSE in the data directory does the same
    Pause {
        /// Only this service
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Why, for whoever reads it
        #[arg(long, default_value = "")]
        why: String,
    },
    /// End a pause. What is still wrong is looked at again; what is over is not replayed
    Resume {
        /// Only that of this service
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Neither act on nor alert about a type of anomaly for a while
    Silence {
        /// The type, such as `latency_spike`, or a key such as `error_rate_spike/api`
        what: String,
        /// For how long: `30m`, `2h`, `7d`; at most 90 days
        #[arg(long = "for", value_name = "SPAN", value_parser = parse_span)]
        span: SpanMillis,
        /// Why, for whoever reads it
        #[arg(long)]
        why: String,
    },
    /// End a silence
    Unsilence {
        /// What was silenced
        what: String,
    },
    /// What stops everything after failures in a row
    #[command(subcommand)]
    Breaker(BreakerCommand),
    /// Say that what was handed over to you is repaired: when it comes back, it is healed anew
    Repaired {
        /// The type or the key, as the alert names it; everything when absent
        what: Option<String>,
        /// What was done
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Say that what a failed rollback left is put in order: healing may go on
    Unstick {
        /// What was done
        #[arg(long)]
        why: String,
    },
    /// Say what happened to the target, so that it is not taken for trouble
    #[command(subcommand)]
    Mark(MarkCommand),
    /// Healing cycles, newest first
    History {
        /// Only these
        #[arg(long, value_enum)]
        result: Option<ResultFilter>,
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// The whole story of one healing cycle, or the evidence of an anomaly with a plot of its series
    Explain {
        /// A cycle's id, the beginning of it that no other has, or `last`; or an anomaly's type or key, such as `drift`
        #[arg(value_name = "CYCLE|ANOMALY")]
        cycle: String,
    },
    /// Order an anomaly to be healed now, or see with `--dry-run` what would be done
    Heal(heal::HealArgs),
    /// What advisors were asked and answered
    Escalations,
    /// Evenkeel's own log
    Logs {
        /// Only lines of this subsystem, such as `watchdog` or `stress_test`
        #[arg(long)]
        subsystem: Option<String>,
        /// Go on as lines are written
        #[arg(long, short)]
        follow: bool,
        /// The last so many lines
        #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        lines: u32,
    },
    /// How it went: anomalies, heals, escalations, alerts, by week and by month
    Report {
        /// How far back: `24h`, `7d`, `4w`
        #[arg(long, default_value = "30d", value_parser = parse_span)]
        since: SpanMillis,
    },
    /// Playbooks: what may be done about an anomaly
    #[command(subcommand)]
    Playbook(PlaybookCommand),
    /// Snapshots of the target's database and configuration
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// The log that nobody can quietly edit
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// On another host: cosign checkpoints of logs that only grow (C2SP tlog-witness)
    Witness(witness::WitnessArgs),
    /// Score series in CSV files with the detector that follows live ones
    Detect(detect::DetectArgs),
    /// Run the watchdog over recorded telemetry: what it would have found, and what would have been done
    Replay(replay::ReplayArgs),
    /// Check the configuration and the playbooks, and start nothing
    Check,
    /// Grace, the reference service, alone
    #[cfg(feature = "demo")]
    Grace(grace::GraceArgs),
    /// Shell completions, on standard output
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// The tool through which the Amp advisor answers (started by Evenkeel)
    #[command(hide = true)]
    AdvisorMcp,
}

/// `evenkeel baseline`.
#[derive(Debug, Subcommand)]
pub enum BaselineCommand {
    /// Print the baseline
    Show,
    /// Take what a series shows from now on for healthy: its usual values are learned anew, errors and leaks too
    Relearn {
        /// The series, as `evenkeel status --json` names it; every series when absent
        series: Option<String>,
        /// Why that is healthy, for whoever reads the ledger
        #[arg(long)]
        why: String,
    },
}

/// `evenkeel mark`.
#[derive(Debug, Subcommand)]
pub enum MarkCommand {
    /// A new version is there: what is usual may change now, and is learned anew. Errors and leaks are not excused
    Deploy {
        /// Which version, such as `v2`
        #[arg(value_name = "VERSION")]
        release: String,
        /// Only of this service
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
}

/// `evenkeel breaker`.
#[derive(Debug, Subcommand)]
pub enum BreakerCommand {
    /// Close it again
    Reset {
        /// Why it may be
        #[arg(long, default_value = "")]
        why: String,
    },
}

/// `evenkeel playbook`.
#[derive(Debug, Subcommand)]
pub enum PlaybookCommand {
    /// All known playbooks
    List,
    /// One playbook, as its file
    Show {
        /// Its name
        name: String,
    },
    /// Check playbook files: file, line, column, and the fix
    Lint {
        /// Files; the configured directory and the built-in ones when none is named
        files: Vec<PathBuf>,
    },
    /// Put playbooks through everything that can go wrong while they run, in a simulated world
    Test {
        /// Files; the configured directory and the built-in ones when none is named
        files: Vec<PathBuf>,
    },
    /// Run one playbook against the configured target now: snapshot, steps, verification, rollback
    Run {
        /// Its name
        name: String,
        /// A parameter, as `name=value`; may be given several times
        #[arg(long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        /// Print the exact plan and do nothing; works while Evenkeel runs
        #[arg(long)]
        dry_run: bool,
    },
    /// The JSON Schema of playbook files, for editors
    Schema,
}

/// `evenkeel snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// All snapshots, newest first
    List,
    /// Take one now
    Create,
    /// Write the files of a snapshot as plain files into a new directory, each checked
    Extract {
        /// Its id, as `snapshot list` prints it
        id: String,
        /// The directory; it must be new or empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Bring database and configuration back from a snapshot
    Restore {
        /// Its id, as `snapshot list` prints it
        id: String,
        /// Only the configuration files
        #[arg(long)]
        config_only: bool,
    },
}

pub use ledger::LedgerCommand;

/// `--result`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ResultFilter {
    /// Ended healed
    Success,
    /// Ended with a person alerted
    Failed,
}

fn parse_mode(text: &str) -> Result<evenkeel_core::Mode, String> {
    text.parse()
}

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct SpanMillis(pub i64);

fn parse_span(text: &str) -> Result<SpanMillis, String> {
    let wrong =
        || format!("`{text}` is no span of time; write a number and m, h, d or w, such as 7d");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: i64 = match unit {
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_ms)
        .filter(|ms| (1..=10 * 366 * 86_400_000).contains(ms))
        .map(SpanMillis)
        .ok_or_else(wrong)
}

/// Runs a command and says how it ended.
pub fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    match command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => crate::demo::run(&global, &args),
        Command::Run { once } => run::run(&global, once),
        Command::Stress { tests } => run::stress(&global, &tests),
        Command::Load(args) => load::load(&global, &args),
        Command::Baseline(BaselineCommand::Show) => status::baseline(&global),
        Command::Baseline(BaselineCommand::Relearn { series, why }) => {
            order::order(&global, Order::Relearn { series, why })
        }
        Command::Status => status::status(&global),
        Command::Mode {
            mode,
            playbook,
            by_configuration,
        } => order::mode(&global, mode, by_configuration, playbook),
        Command::Approvals => order::approvals(&global),
        Command::Approve { id } => order::approve(&global, &id),
        Command::Deny { id, why } => order::deny(&global, &id, why),
        Command::Pause { service, why } => order::order(&global, Order::Pause { service, why }),
        Command::Resume { service } => order::order(&global, Order::Resume { service }),
        Command::Silence { what, span, why } => order::silence(&global, what, span, why),
        Command::Unsilence { what } => order::order(&global, Order::Unsilence { what }),
        Command::Breaker(BreakerCommand::Reset { why }) => {
            order::order(&global, Order::ResetBreaker { why })
        }
        Command::Repaired { what, why } => order::order(&global, Order::Repaired { what, why }),
        Command::Unstick { why } => order::order(&global, Order::Unstick { why }),
        Command::Mark(MarkCommand::Deploy { release, service }) => {
            let version = release;
            order::order(&global, Order::MarkDeploy { version, service })
        }
        Command::History { result, limit } => history::history(&global, result, limit),
        Command::Explain { cycle } => explain::explain(&global, &cycle),
        Command::Heal(args) => heal::heal(&global, &args),
        Command::Escalations => history::escalations(&global),
        Command::Logs {
            subsystem,
            follow,
            lines,
        } => logs::logs(&global, subsystem.as_deref(), follow, lines),
        Command::Report { since } => history::report(&global, since),
        Command::Playbook(command) => playbook::playbook(&global, command),
        Command::Snapshot(command) => snapshot::snapshot(&global, command),
        Command::Ledger(command) => ledger::ledger(&global, command),
        Command::Witness(args) => witness::witness(&global, &args),
        Command::Detect(args) => detect::detect(&global, &args),
        Command::Replay(args) => replay::replay(&global, &args),
        Command::Check => check::check(&global),
        #[cfg(feature = "demo")]
        Command::Grace(mut args) => {
            args.exec_prefix = vec!["grace".to_owned()];
            grace::run(args)
                .map(|()| Exit::Healthy)
                .map_err(|e| Failure::target(e.to_string()))
        }
        Command::Completions { shell } => {
            use clap::CommandFactory as _;
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "evenkeel",
                &mut std::io::stdout(),
            );
            Ok(Exit::Healthy)
        }
        Command::AdvisorMcp => evenkeel_edge::advisor::mcp::serve_stdio()
            .map(|()| Exit::Healthy)
            .map_err(|e| Failure::internal(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn spans() {
        assert_eq!(parse_span("7d").unwrap().0, 7 * 86_400_000);
        for bad in ["", "d", "7", "7y", "-1d", "99999999999999999999d", "0d"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
