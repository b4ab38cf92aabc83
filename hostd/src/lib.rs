//! The host daemon: keyring, datastores, supervisor of vmd processes, control API.
//!
//! Owns the KEKs of this host and decides what each vmd may serve. Must not read or write guest data:
//! that is vmd's work. Flow of a verb: `control` parses and names the caller, `vm` decides under the lock
//! of that one VM, `service` drives the VM's vmd, and `fault` becomes an API error in `control::answer`.
//!
//! A reader starts at [`daemon`], which lists start and stop in order.

pub mod asker;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datastore;
mod ending;
pub mod fault;
pub mod files;
mod gate;
pub mod harden;
pub mod host;
pub mod inventory;
pub mod key_file;
pub mod keyring;
pub mod keys;
pub mod kmip;
pub mod mounts;
pub mod passphrase;
pub mod plane;
mod probe;
pub mod service;
pub mod state;
pub mod tpm;
pub mod vm;
mod warnings;

#[cfg(test)]
mod testing;
