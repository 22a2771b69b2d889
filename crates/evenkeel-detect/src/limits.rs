//! Every bound on what the detectors remember or accept, in one place.

/// Longest name of a series, in bytes.
pub const SERIES_NAME_MAX: usize = 160;
/// Longest name of a service, in bytes; a sample with a longer one is dropped.
pub const SERVICE_NAME_MAX: usize = 128;
/// Longest name of a probed endpoint, in bytes; a sample with a longer one is dropped.
pub const ENDPOINT_NAME_MAX: usize = 512;
/// Longest explanation that is kept of a missing series or a service that is down, in characters.
pub const REASON_MAX: usize = 300;
/// Most series whose timing is followed; samples of any further series are dropped and counted.
pub const SERIES_MAX: usize = 256;
/// Most services that are told apart.
pub const SERVICES_MAX: usize = 64;
/// Most endpoints of one service whose failures in a row are counted.
pub const ENDPOINTS_MAX: usize = 64;
/// Most samples that wait for the next check; beyond it the oldest is dropped and counted.
pub const PENDING_MAX: usize = 4096;
/// Most count entries in the window of one source; beyond it neighbours are added together.
pub const COUNT_ENTRIES_MAX: usize = 600;
/// Most response times in the window of one service; beyond it the oldest is dropped.
pub const LATENCIES_MAX: usize = 512;
/// Most memory readings of one process; beyond it neighbours are merged to their smaller one.
pub const MEMORY_SAMPLES_MAX: usize = 600;
/// Blocks at most into which a memory window is divided.
pub const MEMORY_BLOCKS_MAX: usize = 12;
/// How many times a window may be stretched to hold the minimum number of probes, so that a slow interval is not
/// blind.
pub const WINDOW_STRETCH_MAX: i64 = 10;
/// How much of a log line is looked at for its template, in bytes.
pub const LINE_SCANNED_MAX: usize = 4096;
/// Most tokens of a log line that are told apart; whatever comes after them counts as one.
pub const LINE_TOKENS_MAX: usize = 64;
/// Longest token of a log line that may be a word, in bytes; a longer one is a parameter.
pub const TOKEN_LEN_MAX: usize = 64;
/// Most templates of the lines of one log; beyond it the one that was not seen for longest leaves.
pub const TEMPLATES_MAX: usize = 512;
/// Most first words of lines of one length whose templates are kept apart; those of further words are kept together.
pub const TEMPLATE_HEADS_MAX: usize = 64;
/// Templates kept together beyond which a line may differ more from the one that it is counted to.
pub const TEMPLATE_LEAF_MAX: usize = 32;
/// Most error templates that are remembered after they left, so that they are not new when they come again.
pub const TEMPLATES_LEFT_MAX: usize = 1024;
/// Longest log line that is shown, in characters.
pub const LINE_SHOWN_MAX: usize = 300;
/// Names listed in one sentence for a person.
pub const NAMES_IN_DETAILS_MAX: usize = 5;

/// A sample may be this much ahead of the check that reads it, in milliseconds.
pub const FUTURE_TOLERANCE_MS: i64 = 1_000;
/// A sample older than five intervals, and than this, is late and dropped, in milliseconds.
pub const LATE_FLOOR_MS: i64 = 60_000;
/// Checks further apart than five intervals, and than this, mean that the clock jumped or everything was paused,
/// in milliseconds. The floor keeps a busy machine with an interval of 100 ms from being called a time traveller.
pub const CLOCK_JUMP_FLOOR_MS: i64 = 5_000;
/// A series without a sample for three of its usual gaps, and for this long, is stale, in milliseconds.
pub const STALE_FLOOR_MS: i64 = 3_000;
/// A series that has been silent for this long is no longer expected, in milliseconds.
pub const SERIES_FORGET_MS: i64 = 3_600_000;
/// Response times above this are absurd, in milliseconds: one day.
pub const LATENCY_ABSURD_MS: f64 = 86_400_000.0;
/// Counts above this are absurd.
pub const COUNT_ABSURD: u64 = 1_000_000_000_000;
/// Resident memory above this is absurd, in bytes: 1 PiB.
pub const RSS_ABSURD_BYTES: u64 = 1 << 50;
/// Longest window and interval that a configuration may ask for, in milliseconds: 31 days.
pub const WINDOW_MAX_MS: i64 = 31 * 24 * 3_600_000;
/// Longest persistence ring that a configuration may ask for, in checks.
pub const PERSISTENCE_MAX: u32 = 60;

/// A followed series is never called stale before this long, in milliseconds.
pub const FOLLOWED_GAP_FLOOR_MS: i64 = 30_000;
/// Newest points of a followed series that are kept for a plot.
pub const PLOT_LEN: usize = 48;
/// Most incidents of followed series that stand at once; beyond it a new one waits until another is over.
pub const INCIDENTS_MAX: usize = 64;
/// Series of one incident that are named.
pub const INCIDENT_MEMBERS_MAX: usize = 20;
/// A reading of a followed series that is older than this is late and dropped, in milliseconds.
pub const FOLLOWED_LATE_MS: i64 = 600_000;
/// Longest name of a followed series, in bytes: a metric with its labels.
pub const FOLLOWED_NAME_MAX: usize = 1024;
/// Most deploys and words of a person that are remembered as taken in; the oldest goes first.
pub const MARKS_MAX: usize = 512;
/// Events below which a share or a quantile of a followed series says nothing.
pub const EVENTS_MIN: u64 = 20;
/// Most processes whose memory is looked at over weeks.
pub const LEAKS_MAX: usize = 128;
