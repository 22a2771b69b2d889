//! The playbooks that ship, and what an independent judge may know of each: its name, its parameters' bounds, and
//! whether it may run without a person.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use evenkeel_core::Playbook;
use evenkeel_core::playbook::parse;

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        /// File name and text of each playbook that ships.
        pub const SHIPPED: &[(&str, &str)] = &[
            $((concat!($name, ".yaml"), include_str!(concat!("../../evenkeel/playbooks/", $name, ".yaml")))),+
        ];
    };
}

shipped![
    "configure_multimodal_resources",
    "increase_db_pool_size",
    "investigate_error_spike",
    "optimize_request_handling",
    "restart_down_service",
    "restart_event_mesh_consumers",
    "restart_hung_service",
    "restart_memory_heavy_services",
    "restart_metrics_collector",
    "review_failed_playbooks",
    "scale_up_resources",
    "scale_up_workers",
    "tune_governance",
];

static PLAYBOOKS: LazyLock<Vec<Playbook>> = LazyLock::new(|| {
    SHIPPED
        .iter()
        .map(|(file, text)| parse(file, text).expect("playbooks that ship can be read"))
        .collect()
});

/// The playbooks that ship.
pub fn playbooks() -> &'static [Playbook] {
    &PLAYBOOKS
}

/// What a judge knows of a playbook.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// It may run without a person's approval.
    pub free: bool,
    /// Smallest and largest value of each numeric parameter; others have none.
    pub params: BTreeMap<String, Option<(f64, f64)>>,
}

static KNOWN: LazyLock<BTreeMap<String, Known>> = LazyLock::new(|| {
    playbooks()
        .iter()
        .map(|p| {
            let params = p
                .params
                .iter()
                .map(|(name, spec)| {
                    let bounds = spec.min.zip(spec.max);
                    (name.clone(), bounds)
                })
                .collect();
            let free = !matches!(p.effective_tier().to_string().as_str(), "tier_3" | "tier_4");
            (p.name.clone(), Known { free, params })
        })
        .collect()
});

/// What a judge knows of the playbooks that ship, by name.
pub fn known() -> &'static BTreeMap<String, Known> {
    &KNOWN
}
