//! The real binary with a VM folder of its own, driven over the link as hostd does.

use command_fds::{CommandFdExt, FdMapping};
use crypto::{Arena, Dek, KeySheet, SheetKey};
use hostd_api::link::{Attach, FOLDER_FD, LINK_FD, Link, Report, Request, Response, Setup, listen};
use hostd_api::types::CacheMode;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What hostd would hold for one VM.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    link: OwnedFd,
    pub(crate) arena: Arena,
    pub(crate) id: Uuid,
}

/// A disk of the VM: its key, its payload and its listening socket.
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) socket: PathBuf,
    pub(crate) payload: PathBuf,
    key: Dek,
    listener: OwnedFd,
}

/// A running vmd; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) link: Link,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    /// A host on a drive, not in memory.
    pub(crate) fn on_a_drive() -> Self {
        Self::in_folder(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    fn in_folder(dir: tempfile::TempDir) -> Self {
        std::fs::create_dir(dir.path().join("vm")).unwrap();
        std::fs::write(dir.path().join("vm/.lock"), "").unwrap();
        let link = listen(&dir.path().join("vmd.sock")).unwrap();
        Self { dir, link, arena: Arena::new(256 * 1024).unwrap(), id: Uuid::new_v4() }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("vm")
    }

    pub(crate) fn connect(&self) -> Link {
        Link::connect(&self.dir.path().join("vmd.sock")).unwrap()
    }

    pub(crate) fn disk(&self, name: &str, size: u64) -> Disk {
        let socket = self.dir.path().join(format!("{name}.sock"));
        let payload = self.folder().join(format!("{name}.data"));
        File::create(&payload).unwrap().set_len(size).unwrap();
        Disk {
            name: name.to_owned(),
            size,
            key: Dek::generate(&self.arena).unwrap(),
            listener: UnixListener::bind(&socket).unwrap().into(),
            socket,
            payload,
        }
    }

    /// Starts a vmd on the link socket, which outlives it.
    pub(crate) fn spawn(&self) -> Process {
        self.spawn_with(&[])
    }

    /// Starts a vmd by the command `wrapper`, which must become the vmd.
    pub(crate) fn spawn_with(&self, wrapper: &[&str]) -> Process {
        let mut words = wrapper.iter().chain(&[env!("CARGO_BIN_EXE_vmd")]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["--vm", "web01"]).env("COFFER_LOG", "warn");
        let link = self.link.try_clone().unwrap();
        let folder = OwnedFd::from(File::open(self.folder()).unwrap());
        // What whoever started hostd may have left open in it.
        let left_open = OwnedFd::from(File::open("/").unwrap());
        let left_open = FdMapping { parent_fd: left_open, child_fd: 20 };
        let link = FdMapping { parent_fd: link, child_fd: LINK_FD };
        let folder = FdMapping { parent_fd: folder, child_fd: FOLDER_FD };
        command.fd_mappings(vec![link, folder, left_open]).unwrap();
        let child = command.spawn().unwrap();
        Process { child, link: self.connect() }
    }

    /// Starts a vmd and sets it up, fully confined; the lock is left to it.
    pub(crate) fn start(&self) -> Process {
        let process = self.spawn();
        let report = process.set_up(self);
        assert_eq!(report.id, Some(self.id));
        process
    }
}

impl Disk {
    /// The payload, opened past the page cache; `None`, said aloud, where the file system has no such thing.
    pub(crate) fn open_direct(&self) -> Option<File> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.payload, flags, Mode::empty());
        let alignment = opened.map_err(Into::into).and_then(|file| {
            cryptfs::backing::direct_alignment(file.as_fd()).map(|_| File::from(file))
        });
        alignment
            .inspect_err(|e| {
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("SKIPPED: no direct I/O in {}: {e}\n", self.payload.display()),
                );
            })
            .ok()
    }

    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///{}?socket={}", self.name, self.socket.display())
    }
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn set_up(&self, host: &Host) -> Report {
        let lock = File::options().write(true).open(host.folder().join(".lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        report(self.set_up_with(host, &lock))
    }

    /// A Setup with a lock file that is or is not locked.
    pub(crate) fn set_up_with(&self, host: &Host, lock: &File) -> Response {
        self.set_up_by(host, &[lock.as_fd()])
    }

    /// A Setup with these descriptors.
    pub(crate) fn set_up_by(&self, host: &Host, fds: &[BorrowedFd<'_>]) -> Response {
        let setup = Request::Setup(Setup {
            vm: "web01".into(),
            id: host.id,
            folder: host.folder(),
            // A mount namespace is for root only.
            require_confinement: rustix::process::geteuid().is_root(),
            max_connections: 8,
        });
        self.link.call(&setup, fds).unwrap().0
    }

    pub(crate) fn attach(&self, disk: &Disk, read_only: bool) -> Response {
        self.attach_with(disk, read_only, CacheMode::Writeback, None)
    }

    /// Attaches past the page cache, with `direct` as the descriptor for it.
    pub(crate) fn attach_past_the_cache(&self, disk: &Disk, direct: Option<&File>) -> Response {
        self.attach_with(disk, false, CacheMode::None, direct)
    }

    fn attach_with(
        &self,
        disk: &Disk,
        read_only: bool,
        cache: CacheMode,
        direct: Option<&File>,
    ) -> Response {
        let attach = Request::Attach(Attach {
            disk: disk.name.clone(),
            id: Uuid::nil(),
            size: disk.size,
            unit: 4096,
            read_only,
            cache,
            socket: disk.socket.clone(),
        });
        let payload = File::options().read(true).write(!read_only).open(&disk.payload).unwrap();
        let sheet = KeySheet::seal(&[SheetKey::Disk(&disk.key)]).unwrap();
        let mut fds = vec![payload.as_fd(), disk.listener.as_fd(), sheet.as_fd()];
        fds.extend(direct.map(AsFd::as_fd));
        self.link.call(&attach, &fds).unwrap().0
    }

    pub(crate) fn ask(&self, request: &Request) -> Response {
        self.link.call(request, &[]).unwrap().0
    }

    pub(crate) fn status(&self) -> Report {
        report(self.ask(&Request::Status))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "vmd does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A file or folder of /proc/PID.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid()))
    }

    /// One field of /proc/PID/status.
    pub(crate) fn proc_status(&self, field: &str) -> String {
        let text = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn report(response: Response) -> Report {
    match response {
        Response::Report(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Whether nobody holds the lock of a VM folder.
pub(crate) fn lock_is_free(folder: &Path) -> bool {
    let lock = File::options().write(true).open(folder.join(".lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Waits until nobody holds it: a process that another test starts at that moment has a copy until its exec.
pub(crate) fn await_free_lock(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !lock_is_free(folder) {
        assert!(Instant::now() < deadline, "the lock is not given back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn ok(response: &Response) {
    assert!(matches!(response, Response::Ok), "{response:?}");
}
