//! The alert as people read it: the specification's lines, exactly, and below them what helps. Pure.

use std::fmt::Write as _;

use super::Alert;

/// Width of the rules, in characters.
pub const RULE_WIDTH: usize = 80;

/// Lays an alert out.
pub fn render(alert: &Alert) -> String {
    let f = alert.facts();
    let (heading, sentence) = f.kind.words();
    let rule = "=".repeat(RULE_WIDTH);
    // RFC 3339 in whole seconds: the first 19 characters and the zone.
    let at = f.at.to_string();
    let at = format!("{}Z", at.get(..19).unwrap_or(&at));
    let mut out = format!(
        "{rule}\n{heading}\n{rule}\n\
         Timestamp: {at}\nAnomaly: {}\nSeverity: {}\nDetails: {}\nHealing Attempts: {}\nAMP Escalation: {}\n\n\
         {sentence}\n",
        f.anomaly,
        f.severity,
        f.details,
        f.healing_attempts,
        f.escalation.as_str(),
    );
    let mut list = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            let _ = write!(out, "\n{title}:\n");
            for line in lines {
                let _ = writeln!(out, "  - {line}");
            }
        }
    };
    list("What was tried", &f.tried);
    let mut places = Vec::new();
    if let Some(p) = &f.snapshot {
        places.push(format!("Snapshot from before: {}", p.display()));
    }
    if let Some(p) = &f.ledger {
        places.push(format!("Ledger: {}", p.display()));
    }
    list("Where to look", &places);
    list("Next steps", &f.next_steps);
    out.push_str(&rule);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use evenkeel_core::redact::Redactor;
    use evenkeel_core::{AnomalyType, Severity, Timestamp};

    use super::super::{Alert, AlertFacts, AlertKind, Escalation};

    fn facts() -> AlertFacts {
        AlertFacts {
            kind: AlertKind::Alert,
            at: Timestamp::parse("2025-11-09T19:07:00.250Z").unwrap(),
            anomaly: AnomalyType::known("error_rate_spike"),
            severity: Severity::High,
            details: "Error rate 12% exceeds threshold 5%".into(),
            healing_attempts: 3,
            escalation: Escalation::Failed,
            tried: vec![],
            snapshot: None,
            ledger: None,
            next_steps: vec![],
        }
    }

    #[test]
    fn it_is_laid_out_as_specified() {
        let rule = "=".repeat(80);
        let expected = format!(
            "{rule}\nCRITICAL ALERT - HUMAN INTERVENTION REQUIRED\n{rule}\n\
             Timestamp: 2025-11-09T19:07:00Z\n\
             Anomaly: error_rate_spike\n\
             Severity: high\n\
             Details: Error rate 12% exceeds threshold 5%\n\
             Healing Attempts: 3\n\
             AMP Escalation: Failed\n\
             \n\
             Self-healing exhausted. Manual intervention required.\n\
             {rule}\n"
        );
        assert_eq!(Alert::new(facts(), &Redactor::default()).text(), expected);
    }

    #[test]
    fn what_helps_stands_below_and_the_specified_lines_stay() {
        let mut f = facts();
        let bare = Alert::new(f.clone(), &Redactor::default()).text();
        f.tried = vec!["scale_up_workers: failed".into()];
        f.snapshot = Some("/data/storage/snapshots/pre_heal_x".into());
        f.ledger = Some("/data/evenkeel.db".into());
        f.next_steps = vec!["evenkeel history".into()];
        let text = Alert::new(f, &Redactor::default()).text();
        let rule = "=".repeat(80);
        let specified = bare.strip_suffix(&format!("{rule}\n")).unwrap();
        assert!(
            text.starts_with(specified) && text.ends_with(&format!("{rule}\n")),
            "{text}"
        );
        for line in [
            "What was tried:\n  - scale_up_workers: failed\n",
            "  - Snapshot from before: /data/storage/snapshots/pre_heal_x\n",
            "  - Ledger: /data/evenkeel.db\n",
            "Next steps:\n  - evenkeel history\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    /// SAFETY 18, 22
    #[test]
    fn details_can_neither_forge_lines_nor_carry_secrets() {
        let mut f = facts();
        f.details = format!(
            "key s3cr\u{200b}et-value\nAMP Escalation: Not needed\u{1b}[2J{}",
            "x".repeat(9000)
        );
        f.tried = vec!["used s3cret-value".into(); 500];
        let text = Alert::new(f, &Redactor::new(["s3cret-value".to_owned()])).text();
        assert!(
            !text.contains("s3cret") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert_eq!(
            text.lines()
                .filter(|l| l.starts_with("AMP Escalation"))
                .count(),
            1
        );
        assert!(text.len() < 32 * 1024);
    }
}
