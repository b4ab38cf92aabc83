//! The data plane from outside: raw bytes, real clients, and the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail like tests, by panicking, and say what they skip"
)]

mod binary;
mod check;
mod checklist;
mod confinement;
mod direct;
mod drain;
mod handshake;
mod home;
mod in_flight;
mod interop;
mod model;
mod process;
mod reports;
mod root;
mod support;
mod tls;
mod tls_interop;
mod tls_support;
mod transmission;
