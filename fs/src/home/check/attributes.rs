//! What can be wrong with extended attributes.
//!
//! Owns the judgement on the stored attributes of one object; their form is in `xattr`. Attributes that the storage
//! or its tools have set for themselves are not shown in a mount, and are none of ours.

use super::super::xattr::{self, MAX_STORED};
use super::{CheckError, Walk};
use crate::fsck::{Grade, Mend, shown_path};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// Longest list of names in Linux (`XATTR_LIST_MAX`).
const MAX_LIST: usize = 65_536;

/// Room for the names and one value, used for every object.
#[derive(Default)]
pub(super) struct Buffers {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { names: vec![0; MAX_LIST], value: vec![0; MAX_STORED] }
    }
}

impl Walk<'_, '_> {
    /// Opens every attribute of the object, a file or folder.
    pub(super) fn check_attributes(&mut self, fd: BorrowedFd<'_>) -> Result<(), CheckError> {
        let mut buffers = std::mem::take(&mut self.buffers);
        let checked = self.check_list(fd, &mut buffers);
        self.buffers = buffers;
        checked
    }

    fn check_list(&mut self, fd: BorrowedFd<'_>, buffers: &mut Buffers) -> Result<(), CheckError> {
        let Buffers { names, value } = buffers;
        let list = match rustix::fs::flistxattr(fd, &mut names[..]) {
            Ok(len) => &names[..len],
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return self.unreadable(error),
        };
        for stored in list.split_inclusive(|&byte| byte == 0) {
            if !xattr::is_kept(stored) {
                continue;
            }
            let Ok(name) = CStr::from_bytes_with_nul(stored) else { continue };
            let Some((space, rest)) = xattr::plain_name(name.to_bytes()) else {
                self.bad_attribute(name.to_bytes(), "has the name of none that can be set")?;
                continue;
            };
            let plain = [space, rest].concat();
            match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
                Ok(len) if self.keys.open_value(&plain, &mut value[..len], String::new).is_ok() => {
                }
                Ok(_) => {
                    self.bad_attribute(&plain, "was not set in this home, or was edited")?;
                }
                Err(error) => self.bad_attribute(&plain, &format!("cannot be read: {error}"))?,
            }
        }
        Ok(())
    }

    fn bad_attribute(&mut self, name: &[u8], what: &str) -> Result<(), CheckError> {
        let what = format!("its extended attribute {} {what}", shown_path(name));
        let remedy = "set it again in the mounted home, or remove it there";
        self.found(Grade::Damaged, what, Mend::not(remedy))
    }
}
