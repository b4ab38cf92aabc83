//! VM homes: a tree of encrypted files that looks like a plain folder.
//!
//! Owns the format of home files, links, encrypted names and extended attributes (`layout`, `header`, `link`, `names`,
//! `xattr`), the files themselves (`file`, `tail`, `space`) and the tree of nodes over the ciphertext folder (`tree`); must not know FUSE. Flow: a node of a [`Home`] is
//! opened into a file, whose key comes from the home key and the nonce in its header, and whose reads and
//! writes go to the stored file one to one, shifted by the header.

mod attributes;
mod base64url;
mod change;
pub mod check;
mod copy;
mod create;
mod error;
mod extended;
mod file;
mod first;
mod folder;
pub mod header;
mod keys;
pub mod layout;
pub mod link;
#[cfg(test)]
mod model;
pub mod names;
mod naming;
mod node;
mod open;
mod pressure;
mod privileges;
mod ranges;
mod recent;
mod scratch;
mod space;
mod storage;
mod store;
mod tail;
mod tree;
pub mod xattr;

pub(crate) use attributes::{Attributes, Changes, NewTime, Time};
pub(crate) use copy::copy;
pub(crate) use create::Caller;
pub use error::HomeError;
pub(crate) use folder::{Folder, Listed};
pub use keys::OPEN_FILE_ARENA;
pub(crate) use node::Nodes;
pub(crate) use open::{Handle, OpenFile};
pub(crate) use space::Zeroing;
pub use tree::Home;
