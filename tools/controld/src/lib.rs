//! The control plane daemon: the part that vCenter plays for vSphere.
//!
//! Owns the inventory of clusters, hosts and VMs, and which key id each of them uses. Must not hold a key: a KEK passes
//! through on its way to a host, sealed, and neither store, log nor backup ever has one.
//!
//! A reader starts at [`store`], on which everything else stands; [`inventory`] is what is kept in it.

pub mod audit;
pub mod inventory;
pub mod rights;
pub mod store;
