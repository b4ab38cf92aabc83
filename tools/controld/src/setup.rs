//! The first start: the authority, this controld's certificate, and the first administrator.
//!
//! Owns the files that `controld init` makes; never replaces one. Must not serve anything.

use crate::config::Config;
use crate::inventory::Name;
use crate::pki::{Ca, CaError, Member, Role, write_new};
use crate::rights::{Binding, Rights, RightsError, Scope};
use crate::store::{EmbeddedStore, EtcdStore, Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Why nothing was set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Certificates.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rights.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// The folder cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// SHA-256 of the authority's certificate.
    pub ca: String,
    /// Certificate and key of the administrator.
    pub admin: (PathBuf, PathBuf),
}

/// Certificate and key of this controld.
#[must_use]
pub fn own_files(config: &Config) -> (PathBuf, PathBuf) {
    (config.state_dir.join("controld.pem"), config.state_dir.join("controld.key"))
}

/// The store of the configuration.
///
/// # Errors
/// [`StoreError`].
pub fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config.etcd_settings() {
        Some(settings) => Arc::new(EtcdStore::open(&settings)?),
        None => Arc::new(EmbeddedStore::open(&config.state_dir.join("store.redb"))?),
    })
}

/// Makes the authority unless one is given, the certificate of this controld, and an administrator's.
///
/// # Errors
/// [`SetupError`]; files that were made before stay.
pub fn init(config: &Config, admin: &Name, now: u64) -> Result<Made, SetupError> {
    make_folder(&config.state_dir)?;
    let (certificate, key) = config.ca_files();
    let ca = if config.ca.is_some() || certificate.exists() {
        Ca::open(&certificate, &key)?
    } else {
        Ca::make(&certificate, &key, &config.site, now)?
    };
    let member = |role, name: &Name| Member { site: config.site.clone(), role, name: name.clone() };
    let own = ca.pair(&member(Role::Controld, &config.name), &config.names, now)?;
    let (own_certificate, own_key) = own_files(config);
    write_new(&own_key, own.key.as_bytes(), 0o600)?;
    write_new(&own_certificate, own.certificate.as_bytes(), 0o644)?;
    let user = member(Role::User, admin);
    let pair = ca.pair(&user, &[], now)?;
    let admin_files = (
        config.state_dir.join(format!("{admin}.pem")),
        config.state_dir.join(format!("{admin}.key")),
    );
    write_new(&admin_files.1, pair.key.as_bytes(), 0o600)?;
    write_new(&admin_files.0, pair.certificate.as_bytes(), 0o644)?;
    let role =
        "administrator".parse().map_err(|_| RightsError::NotFound("administrator".into()))?;
    let subject = format!("uri:{}", user.uri());
    let binding = Binding { subject, name: admin.clone(), role, scope: Scope::Everything };
    Rights::new(open_store(config)?).bind(&binding)?;
    Ok(Made { ca: ca.sha256(), admin: admin_files })
}

fn make_folder(path: &Path) -> Result<(), SetupError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| SetupError::Folder { path: path.to_owned(), source })
}
