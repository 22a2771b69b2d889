//! `evenkeel load URL`: load on an address, measured.

use evenkeel_stress::Cancel;

use super::run::runtime;
use super::table::print;
use super::{Exit, Failure, Global};
use crate::load::args::LoadArgs;
use crate::load::report::End;
use crate::load::{LoadError, run, summary};
use crate::stop;
use crate::ui::Style;

impl From<LoadError> for Failure {
    fn from(e: LoadError) -> Self {
        let message = e.to_string();
        match e {
            LoadError::Usage(_) => Self::usage(message),
            LoadError::Host(_) | LoadError::Unwritable { .. } => Self::target(message),
            LoadError::Internal(_) => Self::internal(message),
        }
    }
}

pub(super) fn load(global: &Global, args: &LoadArgs) -> Result<Exit, Failure> {
    let report = runtime()?.block_on(async {
        let cancel = Cancel::new();
        let ends = cancel.clone();
        stop::at_signals("ending the run", move || ends.cancel());
        run(args, &global.config, &cancel).await
    })?;
    let end = report.end();
    if global.json {
        let text = serde_json::to_string(&report).map_err(|e| Failure::internal(e.to_string()))?;
        print(&text);
        if let End::Missed(why) | End::Useless(why) = &end {
            eprintln!("evenkeel: {why}");
        }
    } else {
        let colour = Style::detect(false) == Style::Terminal { colour: true };
        print(&summary(&report, colour));
    }
    Ok(match end {
        End::Useless(_) => Exit::Unreached,
        End::Missed(_) => Exit::Missed,
        End::Good if report.cancelled => Exit::Interrupted,
        End::Good => Exit::Healthy,
    })
}
