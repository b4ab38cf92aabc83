//! The NBD server of one VM: threads, no async runtime.
//!
//! Owns the protocol and the connections of an export. It must not know the link to hostd, nor whole VMs.
//! Flow of a request: [`server`] accepts, [`handshake`] negotiates, a `worker` of the [`connection`] parses what one
//! `recv` brought ([`proto`]), `commands` asks the [`export::Export`]'s volume, and the replies leave together;
//! [`fault`] is where an error becomes one of the eight codes of the protocol.

mod acceptor;
mod agreement;
pub mod budget;
pub mod buffer;
mod commands;
pub mod connection;
mod crew;
pub mod export;
pub mod fault;
pub mod handshake;
pub mod inbox;
mod negotiate;
pub mod outbox;
mod polling;
pub mod proto;
pub mod server;
mod sharing;
pub mod tls;
pub mod tls_access;
pub mod tls_port;
pub mod tls_settings;
pub mod transport;
mod worker;
