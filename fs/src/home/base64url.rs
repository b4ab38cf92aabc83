//! Base64 with the alphabet for URLs and file names, without padding (RFC 4648 section 5).
//!
//! Owns the codec; does no I/O and takes no memory. Every text has one value and every value one text: what stands in
//! the bits that no byte uses must be zero (RFC 4648 section 3.5), so two stored names never mean the same.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// No character of the alphabet.
const NONE: u8 = 0xff;

/// Value of each character.
const VALUES: [u8; 256] = {
    let (mut values, mut value) = ([NONE; 256], 0_u8);
    while value < 64 {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// Characters for so many bytes.
pub(super) const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Bytes that fit in so many characters.
pub(super) const fn decoded_len(chars: usize) -> usize {
    chars * 3 / 4
}

/// Has it no character but those of the alphabet?
pub(super) fn is_text(text: &[u8]) -> bool {
    text.iter().all(|&char| VALUES[usize::from(char)] != NONE)
}

/// Writes the text of `bytes` to `out`, which must have room for it; returns its length.
pub(super) fn encode(bytes: &[u8], out: &mut [u8]) -> usize {
    for (group, text) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let byte = |at| group.get(at).copied().unwrap_or(0);
        let (a, b, c) = (byte(0), byte(1), byte(2));
        let sextets = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (place, sextet) in text.iter_mut().zip(sextets).take(group.len() + 1) {
            *place = ALPHABET[usize::from(sextet)];
        }
    }
    encoded_len(bytes.len())
}

/// Writes the bytes of a text to `out`; returns their number. `None` for what [`encode`] did not make, or has no room.
pub(super) fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = decoded_len(text.len());
    if text.len() % 4 == 1 || out.len() < len {
        return None;
    }
    for (text, bytes) in text.chunks(4).zip(out[..len].chunks_mut(3)) {
        let mut word = 0;
        for &char in text {
            let value = VALUES[usize::from(char)];
            if value == NONE {
                return None;
            }
            word = word << 6 | u32::from(value);
        }
        let [_, group @ ..] = (word << (6 * (4 - text.len()))).to_be_bytes();
        let (used, unused) = group.split_at(bytes.len());
        bytes.copy_from_slice(used);
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = vec![0; encoded_len(bytes.len())];
        assert_eq!(encode(bytes, &mut out), out.len());
        String::from_utf8(out).unwrap()
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        let mut out = vec![0; decoded_len(text.len())];
        decode(text.as_bytes(), &mut out).map(|len| out[..len].to_vec())
    }

    /// RFC 4648 section 10, and what distinguishes this alphabet.
    #[test]
    fn published_vectors() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(text(plain.as_bytes()), coded);
            assert_eq!(bytes(coded).unwrap(), plain.as_bytes());
        }
        assert_eq!(text(&[0xfb, 0xff, 0xfe]), "-__-");
    }

    #[test]
    fn one_text_for_each_value() {
        // One character is no byte; padding, the other alphabet, white space; bits that no byte uses.
        for wrong in ["Z", "Zm9vY", "Zg==", "+//+", "Zm 9", "Zh", "Zm9", "Zm9vYh", "Zm9vYmF"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(decode(b"Zm9v", &mut [0; 2]), None, "no room");
    }

    proptest! {
        #[test]
        fn there_and_back(plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(bytes(&text(&plain)).unwrap(), plain);
        }

        #[test]
        fn back_and_there(coded in "[A-Za-z0-9_-]{0,40}") {
            if let Some(plain) = bytes(&coded) {
                prop_assert_eq!(text(&plain), coded);
            }
        }
    }
}
