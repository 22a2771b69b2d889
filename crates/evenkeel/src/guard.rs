//! Guarding from inside a program: one spawned call.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let orchestrator = evenkeel::guard::Guard::from_file("evenkeel.toml", "evenkeel-data")?;
//! let guard = tokio::spawn(orchestrator.run_post_boot_workflow());
//! // ... the program's own work ...
//! # guard.abort();
//! # Ok(()) }
//! ```

use std::path::Path;

use crate::config::{self, ConfigError, Environment};
use crate::layout::Layout;
use crate::orchestrator::{Options, Orchestrator, Summary, WorkflowError};
use crate::playbooks::{self, PlaybooksError};
use crate::stop::{self, Stop, Stopper};
use crate::ui::{Style, Ui};

/// A guard that is ready to be spawned.
pub struct Guard {
    options: Options,
    stopper: Stopper,
}

/// Why a guard cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The playbooks.
    #[error(transparent)]
    Playbooks(#[from] PlaybooksError),
}

impl Guard {
    /// From a configuration file, with the process's environment. Says nothing on standard output.
    pub fn from_file(
        config: impl AsRef<Path>,
        data_dir: impl AsRef<Path>,
    ) -> Result<Self, GuardError> {
        let path = config.as_ref();
        let environment = Environment::read(path.parent().unwrap_or(Path::new(".")));
        let config = config::load(path, &environment)?;
        Self::new(config, environment, data_dir)
    }

    /// From a configuration in the program's own text; relative paths start at `base`.
    pub fn from_text(
        config: &str,
        base: impl AsRef<Path>,
        data_dir: impl AsRef<Path>,
    ) -> Result<Self, GuardError> {
        let environment = Environment::read(base.as_ref());
        let config = config::load_text(config, "configuration", base.as_ref(), &environment)?;
        Self::new(config, environment, data_dir)
    }

    fn new(
        config: config::Config,
        environment: Environment,
        data_dir: impl AsRef<Path>,
    ) -> Result<Self, GuardError> {
        let tests: Vec<String> = config.tests().into_iter().map(|t| t.name).collect();
        let playbooks = playbooks::load(&config.base.join(&config.healing.playbooks), &tests)?;
        let layout = Layout::new(data_dir.as_ref(), config.profile);
        let (stopper, stop) = stop::pair();
        Ok(Self {
            options: Options {
                config,
                environment,
                playbooks,
                layout,
                ui: Ui::new(Style::Silent),
                stop,
                supervise: true,
                own_process: false,
            },
            stopper,
        })
    }

    /// Tells in this style on standard output.
    #[must_use]
    pub fn with_style(mut self, style: Style) -> Self {
        self.options.ui = Ui::new(style);
        self
    }

    /// Asks the workflow to end in good order.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Tells when an end was asked for.
    pub fn stop(&self) -> Stop {
        self.stopper.subscribe()
    }

    /// Boots, tests, establishes the baseline, watches and heals, until it is asked to stop.
    pub async fn run_post_boot_workflow(self) -> Result<Summary, WorkflowError> {
        let Self { options, stopper } = self;
        // Kept to the end: a stopper that is gone could never ask.
        let summary = Box::pin(Orchestrator::run_post_boot_workflow(options)).await;
        drop(stopper);
        summary
    }
}
