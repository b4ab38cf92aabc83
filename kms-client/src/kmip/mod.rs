//! KMIP: keys from a cluster of key management servers.
//!
//! Owns everything that speaks the Key Management Interoperability Protocol (OASIS KMIP 1.0 to 1.4). It must not know what a
//! key is used for.

pub mod key_block;
pub mod request;
pub mod response;
pub mod ttlv;
pub mod values;
