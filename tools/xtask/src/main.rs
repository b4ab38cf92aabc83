//! Repository hygiene.

fn main() {}
