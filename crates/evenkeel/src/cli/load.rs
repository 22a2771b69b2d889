//! `evenkeel load URL`: load on an address, measured.

use evenkeel_stress::Cancel;

use super::run::runtime;
use super::table::print;
use super::{Exit, Failure, Global};
use crate::load::args::LoadArgs;
use crate::load::compare::Finding;
use crate::load::report::End;
use crate::load::{Done, LoadError, run, summary};
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
    let Done { report, comparison } = runtime()?.block_on(async {
        let cancel = Cancel::new();
        let ends = cancel.clone();
        stop::at_signals("ending the run", move || ends.cancel());
        run(args, &global.config, &cancel).await
    })?;
    let end = report.end();
    if global.json {
        let internal = |e: serde_json::Error| Failure::internal(e.to_string());
        let mut document = serde_json::to_value(&report).map_err(internal)?;
        if let Some(comparison) = &comparison {
            document["comparison"] = serde_json::to_value(comparison).map_err(internal)?;
        }
        print(&document.to_string());
        if let End::Missed(why) | End::Useless(why) = &end {
            eprintln!("evenkeel: {why}");
        }
    } else {
        let colour = Style::detect(false) == Style::Terminal { colour: true };
        print(&summary(&report, colour));
        if let Some(comparison) = &comparison {
            print(&format!("\n{comparison}"));
        }
    }
    let worse = comparison.is_some_and(|c| c.finding == Finding::Worse);
    Ok(match end {
        End::Useless(_) => Exit::Unreached,
        End::Missed(_) => Exit::Missed,
        End::Good if worse && args.fail_if_worse => {
            eprintln!("evenkeel: it went worse than the run of --compare");
            Exit::Missed
        }
        End::Good if report.cancelled => Exit::Interrupted,
        End::Good => Exit::Healthy,
    })
}
