//! OpenBao: a transit engine that wraps data keys by keys which never leave it.
//!
//! Owns everything that speaks the HTTP API of OpenBao, which is that of Vault's transit engine too. It must not know what a data key
//! is for. Layers, each ignorant of those above: `http` and `json` (bytes), `request` and `answer` (messages), `node` (one server, over
//! a connection of [`crate::kmip`]'s), `login` (the token), `calls` (what a server is asked), `cluster` (several), `provider` (the trait).
//!
//! There is no HTTP library in between: data keys are in the messages, and no buffer of such a library is ever wiped.

pub mod answer;
mod calls;
mod cluster;
pub mod fault;
mod health;
pub mod http;
pub mod json;
mod login;
mod names;
mod node;
mod provider;
mod refused;
mod request;
mod standing;
pub mod wrapped;

pub use provider::{BaoProvider, BaoSettings, KeyChoice};

/// Port of OpenBao and Vault.
pub const PORT: u16 = 8200;
