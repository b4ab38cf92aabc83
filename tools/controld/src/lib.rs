//! The control plane daemon: the part that vCenter plays for vSphere.
//!
//! Owns the inventory of clusters, hosts and VMs, and which key id each of them uses. Must not hold a key: a KEK passes
//! through on its way to a host, sealed, and neither store, log nor backup ever has one.
//!
//! A reader starts at [`daemon`], which lists start and stop in order. Everything stands on [`store`]; a request goes through [`api`] to
//! [`inventory`], [`rights`] and [`pki`], and is written down by [`audit`].

pub mod api;
pub mod audit;
pub mod background;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod harden;
pub mod inventory;
pub mod pki;
pub mod rights;
pub mod setup;
pub mod store;
