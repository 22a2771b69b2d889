//! The watchdog from outside: samples in, verdicts out.

mod ensemble;
mod follow;
mod garbage;
mod scorer;
mod support;
mod watchdog;
