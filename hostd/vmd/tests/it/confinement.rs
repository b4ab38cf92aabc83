//! What a confined process can and cannot do. Confinement is for ever, so each case is a process of its own: this
//! test program again, told by an environment variable which test to be.

use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, mkdirat, renameat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use vmd::confine::confine;

/// Set in the confined process: the folder to be confined to.
const FOLDER: &str = "VMD_TEST_CONFINED_TO";

/// Runs `inside` in a process that is confined to a new folder, and says how that ended.
fn in_confinement(test: &str, inside: impl FnOnce(&Path)) -> Option<ExitStatus> {
    if let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) {
        let fd = File::open(&folder).unwrap();
        let names = confine(fd.as_fd(), true).unwrap();
        assert!(names.len() >= 3, "{names:?}");
        inside(&folder);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(FOLDER, dir.path())
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
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
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
            denied(fs::read_dir("/").map(drop));
            let moved = renameat(&home, "sub/file", CWD, "/tmp/moved-out-of-the-folder");
            assert!(matches!(moved, Err(Errno::XDEV | Errno::ACCESS)), "{moved:?}");
            denied(std::net::TcpListener::bind("127.0.0.1:0").map(drop));
            denied(std::os::unix::net::UnixStream::connect("/run/any").map(drop));
            denied(std::os::unix::net::UnixStream::pair().map(drop));
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
