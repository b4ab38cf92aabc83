//! KMIP: keys from a cluster of key management servers.
//!
//! Owns everything that speaks the Key Management Interoperability Protocol (OASIS KMIP 1.0 to 1.4). It must not know what a
//! key is used for. Layers, each ignorant of those above: `ttlv` (bytes), `request` and `response` (messages), `link` and `tls` (one
//! connection), `node` and `operations` (one server), `cluster` and `making` (several), `provider` (the trait).

pub mod breaker;
pub mod cluster;
pub mod credential;
mod ended;
pub mod ending;
pub mod fault;
mod fetching;
pub(crate) mod gate;
mod gather;
pub(crate) mod health;
pub mod key_block;
mod ledger;
pub(crate) mod link;
pub mod making;
pub mod node;
pub mod operations;
pub(crate) mod pem;
mod pinned;
mod polling;
mod provider;
mod recording;
pub mod refused;
pub mod request;
pub mod response;
pub mod retry;
pub mod said;
pub mod setup;
pub(crate) mod standing;
pub mod tls;
pub mod ttlv;
pub mod values;
pub mod x509;

pub use link::Budgets;
pub use provider::{KmipProvider, KmipSettings, ServerSettings};
