//! The healer that is built again is the healer that was lost.

use super::Findings;
use crate::trace::{Fact, Item, Trace};

/// SAFETY 5: at every death, and for the whole ledger at the end, the fold over the ledger's bytes gives all that the
/// healer knew. SAFETY 14, in part: a healer that died is followed by one that was rebuilt, or by nothing.
pub(super) fn check(trace: &Trace, found: &mut Findings) {
    let mut dead = false;
    for (i, item) in trace.items.iter().enumerate() {
        match item {
            Item::World {
                fact: Fact::Rebuilt { differs, .. },
                ..
            } => {
                dead = false;
                found.expect(
                    differs.is_none(),
                    5,
                    i,
                    "replay gives the healer that was lost",
                );
            }
            Item::World {
                fact: Fact::Died { .. },
                ..
            } => {
                found.expect(!dead, 5, i, "the ledger can be replayed");
                dead = true;
            }
            Item::World {
                fact: Fact::GaveUp, ..
            } => found.expect(false, 0, i, "every cycle ends"),
            _ => found.expect(!dead, 5, i, "the ledger can be replayed"),
        }
    }
    found.expect(
        trace.unreadable.is_none(),
        5,
        trace.items.len(),
        "the ledger can be replayed",
    );
}
