//! The network port of a VM as an operator and a client on another host see it.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tests::command::{self, Said};
use tests::host::Host;
use tests::{needs, wait};

/// A host with certificates, and the files of a client called `qemu-2`, which may open `web01/root`.
struct World {
    host: Host,
    ports: (u16, u16),
}

impl World {
    fn new() -> Self {
        let mut host = Host::prepare(|scratch| scratch.join("store"));
        let ports = free_ports();
        let files = host.scratch().join("tls");
        fs::create_dir(&files).unwrap();
        certificates(&files);
        let path = |name: &str| files.join(name).display().to_string();
        host.options.config = format!(
            "[tls]\nlisten = \"127.0.0.1\"\nports = \"{}-{}\"\ncertificate = {:?}\nkey = {:?}\n\
             client_ca = {:?}\n[[tls.client]]\nname = \"qemu-2\"\ndisks = [\"web01/root\"]\n",
            ports.0,
            ports.1,
            path("server-cert.pem"),
            path("server-key.pem"),
            path("ca-cert.pem"),
        );
        host.write_config();
        host.init();
        host.up();
        for vm in ["web01", "web02"] {
            host.coffer(&["vm", "create", vm]).ok();
        }
        for disk in ["root", "data"] {
            host.coffer(&["disk", "create", "web01", disk, "--size", "8M"]).ok();
        }
        Self { host, ports }
    }

    fn files(&self) -> PathBuf {
        self.host.scratch().join("tls")
    }

    fn show(&self, vm: &str) -> serde_json::Value {
        self.host.json(&["vm", "show", vm])
    }

    fn open(&self) -> bool {
        self.show("web01")["tls"]["open"] == true
    }

    /// qemu-io at a disk of web01, as the client.
    fn qemu_io(&self, disk: &str, commands: &[&str]) -> Said {
        let credentials =
            format!("tls-creds-x509,id=t,endpoint=client,dir={}", self.files().display());
        let image =
            format!("driver=nbd,host=127.0.0.1,port={},export={disk},tls-creds=t", self.ports.0);
        let mut args = vec!["--object", &credentials, "--image-opts"];
        commands.iter().for_each(|command| args.extend(["-c", command]));
        args.push(&image);
        command::run("qemu-io", &args, wait::STEP * 2)
    }
}

/// Two neighbouring ports that nobody has now.
fn free_ports() -> (u16, u16) {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = first.local_addr().unwrap().port();
        let second = first.saturating_add(1);
        if TcpListener::bind(("127.0.0.1", second)).is_ok() {
            return (first, second);
        }
    }
}

/// The files of server and client, under the names that QEMU looks for.
fn certificates(folder: &std::path::Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca-cert.pem"), issuer.pem()).unwrap();
    let whose = [
        ("server", SanType::IpAddress([127, 0, 0, 1].into()), ExtendedKeyUsagePurpose::ServerAuth),
        (
            "client",
            SanType::DnsName("qemu-2".try_into().unwrap()),
            ExtendedKeyUsagePurpose::ClientAuth,
        ),
    ];
    for (who, name, usage) in whose {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{who}-cert.pem")), certificate.pem()).unwrap();
        let path = folder.join(format!("{who}-key.pem"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_vm_has_a_network_port_through_restarts_until_it_is_taken_away() {
    needs!(Root, Program("qemu-io"));
    let mut world = World::new();
    assert!(world.show("web01").get("tls").is_none());
    let set = world.host.json(&["vm", "tls", "web01", "--on"]);
    let address = format!("127.0.0.1:{}", world.ports.0);
    assert_eq!(set["tls"]["address"], address.as_str());
    assert!(!world.open(), "a VM that does not run has no open port");
    for disk in ["root", "data"] {
        world.host.coffer(&["disk", "attach", "web01", disk]).ok();
    }
    assert!(world.open());
    world.qemu_io("root", &["write -P 0x42 0 1M", "flush"]).ok();
    assert_ne!(world.qemu_io("data", &["read 0 512"]).code, 0, "a disk of somebody else");
    assert!(world.host.log().contains("may not open disk \"data\""), "the log says who tried");

    // The vmd dies: the port is back with the new one.
    world.host.kill_vmds();
    wait::until_true("the vmd is back", || world.open() && !world.host.vmds().is_empty());
    world.qemu_io("root", &["read -P 0x42 0 1M"]).ok();
    // hostd dies: the port stays open meanwhile, and the next hostd has it.
    let vmds = world.host.vmds();
    world.host.kill();
    world.qemu_io("root", &["read -P 0x42 0 1M", "write -P 0x43 0 512"]).ok();
    world.host.up();
    assert!(world.open());
    assert_eq!(world.host.vmds(), vmds);
    world.host.kill_vmds();
    wait::until_true("the vmd is back", || world.open() && !world.host.vmds().is_empty());
    world.qemu_io("root", &["read -P 0x43 0 512"]).ok();

    world.host.coffer(&["vm", "tls", "web01", "--off"]).ok();
    assert!(world.show("web01").get("tls").is_none());
    assert_ne!(world.qemu_io("root", &["read 0 512"]).code, 0);
    // The local sockets never noticed.
    command::ok(
        "qemu-io",
        &["-f", "raw", "-c", "read -P 0x42 1k 512", &world.host.uri("web01", "root")],
    );
}

#[test]
fn what_is_wrong_with_a_port_is_said_and_the_vm_runs() {
    needs!(Root);
    let mut world = World::new();
    let (first, second) = (world.ports.0.to_string(), world.ports.1.to_string());
    world.host.coffer(&["vm", "tls", "web01", "--on", "--port", &first]).ok();
    world
        .host
        .coffer(&["vm", "tls", "web02", "--on", "--port", &first])
        .refused(11, &["another VM"]);
    world.host.coffer(&["vm", "tls", "web02", "--on", "--port", "1"]).refused(2, &["not among"]);
    assert!(world.show("web02").get("tls").is_none());
    assert_eq!(
        world.host.json(&["vm", "tls", "web02", "--on"])["tls"]["address"],
        format!("127.0.0.1:{second}").as_str()
    );
    // A key that others can read: the VM runs, its port does not open, and the host says why.
    let key = world.files().join("server-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    world.host.coffer(&["disk", "attach", "web01", "root"]).ok();
    assert!(!world.open());
    assert!(world.host.coffer(&["host", "status"]).ok().contains("can be read by others"));
    world.host.coffer(&["vm", "tls", "web01", "--on"]).refused(6, &["server-key.pem", "chmod 600"]);
    assert!(world.show("web01")["tls"]["address"].is_string(), "the setting stays as it was");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    world.host.coffer(&["vm", "tls", "web01", "--on"]).ok();
    assert!(world.open());
    // Another key than that of the certificate is found by the vmd.
    fs::copy(world.files().join("client-key.pem"), &key).unwrap();
    world.host.coffer(&["vm", "tls", "web01", "--on"]).refused(2, &["private key"]);
    assert!(world.open(), "the old settings stay in force");
    // A port that somebody else has.
    let taken = TcpListener::bind(("127.0.0.1", world.ports.1)).unwrap();
    world.host.coffer(&["disk", "create", "web02", "root", "--size", "1M"]).ok();
    world.host.coffer(&["disk", "attach", "web02", "root"]).ok();
    assert_eq!(world.show("web02")["tls"]["open"], false);
    assert!(world.host.coffer(&["host", "status"]).ok().contains("cannot listen on"));
    drop(taken);
    // Without a certificate in the configuration nothing can be switched on.
    world.host.options.config = String::new();
    world.host.write_config();
    world.host.stop();
    world.host.up();
    world.host.coffer(&["vm", "tls", "web01", "--on"]).refused(6, &["no certificate", "[tls]"]);
}
