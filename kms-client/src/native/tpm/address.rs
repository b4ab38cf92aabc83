//! Where a TPM is: a device of the kernel, or a socket on which the commands go as they are, as swtpm has one.
//!
//! Owns the spelling in the configuration, and the way to a [`Tpm`].

use super::line::Wire;
use super::{Tpm, TpmFault};
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What stands before the path of a socket.
const SOCKET: &str = "unix:";

/// The place of a TPM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A character device, `/dev/tpmrm0`.
    Device(PathBuf),
    /// A Unix stream socket, `unix:/path`.
    Socket(PathBuf),
}

impl Default for Address {
    /// The device with the resource manager of the kernel: what one program leaves in it troubles no other.
    fn default() -> Self {
        Self::Device("/dev/tpmrm0".into())
    }
}

impl Address {
    /// Opens the line to the TPM; everything that is done over it has to be done within `wait`.
    ///
    /// # Errors
    /// [`TpmFault::Missing`], [`TpmFault::Denied`], [`TpmFault::Line`].
    pub fn open(&self, wait: Duration) -> Result<Tpm<'static>, TpmFault> {
        let wire = match self {
            Self::Device(path) => Wire::device(path, wait),
            Self::Socket(path) => Wire::socket(path, wait),
        };
        Ok(Tpm::over(Box::new(wire?)))
    }
}

/// Neither an absolute path nor `unix:` with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither the whole path of a device nor unix: and the whole path of a socket")]
pub struct BadAddress;

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (path, kind): (_, fn(PathBuf) -> Self) = match text.strip_prefix(SOCKET) {
            Some(path) => (path, Self::Socket),
            None => (text, Self::Device),
        };
        if path.starts_with('/') { Ok(kind(path.into())) } else { Err(BadAddress) }
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => path.display().fmt(f),
            Self::Socket(path) => write!(f, "{SOCKET}{}", path.display()),
        }
    }
}
