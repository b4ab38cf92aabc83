//! libnbd and QEMU at the TLS port of the real, confined binary. What is not installed is skipped, visibly.

use super::interop::{fails, installed, run};
use super::tls_support::{MIB, World};

#[test]
fn libnbd_lists_copies_and_is_turned_away() {
    let world = World::new();
    if !installed("nbdinfo") || !installed("nbdcopy") {
        return;
    }
    let port = world.address.port();
    let uri = |disk: &str, folder: &std::path::Path| {
        format!("nbds://localhost:{port}/{disk}?tls-certificates={}", folder.display())
    };
    let folder = world.folder("host-2");
    assert_eq!(run("nbdinfo", &["--size", &uri("root", folder)]).trim(), (8 * MIB).to_string());
    let list = run("nbdinfo", &["--list", &uri("", folder)]);
    assert!(list.contains("\"root\"") && !list.contains("\"data\""), "{list}");
    assert!(fails("nbdinfo", &["--size", &uri("data", folder)]));
    assert!(fails("nbdinfo", &["--size", &format!("nbd://localhost:{port}/root")]));
    let (source, copy) = (world.host.dir.path().join("source"), world.host.dir.path().join("copy"));
    let bytes: Vec<u8> = (0..8 * MIB).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    std::fs::write(&source, &bytes).unwrap();
    let (source, copied) = (source.to_str().unwrap(), copy.to_str().unwrap());
    run("nbdcopy", &["--flush", source, &uri("root", folder)]);
    run("nbdcopy", &[&uri("root", folder), copied]);
    assert!(std::fs::read(&copy).unwrap() == bytes);
    let stranger = world.folder("host-3");
    assert!(fails("nbdinfo", &["--size", &uri("root", stranger)]));
}

#[test]
fn qemu_reads_and_writes_with_x509_credentials() {
    let world = World::new();
    if !installed("qemu-io") || !installed("qemu-img") {
        return;
    }
    let credentials =
        format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", world.folder("backup").display());
    let image = |disk: &str| {
        format!(
            "driver=nbd,host=127.0.0.1,port={},export={disk},tls-creds=tls0,tls-hostname=localhost",
            world.address.port()
        )
    };
    let root = image("root");
    let io = |commands: &[&str]| {
        let mut arguments = vec!["--object", &credentials, "--image-opts"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        arguments.push(&root);
        run("qemu-io", &arguments)
    };
    let wrote =
        io(&["write -P 0x5a 0 2M", "write -f -P 0x17 2097152 512", "write -z 1M 64k", "flush"]);
    assert_eq!(wrote.matches("wrote").count(), 3, "{wrote}");
    let read = io(&["read -P 0x5a 0 1M", "read -P 0 1M 64k", "read -P 0x17 2M 512"]);
    assert!(!read.contains("failed"), "{read}");
    let info = run("qemu-img", &["info", "--object", &credentials, "--image-opts", &image("data")]);
    assert!(info.contains("1 MiB"), "{info}");
    assert!(fails("qemu-img", &["info", "--object", &credentials, "--image-opts", &image("none")]));
    let clear = format!("nbd://127.0.0.1:{}/root", world.address.port());
    assert!(fails("qemu-img", &["info", &clear]));
}
