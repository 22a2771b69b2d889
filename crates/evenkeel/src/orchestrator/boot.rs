//! The boot gate: seven stages, each a real check with its own message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Mode;
use evenkeel_core::redact::Redactor;
use evenkeel_edge::advisor::Secret;
use evenkeel_edge::anchor::{Anchor, FileAnchor, PostAnchor};
use evenkeel_edge::witness::WitnessClient;
use evenkeel_ledger::tlog::{Checkpoint, Signer};
use evenkeel_ledger::{Ledger, VerifyOptions};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::{Options, Orchestrator, Summary};
use crate::alarm::Alarm;
use crate::anchoring::{Anchoring, Elsewhere, Parts, look_elsewhere};
use crate::audit;
use crate::config::{Config, Environment};
use crate::control::Control;
use crate::healing::{Healing, World};
use crate::journal::Journal;
use crate::layout::{Layout, LayoutError};
use crate::mind::Mind;
use crate::pulse::Pulse;
use crate::signing;
use crate::state::{self, ReplayFailure};
use crate::token::token;
use crate::ui::{Mark, Say, Ui};

/// Free space below which nothing is started, in bytes.
const FREE_SPACE_MIN: u64 = 64 * 1024 * 1024;
/// How many health probes the target has to become ready, and the pause between them.
const READY_TRIES: (u32, Duration) = (50, Duration::from_millis(200));
/// Stages of the gate.
const STAGES: usize = 7;
/// What a person does about a ledger that cannot be trusted.
const LEDGER_STEPS: [&str; 3] = [
    "keep the ledger and its -wal as evidence: copy them away before anything else",
    "evenkeel ledger verify --against WITNESS",
    "find out who changed it; then start with another --data-dir",
];

/// Why the boot gate did not pass. The message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Too little space.
    #[error(
        "{dir} has {free_mb} MB free, at least {min_mb} MB are needed for snapshots and the ledger; free some, or choose another --data-dir"
    )]
    NoSpace {
        /// The directory.
        dir: String,
        /// Free, in MB.
        free_mb: u64,
        /// Needed, in MB.
        min_mb: u64,
    },
    /// The ledger does not open, or takes no entry.
    #[error(transparent)]
    Ledger(#[from] evenkeel_ledger::LedgerError),
    /// The ledger opens and does not verify.
    #[error(
        "the ledger {file} does not verify: {damage}; nothing is started on it: keep it as evidence, and choose another --data-dir"
    )]
    LedgerDamaged {
        /// The file.
        file: PathBuf,
        /// The first damage.
        damage: String,
    },
    /// The ledger is not what others have seen of it.
    #[error("{0}")]
    LedgerSuspect(String),
    /// The ledger's records do not fit together.
    #[error(transparent)]
    Replay(#[from] ReplayFailure),
    /// The target or something around it.
    #[error("{0}")]
    Target(String),
}

/// Tells how the stages end.
struct Gate<'a>(&'a Ui);

impl Gate<'_> {
    fn say(&self, n: usize, mark: Mark, message: impl Into<String>) {
        const NAMES: [&str; STAGES] = [
            "configuration",
            "data directory",
            "ledger",
            "target processes",
            "target ready",
            "target database",
            "advisor and alerts",
        ];
        self.0.say(&Say::BootStage {
            n,
            total: STAGES,
            name: NAMES[n - 1],
            mark,
            message: message.into(),
        });
    }

    /// A stage that fails says so before its error ends the command.
    fn pass<T, E: Into<BootError>>(&self, n: usize, result: Result<T, E>) -> Result<T, BootError> {
        result.map_err(|e| {
            let e = e.into();
            self.say(n, Mark::Fail, e.to_string());
            e
        })
    }
}

impl Orchestrator {
    /// Passes the boot gate, or says at which stage it failed and what to do.
    pub async fn boot(options: Options) -> Result<Self, BootError> {
        let Options {
            config,
            environment,
            playbooks,
            layout,
            ui,
            stop,
            supervise,
            own_process,
        } = options;
        let gate = Gate(&ui);
        let started = crate::clock::now();
        gate.say(
            1,
            Mark::Ok,
            format!(
                "target {}, {} playbooks",
                config.resolved.name,
                playbooks.len()
            ),
        );

        let lock = gate.pass(2, layout.lock())?;
        gate.pass(2, layout.create())?;
        let free = gate.pass(2, enough_space(layout.root()))?;
        gate.say(2, Mark::Ok, format!("{}{free}", layout.root().display()));

        let token_file = audit_token_file(&config, &layout);
        let mut secrets: Vec<String> = crate::secrets::collect(&config, &environment, &playbooks)
            .into_values()
            .collect();
        if config.audit.listen.is_some() {
            secrets.push(gate.pass(
                3,
                token(&token_file).map_err(|e| BootError::Target(format!("[audit] {e}"))),
            )?);
        }
        let mut api = None;
        if let Some(listen) = config.api.listen {
            let file = api_token_file(&config, &layout);
            let made = token(&file).map_err(|e| BootError::Target(format!("[api] {e}")));
            let made = gate.pass(3, made)?;
            secrets.push(made.clone());
            api = Some((listen, made));
        }
        let redactor = Arc::new(Redactor::new(secrets));
        let alarm = Alarm::new(&config, &layout, &redactor, &ui);
        let alarm = gate.pass(3, alarm.map_err(BootError::Target))?;
        let outside = Outside::new(&config, &environment, &layout).await;
        let outside = gate.pass(3, outside)?;
        let opened = open_ledger(&layout, &config, &outside, &alarm).await;
        let (ledger, healer, about) = gate.pass(3, opened)?;
        let journal = Journal::new(ledger, Arc::clone(&redactor));
        let mut endpoint = None;
        if let Some(addr) = config.audit.listen {
            let listening = audit::listen(addr, &token_file, journal.clone()).await;
            endpoint = Some(gate.pass(3, listening.map_err(|e| BootError::Target(e.to_string())))?);
        }
        let mind = Mind::new(healer, journal.clone(), config.policy());
        let control = Control::start(&mind, &ui, &layout, api).await;
        let control = gate.pass(3, control.map_err(BootError::Target))?;
        if let Some(addr) = control.http {
            ui.note(format!(
                "orders and approvals: http://{addr}/v1/ with a token"
            ));
        }
        let (mark, text) = about;
        gate.say(3, mark, text);
        let anchoring = Anchoring::begin(
            &config.ledger,
            Parts {
                journal: journal.clone(),
                alarm: alarm.clone(),
                ui: ui.clone(),
                witnesses: outside.witnesses,
                anchors: outside.anchors,
            },
        );

        let pulse = Pulse::new(&config, &layout, &journal, own_process, &stop);
        let pulse = gate.pass(4, pulse.map_err(BootError::Target))?;
        let world = World::new(
            &config,
            &environment,
            playbooks,
            &layout,
            &ui,
            redactor,
            &journal,
            &mind,
            anchoring.gate(),
            pulse.clone(),
        );
        let mut world = gate.pass(4, world.map_err(BootError::Target))?;
        let finished = world.finish_restore().await.map_err(BootError::Target);
        if let Some(line) = gate.pass(4, finished)? {
            ui.note(line);
        }
        let processes = world.bring_up(supervise).await.map_err(BootError::Target);
        let processes = gate.pass(4, processes)?;
        if processes.is_empty() {
            gate.say(
                4,
                Mark::Warn,
                "no [[target.services]]: a crash can be seen, not healed",
            );
        } else {
            gate.say(4, Mark::Ok, processes.join(", "));
        }

        if world.probes.is_empty() {
            gate.say(
                5,
                Mark::Warn,
                "[target.endpoints] health is not set: readiness is not checked",
            );
        } else {
            let ready = ready(&world, &stop).await.map_err(BootError::Target);
            gate.say(5, Mark::Ok, gate.pass(5, ready)?);
        }

        match &config.resolved.database {
            None => gate.say(6, Mark::Skip, "[target.database] is not set"),
            Some(database) => {
                let path = database.path.clone();
                let checked = tokio::task::spawn_blocking(move || integrity(&path))
                    .await
                    .unwrap_or_else(|e| Err(e.to_string()));
                gate.say(
                    6,
                    Mark::Ok,
                    gate.pass(6, checked.map_err(BootError::Target))?,
                );
            }
        }

        let (mark, message) = world.describe_escalation();
        gate.say(7, mark, message);
        world.connect_mesh();
        ui.say(&Say::BootComplete {
            passed: STAGES,
            total: STAGES,
        });
        ui.note(mode_line(&mind));
        journal
            .note(
                "evenkeel",
                "boot",
                "complete_boot",
                &config.resolved.name,
                &json!({"stages": STAGES, "version": env!("CARGO_PKG_VERSION")}),
                "success",
            )
            .await?;
        pulse.ready("boot gate passed");
        Ok(Self {
            healing: Healing::new(mind, Arc::new(world), stop.clone()),
            journal,
            config,
            layout,
            ui,
            stop,
            watch: None,
            summary: Summary::default(),
            started,
            last_cycle_end: None,
            anchoring,
            alarm,
            deferred: BTreeMap::new(),
            room_told: false,
            _control: control,
            _audit: endpoint,
            _lock: lock,
        })
    }
}

/// How freely it will act, in words.
fn mode_line(mind: &Mind) -> String {
    let mode = mind.healer().mode(mind.policy());
    let means = match mode {
        Mode::Shadow => {
            "works everything out and does nothing; to let it act: evenkeel mode auto (or approve)"
        }
        Mode::Approve => "asks a person before each run of a playbook",
        Mode::Auto => "acts by the playbooks' tiers",
    };
    format!("Mode {mode}: {means}")
}

/// Where the token of the HTTP interface lies.
pub(crate) fn api_token_file(config: &Config, layout: &Layout) -> PathBuf {
    config
        .api
        .token_file
        .as_ref()
        .map_or_else(|| layout.api_token(), |f| config.base.join(f))
}

/// Where the token of the audit endpoint lies.
pub(crate) fn audit_token_file(config: &Config, layout: &Layout) -> PathBuf {
    config
        .audit
        .token_file
        .as_ref()
        .map_or_else(|| layout.audit_token(), |f| config.base.join(f))
}

/// The key of the ledger, and those elsewhere.
struct Outside {
    signer: Option<Arc<Signer>>,
    witnesses: Vec<WitnessClient>,
    anchors: Vec<Anchor>,
}

impl Outside {
    async fn new(
        config: &Config,
        environment: &Environment,
        layout: &Layout,
    ) -> Result<Self, BootError> {
        let ledger = &config.ledger;
        let timeout = Duration::from_millis(ledger.witness.timeout_ms);
        let signer = signing::signer(config, environment, layout)
            .await
            .map_err(BootError::Target)?;
        let witnesses = ledger
            .witness
            .servers
            .iter()
            .zip(ledger.witness.keys())
            .map(|(server, key)| {
                WitnessClient::new(&server.url, key, timeout)
                    .map_err(|e| BootError::Target(format!("the witness {}: {e}", server.url)))
            })
            .collect::<Result<_, _>>()?;
        let anchors = ledger
            .anchors
            .iter()
            .filter_map(|anchor| match (&anchor.file, &anchor.url) {
                (Some(file), _) => Some(Ok(Anchor::File(FileAnchor::new(config.base.join(file))))),
                (None, Some(url)) => {
                    let token = anchor
                        .token_env
                        .as_deref()
                        .and_then(|name| environment.get(name));
                    Some(
                        PostAnchor::new(
                            &Secret::new(url.as_str()),
                            token.map(Secret::new),
                            timeout,
                        )
                        .map(Anchor::Post)
                        .map_err(|e| BootError::Target(format!("[[ledger.anchors]]: {e}"))),
                    )
                }
                (None, None) => None,
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            signer,
            witnesses,
            anchors,
        })
    }
}

/// What others have seen comes first: a ledger that they contradict is neither opened nor signed.
async fn open_ledger(
    layout: &Layout,
    config: &Config,
    outside: &Outside,
    alarm: &Alarm,
) -> Result<(Ledger, evenkeel_core::healer::Healer, (Mark, String)), BootError> {
    let path = layout.ledger();
    let mut elsewhere = Elsewhere::default();
    if let Some(signer) = &outside.signer {
        let seen = look_elsewhere(
            &path,
            signer.verifier(),
            &outside.witnesses,
            &outside.anchors,
        )
        .await;
        match seen {
            Ok(found) => elsewhere = found,
            Err(suspect) => {
                let why = suspect.to_string();
                alarm
                    .about_itself("ledger_behind_witness", &why, &LEDGER_STEPS)
                    .await;
                return Err(BootError::LedgerSuspect(why));
            }
        }
    }
    let unsigned = outside.signer.as_ref().and_then(|_| unsigned_end(&path));
    let options = evenkeel_ledger::Options {
        signer: outside.signer.clone(),
        ..evenkeel_ledger::Options::default()
    };
    let ledger = Ledger::open_with(&path, &options)?;
    let against = VerifyOptions {
        against: elsewhere.checkpoints.clone(),
        witnesses: config.ledger.witness.keys(),
        ..VerifyOptions::default()
    };
    let report = evenkeel_ledger::verify_with(&path, &against, |_, _| {})?;
    if let Some(damage) = report.damage.first() {
        let damage = damage.to_string();
        let why = format!("the ledger {} does not verify: {damage}", path.display());
        alarm
            .about_itself("ledger_damaged", &why, &LEDGER_STEPS)
            .await;
        return Err(BootError::LedgerDamaged { file: path, damage });
    }
    let healer = state::replay(&ledger.reader()?)?;
    if let Some((first, last)) = unsigned {
        let entries = format!(
            "{} entries verify; {first} to {last} were written without the key and are signed from now on: look at them",
            report.entries
        );
        return Ok((ledger, healer, (Mark::Warn, entries)));
    }
    let about = match (
        elsewhere.unreachable.as_slice(),
        elsewhere.checkpoints.len(),
    ) {
        ([], 0) => (Mark::Ok, format!("{} entries verify", report.entries)),
        ([], n) => (
            Mark::Ok,
            format!(
                "{} entries verify, also against {n} checkpoints from elsewhere",
                report.entries
            ),
        ),
        (out_of_reach, _) => (
            Mark::Warn,
            format!(
                "{} entries verify; not compared with {}",
                report.entries,
                out_of_reach.join("; ")
            ),
        ),
    };
    Ok((ledger, healer, about))
}

/// The entries at the end of a signed log that nobody signed. Who has the file and not the key could have written them.
fn unsigned_end(path: &Path) -> Option<(u64, u64)> {
    let reader = evenkeel_ledger::Reader::open(path).ok()?;
    let note = reader.checkpoint().ok()??;
    let signed = Checkpoint::parse(note.text()).ok()?.size;
    let last = reader.head().ok()?.sequence;
    (last > signed).then_some((signed + 1, last))
}

fn enough_space(dir: &Path) -> Result<String, BootError> {
    match free_bytes(dir) {
        None => Ok(String::new()),
        Some(free) if free < FREE_SPACE_MIN => Err(BootError::NoSpace {
            dir: dir.display().to_string(),
            free_mb: free / 1_048_576,
            min_mb: FREE_SPACE_MIN / 1_048_576,
        }),
        Some(free) => Ok(format!(", {:.1} GB free", free as f64 / 1_073_741_824.0)),
    }
}

async fn ready(world: &World, stop: &crate::stop::Stop) -> Result<String, String> {
    let (tries, pause) = READY_TRIES;
    let mut last = String::new();
    for _ in 0..tries {
        let mut slowest = 0.0f64;
        let mut bad = None;
        for url in &world.probes {
            let p = world.prober.probe(url, world.probe_deadline()).await;
            slowest = slowest.max(p.latency_ms);
            if !p.ok {
                bad = Some(format!(
                    "{url}: {}",
                    p.detail.unwrap_or_else(|| "no good answer".into())
                ));
                break;
            }
        }
        match bad {
            None => {
                return Ok(format!(
                    "{} answered in {slowest:.0} ms",
                    world.probes.join(", ")
                ));
            }
            Some(why) => last = why,
        }
        if !stop.sleep(pause).await {
            return Err("stopped while waiting for the target".to_owned());
        }
    }
    Err(format!(
        "the target does not get ready: {last}; look at its own log, and at [target] base_url and [target.endpoints] health"
    ))
}

fn integrity(path: &Path) -> Result<String, String> {
    let shown = path.display();
    if !path.exists() {
        return Err(format!(
            "the target's database {shown} does not exist; look at [target.database] path"
        ));
    }
    let check = || -> rusqlite::Result<String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(verdict) if verdict == "ok" => {
            Ok(format!("{shown} opens and passes its integrity check"))
        }
        Ok(verdict) => Err(format!(
            "the target's database {shown} is damaged: {verdict}; restore it first"
        )),
        Err(e) => Err(format!(
            "the target's database {shown} cannot be used: {e}; look at [target.database] path"
        )),
    }
}

#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}
