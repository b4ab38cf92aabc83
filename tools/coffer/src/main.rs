//! The command line of Coffer.

fn main() {}
