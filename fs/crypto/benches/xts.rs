//! Throughput of the XTS engines.
fn main() {}
