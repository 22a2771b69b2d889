//! Asks a witness to cosign a checkpoint. No redirects, one time limit for each request, bounded answers, and nothing
//! is believed that the witness's key did not sign.
//!
//! What is not signed in the protocol is the size in a 409. A liar in between can make this say that the witness is
//! ahead, and so raise an alarm, or withhold cosignatures; it cannot make one. `https://` keeps it out.

use std::fmt;
use std::time::Duration;

use evenkeel_ledger::Hash;
use evenkeel_ledger::tlog::note::NOTE_BYTES_MAX;
use evenkeel_ledger::tlog::witness::{parse_cosignatures_body, parse_size_body};
use evenkeel_ledger::tlog::{
    AddCheckpoint, Algorithm, Checkpoint, CheckpointError, SignatureLine, SignedNote, VerifierKey,
};
use evenkeel_ledger::witness::Latest;
use reqwest::{Client, Response, StatusCode, Url};

use crate::plain::one_line;
use crate::web::{self, Body};

/// The longest answer that is read, in bytes: a note.
const ANSWER_BYTES_MAX: usize = NOTE_BYTES_MAX;
/// How much of a refusal's words is repeated, in bytes.
const WORDS_BYTES_MAX: usize = 300;

/// Why there is no cosignature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The address or the key cannot be a witness's.
    #[error("the witness is not configured rightly: {reason}")]
    Configured {
        /// What is wrong.
        reason: String,
    },
    /// The note to be cosigned is not a checkpoint.
    #[error("what the witness is to cosign: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log could not prove its own growth.
    #[error("no proof that this log grew from {old} entries: {reason}")]
    Proof {
        /// The size that the witness knows.
        old: u64,
        /// What happened.
        reason: String,
    },
    /// The witness cosigned a larger log than this: an old copy was put back, or the tail was cut.
    #[error(
        "the witness knows {witness_size} entries of this log, here are {size}: an old copy was put back or its end was cut off; sign nothing, and find the entries that are missing"
    )]
    Behind {
        /// Number of entries that the witness knows.
        witness_size: u64,
        /// Number of entries here.
        size: u64,
    },
    /// The witness cosigned another history of this log.
    #[error(
        "the witness knows other entries among the first {witness_size} of this log: it was rewritten, or its key signed two logs; sign nothing, and keep both"
    )]
    Forked {
        /// Number of entries that the witness knows.
        witness_size: u64,
    },
    /// Somebody else had the witness cosign this log in between. Asking again is right.
    #[error(
        "the witness was asked to cosign this log by another at the same time; it knows {witness_size} entries"
    )]
    Raced {
        /// Number of entries that the witness knows now.
        witness_size: u64,
    },
    /// 404: the witness does not know this log.
    #[error("the witness does not know this log; have its operator add the log's verifier key")]
    Unknown,
    /// 403: the witness does not trust the key that signed.
    #[error(
        "the witness does not trust the key that signed; after a rotation its operator has to add the new verifier key"
    )]
    Untrusted,
    /// It cannot be reached, or cannot answer now.
    #[error("the witness cannot be reached: {reason}")]
    Unreachable {
        /// What happened, without the address.
        reason: String,
    },
    /// There is an answer, and it is not one that a witness with that key gives.
    #[error("the witness's answer cannot be used: {reason}")]
    BadAnswer {
        /// What is wrong with it.
        reason: String,
    },
}

impl WitnessError {
    /// Whether the log itself is in doubt: nothing may be signed, and a person must be told.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Behind { .. } | Self::Forked { .. })
    }

    fn bad(reason: impl fmt::Display) -> Self {
        Self::BadAnswer {
            reason: one_line(&reason.to_string(), WORDS_BYTES_MAX),
        }
    }
}

/// A witness as seen from a log. Cheap to clone; connections are kept alive between requests.
#[derive(Debug, Clone)]
pub struct WitnessClient {
    client: Client,
    add: Url,
    checkpoint: Url,
    verifier: VerifierKey,
}

/// What a witness said to one request.
enum Said {
    Cosigned(SignatureLine),
    Size(u64),
}

impl WitnessClient {
    /// A witness at an address (its *submission prefix*), that cosigns with this key, type 0x04. Each request ends
    /// within `limit`.
    ///
    /// # Errors
    /// [`WitnessError::Configured`]: the address is none, or the key is a log's.
    pub fn new(url: &str, verifier: VerifierKey, limit: Duration) -> Result<Self, WitnessError> {
        let wrong = |reason: String| WitnessError::Configured { reason };
        if verifier.algorithm() != Algorithm::CosignatureV1 {
            return Err(wrong(format!(
                "the key of {} is not a witness's (signature type 0x04)",
                verifier.name()
            )));
        }
        let url = web::address(url).map_err(wrong)?;
        let below = |name: &str| {
            let mut url = url.clone();
            url.set_query(None);
            url.set_fragment(None);
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().push(name);
            }
            url
        };
        Ok(Self {
            client: web::client(&url, limit).map_err(wrong)?,
            add: below("add-checkpoint"),
            checkpoint: below("checkpoint"),
            verifier,
        })
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    /// The key that its cosignatures are verified with.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Has a checkpoint of ours cosigned, and verifies the answer; the line can be added to the note.
    ///
    /// `old_hint` is the size that the witness is thought to know: of the checkpoint that it cosigned last, 0 for none.
    /// Where it names another one, it is asked once more with that. `consistency` proves that the log grew from the
    /// size it is given to the checkpoint's; it is not asked for 0 and for the checkpoint's own size.
    ///
    /// At start, before anything new is signed, the last checkpoint of the log at hand tells where it stands:
    /// [`WitnessError::Behind`] and [`WitnessError::Forked`] are the alarms.
    ///
    /// # Errors
    /// See [`WitnessError`]. [`WitnessError::Forked`] presumes that the proofs are right.
    pub async fn cosign<E: fmt::Display>(
        &self,
        checkpoint: &SignedNote,
        old_hint: u64,
        consistency: impl Fn(u64) -> Result<Vec<Hash>, E>,
    ) -> Result<SignatureLine, WitnessError> {
        let size = Checkpoint::parse(checkpoint.text())?.size;
        let request = |old_size: u64| {
            let proof = if old_size == 0 || old_size == size {
                Vec::new()
            } else {
                consistency(old_size).map_err(|error| WitnessError::Proof {
                    old: old_size,
                    reason: one_line(&error.to_string(), WORDS_BYTES_MAX),
                })?
            };
            Ok::<_, WitnessError>(AddCheckpoint {
                old_size,
                proof,
                checkpoint: checkpoint.clone(),
            })
        };
        // A witness refuses an old size above the new one without a word about its own.
        let old = old_hint.min(size);
        let witness_size = match self.ask(&request(old)?, size).await? {
            Said::Cosigned(line) => return Ok(line),
            Said::Size(known) => known,
        };
        match self.ask(&request(witness_size)?, size).await? {
            Said::Cosigned(line) => Ok(line),
            Said::Size(witness_size) => Err(WitnessError::Raced { witness_size }),
        }
    }

    /// One request. A size that is answered is below `size` and not the one asked with.
    async fn ask(&self, request: &AddCheckpoint, size: u64) -> Result<Said, WitnessError> {
        let response = self
            .client
            .post(self.add.clone())
            .header("content-type", "text/plain; charset=utf-8")
            .body(request.to_string())
            .send()
            .await;
        let (status, body) = answer(response).await?;
        match status {
            StatusCode::OK => self
                .cosignature(&request.checkpoint, &body)
                .map(Said::Cosigned),
            StatusCode::CONFLICT => match parse_size_body(&body) {
                Some(witness_size) if witness_size > size => {
                    Err(WitnessError::Behind { witness_size, size })
                }
                Some(known) if known != request.old_size => Ok(Said::Size(known)),
                // The size is right, so the root is not. Some witnesses then name no size.
                _ if request.old_size == size => Err(WitnessError::Forked { witness_size: size }),
                Some(_) => Err(WitnessError::bad("a conflict with the size that it knows")),
                None => Err(WitnessError::bad("a conflict without a size")),
            },
            StatusCode::UNPROCESSABLE_ENTITY => Err(WitnessError::Forked {
                witness_size: request.old_size,
            }),
            other => Err(refused(other, &body)),
        }
    }

    /// The witness's line in its answer, the latest where there are several; those of other keys are ignored.
    fn cosignature(
        &self,
        checkpoint: &SignedNote,
        body: &[u8],
    ) -> Result<SignatureLine, WitnessError> {
        let lines = parse_cosignatures_body(body).map_err(WitnessError::bad)?;
        let mut best: Option<(Option<u64>, SignatureLine)> = None;
        for line in lines {
            if (line.name(), line.id()) != (self.verifier.name(), self.verifier.id()) {
                continue;
            }
            let time = checkpoint
                .clone()
                .add_verified(line.clone(), &self.verifier)
                .map_err(WitnessError::bad)?
                .time;
            if best.as_ref().is_none_or(|(before, _)| *before < time) {
                best = Some((time, line));
            }
        }
        best.map(|(_, line)| line)
            .ok_or_else(|| WitnessError::bad(format!("no cosignature by {}", self.verifier)))
    }

    /// The latest checkpoint of a log that the witness cosigned, by GET on `checkpoint`, which is Evenkeel's own addition
    /// to the protocol. Verified: it is signed by one of `log_keys`, and by the witness. An older one could be played
    /// back, which its time tells.
    ///
    /// # Errors
    /// [`WitnessError::Unknown`]: the witness knows nothing of that log, **or is of another make** and does not answer
    /// such requests at all. Then [`Self::cosign`] with the log's last checkpoint tells as much.
    pub async fn latest(
        &self,
        origin: &str,
        log_keys: &[VerifierKey],
    ) -> Result<Latest, WitnessError> {
        let mut url = self.checkpoint.clone();
        url.query_pairs_mut().append_pair("origin", origin);
        let (status, body) = answer(self.client.get(url).send().await).await?;
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        let note = SignedNote::parse(&body).map_err(WitnessError::bad)?;
        note.verify(log_keys).map_err(WitnessError::bad)?;
        let own = note
            .verify(std::slice::from_ref(&self.verifier))
            .map_err(WitnessError::bad)?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(WitnessError::bad)?;
        if checkpoint.origin != origin {
            return Err(WitnessError::bad("a checkpoint of another log"));
        }
        let time = own.signatures().iter().filter_map(|by| by.time).max();
        Ok(Latest {
            note,
            checkpoint,
            cosigned_unix: time.unwrap_or(0),
        })
    }

    /// How many entries of a log the witness knows: the size of [`Self::latest`].
    ///
    /// # Errors
    /// As [`Self::latest`].
    pub async fn latest_size(
        &self,
        origin: &str,
        log_keys: &[VerifierKey],
    ) -> Result<u64, WitnessError> {
        Ok(self.latest(origin, log_keys).await?.checkpoint.size)
    }
}

/// A checkpoint from an address, **not verified**: whoever compares a log with it verifies it with the log's keys. Of an
/// address without a path, a witness's, the latest of the log `origin` is asked for.
///
/// # Errors
/// See [`WitnessError`].
pub async fn fetch_checkpoint(
    url: &str,
    origin: Option<&str>,
    limit: Duration,
) -> Result<SignedNote, WitnessError> {
    let wrong = |reason: String| WitnessError::Configured { reason };
    let mut url = web::address(url).map_err(wrong)?;
    if url.path() == "/" && url.query().is_none() {
        let origin =
            origin.ok_or_else(|| wrong("the log has no name to ask a witness for".to_owned()))?;
        url.set_path("checkpoint");
        url.query_pairs_mut().append_pair("origin", origin);
    }
    let client = web::client(&url, limit).map_err(wrong)?;
    let (status, body) = answer(client.get(url).send().await).await?;
    if status != StatusCode::OK {
        return Err(refused(status, &body));
    }
    SignedNote::parse(&body).map_err(WitnessError::bad)
}

async fn answer(
    response: reqwest::Result<Response>,
) -> Result<(StatusCode, Vec<u8>), WitnessError> {
    let unreachable = |error: reqwest::Error| WitnessError::Unreachable {
        reason: web::reason(&error.without_url()),
    };
    let response = response.map_err(unreachable)?;
    let status = response.status();
    match web::body(response, ANSWER_BYTES_MAX)
        .await
        .map_err(unreachable)?
    {
        Body::Whole(body) => Ok((status, body)),
        Body::TooLong => Err(WitnessError::bad(format!(
            "it is longer than {ANSWER_BYTES_MAX} bytes"
        ))),
    }
}

/// What a status means that both requests can have.
fn refused(status: StatusCode, body: &[u8]) -> WitnessError {
    let words = one_line(&String::from_utf8_lossy(body), WORDS_BYTES_MAX);
    match status {
        StatusCode::NOT_FOUND => WitnessError::Unknown,
        StatusCode::FORBIDDEN => WitnessError::Untrusted,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => WitnessError::Unreachable {
            reason: format!("status {}", status.as_u16()),
        },
        _ if status.is_server_error() => WitnessError::Unreachable {
            reason: format!("status {}: {words}", status.as_u16()),
        },
        _ => WitnessError::bad(format!("status {}: {words}", status.as_u16())),
    }
}
