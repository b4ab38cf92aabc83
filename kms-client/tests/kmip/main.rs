//! KMIP against others: the conversations of the standard, a server that misbehaves, and PyKMIP.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may fail the test")]

mod account;
mod cluster;
mod conversations;
mod misbehaving;
mod names;
mod oracle;
mod pki;
mod pykmip;
mod rush;
mod server;
mod session;
mod setup;
mod store;
mod trust;
mod xml;
