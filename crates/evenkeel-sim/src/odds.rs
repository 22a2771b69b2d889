//! How unkind a world is. Drawn from the seed, so that calm worlds, hopeless ones and those where only one thing
//! goes wrong all occur.

use crate::rng::Rng;

/// Probabilities, in permille.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// No snapshot can be taken.
    pub snapshot_fails: u32,
    /// No playbook applies.
    pub no_playbook: u32,
    /// A playbook needs a person's approval.
    pub needs_approval: u32,
    /// A step cannot be prepared.
    pub refused: u32,
    /// A step's condition does not hold.
    pub skipped: u32,
    /// A step says that it failed.
    pub step_fails: u32,
    /// What a step says and what it did differ: half done, or wholly done and called failed.
    pub step_half: u32,
    /// A re-test passes.
    pub passes: u32,
    /// A re-test concludes nothing.
    pub inconclusive: u32,
    /// The signal leaves its normal range while it is watched.
    pub settle_breaks: u32,
    /// A rollback fails.
    pub rollback_fails: u32,
    /// An advisor has a usable answer.
    pub advice_good: u32,
    /// No channel takes an alert.
    pub alert_lost: u32,
    /// The anomaly goes away while the healer waits.
    pub goes_away: u32,
    /// A healed anomaly comes back within the recurrence window.
    pub recurs: u32,
    /// The healer dies at a boundary.
    pub dies: u32,
    /// The healer is stopped in an orderly way.
    pub parks: u32,
    /// The clock is set back.
    pub clock_back: u32,
    /// Somebody else changes the target.
    pub meddles: u32,
}

impl Odds {
    /// Draws a world.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut rare = || rng.pick([0, 0, 0, 50, 200, 600]);
        Self {
            snapshot_fails: rare() / 2,
            no_playbook: rare() / 2,
            needs_approval: rare() / 8,
            refused: rare() / 3,
            skipped: rare() / 2,
            step_fails: rare(),
            step_half: rare(),
            passes: rare() + 200,
            inconclusive: rare() / 2,
            settle_breaks: rare(),
            rollback_fails: rare() / 3,
            advice_good: rare() + 300,
            alert_lost: rare(),
            goes_away: rare() / 2,
            recurs: rare() + 200,
            dies: rare() / 4,
            parks: rare() / 8,
            clock_back: rare() / 4,
            meddles: rare() / 10,
        }
    }
}
