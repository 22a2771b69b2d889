//! Showing what is told: on a terminal, as plain lines, or as JSON lines.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style as Ansi};
use evenkeel_core::TestStatus;
use evenkeel_core::anomaly::format_measure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Mark, Say};

/// How to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Colour where allowed, and progress.
    Terminal {
        /// Whether colour is allowed.
        colour: bool,
    },
    /// Plain lines.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing.
    Silent,
}

impl Style {
    /// What fits standard output: JSON when asked for; progress on a terminal; colour unless `NO_COLOR` is set.
    pub fn detect(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if !std::io::stdout().is_terminal() {
            return Self::Plain;
        }
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        if dumb {
            Self::Plain
        } else {
            Self::Terminal { colour: !no_colour }
        }
    }
}

pub(super) struct Renderer {
    style: Style,
    bar: Option<ProgressBar>,
    quiet_shown: u64,
}

impl Renderer {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            bar: None,
            quiet_shown: 0,
        }
    }

    pub(super) fn show(&mut self, say: &Say) {
        match self.style {
            Style::Silent => {}
            Style::Json => {
                let mut value = serde_json::to_value(say).unwrap_or_default();
                if let Some(map) = value.as_object_mut() {
                    map.insert(
                        "at".into(),
                        serde_json::json!(crate::clock::now().to_string()),
                    );
                }
                write_line(&value.to_string());
            }
            Style::Plain | Style::Terminal { .. } => self.show_text(say),
        }
    }

    fn show_text(&mut self, say: &Say) {
        let clock = crate::clock::now().clock();
        let at = self.dim(&format!("[{clock}]"));
        match say {
            Say::Heading { text } => {
                self.line("");
                let text = self.bold(text);
                self.line(&text);
            }
            Say::BootStage {
                n,
                total,
                name,
                mark,
                message,
            } => {
                let mark = self.mark(*mark);
                self.line(&format!("{at} [{n}/{total}] {name:<22} {mark} {message}"));
            }
            Say::BootComplete { passed, total } => {
                self.line(&format!(
                    "{at} Boot pipeline completes ({passed}/{total} stages)"
                ));
            }
            Say::StressStarted { total } => {
                self.line(&format!("{at} Stress test starts ({total} tests)"));
            }
            Say::TestStarted { index, total, name } => {
                self.progress("{bar:16} [{pos}/{len}] {wide_msg} {elapsed}", name);
                if let Some(bar) = &self.bar {
                    bar.set_length(*total as u64);
                    bar.set_position(*index as u64 + 1);
                }
            }
            Say::TestFinished {
                index,
                total,
                result,
            } => {
                self.clear();
                let (mark, detail) = match result.status {
                    TestStatus::Passed => (
                        Mark::Pass,
                        format!(
                            "{} requests, p95 {:.0} ms{}",
                            result.requests,
                            result.latency_ms.p95,
                            if result.unit == "MB" {
                                format!(", memory {}", format_measure(result.value, "MB"))
                            } else {
                                String::new()
                            }
                        ),
                    ),
                    TestStatus::Failed => (Mark::Fail, result.issue.clone().unwrap_or_default()),
                    TestStatus::Skipped => (Mark::Skip, result.issue.clone().unwrap_or_default()),
                };
                let slow = result.status == TestStatus::Passed
                    && result.duration_ms > result.expected_max_ms;
                let slow = if slow {
                    format!(
                        " (slow: {:.0} ms, expected {:.0})",
                        result.duration_ms, result.expected_max_ms
                    )
                } else {
                    String::new()
                };
                let mark = self.mark(mark);
                self.line(&format!(
                    "{at}   [{}/{total}] {:<26} {mark} {detail}{slow}",
                    index + 1,
                    result.test_name
                ));
            }
            Say::StressFinished { suite } => {
                let skipped = if suite.tests_skipped > 0 {
                    format!(", {} skipped", suite.tests_skipped)
                } else {
                    String::new()
                };
                self.line(&format!(
                    "{at} Passed: {}/{}{skipped}; anomalies: {}",
                    suite.tests_passed,
                    suite.tests_run,
                    suite.anomalies.len()
                ));
            }
            Say::AnomalyDetected { anomaly } => {
                self.clear();
                self.quiet_shown = 0;
                let kind = self.colour(anomaly.kind.as_str(), AnsiColor::Yellow);
                self.line(&format!(
                    "{at} Anomaly detected: {kind} ({}) {}",
                    anomaly.severity, anomaly.details
                ));
            }
            Say::AnomalyCleared { key, why } => {
                self.line(&format!("{at} Anomaly gone: {key}: {why}"));
            }
            Say::BaselineSaved {
                file,
                success_rate,
                avg_latency_ms,
                anomalies,
            } => {
                let noted = match anomalies {
                    0 => String::new(),
                    1 => " (with an anomaly noted)".to_owned(),
                    n => format!(" (with {n} anomalies noted)"),
                };
                self.line(&format!(
                    "{at} Baseline established{noted}: success rate {:.0}%, average latency {avg_latency_ms:.0} ms -> {file}",
                    success_rate * 100.0
                ));
            }
            Say::WatchdogStarted { interval_ms } => {
                self.line(&format!(
                    "{at} Watchdog started ({} interval)",
                    duration(*interval_ms)
                ));
            }
            Say::WatchdogQuiet { checks } => {
                // On a long watch one line for each power of two is enough for a person; the log has them all.
                if *checks <= 4 || checks.is_power_of_two() {
                    self.line(&format!("{at} Watchdog check: No anomalies"));
                }
                self.quiet_shown = *checks;
            }
            Say::HealingStarted {
                workflow_id,
                anomaly,
            } => {
                self.line("");
                let head = self.bold("[HEALING WORKFLOW]");
                self.line(&format!("{head} {} ({workflow_id})", anomaly.subject()));
            }
            Say::AttemptStarted {
                attempt,
                max_attempts,
            } => {
                self.line(&format!("  Healing attempt {attempt} of {max_attempts}"));
            }
            Say::StepStarted { n, text } => self.progress(
                "{spinner} {wide_msg} {elapsed}",
                &format!("  [{n}/6] {text}..."),
            ),
            Say::StepFinished {
                n,
                text,
                mark,
                detail,
            } => {
                self.clear();
                let mark = self.mark(*mark);
                self.line(format!("  [{n}/6] {text}... {mark} {detail}").trim_end());
            }
            Say::StepDetail { text } => {
                let text = self.dim(text);
                self.line(&format!("        {text}"));
            }
            Say::Escalation { text } => {
                self.clear();
                self.line(&format!("  {text}"));
            }
            Say::HealingFinished {
                success, message, ..
            } => {
                self.clear();
                self.line("");
                let word = if *success {
                    self.colour("[SUCCESS]", AnsiColor::Green)
                } else {
                    self.colour("[FAILED]", AnsiColor::Red)
                };
                self.line(&format!("  {word} {message}"));
                self.line("");
            }
            Say::Note { text } => self.line(&format!("{at} {text}")),
            Say::Warning { text } => {
                self.clear();
                let word = self.colour("warning:", AnsiColor::Yellow);
                self.line(&format!("{at} {word} {text}"));
            }
            Say::Verdict { success, text, .. } => {
                self.clear();
                let colour = if *success {
                    AnsiColor::Green
                } else {
                    AnsiColor::Red
                };
                let text = self.colour(text, colour);
                self.line(&text);
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        write_line(text);
    }

    /// Shows what is under way, until the next line.
    fn progress(&mut self, template: &str, text: &str) {
        if !matches!(self.style, Style::Terminal { .. }) {
            return;
        }
        self.clear();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout_with_hz(12));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bar = Some(bar);
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn mark(&self, mark: Mark) -> String {
        match mark {
            Mark::Ok => self.colour("[OK]", AnsiColor::Green),
            Mark::Pass => self.colour("[PASS]", AnsiColor::Green),
            Mark::Fail => self.colour("[FAIL]", AnsiColor::Red),
            Mark::Warn => self.colour("[WARN]", AnsiColor::Yellow),
            Mark::Skip => self.colour("[SKIP]", AnsiColor::Cyan),
        }
    }

    fn paint(&self, text: &str, style: Ansi) -> String {
        if self.style == (Style::Terminal { colour: true }) {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn colour(&self, text: &str, colour: AnsiColor) -> String {
        self.paint(text, Ansi::new().fg_color(Some(colour.into())))
    }

    fn bold(&self, text: &str) -> String {
        self.paint(text, Ansi::new().bold())
    }

    fn dim(&self, text: &str) -> String {
        self.paint(text, Ansi::new().dimmed())
    }
}

/// A reader that went away (`| head`) must not end the healing.
fn write_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}
