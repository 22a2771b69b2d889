//! What came of a run, for people.

use anstyle::{AnsiColor, Style as Ansi};

use super::report::{End, Report};
use super::shape;

/// Columns of the histogram's bars.
const BAR: usize = 32;
/// Lateness of sends, at the 99th percentile in milliseconds, from which it is worth a word.
const LATE_MS: f64 = 1.0;
/// Share of the felt latency, at the 99th percentile, from which lateness of sends is much of it.
const LATE_SHARE: f64 = 0.25;

/// The summary, in lines.
pub(super) fn text(report: &Report, colour: bool) -> String {
    let mut out = Page {
        lines: Vec::new(),
        colour,
    };
    out.head(report);
    out.counts(report);
    out.latencies(report);
    out.errors(report);
    out.requests(report);
    out.verdict(report);
    out.lines.join("\n")
}

struct Page {
    lines: Vec<String>,
    colour: bool,
}

impl Page {
    fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    fn pair(&mut self, name: &str, value: &str) {
        self.line(format!("  {name:<12}{value}"));
    }

    fn paint(&self, text: &str, style: Ansi) -> String {
        if self.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn bold(&self, text: &str) -> String {
        self.paint(text, Ansi::new().bold())
    }

    fn dim(&self, text: &str) -> String {
        self.paint(text, Ansi::new().dimmed())
    }

    fn good(&self, text: &str) -> String {
        self.paint(text, Ansi::new().fg_color(Some(AnsiColor::Green.into())))
    }

    fn bad(&self, text: &str) -> String {
        let style = Ansi::new().bold().fg_color(Some(AnsiColor::Red.into()));
        self.paint(text, style)
    }

    fn head(&mut self, report: &Report) {
        let run = &report.run;
        let url = self.bold(&run.url);
        self.line(url);
        let mut how = vec![run.protocol.clone()];
        if run.streams > 1 {
            how.push(format!("{} streams a connection", run.streams));
        }
        if !run.keep_alive {
            how.push("a new connection for each request".to_owned());
        }
        if run.threads > 1 {
            how.push(format!("{} threads", run.threads));
        }
        self.line(format!("  {}; {}", run.words, how.join(", ")));
        self.line("");
    }

    fn counts(&mut self, report: &Report) {
        let planned = report.planned.map_or_else(String::new, |planned| {
            format!("; {} planned", shape::count(planned))
        });
        let sent = format!(
            "{}, of which {} answered{planned}",
            shape::count(report.requests),
            match report.answered {
                0 => "none".to_owned(),
                n if n == report.requests => "all".to_owned(),
                n => shape::count(n),
            }
        );
        self.pair("requests", &sent);
        if report.unsent > 0 {
            self.pair(
                "not sent",
                &format!(
                    "{}: no connection became free for them; the target is saturated, or -c is too small",
                    shape::count(report.unsent)
                ),
            );
        }
        if report.aborted > 0 {
            self.pair(
                "cut off",
                &format!(
                    "{} under way when the run was ended; they are in no figure",
                    shape::count(report.aborted)
                ),
            );
        }
        self.pair(
            "throughput",
            &format!("{} /s", shape::rate(report.throughput_rps)),
        );
        self.pair("took", &format!("{:.2} s", report.elapsed_s));
        self.pair(
            "bytes",
            &format!(
                "{} received, {} sent, over {} connections",
                shape::bytes(report.bytes_received),
                shape::bytes(report.bytes_sent),
                shape::count(report.connections_opened)
            ),
        );
        self.line("");
    }

    fn latencies(&mut self, report: &Report) {
        if report.latency_histogram.us.is_empty() {
            return;
        }
        let (felt, took) = (&report.latency_ms, &report.service_ms);
        let rows = [
            ("p50", felt.p50, took.p50),
            ("p75", felt.p75, took.p75),
            ("p90", felt.p90, took.p90),
            ("p95", felt.p95, took.p95),
            ("p99", felt.p99, took.p99),
            ("p99.9", felt.p99_9, took.p99_9),
            ("p99.99", felt.p99_99, took.p99_99),
            ("max", felt.max, took.max),
            ("mean", felt.mean, took.mean),
        ];
        if report.is_open() {
            self.line(format!(
                "  {:<12}{:>10}  {:>12}",
                "latency", "felt", "service time"
            ));
            for (name, felt, took) in rows {
                self.line(format!(
                    "  {name:<12}{:>10}  {:>12}",
                    shape::ms(felt),
                    shape::ms(took)
                ));
            }
            let why = self.dim(
                "  felt: from when a request was due, as a user waits; service time: from when it left, without the wait for others",
            );
            self.line(why);
            if let Some(late) = &report.send_lateness_ms {
                let text = self.dim(&format!(
                    "  sent late by this host: p50 {}, p99 {}, max {}",
                    shape::ms(late.p50),
                    shape::ms(late.p99),
                    shape::ms(late.max)
                ));
                self.line(text);
                if late.p99 > LATE_MS && late.p99 > felt.p99 * LATE_SHARE {
                    let text = self.bad(
                        "  much of the felt latency is this host's own: free it of other work, or use more threads",
                    );
                    self.line(text);
                }
            }
        } else {
            self.line("  latency");
            for (name, felt, _) in rows {
                self.line(format!("  {name:<12}{:>10}", shape::ms(felt)));
            }
        }
        self.line("");
        let rows = shape::rows(report.latency_histogram.us.iter().copied());
        for line in shape::lines(&rows, BAR) {
            self.line(format!("  {line}"));
        }
        self.line("");
    }

    fn errors(&mut self, report: &Report) {
        if report.failed > 0 {
            let head = self.bad(&format!(
                "{} ({})",
                shape::count(report.failed),
                shape::percent(report.error_share)
            ));
            self.pair("errors", &head);
            let mut kinds: Vec<_> = report.errors.iter().collect();
            kinds.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            for (kind, count) in kinds {
                let remedy = self.dim(remedy(kind));
                self.line(format!(
                    "    {kind:<16}{:>10}  {remedy}",
                    shape::count(*count)
                ));
            }
            for sample in &report.error_samples {
                let sample = self.dim(&format!("    such as: {sample}"));
                self.line(sample);
            }
        } else if report.requests > 0 {
            self.pair("errors", "none");
        }
        if !report.statuses.is_empty() {
            let all: Vec<String> = report
                .statuses
                .iter()
                .map(|(status, count)| format!("{status}: {}", shape::count(*count)))
                .collect();
            self.pair("statuses", &all.join(", "));
        }
        self.line("");
    }

    fn requests(&mut self, report: &Report) {
        if report.per_request.is_empty() {
            return;
        }
        let width = report
            .per_request
            .iter()
            .map(|r| r.name.chars().count())
            .max()
            .unwrap_or(0)
            .clamp(7, 48);
        self.line(format!(
            "  {:<width$}  {:>12}  {:>8}  {:>10}  {:>10}  {:>10}",
            "request", "requests", "errors", "p50", "p95", "p99"
        ));
        for one in &report.per_request {
            let name: String = one.name.chars().take(width).collect();
            let errors: u64 = one.errors.values().sum();
            self.line(format!(
                "  {name:<width$}  {:>12}  {:>8}  {:>10}  {:>10}  {:>10}",
                shape::count(one.requests),
                shape::count(errors),
                shape::ms(one.latency_ms.p50),
                shape::ms(one.latency_ms.p95),
                shape::ms(one.latency_ms.p99)
            ));
        }
        self.line("");
    }

    fn verdict(&mut self, report: &Report) {
        for t in &report.thresholds {
            let measured = match (t.measured, t.unit.as_str()) {
                (None, _) => "nothing was measured".to_owned(),
                (Some(value), "ms") => shape::ms(value),
                (Some(value), "%") => shape::percent(value / 100.0),
                (Some(value), unit) => format!("{} {unit}", shape::rate(value)),
            };
            let mark = if t.passed {
                self.good("kept  ")
            } else {
                self.bad("MISSED")
            };
            self.line(format!("  {mark}  {:<24}{measured}", t.text));
        }
        let ended = if report.cancelled {
            "ended by a signal; these are the figures up to then"
        } else {
            "the run was made to its end"
        };
        let last = match report.end() {
            End::Good if report.thresholds.is_empty() => ended.to_owned(),
            End::Good => {
                let kept = self.good("every threshold was kept");
                format!("{ended}; {kept}")
            }
            End::Missed(why) | End::Useless(why) => self.bad(&why),
        };
        self.line(last);
    }
}

/// What to do about a kind of error.
fn remedy(kind: &str) -> &'static str {
    match kind {
        "refused" => "nothing listens there: is the target running, and on this port?",
        "connect_timeout" => {
            "no connection within --connect-timeout: a firewall, or the target's listening queue is full"
        }
        "connect" => "the connection could not be opened: see the message below",
        "reset" => {
            "the target closed the connection in the middle: a crash, a limit, or an idle time-out shorter than the pauses"
        }
        "tls" => {
            "TLS was not agreed on: name the authority with --cacert, and check name and date of the certificate"
        }
        "timeout" => "no complete answer within --timeout: the target is too slow under this load",
        "protocol" => {
            "what came back is not the HTTP that was spoken: check the port, https, and --http2"
        }
        "assertion" => "a good status, and not what the --expect options ask for",
        "local" => {
            "this host ran out of sockets or ports: raise its limits, or use fewer connections"
        }
        _ => match kind.strip_prefix("status_") {
            Some(status) if status.starts_with('3') => {
                "a redirect, and those are not followed: aim at where it leads"
            }
            Some("401" | "403") => "the target wants credentials: give them with -H",
            Some("404") => "the target does not know this path",
            Some("429") => "the target's own limiter says no",
            Some(status) if status.starts_with('4') => "the target does not accept this request",
            Some(status) if status.starts_with('5') => "the target failed: its log says why",
            _ => "a status that was not expected",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::example;

    #[test]
    fn a_run_of_an_open_loop_in_words() {
        insta::assert_snapshot!(text(&example(), false));
    }

    #[test]
    fn what_is_wrong_is_told_last() {
        let mut report = example();
        report.invalid = Some("the generator was the bottleneck".to_owned());
        let said = text(&report, false);
        let last = said.lines().last().unwrap();
        assert_eq!(last, "invalid: the generator was the bottleneck");
        report.invalid = None;
        report.thresholds[0].passed = false;
        let said = text(&report, false);
        assert!(said.contains("MISSED  p95 < 300ms"), "{said}");
        assert!(said.ends_with("1 of 1 thresholds missed"), "{said}");
    }

    #[test]
    fn colour_is_used_only_where_it_is_allowed() {
        assert!(!text(&example(), false).contains('\u{1b}'));
        assert!(text(&example(), true).contains('\u{1b}'));
    }
}
