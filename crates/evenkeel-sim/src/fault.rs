//! What goes wrong in a world, what merely looks like it, and what happens to the measurements: plain data, drawn
//! from the seed, so that a failing run can be made smaller by leaving some of it out.

/// One minute, in milliseconds of the world.
pub const MINUTE_MS: i64 = 60_000;
/// One hour, in milliseconds of the world.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// One day, in milliseconds of the world.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// What a fault does, and so what would cure it. None of them is a flag that a checker could read as "healed": each
/// has a cause in the world's state, and goes away when the cause does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The process ends. A start cures it; when it strikes again, it does so some time after each start.
    Crash,
    /// The process ends and every start fails for as long as the cause lasts.
    BrokenStart,
    /// The process lives and answers nothing. A new process answers.
    Hang,
    /// Memory grows by the hour, until the process is killed for it. A new process begins small and, while the cause
    /// lasts, grows again; a smaller cache ends the growth.
    Leak,
    /// The same over weeks, too slow for any limit on growth.
    SlowLeak,
    /// Another process holds the database locked.
    Lock,
    /// There are too few connections for what is asked for.
    Pool,
    /// A version that answers a share of requests with errors. Nothing that Evenkeel knows takes a version back.
    BadDeploy,
    /// Something outside the target, that it needs, is gone.
    Upstream,
    /// Something outside is slow; giving up on it earlier helps.
    SlowUpstream,
    /// Far more requests than the target was made for.
    Overload,
    /// Errors that nothing ends, and that each restart makes more of.
    HurtByRestart,
    /// Errors that nothing ends.
    Incurable,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Crash,
        Self::BrokenStart,
        Self::Hang,
        Self::Leak,
        Self::SlowLeak,
        Self::Lock,
        Self::Pool,
        Self::BadDeploy,
        Self::Upstream,
        Self::SlowUpstream,
        Self::Overload,
        Self::HurtByRestart,
        Self::Incurable,
    ];

    /// Whether the cause is load, or something that several services share: restarting who suffers helps nobody.
    pub fn restart_is_no_remedy(self) -> bool {
        matches!(
            self,
            Self::Upstream | Self::SlowUpstream | Self::Overload | Self::BadDeploy
        )
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it does.
    pub kind: FaultKind,
    /// Index of the service it strikes.
    pub service: usize,
    /// When its cause begins, in milliseconds since the run began.
    pub at: i64,
    /// How long its cause lasts, in milliseconds; `None` is for ever.
    pub lasts: Option<i64>,
    /// It comes and goes: this long there, this long not, in milliseconds.
    pub flaps: Option<(i64, i64)>,
    /// How bad, from 1 to 1000; what that means depends on the kind.
    pub strength: u32,
    /// A cure by a new process holds for this long, in milliseconds; `None` is for good.
    pub returns: Option<i64>,
}

impl Fault {
    /// Whether it is there and stays, or goes and comes, for at least a day.
    pub fn goes_on(&self) -> bool {
        self.lasts.is_none_or(|ms| ms >= DAY_MS)
    }
}

/// What is no fault, and must lead to no act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenignKind {
    /// A new version: the service is gone for as long as it takes, and then a little larger or smaller.
    Deploy,
    /// A person restarts a service.
    PersonRestarts,
    /// A job by the clock: more load, more memory, for a while.
    Cron,
    /// A campaign brings more users than usual, not more than fit.
    Visitors,
}

/// Something that is no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Benign {
    /// What.
    pub kind: BenignKind,
    /// Index of the service.
    pub service: usize,
    /// When, in milliseconds since the run began.
    pub at: i64,
    /// How long, in milliseconds.
    pub lasts: i64,
    /// Once more after so many milliseconds, and so on; `None` is only once.
    pub every: Option<i64>,
}

/// What can happen to measurements on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TelemetryKind {
    /// They do not come.
    Missing,
    /// They come with the time of long ago.
    Late,
    /// They are not numbers.
    NotANumber,
    /// The same one comes again and again.
    Stale,
    /// Counters begin anew: more errors than requests.
    Reset,
    /// They bear a time that is still to come.
    Ahead,
    /// They are plausible, and not true: every request fails, they say.
    Wrong,
}

/// A time in which measurements are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelemetryFault {
    /// How.
    pub kind: TelemetryKind,
    /// Of which service.
    pub service: usize,
    /// From when, in milliseconds since the run began.
    pub at: i64,
    /// For how long, in milliseconds.
    pub lasts: i64,
}

/// What else happens to Evenkeel itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// It is killed, and started again after so many milliseconds.
    Killed {
        /// How long it is gone.
        gone_ms: i64,
    },
    /// Its disk is full for so many milliseconds: the ledger takes nothing, and no snapshot can be made.
    DiskFull {
        /// For how long.
        for_ms: i64,
    },
    /// The wall clock is set by so many milliseconds, forward or back.
    ClockSet {
        /// By how much.
        by_ms: i64,
    },
    /// A person has a playbook run.
    HandRun {
        /// Index of the service, for the plan.
        service: usize,
    },
    /// Somebody changes a setting of the target by hand.
    Meddling,
    /// A person gives an order, and takes it back after so many milliseconds.
    Order(PersonSays, i64),
}

/// What a person orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonSays {
    /// Hands off.
    Pause,
    /// The same by the file `PAUSE`, which needs nothing but a disk.
    PauseFile,
    /// Hands off a service, by its index.
    Lock(usize),
    /// Nothing about errors for a while.
    SilenceErrors,
    /// Look, and do nothing.
    Shadow,
}
