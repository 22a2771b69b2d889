//! How freely the healer acts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How freely the healer acts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything but acting: what would have been done is worked out and recorded (SAFETY 1).
    #[default]
    Shadow,
    /// Every run of a playbook waits for a person's approval.
    Approve,
    /// Tiers decide: `tier_1` and `tier_2` act, `tier_3` waits for approval, `tier_4` never runs by itself.
    Auto,
}

impl Mode {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Approve => "approve",
            Self::Auto => "auto",
        }
    }

    /// What cycles were opened with before there were modes.
    pub(crate) fn before_modes() -> Self {
        Self::Auto
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "shadow" => Ok(Self::Shadow),
            "approve" => Ok(Self::Approve),
            "auto" => Ok(Self::Auto),
            other => Err(format!("`{other}` is no mode: shadow, approve or auto")),
        }
    }
}
