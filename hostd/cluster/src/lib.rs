//! The members of a cluster, and how they talk: hosts that run VMs, and control planes that push keys to them.
//!
//! Owns names in certificates, mutual TLS for both sides, and the client that a control plane has for a host. Must not know
//! what a daemon does with a request, nor keep a key. Flow: both daemons load an [`Identity`]; a control plane asks a
//! [`HostClient`] who the host is, seals keys to it ([`seal`]), and pushes them.

mod client;
mod files;
mod identity;
mod member;
mod push;
mod verify;

#[cfg(test)]
extern crate self as cluster;

#[cfg(test)]
#[expect(unreachable_pub, reason = "it is public in the harness of the integration tests")]
#[path = "../../../tests/src/pki.rs"]
mod pki;

pub use client::{CallError, HostClient};
pub use files::{FileError, TlsFiles};
pub use identity::{Clock, Identity, Loaded};
pub use member::{Member, MemberError, Role};
pub use push::{SealFault, seal};
