//! What is agreed with the kernel at the start of a mount.
//!
//! Owns the list of capabilities and the sizes; must not know the home.

use crate::door::settings::Caching;
use fuser::{InitFlags, KernelConfig};

/// Largest write request: more has no measurable use, and the buffers of a thread hold this much.
const MAX_WRITE: u32 = 1024 * 1024;

/// Most requests the kernel keeps in flight on its own behalf (read-ahead, write-back, asynchronous I/O):
/// enough to keep every thread busy, few enough that one mount does not fill memory with pages in flight.
const MAX_BACKGROUND: u16 = 64;

/// What is asked for where the kernel offers it.
///
/// With `POSIX_ACL` the kernel checks access control lists, and leaves the umask to the file system (`DONT_MASK`), as
/// a folder's list for new objects takes its place. With `HANDLE_KILLPRIV_V2` set-user bits are the file system's to
/// drop, and a write is not preceded by a question for `security.capability`; this version of the transport passes on
/// the request to drop them in a write only, so that for changes of the size the caller decides.
///
/// Left out on purpose: `SETXATTR_EXT`, `OVER_IO_URING`, `ALLOW_IDMAP`, `SECURITY_CTX` and `CREATE_SUPP_GROUP`, which
/// this version of the transport accepts and does not honour; `EXPORT_SUPPORT`, so that `.` and `..` are never looked
/// up; `FLOCK_LOCKS` and `POSIX_LOCKS`, so that locks are the kernel's own, among the processes of this host;
/// `ATOMIC_O_TRUNC`, with which the kernel lets an open empty a file before it finds that it may not write to it: a
/// program that is running would lose its text to an open that is then refused with ETXTBSY.
const WANTED: [InitFlags; 11] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ABORT_ERROR,
    COHERENT,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// Direct I/O may be parallel: the kernel keeps it in step with what else it caches of the file, maps included.
const COHERENT: InitFlags = InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;

/// With others at the storage: content is dropped when size or time of a file are not what the kernel knew.
const SHARED: InitFlags = InitFlags::FUSE_AUTO_INVAL_DATA;

/// Alone: the kernel collects writes. Requests then come from its cache, not from programs: a file that was opened
/// for writing only is read, too, and the flags of a write are nobody's.
const EXCLUSIVE: InitFlags = InitFlags::FUSE_WRITEBACK_CACHE;

/// Sets up the connection, and says whether direct I/O may bypass the kernel's cache.
///
/// Public for the bench, whose server without encryption must agree on the same.
pub fn negotiate(config: &mut KernelConfig, caching: Caching) -> bool {
    let mode = match caching {
        Caching::Shared => SHARED,
        Caching::Exclusive => EXCLUSIVE,
    };
    for flag in WANTED.into_iter().chain([mode]) {
        // An error only says that this kernel does not have it.
        let _ = config.add_capabilities(flag);
    }
    // The values are inside the limits of the transport; read-ahead larger than the kernel's own offer is
    // refused, and then the offer stands.
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_readahead(MAX_WRITE);
    let _ = config.set_max_background(MAX_BACKGROUND);
    config.capabilities().contains(COHERENT)
}
