//! The watchdog from outside: samples in, verdicts out.

mod garbage;
mod support;
mod watchdog;
