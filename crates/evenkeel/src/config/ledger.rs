//! `[ledger]`: the key that signs the log, and who elsewhere stands for it.

use std::path::PathBuf;

use evenkeel_ledger::tlog::VerifierKey;
use serde::Deserialize;

/// Most witnesses and most anchors.
pub const ANCHORS_MAX: usize = 16;

/// `[ledger]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerSection {
    /// Whether a checkpoint is signed with each commit.
    pub sign: bool,
    /// File with the signing key, made on first start; `keys/ledger.key` in the data directory when absent.
    pub key_file: Option<PathBuf>,
    /// Environment variable with the signing key, instead of a file.
    pub key_env: Option<String>,
    /// Program (and arguments) that prints the signing key, instead of a file.
    pub key_command: Vec<String>,
    /// Who cosigns checkpoints.
    pub witness: WitnessSection,
    /// Where checkpoints are put besides.
    pub anchors: Vec<AnchorSection>,
}

/// `[ledger.witness]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WitnessSection {
    /// How many witnesses have to cosign before a checkpoint counts as anchored.
    pub quorum: usize,
    /// What is done before a step that changes something when the quorum is not reached.
    pub unreachable: Unreachable,
    /// With `unreachable = "wait"`: how long at most, in milliseconds: 1 000 to 3 600 000.
    pub wait_ms: u64,
    /// How long a witness may take to answer, in milliseconds: 100 to 60 000.
    pub timeout_ms: u64,
    /// Longest time between two rounds while there are new entries, in milliseconds: 100 to 3 600 000.
    pub interval_ms: u64,
    /// The witnesses.
    pub servers: Vec<WitnessServer>,
}

/// What is done when the quorum cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unreachable {
    /// Act, and record the gap.
    #[default]
    Act,
    /// Wait for it; when it does not come, the step is not run.
    Wait,
    /// The step is not run: a person is alerted.
    Alert,
}

/// `[[ledger.witness.servers]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessServer {
    /// Its address.
    pub url: String,
    /// Its public key, as `evenkeel witness key` prints it.
    pub key: String,
}

/// `[[ledger.anchors]]`: exactly one of `file` and `url`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnchorSection {
    /// Checkpoints are appended to this file: on another mount, or it protects from nothing.
    pub file: Option<PathBuf>,
    /// Checkpoints are posted here.
    pub url: Option<String>,
    /// With `url`: environment variable with its bearer token.
    pub token_env: Option<String>,
}

impl Default for LedgerSection {
    fn default() -> Self {
        Self {
            sign: true,
            key_file: None,
            key_env: None,
            key_command: Vec::new(),
            witness: WitnessSection::default(),
            anchors: Vec::new(),
        }
    }
}

impl Default for WitnessSection {
    fn default() -> Self {
        Self {
            quorum: 1,
            unreachable: Unreachable::default(),
            wait_ms: 60_000,
            timeout_ms: 2_000,
            interval_ms: 1_000,
            servers: Vec::new(),
        }
    }
}

impl WitnessSection {
    /// The witnesses' public keys. The configuration was checked: each is one.
    pub fn keys(&self) -> Vec<VerifierKey> {
        self.servers
            .iter()
            .filter_map(|s| s.key.parse().ok())
            .collect()
    }
}

impl LedgerSection {
    /// Names of environment variables that hold secrets.
    pub(super) fn secret_names(&self) -> impl Iterator<Item = String> + '_ {
        let tokens = self.anchors.iter().filter_map(|a| a.token_env.clone());
        self.key_env.clone().into_iter().chain(tokens)
    }

    /// The first mistake: where, and what.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let ways = [
            self.key_file.is_some(),
            self.key_env.is_some(),
            !self.key_command.is_empty(),
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err((
                "ledger",
                "the key comes from one place: give `key_file`, `key_env` or `key_command`"
                    .to_owned(),
            ));
        }
        let witness = &self.witness;
        for (key, value, low, high) in [
            ("ledger.witness.wait_ms", witness.wait_ms, 1_000, 3_600_000),
            ("ledger.witness.timeout_ms", witness.timeout_ms, 100, 60_000),
            (
                "ledger.witness.interval_ms",
                witness.interval_ms,
                100,
                3_600_000,
            ),
        ] {
            if !(low..=high).contains(&value) {
                return Err((key, format!("{value} is not from {low} to {high}")));
            }
        }
        let somebody = !witness.servers.is_empty() || !self.anchors.is_empty();
        if somebody && !self.sign {
            return Err((
                "ledger.sign",
                "witnesses and anchors take signed checkpoints; set it to true, or remove them"
                    .to_owned(),
            ));
        }
        if witness.servers.len() > ANCHORS_MAX || self.anchors.len() > ANCHORS_MAX {
            return Err((
                "ledger",
                format!("at most {ANCHORS_MAX} witnesses and {ANCHORS_MAX} anchors"),
            ));
        }
        let most = witness.servers.len().max(1);
        if !(1..=most).contains(&witness.quorum) {
            return Err((
                "ledger.witness.quorum",
                format!(
                    "{} of {} witnesses cannot be",
                    witness.quorum,
                    witness.servers.len()
                ),
            ));
        }
        for server in &witness.servers {
            check_url("ledger.witness.servers", &server.url)?;
            let key: VerifierKey = server.key.parse().map_err(|e| {
                (
                    "ledger.witness.servers",
                    format!("key of {}: {e}", server.url),
                )
            })?;
            if key.algorithm() != evenkeel_ledger::tlog::Algorithm::CosignatureV1 {
                return Err((
                    "ledger.witness.servers",
                    format!(
                        "key of {}: it is no witness's key; `evenkeel witness key` prints one",
                        server.url
                    ),
                ));
            }
        }
        for anchor in &self.anchors {
            match (&anchor.file, &anchor.url) {
                (Some(_), None) if anchor.token_env.is_none() => {}
                (None, Some(url)) => check_url("ledger.anchors", url)?,
                _ => {
                    return Err((
                        "ledger.anchors",
                        "each has either `file`, or `url` and perhaps `token_env`".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_url(key: &'static str, url: &str) -> Result<(), (&'static str, String)> {
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(())
    } else {
        Err((
            key,
            format!("`{url}` does not start with http:// or https://"),
        ))
    }
}
