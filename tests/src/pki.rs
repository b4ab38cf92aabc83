//! Authorities and members of clusters: real certificates in files, made for one test.
//!
//! Owns the making; must not know what they are used for. Also a part of the unit tests of hostd and
//! cluster.

use cluster::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An authority that signs for members of clusters.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// An authority whose files lie in a new folder; two authorities have nothing in common.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        fs::create_dir(folder).expect("a folder of certificates");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = folder.display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        fs::write(folder.join("ca.pem"), issuer.pem()).expect("its certificate");
        Self { folder: folder.to_owned(), issuer }
    }

    /// The files of a member with this URI as its name; of none without one.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn member(&self, uri: Option<&str>) -> TlsFiles {
        let mut params = CertificateParams::default();
        let name = uri.map(|uri| SanType::URI(uri.try_into().expect("a URI")));
        params.subject_alt_names.extend(name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let name: String = uri.unwrap_or("nobody").replace(|c: char| !c.is_alphanumeric(), "-");
        let path = |end: &str| self.folder.join(format!("{name}.{end}"));
        let files =
            TlsFiles { certificate: path("pem"), key: path("key"), ca: self.folder.join("ca.pem") };
        fs::write(&files.certificate, certificate.pem()).expect("a certificate");
        fs::write(&files.key, key.serialize_pem()).expect("a key");
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("its mode");
        files
    }
}
