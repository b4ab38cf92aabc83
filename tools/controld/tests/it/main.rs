//! Tests of controld over its public parts, with real stores.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests, by panicking, and say what they do"
)]

mod daemon;
mod etcd;
mod store;
mod suite;
