//! Keeps the project's outside true: ARCHITECTURE.md, the README and the book say what the code is, and every example in
//! them that can be run or parsed is. Needs no network and starts nothing but the program under test.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

mod bounds;
mod examples;
mod house;
mod keys;
mod outside;
mod safety;
mod support;
