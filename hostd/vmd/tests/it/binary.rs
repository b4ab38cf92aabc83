//! The real binary: its life on the link, its confinement, its death.

use super::process::{Host, await_free_lock, lock_is_free, ok, report};
use super::support::{Client, request};
use hostd_api::error::ErrorCode;
use hostd_api::link::{MAX_DISKS, Request, Response, ServeHome};
use hostd_api::types::{HomeMode, HomeNames};
use rustix::net::SendFlags;
use rustix::process::Signal;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

pub(crate) fn connect(socket: &std::path::Path) -> Client {
    let mut client = Client::new(UnixStream::connect(socket).unwrap());
    client.greet(3);
    client.send(&super::support::option(7, &super::support::go_data("", &[])));
    assert_eq!(client.option_reply().1, 3);
    assert_eq!(client.option_reply().1, 1);
    client
}

pub(crate) fn code(response: Response) -> ErrorCode {
    match response {
        Response::Failed(failure) => {
            assert!(!failure.message.is_empty() && !failure.remedy.is_empty());
            failure.code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_life_from_setup_to_stop() {
    let host = Host::new();
    let mut vmd = host.spawn();
    let hello = report(vmd.ask(&Request::Hello));
    assert_eq!((hello.pid, hello.id, hello.vm), (vmd.pid(), None, None));
    let (root, data) = (host.disk("root", 8 * MIB), host.disk("data", MIB));
    assert_eq!(code(vmd.attach(&root, false)), ErrorCode::WrongState);
    assert_eq!(code(vmd.ask(&Request::Adopt { polling: false })), ErrorCode::WrongState);

    let set_up = vmd.set_up(&host);
    assert_eq!(set_up.vm.as_deref(), Some("web01"));
    ok(&vmd.attach(&root, false));
    ok(&vmd.attach(&data, true));
    assert_eq!(code(vmd.attach(&root, false)), ErrorCode::AlreadyExists);

    let mut client = connect(&root.socket);
    assert_eq!(client.write(4096, &[7; 8192]), 0);
    assert_eq!(client.read(4096, 512).unwrap(), [7; 512]);
    assert_eq!(connect(&data.socket).write(0, &[1; 512]), 1);
    let status = vmd.status();
    let disks: Vec<_> = status.disks.iter().map(|d| (d.disk.as_str(), d.read_only)).collect();
    assert_eq!(disks, [("data", true), ("root", false)]);
    let served = &status.disks[1];
    assert_eq!((served.clients, served.bytes_read, served.bytes_written), (1, 512, 8192));
    assert_eq!(served.socket, root.socket);
    let payload = std::fs::read(&root.payload).unwrap();
    assert!(payload[4096..12288] != [7; 8192] && payload[4096..12288] != [0; 8192]);

    let detach = |name: &str| vmd.ask(&Request::Detach { disk: name.into() });
    ok(&detach("root"));
    assert!(client.is_at_end());
    assert_eq!(code(detach("root")), ErrorCode::NotFound);
    assert_eq!(code(detach("../root")), ErrorCode::NotFound);
    ok(&vmd.attach(&root, true));
    assert_eq!(connect(&root.socket).read(4096, 8192).unwrap(), [7; 8192]);

    ok(&vmd.ask(&Request::Stop));
    assert!(vmd.end().success());
    assert!(lock_is_free(&host.folder()));
}

#[test]
fn nonsense_on_the_link_is_refused_and_nothing_breaks() {
    let host = Host::new();
    let vmd = host.start();
    for text in [&b"{"[..], b"\xff\xff", br#"{"do":"fly"}"#, br#"{"do":"detach"}"#, &[b' '; 70_000]]
    {
        rustix::net::send(&vmd.link, text, SendFlags::NOSIGNAL).unwrap();
        let (response, _) = vmd.link.recv::<Response>().unwrap().unwrap();
        assert_eq!(code(response), ErrorCode::InvalidArgument);
    }
    // Descriptors too few, too many, or of the wrong kind.
    let disk = host.disk("root", MIB);
    let file = std::fs::File::open(host.folder()).unwrap();
    let fds = [file.as_fd(), file.as_fd(), file.as_fd()];
    let attach = Request::Attach(hostd_api::link::Attach {
        disk: "root".into(),
        id: host.id,
        size: MIB,
        unit: 4096,
        cache: hostd_api::types::CacheMode::Writeback,
        read_only: false,
        socket: disk.socket.clone(),
    });
    let home = Request::ServeHome(ServeHome {
        mountpoint: "/nowhere".into(),
        mode: HomeMode::Shared,
        names: HomeNames::Plain,
    });
    let null = std::fs::File::open("/dev/null").unwrap();
    let wrong = [null.as_fd(), null.as_fd(), null.as_fd()];
    for (request, fds) in [
        (&attach, &fds[..2]),
        (&attach, &[]),
        (&attach, &fds),
        (&attach, &wrong),
        (&Request::Status, &fds[..1]),
        (&home, &fds[..1]),
        (&home, &wrong),
    ] {
        let (response, _) = vmd.link.call(request, fds).unwrap();
        assert_eq!(code(response), ErrorCode::InvalidArgument);
    }
    // A folder would lead out of the root of the vmd.
    match vmd.link.call(&home, &[null.as_fd(), file.as_fd()]).unwrap().0 {
        Response::Failed(failure) => assert!(failure.message.contains("folder"), "{failure:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(code(vmd.ask(&Request::StopHome)), ErrorCode::WrongState);
    assert_eq!(code(vmd.set_up_with(&host, &null)), ErrorCode::WrongState);
    ok(&vmd.attach(&disk, false));
    assert_eq!(connect(&disk.socket).read(0, 512).unwrap(), [0; 512]);
}

#[test]
fn a_payload_that_was_cut_is_damaged() {
    let host = Host::new();
    let vmd = host.start();
    let disk = host.disk("root", MIB);
    std::fs::File::options().write(true).open(&disk.payload).unwrap().set_len(MIB - 1).unwrap();
    assert_eq!(code(vmd.attach(&disk, false)), ErrorCode::Damaged);
    assert!(vmd.status().disks.is_empty());
}

#[test]
fn as_many_disks_as_can_be_adopted_and_no_more() {
    let host = Host::new();
    let vmd = host.start();
    let size = 64 * 1024;
    let disks: Vec<_> = (0..=MAX_DISKS).map(|i| host.disk(&format!("disk{i:03}"), size)).collect();
    let (last, served) = disks.split_last().unwrap();
    served.iter().for_each(|disk| ok(&vmd.attach(disk, false)));
    assert_eq!(code(vmd.attach(last, false)), ErrorCode::HostLimit);
    // All at the same time: every disk has a client that stays, and keeps what was written to it.
    let mut clients: Vec<_> = served.iter().map(|disk| connect(&disk.socket)).collect();
    let content = |number: usize| vec![u8::try_from(number).unwrap(); 4096];
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.write(8192, &content(number)), 0);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read(8192, 4096).unwrap(), content(number));
    }
    assert!(vmd.status().disks.iter().all(|disk| disk.clients == 1 && disk.bytes_read == 4096));
    let (response, fds) = vmd.link.call(&Request::Adopt { polling: false }, &[]).unwrap();
    assert_eq!(report(response).disks.len(), MAX_DISKS);
    assert_eq!(fds.len(), 1 + MAX_DISKS);
    assert_eq!(local_path(fds.into_iter().last().unwrap()), served.last().unwrap().socket);
    ok(&vmd.ask(&Request::Stop));
}

#[test]
fn the_next_hostd_adopts_what_the_last_one_left() {
    let host = Host::new();
    let mut vmd = host.start();
    let (root, data) = (host.disk("root", MIB), host.disk("data", MIB));
    ok(&vmd.attach(&root, false));
    ok(&vmd.attach(&data, false));
    let mut client = connect(&root.socket);
    assert_eq!(client.write(0, &[3; 512]), 0);
    assert!(!lock_is_free(&host.folder()), "the vmd holds the lock that hostd took");

    vmd.link = host.connect();
    assert_eq!(client.read(0, 512).unwrap(), [3; 512]);
    let (response, fds) = vmd.link.call(&Request::Adopt { polling: false }, &[]).unwrap();
    let adopted = report(response);
    assert_eq!(adopted.id, Some(host.id));
    let mut fds = fds.into_iter();
    let lock = fds.next().unwrap();
    let inode = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let path = host.folder().join(".lock");
    assert_eq!(inode(rustix::fs::fstat(&lock).unwrap()), inode(rustix::fs::stat(&path).unwrap()));
    let sockets: Vec<_> = fds.map(local_path).collect();
    let told: Vec<_> = adopted.disks.into_iter().map(|disk| disk.socket).collect();
    assert_eq!(sockets, told);
    assert_eq!(sockets, [data.socket, root.socket]);
}

fn local_path(listener: OwnedFd) -> std::path::PathBuf {
    UnixListener::from(listener).local_addr().unwrap().as_pathname().unwrap().to_owned()
}

#[test]
fn after_kill_9_the_next_vmd_serves_the_same_sockets() {
    let host = Host::new();
    let disk = host.disk("root", MIB);
    for round in 1..4u8 {
        let mut vmd = host.start();
        ok(&vmd.attach(&disk, false));
        let mut client = connect(&disk.socket);
        assert_eq!(client.read(0, 4096).unwrap(), [round - 1; 4096]);
        assert_eq!(client.call(request(1, 1, 1, 0, 4096), &[round; 4096]), 0);
        // This client waits in the queue of the socket while there is no vmd.
        vmd.kill();
        assert!(client.is_at_end());
        await_free_lock(&host.folder());
    }
    let waiting = UnixStream::connect(&disk.socket).unwrap();
    let vmd = host.start();
    ok(&vmd.attach(&disk, false));
    assert_eq!(Client::new(waiting).go().0, MIB);
}

#[test]
fn sigterm_drains_and_exits_cleanly() {
    let host = Host::new();
    let mut vmd = host.start();
    let disk = host.disk("root", MIB);
    ok(&vmd.attach(&disk, false));
    let mut client = connect(&disk.socket);
    client.send(&request(1, 0, 1, 0, 512).encode());
    client.send(&[1; 512]);
    assert_eq!(client.reply(), (1, 0));
    vmd.signal(Signal::TERM);
    assert!(vmd.end().success());
    assert!(client.is_at_end());
}

#[test]
fn a_hangup_ends_nothing() {
    let host = Host::new();
    let vmd = host.start();
    let disk = host.disk("root", MIB);
    ok(&vmd.attach(&disk, false));
    let mut client = connect(&disk.socket);
    for _ in 0..100 {
        vmd.signal(Signal::HUP);
        assert_eq!(client.read(0, 4096).unwrap(), [0; 4096]);
    }
    assert_eq!(vmd.status().disks.len(), 1);
}

#[test]
fn without_hostd_it_says_so_and_fails() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vmd"))
        .args(["--vm", "web01"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("started by hostd"), "{said}");
}

#[test]
fn confinement_is_in_force_and_reported() {
    let host = Host::new();
    let vmd = host.spawn();
    assert_eq!(vmd.status().confinement, Vec::<String>::new());
    // What holds from the very start.
    assert_eq!(vmd.proc_status("NoNewPrivs"), "1");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", vmd.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
    let locked = vmd.proc_status("VmLck");
    assert_ne!(locked, "0 kB");
    let report = vmd.set_up(&host);
    let root = rustix::process::geteuid().is_root();
    let names = ["landlock", "capabilities", "seccomp", "mount-namespace"];
    for name in names.into_iter().take(if root { 4 } else { 3 }) {
        assert!(report.confinement.iter().any(|found| found == name), "{:?}", report.confinement);
    }
    assert_eq!(vmd.proc_status("Seccomp"), "2");
    let kept: u64 = [0, 1, 2, 3, 4, 14].iter().map(|bit| 1u64 << bit).sum();
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        let held = u64::from_str_radix(&vmd.proc_status(set), 16).unwrap();
        assert_eq!(held & !kept, 0, "{set}");
    }
    if root {
        let bounding = u64::from_str_radix(&vmd.proc_status("CapBnd"), 16).unwrap();
        assert_eq!(bounding & !kept, 0);
    }
}

#[test]
fn an_idle_vmd_is_small() {
    let host = Host::new();
    let vmd = host.start();
    let disk = host.disk("root", 64 * MIB);
    ok(&vmd.attach(&disk, false));
    let mut client = connect(&disk.socket);
    assert_eq!(client.write(0, &vec![1; 32 << 20]), 0);
    assert_eq!(client.read(0, 32 << 20).unwrap(), vec![1; 32 << 20]);
    std::thread::sleep(Duration::from_millis(1500));
    is_small(&vmd);
}

/// Checks the memory of a vmd that has nothing to do.
pub(crate) fn is_small(vmd: &super::process::Process) {
    let Ok(rollup) = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", vmd.pid())) else {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: the memory of an undumpable process can only be seen by root\n"),
        );
        return;
    };
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    let kib: u64 = pss.trim().trim_end_matches(" kB").parse().unwrap();
    // Without optimisation the program itself is twice as large.
    let limit = if cfg!(debug_assertions) { 8 } else { 4 } * 1024;
    assert!(kib < limit, "{kib} KiB");
}

/// The places for polling go to the next hostd, when it asks for them.
#[test]
fn the_shared_memory_is_given_to_whoever_adopts() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
    let host = Host::new();
    let memory = memfd_create("places", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, 16).unwrap();
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let lock = File::open(host.folder().join(".lock")).unwrap();
    for shared in [true, false] {
        let vmd = host.spawn();
        let fds = [lock.as_fd(), memory.as_fd()];
        report(vmd.set_up_by(&host, if shared { &fds } else { &fds[..1] }));
        let adopt = |polling| vmd.link.call(&Request::Adopt { polling }, &[]).unwrap().1;
        assert_eq!(adopt(false).len(), 1);
        let given = adopt(true);
        assert_eq!(given.len(), if shared { 2 } else { 1 });
        let (last, first) = (fstat(given.last().unwrap()).unwrap(), fstat(&memory).unwrap());
        assert_eq!((last.st_dev, last.st_ino) == (first.st_dev, first.st_ino), shared);
        ok(&vmd.ask(&Request::Stop));
    }
}
