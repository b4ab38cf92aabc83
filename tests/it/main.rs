//! The integration tests of the whole product, one module a topic, in one program.
//!
//! Owns no test itself. Every test makes a `tests::host::Host` of its own, so all may run at the same time.

#![expect(clippy::unwrap_used, reason = "a test whose machine does not do what it must has failed")]

#[path = "../../kms-client/tests/bao/api.rs"]
mod api;
#[path = "../../kms-client/tests/bao/servers.rs"]
#[expect(dead_code, reason = "what only groups of servers need")]
mod bao_servers;
mod crash;
mod cut;
mod damage;
mod direct;
mod disk;
mod faults;
mod fsck;
mod guest;
mod hangs;
mod home;
mod keys;
mod kmip;
mod lease;
mod lifecycle;
mod limits;
mod loads;
mod locking;
mod markers;
mod marks;
mod names;
mod nbd_guest;
mod openbao;
mod owner;
#[path = "../../kms-client/tests/kmip/pki.rs"]
#[expect(dead_code, reason = "more kinds of certificates than these tests need")]
mod pki;
mod plane;
mod races;
mod reconnect;
mod recover;
mod restore;
mod storage;
mod tls;
mod tpm;
mod transfer;
