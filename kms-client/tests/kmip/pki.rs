//! Certificates of a small world: an authority, servers and clients, with every fault that a certificate can have.

use kms_client::kmip::tls::{Identity, TlsFiles, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An authority, and the folder in which it leaves what it signs.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        // Two authorities of one name would be told apart by their signatures only.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { dir: tempfile::tempdir().unwrap(), issuer };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority.server("server", &["localhost", "127.0.0.1"], 4000);
        authority.client("client", 4000);
        authority
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What signs.
    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    /// The authority's certificate.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// `WHO.pem` and `WHO.key` of a server for these names, valid to the end of `year`.
    pub(crate) fn server(&self, who: &str, names: &[&str], year: i32) {
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            });
        }
        self.sign(who, params, ExtendedKeyUsagePurpose::ServerAuth, year);
    }

    /// The same as `server`, with an RSA key.
    pub(crate) fn rsa_server(&self, who: &str) {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        self.leave(who, &params, &key);
    }

    /// The same of a client.
    pub(crate) fn client(&self, who: &str, year: i32) {
        self.sign(who, CertificateParams::default(), ExtendedKeyUsagePurpose::ClientAuth, year);
    }

    fn sign(
        &self,
        who: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        year: i32,
    ) {
        params.distinguished_name.push(DnType::CommonName, who);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        self.leave(who, &params, &KeyPair::generate().unwrap());
    }

    fn leave(&self, who: &str, params: &CertificateParams, key: &KeyPair) {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{who}.pem")), certificate.pem()).unwrap();
        private(&self.path(&format!("{who}.key")), &key.serialize_pem());
    }

    /// Certificate and key of `who`.
    pub(crate) fn pair(&self, who: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let file = |name: String| fs::read(self.path(&name)).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&file(format!("{who}.pem"))).unwrap()];
        (chain, PrivateKeyDer::from_pem_slice(&file(format!("{who}.key"))).unwrap())
    }

    pub(crate) fn files(&self, who: &str) -> TlsFiles {
        TlsFiles {
            certificate: self.path(&format!("{who}.pem")),
            key: self.path(&format!("{who}.key")),
            trust: Trust::Authority(self.path("ca.pem")),
        }
    }

    /// A client that trusts this authority.
    pub(crate) fn identity(&self, who: &str) -> Arc<Identity> {
        Arc::new(Identity::new(self.files(who), now))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Writes a file that only its owner may read.
pub(crate) fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
