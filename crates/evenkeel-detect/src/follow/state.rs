//! What was learned, as bytes: versioned, with a checksum, so that a restart goes on where it stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::incident::Incidents;
use super::series::Followed;
use super::{Follow, FollowConfig, Said};
use crate::budget::AlarmBudget;
use crate::leak::Leak;
use crate::limits::{LEAKS_MAX, MARKS_MAX};

/// The version that this code writes and reads.
pub const VERSION: u32 = 1;
/// What the bytes begin with.
const MAGIC: &[u8; 8] = b"EKLEARN\0";
/// Magic, version, checksum.
const HEADER_LEN: usize = 8 + 4 + 8;

/// Why bytes are no state. Nothing is lost but time: everything is learned anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not written by this program.
    #[error("these are no learned series")]
    Foreign,
    /// Written by another version.
    #[error("the learned series have version {0}, this program reads {VERSION}")]
    Version(u32),
    /// Cut or changed.
    #[error("the learned series are damaged")]
    Damaged,
}

#[derive(Serialize)]
struct Saved<'a> {
    series: Vec<&'a Followed>,
    budget: &'a AlarmBudget,
    taken: &'a BTreeMap<(Said, String), Timestamp>,
    leaks: &'a BTreeMap<String, Leak>,
}

#[derive(Deserialize)]
struct Loaded {
    series: Vec<Followed>,
    budget: AlarmBudget,
    taken: BTreeMap<(Said, String), Timestamp>,
    leaks: BTreeMap<String, Leak>,
}

impl Follow {
    /// Everything that was learned. Standing alarms are left out: after a restart what is still wrong is raised anew.
    ///
    /// About 3 KiB a series.
    pub fn to_bytes(&self) -> Vec<u8> {
        let saved = Saved {
            series: self.series.iter().filter(|s| !s.gone).collect(),
            budget: &self.budget,
            taken: &self.taken,
            leaks: &self.leaks,
        };
        let body = postcard::to_allocvec(&saved).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&checksum(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what [`Follow::to_bytes`] wrote; at most `series_max` series are taken.
    pub fn from_bytes(bytes: &[u8], config: FollowConfig) -> Result<Self, StateError> {
        let (header, body) = bytes
            .split_at_checked(HEADER_LEN)
            .ok_or(StateError::Foreign)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let (version, sum) = rest.split_at(4);
        if magic != MAGIC {
            return Err(StateError::Foreign);
        }
        let version = u32::from_le_bytes(version.try_into().map_err(|_| StateError::Damaged)?);
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let sum = u64::from_le_bytes(sum.try_into().map_err(|_| StateError::Damaged)?);
        if sum != checksum(body) {
            return Err(StateError::Damaged);
        }
        let loaded: Loaded = postcard::from_bytes(body).map_err(|_| StateError::Damaged)?;
        let mut follow = Self::new(config);
        follow.budget = loaded.budget;
        follow.budget.grant(follow.config.budget());
        follow.taken = loaded.taken;
        follow.leaks = loaded.leaks;
        while follow.leaks.len() > LEAKS_MAX {
            follow.leaks.pop_first();
        }
        while follow.taken.len() > MARKS_MAX {
            follow.taken.pop_first();
        }
        let mut by_name = BTreeMap::new();
        for mut series in loaded.series {
            if series.gone || by_name.len() >= follow.config.series_max {
                continue;
            }
            series.forget_alarm();
            // The names of services are shared again.
            series.service = series.service.as_deref().map(|s| follow.intern(s));
            if by_name
                .insert(Arc::clone(&series.name), follow.series.len())
                .is_none()
            {
                follow.series.push(series);
            }
        }
        follow.by_name = by_name;
        follow.incidents = Incidents::default();
        Ok(follow)
    }
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo), over words: against torn writes and bad disks, not against people.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk
            .iter()
            .rev()
            .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
        hash ^= hash >> 29;
    }
    for byte in chunks.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ bytes.len() as u64
}
