//! The scorer of streaming detectors: NAB's published profiles, and recall at a budget of false alarms.
//!
//! A detector sees each series once and in order; its scores are judged here. Alarms no more than 12 samples apart are
//! one event, an event outside every labelled window is a false alarm, and R@b is the share of labelled events that
//! the most sensitive threshold finds which raises at most b false alarms per series in 30 days. One threshold serves
//! all series. It is chosen on the series that it is judged on, or, *frozen*, on every other one and judged on the
//! rest, which is the number to believe.
//!
//! Profiles: Lavin & Ahmad, "Evaluating real-time anomaly detection algorithms" (2015).

/// Alarms at most so many samples apart are one event.
const MERGE: usize = 12;
/// False alarms per series in 30 days at which recall is given.
pub(crate) const BUDGETS: [f64; 4] = [0.25, 0.5, 1.0, 2.0];
/// NAB's application profiles: weights of a true positive, a false positive and a false negative.
const PROFILES: [(f64, f64, f64); 3] = [(1.0, 0.11, 1.0), (1.0, 0.22, 1.0), (1.0, 0.11, 2.0)];
const MS_PER_DAY: f64 = 86_400_000.0;

/// Samples at the start in which a detector is not judged: 15 %, at most 750.
fn probation(n: usize) -> usize {
    (n * 15 / 100).min(750)
}

/// One series with the scores that a detector gave it.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    /// Scores; -1 in the probation.
    judged: Vec<f64>,
    skip: usize,
    /// First and last index of each labelled window.
    windows: Vec<(usize, usize)>,
    /// Highest score within each window.
    peaks: Vec<f64>,
    inside: Vec<bool>,
    days: f64,
}

impl Scored {
    /// `times_ms` and `scores` have the same length, 1 at least; `windows` are in order, both ends within.
    pub(crate) fn new(times_ms: &[i64], scores: &[f64], windows: &[(usize, usize)]) -> Self {
        let n = scores.len();
        let skip = probation(n);
        let mut judged = scores.to_vec();
        judged[..skip].fill(-1.0);
        let mut inside = vec![false; n];
        for (first, last) in windows {
            inside[*first..=*last].fill(true);
        }
        let peak = |&(first, last): &(usize, usize)| {
            judged[first..=last].iter().copied().fold(-1.0, f64::max)
        };
        Self {
            peaks: windows.iter().map(peak).collect(),
            days: (times_ms[n - 1] - times_ms[skip]) as f64 / MS_PER_DAY,
            windows: windows.to_vec(),
            judged,
            skip,
            inside,
        }
    }

    /// What an alarm at each sample is worth: positive inside a window, the more the earlier.
    fn worth(&self) -> Vec<f64> {
        let mut worth = vec![-1.0; self.judged.len()];
        for (first, last) in &self.windows {
            let width = (last - first).max(1) as f64;
            for (i, w) in worth.iter_mut().enumerate().take(last + 1).skip(*first) {
                let at = -((last - i) as f64 + 1.0) / (width + 1.0);
                *w = scaled_sigmoid(at) / scaled_sigmoid(-1.0);
            }
            let next = self.windows.iter().map(|w| w.0).find(|start| start > last);
            let end = next.unwrap_or(self.judged.len());
            for (i, w) in worth.iter_mut().enumerate().take(end).skip(last + 1) {
                *w = scaled_sigmoid((i - last) as f64 / width);
            }
        }
        worth
    }
}

fn scaled_sigmoid(x: f64) -> f64 {
    if x > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + (5.0 * x).exp()) - 1.0
    }
}

/// NAB's scores for the profiles standard, low FP and low FN: 0 for a silent detector, 100 for a perfect one.
pub(crate) fn nab(all: &[Scored]) -> [f64; 3] {
    PROFILES.map(|profile| nab_profile(all, profile))
}

fn nab_profile(all: &[Scored], (hit, false_alarm, missed): (f64, f64, f64)) -> f64 {
    let windows = all.iter().map(|s| s.windows.len()).sum::<usize>() as f64;
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for s in all {
        let worth = s.worth();
        let mut owner = vec![None; s.judged.len()];
        for (k, (first, last)) in s.windows.iter().enumerate() {
            owner[*first..=*last].fill(Some(k));
        }
        let mut best: Vec<Option<f64>> = vec![None; s.windows.len()];
        let mut order: Vec<usize> = (s.skip..s.judged.len()).collect();
        order.sort_by(|a, b| s.judged[*b].total_cmp(&s.judged[*a]));
        for i in order {
            let gain = match owner[i] {
                None => false_alarm * worth[i],
                Some(k) => {
                    let gain = match best[k] {
                        None => missed + hit * worth[i],
                        Some(had) if worth[i] > had => hit * (worth[i] - had),
                        Some(_) => continue,
                    };
                    best[k] = Some(worth[i]);
                    gain
                }
            };
            steps.push((s.judged[i], gain));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    let silent = -windows * missed;
    let (mut best, mut sum) = (silent, 0.0);
    for (i, (score, gain)) in steps.iter().enumerate() {
        sum += gain;
        // A threshold takes all samples of equal score or none.
        if steps.get(i + 1).is_none_or(|next| next.0 < *score) {
            best = f64::max(best, sum - windows * missed);
        }
    }
    100.0 * (best - silent) / (windows * hit - silent)
}

/// A threshold and what it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Scores of at least this are alarms.
    pub(crate) threshold: f64,
    /// Share of the labelled events that are hit, 0 to 1.
    pub(crate) recall: f64,
    /// False alarms per series in 30 days.
    pub(crate) rate: f64,
    hits: usize,
}

fn events_at(all: &[Scored], threshold: f64) -> Found {
    let (mut hits, mut total, mut alarms, mut days) = (0, 0, 0_u32, 0.0);
    for s in all {
        for ((_, last), peak) in s.windows.iter().zip(&s.peaks) {
            if *last >= s.skip {
                total += 1;
                hits += usize::from(*peak >= threshold);
            }
        }
        days += s.days;
        let mut previous: Option<usize> = None;
        for (i, score) in s.judged.iter().enumerate() {
            if *score >= threshold && !s.inside[i] {
                alarms += u32::from(previous.is_none_or(|p| i - p > MERGE));
                previous = Some(i);
            }
        }
    }
    Found {
        threshold,
        recall: hits as f64 / f64::from(total.max(1_u32)),
        rate: 30.0 * f64::from(alarms) / days,
        hits,
    }
}

/// Thresholds to try, the highest first: quantiles, and the highest 400 scores.
fn candidates(all: &[Scored]) -> Vec<f64> {
    let mut scores: Vec<f64> = all
        .iter()
        .flat_map(|s| &s.judged[s.skip..])
        .copied()
        .collect();
    scores.sort_by(f64::total_cmp);
    let (low, high) = (1e-6_f64.log10(), 0.3_f64.log10());
    let mut found: Vec<f64> = (0..300_u32)
        .map(|i| match i {
            0 => 1e-6,
            299 => 0.3,
            _ => 10_f64.powf(low + f64::from(i) * ((high - low) / 299.0)),
        })
        .map(|share| quantile(&scores, 1.0 - share))
        .collect();
    found.extend(scores.iter().rev().take(400));
    found.sort_by(|a, b| b.total_cmp(a));
    found.dedup();
    found
}

/// Quantile with linear interpolation; `sorted` is not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = at.floor() as usize;
    let (a, share) = (sorted[below], at - at.floor());
    let b = sorted[(below + 1).min(sorted.len() - 1)];
    if share >= 0.5 {
        b - (b - a) * (1.0 - share)
    } else {
        a + (b - a) * share
    }
}

/// The most that is found at no more than `budget` false alarms per series in 30 days; `None` where every threshold
/// raises more.
pub(crate) fn recall_at(all: &[Scored], budget: f64) -> Option<Found> {
    let mut best: Option<Found> = None;
    for threshold in candidates(all) {
        let found = events_at(all, threshold);
        if found.rate <= budget && best.is_none_or(|b| found.hits > b.hits) {
            best = Some(found);
        }
    }
    best
}

/// The threshold chosen on every other series, judged on the rest.
pub(crate) fn frozen(all: &[Scored], budget: f64) -> Option<Found> {
    let half = |odd: usize| -> Vec<Scored> { all.iter().skip(odd).step_by(2).cloned().collect() };
    recall_at(&half(0), budget).map(|found| events_at(&half(1), found.threshold))
}

/// How far into a window it is found, as a share of the window's length: the median over the windows that are.
pub(crate) fn delay(all: &[Scored], threshold: f64) -> Option<f64> {
    let mut late: Vec<f64> = Vec::new();
    for s in all {
        for (first, last) in &s.windows {
            let hit = s.judged[*first..=*last]
                .iter()
                .position(|v| *v >= threshold);
            late.extend(hit.map(|i| i as f64 / (last - first).max(1) as f64));
        }
    }
    late.sort_by(f64::total_cmp);
    (!late.is_empty()).then(|| quantile(&late, 0.5))
}

/// Labels no more than three rows apart are one event; it may be found from one row before to three after it.
pub(crate) fn label_windows(labels: &[bool]) -> Vec<(usize, usize)> {
    let n = labels.len();
    let mut windows = Vec::new();
    let mut i = 0;
    while i < n {
        if !labels[i] {
            i += 1;
            continue;
        }
        let mut j = i;
        while let Some(next) = (j + 1..(j + 4).min(n)).rfind(|k| labels[*k]) {
            j = next;
        }
        windows.push((i.saturating_sub(1), (j + 3).min(n - 1)));
        i = j + 1;
    }
    windows
}
