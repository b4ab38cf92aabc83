//! Start and stop of the daemon, in order.
//!
//! Owns nothing but the order, and the turns of its clockwork: renewing its own certificate, keeping the head of the audit log, and the
//! background work. Hardening comes before all of it, in `cli`.

use crate::api::{self, Auditor, Fault, Limits, Service};
use crate::audit::{Log, LogError, Trouble};
use crate::background::Background;
use crate::config::Config;
use crate::pki::{self, Ca, CaError, HOST_DAYS, Member, RENEW_BEFORE_DAYS, Role, TlsError};
use crate::setup;
use crate::store::StoreError;
use rustls::ServerConfig;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Pause between turns of the clockwork; nothing in it is urgent.
const TURN: Duration = Duration::from_secs(10);

/// How long requests in flight may take after the stop was asked for.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] LogError),
    /// The audit log does not hold.
    #[error("the audit log does not hold: {0}. Keep {} for whoever looks into it; to start with an empty log, move it away", folder.display())]
    Broken {
        /// What is wrong.
        #[source]
        trouble: TroubleText,
        /// Its folder.
        folder: PathBuf,
    },
    /// Certificates.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something of the API.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A file cannot be read.
    #[error("cannot read {}: {source}; was `controld init` run?", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The runtime cannot be made.
    #[error("the API cannot be started: {0}")]
    Runtime(io::Error),
}

/// A trouble of the audit log as an error.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TroubleText(pub Trouble);

/// Seconds since 1970; 0 on a clock before that.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`].
pub fn run(config: &Config) -> Result<(), StartError> {
    let store = setup::open_store(config)?;
    let folder = config.state_dir.join("audit");
    let log = Log::open(&folder)?;
    let audit = match Auditor::new(log, Arc::clone(&store), config.name.clone())? {
        Ok(audit) => audit,
        Err(trouble) => return Err(StartError::Broken { trouble: TroubleText(trouble), folder }),
    };
    let (certificate, key) = config.ca_files();
    let ca = Ca::open(&certificate, &key)?;
    let tls = Arc::new(Mutex::new(settings(config, &ca)?));
    let background = Background::new(Arc::clone(&store), config.name.clone());
    // Its lease is given back when it is dropped, after the last turn.
    let background = Arc::new(Mutex::new(background));
    let service = Arc::new(Service::new(&store, config.site.clone(), ca, audit, now));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(config.limits.connections)
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let served = runtime.block_on(answer(config, &service, &tls, &background));
    runtime.shutdown_timeout(STOP_WAIT);
    if let Err(e) = service.audit.settle() {
        tracing::warn!("the head of the audit log was not kept in the store: {e}");
    }
    tracing::info!("stopped");
    served
}

/// TLS with the certificate of this controld: a new one when it ends soon, is for other names than those configured, or does not fit its key.
fn settings(config: &Config, ca: &Ca) -> Result<Arc<ServerConfig>, StartError> {
    if !is_due(config, ca)?
        && let Ok(settings) = load(config, ca)
    {
        return Ok(settings);
    }
    renew(config, ca)?;
    load(config, ca)
}

fn load(config: &Config, ca: &Ca) -> Result<Arc<ServerConfig>, StartError> {
    let (certificate, key) = setup::own_files(config);
    let key = zeroize::Zeroizing::new(read(&key)?);
    Ok(pki::server_config(&read(&certificate)?, &key, ca.pem())?)
}

/// Whether the certificate of this controld is to be renewed.
fn is_due(config: &Config, ca: &Ca) -> Result<bool, StartError> {
    let (certificate, _) = setup::own_files(config);
    let soon = now() + RENEW_BEFORE_DAYS * 86_400;
    Ok(!ca.vouches(&read(&certificate)?, &config.names, soon))
}

fn renew(config: &Config, ca: &Ca) -> Result<(), StartError> {
    let (certificate, key) = setup::own_files(config);
    let (site, name) = (config.site.clone(), config.name.clone());
    let pair = ca.pair(&Member { site, role: Role::Controld, name }, &config.names, now())?;
    // A crash between the two leaves a pair that does not fit, and the next start makes another one.
    pki::replace(&key, pair.key.as_bytes(), 0o600)?;
    pki::replace(&certificate, pair.certificate.as_bytes(), 0o644)?;
    tracing::info!("the certificate of this controld was renewed for {HOST_DAYS} days");
    Ok(())
}

fn read(path: &Path) -> Result<String, StartError> {
    let missing = |source| StartError::Missing { path: path.to_owned(), source };
    std::fs::read_to_string(path).map_err(missing)
}

async fn answer(
    config: &Config,
    service: &Arc<Service>,
    tls: &Arc<Mutex<Arc<ServerConfig>>>,
    background: &Arc<Mutex<Background>>,
) -> Result<(), StartError> {
    let address = config.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| StartError::Listen { address, source })?;
    let local = listener.local_addr().map_err(StartError::Runtime)?;
    let mut term = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let wait = Duration::from_secs(config.limits.wait_seconds);
    let limits = Limits { connections: config.limits.connections, wait };
    // The sender lives until the stop; its end is a stop as well.
    let server = api::serve(listener, Arc::clone(tls), Arc::clone(service), limits, stopped);
    let server = tokio::spawn(server);
    tracing::info!("ready on {local}");
    let mut turn = tokio::time::interval(TURN);
    loop {
        tokio::select! {
            _ = turn.tick() => {
                let (config, service, tls) = (config.clone(), Arc::clone(service), Arc::clone(tls));
                let background = Arc::clone(background);
                // It may wait for the store.
                tokio::task::spawn_blocking(move || clockwork(&config, &service, &tls, &background));
            }
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    let _sent = stop.send(());
    if tokio::time::timeout(STOP_WAIT, server).await.is_err() {
        tracing::warn!("requests did not end in {} s", STOP_WAIT.as_secs());
    }
    Ok(())
}

/// One turn. What fails is tried again in the next one.
fn clockwork(
    config: &Config,
    service: &Service,
    tls: &Mutex<Arc<ServerConfig>>,
    background: &Mutex<Background>,
) {
    // A turn that takes longer than the pause, as the store hangs, is enough.
    let mut background = match background.try_lock() {
        Ok(background) => background,
        Err(TryLockError::Poisoned(left)) => left.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if let Err(e) = service.audit.settle() {
        tracing::warn!("the head of the audit log was not kept in the store: {e}");
    }
    if let Err(e) = background.turn(now()) {
        tracing::warn!("the background work was not done: {e}");
    }
    if is_due(config, &service.ca).unwrap_or(true) {
        match settings(config, &service.ca) {
            Ok(new) => *tls.lock().unwrap_or_else(PoisonError::into_inner) = new,
            Err(e) => tracing::error!("the certificate of this controld was not renewed: {e}"),
        }
    }
}
