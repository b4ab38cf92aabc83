//! Tests of the `coffer` program from the outside: transcripts, and copies with the real `qemu-img`.
//!
//! A small HTTP server of the tests plays the answers of hostd, because what is tested here is what the user
//! sees. The same commands against a real hostd are tested in the `tests` folder of the workspace.

#![expect(clippy::expect_used, reason = "a test fails where it does not find what it expects")]

mod copies;
mod plain;
mod server;
mod tool;
mod transcripts;
