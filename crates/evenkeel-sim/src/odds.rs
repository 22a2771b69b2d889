//! How unkind a world is to whoever acts in it. Drawn from the seed, so that calm worlds, hopeless ones and those
//! where only one thing goes wrong all occur. What is wrong with the target is no matter of odds: see
//! [`crate::fault`].

use crate::rng::Rng;

/// Probabilities, in permille.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// No snapshot can be taken.
    pub snapshot_fails: u32,
    /// No playbook applies.
    pub no_playbook: u32,
    /// The plan is one that the user made up: see [`crate::world::plans`].
    pub wild_plan: u32,
    /// A plan of the user's needs a person's approval.
    pub needs_approval: u32,
    /// A step cannot be prepared.
    pub refused: u32,
    /// A step says that it failed.
    pub step_fails: u32,
    /// What a step says and what it did differ: half done, or wholly done and called failed.
    pub step_half: u32,
    /// A service does not come up when it is started.
    pub start_fails: u32,
    /// A re-test concludes nothing.
    pub inconclusive: u32,
    /// A rollback fails.
    pub rollback_fails: u32,
    /// A person comes to see after an alert, puts things in order and says so.
    pub person_comes: u32,
    /// An advisor has a usable answer.
    pub advice_good: u32,
    /// No channel takes an alert.
    pub alert_lost: u32,
    /// The healer dies at a boundary.
    pub dies: u32,
    /// The healer is stopped in an orderly way.
    pub parks: u32,
    /// The clock is set back while an effect is carried out.
    pub clock_back: u32,
    /// Somebody else changes the target while an effect is carried out.
    pub meddles: u32,
}

impl Odds {
    /// Draws a world.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut rare = || rng.pick([0, 0, 0, 50, 200, 600]);
        Self {
            snapshot_fails: rare() / 2,
            no_playbook: rare() / 4,
            wild_plan: rare(),
            needs_approval: rare() / 8,
            refused: rare() / 3,
            step_fails: rare(),
            step_half: rare(),
            start_fails: rare() / 2,
            inconclusive: rare() / 2,
            rollback_fails: rare() / 3,
            person_comes: rare() + 100,
            advice_good: rare() + 300,
            alert_lost: rare(),
            dies: rare() / 4,
            parks: rare() / 8,
            clock_back: rare() / 4,
            meddles: rare() / 10,
        }
    }

    /// Each with its name, for making a failing world kinder bit by bit.
    pub fn each(&mut self) -> [(&'static str, &mut u32); 17] {
        [
            ("snapshot_fails", &mut self.snapshot_fails),
            ("no_playbook", &mut self.no_playbook),
            ("wild_plan", &mut self.wild_plan),
            ("needs_approval", &mut self.needs_approval),
            ("refused", &mut self.refused),
            ("step_fails", &mut self.step_fails),
            ("step_half", &mut self.step_half),
            ("start_fails", &mut self.start_fails),
            ("inconclusive", &mut self.inconclusive),
            ("rollback_fails", &mut self.rollback_fails),
            ("person_comes", &mut self.person_comes),
            ("advice_good", &mut self.advice_good),
            ("alert_lost", &mut self.alert_lost),
            ("dies", &mut self.dies),
            ("parks", &mut self.parks),
            ("clock_back", &mut self.clock_back),
            ("meddles", &mut self.meddles),
        ]
    }
}
