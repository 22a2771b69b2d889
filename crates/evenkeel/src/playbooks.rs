//! The playbooks that are known: those inside the binary, and the user's own over them.

use std::path::{Path, PathBuf};

use evenkeel_core::playbook::{Playbook, PlaybookProblem, lint, parse};

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        /// File name and text of each built-in playbook.
        pub const BUILT_IN: &[(&str, &str)] = &[
            $((concat!($name, ".yaml"), include_str!(concat!("../playbooks/", $name, ".yaml")))),+
        ];
    };
}

built_in![
    "scale_up_workers",
    "increase_db_pool_size",
    "investigate_error_spike",
    "optimize_request_handling",
    "configure_multimodal_resources",
    "restart_memory_heavy_services",
    "scale_up_resources",
    "review_failed_playbooks",
    "restart_metrics_collector",
    "tune_governance",
    "restart_event_mesh_consumers",
    "restart_down_service",
    "restart_hung_service",
];

/// Most playbook files read from a directory.
const FILES_MAX: usize = 500;

/// A known playbook and where it comes from.
#[derive(Clone, Debug)]
pub struct Known {
    /// The playbook.
    pub playbook: Playbook,
    /// Its text.
    pub text: String,
    /// `built-in`, or its file.
    pub origin: String,
}

/// Why the playbooks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaybooksError {
    /// Mistakes, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<PlaybookProblem>),
    /// The directory or a file cannot be read.
    #[error("playbooks in {dir}: {reason}")]
    Unreadable {
        /// The directory or file.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The built-in playbooks, and those in `dir` (which need not exist) over them by name.
pub fn load(dir: &Path, known_tests: &[String]) -> Result<Vec<Known>, PlaybooksError> {
    let mut problems = Vec::new();
    let mut known: Vec<Known> = Vec::new();
    for (file, text) in BUILT_IN {
        match read(file, text, &[]) {
            Ok(playbook) => known.push(Known {
                playbook,
                text: (*text).to_owned(),
                origin: "built-in".to_owned(),
            }),
            Err(found) => problems.extend(found),
        }
    }
    for path in files(dir)? {
        let text = std::fs::read_to_string(&path).map_err(|e| PlaybooksError::Unreadable {
            dir: path.clone(),
            reason: e.to_string(),
        })?;
        let file = path.display().to_string();
        match read(&file, &text, known_tests) {
            Ok(playbook) => {
                known.retain(|k| k.playbook.name != playbook.name || k.origin != "built-in");
                if let Some(other) = known.iter().find(|k| k.playbook.name == playbook.name) {
                    problems.push(PlaybookProblem {
                        file,
                        line: 1,
                        column: 1,
                        message: format!(
                            "{} has a playbook named `{}` too",
                            other.origin, playbook.name
                        ),
                        hint: Some("give one of them another name".into()),
                    });
                    continue;
                }
                known.push(Known {
                    playbook,
                    text,
                    origin: file,
                });
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(known)
    } else {
        Err(PlaybooksError::Problems(problems))
    }
}

/// Reads and checks one playbook.
pub fn read(
    file: &str,
    text: &str,
    known_tests: &[String],
) -> Result<Playbook, Vec<PlaybookProblem>> {
    let playbook = parse(file, text).map_err(|e| vec![e])?;
    let problems = lint(file, text, &playbook, known_tests);
    if problems.is_empty() {
        Ok(playbook)
    } else {
        Err(problems)
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, PlaybooksError> {
    let unreadable = |e: std::io::Error| PlaybooksError::Unreadable {
        dir: dir.to_path_buf(),
        reason: e.to_string(),
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(e)),
    };
    let mut files = Vec::new();
    for entry in entries.take(FILES_MAX * 4) {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(path);
        }
    }
    files.sort();
    files.truncate(FILES_MAX);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::AnomalyType;

    fn tests() -> Vec<String> {
        crate::config::Config::default()
            .tests()
            .into_iter()
            .map(|t| t.name)
            .collect()
    }

    #[test]
    fn every_built_in_playbook_passes_the_linter() {
        for (file, text) in BUILT_IN {
            let playbook = read(file, text, &tests()).unwrap_or_else(|p| panic!("{p:?}"));
            assert_eq!(format!("{}.yaml", playbook.name), *file);
        }
    }

    #[test]
    fn every_anomaly_that_is_acted_on_and_every_test_has_a_playbook() {
        let known = load(Path::new("/nonexistent"), &[]).unwrap();
        for kind in [
            AnomalyType::ERROR_RATE_SPIKE,
            AnomalyType::LATENCY_SPIKE,
            AnomalyType::MEMORY_GROWTH,
            AnomalyType::TARGET_DOWN,
            AnomalyType::TARGET_HUNG,
            AnomalyType::HEALTH_ENDPOINT_FAILURE,
            AnomalyType::DB_POOL_EXHAUSTION,
            AnomalyType::MULTIMODAL_FAILURE,
            AnomalyType::METRICS_FAILURE,
            AnomalyType::GOVERNANCE_LATENCY,
            AnomalyType::EVENT_MESH_FAILURE,
        ] {
            assert!(
                known
                    .iter()
                    .any(|k| k.playbook.remedies.anomalies.iter().any(|a| a == kind)),
                "{kind} has no playbook"
            );
        }
        for test in tests() {
            assert!(
                known
                    .iter()
                    .any(|k| k.playbook.remedies.tests.contains(&test)),
                "{test} has no playbook"
            );
        }
    }

    #[test]
    fn a_users_playbook_replaces_a_built_in_one_and_two_of_a_name_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = BUILT_IN[0]
            .1
            .replace("description: ", "description: Mine. ");
        std::fs::write(dir.path().join("a.yaml"), &text).unwrap();
        let known = load(dir.path(), &[]).unwrap();
        assert_eq!(known.len(), BUILT_IN.len());
        assert!(
            known
                .iter()
                .any(|k| k.playbook.description.starts_with("Mine."))
        );
        std::fs::write(dir.path().join("b.yaml"), &text).unwrap();
        assert!(
            load(dir.path(), &[])
                .unwrap_err()
                .to_string()
                .contains("named `scale_up_workers` too")
        );
    }
}
