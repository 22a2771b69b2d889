//! The configuration: what `evenkeel.toml`, `.env` and the environment say, checked whole before anything starts.
//!
//! Every mistake is told with its place: file, line, column, what was expected, and the nearest valid name.

mod agent;
mod env;
mod ledger;
mod load;
mod metrics;
mod policy;
mod series;
mod sql;
mod stress;

use std::collections::BTreeMap;
use std::path::PathBuf;

use evenkeel_core::Mode;
use evenkeel_core::policy::{Limits, Window};
use evenkeel_detect::{DetectConfig, Thresholds};
use evenkeel_edge::collect::scrape::ScrapeNames;
use evenkeel_edge::collect::sql::SqlQuery;
use evenkeel_edge::target::{DatabaseSpec, ServiceSpec, Target, Tunable};
use evenkeel_stress::{MeshSpec, RequestSpec, SubjectServices, TestSpec};
use serde::Deserialize;

pub use agent::{AgentSection, HeartbeatSection};
pub use env::{EnvError, Environment};
pub use ledger::{
    ANCHORS_MAX, AnchorSection, LedgerSection, Unreachable, WitnessSection, WitnessServer,
};
pub use load::{ConfigError, load, load_text};
pub use metrics::{METRICS_MAX, MetricsSection};
pub use policy::{ApiSection, DEPENDENCIES_MAX, DependencySection};
pub use series::SeriesSection;
pub use stress::PostgresSection;

/// How the files in the data directory are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `evenkeel.db`, `training/`.
    #[default]
    Service,
    /// As the specification has it: `backend/grace.db`, `grace_training/`.
    Grace,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How files are named.
    pub profile: Profile,
    /// What is guarded.
    pub target: TargetSection,
    /// The stress tests.
    pub stress: StressSection,
    /// The watchdog.
    pub watchdog: WatchdogSection,
    /// The healing cycles.
    pub healing: HealingSection,
    /// How much may be done.
    pub limits: Limits,
    /// Recurring times in which nothing is done.
    pub maintenance: Vec<Window>,
    /// Orders and approvals over HTTP.
    pub api: ApiSection,
    /// The advisors.
    pub escalation: EscalationSection,
    /// Whom to alert.
    pub alerts: AlertsSection,
    /// Where the target may write its own audited actions.
    pub audit: AuditSection,
    /// How many snapshots are kept.
    pub snapshots: SnapshotsSection,
    /// Who signs the ledger, and who elsewhere stands for it.
    pub ledger: LedgerSection,
    /// How others know that Evenkeel lives.
    pub heartbeat: HeartbeatSection,
    /// What Evenkeel may use itself.
    pub agent: AgentSection,
    /// The configuration file's directory; paths start here. Not a key.
    #[serde(skip)]
    pub base: PathBuf,
    /// The target with every path resolved. Not a key.
    #[serde(skip)]
    pub resolved: Target,
}

/// `[target]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetSection {
    /// What people call it.
    pub name: String,
    /// Directory that paths start from; the configuration file's own when absent.
    pub root: PathBuf,
    /// Where it answers.
    pub base_url: Option<String>,
    /// Its services.
    pub services: Vec<ServiceSpec>,
    /// What they depend on outside it.
    pub dependencies: Vec<DependencySection>,
    /// Its database.
    pub database: Option<DatabaseSpec>,
    /// Its PostgreSQL database, for direct queries of the pool test.
    pub postgres: Option<PostgresSection>,
    /// Files that playbooks may change.
    pub config_files: Vec<PathBuf>,
    /// Values that playbooks may tune.
    pub tunables: std::collections::BTreeMap<String, Tunable>,
    /// Log files to follow.
    pub logs: Vec<PathBuf>,
    /// What the stress tests and the watchdog ask.
    pub endpoints: Endpoints,
    /// Its event mesh.
    pub mesh: Option<MeshSpec>,
    /// Which service answers what.
    pub serves: SubjectServices,
}

/// `[target.endpoints]`: each a path, `"POST /path"`, or a table with method, path, headers and body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// Answers 200 when the target is well.
    pub health: Option<RequestSpec>,
    /// Makes it query its database.
    pub database: Option<RequestSpec>,
    /// Up to four endpoints of its API.
    pub api: Vec<RequestSpec>,
    /// A chat request.
    pub chat: Option<RequestSpec>,
    /// Prometheus text.
    pub metrics: Option<RequestSpec>,
    /// A decision request.
    pub governance: Option<RequestSpec>,
    /// The request of which 100 must not make its memory grow; the first of `api`, else `health`, when absent.
    pub memory: Option<RequestSpec>,
}

/// `[stress]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StressSection {
    /// Whether the tests run after boot (`RUN_POST_BOOT_STRESS_TEST`).
    pub enabled: bool,
    /// Tests of your own, and changes to the eight, by name.
    pub tests: Vec<TestSpec>,
}

/// `[watchdog]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchdogSection {
    /// Whether it runs (`ENABLE_ANOMALY_WATCHDOG`).
    pub enabled: bool,
    /// Whether a baseline is computed and saved (`ESTABLISH_WATCHDOG_BASELINE`).
    pub baseline: bool,
    /// Time between checks, in milliseconds: 100 to 3 600 000.
    pub interval_ms: u64,
    /// How long a probe may take before the target counts as hung, in milliseconds: 10 to 60 000.
    pub probe_timeout_ms: u64,
    /// Limits.
    pub thresholds: ThresholdsSection,
    /// Addresses (or paths) probed at each check; the health endpoint when empty.
    pub probes: Vec<String>,
    /// Names of the target's own metrics, at `[target.endpoints] metrics`; absent: they are not scraped.
    pub scrape: Option<ScrapeNames>,
    /// Further pages of metrics, of which every series is read.
    pub metrics: Vec<MetricsSection>,
    /// Questions to SQLite databases whose answers are series; once checked, their paths start at the root.
    pub sql: Vec<SqlQuery>,
    /// How the detectors judge; `interval_ms` and the probe's deadline are taken from above.
    pub detect: DetectConfig,
    /// Series that are followed by themselves, and the budget of alarms that is spread over them.
    pub series: SeriesSection,
    /// Every sample is written here too, one JSON object a line, for `evenkeel replay`; absent: nothing is recorded.
    pub record: Option<PathBuf>,
}

/// `[watchdog.thresholds]`: a value exactly at its limit is still good.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdsSection {
    /// Share of errors, above 0 and at most 1.
    pub error_rate: f64,
    /// 95th percentile of the response times, in milliseconds.
    pub latency_p95: f64,
    /// Growth of memory, in MB an hour.
    pub memory_growth_mb: f64,
    /// Share of failed playbook runs, above 0 and at most 1.
    pub failure_rate: f64,
}

impl Default for ThresholdsSection {
    fn default() -> Self {
        let t = Thresholds::default();
        Self {
            error_rate: t.error_rate,
            latency_p95: t.latency_p95,
            memory_growth_mb: t.memory_growth_mb,
            failure_rate: t.failure_rate,
        }
    }
}

impl From<ThresholdsSection> for Thresholds {
    fn from(t: ThresholdsSection) -> Self {
        Self {
            error_rate: t.error_rate,
            latency_p95: t.latency_p95,
            memory_growth_mb: t.memory_growth_mb,
            failure_rate: t.failure_rate,
        }
    }
}

/// `[healing]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealingSection {
    /// Whether anything is healed. Off: anomalies are recorded and told, and nothing is done.
    pub enabled: bool,
    /// How freely: `shadow` works everything out and does nothing, `approve` asks a person first, `auto` leaves it to
    /// the playbooks' tiers.
    pub mode: Mode,
    /// The same for single playbooks, by name.
    pub modes: BTreeMap<String, Mode>,
    /// Failed attempts before an advisor is asked (`MAX_HEALING_ATTEMPTS`): 1 to 10.
    pub max_attempts: u32,
    /// How long the signal must stay normal after a passed re-test, in milliseconds: at most 3 600 000.
    pub settle_ms: u64,
    /// Wait between a failed attempt and the next, in milliseconds: at most 3 600 000.
    pub retry_wait_ms: u64,
    /// An anomaly that comes back within this time means its fix did not last, in seconds.
    pub recurrence_window_s: u64,
    /// Directory with playbooks of your own; one with the name of a built-in playbook replaces it.
    pub playbooks: PathBuf,
}

/// `[escalation]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EscalationSection {
    /// Whether advisors are asked (`ENABLE_AMP_ESCALATION`).
    pub enabled: bool,
    /// Answers with less confidence are not followed: 0 to 1.
    pub confidence_min: f64,
    /// How long an advisor may think, in milliseconds: 1 000 to 600 000.
    pub timeout_ms: u64,
    /// Amp, by its command line; used when `AMP_API_KEY` is set.
    pub amp: AmpSection,
    /// Advisors of your own: the question is posted as JSON, and JSON comes back. Asked after Amp, in order.
    pub http: Vec<HttpAdvisorSection>,
}

/// `[escalation.amp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmpSection {
    /// The program.
    pub command: String,
}

/// `[[escalation.http]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAdvisorSection {
    /// What to call it.
    pub name: String,
    /// Its address.
    pub url: String,
    /// Environment variable with its bearer token.
    #[serde(default)]
    pub token_env: Option<String>,
}

/// `[alerts]`: the alert file is always written; these are further channels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsSection {
    /// The alert is posted here as JSON.
    pub webhook: Option<String>,
    /// The alert is given to this program on its standard input.
    pub command: Vec<String>,
}

/// `[audit]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Loopback address to listen on, such as `127.0.0.1:8790`; absent: no endpoint.
    pub listen: Option<std::net::SocketAddr>,
    /// File with the token that writers must send; made with a random one when it does not exist.
    pub token_file: Option<PathBuf>,
}

/// `[snapshots]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotsSection {
    /// Most snapshots kept.
    pub keep: usize,
    /// Oldest snapshot kept, in days.
    pub keep_days: u64,
    /// Most bytes kept.
    pub max_bytes: u64,
}

impl Default for StressSection {
    fn default() -> Self {
        Self {
            enabled: true,
            tests: Vec::new(),
        }
    }
}

impl Default for WatchdogSection {
    fn default() -> Self {
        Self {
            enabled: true,
            baseline: true,
            interval_ms: 60_000,
            probe_timeout_ms: 5_000,
            thresholds: ThresholdsSection::default(),
            probes: Vec::new(),
            scrape: None,
            metrics: Vec::new(),
            sql: Vec::new(),
            detect: DetectConfig::default(),
            series: SeriesSection::default(),
            record: None,
        }
    }
}

impl Default for HealingSection {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: Mode::Shadow,
            modes: BTreeMap::new(),
            max_attempts: 3,
            settle_ms: 10_000,
            retry_wait_ms: 60_000,
            recurrence_window_s: 600,
            playbooks: PathBuf::from("playbooks"),
        }
    }
}

impl Default for EscalationSection {
    fn default() -> Self {
        Self {
            enabled: true,
            confidence_min: 0.5,
            timeout_ms: 120_000,
            amp: AmpSection::default(),
            http: Vec::new(),
        }
    }
}

impl Default for AmpSection {
    fn default() -> Self {
        Self {
            command: "amp".to_owned(),
        }
    }
}

impl Default for SnapshotsSection {
    fn default() -> Self {
        Self {
            keep: 50,
            keep_days: 30,
            max_bytes: 10 * 1024 * 1024 * 1024,
        }
    }
}

impl TargetSection {
    /// The part that the edge needs.
    fn to_target(&self) -> Target {
        Target {
            name: if self.name.is_empty() {
                "target".to_owned()
            } else {
                self.name.clone()
            },
            root: self.root.clone(),
            base_url: self.base_url.clone(),
            services: self.services.clone(),
            database: self.database.clone(),
            config_files: self.config_files.clone(),
            tunables: self.tunables.clone(),
            logs: self.logs.clone(),
        }
    }
}

impl Config {
    /// The stress tests: the eight, with what the configuration changes, and those it adds.
    pub fn tests(&self) -> Vec<TestSpec> {
        let t = &self.target;
        let subjects = evenkeel_stress::Subjects {
            health: t.endpoints.health.clone(),
            database_endpoint: t.endpoints.database.clone(),
            database_direct: t.database.is_some() || t.postgres.is_some(),
            api_endpoints: t.endpoints.api.clone(),
            chat: t.endpoints.chat.clone(),
            metrics: t.endpoints.metrics.clone(),
            governance: t.endpoints.governance.clone(),
            mesh: t.mesh.clone(),
            memory_request: t
                .endpoints
                .memory
                .clone()
                .or_else(|| t.endpoints.api.first().cloned())
                .or_else(|| t.endpoints.health.clone()),
            process_known: !t.services.is_empty(),
            memory_service: None,
            services: t.serves.clone(),
        };
        evenkeel_stress::merge_tests(
            evenkeel_stress::eight_tests(&subjects),
            self.stress.tests.clone(),
        )
    }

    /// Names of environment variables whose values are secrets: never passed on, never written.
    pub fn secret_names(&self) -> Vec<String> {
        let mut names = vec!["AMP_API_KEY".to_owned()];
        names.extend(
            self.escalation
                .http
                .iter()
                .filter_map(|h| h.token_env.clone()),
        );
        names.extend(self.target.postgres.iter().map(|p| p.url_env.clone()));
        names.extend(self.ledger.secret_names());
        names.extend(self.metrics_secrets());
        names
    }
}
