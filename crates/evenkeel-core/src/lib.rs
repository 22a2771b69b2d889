//! The healing core of Evenkeel.
//!
//! Everything here computes and touches nothing: no clock, no randomness, no files, no network, no
//! threads. Events go in, the next state and the one effect that is now due come out; whoever holds
//! the world carries the effect out and sends back the event it led to. The same code therefore runs
//! in production, in the simulator and in replay.
//!
//! In reading order: what is seen ([`anomaly`], [`measure`]), what may be done about it
//! ([`playbook`]), what one healing cycle is ([`cycle`], [`event`], [`effect`]), what the whole
//! healer remembers ([`healer`]), what it may do at all ([`policy`], [`order`], [`approval`]), how all of it is written down ([`record`]), and how an advisor's
//! answer is judged ([`proposal`]).
//!
//! **Invariant:** state is a fold over recorded events. Whatever [`cycle::Cycle::apply`] accepts live it
//! accepts in replay, with the same result; there is no second table.

pub mod anomaly;
pub mod approval;
pub mod cycle;
pub mod effect;
pub mod event;
pub mod expression;
pub mod guarded;
pub mod healer;
pub mod measure;
pub mod order;
pub mod outcome;
pub mod playbook;
pub mod policy;
pub mod proposal;
pub mod record;
pub mod redact;
pub mod time;

pub use anomaly::{Anomaly, AnomalyType, Severity};
pub use cycle::{Cycle, InvalidTransition, Phase};
pub use effect::Effect;
pub use event::Event;
pub use measure::{SuiteResult, TestResult, TestStatus};
pub use outcome::{Outcome, Rules};
pub use playbook::Playbook;
pub use policy::{Facts, Mode, Policy};
pub use time::Timestamp;
