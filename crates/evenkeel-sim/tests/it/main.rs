//! The simulator's own tests: campaigns over the watchdog and the healer that ship, planted bugs, playbooks that ship,
//! and the table of transitions.

mod bugs;
mod campaign;
mod mutations;
mod playbooks;
mod table;
