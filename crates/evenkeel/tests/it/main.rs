//! Integration tests of the product: the real binary, real processes, real SQLite, real HTTP on loopback.
//!
//! Each test has a directory of its own; whatever still works in it when the test ends is killed, also after a panic.
//! Waits poll a condition with a deadline. They look at processes through `/proc`, so they run on Linux.

#![cfg(target_os = "linux")]

mod bad_input;
mod crash;
mod demo;
mod interrupt;
mod outside;
mod spec_lines;
mod support;
