//! Setting up trust in both directions: our certificate for the servers, and theirs for us.
//!
//! Owns the files of [`TlsFiles`] when they are changed. It must not talk KMIP. There are three ways to a certificate of ours, as servers
//! differ in what they take: [`request`] makes a key that never leaves this host and a request for an authority to sign, whose answer
//! [`import`] takes; [`self_signed`] makes both at once; [`install`] takes a pair that the server made. In the other direction
//! [`look`] fetches the certificate of a server without trusting it, and [`pin`] trusts it, once a person has compared its fingerprint.

use super::fault::IdentityError;
use super::link::{self, Budgets};
use super::pem;
use super::tls::{self, Identity, TlsFiles, Trust};
use super::x509::{Validity, civil};
use crate::{Clock, KmsError};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;
use zeroize::{Zeroize, Zeroizing};

/// Days that a self-signed certificate is valid: as long as servers take it, for nobody renews it by itself.
const SELF_SIGNED_DAYS: u64 = 3650;

/// Longest common name (RFC 5280 appendix A.1, ub-common-name).
const MAX_NAME: usize = 64;

/// Most pinned certificates; a cluster has a few servers, and each a successor.
const MAX_PINNED: usize = 64;

/// A certificate, as it is shown to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// PEM text.
    pub pem: String,
    /// SHA-256 of its DER form, lower-case hex.
    pub sha256: String,
    /// DNS names in it.
    pub names: Vec<String>,
    /// Whole days until it runs out; `None` when it cannot be read.
    pub days_left: Option<i64>,
}

/// Makes a new key beside the one in use, and a request (PKCS #10, RFC 2986) for a certificate with the common name `name`. Until its
/// answer is imported the key in use stays; another request replaces the waiting key.
///
/// # Errors
/// [`KmsError::Config`] for a name that cannot be in a certificate; [`KmsError::Io`].
pub fn request(files: &TlsFiles, name: &str) -> Result<String, KmsError> {
    let key = new_key()?;
    let params = params(name)?;
    let request = params.serialize_request(&key.0).map_err(|e| broken(&e))?;
    let text = request.pem().map_err(|e| broken(&e))?;
    put(&waiting(files), Zeroizing::new(key.0.serialize_pem()).as_bytes(), true)?;
    Ok(text)
}

/// Takes the certificate (PEM text, with those that lead to its authority) that answers the last request.
///
/// # Errors
/// [`KmsError::Config`] when there was no request, or when it is for another key; nothing is changed then. [`KmsError::Io`].
pub fn import(files: &TlsFiles, certificate: &str, clock: Clock) -> Result<Shown, KmsError> {
    let key = waiting(files);
    if !key.exists() {
        return Err(config(
            &key,
            "is not there: no certificate was asked for",
            "run `coffer key provider csr` first",
        ));
    }
    // Its place is only named in messages.
    let named = with_suffix(&files.certificate, ".new");
    let shown = replace(files, (certificate.as_bytes(), &named), &key, clock)?;
    // The key is in place as a copy.
    fs::remove_file(&key).map_err(|source| io("remove", &key, source))?;
    Ok(shown)
}

/// Makes a key and a certificate that is signed by itself, puts them in place, and returns the certificate, which the server must be told.
///
/// # Errors
/// [`KmsError::Config`] for a name that cannot be in a certificate; [`KmsError::Io`].
pub fn self_signed(files: &TlsFiles, name: &str, clock: Clock) -> Result<Shown, KmsError> {
    let key = new_key()?;
    let mut params = params(name)?;
    let today = clock() / 86_400;
    // From yesterday on, as clocks differ.
    let date = |days| {
        let (year, month, day) = civil(days);
        rcgen::date_time_ymd(year, month, day)
    };
    params.not_before = date(today.saturating_sub(1));
    params.not_after = date(today + SELF_SIGNED_DAYS);
    let certificate = params.self_signed(&key.0).map_err(|e| broken(&e))?;
    let waiting = waiting(files);
    put(&waiting, Zeroizing::new(key.0.serialize_pem()).as_bytes(), true)?;
    import(files, &certificate.pem(), clock)
}

/// Takes a certificate and its key that were made elsewhere, from two PEM files. The files stay; remove the key.
///
/// # Errors
/// [`KmsError::Config`] when they do not belong together or the key can be read by others; nothing is changed then.
/// [`KmsError::Io`].
pub fn install(
    files: &TlsFiles,
    certificate: &Path,
    key: &Path,
    clock: Clock,
) -> Result<Shown, KmsError> {
    let pem = tls::read(certificate, "the certificate", false).map_err(|e| unfit(&e))?;
    replace(files, (&pem, certificate), key, clock)
}

/// The certificate of a server, fetched without trusting it and without showing it ours.
///
/// # Errors
/// [`KmsError::Unavailable`] with what came instead.
pub fn look(
    host: &str,
    port: u16,
    tls_name: Option<&str>,
    files: &TlsFiles,
    clock: Clock,
) -> Result<Shown, KmsError> {
    let unavailable =
        |reason: String| KmsError::Unavailable { provider: format!("{host}:{port}"), reason };
    let name = tls_name.unwrap_or(host).to_owned();
    let name = ServerName::try_from(name)
        .map_err(|e| unavailable(format!("it cannot have a certificate: {e}")))?;
    let budgets = Budgets::default();
    let end = Instant::now() + budgets.operation;
    let identity = Identity::new(files.clone(), clock);
    let der = link::certificate(host, port, &name, &identity, &budgets, end);
    let der = der.map_err(|fault| unavailable(fault.to_string()))?;
    Ok(shown(&der, clock))
}

/// Trusts a server's certificate from now on, beside those that are pinned already.
///
/// # Errors
/// [`KmsError::Config`] when authorities are configured instead of pins; [`KmsError::Limit`]; [`KmsError::Io`].
pub fn pin(files: &TlsFiles, certificate: &Shown) -> Result<(), KmsError> {
    let Trust::Pinned(path) = &files.trust else {
        return Err(config(
            files.trust.path(),
            "is the file of authorities, which are trusted instead of pins",
            "remove ca of this provider from the configuration to pin certificates",
        ));
    };
    let mut text = match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|e| io("read", path, e))?,
    };
    let pinned = CertificateDer::pem_slice_iter(text.as_bytes());
    let pinned: Vec<_> = pinned.filter_map(Result::ok).collect();
    if pinned.iter().any(|one| crypto::sha256_hex(one) == certificate.sha256) {
        return Ok(());
    }
    if pinned.len() >= MAX_PINNED {
        let what = format!("{} has as many certificates as it may", path.display());
        return Err(KmsError::Limit { what, limit: MAX_PINNED as u64 });
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&certificate.pem);
    put(path, text.as_bytes(), false)
}

/// Puts a certificate and its key in place, once they are known to belong together: the key first. A connection between the two steps finds
/// a pair that does not fit, and goes on with the one that it knows. Each file is read once, so that what is put in place is what
/// was looked at.
fn replace(
    files: &TlsFiles,
    certificate: (&[u8], &Path),
    key: &Path,
    clock: Clock,
) -> Result<Shown, KmsError> {
    let pem = Zeroizing::new(tls::read(key, "the key", true).map_err(|e| unfit(&e))?);
    let chain = tls::pair(certificate, (&pem, key)).map_err(|e| unfit(&e))?;
    put(&files.key, &pem, true)?;
    put(&files.certificate, certificate.0, false)?;
    let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
    Ok(shown(first, clock))
}

fn shown(der: &[u8], clock: Clock) -> Shown {
    let der = CertificateDer::from(der);
    let parsed = webpki::EndEntityCert::try_from(&der);
    let names = parsed.map(|parsed| parsed.valid_dns_names().map(ToOwned::to_owned).collect());
    Shown {
        pem: pem::certificate(&der),
        sha256: crypto::sha256_hex(&der),
        names: names.unwrap_or_default(),
        days_left: Validity::of(&der).map(|validity| validity.days_left(clock())),
    }
}

/// A private key that is wiped.
struct OwnKey(KeyPair);

impl Drop for OwnKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A key for ECDSA over P-256, which every server knows.
fn new_key() -> Result<OwnKey, KmsError> {
    Ok(OwnKey(KeyPair::generate().map_err(|e| broken(&e))?))
}

/// What a certificate of ours says. Servers know their clients by the common name.
fn params(name: &str) -> Result<CertificateParams, KmsError> {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(KmsError::Config {
            origin: format!("the common name {name:?}"),
            problem: "cannot be in a certificate".to_owned(),
            remedy: format!("choose 1 to {MAX_NAME} printable characters"),
        });
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Where the key of a request waits for its certificate.
fn waiting(files: &TlsFiles) -> PathBuf {
    with_suffix(&files.key, ".new")
}

/// Replaces a file as a whole, durably; its folder is made when it is missing.
fn put(path: &Path, content: &[u8], private: bool) -> Result<(), KmsError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| io("make", folder, e))?;
    }
    let temp = with_suffix(path, ".tmp");
    let _ = fs::remove_file(&temp);
    let mode = if private { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temp)
        .map_err(|e| io("make", &temp, e))?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temp, path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|e| {
        let _ = fs::remove_file(&temp);
        io("write", path, e)
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> KmsError {
    KmsError::Io { action, path: path.to_owned(), source }
}

fn config(path: &Path, problem: &str, remedy: &str) -> KmsError {
    KmsError::Config {
        origin: path.display().to_string(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn unfit(error: &IdentityError) -> KmsError {
    let problem = format!("{} ({})", error.problem, error.what);
    config(&error.path, &problem, "nothing was changed")
}

fn broken(error: &rcgen::Error) -> KmsError {
    KmsError::Config {
        origin: "the new certificate".to_owned(),
        problem: format!("cannot be made ({error})"),
        remedy: "choose another name".to_owned(),
    }
}
