//! What is read from the target: does it answer, how much memory it uses, what it logs, what its counters say.
//!
//! Reads only. Whatever comes back is bounded in size and time, and anything that is missing is said to be missing:
//! it is never a zero.

pub mod buckets;
pub mod collected;
pub mod exposition;
pub mod log_entry;
pub mod log_follow;
pub mod log_pattern;
pub mod log_templates;
pub mod memory;
pub mod probe;
pub mod reading;
pub mod resources;
pub mod scrape;
pub mod scraper;
pub mod sql;

pub use collected::{Collected, MissingReading};
pub use log_entry::{LogEntry, LogLevel};
pub use log_follow::{FollowFrom, LogFollower, recent_errors};
pub use log_pattern::{group_by_pattern, pattern_of};
pub use log_templates::{LogTemplates, NewErrors};
pub use memory::{MemorySample, sample_memory};
pub use probe::{ProbeError, ProbeResult, Prober};
pub use reading::{Reading, ReadingKind};
pub use resources::{GroupMemory, ResourceCollector, Roots};
pub use scrape::{Scrape, ScrapeDelta, ScrapeNames};
pub use sql::{SqlCollector, SqlQuery};
