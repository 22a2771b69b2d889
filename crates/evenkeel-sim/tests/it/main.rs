//! The simulator's own tests: campaigns over the healer that ships, planted bugs, and the table of transitions.

mod bugs;
mod campaign;
mod table;
