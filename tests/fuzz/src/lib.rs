//! What the fuzz targets share: an NBD session over a socket pair, its bytes, and edits of a valid file.
//!
//! Owns no target. A panic here is a finding of the target that called.

pub mod edit;
pub mod model;
pub mod session;
pub mod wire;
