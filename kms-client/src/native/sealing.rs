//! The TPM seal of a key file: a second way to its root key, for one machine, beside the passphrase.
//!
//! Owns what is sealed and where it lies: a random KEK that wraps the root key is kept by the TPM, and the wrap stands in a file
//! of its own, so that the key file and its backups stay what they are. Flow: [`NativeProvider::seal_to_tpm`] makes a
//! seal and tries it before it counts; [`NativeProvider::open_sealed`] opens the key file with it.

use super::file::{self, Place, with_suffix};
use super::seal_file::{self, Parts, Seal};
use super::tpm::{Address, PcrSet, Tpm, TpmFault};
use super::{NativeProvider, OpenedBy, format};
use crate::{Clock, KmsError};
use crypto::{Arena, Kek, RootKey};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the name of a seal has behind that of the key file.
const SUFFIX: &str = ".tpm";

/// Where the TPM is, and how long it may take.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Its place.
    pub address: Address,
    /// Time for all commands of one sealing or unsealing.
    pub wait: Duration,
}

impl Keeper {
    /// The time that a TPM may take: sealing is a dozen commands, of which the slow ones take a second on slow hardware, and
    /// others may use it as well.
    pub const WAIT: Duration = Duration::from_secs(20);

    fn open(&self) -> Result<Tpm<'static>, TpmFault> {
        self.address.open(self.wait)
    }
}

/// How the seal of a key file is.
#[derive(Debug)]
pub struct SealStatus {
    /// When it was made, seconds since 1970, as far as it can be read.
    pub sealed_at: Option<u64>,
    /// The PCRs that it depends on.
    pub pcrs: Vec<u8>,
    /// Why it does not open the key file now; `None` when it does.
    pub fault: Option<KmsError>,
}

/// Where the seal of a key file is.
#[must_use]
pub fn seal_path(key_file: &Path) -> PathBuf {
    with_suffix(key_file, SUFFIX)
}

/// Tries the seal of a key file; `None` when there is none. Changes nothing, and needs no lock.
///
/// # Errors
/// [`KmsError::Config`] and [`KmsError::Io`] when the seal cannot be read.
pub fn seal_status(
    key_file: &Path,
    keeper: &Keeper,
    arena: &Arena,
) -> Result<Option<SealStatus>, KmsError> {
    let path = seal_path(key_file);
    let Some(text) = unless_missing(file::read(&path))? else { return Ok(None) };
    let origin = path.display().to_string();
    let seal = match Seal::read(&text, &origin) {
        Err(fault) => {
            return Ok(Some(SealStatus { sealed_at: None, pcrs: Vec::new(), fault: Some(fault) }));
        }
        Ok(seal) => seal,
    };
    let sealed_at = Some(seal.sealed_at());
    let pcrs = seal.sealed.pcrs.iter().map(|value| value.pcr).collect();
    let opened = open(seal, &origin, keeper, arena)
        .and_then(|root| fits(&file::read(key_file)?, key_file, &origin, root, arena));
    Ok(Some(SealStatus { sealed_at, pcrs, fault: opened.err() }))
}

/// Removes the seal of a key file that no provider has open.
///
/// # Errors
/// [`KmsError::NotSealed`], [`KmsError::InUse`], [`KmsError::Io`].
pub fn remove_seal(key_file: &Path) -> Result<(), KmsError> {
    remove(&Place::claim(key_file)?)
}

impl NativeProvider {
    /// Opens the key file at `path` by its TPM seal; `None` when it has none.
    ///
    /// # Errors
    /// [`KmsError::SealClosed`], [`KmsError::SealDamaged`], [`KmsError::SealOfAnother`]: the passphrase may open it all the
    /// same. Else those of [`NativeProvider::open`].
    pub fn open_sealed(
        path: &Path,
        keeper: &Keeper,
        name: &str,
        demo: bool,
        clock: Clock,
        arena: &Arena,
    ) -> Result<Option<Self>, KmsError> {
        if seal_path(path).symlink_metadata().is_err() {
            return Ok(None);
        }
        let place = Place::claim(path)?;
        let beside = place.beside(SUFFIX);
        let Some(text) = unless_missing(beside.read())? else { return Ok(None) };
        let origin = beside.origin();
        let root = open(Seal::read(&text, &origin)?, &origin, keeper, arena)?;
        let text = place.read()?;
        let opened = fits(&text, path, &origin, root, arena)?;
        opened.body.must_be_of(name, &place.origin())?;
        Ok(Some(Self::of(name, demo, clock, place, (opened, text), OpenedBy::Tpm)))
    }

    /// Seals the root key to a TPM, and to the values that `pcrs` have now; an older seal is replaced.
    ///
    /// # Errors
    /// [`KmsError::Tpm`], [`KmsError::SealClosed`] when the TPM does not give back what it took; then an older seal is as it
    /// was. [`KmsError::Key`], [`KmsError::Io`], [`KmsError::NotDurable`].
    pub fn seal_to_tpm(
        &self,
        keeper: &Keeper,
        pcrs: PcrSet,
        arena: &Arena,
    ) -> Result<(), KmsError> {
        let _one_at_a_time = self.writing();
        let kek = Kek::generate(arena)?;
        let sealed = keeper.open().and_then(|mut tpm| tpm.seal(arena, &kek, pcrs));
        let sealed =
            sealed.map_err(|fault| KmsError::Tpm { address: keeper.address.to_string(), fault })?;
        let sealed_at = (self.clock)();
        let parts = Parts { provider: &self.name, sealed_at, sealed: &sealed };
        let text = seal_file::write(&parts, &kek, &self.root, arena)?;
        drop(kek);
        let place = self.place.beside(SUFFIX);
        let origin = place.origin();
        // Tried before it counts: by the way that the next start goes.
        open(Seal::read(&text, &origin)?, &origin, keeper, arena)?;
        place.replace(&text)?;
        self.alarms().clear();
        Ok(())
    }

    /// Removes the TPM seal.
    ///
    /// # Errors
    /// [`KmsError::NotSealed`], [`KmsError::Io`].
    pub fn remove_seal(&self) -> Result<(), KmsError> {
        let _one_at_a_time = self.writing();
        remove(&self.place)
    }
}

fn remove(key_file: &Place) -> Result<(), KmsError> {
    let seal = key_file.beside(SUFFIX);
    unless_missing(seal.remove())?.ok_or_else(|| KmsError::NotSealed { origin: seal.origin() })
}

/// The root key by the TPM.
fn open(seal: Seal<'_>, origin: &str, keeper: &Keeper, arena: &Arena) -> Result<RootKey, KmsError> {
    let kek = keeper.open().and_then(|mut tpm| tpm.unseal(arena, &seal.sealed));
    let kek = kek.map_err(|fault| KmsError::SealClosed {
        origin: origin.to_owned(),
        address: keeper.address.to_string(),
        fault,
    })?;
    seal.root(&kek, arena)
}

/// The key file opened by a root key from a seal.
fn fits(
    text: &str,
    key_file: &Path,
    origin: &str,
    root: RootKey,
    arena: &Arena,
) -> Result<format::Unsealed, KmsError> {
    let key_file = key_file.display().to_string();
    let opened = format::unseal_with(text, &key_file, root, arena)?;
    opened.ok_or_else(|| KmsError::SealOfAnother { origin: origin.to_owned(), key_file })
}

fn unless_missing<T>(done: Result<T, KmsError>) -> Result<Option<T>, KmsError> {
    match done {
        Err(KmsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}
