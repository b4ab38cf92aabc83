//! The text of a wrap: `vault:vN:` and base64.
//!
//! Owns what can be read from it without the key: its version and the length of the key inside. It must not know servers.

use crypto::{OpaqueKey, WrapAlg, Wrapped};

/// Begins every wrap; the version follows.
const PREFIX: &[u8] = b"vault:v";

/// Bytes that AES-256-GCM adds: a nonce of 96 bits before, a tag of 128 bits behind (NIST SP 800-38D).
const GCM_BYTES: usize = 12 + 16;

/// Lengths of data keys in bytes: of a home and of a disk.
const KEY_LENGTHS: [usize; 2] = [32, 64];

/// What a wrap shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Version of the key that wrapped it.
    pub version: u64,
    /// Bytes of the key inside.
    pub key_len: usize,
}

impl Shape {
    /// What the text of a wrap shows; `None` when it is no wrap of a data key.
    #[must_use]
    pub fn of(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let colon = rest.iter().position(|byte| *byte == b':')?;
        let (version, code) = rest.split_at(colon);
        let code = code.get(1..)?;
        if version.first() == Some(&b'0') || !version.iter().all(u8::is_ascii_digit) {
            return None;
        }
        // 32 bits, as the format of files has it.
        let version = std::str::from_utf8(version).ok()?.parse::<u32>().ok()?;
        let fits = |len: &usize| code.len() == OpaqueKey::base64_len(len + GCM_BYTES);
        let key_len = KEY_LENGTHS.into_iter().find(fits)?;
        let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        code.iter().all(base64).then_some(Self { version: u64::from(version), key_len })
    }

    /// That of a wrap by a transit engine.
    #[must_use]
    pub fn of_wrapped(wrapped: &Wrapped) -> Option<Self> {
        if wrapped.alg == WrapAlg::Transit { Self::of(&wrapped.blob) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_of_data_keys_are_told_from_everything_else() {
        let code = |len: usize| "A".repeat(OpaqueKey::base64_len(len + GCM_BYTES) - 1) + "=";
        for (version, len) in [("1", 32), ("12", 64), ("4294967295", 32)] {
            let shape = Shape::of(format!("vault:v{version}:{}", code(len)).as_bytes()).unwrap();
            assert_eq!((shape.version.to_string().as_str(), shape.key_len), (version, len));
        }
        let long = code(32);
        for text in [
            String::new(),
            "vault:v1".into(),
            "vault:v1:".into(),
            format!("vault:v0:{long}"),
            format!("vault:v:{long}"),
            format!("vault:v+1:{long}"),
            format!("vault:v4294967296:{long}"),
            format!("vault:1:{long}"),
            format!("vault:v1:{long}="),
            format!("vault:v1:{}", code(16)),
            format!("vault:v1:{}", long.replacen('A', "-", 1)),
            format!("vault:v1:{}", long.replacen('A', ":", 1)),
        ] {
            assert_eq!(Shape::of(text.as_bytes()), None, "{text}");
        }
        let wrapped = Wrapped { alg: WrapAlg::A256KW, blob: format!("vault:v1:{long}").into() };
        assert_eq!(Shape::of_wrapped(&wrapped), None);
    }
}
