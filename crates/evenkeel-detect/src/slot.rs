//! One place where an anomaly can stand: evidence check by check in, at most one verdict out.
//!
//! Windows of neighbouring checks overlap, so a bad window alone would count one burst several times. A check counts
//! towards raising only when it saw *fresh* trouble, and towards recovery only when it saw fresh good.

use std::collections::VecDeque;

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::time::Timestamp;
use serde_json::Value;

use crate::config::DetectConfig;
use crate::verdict::{Verdict, severity_of};

/// What one check saw of one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Beyond the limit, and new trouble since the last check.
    Bad,
    /// Beyond the limit, but nothing new happened.
    BadStill,
    /// Perhaps beyond the limit, but not surely: speaks against raising and against recovery.
    Unsure,
    /// Within the limit, with new samples.
    Good,
    /// Too little is known.
    Unknown,
    /// Whatever it was, something else has taken its place.
    Over,
}

/// What stands behind a bad check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    /// Measured value.
    pub(crate) current: f64,
    /// The limit that it crossed.
    pub(crate) threshold: f64,
    /// Unit of both.
    pub(crate) unit: &'static str,
    /// One sentence.
    pub(crate) details: String,
    /// The service it was seen in, where known.
    pub(crate) service: Option<String>,
    /// The source of the evidence.
    pub(crate) source: String,
    /// When the evidence began.
    pub(crate) since: Timestamp,
    /// What else was seen.
    pub(crate) context: Value,
}

/// What a monitor says at a check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Evaluation {
    pub(crate) seen: Seen,
    /// There when `seen` is `Bad` or `BadStill`.
    pub(crate) finding: Option<Finding>,
}

impl Evaluation {
    pub(crate) const UNKNOWN: Self = Self {
        seen: Seen::Unknown,
        finding: None,
    };
    pub(crate) const GOOD: Self = Self {
        seen: Seen::Good,
        finding: None,
    };
    pub(crate) const UNSURE: Self = Self {
        seen: Seen::Unsure,
        finding: None,
    };
    pub(crate) const OVER: Self = Self {
        seen: Seen::Over,
        finding: None,
    };

    pub(crate) fn bad(finding: Finding) -> Self {
        Self {
            seen: Seen::Bad,
            finding: Some(finding),
        }
    }

    /// Something beyond the limit was seen.
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self.seen, Seen::Bad | Seen::BadStill)
    }

    /// Puts the sources of one signal together: the worst bad one speaks. Good needs a source with fresh samples,
    /// and where an anomaly stands, that source must be the one it was seen in: silence elsewhere heals nothing.
    pub(crate) fn combine<'a>(
        sources: impl Iterator<Item = (&'a str, Evaluation)>,
        culprit: Option<&str>,
    ) -> Self {
        let mut worst: Option<Self> = None;
        let (mut any_good, mut any_unsure, mut culprit_good) = (false, false, false);
        for (name, evaluation) in sources {
            match evaluation.seen {
                Seen::Good => {
                    any_good = true;
                    culprit_good |= culprit == Some(name);
                }
                Seen::Bad | Seen::BadStill => {
                    if worst.as_ref().is_none_or(|w| evaluation.rank() > w.rank()) {
                        worst = Some(evaluation);
                    }
                }
                Seen::Unsure => any_unsure = true,
                Seen::Unknown | Seen::Over => {}
            }
        }
        match worst {
            Some(worst) => worst,
            None if any_unsure => Self::UNSURE,
            None if culprit_good || (culprit.is_none() && any_good) => Self::GOOD,
            None => Self::UNKNOWN,
        }
    }

    fn rank(&self) -> (bool, f64) {
        let ratio = self
            .finding
            .as_ref()
            .map_or(0.0, |f| f.current / f.threshold);
        (self.seen == Seen::Bad, ratio)
    }
}

/// What belongs to `own` may concern `asked`: everything does when all is asked for, and what has no service may
/// belong to any.
pub(crate) fn concerns(own: Option<&str>, asked: Option<&str>) -> bool {
    asked.is_none() || own.is_none() || own == asked
}

/// How a slot turns evidence into verdicts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) k: u32,
    pub(crate) n: u32,
    pub(crate) recovery: u32,
    /// Severity where it does not follow the ratio.
    pub(crate) severity: Option<Severity>,
}

impl Rule {
    /// `k` of `n` checks, severity by ratio.
    pub(crate) fn persistent(config: &DetectConfig) -> Self {
        Self {
            k: config.persistence_k,
            n: config.persistence_n,
            recovery: config.recovery_checks,
            severity: None,
        }
    }

    /// The monitor has counted by itself already.
    pub(crate) fn at_once(config: &DetectConfig, severity: Severity) -> Self {
        Self {
            k: 1,
            n: 1,
            recovery: config.recovery_checks,
            severity: Some(severity),
        }
    }

    /// The same with a fixed severity.
    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self {
            severity: Some(severity),
            ..self
        }
    }
}

/// Where one anomaly can stand.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    kind: AnomalyType,
    series: String,
    rule: Rule,
    ring: VecDeque<bool>,
    good_in_row: u32,
    active: Option<Anomaly>,
    source: Option<String>,
    suppressed: bool,
}

impl Slot {
    pub(crate) fn new(kind: &'static str, series: &str, rule: Rule) -> Self {
        Self {
            kind: AnomalyType::known(kind),
            series: series.to_owned(),
            rule,
            ring: VecDeque::new(),
            good_in_row: 0,
            active: None,
            source: None,
            suppressed: false,
        }
    }

    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.kind, self.series)
    }

    pub(crate) fn active(&self) -> Option<&Anomaly> {
        self.active.as_ref()
    }

    /// The source that the standing anomaly was seen in.
    pub(crate) fn culprit(&self) -> Option<&str> {
        self.active.as_ref().and(self.source.as_deref())
    }

    /// Forgets the evidence of earlier checks; a standing anomaly stays.
    pub(crate) fn forget_evidence(&mut self) {
        self.ring.clear();
        self.good_in_row = 0;
        self.suppressed = false;
    }

    /// Forgets everything; returns the key of the anomaly that stood here.
    pub(crate) fn forget(&mut self) -> Option<String> {
        self.forget_evidence();
        self.source = None;
        self.active.take().map(|a| a.key())
    }

    /// Takes what a check saw. `by` is the key of an anomaly that would explain this one.
    pub(crate) fn step(
        &mut self,
        evaluation: Evaluation,
        by: Option<&str>,
        baseline: Option<f64>,
    ) -> Option<Verdict> {
        self.count(evaluation.seen);
        if by.is_none() {
            self.suppressed = false;
        }
        if let Some(active) = &mut self.active {
            if evaluation.seen == Seen::Over || self.good_in_row >= self.rule.recovery {
                return self.forget().map(|key| Verdict::Cleared {
                    key,
                    kind: self.kind.clone(),
                });
            }
            if let Some(finding) = evaluation.finding {
                let fresh = build(&self.kind, &self.series, self.rule, finding, baseline).0;
                *active = Anomaly {
                    since: active.since,
                    severity: fresh.severity.max(active.severity),
                    service: active.service.clone(),
                    ..fresh
                };
            }
            return Some(Verdict::Continues { key: self.key() });
        }
        let hits = self.ring.iter().filter(|hit| **hit).count();
        let due = evaluation.seen == Seen::Bad && hits >= self.rule.k as usize;
        let finding = evaluation.finding.filter(|_| due)?;
        if let Some(by) = by {
            if self.suppressed {
                return None;
            }
            self.suppressed = true;
            return Some(Verdict::Suppressed {
                key: self.key(),
                kind: self.kind.clone(),
                by: by.to_owned(),
            });
        }
        let (anomaly, source) = build(&self.kind, &self.series, self.rule, finding, baseline);
        self.source = Some(source);
        self.active = Some(anomaly.clone());
        Some(Verdict::Raised(anomaly))
    }

    fn count(&mut self, seen: Seen) {
        match seen {
            Seen::Bad => {
                self.push(true);
                self.good_in_row = 0;
            }
            Seen::BadStill => self.good_in_row = 0,
            Seen::Unsure => {
                self.push(false);
                self.good_in_row = 0;
            }
            Seen::Good => {
                self.push(false);
                self.good_in_row = self.good_in_row.saturating_add(1);
            }
            Seen::Unknown | Seen::Over => {}
        }
    }

    fn push(&mut self, hit: bool) {
        self.ring.push_back(hit);
        while self.ring.len() > self.rule.n as usize {
            self.ring.pop_front();
        }
    }
}

fn build(
    kind: &AnomalyType,
    series: &str,
    rule: Rule,
    finding: Finding,
    baseline: Option<f64>,
) -> (Anomaly, String) {
    let anomaly = Anomaly {
        kind: kind.clone(),
        severity: rule
            .severity
            .unwrap_or_else(|| severity_of(finding.current, finding.threshold)),
        current: finding.current,
        threshold: finding.threshold,
        details: finding.details,
        unit: finding.unit.to_owned(),
        baseline,
        test: None,
        series: Some(series.to_owned()),
        service: finding.service,
        since: finding.since,
        score: (finding.threshold > 0.0).then(|| finding.current / finding.threshold),
        context: finding.context,
    };
    (anomaly, finding.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            current: 2.0,
            threshold: 1.0,
            unit: "ms",
            details: String::new(),
            service: None,
            source: "a".into(),
            since: Timestamp::default(),
            context: Value::Null,
        }
    }

    fn slot() -> Slot {
        Slot::new(
            AnomalyType::LATENCY_SPIKE,
            "latency_p95",
            Rule::persistent(&DetectConfig::default()),
        )
    }

    fn run(slot: &mut Slot, pattern: &str) -> String {
        pattern
            .chars()
            .map(|c| {
                let evaluation = match c {
                    'B' => Evaluation::bad(finding()),
                    'b' => Evaluation {
                        seen: Seen::BadStill,
                        finding: Some(finding()),
                    },
                    'g' => Evaluation::GOOD,
                    'u' => Evaluation::UNSURE,
                    _ => Evaluation::UNKNOWN,
                };
                match slot.step(evaluation, None, None) {
                    Some(Verdict::Raised(_)) => 'R',
                    Some(Verdict::Continues { .. }) => 'c',
                    Some(Verdict::Cleared { .. }) => 'C',
                    Some(Verdict::Suppressed { .. }) => 's',
                    None => '.',
                }
            })
            .collect()
    }

    #[test]
    fn three_of_five_raise_once_and_two_good_clear_once() {
        for (pattern, expected) in [
            ("BBBBBggg", "..RcccC."),
            ("BgBgB", "....R"),
            ("BggBgBg", "......."),
            ("Bbbbbbbb", "........"),
            ("BBBgBgBgg", "..RcccccC"),
            ("BBB???gg", "..RccccC"),
            ("BBBbbggBB", "..RcccC.."),
            ("BB??B", "....R"),
            ("BBuuuB", "......"),
            ("BBBgugug", "..Rccccc"),
        ] {
            assert_eq!(run(&mut slot(), pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_explained_is_said_once_and_not_raised() {
        let mut slot = slot();
        let verdicts: Vec<_> = (0..6)
            .filter_map(|_| slot.step(Evaluation::bad(finding()), Some("down"), None))
            .collect();
        assert!(matches!(&verdicts[..], [Verdict::Suppressed { by, .. }] if by == "down"));
    }

    #[test]
    fn good_elsewhere_does_not_clear_what_went_silent() {
        let sources = || [("b", Evaluation::GOOD), ("a", Evaluation::UNKNOWN)].into_iter();
        assert_eq!(
            Evaluation::combine(sources(), Some("a")).seen,
            Seen::Unknown
        );
        assert_eq!(Evaluation::combine(sources(), Some("b")).seen, Seen::Good);
        assert_eq!(Evaluation::combine(sources(), None).seen, Seen::Good);
    }
}
