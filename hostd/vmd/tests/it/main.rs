//! The data plane from outside: raw bytes, real clients, and the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail like tests, by panicking, and say what they skip"
)]

mod confinement;
mod drain;
mod handshake;
mod model;
mod support;
mod transmission;
