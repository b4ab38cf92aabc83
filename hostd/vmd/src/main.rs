//! The data plane of one VM: its NBD exports and its served home.

fn main() {}
