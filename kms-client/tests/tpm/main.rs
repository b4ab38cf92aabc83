//! The native provider and a real TPM 2.0: swtpm, over its Unix socket.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod lies;
mod provider;
mod sealing;
mod software_tpm;
