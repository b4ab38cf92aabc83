//! Somebody sits between us and the TPM: what he changes is noticed, what he reads is no key.

use crate::software_tpm::{SoftwareTpm, WAIT};
use crypto::{Arena, Kek};
use kms_client::native::tpm::{Line, PcrSet, Sealed, Tpm, TpmFault};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use zeroize::Zeroizing;

/// Bytes of the key that is sealed.
fn key() -> [u8; 32] {
    std::array::from_fn(|index| u8::try_from(index).unwrap() + 0x80)
}

/// Commands and answers, as they passed.
type Seen = RefCell<Vec<Vec<u8>>>;

/// The way to the TPM, on which the answer `at` is changed.
struct Tapped<'a> {
    stream: UnixStream,
    seen: &'a Seen,
    count: usize,
    at: usize,
    change: &'a dyn Fn(&mut Vec<u8>),
}

impl Line for Tapped<'_> {
    fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmFault> {
        self.stream.write_all(command).map_err(TpmFault::Line)?;
        let mut answer = vec![0; 10];
        self.stream.read_exact(&mut answer).map_err(TpmFault::Line)?;
        let size = u32::from_be_bytes(answer[2..6].try_into().unwrap());
        answer.resize(usize::try_from(size).unwrap(), 0);
        self.stream.read_exact(&mut answer[10..]).map_err(TpmFault::Line)?;
        self.seen.borrow_mut().extend([command.to_vec(), answer.clone()]);
        if self.count == self.at {
            (self.change)(&mut answer);
        }
        self.count += 1;
        Ok(Zeroizing::new(answer))
    }

    fn pause(&mut self) -> Result<(), TpmFault> {
        Err(TpmFault::Silent(0))
    }
}

fn tapped<'a>(
    tpm: &SoftwareTpm,
    seen: &'a Seen,
    at: usize,
    change: &'a dyn Fn(&mut Vec<u8>),
) -> Tpm<'a> {
    let stream = UnixStream::connect(tpm.socket()).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    Tpm::over(Box::new(Tapped { stream, seen, count: 0, at, change }))
}

fn sealed(tpm: &SoftwareTpm, arena: &Arena, seen: &Seen) -> Sealed {
    let kek = Kek::from_wire(arena, &key()).unwrap();
    let pcrs = PcrSet::new(&[7]).unwrap();
    tapped(tpm, seen, usize::MAX, &|_| ()).seal(arena, &kek, pcrs).unwrap()
}

#[test]
fn the_key_never_passes_in_clear() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let (arena, seen) = (Arena::new(64 << 10).unwrap(), Seen::default());
    let sealed = sealed(&tpm, &arena, &seen);
    let kek = tapped(&tpm, &seen, usize::MAX, &|_| ()).unseal(&arena, &sealed).unwrap();
    assert_eq!(kek.check_value(), Kek::from_wire(&arena, &key()).unwrap().check_value());
    let seen = seen.into_inner();
    assert!(seen.len() > 20, "{}", seen.len());
    for part in key().windows(4) {
        assert!(!seen.iter().any(|message| message.windows(4).any(|bytes| bytes == part)));
    }
}

/// A change, and its name.
type Change = (&'static str, Box<dyn Fn(&mut Vec<u8>)>);

/// Changes that somebody could make to an answer.
fn changes() -> Vec<Change> {
    fn sized(answer: &mut [u8]) {
        let size = u32::try_from(answer.len()).unwrap().to_be_bytes();
        answer[2..6].copy_from_slice(&size);
    }
    let mut all: Vec<Change> = vec![
        ("nothing", Box::new(Vec::clear)),
        ("cut", Box::new(|a| a.truncate(a.len() - 1))),
        (
            "cut with a fitting length",
            Box::new(|a| {
                a.truncate(a.len() - 1);
                sized(a);
            }),
        ),
        ("stretched", Box::new(|a| a.push(0))),
        (
            "stretched with a fitting length",
            Box::new(|a| {
                a.push(0);
                sized(a);
            }),
        ),
        ("another tag", Box::new(|a| a[1] ^= 3)),
        ("a huge length", Box::new(|a| a[2] = 0xff)),
        ("patience", Box::new(|a| *a = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22])),
        ("a refusal", Box::new(|a| *a = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x21])),
        ("success", Box::new(|a| *a = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0])),
        ("success with sessions", Box::new(|a| *a = vec![0x80, 2, 0, 0, 0, 10, 0, 0, 0, 0])),
        ("ones", Box::new(|a| a.iter_mut().skip(10).for_each(|byte| *byte = 0xff))),
    ];
    for place in [0.0, 0.3, 0.6, 0.9, 0.999_f32] {
        all.push(("one bit", Box::new(move |a| flip(a, place))));
    }
    all
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "any place in the answer will do"
)]
fn flip(answer: &mut [u8], place: f32) {
    let body = answer.len() - 10;
    if body > 0 {
        answer[10 + (place * body as f32) as usize] ^= 1;
    }
}

#[test]
fn no_changed_answer_gives_another_key_or_leaves_the_tpm_full() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let (arena, seen) = (Arena::new(64 << 10).unwrap(), Seen::default());
    let good = sealed(&tpm, &arena, &seen);
    let check = Kek::from_wire(&arena, &key()).unwrap().check_value();
    seen.borrow_mut().clear();
    tapped(&tpm, &seen, usize::MAX, &|_| ()).unseal(&arena, &good).unwrap();
    let answers = seen.borrow().len() / 2;
    let mut noticed = 0;
    for (name, change) in &changes() {
        for at in 0..answers {
            let opened = tapped(&tpm, &seen, at, change).unseal(&arena, &good);
            match opened {
                // A change of what nobody uses: a counter, an answer to a flush.
                Ok(kek) => assert_eq!(kek.check_value(), check, "{name} in {at}"),
                Err(_) => noticed += 1,
            }
        }
        assert_eq!(arena.usage().used, 0, "{name}");
    }
    assert!(noticed > 60, "{noticed}");
    // A handle that was changed on the way cannot be flushed; the kernel's resource manager does that. All others were.
    tpm_is_usable(&tpm, &arena, &good);
}

fn tpm_is_usable(tpm: &SoftwareTpm, arena: &Arena, good: &Sealed) {
    let seen = Seen::default();
    let opened = tapped(tpm, &seen, usize::MAX, &|_| ()).unseal(arena, good);
    assert!(matches!(opened, Ok(_) | Err(TpmFault::Full)), "{opened:?}");
}
