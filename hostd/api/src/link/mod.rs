//! The link between hostd and a vmd: JSON messages with descriptors on a `SOCK_SEQPACKET` Unix socket.
//!
//! vmd listens (on a socket that hostd made at `RUN/vm/NAME/vmd.sock` and passed as descriptor 3) and answers
//! one request at a time; the socket outlives hostd, which is how the next hostd adopts a running vmd. Key
//! bytes never cross it: keys travel as a `memfd_secret` descriptor (`crypto::KeySheet`).

mod rights;
mod socket;

pub use rights::{SO_PASSRIGHTS, refuse_descriptors};
pub use socket::{Link, LinkError, PeerCred, accept, listen};

use crate::types::{CacheMode, HomeMode, HomeNames};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// Version of the link; a vmd that speaks another one is left alone and reported.
pub const LINK_VERSION: u32 = 4;

/// Descriptor number at which a vmd finds its listening link socket.
pub const LINK_FD: i32 = 3;

/// Descriptor number at which a vmd finds its VM folder. No folder ever comes over the link, and a vmd refuses one:
/// by `..` it would lead out of the root that the vmd has made for itself.
pub const FOLDER_FD: i32 = 4;

/// Largest message in bytes: room for a report on all disks with the longest names. A request has a few hundred.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Most disks that one vmd serves: an adoption passes all their listening sockets in one message ([`MAX_FDS`]), and a
/// report on all fits in [`MAX_MESSAGE`]. QEMU users put a hundred disks on a VM; threads and memory would allow more.
pub const MAX_DISKS: usize = 128;

/// Largest number of descriptors with one message: the lock, one listening socket a disk, that of the TLS port and
/// the places for polling at an adoption. The kernel's own limit is 253 (unix(7), `SCM_MAX_FD`).
pub const MAX_FDS: usize = 3 + MAX_DISKS;

/// What hostd asks of a vmd. Descriptors travel beside it, in the order given at each variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
pub enum Request {
    /// Once after the start, before anything else. Descriptors: the lock file of the VM folder (held for as
    /// long as the vmd lives); if threads may look for requests instead of sleeping, the memory with the places
    /// for them. The vmd confines itself before it answers.
    Setup(Setup),
    /// Who are you? No descriptors.
    Hello,
    /// Serve a disk. Descriptors: payload (opened read-write, or read-only), listening NBD socket, key sheet
    /// with one disk key; with [`CacheMode::None`] a fourth, the payload opened once more with the same access and
    /// `O_DIRECT`.
    Attach(Attach),
    /// Stop serving a disk: no new connections, requests in flight finished, flush, keys wiped.
    Detach {
        /// Name of the disk.
        disk: String,
    },
    /// Serve all disks of the VM on a network socket under TLS; when it is served already, take the new settings
    /// for clients that come from now on, and keep the old socket. Descriptors: listening TCP socket, and the PEM
    /// files of certificate chain, private key and client authorities, opened for reading.
    ServeTls(ServeTls),
    /// Close the network socket, after what its clients have asked for was answered.
    StopTls,
    /// Serve the home. Descriptors: /dev/fuse already mounted, key sheet with the home key. The vmd opens the
    /// folder `home` of its VM folder itself.
    ServeHome(ServeHome),
    /// Look at everything in the home, which is not served. Descriptors: the end of a pipe that is written, key sheet
    /// with the home key. The answer comes at once, and the report through the pipe: lines of JSON
    /// (`cryptfs::fsck::Line`), the last one says how it ended. Closing the other end stops the check.
    CheckHome(CheckHome),
    /// The home has been unmounted; forget its key.
    StopHome,
    /// What is served, and how busy it is.
    Status,
    /// Give back copies of the descriptors that the next hostd needs. Answer: the lock file, then one
    /// listening socket a disk in the order of `Report::disks`, then that of the TLS port when `Report::tls` is set.
    Adopt {
        /// The memory that came with `Setup` as well, as the last one, if there was any. A vmd of an earlier release
        /// does not know of this and gives none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        polling: bool,
    },
    /// Drain and exit.
    Stop,
}

/// Identity and confinement of a vmd.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Name of the VM, for logs.
    pub vm: String,
    /// Identity of the VM.
    pub id: Uuid,
    /// Folder of the VM, for messages only: in the root of the vmd it has another path.
    pub folder: PathBuf,
    /// Refuse to run when any part of the confinement cannot be put in force.
    pub require_confinement: bool,
    /// Most connections at one time for one disk.
    pub max_connections: u32,
}

/// A disk to serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Name of the disk, which is its export name.
    pub disk: String,
    /// Identity in the descriptor.
    pub id: Uuid,
    /// Size in bytes.
    pub size: u64,
    /// Data unit in bytes.
    pub unit: u32,
    /// No writes allowed.
    pub read_only: bool,
    /// What the page cache is used for.
    #[serde(default, skip_serializing_if = "CacheMode::is_default")]
    pub cache: CacheMode,
    /// Path of the NBD socket, for messages only.
    pub socket: PathBuf,
}

/// A network socket to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeTls {
    /// Address of the socket, for messages and for the next hostd.
    pub address: SocketAddr,
    /// Who may open what; nobody else may open anything.
    pub clients: Vec<TlsClient>,
    /// Most connections at one time, for all disks together.
    pub max_connections: u32,
}

/// A client of the TLS port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsClient {
    /// A subject alternative name (DNS or URI) of its certificate.
    pub name: String,
    /// Names of disks, or `*` for all.
    pub disks: Vec<String>,
}

/// A home to serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeHome {
    /// Where it is mounted, for messages and for the next hostd.
    pub mountpoint: PathBuf,
    /// Who else may change the stored files meanwhile, which decides what the kernel may cache.
    pub mode: HomeMode,
    /// How its names are stored.
    pub names: HomeNames,
}

/// A home to check.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckHome {
    /// Mend what can be mended without a risk for data.
    pub repair: bool,
    /// How its names are stored.
    pub names: HomeNames,
}

/// What a vmd answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", deny_unknown_fields)]
pub enum Response {
    /// Done.
    Ok,
    /// To `Hello`, `Status`, `Setup` and `Adopt`.
    Report(Report),
    /// Not done.
    Failed(Failure),
}

/// What a vmd serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `LINK_VERSION` of the vmd.
    pub link_version: u32,
    /// Its process id.
    pub pid: u32,
    /// Identity of its VM; absent before `Setup`.
    pub id: Option<Uuid>,
    /// Name of its VM.
    pub vm: Option<String>,
    /// Confinement in force, for example `["mount-namespace", "landlock", "seccomp",
    /// "capabilities"]`.
    pub confinement: Vec<String>,
    /// XTS engine, `aws-lc` or `portable`.
    pub engine: String,
    /// Disks served.
    pub disks: Vec<ServedDisk>,
    /// Where the home is mounted, when it is served.
    pub home: Option<PathBuf>,
    /// How it is served, then.
    #[serde(default)]
    pub home_mode: Option<HomeMode>,
    /// The TLS port, when it is served.
    #[serde(default)]
    pub tls: Option<ServedTls>,
}

/// The TLS port that a vmd serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedTls {
    /// Address as told by hostd.
    pub address: SocketAddr,
    /// Connections now, in whatever phase.
    pub clients: u32,
}

/// A disk that a vmd serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedDisk {
    /// Name.
    pub disk: String,
    /// Identity.
    pub id: Uuid,
    /// No writes allowed.
    pub read_only: bool,
    /// What the page cache is used for.
    #[serde(default, skip_serializing_if = "CacheMode::is_default")]
    pub cache: CacheMode,
    /// Socket path as told at attach.
    pub socket: PathBuf,
    /// Connections now.
    pub clients: u32,
    /// Bytes read since attach.
    pub bytes_read: u64,
    /// Bytes written since attach.
    pub bytes_written: u64,
}

/// Why a vmd did not do it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Same codes as the control API.
    pub code: crate::error::ErrorCode,
    /// Names the thing and the reason.
    pub message: String,
    /// What to do next.
    pub remedy: String,
}
