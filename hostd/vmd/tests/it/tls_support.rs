//! Certificates of a small world, a vmd with a TLS port, and a client that does as it is told on both sides of
//! STARTTLS.

use super::process::{Disk, Host, Process, ok};
use super::support::{go_data, option};
use hostd_api::link::{Request, ServeTls, TlsClient};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vmd::nbd::proto::negotiation::REPLY_MAGIC;
use vmd::nbd::tls_settings::PemFiles;

pub(crate) const MIB: u64 = 1024 * 1024;

/// An authority, and the folder in which it leaves what it signs.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority that has signed `server-cert.pem` for this machine.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { dir: tempfile::tempdir().unwrap(), issuer };
        fs::write(authority.path("ca-cert.pem"), authority.issuer.pem()).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        authority.sign("server", params, ExtendedKeyUsagePurpose::ServerAuth);
        authority
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sign(&self, who: &str, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) {
        // QEMU wants both of its own certificates.
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{who}-cert.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{who}-key.pem")), key.serialize_pem()).unwrap();
    }

    /// A certificate of a client called `name`, a DNS name, or a URI when it looks like one.
    pub(crate) fn client(&self, name: &str) -> Identity {
        self.client_until(name, 4000)
    }

    /// The same, valid to the end of `year`.
    pub(crate) fn client_until(&self, name: &str, year: i32) -> Identity {
        self.client_with(name, 2000..=year, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same, valid in `years`, and for `usage`.
    pub(crate) fn client_with(
        &self,
        name: &str,
        years: RangeInclusive<i32>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the common name is nobody's");
        params.subject_alt_names = vec![if name.contains(':') {
            SanType::URI(name.try_into().unwrap())
        } else {
            SanType::DnsName(name.try_into().unwrap())
        }];
        params.not_before = rcgen::date_time_ymd(*years.start(), 1, 1);
        params.not_after = rcgen::date_time_ymd(*years.end(), 12, 31);
        self.sign("client", params, usage);
        let file = |name: &str| fs::read(self.path(name)).unwrap();
        Identity {
            chain: vec![CertificateDer::from_pem_slice(&file("client-cert.pem")).unwrap()],
            key: PrivateKeyDer::from_pem_slice(&file("client-key.pem")).unwrap(),
        }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    fn open(&self, name: &str) -> OwnedFd {
        File::open(self.path(name)).unwrap().into()
    }

    /// The server's files, as hostd opens them.
    pub(crate) fn files(&self) -> PemFiles {
        PemFiles {
            certificate: self.open("server-cert.pem"),
            key: self.open("server-key.pem"),
            authorities: self.open("ca-cert.pem"),
        }
    }
}

/// A certificate with its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn copy(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// A client's settings: whom it trusts, who it says to be, and with which versions.
pub(crate) fn config(
    roots: RootCertStore,
    identity: Option<Identity>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

/// A vmd with the disks `root` and `data`, and a TLS port where `host-2` may open `root` and `backup` both.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) vmd: Process,
    pub(crate) disks: [Disk; 2],
    pub(crate) address: SocketAddr,
    pub(crate) host: Host,
    listener: TcpListener,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_connections(16)
    }

    pub(crate) fn with_connections(max_connections: u32) -> Self {
        let host = Host::new();
        let vmd = host.start();
        let disks = [host.disk("root", 8 * MIB), host.disk("data", MIB)];
        disks.iter().for_each(|disk| ok(&vmd.attach(disk, false)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let authority = Authority::new();
        let world = Self { authority, vmd, disks, address, host, listener };
        ok(&world.serve(&[("host-2", &["root"]), ("backup", &["*"])], max_connections));
        world
    }

    pub(crate) fn serve(
        &self,
        clients: &[(&str, &[&str])],
        max_connections: u32,
    ) -> hostd_api::link::Response {
        let client = |(name, disks): &(&str, &[&str])| TlsClient {
            name: (*name).into(),
            disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
        };
        let clients = clients.iter().map(client).collect();
        let request =
            Request::ServeTls(ServeTls { address: self.address, clients, max_connections });
        let PemFiles { certificate, key, authorities } = self.authority.files();
        let fds = [self.listener.as_fd(), certificate.as_fd(), key.as_fd(), authorities.as_fd()];
        self.vmd.link.call(&request, &fds).unwrap().0
    }

    pub(crate) fn connect(&self) -> Peer<TcpStream> {
        Peer::connect(self.address)
    }

    /// A client called `name` under TLS, with its handshake still to come.
    pub(crate) fn client(&self, name: &str) -> Peer<Tls> {
        let identity = Some(self.authority.client(name));
        self.connect()
            .encrypted(config(self.authority.roots(), identity, rustls::ALL_VERSIONS))
            .unwrap()
    }

    /// Folder with the files as libnbd and QEMU want them, for a client called `name`.
    pub(crate) fn folder(&self, name: &str) -> &Path {
        self.authority.client(name);
        self.authority.dir.path()
    }

    pub(crate) fn clients(&self) -> u32 {
        self.vmd.status().tls.unwrap().clients
    }
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One client; plain or not.
pub(crate) struct Peer<S> {
    pub(crate) stream: S,
}

impl Peer<TcpStream> {
    /// Connects, and takes the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut peer = Self { stream };
        assert_eq!(&peer.receive(18)[..], b"NBDMAGICIHAVEOPT\0\x03");
        peer.send(&3u32.to_be_bytes());
        peer
    }

    /// STARTTLS and the TLS handshake. With TLS 1.3 a server that refuses the client says so only later.
    pub(crate) fn encrypted(mut self, config: Arc<ClientConfig>) -> std::io::Result<Peer<Tls>> {
        self.send(&option(5, &[]));
        assert_eq!(self.option_reply(), (5, 1, vec![]));
        self.shake_hands(config)
    }

    /// The TLS handshake alone.
    pub(crate) fn shake_hands(self, config: Arc<ClientConfig>) -> std::io::Result<Peer<Tls>> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut session = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        let mut stream = self.stream;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Peer { stream: StreamOwned::new(session, stream) })
    }
}

impl<S: Read + Write> Peer<S> {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    pub(crate) fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.stream.read_exact(&mut out).unwrap();
        out
    }

    fn be32(&mut self) -> u32 {
        u32::from_be_bytes(self.receive(4).try_into().unwrap())
    }

    /// Option, kind and data of one option reply.
    pub(crate) fn option_reply(&mut self) -> (u32, u32, Vec<u8>) {
        assert_eq!(self.receive(8), REPLY_MAGIC.to_be_bytes());
        let (option, kind, length) = (self.be32(), self.be32(), self.be32());
        (option, kind, self.receive(usize::try_from(length).unwrap()))
    }

    /// Sends an option and takes the kind of the only reply.
    pub(crate) fn ask(&mut self, number: u32, data: &[u8]) -> u32 {
        self.send(&option(number, data));
        let (option, kind, _) = self.option_reply();
        assert_eq!(option, number);
        kind
    }

    /// GO; the size of the export, or the kind of the refusal.
    pub(crate) fn go(&mut self, name: &str) -> Result<u64, u32> {
        self.send(&option(7, &go_data(name, &[])));
        match self.option_reply() {
            (7, 3, info) => {
                assert_eq!(self.option_reply(), (7, 1, vec![]));
                Ok(u64::from_be_bytes(info[2..10].try_into().unwrap()))
            }
            (7, kind, _) => Err(kind),
            other => panic!("{other:?}"),
        }
    }

    /// Names that LIST gives.
    pub(crate) fn list(&mut self) -> Vec<String> {
        self.send(&option(3, &[]));
        let mut names = Vec::new();
        loop {
            match self.option_reply() {
                (3, 2, data) => names.push(String::from_utf8(data[4..].to_vec()).unwrap()),
                (3, 1, _) => return names,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether the server has closed and said nothing more. One that is merely silent has not.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.stream.read(&mut [0; 1]).map_or_else(|e| !is_silence(&e), |read| read == 0)
    }
}

/// Whether a read failed because nothing came in time.
pub(crate) fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
