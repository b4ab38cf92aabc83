//! The certificate authority: made here, or given.
//!
//! Owns the CA's two files and what it signs; must not know who may ask. Keys are ECDSA P-256; a certificate has one URI name that says what its owner
//! is, the names of the request are not looked at.

use crate::inventory::Name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

/// Days that a CA made here is valid: ten years. Its end is the end of every certificate, and needs all hosts to join anew.
const CA_DAYS: u64 = 3650;

/// Days that the certificate of a host or controld is valid; it is renewed by itself long before.
pub const HOST_DAYS: u64 = 90;

/// Days before its end from which on a certificate is renewed: a third of its life, so that a month of trouble does no harm.
pub const RENEW_BEFORE_DAYS: u64 = 30;

/// Certificates begin this long before they are made, as clocks differ.
const CLOCK_SKEW: u64 = 3600;

/// Last second that a certificate can name (RFC 5280 section 4.1.2.5: the year 9999).
const LAST_SECOND: u64 = 253_402_300_799;

/// Largest PEM file.
const MAX_FILE: u64 = 256 * 1024;

/// Largest request.
const MAX_REQUEST: usize = 16 * 1024;

/// Why a certificate was not made.
#[derive(Debug, Error)]
pub enum CaError {
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is of no use: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A request is none, or its signature is wrong.
    #[error("the certificate request is wrong: {0}; make another one")]
    Request(String),
    /// The library failed.
    #[error("a certificate cannot be made: {0}")]
    Making(String),
}

/// What the owner of a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A control plane daemon.
    Controld,
    /// A host.
    Host,
    /// A person or program that uses the API.
    User,
}

/// The owner of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The site: everything under one CA.
    pub site: Name,
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: Name,
}

/// A certificate and its key, in PEM. The key is wiped when it is dropped.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Zeroizing<String>,
}

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// SHA-256 of its DER form, lower-case hex.
    pub sha256: String,
    /// Its last second.
    pub until: u64,
}

/// The authority, able to sign.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Controld => "controld",
            Self::Host => "host",
            Self::User => "user",
        }
    }
}

impl Member {
    /// Its name in certificates.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("coffer://{}/{}/{}", self.site, self.role.as_str(), self.name)
    }

    /// Reads such a name.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("coffer://")?.split('/');
        let (site, role, name) = (parts.next()?, parts.next()?, parts.next()?);
        let roles = [Role::Controld, Role::Host, Role::User];
        let role = roles.into_iter().find(|known| known.as_str() == role)?;
        let member = Self { site: site.parse().ok()?, role, name: name.parse().ok()? };
        parts.next().is_none().then_some(member)
    }
}

impl Ca {
    /// Makes an authority for a site, and its two files; never replaces one.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn make(certificate: &Path, key: &Path, site: &Name, now: u64) -> Result<Self, CaError> {
        let pair = KeyPair::generate().map_err(|e| making(&e))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, format!("Coffer {site} CA"));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now, CA_DAYS)?;
        let made = params.self_signed(&pair).map_err(|e| making(&e))?;
        write_new(key, Zeroizing::new(pair.serialize_pem()).as_bytes(), 0o600)?;
        write_new(certificate, made.pem().as_bytes(), 0o644)?;
        Self::open(certificate, key)
    }

    /// Opens an authority: one that was made here, or an organisation's own intermediate one. They must belong together.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let unfit = |path: &Path, reason: String| CaError::Unfit { path: path.to_owned(), reason };
        let pem = read(certificate)?;
        let secret = Zeroizing::new(read(key)?);
        let pair = KeyPair::from_pem(&secret).map_err(|e| unfit(key, e.to_string()))?;
        let der = der_of(&pem).map_err(|e| unfit(certificate, e))?;
        let belongs = rustls::pki_types::CertificateDer::from(der.as_slice());
        let parsed = webpki::EndEntityCert::try_from(&belongs);
        let parsed = parsed.map_err(|e| unfit(certificate, e.to_string()))?;
        let own = rcgen::PublicKeyData::subject_public_key_info(&pair);
        if parsed.subject_public_key_info().as_ref() != own {
            return Err(unfit(key, format!("it is not the key of {}", certificate.display())));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, pair);
        let issuer = issuer.map_err(|e| unfit(certificate, e.to_string()))?;
        Ok(Self { issuer, pem, der })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its certificate, lower-case hex.
    #[must_use]
    pub fn sha256(&self) -> String {
        crypto::sha256_hex(&self.der)
    }

    /// Whether a certificate of a server (PEM) is signed by this authority, will be valid at a time, and is for all these names.
    #[must_use]
    pub fn vouches(&self, pem: &str, names: &[String], at: u64) -> bool {
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let Ok(der) = der_of(pem) else { return false };
        let (der, root) = (CertificateDer::from(der), CertificateDer::from(self.der.as_slice()));
        let Ok(anchor) = webpki::anchor_from_trusted_cert(&root) else { return false };
        let Ok(certificate) = webpki::EndEntityCert::try_from(&der) else { return false };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let usage = webpki::KeyUsage::server_auth();
        let anchors = [anchor];
        let verified =
            certificate.verify_for_usage(algorithms, &anchors, &[], time, usage, None, None);
        let is_for = |name: &String| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        verified.is_ok() && names.iter().all(is_for)
    }

    /// Signs a request for a member. Of the request only the public key counts, and that its signature shows who has the private one.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn sign(&self, request: &str, member: &Member, now: u64) -> Result<Issued, CaError> {
        if request.len() > MAX_REQUEST {
            return Err(CaError::Request(format!("it has more than {MAX_REQUEST} bytes")));
        }
        let parsed = CertificateSigningRequestParams::from_pem(request);
        let parsed = parsed.map_err(|e| CaError::Request(e.to_string()))?;
        let (params, until) = params(member, &[], now)?;
        let made = params.signed_by(&parsed.public_key, &self.issuer).map_err(|e| making(&e))?;
        Ok(Issued { pem: made.pem(), sha256: crypto::sha256_hex(made.der()), until })
    }

    /// Makes a key and a certificate for a member, with further names that clients connect by.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn pair(&self, member: &Member, names: &[String], now: u64) -> Result<Pair, CaError> {
        let key = KeyPair::generate().map_err(|e| making(&e))?;
        let (params, _) = params(member, names, now)?;
        let made = params.signed_by(&key, &self.issuer).map_err(|e| making(&e))?;
        Ok(Pair { certificate: made.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }
}

/// A new key, and a request for a certificate of it.
///
/// # Errors
/// [`CaError::Making`].
pub fn new_request() -> Result<Pair, CaError> {
    let key = KeyPair::generate().map_err(|e| making(&e))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(|e| making(&e))?;
    let text = request.pem().map_err(|e| making(&e))?;
    Ok(Pair { certificate: text, key: Zeroizing::new(key.serialize_pem()) })
}

/// What a certificate of a member says, and its last second.
fn params(
    member: &Member,
    names: &[String],
    now: u64,
) -> Result<(CertificateParams, u64), CaError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(|e| making(&e))?;
    let uri = member.uri().try_into().map_err(|e| making(&e))?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, member.name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if member.role != Role::User {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let until = validity(&mut params, now, HOST_DAYS)?;
    Ok((params, until))
}

/// Sets validity and serial number; returns the last second.
fn validity(params: &mut CertificateParams, now: u64, days: u64) -> Result<u64, CaError> {
    let until = now + days * 86_400;
    let date = |seconds: u64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(LAST_SECOND))
    };
    params.not_before = date(now.saturating_sub(CLOCK_SKEW));
    params.not_after = date(until);
    let mut serial = crypto::random_array::<16>().map_err(|e| making(&e))?;
    // RFC 5280 section 4.1.2.2: positive, so the first bit is 0; never zero.
    serial[0] = (serial[0] & 0x7F) | 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(until)
}

fn der_of(pem: &str) -> Result<Vec<u8>, String> {
    use rustls::pki_types::pem::PemObject;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
    der.map(|der| der.to_vec()).map_err(|e| e.to_string())
}

fn making(e: &dyn std::fmt::Display) -> CaError {
    CaError::Making(e.to_string())
}

fn io_fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::Io { doing, path, source }
}

fn read(path: &Path) -> Result<String, CaError> {
    let mut text = String::new();
    let file = File::open(path).map_err(io_fault("open", path))?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(io_fault("read", path))?;
    Ok(text)
}

/// Writes a file that must not be there yet, and flushes it and its folder.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(mode));
    let mut file = File::from(opened.map_err(|e| io_fault("make", path)(e.into()))?);
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_fault("write", path))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(io_fault("flush", folder))
}

/// Puts content in the place of a file, so that a crash leaves the old or the new one.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(io_fault("remove", &temporary)(e));
        }
        _ => {}
    }
    write_new(&temporary, content, mode)?;
    std::fs::rename(&temporary, path).map_err(io_fault("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|f| f.sync_all()).map_err(io_fault("flush", folder))
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
