//! Our side of mutual TLS: who we are, whom we trust, and the reload when a file changes.
//!
//! Owns the settings of both roles of a connection; must not know connections. Flow: [`Identity::load`] at the start fails
//! when the files do; [`Identity::now`] looks at their stamps before each connection, and reads them again when one
//! differs. New files that do not fit together (a key that comes a moment after its certificate), or that would make
//! another member of us, leave the old ones in force.
//!
//! TLS 1.3 only (RFC 8446): both ends are ours. No session is resumed, so each connection shows both certificates anew.

use crate::files::{FileError, Stamp, TlsFiles, error};
use crate::member::{Member, Role};
use crate::verify::HostVerifier;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Seconds since 1970.
pub type Clock = fn() -> u64;

/// Who we are, as the files are now.
pub struct Identity {
    files: TlsFiles,
    role: Role,
    clock: Clock,
    loaded: Mutex<(Arc<Loaded>, [Stamp; 3])>,
}

/// What was read of the files.
pub struct Loaded {
    member: Member,
    certified: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    clock: Clock,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// An identity of these files, for a member with this role.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn load(files: TlsFiles, role: Role, clock: Clock) -> Result<Self, FileError> {
        let stamps = files.stamps();
        let loaded = Arc::new(Loaded::read(&files, role, clock)?);
        Ok(Self { files, role, clock, loaded: Mutex::new((loaded, stamps)) })
    }

    /// The settings for a connection.
    #[must_use]
    pub fn now(&self) -> Arc<Loaded> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if loaded.1 != stamps
            && let Ok(fresh) = Loaded::read(&self.files, self.role, self.clock)
            && fresh.member == loaded.0.member
        {
            *loaded = (Arc::new(fresh), stamps);
        }
        Arc::clone(&loaded.0)
    }
}

impl Loaded {
    fn read(files: &TlsFiles, role: Role, clock: Clock) -> Result<Self, FileError> {
        let certified = files.certified()?;
        let unfit = |reason: String| error("certificate", &files.certificate, reason);
        let first = certified.cert.first().ok_or_else(|| unfit("has no certificate".into()))?;
        let member = Member::of(first).map_err(|e| unfit(format!("cannot be used: {e}")))?;
        if member.role() != role {
            return Err(unfit(format!("cannot be used: {member} is not a {role}")));
        }
        let roots = Arc::new(files.roots()?);
        let certified = Arc::new(SingleCertAndKey::from(certified));
        let server = server(Arc::clone(&certified), Arc::clone(&roots), clock)
            .map_err(|e| error("file of authorities", &files.ca, format!("cannot be used: {e}")))?;
        Ok(Self { member, certified, roots, clock, server: Arc::new(server) })
    }

    /// Who we are.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// For one who accepts connections: every client must have a certificate of the cluster's authorities. Its role is
    /// looked at afterwards ([`Member::of`]), so that it can be told what is wrong.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For one who connects to a host of our cluster, and to no other than `name` when it is given.
    ///
    /// # Errors
    /// [`rustls::Error`] when the library refuses its own settings.
    pub fn client_of_host(&self, name: Option<&str>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(self.clock)))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.host_verifier(name))
            .with_client_cert_resolver(Arc::clone(&self.certified) as _);
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// What takes a host of our cluster, and no other than `name` when it is given, as a server.
    #[must_use]
    pub fn host_verifier(&self, name: Option<&str>) -> Arc<dyn ServerCertVerifier> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::clone(&self.roots);
        Arc::new(HostVerifier::new(roots, provider, self.member.cluster(), name))
    }
}

fn server(
    certified: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    clock: Clock,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certified);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The clock that the caller gave, for the TLS library.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs((self.0)())))
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
