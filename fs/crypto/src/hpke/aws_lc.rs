//! Owns the calls of AWS-LC for HPKE (RFC 9180).
//!
//! It must not know what is sealed, nor to whom. Flow: each function makes the objects of the library, uses them once and
//! frees them; key bytes come and go in slices of the caller's, and the stack below is overwritten afterwards.

use std::ptr::NonNull;

use aws_lc_sys::{
    EVP_HPKE_AEAD, EVP_HPKE_CTX, EVP_HPKE_CTX_free, EVP_HPKE_CTX_new, EVP_HPKE_CTX_open,
    EVP_HPKE_CTX_seal, EVP_HPKE_CTX_setup_recipient, EVP_HPKE_CTX_setup_sender, EVP_HPKE_KEY,
    EVP_HPKE_KEY_free, EVP_HPKE_KEY_generate, EVP_HPKE_KEY_init, EVP_HPKE_KEY_new,
    EVP_HPKE_KEY_private_key, EVP_HPKE_KEY_public_key, EVP_hpke_aes_256_gcm, EVP_hpke_hkdf_sha256,
    EVP_hpke_x25519_hkdf_sha256,
};

use crate::stack::wiping_stack;

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The input is none that it works with, or was changed.
    Refused,
    /// The library has no memory, or gave another length than it must.
    Memory,
}

/// What is to be sealed, and what is authenticated with it.
pub(super) struct Plain<'a> {
    pub(super) info: &'a [u8],
    pub(super) aad: &'a [u8],
    pub(super) text: &'a [u8],
}

/// What was sealed, and what must be authenticated with it.
pub(super) struct Message<'a> {
    pub(super) info: &'a [u8],
    pub(super) aad: &'a [u8],
    pub(super) enc: &'a [u8],
    pub(super) text: &'a [u8],
}

/// AES-256-GCM of HPKE (RFC 9180 section 7.3).
pub(super) fn aes_256_gcm() -> *const EVP_HPKE_AEAD {
    // SAFETY: takes nothing, returns a static table.
    unsafe { EVP_hpke_aes_256_gcm() }
}

/// A new key pair of X25519 into two slices of exactly its lengths.
pub(super) fn generate(private: &mut [u8], public: &mut [u8]) -> Result<(), Fault> {
    let key = Key::new()?;
    let (mut private_len, mut public_len) = (0, 0);
    // SAFETY: `key` is a live object in its zero state and the KEM a static table. Each output pointer goes with the
    // length of the exclusive slice it comes from, and the lengths go to live variables.
    let done = wiping_stack(|| unsafe {
        EVP_HPKE_KEY_generate(key.as_ptr(), EVP_hpke_x25519_hkdf_sha256()) == 1
            && EVP_HPKE_KEY_private_key(
                key.as_ptr(),
                private.as_mut_ptr(),
                &raw mut private_len,
                private.len(),
            ) == 1
            && EVP_HPKE_KEY_public_key(
                key.as_ptr(),
                public.as_mut_ptr(),
                &raw mut public_len,
                public.len(),
            ) == 1
    });
    whole(done && private_len == private.len() && public_len == public.len())
}

/// Seals to a public key; the encapsulated key goes to `enc`, the ciphertext with its tag to `text`, both of exactly their
/// lengths.
pub(super) fn seal(
    public: &[u8],
    plain: &Plain<'_>,
    enc: &mut [u8],
    text: &mut [u8],
) -> Result<(), Fault> {
    let context = Context::new()?;
    let (mut enc_len, mut text_len) = (0, 0);
    // SAFETY: `context` is a live object in its zero state, the algorithms are static tables, and each pointer goes with
    // the length of the live slice it comes from.
    let ready = wiping_stack(|| unsafe {
        EVP_HPKE_CTX_setup_sender(
            context.as_ptr(),
            enc.as_mut_ptr(),
            &raw mut enc_len,
            enc.len(),
            EVP_hpke_x25519_hkdf_sha256(),
            EVP_hpke_hkdf_sha256(),
            EVP_hpke_aes_256_gcm(),
            public.as_ptr(),
            public.len(),
            plain.info.as_ptr(),
            plain.info.len(),
        ) == 1
    });
    if !ready {
        return Err(Fault::Refused);
    }
    // SAFETY: as above; `context` was set up to send, and the output does not overlap the input.
    let done = wiping_stack(|| unsafe {
        EVP_HPKE_CTX_seal(
            context.as_ptr(),
            text.as_mut_ptr(),
            &raw mut text_len,
            text.len(),
            plain.text.as_ptr(),
            plain.text.len(),
            plain.aad.as_ptr(),
            plain.aad.len(),
        ) == 1
    });
    whole(done && enc_len == enc.len() && text_len == text.len())
}

/// Opens what was sealed to the public key of `private` into `out`, which has exactly the length of the plain text.
pub(super) fn open(
    aead: *const EVP_HPKE_AEAD,
    private: &[u8],
    message: &Message<'_>,
    out: &mut [u8],
) -> Result<(), Fault> {
    let key = Key::new()?;
    let context = Context::new()?;
    let mut len = 0;
    // SAFETY: `key` and `context` are live objects in their zero state, the algorithms are static tables, and each pointer
    // goes with the length of the live slice it comes from; the output does not overlap an input.
    let opened = wiping_stack(|| unsafe {
        EVP_HPKE_KEY_init(
            key.as_ptr(),
            EVP_hpke_x25519_hkdf_sha256(),
            private.as_ptr(),
            private.len(),
        ) == 1
            && EVP_HPKE_CTX_setup_recipient(
                context.as_ptr(),
                key.as_ptr(),
                EVP_hpke_hkdf_sha256(),
                aead,
                message.enc.as_ptr(),
                message.enc.len(),
                message.info.as_ptr(),
                message.info.len(),
            ) == 1
            && EVP_HPKE_CTX_open(
                context.as_ptr(),
                out.as_mut_ptr(),
                &raw mut len,
                out.len(),
                message.text.as_ptr(),
                message.text.len(),
                message.aad.as_ptr(),
                message.aad.len(),
            ) == 1
    });
    if opened && len == out.len() { Ok(()) } else { Err(Fault::Refused) }
}

fn whole(done: bool) -> Result<(), Fault> {
    if done { Ok(()) } else { Err(Fault::Memory) }
}

/// A key object of AWS-LC.
struct Key(NonNull<EVP_HPKE_KEY>);

impl Key {
    fn new() -> Result<Self, Fault> {
        // SAFETY: takes nothing, returns a new object in its zero state or null.
        let raw = unsafe { EVP_HPKE_KEY_new() };
        NonNull::new(raw).map(Self).ok_or(Fault::Memory)
    }

    fn as_ptr(&self) -> *mut EVP_HPKE_KEY {
        self.0.as_ptr()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: it came from EVP_HPKE_KEY_new and is freed once, here; the private key is cleansed on the way.
        unsafe { EVP_HPKE_KEY_free(self.0.as_ptr()) }
    }
}

/// A context of AWS-LC for one message.
struct Context(NonNull<EVP_HPKE_CTX>);

impl Context {
    fn new() -> Result<Self, Fault> {
        // SAFETY: takes nothing, returns a new object in its zero state or null.
        let raw = unsafe { EVP_HPKE_CTX_new() };
        NonNull::new(raw).map(Self).ok_or(Fault::Memory)
    }

    fn as_ptr(&self) -> *mut EVP_HPKE_CTX {
        self.0.as_ptr()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it came from EVP_HPKE_CTX_new and is freed once, here; its keys are cleansed on the way.
        unsafe { EVP_HPKE_CTX_free(self.0.as_ptr()) }
    }
}
