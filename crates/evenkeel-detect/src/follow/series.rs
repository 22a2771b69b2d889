//! One followed series: its ensemble, what the last checks saw, and the newest points for a plot.

use std::sync::Arc;

use evenkeel_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::flat::Flat;
use super::model::Model;
use super::{FollowConfig, Kind, Plotted, Point, Standing};
use crate::budget::{AlarmBudget, BudgetShare};
use crate::limits::{FOLLOWED_GAP_FLOOR_MS, PLOT_LEN};

/// Good readings in a row after which a series is back in its band.
const RECOVERY_READINGS: u8 = 3;
/// An alarm that lasts for so many readings was no chance: it teaches nothing about chance.
const REAL_HITS: u32 = 3;
/// A reading this likely or likelier is good.
const GOOD_TAIL: f64 = 0.01;
/// What a check makes of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It has just left its band.
    Began,
    /// Nothing new.
    Nothing,
}

/// The alarm that a series stands in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Alarm {
    /// The first reading outside the band.
    pub(super) since: Timestamp,
    /// What it showed when it was raised.
    pub(super) value: f64,
    /// The band then.
    pub(super) expected: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// The rarest reading so far.
    pub(super) tail: f64,
    /// Events as rare as it in a month by chance, over all series.
    pub(super) a_month: f64,
    /// It was rare and lasting enough to be acted on, by the budget for that.
    pub(super) strong: bool,
    /// It stands still.
    pub(super) flat: bool,
    /// Readings beyond the threshold, and all of them, since it began.
    pub(super) hits: u32,
    pub(super) readings: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Followed {
    pub(super) name: Arc<str>,
    pub(super) service: Option<Arc<str>>,
    pub(super) kind: Kind,
    model: Model,
    /// Time of the newest reading; unknown after the clock was set back.
    pub(super) last: Option<Timestamp>,
    /// When something was heard of it last, by the clock of the checks.
    pub(super) heard: Timestamp,
    /// Its part of the budget.
    share: BudgetShare,
    /// Somebody else judges it.
    pub(super) silent: bool,
    newest: f64,
    band: [f32; 3],
    tail: f64,
    learned: bool,
    /// A new alarm since the last check.
    pub(super) pending: Option<Alarm>,
    pub(super) alarm: Option<Alarm>,
    flat: Flat,
    good_in_row: u8,
    /// Its place may be taken.
    pub(super) gone: bool,
    plot: Vec<Plotted>,
    plot_at: u16,
}

impl Followed {
    pub(super) fn new(
        name: Arc<str>,
        service: Option<Arc<str>>,
        point: &Point<'_>,
        now: Timestamp,
    ) -> Self {
        Self {
            name,
            service,
            kind: point.kind,
            model: Model::new(point),
            last: None,
            heard: now,
            share: BudgetShare::new(point.at.as_millis()),
            silent: point.silent,
            newest: 0.0,
            band: [0.0; 3],
            tail: 1.0,
            learned: false,
            pending: None,
            alarm: None,
            flat: Flat::default(),
            good_in_row: 0,
            gone: false,
            plot: Vec::new(),
            plot_at: 0,
        }
    }

    /// Takes a reading, which the budget then makes an alarm or not.
    pub(super) fn push(
        &mut self,
        point: &Point<'_>,
        now: Timestamp,
        frozen: bool,
        settling: bool,
        budget_learns: bool,
        budget: &mut AlarmBudget,
    ) {
        self.last = Some(point.at);
        self.heard = now;
        let usual = self.model.push(point, !frozen);
        self.newest = point.value;
        #[expect(clippy::cast_possible_truncation, reason = "for a plot and a sentence")]
        {
            self.band = [usual.low as f32, usual.expected as f32, usual.high as f32];
        }
        self.learned = usual.learned;
        self.draw();
        // Not above its band, where less is never trouble; or new, and not yet to be judged.
        let excused = point.silent || (settling && !self.kind.needs_a_person());
        self.tail = if excused || (self.kind.is_upward() && point.value <= usual.high) {
            1.0
        } else {
            usual.tail
        };
        let flat = self.flat.push(point.value, !frozen);
        let flat = flat.filter(|_| !excused && !self.kind.is_upward());
        let still = flat.is_some_and(|p| p < self.tail);
        if let Some(p) = flat {
            self.tail = self.tail.min(p);
        }
        if self.silent {
            return;
        }
        let tail = if usual.learned { self.tail } else { 1.0 };
        let learns = budget_learns && !frozen && !settling;
        let call = budget.judge(&mut self.share, point.at.as_millis(), tail, learns);
        let hit = call.notify.is_raised();
        if let Some(alarm) = &mut self.alarm {
            alarm.readings = alarm.readings.saturating_add(1);
            alarm.hits = alarm.hits.saturating_add(u32::from(hit));
            alarm.strong |= call.heal.is_raised();
            if hit && alarm.hits == REAL_HITS {
                budget.was_real(&mut self.share);
            }
            if self.tail < alarm.tail {
                alarm.tail = self.tail;
                alarm.value = point.value;
                alarm.a_month = alarm.a_month.min(call.expected_per_month);
            }
        } else if hit && self.pending.is_none() {
            self.pending = Some(Alarm {
                since: point.at,
                value: point.value,
                expected: usual.expected,
                low: usual.low,
                high: usual.high,
                tail: self.tail,
                a_month: call.expected_per_month,
                strong: call.heal.is_raised(),
                flat: still,
                hits: 1,
                readings: 1,
            });
        }
        let inside = point.value >= usual.low && point.value <= usual.high;
        let flat_still = self.alarm.is_some_and(|a| a.flat) && self.flat.stands();
        let good = self.tail >= GOOD_TAIL && (inside || self.tail >= 1.0) && !flat_still;
        self.good_in_row = if good {
            self.good_in_row.saturating_add(1)
        } else {
            0
        };
    }

    /// What the readings since the last check mean. `unsure` that something else is wrong, so that nothing becomes
    /// usual.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        config: &FollowConfig,
        unsure: bool,
    ) -> Judgement {
        if let Some(alarm) = self.pending.take()
            && self.alarm.is_none()
        {
            self.alarm = Some(alarm);
            self.good_in_row = 0;
            return Judgement::Began;
        }
        if let Some(alarm) = self.alarm {
            let stays = now.millis_since(alarm.since) >= config.adopt_after_ms;
            if self.good_in_row >= RECOVERY_READINGS || self.gone {
                self.over();
            } else if stays && !unsure && !self.kind.needs_a_person() {
                self.relearn();
            }
        }
        Judgement::Nothing
    }

    fn over(&mut self) {
        self.alarm = None;
    }

    /// Learns from nothing what is usual.
    pub(super) fn relearn(&mut self) {
        self.model.forget();
        self.pending = None;
        self.learned = false;
        self.tail = 1.0;
        self.over();
    }

    /// Forgets an alarm without calling it over.
    pub(super) fn forget_alarm(&mut self) {
        self.pending = None;
        self.over();
    }

    /// After how long without a reading it is stale, in milliseconds.
    pub(super) fn stale_after_ms(&self) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        let gap = self.share.gap_ms() as i64;
        gap.saturating_mul(3).max(FOLLOWED_GAP_FLOOR_MS)
    }

    fn draw(&mut self) {
        #[expect(clippy::cast_possible_truncation, reason = "for a plot")]
        let point = Plotted {
            value: self.newest as f32,
            low: self.band[0],
            high: self.band[2],
        };
        if self.plot.len() < PLOT_LEN {
            self.plot.push(point);
        } else {
            self.plot[usize::from(self.plot_at)] = point;
            self.plot_at += 1;
            if usize::from(self.plot_at) >= PLOT_LEN {
                self.plot_at = 0;
            }
        }
    }

    pub(super) fn plot(&self) -> Vec<Plotted> {
        let (newer, older) = self
            .plot
            .split_at(usize::from(self.plot_at).min(self.plot.len()));
        older.iter().chain(newer).copied().collect()
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            series: self.name.to_string(),
            service: self.service.as_deref().map(str::to_owned),
            kind: self.kind,
            value: self.newest,
            low: f64::from(self.band[0]),
            expected: f64::from(self.band[1]),
            high: f64::from(self.band[2]),
            tail: self.tail,
            learned: self.learned,
            alarmed: self.alarm.is_some(),
        }
    }
}
