//! Set-user-ID and set-group-ID bits: they fall when somebody without privilege changes the content.
//!
//! Owns the rule (inode(7), "the set-group-ID bit"); must not know FUSE. The kernel leaves it to the file system, so
//! that a write is one request. It removes file capabilities itself.

use super::create::{Caller, SET_GROUP};
use super::error::HomeError;
use super::open::OpenFile;
use rustix::fs::{Mode, RawMode, Stat};

const SET_USER: RawMode = 0o4000;
const GROUP_EXECUTES: RawMode = 0o0010;

impl Caller {
    /// May change a program and leave it its owner's rights (`CAP_FSETID`). The protocol carries no capabilities, so
    /// it is taken for root's.
    pub(crate) fn keeps_set_ids(self) -> bool {
        self.uid == 0
    }
}

impl OpenFile {
    /// Takes the bits away, if there are any.
    pub(crate) fn drop_set_ids(&self) -> Result<(), HomeError> {
        self.harmless.get(|| {
            let stat = rustix::fs::fstat(self.fd()).map_err(HomeError::io("stat of a file"))?;
            let bits = falling(&stat);
            if bits == 0 {
                return Ok(());
            }
            rustix::fs::fchmod(self.fd(), Mode::from_raw_mode(stat.st_mode & 0o7777 & !bits))
                .map_err(HomeError::io("chmod"))
        })
    }
}

/// The bits that fall. Without execution by the group, the group's bit is none of a program.
fn falling(stat: &Stat) -> RawMode {
    let group = if stat.st_mode & GROUP_EXECUTES == 0 { 0 } else { SET_GROUP };
    stat.st_mode & (SET_USER | group)
}
