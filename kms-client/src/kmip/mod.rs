//! KMIP: keys from a cluster of key management servers.
//!
//! Owns everything that speaks the Key Management Interoperability Protocol (OASIS KMIP 1.0 to 1.4). It must not know what a
//! key is used for.

pub mod fault;
pub mod key_block;
mod link;
pub mod node;
pub mod operations;
pub mod request;
pub mod response;
pub mod tls;
pub mod ttlv;
pub mod values;
pub mod x509;

pub use link::Budgets;
