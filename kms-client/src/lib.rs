//! Key providers: where key-encrypting keys (KEKs) come from.
//!
//! Owns the [`KeyProvider`] trait, the faults a provider can have, and the providers. It must not know
//! what a KEK wraps: VMs, disks, safes and policies are for its callers. Flow: a daemon opens its
//! providers, asks one for a new key and stores only the [`KeyId`](crypto::KeyId), and later fetches
//! the [`Kek`](crypto::Kek) of that id into its own locked memory.
#![forbid(unsafe_code)]

pub mod bao;
mod checker;
mod error;
pub mod kmip;
pub mod native;
mod provider;

pub use error::KmsError;
pub use provider::{
    Clock, Custody, Health, KeyDifference, KeyProvider, KeyRecord, KeyState, ProviderStatus, Said,
    ServerStatus,
};
