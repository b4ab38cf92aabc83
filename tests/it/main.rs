//! The integration tests of the whole product, one module a topic, in one program.
//!
//! Owns no test itself. Every test makes a `tests::host::Host` of its own, so all may run at the same time.
