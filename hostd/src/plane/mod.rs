//! What a control plane tells this host: keys to take, keys to forget; and what it is told.
//!
//! Owns the key pair of this start, the identity of the start, and the state of the control plane's key list. It must not
//! know HTTP or TLS (`control::port` does), nor keep a key itself (the keyring does). Flow of a push: whole first (for this
//! host, this start, not older than what was said), then key by key: opened into the arena, handed to the keyring; then
//! `unlock` looks at the VMs that waited.

mod reason;
mod unlock;

pub(crate) use unlock::Unlocker;

use crate::config::Config;
use crate::fault::Fault;
use crate::host::Host;
use crate::keyring::{KeyringError, Take};
use crate::keys::now;
use cluster::{Identity, Member, Role};
use crypto::{Arena, HostKey, KeyError, KeyId, PushContext, SealedKek};
use hostd_api::control::{
    ControlInfo, CryptoState, EvictAnswer, EvictKey, HostIdentity, MAX_PUSHED_AT_ONCE, PushAnswer,
    PushKeys, PushOutcome, PushedKey, VmKeys,
};
use hostd_api::error::{ErrorCode, LockCode};
use hostd_api::types::VmInfo;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// A control plane that may push keys here, and what it has said since this start.
pub struct ControlPlane {
    listen: SocketAddr,
    identity: Arc<Identity>,
    /// Of this start.
    boot: Uuid,
    key: HostKey,
    /// Newest state of the key list that was told; 0 before the first. Held by a push or eviction while it works, so that
    /// one of them is whole before the next.
    generation: Mutex<u64>,
    unlocker: Unlocker,
}

impl ControlPlane {
    /// Reads our certificate, and makes the key pair of this start; `None` when no control plane is configured.
    ///
    /// # Errors
    /// A refusal with code `invalid-argument` that names the file; faults of key memory.
    pub fn open(config: &Config, arena: &Arena) -> Result<Option<Self>, Fault> {
        let Some((listen, files)) = config.control.port() else { return Ok(None) };
        let identity = Identity::load(files, Role::Host, now)
            .map_err(|e| Fault::invalid(e.to_string(), "check [control] in the configuration"))?;
        Ok(Some(Self {
            listen,
            identity: Arc::new(identity),
            boot: Uuid::from_bytes(crypto::random_array()?),
            key: HostKey::generate(arena)?,
            generation: Mutex::new(0),
            unlocker: Unlocker::default(),
        }))
    }

    /// Where it is listened for.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Our side of TLS.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Who this host is in the cluster.
    #[must_use]
    pub fn member(&self) -> Member {
        self.identity.now().member().clone()
    }

    /// Newest state of the key list that was told; 0 before the first.
    fn told(&self) -> u64 {
        *self.generation()
    }

    /// A panic elsewhere leaves a number.
    fn generation(&self) -> MutexGuard<'_, u64> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// `GET /v1/control/identity`.
    ///
    /// # Errors
    /// A refusal when there is no control plane.
    pub fn control_identity(self: &Arc<Self>) -> Result<HostIdentity, Fault> {
        let plane = self.plane()?;
        let member = plane.member();
        let wants =
            self.list_vms().iter().flat_map(|vm| self.wanted_by(vm)).collect::<BTreeSet<_>>();
        let (generation, crypto_state) = (plane.told(), self.crypto_state());
        Ok(HostIdentity {
            host_id: self.state.host(),
            boot_id: plane.boot,
            cluster: member.cluster().to_owned(),
            name: member.name().to_owned(),
            public_key: plane.key.public().to_string(),
            generation,
            version: env!("CARGO_PKG_VERSION").into(),
            crypto_state,
            has: self.keyring.pushed_ids().iter().map(ToString::to_string).collect(),
            wants: wants.iter().map(ToString::to_string).collect(),
        })
    }

    /// `POST /v1/control/keys`.
    ///
    /// # Errors
    /// `stale-push` when it is for another host or start, or older than what was said; `invalid-argument`. What became of
    /// each key is in the answer.
    pub fn push_keys(self: &Arc<Self>, push: &PushKeys) -> Result<PushAnswer, Fault> {
        let plane = self.plane()?;
        self.is_for_us(plane, push)?;
        let mut generation = plane.generation();
        advance(&mut generation, push.generation)?;
        let keys: Vec<_> = push
            .keys
            .iter()
            .map(|key| {
                let (outcome, detail) =
                    match self.take_key(plane, push.generation, &key.id, &key.sealed) {
                        Ok(outcome) => (outcome, why_not(outcome)),
                        Err((outcome, why)) => (outcome, Some(why)),
                    };
                PushedKey { id: key.id.clone(), outcome, detail }
            })
            .collect();
        let answer = PushAnswer { generation: *generation, keys };
        drop(generation);
        let taken = answer.keys.iter().filter(|key| key.outcome == PushOutcome::Taken);
        let taken: BTreeSet<KeyId> = taken.filter_map(|key| key.id.parse().ok()).collect();
        if !taken.is_empty() {
            tracing::info!("{} keys of generation {} were pushed", taken.len(), push.generation);
        }
        self.unlock_waiting(plane, taken);
        Ok(answer)
    }

    /// `DELETE /v1/control/keys/{provider}/{uid}`.
    ///
    /// # Errors
    /// `stale-push` unless the generation is newer than the one that has the key; `in-use` with the names of the VMs that
    /// run with it, unless forced.
    pub fn evict_pushed(&self, id: &str, how: &EvictKey) -> Result<EvictAnswer, Fault> {
        let plane = self.plane()?;
        let id = parse_key(id)?;
        let mut generation = plane.generation();
        // Else a push that was recorded before would bring it back.
        if self.keyring.is_pushed(&id) && how.generation == *generation {
            return Err(stale(format!(
                "the key list of generation {} has key {id}; one without it is newer",
                how.generation
            )));
        }
        let before = *generation;
        advance(&mut generation, how.generation)?;
        let evicted = self.keyring.evict_pushed(&id, how.force).map_err(|users| {
            *generation = before;
            Fault::refused(
                ErrorCode::InUse,
                format!("key {id} is used by {}", users.join(", ")),
                "stop them, or force it: they run on until they are stopped",
            )
        })?;
        if evicted.was_here {
            tracing::info!("key {id} was evicted by the control plane");
        }
        let (was_here, used_by) = (evicted.was_here, evicted.users);
        Ok(EvictAnswer { generation: *generation, was_here, used_by })
    }

    /// `GET /v1/control/vms`.
    ///
    /// # Errors
    /// A refusal when there is no control plane.
    pub fn control_vms(self: &Arc<Self>) -> Result<Vec<VmKeys>, Fault> {
        self.plane()?;
        let keys = |vm: VmInfo| {
            let key_ids: BTreeSet<String> = vm
                .key_ids
                .iter()
                .chain(vm.disks.iter().flat_map(|d| &d.key_ids))
                .cloned()
                .collect();
            let code = vm.lock.as_ref().map(|lock| lock.code);
            VmKeys {
                name: vm.name,
                id: vm.id,
                state: vm.state,
                key_ids: key_ids.into_iter().collect(),
                who: code.map(reason::who),
                lock: vm.lock,
            }
        };
        Ok(self.list_vms().into_iter().map(keys).collect())
    }

    /// Whether keys can be used here.
    #[must_use]
    pub fn crypto_state(&self) -> CryptoState {
        let told = self.plane.as_ref().map(ControlPlane::told);
        match told {
            _ if !self.keyring.providers().is_empty() => CryptoState::Safe,
            None => CryptoState::Incapable,
            Some(0) => CryptoState::Prepared,
            Some(_) => CryptoState::Safe,
        }
    }

    /// The control plane as the status of the host shows it.
    pub(crate) fn control_info(&self) -> Option<ControlInfo> {
        let plane = self.plane.as_ref()?;
        let member = plane.member();
        Some(ControlInfo {
            listen: plane.listen.to_string(),
            cluster: member.cluster().to_owned(),
            name: member.name().to_owned(),
            generation: plane.told(),
            keys: u32::try_from(self.keyring.pushed_ids().len()).unwrap_or(u32::MAX),
        })
    }

    fn plane(&self) -> Result<&ControlPlane, Fault> {
        self.plane.as_ref().ok_or_else(|| {
            Fault::wrong_state(
                "this host takes no keys from a control plane",
                "set [control] in the configuration, and restart hostd",
            )
        })
    }

    /// Whether a push is for this start of this host.
    fn is_for_us(&self, plane: &ControlPlane, push: &PushKeys) -> Result<(), Fault> {
        let host = self.state.host();
        if push.host_id != host {
            let other = push.host_id;
            return Err(stale(format!(
                "the keys are sealed for host {other}; this is host {host}"
            )));
        }
        if push.boot_id != plane.boot {
            return Err(stale("the keys are sealed for another start of this host".into()));
        }
        let count = push.keys.len();
        if count > MAX_PUSHED_AT_ONCE {
            return Err(Fault::invalid(
                format!("the push has {count} keys, the limit is {MAX_PUSHED_AT_ONCE}"),
                "push them one batch after the other",
            ));
        }
        Ok(())
    }

    /// Opens one key and hands it to the keyring.
    fn take_key(
        &self,
        plane: &ControlPlane,
        generation: u64,
        id: &str,
        sealed: &str,
    ) -> Result<PushOutcome, (PushOutcome, String)> {
        let id: KeyId = id.parse().map_err(|e| (PushOutcome::BadId, format!("{e}")))?;
        let refused = |e: KeyError| match e {
            KeyError::Arena(_) => (PushOutcome::NoRoom, e.to_string()),
            _ => (PushOutcome::SealedElsewhere, e.to_string()),
        };
        let sealed: SealedKek = sealed.parse().map_err(refused)?;
        let context = PushContext {
            host: self.state.host().into_bytes(),
            start: plane.boot.into_bytes(),
            key: &id,
            generation,
        };
        let kek = plane.key.open(self.keyring.arena(), &context, &sealed).map_err(refused)?;
        Ok(match self.keyring.take_pushed(&id, kek) {
            Take::Taken => PushOutcome::Taken,
            Take::Present => PushOutcome::Present,
            Take::OtherKey => PushOutcome::OtherKey,
            Take::OwnProvider => PushOutcome::OwnProvider,
            Take::Evicted => PushOutcome::LockedByOperator,
            Take::Full => PushOutcome::NoRoom,
        })
    }

    /// The keys of a VM that only the control plane can bring. One that an operator locked wants none.
    fn wanted_by(&self, vm: &VmInfo) -> Vec<KeyId> {
        if vm.lock.as_ref().is_some_and(|lock| lock.code == LockCode::LockedByOperator) {
            return Vec::new();
        }
        let named = vm.key_ids.iter().chain(vm.disks.iter().flat_map(|disk| &disk.key_ids));
        let ids = named.filter_map(|id| id.parse().ok());
        ids.filter(|id| matches!(self.keyring.unreachable(id), Some(KeyringError::NotPushed(_))))
            .collect()
    }
}

/// A key id from a path or a body.
///
/// # Errors
/// A refusal with code `invalid-argument`.
pub(crate) fn parse_key(id: &str) -> Result<KeyId, Fault> {
    id.parse()
        .map_err(|e: crypto::KeyIdError| Fault::invalid(e.to_string(), "see `coffer key status`"))
}

/// Lets the generation grow.
fn advance(generation: &mut u64, told: u64) -> Result<(), Fault> {
    if told == 0 {
        return Err(Fault::invalid("generation 0 is no state of a key list", "begin with 1"));
    }
    if told < *generation {
        return Err(stale(format!(
            "the key list of generation {told} is older than that of {generation}, which this host knows"
        )));
    }
    *generation = told;
    Ok(())
}

fn stale(message: String) -> Fault {
    let remedy =
        "ask for GET /v1/control/identity again, and seal the keys anew from the newest list";
    Fault::refused(ErrorCode::StalePush, message, remedy)
}

/// Why a key that opened was not taken.
fn why_not(outcome: PushOutcome) -> Option<String> {
    let why = match outcome {
        PushOutcome::OtherKey => "another key is here under this id; evict that first",
        PushOutcome::OwnProvider => {
            "this host has a provider of this name, and fetches its keys itself"
        }
        PushOutcome::LockedByOperator => {
            "an operator of this host locked the VMs that use it (`coffer vm unlock`)"
        }
        PushOutcome::NoRoom => "this host holds as many pushed keys as it can",
        _ => return None,
    };
    Some(why.to_owned())
}

#[cfg(test)]
#[path = "plane_tests.rs"]
mod tests;
