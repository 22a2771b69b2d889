//! The load engine and the eight stress tests.
//!
//! In reading order: what a request is ([`request`], [`target`], [`data`]), what load is ([`plan`]), the
//! [`engine`] that makes it and measures ([`outcome`]), checks of what came back ([`exposition`]), the event
//! mesh ([`mesh`], [`sse`]), what of a target is not HTTP ([`world`]), how a test is declared
//! ([`spec`]) and how tests are run ([`suite`]).
//!
//! This crate measures and judges. It changes nothing in the target except by the requests that
//! its user configured, holds no opinion about remedies, and reads no clock for dates: the time of
//! day is handed in.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel_stress::{BaseUrl, Cancel, Plan, RequestSpec, run};
//!
//! let base = BaseUrl::parse("http://127.0.0.1:8080")?;
//! let plan = Plan::closed(base, vec![RequestSpec::get("/health")], 1_000, 50);
//! let outcome = run(&plan, &Cancel::new()).await?;
//! println!("{} failed, p95 {} ms", outcome.error_count(), outcome.summary().p95);
//! # Ok(())
//! # }
//! ```

pub mod cancel;
pub mod data;
mod dial;
pub mod engine;
pub mod exposition;
pub mod mesh;
pub mod outcome;
pub mod plan;
mod random;
pub mod request;
pub mod spec;
pub mod sse;
pub mod suite;
pub mod target;
mod text;
pub mod words;
pub mod world;

pub use cancel::Cancel;
pub use data::Rows;
pub use engine::{EngineError, Live, Observer, addresses, run, run_observed};
pub use mesh::{MeshClient, MeshEvent, MeshSpec, Responder, ResponderHandle};
pub use outcome::{Interval, Outcome, RequestFigures, summary};
pub use plan::{Arrivals, HttpVersion, Limits, Load, Plan, Rate, Think, Transport, Until};
pub use request::{BodyCheck, Headers, JsonCheck, RequestSpec, StatusSet};
pub use spec::{
    SpecError, SubjectServices, Subjects, TestKind, TestSpec, eight_tests, merge_tests,
};
pub use suite::{Progress, TestContext, run_suite, run_test};
pub use target::{BaseUrl, PlanError};
pub use world::{
    HttpOnly, MemoryError, MemoryReading, MeshState, PoolError, PoolLoad, PoolReport,
    ServiceMemory, TargetAccess,
};
