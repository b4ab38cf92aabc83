//! The files of an identity: certificate, private key, authorities, all in PEM form (RFC 7468).
//!
//! Owns reading them, and what is wrong with them; must not know what TLS is done with. The text of the key is wiped after
//! reading; the library keeps its own form for as long as the identity lives.

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Largest PEM file in bytes: a bundle of a hundred authorities fits in it.
const MAX_FILE: u64 = 1024 * 1024;

/// Where the three are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key, readable by its owner only.
    pub key: PathBuf,
    /// The authorities of the cluster; nobody else is trusted.
    pub ca: PathBuf,
}

/// A file that is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the {what} {} {problem}", path.display())]
pub struct FileError {
    /// What the file is for.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it, in words that follow its name.
    pub problem: String,
}

/// A state of a file: its times, length and inode. A replaced file has another inode at least.
pub(crate) type Stamp = Option<(i64, i64, u64, u64)>;

impl TlsFiles {
    /// The states of all three.
    pub(crate) fn stamps(&self) -> [Stamp; 3] {
        [&self.certificate, &self.key, &self.ca].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
        })
    }

    /// Our chain with its key, which must belong together.
    pub(crate) fn certified(&self) -> Result<CertifiedKey, FileError> {
        let chain = certificates("certificate", &self.certificate)?;
        let unfit = |reason: String| error("private key", &self.key, reason);
        let pem = Zeroizing::new(read("private key", &self.key, true)?);
        let mut der = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|e| unfit(format!("has no private key in PEM form ({e})")))?;
        let signing = aws_lc_rs::sign::any_supported_type(&der);
        der.zeroize();
        let signing = signing.map_err(|e| unfit(format!("cannot be used ({e})")))?;
        let certified = CertifiedKey::new(chain, signing);
        certified
            .keys_match()
            .map_err(|_| unfit(format!("is not the key of {}", self.certificate.display())))?;
        Ok(certified)
    }

    /// The authorities.
    pub(crate) fn roots(&self) -> Result<RootCertStore, FileError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("file of authorities", &self.ca)? {
            roots.add(certificate).map_err(|e| {
                error("file of authorities", &self.ca, format!("cannot be used ({e})"))
            })?;
        }
        Ok(roots)
    }
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = read(what, path, false)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(error(what, path, "has no certificate in PEM form".into()))
        }
        other => other.map_err(|e| error(what, path, format!("is not PEM ({e})"))),
    }
}

/// The whole file. The buffer never grows, so no copy of a key is left behind by a move.
fn read(what: &'static str, path: &Path, private: bool) -> Result<Vec<u8>, FileError> {
    let failed = |e: std::io::Error| error(what, path, format!("cannot be read: {e}"));
    // Asked before the file is opened: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(error(what, path, "is not a regular file".into()));
    }
    if private && meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        let problem = format!("can be used by group or others (mode {mode:04o}): chmod 600 it");
        return Err(error(what, path, problem));
    }
    if meta.len() > MAX_FILE {
        let problem = format!("has {} bytes, PEM files have at most {MAX_FILE}", meta.len());
        return Err(error(what, path, problem));
    }
    let mut content = vec![0; usize::try_from(meta.len()).unwrap_or_default()];
    File::open(path).and_then(|mut file| file.read_exact(&mut content)).map_err(failed)?;
    Ok(content)
}

pub(crate) fn error(what: &'static str, path: &Path, problem: String) -> FileError {
    FileError { what, path: path.to_owned(), problem }
}
