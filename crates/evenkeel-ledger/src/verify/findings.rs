//! The list of damages while it grows: counted in full, kept in order and in bounds.

use super::DAMAGE_LISTED_MAX;
use crate::Damage;

#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Not about entries, in the order of finding.
    general: Vec<Damage>,
    /// By sequence, those of one sequence in the order of finding.
    entries: Vec<Damage>,
    /// Found last and told last.
    closing: Vec<Damage>,
    count: u64,
}

impl Findings {
    pub(crate) fn add(&mut self, damage: Damage) {
        self.count += 1;
        if damage.sequence.is_none() {
            if self.general.len() < DAMAGE_LISTED_MAX {
                self.general.push(damage);
            }
            return;
        }
        let at = self
            .entries
            .partition_point(|other| other.sequence <= damage.sequence);
        if at < DAMAGE_LISTED_MAX {
            self.entries.insert(at, damage);
            self.entries.truncate(DAMAGE_LISTED_MAX);
        }
    }

    /// What SQLite says of itself.
    pub(super) fn add_closing(&mut self, damage: Damage) {
        self.count += 1;
        self.closing.push(damage);
    }

    /// Damages that were found and not kept.
    pub(super) fn count_only(&mut self, more: u64) {
        self.count += more;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn first_bad(&self) -> Option<u64> {
        self.entries.first().and_then(|damage| damage.sequence)
    }

    pub(super) fn list(self) -> Vec<Damage> {
        let mut list = self.general;
        list.extend(self.entries);
        list.extend(self.closing);
        list.truncate(DAMAGE_LISTED_MAX);
        list
    }
}
