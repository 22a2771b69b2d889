//! The watchdog from outside: samples in, verdicts out.

mod ensemble;
mod garbage;
mod scorer;
mod support;
mod watchdog;
