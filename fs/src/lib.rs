//! Safes, descriptors, encrypted volumes and VM homes.
//!
//! Owns the formats on the datastore (`docs/format.md`) and the code that turns guest requests into
//! ciphertext on a [`backing::Backing`]. It must not know key providers, sockets, processes or NBD, and
//! it sees keys only as types of `crypto`. Flow: a [`folder::VmFolder`] says where things are,
//! [`seal::Sealed`] reads a [`safe::Safe`] or [`descriptor::Descriptor`] and gives up the key inside
//! once the MAC fits, and a [`volume::Volume`] serves the payload with that key.

pub mod backing;
pub mod descriptor;
pub mod door;
mod flush;
pub mod folder;
pub mod fsck;
pub mod home;
pub mod lease;
pub mod name;
pub mod quota;
pub mod safe;
pub mod seal;
pub mod volume;

#[cfg(test)]
mod testing;
