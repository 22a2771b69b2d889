//! What must not be worse after a fix than before it: for each service whether it runs and what share of its requests
//! fails.

use evenkeel_core::cycle::Cycle;
use evenkeel_core::guarded::{GuardSample, GuardVerdict};

use super::World;
use super::service::Reach;

/// Requests behind each sample.
const REQUESTS: u64 = 200;
/// A larger share of errors than before by this much is worse.
const WORSE: f64 = 0.1;

impl World {
    /// Measures all of them.
    pub(super) fn guards(&self) -> Vec<GuardSample> {
        self.services
            .iter()
            .zip(&self.scenario.services)
            .map(|(service, spec)| {
                let seen = service.seen(spec, self.now);
                let answers = seen.reach == Reach::Answers;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of a few hundred"
                )]
                let errors = (seen.errors * REQUESTS as f64) as u64;
                GuardSample {
                    name: format!("service {}", spec.name),
                    errors: if answers { errors } else { REQUESTS },
                    requests: REQUESTS,
                    up: Some(answers),
                    ..GuardSample::default()
                }
            })
            .collect()
    }

    /// How each does against what it was.
    pub(super) fn compared(&self, before: &[GuardSample]) -> Vec<GuardVerdict> {
        let now = self.guards();
        let share = |g: &GuardSample| g.errors as f64 / g.requests.max(1) as f64;
        before
            .iter()
            .filter_map(|b| Some((b, now.iter().find(|n| n.name == b.name)?)))
            .map(|(b, n)| GuardVerdict {
                name: b.name.clone(),
                worse: b.up == Some(true) && n.up != Some(true) || share(n) > share(b) + WORSE,
                details: String::new(),
            })
            .filter(|v| v.worse)
            .collect()
    }

    /// Those that the attempt had made worse, after it was taken back.
    pub(super) fn still_worse(&self, cycle: &Cycle) -> Vec<GuardVerdict> {
        let was = cycle.run().and_then(|r| r.verification.as_ref());
        let worse: Vec<&str> = was
            .into_iter()
            .flat_map(|v| &v.guards)
            .filter(|g| g.worse)
            .map(|g| g.name.as_str())
            .collect();
        let mut now = self.compared(&cycle.guards_before);
        now.retain(|v| worse.contains(&v.name.as_str()));
        now
    }
}
