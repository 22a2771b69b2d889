//! The options of `evenkeel load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use evenkeel_stress::words::{Pace, pace, time};
use evenkeel_stress::{JsonCheck, StatusSet, Think};

use super::threshold::{self, Threshold};
use super::values::{self, Header, StopAt};

const EXIT_CODES: &str =
    "Redirects are never followed: an answer with a status from 300 to 399 counts as what it is.

Exit codes:
  0  the run was made, and every threshold was kept
  1  a threshold was missed, or so many requests failed that the run ended early
  2  usage
  3  no request was answered, or the figures are invalid: this host was the bottleneck";

/// How requests of an open loop are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spread {
    /// Evenly.
    Constant,
    /// At random, as of many users who know nothing of each other.
    Poisson,
}

/// Arguments of `evenkeel load`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_CODES)]
pub struct LoadArgs {
    /// Where to: http://host:port/path?query, or https. Credentials do not belong into it
    pub url: String,

    /// Connections; as many requests are under way at once (times --streams)
    #[arg(
        long,
        short = 'c',
        value_name = "N",
        default_value_t = 50,
        help_heading = "Load"
    )]
    pub connections: u32,
    /// End after so many requests
    #[arg(long, short = 'n', value_name = "N", conflicts_with_all = ["duration", "rate"], help_heading = "Load")]
    pub requests: Option<u64>,
    /// For how long: 500ms, 30s, 2m, 1h; 10s when neither this nor -n is given
    #[arg(long, short = 'd', value_name = "TIME", value_parser = time, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// Open loop: so many requests a second however slow the target is, such as 1000, or '100..2000 over 60s'
    #[arg(long, value_name = "RATE", value_parser = pace, help_heading = "Load")]
    pub rate: Option<Pace>,
    /// How they are spread
    #[arg(
        long,
        value_enum,
        default_value = "constant",
        requires = "rate",
        help_heading = "Load"
    )]
    pub arrivals: Spread,
    /// Make load for so long before anything is counted
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time, help_heading = "Load")]
    pub warm_up: Duration,
    /// Pause between an answer and the next request of a connection: 20ms, or 10ms..50ms
    #[arg(long, value_name = "TIME", value_parser = values::think, conflicts_with = "rate", help_heading = "Load")]
    pub think: Option<Think>,
    /// Threads that make load
    #[arg(
        long,
        short = 't',
        value_name = "N",
        default_value_t = 1,
        help_heading = "Load"
    )]
    pub threads: u32,
    /// Where random arrivals and pauses begin: the same seed gives the same
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub seed: u64,

    /// GET, POST, PUT, DELETE, PATCH, HEAD or OPTIONS; GET, or POST with a body, when absent
    #[arg(
        long,
        short = 'm',
        value_name = "METHOD",
        conflicts_with = "requests_file",
        help_heading = "Requests"
    )]
    pub method: Option<String>,
    /// A header, as 'Name: value'; may be given several times. Values are shown nowhere
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = values::header, help_heading = "Requests")]
    pub headers: Vec<Header>,
    /// A body
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["body_file", "requests_file"], help_heading = "Requests")]
    pub body: Option<String>,
    /// A file with the body
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "requests_file",
        help_heading = "Requests"
    )]
    pub body_file: Option<PathBuf>,
    /// Several requests with weights, below the URL: a list in YAML or JSON, or JSON lines
    #[arg(long, value_name = "FILE", help_heading = "Requests")]
    pub requests_file: Option<PathBuf>,
    /// Rows for ${column} in paths, header values and bodies: one a request, in turn
    #[arg(long, value_name = "FILE.csv", help_heading = "Requests")]
    pub data: Option<PathBuf>,

    /// A good answer has this status: 200, 2xx, 200-299; 2xx when absent
    #[arg(long, value_name = "STATUS", value_parser = values::status, help_heading = "What a good answer is")]
    pub expect_status: Option<StatusSet>,
    /// Its body holds this text; may be given several times
    #[arg(long, value_name = "TEXT", help_heading = "What a good answer is")]
    pub expect_contains: Vec<String>,
    /// Its body is JSON with something at this pointer (RFC 6901), or this very value; may be given several times
    #[arg(long, value_name = "/POINTER[=VALUE]", value_parser = values::json_check, help_heading = "What a good answer is")]
    pub expect_json: Vec<JsonCheck>,
    /// It comes within this time
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "What a good answer is")]
    pub expect_within: Option<Duration>,

    /// HTTP/2: over TLS as agreed on, without TLS from the start
    #[arg(long, help_heading = "Connections")]
    pub http2: bool,
    /// Requests at once on one connection
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "http2",
        help_heading = "Connections"
    )]
    pub streams: u32,
    /// Certificates (PEM) of the authorities to trust, instead of this system's
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    pub cacert: Option<PathBuf>,
    /// A new connection for each request
    #[arg(long, help_heading = "Connections")]
    pub no_keep_alive: bool,
    /// Limit for opening a connection
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, help_heading = "Connections")]
    pub connect_timeout: Duration,
    /// Limit for a request, from its start to the last byte of its answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, help_heading = "Connections")]
    pub timeout: Duration,

    /// Exit with 1 unless this holds: 'p95 < 300ms', 'service.p99 < 1s', 'errors < 1%', 'throughput > 100/s'; may be
    /// given several times
    #[arg(long = "threshold", value_name = "LIMIT", value_parser = threshold::parse, help_heading = "Verdict")]
    pub thresholds: Vec<Threshold>,
    /// End the run when more than this share of the requests of the last ten seconds failed; off for never
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = values::stop_at, help_heading = "Verdict")]
    pub stop_at_errors: StopAt,
    /// Allow addresses that are neither on this host nor the configured target, and more load than the usual ceilings
    #[arg(long, help_heading = "Verdict")]
    pub yes_really: bool,

    /// Save the whole run as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub save: Option<PathBuf>,
    /// Write the figures as CSV: a row for the run, and one for each of several requests
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Write the course of the run as CSV: a row for each second
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub series: Option<PathBuf>,
    /// Write the run as one HTML page with plots, which needs no network
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Say whether it went better or worse than a run saved with --save, by how much and how surely
    #[arg(long, value_name = "OLD.json", help_heading = "Verdict")]
    pub compare: Option<PathBuf>,
    /// Exit with 1 when it went worse than the run of --compare
    #[arg(long, requires = "compare", help_heading = "Verdict")]
    pub fail_if_worse: bool,
    /// No progress
    #[arg(long, short = 'q', help_heading = "Output")]
    pub quiet: bool,
}
