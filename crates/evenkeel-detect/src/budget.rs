//! The alarm budget of an agent: how rare something must be before anybody is told, or anything is healed.
//!
//! A person grants so many alarms a month that mean nothing, for all series together. The budget is spread evenly over
//! the series that are alive, and over a month of points at each series' own cadence. A point's tail probability is
//! turned into the expected number of *events* as rare as that (`ladder`), corrected for clusters, for a tail that
//! is not what it claims, and for persistence: an alarm begins where that number is within the share. Two things are
//! watched, one extreme point and three rare points of five, each with half of what notifies; only what lasts heals.
//!
//! What was granted and what was raised is counted, so that a report can say whether the budget is kept.
//!
//! Nothing here knows whether an alarm was right. While an incident lasts, nothing is learned: `learn` is false then.

use serde::{Deserialize, Serialize};

mod ladder;

use ladder::{Counts, LASTING_OF, Ladder, MERGE_POINTS, Watch};

/// One month, in milliseconds: 30 days.
pub const MONTH_MS: f64 = 30.0 * 86_400_000.0;
/// A series without a point for this long, and for ten of its gaps, has no share in the budget, in milliseconds.
const FORGET_MS: i64 = 3_600_000;
/// Longest usual gap between two points of a series, in milliseconds: a week.
const GAP_MAX_MS: f64 = 604_800_000.0;
/// What one gap counts in the usual one.
const GAP_WEIGHT: f64 = 1.0 / 64.0;
/// Gaps longer than so many usual ones count as that many.
const GAP_CLIP: f64 = 4.0;
/// What of the budget to notify goes to single points; the rest to what lasts.
const FOR_POINTS: f64 = 0.5;

/// What a person grants, for all series of an agent together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// False alarms a month that may heal; 0 or more.
    pub heal_alarms_per_month: f64,
    /// False alarms a month that may notify; 0 or more.
    pub notify_alarms_per_month: f64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            heal_alarms_per_month: 1.0,
            notify_alarms_per_month: 5.0,
        }
    }
}

/// Whether a point belongs to an alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// No.
    #[default]
    Quiet,
    /// It is the first of one.
    Begins,
    /// One that began before goes on.
    GoesOn,
}

impl Alarm {
    /// Within an alarm.
    pub fn is_raised(self) -> bool {
        self != Self::Quiet
    }
}

/// What the budget makes of one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// Worth telling somebody.
    pub notify: Alarm,
    /// Rare and lasting enough to be healed, if all else agrees.
    pub heal: Alarm,
    /// How many events as rare as this are expected in a month over all living series, by chance. Exact only well
    /// below the number of points; where nothing is out of the ordinary it is that number.
    pub expected_per_month: f64,
}

/// What was granted and what was raised since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Alarms that the budget granted for the points seen so far.
    pub nominal: f64,
    /// Alarms that began.
    pub realised: u64,
}

/// The tallies of both budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Of alarms that notify.
    pub notify: Tally,
    /// Of alarms that may heal.
    pub heal: Tally,
}

/// What a budget remembers of one series; it stands with the series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetShare {
    last_ms: i64,
    /// Usual gap in milliseconds; 0 while there was one point only.
    gap_ms: f64,
    /// Newest tail probabilities, as a ring.
    tails: [f32; LASTING_OF as usize],
    next: u8,
    point: Ladder,
    lasting: Ladder,
    /// Points since the last one in an alarm, at most [`MERGE_POINTS`] and one.
    since_notify: u8,
    since_heal: u8,
    /// An alarm that nobody has called right yet.
    notified: bool,
    healed: bool,
}

impl BudgetShare {
    /// A series that is first seen at `at_ms`.
    pub fn new(at_ms: i64) -> Self {
        Self {
            last_ms: at_ms,
            gap_ms: 0.0,
            tails: [1.0; LASTING_OF as usize],
            next: 0,
            point: Ladder::default(),
            lasting: Ladder::default(),
            since_notify: MERGE_POINTS + 1,
            since_heal: MERGE_POINTS + 1,
            notified: false,
            healed: false,
        }
    }

    /// Whether it shares the budget at `now_ms`: it had a point within an hour, or within ten of its gaps.
    pub fn is_alive(&self, now_ms: i64) -> bool {
        let silent = now_ms.saturating_sub(self.last_ms);
        silent <= FORGET_MS || silent as f64 <= 10.0 * self.gap_ms
    }

    /// Usual gap between its points, in milliseconds; 0 while there was one only.
    pub fn gap_ms(&self) -> f64 {
        self.gap_ms
    }

    fn tick(&mut self, at_ms: i64) {
        let gap = (at_ms.saturating_sub(self.last_ms) as f64).min(GAP_MAX_MS);
        self.last_ms = self.last_ms.max(at_ms);
        if gap <= 0.0 {
            return;
        }
        if self.gap_ms <= 0.0 {
            self.gap_ms = gap;
        } else {
            let gap = gap.min(GAP_CLIP * self.gap_ms);
            self.gap_ms += GAP_WEIGHT * (gap - self.gap_ms);
        }
    }

    /// The `needs`-th smallest of the newest tails, where the newest is among those; 1 otherwise.
    fn lasting_level(&mut self, tail: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a probability's order of magnitude"
        )]
        let newest = tail as f32;
        self.tails[usize::from(self.next)] = newest;
        self.next = (self.next + 1) % LASTING_OF;
        let mut sorted = self.tails;
        sorted.sort_by(f32::total_cmp);
        f64::from(sorted[Watch::LASTING.needs - 1].max(newest))
    }
}

/// The budget of an agent, and what its series have spent of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmBudget {
    config: BudgetConfig,
    all_points: Counts,
    all_lasting: Counts,
    living: usize,
    spent: Spent,
}

impl AlarmBudget {
    /// Nothing spent; a grant that is negative or no number is 0.
    pub fn new(config: BudgetConfig) -> Self {
        Self {
            config,
            all_points: Counts::default(),
            all_lasting: Counts::default(),
            living: 0,
            spent: Spent::default(),
        }
    }

    /// Judges a point of a series at `at_ms` (milliseconds) by its tail probability (0 to 1; what is no number counts
    /// as 1). With `learn` false it is judged and counted, and nothing is learned from it.
    pub fn judge(&mut self, share: &mut BudgetShare, at_ms: i64, tail: f64, learn: bool) -> Call {
        let living = self.living.max(1) as f64;
        let tail = if tail.is_finite() {
            tail.clamp(1e-30, 1.0)
        } else {
            1.0
        };
        share.tick(at_ms);
        let lasting_tail = share.lasting_level(tail);
        let point = share.point.rate(Watch::POINT, &self.all_points, tail);
        let lasting = share
            .lasting
            .rate(Watch::LASTING, &self.all_lasting, lasting_tail);
        if learn {
            share.point.learn(Watch::POINT, &mut self.all_points, tail);
            share
                .lasting
                .learn(Watch::LASTING, &mut self.all_lasting, lasting_tail);
        }
        // Events that one point of this series may raise: its part of a month, and its part of the budget.
        let of_month = share.gap_ms / MONTH_MS;
        let notify = granted(self.config.notify_alarms_per_month) / living * of_month;
        let heal = granted(self.config.heal_alarms_per_month) / living * of_month;
        self.spent.notify.nominal += notify;
        self.spent.heal.nominal += heal;
        let told = point <= FOR_POINTS * notify || lasting <= (1.0 - FOR_POINTS) * notify;
        let notify = event(told, &mut share.since_notify);
        let heal = event(lasting <= heal, &mut share.since_heal);
        if learn && (notify.is_raised() || heal.is_raised()) {
            share.point.alarmed();
            share.lasting.alarmed();
        }
        for (alarm, raised, tally) in [
            (notify, &mut share.notified, &mut self.spent.notify),
            (heal, &mut share.healed, &mut self.spent.heal),
        ] {
            if alarm == Alarm::Begins {
                *raised = true;
                tally.realised += 1;
            }
        }
        Call {
            notify,
            heal,
            expected_per_month: point.min(lasting) / of_month.max(f64::MIN_POSITIVE) * living,
        }
    }

    /// The newest alarm of a series was right: what it taught about chance is taken back, and it counts as raised no
    /// longer. Without this a series with real trouble would use up its share and be heard no more.
    pub fn was_real(&mut self, share: &mut BudgetShare) {
        share.point.take_back(&mut self.all_points);
        share.lasting.take_back(&mut self.all_lasting);
        let spent = &mut self.spent;
        for (raised, tally) in [
            (&mut share.notified, &mut spent.notify),
            (&mut share.healed, &mut spent.heal),
        ] {
            if std::mem::take(raised) {
                tally.realised = tally.realised.saturating_sub(1);
            }
        }
    }

    /// What was granted and raised so far.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Series that share the budget now.
    pub fn living(&self) -> usize {
        self.living
    }

    /// Says how many series share the budget from now on.
    pub fn count_living(&mut self, living: usize) {
        self.living = living;
    }

    /// Another grant, from now on.
    pub fn grant(&mut self, config: BudgetConfig) {
        self.config = config;
    }
}

fn granted(per_month: f64) -> f64 {
    if per_month.is_finite() {
        per_month.max(0.0)
    } else {
        0.0
    }
}

/// Points in an alarm with few others between them are one alarm.
fn event(raised: bool, since: &mut u8) -> Alarm {
    if !raised {
        *since = (*since + 1).min(MERGE_POINTS + 1);
        return Alarm::Quiet;
    }
    let before = std::mem::replace(since, 0);
    if before >= MERGE_POINTS {
        Alarm::Begins
    } else {
        Alarm::GoesOn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Alarm::{Begins, GoesOn, Quiet};
    use super::*;
    use crate::draws::Draws;

    const MINUTE_MS: i64 = 60_000;
    const MONTH_MINUTES: i64 = 43_200;

    /// A budget and its series by name.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Agent {
        budget: AlarmBudget,
        shares: BTreeMap<String, BudgetShare>,
    }

    impl Agent {
        fn new(config: BudgetConfig) -> Self {
            Self {
                budget: AlarmBudget::new(config),
                shares: BTreeMap::new(),
            }
        }

        fn judge(&mut self, name: &str, at_ms: i64, tail: f64, learn: bool) -> Call {
            if !self.shares.contains_key(name) {
                self.shares.insert(name.to_owned(), BudgetShare::new(at_ms));
            }
            if at_ms % 600_000 == 0 || self.budget.living() < self.shares.len() {
                let living = self.shares.values().filter(|s| s.is_alive(at_ms)).count();
                self.budget.count_living(living);
            }
            let share = self.shares.get_mut(name).unwrap();
            self.budget.judge(share, at_ms, tail, learn)
        }

        fn spent(&self) -> Spent {
            self.budget.spent()
        }
    }

    /// Realised over nominal, to notify and to heal, of `agents` with four series for three months each.
    fn ratios(agents: u64, tail: impl Fn(&mut Draws, &mut f64) -> f64) -> (f64, f64) {
        let mut sum = Spent::default();
        for agent in 0..agents {
            let mut budget = Agent::new(BudgetConfig {
                heal_alarms_per_month: 5.0,
                notify_alarms_per_month: 5.0,
            });
            let mut draws = Draws(agent * 77);
            let mut states = [1.0; 4];
            for minute in 0..3 * MONTH_MINUTES {
                for (name, state) in ["a", "b", "c", "d"].iter().zip(&mut states) {
                    let tail = tail(&mut draws, state);
                    budget.judge(name, minute * MINUTE_MS, tail, true);
                }
            }
            let spent = budget.spent();
            assert!((spent.notify.nominal - 15.0).abs() < 0.1, "{spent:?}");
            sum.notify.realised += spent.notify.realised;
            sum.heal.realised += spent.heal.realised;
        }
        let nominal = 15.0 * agents as f64;
        (
            sum.notify.realised as f64 / nominal,
            sum.heal.realised as f64 / nominal,
        )
    }

    #[track_caller]
    fn kept((notify, heal): (f64, f64)) {
        assert!((0.5..=1.5).contains(&notify), "notify {notify}");
        assert!((0.5..=1.5).contains(&heal), "heal {heal}");
    }

    #[test]
    fn independent_points_keep_the_budget() {
        kept(ratios(6, |draws, _| draws.unit()));
    }

    #[test]
    fn clusters_are_one_alarm_and_keep_the_budget() {
        // An extreme comes as a group of four points on average.
        kept(ratios(6, |draws, state| {
            if draws.unit() > 0.75 {
                *state = draws.unit();
            }
            *state
        }));
    }

    #[test]
    fn a_tail_that_is_not_what_it_claims_keeps_the_budget() {
        // Events at a claimed 1 in a million come 1 in 16,000 times.
        kept(ratios(6, |draws, _| draws.unit().powf(1.0 / 0.7)));
    }

    #[test]
    fn a_tail_that_ends_in_a_lump_keeps_the_budget() {
        // One event in 2,000 claims 1 in 10 billion: the ladder between its rungs knows nothing of it.
        let lump = |draws: &mut Draws, _: &mut f64| {
            let tail = draws.unit();
            if tail < 5e-4 { 1e-10 } else { tail }
        };
        let (notify, heal) = ratios(4, lump);
        assert!(notify < 1.5 && heal < 1.5, "{notify} {heal}");
    }

    #[test]
    fn a_level_that_is_passed_again_and_again_keeps_the_budget() {
        // For hours the tail hovers where one rung is never left and the next one is hardly reached.
        let hover = |draws: &mut Draws, state: &mut f64| {
            *state -= 1.0;
            if *state < -2_000.0 {
                *state = 600.0;
            }
            let tail = draws.unit();
            if *state > 0.0 {
                0.04 + tail / 50.0
            } else {
                tail
            }
        };
        let (notify, heal) = ratios(4, hover);
        assert!(notify < 1.5 && heal < 1.5, "{notify} {heal}");
    }

    #[test]
    fn the_budget_is_spread_over_the_living_by_their_cadence() {
        let mut budget = Agent::new(BudgetConfig::default());
        for minute in 0..MONTH_MINUTES {
            budget.judge("each minute", minute * MINUTE_MS, 0.5, true);
            if minute % 5 == 0 {
                budget.judge("each five", minute * MINUTE_MS, 0.5, true);
            }
            if minute < 60 {
                budget.judge("gone", minute * MINUTE_MS, 0.5, true);
            }
        }
        assert_eq!(budget.budget.living(), 2);
        let spent = budget.spent();
        assert!((spent.notify.nominal - 5.0).abs() < 0.05, "{spent:?}");
        assert!((spent.heal.nominal - 1.0).abs() < 0.01, "{spent:?}");
        assert_eq!((spent.notify.realised, spent.heal.realised), (0, 0));
    }

    /// A month of chance, a quiet quarter of an hour, then the points given.
    fn after_a_month(tails: &[f64]) -> (Agent, Vec<Call>) {
        let (mut budget, mut draws) = (Agent::new(BudgetConfig::default()), Draws(3));
        for minute in 0..MONTH_MINUTES {
            let tail = if minute < MONTH_MINUTES - 15 {
                draws.unit()
            } else {
                1.0
            };
            budget.judge("a", minute * MINUTE_MS, tail, true);
        }
        let calls = (0..)
            .zip(tails)
            .map(|(i, tail)| budget.judge("a", (MONTH_MINUTES + i) * MINUTE_MS, *tail, true))
            .collect();
        (budget, calls)
    }

    #[test]
    fn one_extreme_point_notifies_and_only_what_lasts_heals() {
        let (budget, calls) = after_a_month(&[1e-9, 1.0, 1.0, 1e-9, 1e-9, 1e-9]);
        let notify: Vec<Alarm> = calls.iter().map(|c| c.notify).collect();
        assert_eq!(notify, [Begins, Quiet, Quiet, GoesOn, GoesOn, GoesOn]);
        let heal: Vec<Alarm> = calls.iter().map(|c| c.heal).collect();
        assert_eq!(heal, [Quiet, Quiet, Quiet, Quiet, Begins, GoesOn]);
        assert!(calls[0].expected_per_month < 0.1 && calls[1].expected_per_month > 1000.0);
        let (before, _) = after_a_month(&[]);
        assert_eq!(
            budget.spent().notify.realised,
            before.spent().notify.realised + 1
        );
    }

    #[test]
    fn moderate_points_that_last_are_an_alarm_and_one_is_none() {
        let (_, calls) = after_a_month(&[1e-3, 1.0, 1.0, 1.0, 1.0]);
        assert!(calls.iter().all(|c| !c.notify.is_raised()));
        let (_, calls) = after_a_month(&[1e-3; 4]);
        assert_eq!(calls[2].notify, Alarm::Begins);
        assert_eq!(calls[2].heal, Alarm::Begins);
    }

    #[test]
    fn what_is_called_right_is_taken_back_once() {
        // The alarm is over, and an ordinary event comes after it.
        let mut tails = [1.0; 40];
        tails[30] = 0.02;
        let (before, _) = after_a_month(&tails);
        tails[..4].fill(1e-9);
        let (mut budget, _) = after_a_month(&tails);
        assert_ne!(
            budget.spent().notify.realised,
            before.spent().notify.realised
        );
        for _ in 0..2 {
            let share = budget.shares.get_mut("a").unwrap();
            budget.budget.was_real(share);
        }
        let realised = |b: &Agent| (b.spent().notify.realised, b.spent().heal.realised);
        assert_eq!(realised(&budget), realised(&before));
        assert_eq!(
            budget.budget.all_points.events(),
            before.budget.all_points.events()
        );
        assert_eq!(
            budget.budget.all_lasting.events(),
            before.budget.all_lasting.events()
        );
        // The same once more is as rare as the first time.
        let mut at = (MONTH_MINUTES + 100) * MINUTE_MS;
        let mut again = |budget: &mut Agent| {
            at += MINUTE_MS;
            budget.judge("a", at, 1e-9, true)
        };
        assert_eq!(again(&mut budget).notify, Alarm::Begins);
    }

    #[test]
    fn nothing_is_learned_when_told_so() {
        let (budget, _) = after_a_month(&[]);
        let mut frozen = budget.clone();
        for i in 0..1000 {
            frozen.judge("a", (MONTH_MINUTES + i) * MINUTE_MS, 1e-12, false);
        }
        assert_eq!(frozen.budget.all_points, budget.budget.all_points);
        assert_eq!(
            frozen.spent().notify.realised,
            budget.spent().notify.realised + 1
        );
    }

    #[test]
    fn nonsense_is_no_alarm_and_the_state_survives_a_restart() {
        let (mut budget, _) = after_a_month(&[1e-9]);
        let text = serde_json::to_string(&budget).unwrap();
        let back: Agent = serde_json::from_str(&text).unwrap();
        assert_eq!(back, budget);
        for (at, tail) in [
            (i64::MIN, f64::NAN),
            (i64::MAX, f64::INFINITY),
            (0, -1.0),
            (0, 2.0),
        ] {
            let call = budget.judge("new", at, tail, true);
            assert!(call.expected_per_month >= 0.0, "{at} {tail} {call:?}");
        }
        let mut none = Agent::new(BudgetConfig {
            heal_alarms_per_month: -1.0,
            notify_alarms_per_month: f64::NAN,
        });
        for i in 0..100 {
            assert!(!none.judge("a", i * MINUTE_MS, 0.0, true).notify.is_raised());
        }
    }
}
