//! How a run goes, while it goes, on standard error: redrawn in place on a terminal, else a line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use evenkeel_stress::Live;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::{Asked, Pacing, Percentiles};
use super::shape;
use super::values::in_words;

/// Time to the first line where there is no terminal; each later gap is twice as long, up to [`GAP_MAX`].
const GAP_FIRST: Duration = Duration::from_secs(2);
/// Longest time between two lines.
const GAP_MAX: Duration = Duration::from_mins(1);
/// Columns of the bars.
const BAR: usize = 24;

/// What is known of a run beforehand.
#[derive(Clone, Copy, Debug)]
struct Whole {
    warm_up: Duration,
    duration: Option<Duration>,
    requests: Option<u64>,
    open: bool,
}

/// Shows how a run goes.
pub(super) struct View {
    whole: Whole,
    way: Way,
}

enum Way {
    Silent,
    Terminal(ProgressBar),
    Lines { next: Duration, gap: Duration },
}

impl View {
    /// For what was asked; `quiet` shows nothing.
    pub(super) fn new(asked: &Asked, quiet: bool) -> Self {
        let way = if quiet {
            Way::Silent
        } else if on_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.set_message("  connecting".to_owned());
            Way::Terminal(bar)
        } else {
            Way::Lines {
                next: GAP_FIRST,
                gap: GAP_FIRST,
            }
        };
        Self {
            whole: Whole::of(asked),
            way,
        }
    }

    /// Shows it; called about four times a second.
    pub(super) fn show(&mut self, live: &Live) {
        match &mut self.way {
            Way::Silent => {}
            Way::Terminal(bar) => bar.set_message(frame(&self.whole, live)),
            Way::Lines { next, gap } => {
                if !live.measuring || live.elapsed < *next {
                    return;
                }
                *gap = (*gap * 2).min(GAP_MAX);
                *next = live.elapsed + *gap;
                // Nobody may be reading any more; the run goes on.
                let _ = writeln!(std::io::stderr(), "{}", line(&self.whole, live));
            }
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(self) {
        if let Way::Terminal(bar) = self.way {
            bar.finish_and_clear();
        }
    }
}

fn on_terminal() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    !dumb && std::io::stderr().is_terminal()
}

impl Whole {
    fn of(asked: &Asked) -> Self {
        let time = |ms: u64| Some(Duration::from_millis(ms));
        let (duration, requests, open) = match asked.load {
            Pacing::Open { duration_ms, .. } => (time(duration_ms), None, true),
            Pacing::Closed {
                requests,
                duration_ms,
                ..
            } => (duration_ms.and_then(time), requests, false),
        };
        Self {
            warm_up: Duration::from_millis(asked.warm_up_ms),
            duration,
            requests,
            open,
        }
    }

    fn share_done(&self, live: &Live) -> f64 {
        match (self.duration, self.requests) {
            (Some(whole), _) => live.elapsed.as_secs_f64() / whole.as_secs_f64().max(0.001),
            (None, Some(whole)) => live.requests as f64 / whole.max(1) as f64,
            (None, None) => 0.0,
        }
    }
}

/// Answered requests a second: of the last whole second, or of all the time so far.
fn throughput(live: &Live) -> f64 {
    match &live.last {
        Some(last) => last.throughput_rps(),
        None => live.requests as f64 / live.elapsed.as_secs_f64().max(0.001),
    }
}

/// How far it has come: `4 s of 10 s`, `700 of 1,000 requests`.
fn come(whole: &Whole, live: &Live) -> String {
    let seconds = live.elapsed.as_secs_f64();
    match (whole.duration, whole.requests) {
        // What is still under way when the time is over may take as long as its limit.
        (Some(d), _) if live.elapsed > d => format!("{seconds:.1} s, waiting for the last answers"),
        (Some(d), _) => format!("{seconds:.1} s of {}", in_words(d)),
        (None, Some(n)) => format!(
            "{seconds:.1} s, {} of {} requests",
            shape::count(live.requests),
            shape::count(n)
        ),
        (None, None) => format!("{seconds:.1} s"),
    }
}

fn errors(live: &Live) -> String {
    let all: u64 = live.errors.values().sum();
    if all == 0 {
        return "no errors".to_owned();
    }
    let mut kinds: Vec<(&String, &u64)> = live.errors.iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut told: Vec<String> = kinds
        .iter()
        .take(4)
        .map(|(kind, count)| format!("{kind} {}", shape::count(**count)))
        .collect();
    if kinds.len() > told.len() {
        told.push("...".to_owned());
    }
    format!("errors {}: {}", shape::count(all), told.join(", "))
}

/// One picture of a terminal.
fn frame(whole: &Whole, live: &Live) -> String {
    if !live.measuring {
        return format!("  warm-up of {}: not counted yet", in_words(whole.warm_up));
    }
    let p = Percentiles::of(&live.latency);
    let done = whole.share_done(live).min(1.0);
    let bar = shape::bar(done, BAR);
    let mut lines = vec![
        format!("  {bar:·<BAR$}  {}", come(whole, live)),
        format!(
            "  {} requests/s   {} done   {} under way",
            shape::rate(throughput(live)),
            shape::count(live.requests),
            shape::count(live.under_way)
        ),
        format!(
            "  {} p50 {}   p90 {}   p99 {}   max {}",
            if whole.open {
                "felt latency"
            } else {
                "latency"
            },
            shape::ms(p.p50),
            shape::ms(p.p90),
            shape::ms(p.p99),
            shape::ms(p.max)
        ),
        format!("  {}", errors(live)),
    ];
    let buckets: Vec<(u64, u64)> = live
        .latency
        .iter_recorded()
        .map(|b| (b.value_iterated_to(), b.count_since_last_iteration()))
        .collect();
    let rows = shape::rows(buckets.iter().copied());
    lines.extend(
        shape::lines(&rows, BAR)
            .into_iter()
            .map(|line| format!("    {line}")),
    );
    lines.join("\n")
}

/// One line for where there is no terminal.
fn line(whole: &Whole, live: &Live) -> String {
    let p = Percentiles::of(&live.latency);
    format!(
        "{}: {} requests/s, p50 {}, p99 {}, max {}, {}, {} under way",
        come(whole, live),
        shape::rate(throughput(live)),
        shape::ms(p.p50),
        shape::ms(p.p99),
        shape::ms(p.max),
        errors(live),
        shape::count(live.under_way)
    )
}
