//! The home key at work: headers, file keys, link tags and sealed attributes of one VM home.
//!
//! Owns the home key and the keys derived from it, but that of names (`naming`); must not know storage or sizes. Flow: a header page
//! goes in, the cipher of its file comes out, or the reason why the page is refused.

use super::error::HomeError;
use super::header::{self, Header, HeaderFault, MAC_INFO, NONCE_LEN, PAGE_LEN};
use super::{link, xattr};
use crate::safe::Names;
use crypto::{Arena, HomeKey, KeyError, MacKey, SivKey, Unit, Xts};
use std::borrow::Cow;
use uuid::Uuid;

/// Most bytes of the arena that an open file takes, with either cipher engine: its key or its key schedule. The
/// arena given to [`super::Home::open`] decides how many files can be open at one time.
pub const OPEN_FILE_ARENA: usize = 1024;

/// The keys of one VM home.
pub(crate) struct HomeKeys {
    home: HomeKey,
    mac: MacKey,
    links: LinkKey,
    values: SivKey,
    vm: Uuid,
    arena: Arena,
}

/// What protects the targets of links.
enum LinkKey {
    /// They are in clear, with a tag.
    Tag(MacKey),
    /// They are encrypted, as names are.
    Seal(SivKey),
}

impl HomeKeys {
    pub(crate) fn new(
        home: HomeKey,
        vm: Uuid,
        names: Names,
        arena: Arena,
    ) -> Result<HomeKeys, KeyError> {
        let mac = MacKey::derive(&home, &arena, MAC_INFO)?;
        let links = match names {
            Names::Plain => LinkKey::Tag(MacKey::derive(&home, &arena, link::MAC_INFO)?),
            Names::Encrypted => LinkKey::Seal(SivKey::derive(&home, &arena, link::KEY_INFO)?),
        };
        let values = SivKey::derive(&home, &arena, xattr::KEY_INFO)?;
        Ok(HomeKeys { home, mac, links, values, vm, arena })
    }

    /// The stored form of a link's target; `None` when it would be too long.
    pub(crate) fn seal_link(&self, target: &[u8]) -> Option<Vec<u8>> {
        match &self.links {
            LinkKey::Tag(mac) => link::encode(target, mac),
            LinkKey::Seal(key) => link::seal(target, key),
        }
    }

    /// The target in a stored form, if it was made with the key of this home.
    pub(crate) fn open_link<'a>(
        &self,
        stored: &'a [u8],
        file: impl FnOnce() -> String,
    ) -> Result<Cow<'a, [u8]>, HomeError> {
        let what = "it is a link that was not made in the mounted home, or was edited";
        let target = match &self.links {
            LinkKey::Tag(mac) => link::decode(stored, mac).map(Cow::Borrowed),
            LinkKey::Seal(key) => link::open(stored, key).map(Cow::Owned),
        };
        target.ok_or_else(|| HomeError::Damaged { file: file(), what })
    }

    /// Length of the target of a link whose stored one has so many bytes.
    pub(crate) fn link_len(&self, stored: u64) -> u64 {
        match &self.links {
            LinkKey::Tag(_) => link::plain_len(stored),
            LinkKey::Seal(_) => link::opened_len(stored),
        }
    }

    /// The stored form of the value of an extended attribute, in `room`; see [`xattr::seal`].
    pub(crate) fn seal_value<'a>(
        &self,
        name: &[u8],
        value: &[u8],
        nonce: &[u8; xattr::NONCE_LEN],
        room: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        xattr::seal(name, value, nonce, &self.values, room)
    }

    /// The value in a stored form, in place, if it was sealed for this name with the key of this home.
    pub(crate) fn open_value<'a>(
        &self,
        name: &[u8],
        stored: &'a mut [u8],
        file: impl FnOnce() -> String,
    ) -> Result<&'a [u8], HomeError> {
        let what = "an extended attribute was not set in the mounted home, or was edited";
        xattr::open(name, stored, &self.values)
            .ok_or_else(|| HomeError::Damaged { file: file(), what })
    }

    /// The cipher of the file with this header page; `None` for a page of zeros.
    pub(crate) fn open(&self, page: &[u8; PAGE_LEN], file: &str) -> Result<Option<Xts>, HomeError> {
        let named = || file.to_owned();
        let damaged = |what| HomeError::Damaged { file: named(), what };
        match header::decode(page, self.vm, &self.mac) {
            Ok(Header::Blank) => Ok(None),
            Ok(Header::Nonce(nonce)) => self.cipher(&nonce, file).map(Some),
            Err(HeaderFault::Foreign(owner)) => Err(HomeError::Foreign { file: named(), owner }),
            Err(HeaderFault::Unsupported { version, features }) => {
                Err(HomeError::Unsupported { file: named(), version, features })
            }
            Err(HeaderFault::Magic) => Err(damaged("its header has no magic number")),
            Err(HeaderFault::Mac) => Err(damaged("its header fails authentication")),
            Err(HeaderFault::Rest) => Err(damaged("its header page is not empty after the header")),
        }
    }

    /// A header page with a fresh nonce, and the cipher that belongs to it.
    pub(crate) fn create(&self, file: &str) -> Result<([u8; PAGE_LEN], Xts), HomeError> {
        let key_fault = |source| HomeError::Key { file: file.to_owned(), source };
        let nonce = crypto::random_array::<NONCE_LEN>().map_err(key_fault)?;
        let cipher = self.cipher(&nonce, file)?;
        Ok((header::encode(&nonce, self.vm, &self.mac), cipher))
    }

    fn cipher(&self, nonce: &[u8; NONCE_LEN], file: &str) -> Result<Xts, HomeError> {
        let key_fault = |source| HomeError::Key { file: file.to_owned(), source };
        let key = self.home.file_key(&self.arena, nonce).map_err(key_fault)?;
        Ok(Xts::new(key, Unit::B4096)?)
    }
}
