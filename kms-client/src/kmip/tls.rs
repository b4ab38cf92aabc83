//! What TLS is done with: our certificate and key, and whom we trust.
//!
//! Owns the way from PEM files to a `ClientConfig`, and the reload when a file changes. It must not know connections. Flow:
//! [`Identity::config`] looks at the files' stamps before each connection, and reads them again when one differs; new
//! files that do not fit together (a key that comes a moment after its certificate) leave the old ones in force.
//!
//! Trust is only in what is configured, an authority or pinned certificates; the public authorities are never added. TLS 1.3 and 1.2
//! only (RFC 8446, RFC 5246). No session is resumed, so that every connection shows both certificates anew.

use super::credential::{Account, Credential};
use super::fault::{Fault, IdentityError};
use super::pinned::{NotPinned, Pinned};
use super::x509::Validity;
use crate::Clock;
use rustix::fs::{Mode, OFlags};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// Largest PEM file in bytes: a bundle of a hundred authorities fits in it.
const MAX_FILE: u64 = 1024 * 1024;

/// Whom to trust as a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Whoever has a certificate from one of the authorities in this PEM file, for the right name.
    Authority(PathBuf),
    /// Whoever has one of the certificates in this PEM file, whatever names are in it.
    Pinned(PathBuf),
}

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key, readable by its owner only.
    pub key: PathBuf,
    /// Whom to trust.
    pub trust: Trust,
}

/// Our side of mutual TLS, as the files are now.
pub struct Identity {
    files: TlsFiles,
    account: Option<Account>,
    clock: Clock,
    loaded: Mutex<Option<Loaded>>,
}

/// What was read, and from which state of the files.
struct Loaded {
    stamps: [Stamp; 3],
    config: Arc<ClientConfig>,
    certificate: Option<Validity>,
    trusted: Vec<Validity>,
}

/// A state of a file: its times, length and inode. A replaced file has another inode at least.
type Stamp = Option<(i64, i64, u64, u64)>;

/// How long what is loaded stays valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiries {
    /// Our certificate.
    pub certificate: Option<Validity>,
    /// The authority or pinned certificate that ends first.
    pub trusted: Option<Validity>,
}

impl Identity {
    /// An identity of these files, which are read at the first connection.
    #[must_use]
    pub fn new(files: TlsFiles, clock: Clock) -> Self {
        Self { files, account: None, clock, loaded: Mutex::new(None) }
    }

    /// The same, with a user name and a password besides.
    #[must_use]
    pub fn with_account(self, account: Option<Account>) -> Self {
        Self { account, ..self }
    }

    /// User name and password as they are now, where there are any.
    ///
    /// # Errors
    /// [`IdentityError`] names the file.
    pub fn credential(&self) -> Result<Option<Credential>, IdentityError> {
        self.account.as_ref().map(Account::read).transpose()
    }

    /// The settings for a connection.
    ///
    /// # Errors
    /// [`IdentityError`] names the file, when none could ever be loaded.
    pub fn config(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.all().map(stamp);
        if let Some(current) = loaded.as_ref().filter(|current| current.stamps == stamps) {
            return Ok(Arc::clone(&current.config));
        }
        match (self.load(stamps), loaded.as_mut()) {
            (Ok(fresh), _) => Ok(Arc::clone(&loaded.insert(fresh).config)),
            (Err(_), Some(old)) => Ok(Arc::clone(&old.config)),
            (Err(error), None) => Err(error),
        }
    }

    /// What is wrong with the files as they are now, although older ones may be in force.
    #[must_use]
    pub fn problem(&self) -> Option<IdentityError> {
        self.load(self.files.all().map(stamp)).err().or_else(|| self.credential().err())
    }

    /// How long what is loaded stays valid.
    #[must_use]
    pub fn expiries(&self) -> Expiries {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.as_ref().map_or_else(Expiries::default, |loaded| Expiries {
            certificate: loaded.certificate,
            trusted: loaded.trusted.iter().min_by_key(|validity| validity.until).copied(),
        })
    }

    /// The fault that a TLS error stands for.
    pub(super) fn fault(&self, error: Error) -> Fault {
        match error {
            Error::AlertReceived(alert) => self.alert(alert),
            Error::InvalidCertificate(error) => certificate_fault(error),
            Error::InvalidMessage(_) => Fault::NotTls,
            Error::PeerIncompatible(what) => Fault::NoCommonSuite(format!("{what:?}")),
            other => Fault::Tls(other.to_string()),
        }
    }

    fn alert(&self, alert: AlertDescription) -> Fault {
        use AlertDescription as A;
        let name = format!("{alert:?}");
        match alert {
            A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => {
                Fault::NoCommonSuite(format!("TLS alert {name}"))
            }
            A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired => {
                let left = self.expiries().certificate.map(|v| v.days_left((self.clock)()));
                match left.filter(|days| *days < 0) {
                    Some(days) => Fault::ClientExpired { alert: name, days: days.unsigned_abs() },
                    None => Fault::ClientRejected { alert: name },
                }
            }
            _ => Fault::Tls(format!("TLS alert {name}")),
        }
    }

    fn load(&self, stamps: [Stamp; 3]) -> Result<Loaded, IdentityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&self.files.certificate, CERTIFICATE)?;
        let certificate = chain.first().and_then(|first| Validity::of(first));
        let key = Zeroizing::new(read(&self.files.key, KEY, true)?);
        let certified = certified(chain, &key, &self.files.key, &self.files.certificate)?;
        let trusted = certificates(self.files.trust.path(), self.files.trust.what())?;
        let validities = trusted.iter().filter_map(|one| Validity::of(one)).collect();
        let verifier = self.verifier(trusted, &provider)?;
        let unfit = unfit(CERTIFICATE, &self.files.certificate);
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(self.clock)))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unfit)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.resumption = Resumption::disabled();
        Ok(Loaded { stamps, config: Arc::new(config), certificate, trusted: validities })
    }

    fn verifier(
        &self,
        trusted: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, IdentityError> {
        let path = self.files.trust.path();
        if matches!(self.files.trust, Trust::Pinned(_)) {
            return Ok(Arc::new(Pinned::new(trusted, Arc::clone(provider))));
        }
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate).map_err(unfit(AUTHORITIES, path))?;
        }
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(builder.build().map_err(unfit(AUTHORITIES, path))?)
    }
}

impl TlsFiles {
    fn all(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, self.trust.path()]
    }
}

impl Trust {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Authority(path) | Self::Pinned(path) => path,
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Authority(_) => AUTHORITIES,
            Self::Pinned(_) => PINNED,
        }
    }
}

const CERTIFICATE: &str = "client certificate";
const KEY: &str = "client key";
const AUTHORITIES: &str = "file of the authorities";
const PINNED: &str = "file of the pinned certificates";

/// The clock that the caller gave, for the TLS library.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs((self.0)())))
    }
}

fn certificate_fault(error: CertificateError) -> Fault {
    use CertificateError as E;
    match error {
        E::ExpiredContext { time, not_after } => {
            let seconds = time.as_secs().saturating_sub(not_after.as_secs());
            Fault::ServerExpired { days: seconds / 86_400 }
        }
        E::Expired => Fault::ServerExpired { days: 0 },
        E::NotValidYet | E::NotValidYetContext { .. } => Fault::ServerTooYoung,
        E::NotValidForNameContext { expected, presented } => {
            Fault::WrongName { wanted: expected.to_str().into_owned(), found: presented }
        }
        E::UnknownIssuer => Fault::Untrusted("no configured authority has signed it".to_owned()),
        E::Other(other) => match other.0.downcast_ref::<NotPinned>() {
            Some(NotPinned { found }) => Fault::OtherPin { found: found.clone() },
            None => Fault::Untrusted(other.0.to_string()),
        },
        other => Fault::Untrusted(other.to_string()),
    }
}

/// The chain with its key in PEM form, which must belong together; the paths are for messages. What was parsed of the
/// key is wiped; the library keeps its own form for as long as the settings live.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    pem: &[u8],
    path: &Path,
    certificate: &Path,
) -> Result<CertifiedKey, IdentityError> {
    let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(unfit(KEY, path))?;
    let signing = aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    let certified = CertifiedKey::new(chain, signing.map_err(unfit(KEY, path))?);
    certified.keys_match().map_err(|_| IdentityError {
        what: KEY,
        path: path.to_owned(),
        problem: format!("is not the key of {}", certificate.display()),
        remedy: "put the two that belong together there",
    })?;
    Ok(certified)
}

/// Whether a certificate and a key, both in PEM form, can be used together; the chain. The paths are for messages.
///
/// # Errors
/// [`IdentityError`] names the file that cannot.
pub(super) fn pair(
    (certificate, certificate_path): (&[u8], &Path),
    (key, key_path): (&[u8], &Path),
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = parsed(certificate, certificate_path, CERTIFICATE)?;
    Ok(certified(chain, key, key_path, certificate_path)?.cert)
}

/// The certificates of a PEM file, all of them.
///
/// # Errors
/// [`IdentityError`] when it cannot be read, or has none.
fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    parsed(&read(path, what, false)?, path, what)
}

fn parsed(
    pem: &[u8],
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(unfit(what, path)("it has no certificate in PEM form"))
        }
        other => other.map_err(unfit(what, path)),
    }
}

/// The whole file. It is opened once, and what was opened is looked at, so that nothing else can be put at the path
/// between look and read. The buffer never grows, so no copy of a key is left behind by a move.
pub(super) fn read(
    path: &Path,
    what: &'static str,
    private: bool,
) -> Result<Vec<u8>, IdentityError> {
    let error = |problem: String, remedy: &'static str| IdentityError {
        what,
        path: path.to_owned(),
        problem,
        remedy,
    };
    let failed = |e: std::io::Error| {
        error(format!("cannot be read ({e})"), "check the path in the configuration")
    };
    // A pipe is opened without waiting for a writer, and a terminal without becoming that of this process.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let mut file = File::from(opened.map_err(|e| failed(e.into()))?);
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(error("is not a regular file".into(), "put the file itself there"));
    }
    if private && meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        let problem = format!("can be used by group or others (mode {mode:04o})");
        return Err(error(problem, "run `chmod 600` on it"));
    }
    let length = usize::try_from(meta.len()).unwrap_or(usize::MAX);
    if meta.len() > MAX_FILE {
        return Err(error(format!("has {length} bytes"), "PEM files have at most 1 MiB"));
    }
    let mut content = vec![0; length];
    if let Err(e) = file.read_exact(&mut content) {
        content.zeroize();
        return Err(failed(e));
    }
    Ok(content)
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
}

fn unfit<E: ToString>(what: &'static str, path: &Path) -> impl Fn(E) -> IdentityError {
    let path = path.to_owned();
    move |reason| IdentityError {
        what,
        path: path.clone(),
        problem: format!("is of no use ({})", reason.to_string()),
        remedy: "put a PEM file with the right content there",
    }
}
