//! Answers of a TPM: whatever comes, nothing is taken for a key, no command goes out without end, and no key memory stays. An
//! answer that gives a key has to be authenticated by a secret that the input cannot know.

#![no_main]

use crypto::{Arena, Kek};
use kms_client::native::tpm::{
    Address, Line, MAX_MESSAGE, PcrSet, PcrValue, Sealed, Tpm, TpmFault,
};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use zeroize::Zeroizing;

static ARENA: LazyLock<Arena> = LazyLock::new(|| Arena::new(64 * 1024).expect("locked memory"));

/// Digest of the storage key in the seeds, so that an input can get further than to "another TPM".
const PARENT: [u8; 32] = [
    0xe5, 0x14, 0x83, 0xb1, 0x75, 0xe6, 0x91, 0x87, 0xdd, 0x5f, 0x6a, 0xe7, 0x61, 0xb0, 0x77, 0x2f,
    0xab, 0xb8, 0x70, 0x00, 0xa8, 0x1d, 0x6a, 0x91, 0xe2, 0x69, 0x1a, 0x77, 0x8e, 0xe5, 0xce, 0x0c,
];

/// Answers in a row: two bytes of length, big-endian, then so many bytes.
struct Answers<'a> {
    rest: &'a [u8],
    commands: usize,
}

impl Line for Answers<'_> {
    fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmFault> {
        assert!((10..=MAX_MESSAGE).contains(&command.len()));
        assert_eq!(command[2..6], u32::try_from(command.len()).expect("short").to_be_bytes());
        self.commands += 1;
        assert!(self.commands < 100, "a dialogue without end");
        let (length, rest) = self.rest.split_first_chunk().ok_or(TpmFault::Silent(0))?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (answer, rest) = rest.split_at(length);
        self.rest = rest;
        Ok(Zeroizing::new(answer.to_vec()))
    }

    fn pause(&mut self) -> Result<(), TpmFault> {
        if self.commands > 20 { Err(TpmFault::Silent(0)) } else { Ok(()) }
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = text.parse::<Address>()
    {
        assert_eq!(address.to_string(), text);
    }
    let Some((pcrs, rest)) = bytes.split_first() else { return };
    let tpm = || Tpm::over(Box::new(Answers { rest, commands: 0 }));
    let values = (0..pcrs % 3).map(|pcr| PcrValue { pcr, value: [0; 32] }).collect();
    let sealed =
        Sealed { parent: PARENT, public: vec![1; 78], private: vec![2; 158], pcrs: values };
    assert!(tpm().unseal(&ARENA, &sealed).is_err());
    let set = PcrSet::new(&[pcrs % 24]).expect("there is such a PCR");
    let kek = Kek::generate(&ARENA).expect("key memory");
    assert!(tpm().seal(&ARENA, &kek, set).is_err());
    drop(kek);
    assert_eq!(ARENA.usage().used, 0, "a key that nobody took is gone");
});
