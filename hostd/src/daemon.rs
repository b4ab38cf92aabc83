//! Start and stop of the daemon, in order.
//!
//! Owns nothing but the order. A reader finds every step here, one call each; the stop is the reverse. Hardening
//! comes before all of it, in `cli`, because it precedes the reading of the configuration.

use crate::config::{Config, OnStop};
use crate::control;
use crate::datastore::Datastore;
use crate::fault::Fault;
use crate::files::{self, FileLock, Locked};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::keyring::{ClosedProvider, Keyring, Source};
use crate::keys::{NATIVE, now};
use crate::passphrase::{self, PassphraseFault};
use crate::plane::ControlPlane;
use crate::service::Spawner;
use crate::service::polling::{self, Polling};
use crate::state::State;
use crypto::{Arena, ArenaError, SelfTestError};
use hostd_api::error::ErrorCode;
use kms_client::bao::BaoProvider;
use kms_client::kmip::KmipProvider;
use kms_client::native::NativeProvider;
use kms_client::{KeyProvider, KmsError};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// How often unused keys and processes that were left alone are looked at. Seconds late do not matter.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// How long requests in flight may take after the stop was asked for.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// Each datastore that hangs may keep this part of the threads that answer requests (one for each control connection),
/// so that so many of them together still leave the others usable.
const STORES_THAT_HANG: usize = 4;

/// Permissions of the runtime folders: sockets and VM folders inside have their own.
const RUN_MODE: u32 = 0o755;

/// Permissions of the folder of locks: nobody else has to do with them.
const LOCKS_MODE: u32 = 0o700;

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum StartError {
    /// Keys cannot be kept in locked memory.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// The cipher engines do not give known answers.
    #[error("the self test of the ciphers failed, so this build must not be used here: {0}")]
    SelfTest(#[from] SelfTestError),
    /// The passphrase cannot be had.
    #[error(transparent)]
    Passphrase(#[from] PassphraseFault),
    /// The key file cannot be opened.
    #[error("{fault}; {remedy}")]
    Provider {
        /// What the provider says.
        fault: KmsError,
        /// What to do.
        remedy: &'static str,
    },
    /// A step failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The runtime of the control API cannot be made.
    #[error("the control API cannot be started: {0}")]
    Runtime(std::io::Error),
}

/// Locked memory for keys, after the self test: the first step of everything that touches a key.
///
/// # Errors
/// [`StartError::Memory`] with limit and remedy, [`StartError::SelfTest`].
pub fn key_memory(config: &Config) -> Result<Arena, StartError> {
    crypto::lock_process_memory()?;
    let arena = Arena::new(config.limits.key_memory_kib.saturating_mul(1024))?;
    crypto::self_test(&arena)?;
    Ok(arena)
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`].
pub fn run(config: Config, demo: bool) -> Result<(), StartError> {
    let arena = key_memory(&config)?;
    let run_lock = claim_run(&config)?;
    let state = State::open(&config.state_dir)?;
    let (keyring, native) = open_keys(&config, demo, arena)?;
    let plane = ControlPlane::open(&config, keyring.arena())?;
    let host = Arc::new(Host {
        spawner: Spawner::start(vmd_program(&config)?)?,
        inventory: Inventory::new(config.limits.vms),
        keyring: Arc::new(keyring),
        native,
        datastores: datastores(&config),
        state,
        _run_lock: run_lock,
        started: Instant::now(),
        confinement: Mutex::default(),
        warnings: Mutex::default(),
        polling: Polling::new(
            config.limits.polling_threads.unwrap_or_else(polling::default_places),
        ),
        plane,
        told: Mutex::default(),
        looking: Mutex::default(),
        holding: Mutex::default(),
        sealing: Mutex::default(),
        config,
    });
    host.open_datastores()?;
    host.adopt_all()?;
    // A start that failed here changes nothing for VMs that run.
    serve(&host)?;
    stop(&host);
    Ok(())
}

/// The reverse of the start. Without a drain, vmds, mounts and sockets stay for the next hostd.
fn stop(host: &Host) {
    if let Err(e) = files::remove(&host.config.control_socket()) {
        tracing::warn!("{e}");
    }
    match host.config.on_stop {
        OnStop::Drain => host.drain(),
        OnStop::Leave => {
            tracing::info!("{} VMs run on, for the next hostd to adopt", host.running_vms());
        }
    }
    host.keyring.clear();
    tracing::info!("stopped");
}

/// Makes the runtime folders, and refuses when another hostd has them.
fn claim_run(config: &Config) -> Result<FileLock, Fault> {
    files::folder(&config.run_dir, RUN_MODE, None)?;
    let lock = match files::lock(&config.run_dir.join("hostd.lock"))? {
        Locked::Ours(lock) => lock,
        Locked::Theirs(pid) => {
            let who = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
            return Err(Fault::refused(
                ErrorCode::InUse,
                format!("another hostd{who} runs with {}", config.run_dir.display()),
                "stop it, or set another run_dir",
            ));
        }
    };
    files::folder(&config.vm_runs(), RUN_MODE, None)?;
    files::folder(&config.locks(), LOCKS_MODE, None)?;
    Ok(lock)
}

/// Opens the providers: the default one first.
fn open_keys(
    config: &Config,
    demo: bool,
    arena: Arena,
) -> Result<(Keyring, Option<Arc<NativeProvider>>), StartError> {
    let idle = Duration::from_secs(config.limits.key_idle_seconds);
    let mut closed = Vec::new();
    let native = open_native(config, demo, &arena, &mut closed)?;
    let mut providers: Vec<Arc<dyn KeyProvider>> = Vec::new();
    providers.extend(native.iter().map(|native| Arc::clone(native) as Arc<dyn KeyProvider>));
    if config.provider.kmip.is_on() {
        let credentials = passphrase::credentials();
        if let (Some(name), None) = (&config.provider.kmip.password_credential, &credentials) {
            return Err(PassphraseFault::NoCredentials(name.clone()).into());
        }
        let credentials = credentials.unwrap_or_default();
        let settings = config.provider.kmip.settings(&config.state_dir, &credentials);
        let kmip = KmipProvider::open(settings, now, &arena)
            .map_err(|fault| StartError::Provider { remedy: "check [provider.kmip]", fault })?;
        providers.push(Arc::new(kmip));
    }
    if config.provider.openbao.is_on() {
        let settings = config.provider.openbao.settings(&config.state_dir);
        let openbao = BaoProvider::open(settings, now, &arena)
            .map_err(|fault| StartError::Provider { remedy: "check [provider.openbao]", fault })?;
        providers.push(Arc::new(openbao));
    }
    let default = config.default_provider();
    providers.sort_by_key(|provider| provider.name() != default);
    // A default that is closed must not be replaced by another provider in silence.
    if providers.first().is_some_and(|first| first.name() != default) {
        return Err(StartError::Fault(Fault::refused(
            ErrorCode::ProviderUnavailable,
            format!("the key provider {default} is the default, but it is not open"),
            "set a source of its passphrase, or another provider.default",
        )));
    }
    let source = if config.control.is_on() { Source::ControlPlaneToo } else { Source::Providers };
    Ok((Keyring::new(arena, providers, closed, idle, source), native))
}

/// Opens the native provider by its TPM seal, or else with its passphrase. Without a source of one it stays closed, and its
/// VMs are locked; where there are key servers or a control plane and no key file, it is not meant to be there at all.
fn open_native(
    config: &Config,
    demo: bool,
    arena: &Arena,
    closed: &mut Vec<ClosedProvider>,
) -> Result<Option<Arc<NativeProvider>>, StartError> {
    let file = config.native_file();
    let sealed = NativeProvider::open_sealed(&file, &config.keeper(), NATIVE, demo, now, arena);
    let fault = match sealed {
        Ok(Some(native)) => {
            tracing::info!("the TPM opened {}", file.display());
            return Ok(Some(Arc::new(native)));
        }
        Ok(None) => None,
        Err(fault) => Some(fault),
    };
    let Some(passphrase) = passphrase::configured(config, arena)? else {
        let nothing = "no passphrase_file, credential or prompt is set in [provider.native]";
        let reason = fault.map_or_else(|| nothing.into(), |fault| format!("{fault}; {nothing}"));
        let elsewhere = config.provider.kmip.is_on() || config.provider.openbao.is_on();
        if !(elsewhere || config.control.is_on()) || file.exists() {
            tracing::warn!("the key provider {NATIVE} is not open: {reason}");
            closed.push(ClosedProvider { name: NATIVE.into(), reason });
        }
        return Ok(None);
    };
    let native = NativeProvider::open(&file, &passphrase, NATIVE, demo, now, arena)
        .map_err(|fault| StartError::Provider { remedy: remedy(&fault), fault })?;
    if let Some(fault) = fault {
        native.raise(fault.to_string());
    }
    Ok(Some(Arc::new(native)))
}

fn remedy(fault: &KmsError) -> &'static str {
    match fault {
        KmsError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            "make the key file with `hostd init`, or restore it from its backup"
        }
        KmsError::WrongPassphrase { .. } => "check [provider.native] in the configuration",
        _ => "hostd does not start without the keys that it is configured to have",
    }
}

/// The datastores, none of them opened yet.
fn datastores(config: &Config) -> Vec<Datastore> {
    let verbs = config.limits.control_connections / STORES_THAT_HANG;
    config.datastore.iter().map(|store| Datastore::new(store, verbs)).collect()
}

/// The vmd program: from the configuration, or beside this executable.
fn vmd_program(config: &Config) -> Result<PathBuf, Fault> {
    let path = match &config.vmd {
        Some(path) => path.clone(),
        None => {
            let own = Path::new("/proc/self/exe");
            let own = std::fs::read_link(own).map_err(Fault::io("read", own))?;
            own.with_file_name("vmd")
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Fault::refused(
        ErrorCode::HostLimit,
        format!("there is no vmd program at {}", path.display()),
        "install vmd beside hostd, or set vmd in the configuration",
    ))
}

/// Answers on the control socket until a signal.
fn serve(host: &Arc<Host>) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(host.config.limits.control_connections)
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let served = runtime.block_on(answer(host));
    runtime.shutdown_timeout(STOP_WAIT);
    served
}

async fn answer(host: &Arc<Host>) -> Result<(), StartError> {
    let gate = control::bind(&host.config)?;
    let port = match &host.plane {
        Some(plane) => {
            let routes = control::plane_router(Arc::clone(host));
            Some(control::Port::bind(plane, routes, control::Times::default()).await?)
        }
        None => None,
    };
    let mut term = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let routes = control::router(Arc::clone(host));
    // The sender lives until the stop; its end is a stop as well.
    let server = tokio::spawn(control::serve(gate, routes, control::CLIENT_WAIT, stopped));
    // It ends with the runtime.
    let _plane = port.map(|port| tokio::spawn(port.serve(std::future::pending::<()>())));
    tracing::info!("ready on {}", host.config.control_socket().display());
    notify("READY=1");
    let mut tick = tokio::time::interval(EXPIRE_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                host.keyring.expire(Instant::now());
                // Each may wait for what hangs: a process, a key server.
                let (looks, holds) = (Arc::clone(host), Arc::clone(host));
                tokio::task::spawn_blocking(move || looks.look_again());
                tokio::task::spawn_blocking(move || holds.hold_missed());
            }
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    notify("STOPPING=1");
    let _sent = stop.send(());
    if tokio::time::timeout(STOP_WAIT, server).await.is_err() {
        tracing::warn!("requests did not end in {} s", STOP_WAIT.as_secs());
    }
    Ok(())
}

/// Tells systemd (sd_notify(3)); without `NOTIFY_SOCKET` nobody asked.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
        }
        None => std::os::unix::net::SocketAddr::from_pathname(Path::new(&path)),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(e) = sent {
        tracing::warn!("systemd was not told {state}: {e}");
    }
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
