//! OpenBao: real servers, alone and three together, and a server that lies.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod api;
mod fake;
mod leader;
mod lies;
mod life;
#[path = "../kmip/pki.rs"]
#[expect(dead_code, reason = "more kinds of certificates than these tests need")]
mod pki;
mod servers;
mod support;
