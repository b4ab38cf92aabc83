//! Sockets over which nobody may pass descriptors.
//!
//! Owns one socket option. Clients of a disk have no reason to send descriptors, and one that did could hand a vmd
//! that it controls what the confinement keeps from it. Flow: hostd sets the option before it binds a disk's
//! socket; accepted connections inherit it.

use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_PASSRIGHTS` (Linux 6.16, include/uapi/asm-generic/socket.h): whether `SCM_RIGHTS` is received.
pub const SO_PASSRIGHTS: i32 = 83;

/// Has the kernel refuse descriptors that are sent to `socket`, a Unix socket, and to what it accepts: senders get
/// EPERM.
///
/// # Errors
/// `NOPROTOOPT` before Linux 6.16.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the value is an int that outlives the call, `length` is its size, and the call only reads it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            length,
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
