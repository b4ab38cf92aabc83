//! The header page of a home file: 4096 bytes that say whose file it is and which key it has.
//!
//! Owns the codec (`docs/format.md`, "VM home"); does no I/O. Everything that is not zero lies in the first
//! 512-byte sector, which storage writes as one: a crash leaves the whole header or none of it. Flow:
//! [`encode`] when a file is first written, [`decode`] when it is opened.

use crypto::MacKey;
use uuid::Uuid;

/// Length of the page.
pub const PAGE_LEN: usize = 4096;

/// Label under which the MAC key is derived from the home key.
pub const MAC_INFO: &str = "coffer v1 file mac";

/// Length of the nonce from which the key of the file is derived.
pub const NONCE_LEN: usize = 32;

const MAGIC: &[u8; 8] = b"COFFERHF";
const VERSION: u32 = 1;
const FEATURES: u32 = 0;

const VERSION_AT: usize = 8;
const FEATURES_AT: usize = 12;
const NONCE_AT: usize = 16;
const VM_AT: usize = 48;
const MAC_AT: usize = 64;
const END: usize = 96;
const _: () = assert!(END <= 512, "the header must fit in the first sector");

/// What a header page turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// All zeros: the file was never written, or the header did not reach the storage before a crash.
    Blank,
    /// Authentic, with the nonce of the file's key.
    Nonce([u8; NONCE_LEN]),
}

/// Why a header page is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Not the magic number.
    #[error("it does not start with the magic number of a home file")]
    Magic,
    /// Another version, or features this version does not know.
    #[error("version {version}, features {features:#x}")]
    Unsupported {
        /// Version in the page.
        version: u32,
        /// Features in the page.
        features: u32,
    },
    /// The page names another VM.
    #[error("it belongs to VM {0}")]
    Foreign(Uuid),
    /// The MAC does not fit.
    #[error("its header fails authentication")]
    Mac,
    /// Bytes after the MAC are not zero.
    #[error("its header page has bytes where there must be zeros")]
    Rest,
}

/// Makes the page of a new file of `vm`.
pub fn encode(nonce: &[u8; NONCE_LEN], vm: Uuid, mac: &MacKey) -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    page[..VERSION_AT].copy_from_slice(MAGIC);
    page[VERSION_AT..FEATURES_AT].copy_from_slice(&VERSION.to_le_bytes());
    page[FEATURES_AT..NONCE_AT].copy_from_slice(&FEATURES.to_le_bytes());
    page[NONCE_AT..VM_AT].copy_from_slice(nonce);
    page[VM_AT..MAC_AT].copy_from_slice(vm.as_bytes());
    let tag = mac.tag(&[&page[..MAC_AT]]);
    page[MAC_AT..END].copy_from_slice(&tag);
    page
}

/// Reads a page; nothing in it is believed before the MAC fits, but what it claims is used to say why it is
/// refused.
///
/// # Errors
/// A [`HeaderFault`] for every page that [`encode`] did not make for this VM and key.
pub fn decode(page: &[u8; PAGE_LEN], vm: Uuid, mac: &MacKey) -> Result<Header, HeaderFault> {
    if page.iter().all(|&byte| byte == 0) {
        return Ok(Header::Blank);
    }
    if page[..VERSION_AT] != *MAGIC {
        return Err(HeaderFault::Magic);
    }
    let (version, features) = (number(page, VERSION_AT), number(page, FEATURES_AT));
    if (version, features) != (VERSION, FEATURES) {
        return Err(HeaderFault::Unsupported { version, features });
    }
    let owner = Uuid::from_bytes(array(page, VM_AT));
    if owner != vm {
        return Err(HeaderFault::Foreign(owner));
    }
    if !mac.verify(&[&page[..MAC_AT]], &page[MAC_AT..END]) {
        return Err(HeaderFault::Mac);
    }
    if page[END..].iter().any(|&byte| byte != 0) {
        return Err(HeaderFault::Rest);
    }
    Ok(Header::Nonce(array(page, NONCE_AT)))
}

fn number(page: &[u8; PAGE_LEN], at: usize) -> u32 {
    u32::from_le_bytes(array(page, at))
}

fn array<const N: usize>(page: &[u8; PAGE_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&page[at..at + N]);
    bytes
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
