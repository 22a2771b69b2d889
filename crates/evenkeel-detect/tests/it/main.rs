//! The watchdog from outside: samples in, verdicts out.

mod garbage;
mod score;
mod support;
mod watchdog;
