//! Owns the conversion of slices to arrays whose length the caller has fixed.
//!
//! It must not know what the bytes are. Flow: a mismatch, which only a fault of this program can
//! cause, becomes [`KeyError::Primitive`] instead of a panic.

use crate::KeyError;

/// `bytes` as an array of `N`.
pub(crate) fn fixed<'a, const N: usize>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<&'a [u8; N], KeyError> {
    bytes.try_into().map_err(|_| KeyError::Primitive(what))
}
