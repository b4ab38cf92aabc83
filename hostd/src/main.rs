//! The host daemon: keyring, datastores, supervisor of vmd processes, control API.

fn main() {}
