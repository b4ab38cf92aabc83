//! Harness of the integration tests: starts the real parts (hostd, vmd, coffer, QEMU) and ends them.
//!
//! Owns processes, scratch folders, mounts and bounded waits. Must not know what a test proves. A test makes a
//! `Host`, talks to it through `coffer` as a user would, and drops it; dropping kills and unmounts everything,
//! also after a panic.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a harness whose machine does not do what it must is a failed test"
)]

pub mod binaries;
pub mod client;
pub mod command;
pub mod cut;
pub mod guest;
pub mod host;
pub mod nbd;
pub mod pki;
pub mod process;
pub mod scratch;
pub mod skip;
pub mod talker;
pub mod wait;
