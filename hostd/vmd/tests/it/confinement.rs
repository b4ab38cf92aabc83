//! What a confined process can and cannot do. Confinement is for ever, so each case is a process of its own: this
//! test program again, told by an environment variable which test to be.

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatVfsMountFlags, Timestamps, chmodat, chownat,
    fstatvfs, linkat, makedev, mkdirat, mknodat, openat, renameat, utimensat,
};
use rustix::io::Errno;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use tempfile::TempDir;
use vmd::confine::confine;
use vmd::confine::root::{FOLDER, Root};

/// Set in the confined process: the folder to be confined to.
const CONFINED_TO: &str = "VMD_TEST_CONFINED_TO";

/// Most descriptors that the confined test looks at; it has a dozen.
const MAX_DESCRIPTORS: i32 = 256;

/// What is said of files that cannot be opened or made: landlock, or not there at all, or the empty root.
const NAMELESS: [ErrorKind; 3] =
    [ErrorKind::PermissionDenied, ErrorKind::NotFound, ErrorKind::ReadOnlyFilesystem];

/// Runs `inside` in a process that is confined to a new folder, and says how that ended. `inside` gets the path
/// of the folder in the root of that process.
fn in_confinement(test: &str, inside: impl FnOnce(&Path)) -> Option<ExitStatus> {
    let dir = new_folder();
    confined_to(dir.as_ref().map(TempDir::path), test, |folder, _| inside(folder))
}

/// A folder that goes with the test; none in the confined process, which could not remove it.
fn new_folder() -> Option<TempDir> {
    std::env::var_os(CONFINED_TO).is_none().then(|| tempfile::tempdir().unwrap())
}

/// The same with a given folder, of which `inside` gets the path outside as well.
fn confined_to(
    folder: Option<&Path>,
    test: &str,
    inside: impl FnOnce(&Path, &Path),
) -> Option<ExitStatus> {
    if let Some(folder) = std::env::var_os(CONFINED_TO).map(PathBuf::from) {
        let root = Root::enter(OwnedFd::from(File::open(&folder).unwrap()));
        let names = confine(&root, true).unwrap();
        assert!(names.len() >= 4, "{names:?}");
        inside(Path::new(FOLDER), &folder);
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: a mount namespace needs root\n"),
        );
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(CONFINED_TO, folder.unwrap())
        .output()
        .unwrap();
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    Some(output.status)
}

#[test]
fn the_folder_is_reachable_and_nothing_else_is() {
    let status =
        in_confinement("confinement::the_folder_is_reachable_and_nothing_else_is", |folder| {
            let denied = |result: std::io::Result<()>| {
                let kind = result.unwrap_err().kind();
                assert!(NAMELESS.contains(&kind), "{kind}");
            };
            let home = File::open(folder).unwrap();
            fs::write(folder.join("file"), "data").unwrap();
            mkdirat(&home, "sub", Mode::RWXU).unwrap();
            renameat(&home, "file", &home, "sub/file").unwrap();
            assert_eq!(fs::read(folder.join("sub/file")).unwrap(), b"data");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1);

            denied(File::open("/etc/passwd").map(drop));
            denied(File::open("/proc/self/maps").map(drop));
            denied(File::create("/tmp/outside-of-the-folder").map(drop));
            denied(File::create("/outside-of-the-folder").map(drop));
            denied(fs::read_dir("/").map(drop));
            let moved = renameat(&home, "sub/file", CWD, "/moved-out-of-the-folder");
            assert!(matches!(moved, Err(Errno::XDEV | Errno::ACCESS)), "{moved:?}");
            denied(std::net::TcpListener::bind("127.0.0.1:0").map(drop));
            denied(std::os::unix::net::UnixStream::connect("/run/any").map(drop));
            denied(std::os::unix::net::UnixStream::pair().map(drop));
        });
    assert!(status.is_none_or(|status| status.success()));
}

/// Everything that changes a file by its name, tried on the folder `outside`: each must fail.
fn attack(at: BorrowedFd<'_>, outside: &Path, own: &Path) {
    let target = outside.join("target");
    let failed = |what: &str, result: Result<(), Errno>| {
        assert!(result.is_err(), "{what} of {} from {at:?} went through", target.display());
    };
    failed("mode", chmodat(at, &target, Mode::from_raw_mode(0o4755), AtFlags::empty()));
    let owner = rustix::fs::Uid::from_raw(1000);
    failed("owner", chownat(at, &target, Some(owner), None, AtFlags::empty()));
    failed("owner", chownat(at, &target, Some(owner), None, AtFlags::SYMLINK_NOFOLLOW));
    let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    failed("times", utimensat(at, &target, &times, AtFlags::empty()));
    for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::PATH] {
        failed("opening", openat(at, &target, flags, Mode::empty()).map(drop));
    }
    failed("folder", mkdirat(at, outside.join("new"), Mode::RWXU));
    failed("pipe", mknodat(at, outside.join("new"), FileType::Fifo, Mode::RUSR, 0));
    failed("link", linkat(CWD, own, at, outside.join("new"), AtFlags::empty()));
    failed("link", linkat(at, &target, CWD, own.with_extension("link"), AtFlags::empty()));
}

/// Landlock says nothing of modes and owners, and a vmd may change those of every file that it can name.
#[test]
fn files_outside_cannot_be_named() {
    let dir = new_folder();
    let folder = dir.as_ref().map(|dir| dir.path().join("vm"));
    let target = dir.as_ref().map(|dir| dir.path().join("target"));
    let facts = || {
        let target = fs::metadata(target.as_ref()?).unwrap();
        Some((target.mode(), target.uid(), target.mtime(), target.nlink(), target.len()))
    };
    if let (Some(folder), Some(target)) = (&folder, &target) {
        fs::create_dir(folder).unwrap();
        fs::write(target, "secret").unwrap();
        fs::set_permissions(target, Permissions::from_mode(0o600)).unwrap();
    }
    let before = facts();
    let test = "confinement::files_outside_cannot_be_named";
    let status = confined_to(folder.as_deref(), test, |folder, from_outside| {
        let own = folder.join("own");
        fs::write(&own, "data").unwrap();
        let outside = from_outside.parent().unwrap();
        let relative = outside.strip_prefix("/").unwrap();
        let up = ["..", "../..", "../../../../../../../.."];
        // The folder itself, opened inside, is the one descriptor of a folder that a vmd has.
        let _opened = File::open(folder).unwrap();
        let open = (0..MAX_DESCRIPTORS).filter_map(|number| {
            // SAFETY: the descriptor is used only if it is open, and this thread closes none meanwhile.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_getfd(fd).is_ok().then_some(fd)
        });
        let open: Vec<_> = open.chain([CWD]).collect();
        assert!(open.len() > 4);
        for at in open {
            attack(at, outside, &own);
            for up in up {
                attack(at, Path::new(up), &own);
                attack(at, &Path::new(up).join(relative), &own);
                attack(at, &folder.join(up).join(relative), &own);
            }
        }
    });
    assert!(status.is_none_or(|status| status.success()));
    assert_eq!(facts(), before);
    assert!(dir.is_none_or(|dir| fs::read_dir(dir.path()).unwrap().count() == 2));
}

#[test]
fn devices_cannot_be_made_and_set_user_id_has_no_effect() {
    let test = "confinement::devices_cannot_be_made_and_set_user_id_has_no_effect";
    let status = in_confinement(test, |folder| {
        for (name, kind) in [("b", FileType::BlockDevice), ("c", FileType::CharacterDevice)] {
            let made = mknodat(CWD, folder.join(name), kind, Mode::RUSR, makedev(8, 0));
            assert_eq!(made, Err(Errno::PERM));
        }
        let file = folder.join("file");
        fs::write(&file, "data").unwrap();
        chmodat(CWD, &file, Mode::from_raw_mode(0o4755), AtFlags::empty()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4755);
        let flags = fstatvfs(File::open(folder).unwrap()).unwrap().f_flag;
        assert!(flags.contains(StatVfsMountFlags::NOSUID));
    });
    assert!(status.is_none_or(|status| status.success()));
}

/// Whether clients may pass descriptors was decided by hostd.
#[test]
fn descriptors_of_clients_stay_refused() {
    let test = "confinement::descriptors_of_clients_stay_refused";
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let status = in_confinement(test, |_| {
        let set = hostd_api::link::refuse_descriptors(socket.as_fd());
        assert_eq!(set, Err(Errno::PERM));
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, 65_536).unwrap();
    });
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn threads_memory_and_descriptors_go_on_working() {
    let status =
        in_confinement("confinement::threads_memory_and_descriptors_go_on_working", |folder| {
            let threads: Vec<_> = (0..8)
                .map(|i: u8| {
                    std::thread::Builder::new()
                        .name("worker".into())
                        .spawn(move || vec![i; 8 << 20])
                })
                .collect();
            for (i, thread) in (0u8..).zip(threads) {
                assert_eq!(thread.unwrap().join().unwrap(), vec![i; 8 << 20]);
            }
            let caught = std::panic::catch_unwind(|| panic!("a panic unwinds"));
            assert!(caught.is_err());
            let file = File::create(folder.join("file")).unwrap();
            file.set_len(1 << 20).unwrap();
            file.sync_all().unwrap();
            assert!(file.metadata().unwrap().modified().is_ok());
            let copy = file.try_clone().unwrap();
            assert_eq!(copy.metadata().unwrap().len(), 1 << 20);
            crypto::random_array::<32>().unwrap();
            let memlock = rustix::process::getrlimit(rustix::process::Resource::Memlock);
            let set = rustix::process::setrlimit(rustix::process::Resource::Memlock, memlock);
            assert_eq!(set, Err(Errno::PERM));
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn new_code_is_refused() {
    let status = in_confinement("confinement::new_code_is_refused", |_| {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let (data, code) = (ProtFlags::READ | ProtFlags::WRITE, ProtFlags::READ | ProtFlags::EXEC);
        let map = |protection| {
            // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
            unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, protection, MapFlags::PRIVATE) }
        };
        assert!(map(data).is_ok());
        assert_eq!(map(code), Err(Errno::PERM));
    });
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn another_program_is_death() {
    let status = in_confinement("confinement::another_program_is_death", |_| {
        use std::os::unix::process::CommandExt;
        let error = Command::new("/bin/true").exec();
        panic!("exec came back with {error}");
    });
    assert!(status.is_none_or(|status| status.signal() == Some(libc::SIGSYS)));
}

#[test]
fn tracing_a_process_is_death() {
    let status = in_confinement("confinement::tracing_a_process_is_death", |_| {
        // SAFETY: PTRACE_TRACEME takes no pointers.
        let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
        panic!("ptrace came back with {result}");
    });
    assert!(status.is_none_or(|status| status.signal() == Some(libc::SIGSYS)));
}

#[test]
fn a_child_process_is_refused() {
    let status = in_confinement("confinement::a_child_process_is_refused", |_| {
        // SAFETY: no child comes to be; were there one, it would go on as this test and fail it.
        let result = unsafe { libc::fork() };
        assert_eq!(result, -1);
    });
    assert!(status.is_none_or(|status| status.success()));
}
