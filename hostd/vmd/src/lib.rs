//! The data plane of one VM: its NBD exports and its served home.
//!
//! Owns guest data on its way between QEMU and the ciphertext, and the keys of one VM while it runs. It must
//! not know key providers, KEKs or other VMs. Flow: `main` hardens the process and runs [`daemon::run`], which
//! answers hostd on the link; hostd's requests become [`exports`] and a [`home`], after [`confine`] has taken
//! away whatever else the process could do.

pub mod check;
pub mod confine;
pub mod daemon;
pub mod exports;
pub mod harden;
pub mod home;
pub mod nbd;
pub mod refusal;
pub mod requests;
pub mod scratch;
pub mod signals;
