//! Power cuts replayed: a disk whose every write is recorded, and the disks that a loss of power may leave of it.
//!
//! Owns the recording and the states built from it; must not know what was written, nor what must be there
//! afterwards. Flow: a [`Recorder`] serves an [`Image`] as a file of FUSE, a loop device over it ([`Loop`]) carries a
//! real file system, and the kernel's writes and flushes become [`Event`]s, with the marks of the test between
//! them. [`Replay`] then goes through the log and builds what the disk may hold when power is lost at an event: all
//! that was flushed, and of the rest everything, a part of the last write, or any selection ([`Loss`]).

mod device;
mod dice;
mod image;
mod kept;
mod log;
mod recorder;

pub use device::{Loop, Mounted};
pub use dice::Dice;
pub use image::{Image, PAGE};
pub use kept::Kept;
pub use log::{Event, Loss, Replay};
pub use recorder::Recorder;
