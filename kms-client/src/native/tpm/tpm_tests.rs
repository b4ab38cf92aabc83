//! Commands and answers as bytes. The golden ones are what a script of its own exchanged with swtpm; a TPM that lies is made up.

use super::codes::fault;
use super::fault::TpmFault;
use super::pcrs::{self, PcrSet, PcrValue};
use super::wire::{self, Answer, Code};
use super::{Address, Line, MAX_MESSAGE, Sealed, Tpm};
use crypto::{Arena, Kek};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, proptest};
use zeroize::Zeroizing;

const CREATE_PRIMARY: &str = "800200000083000001314000000100000009400000090000000000000400000000005a0023000b0003047200000006008000430010000300100020000000000000000000000000000000000000000000000000000000000000000000200000000000000000000000000000000000000000000000000000000000000000000000000000";
const PRIMARY: &str = "80020000013a000000008000000000000123005a0023000b0003047200000006008000430010000300100020bb47773d45aa9cea56960e9474432a45aa769eda007d1f925989980d6c13763b0020ae46d6b4db19d92a53bb701238ba8f3ebc3eb768f141a5661a4ddc7a901f396f0037000000000020e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855010010000440000001000440000001000000205da041bac0ee3135aebb0cadfba497c6a1877fae832dd3d1f8f7a871b825e8548021400000010040a8dc2e6a3762cfc4d71f58170b916047edda24804131907ae39cedd7a34942fa752d1da13be6a76451547d6c5f59a4d66f4f784c1ba998998e7abcc8637aa6120022000be51483b175e69187dd5f6ae761b0772fabb87000a81d6a91e2691a778ee5ce0c0000010000";

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// Answers in a row, whatever is asked; what was asked is kept.
struct Script<'a> {
    answers: std::vec::IntoIter<Vec<u8>>,
    asked: &'a mut Vec<Vec<u8>>,
}

impl Line for Script<'_> {
    fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmFault> {
        self.asked.push(command.to_vec());
        self.answers.next().map(Zeroizing::new).ok_or(TpmFault::Silent(1))
    }

    fn pause(&mut self) -> Result<(), TpmFault> {
        Ok(())
    }
}

/// What becomes of an unsealing whose TPM gives these answers, and the commands.
fn unseal(answers: Vec<Vec<u8>>, parent: [u8; 32]) -> (TpmFault, Vec<Vec<u8>>) {
    let arena = Arena::new(64 << 10).unwrap();
    let mut asked = Vec::new();
    let line = Script { answers: answers.into_iter(), asked: &mut asked };
    let sealed = Sealed { parent, public: vec![1; 78], private: vec![2; 158], pcrs: Vec::new() };
    let error = Tpm::over(Box::new(line)).unseal(&arena, &sealed).unwrap_err();
    assert_eq!(arena.usage().used, 0);
    (error, asked)
}

#[test]
fn commands_and_answers_are_those_of_the_standard() {
    let (error, asked) = unseal(vec![hex(PRIMARY)], [0; 32]);
    assert!(matches!(error, TpmFault::OtherTpm), "{error}");
    assert_eq!(asked[0], hex(CREATE_PRIMARY));
    assert_eq!(asked[1], hex("80010000000e0000016580000000"), "the storage key is taken out again");
    assert_eq!(asked.len(), 2);

    let all = PcrSet::new(&[0, 7, 9, 11, 14, 15, 16, 17, 18, 23]).unwrap();
    let read = wire::command(Code::PCR_READ, &[], None, &all.selection()).unwrap();
    assert_eq!(read, hex("8001000000140000017e00000001000b0381ca87"));
}

#[test]
fn policies_are_those_that_a_tpm_took() {
    let only_unseal = "e613137076524bde487533865884e9732ebee3aacb095d94a6de492ec06c46fa";
    assert_eq!(pcrs::policy(&[])[..], hex(only_unseal));
    // As swtpm has them after its start: 17 to 22 are ones.
    let value = |pcr| PcrValue { pcr, value: [if matches!(pcr, 17..=22) { 255 } else { 0 }; 32] };
    let values = [0, 7, 9, 11, 14, 15, 16, 17, 18, 23].map(value);
    let expected = "e8af46f1d1b8ac948c55f146e9e7ccb201926c2d063f53c7f7eee0d171b3e85f";
    assert_eq!(pcrs::policy(&values)[..], hex(expected));
}

#[test]
fn values_of_pcrs_are_read_and_strange_ones_are_not() {
    let asked = PcrSet::new(&[18, 23]).unwrap();
    let two = format!(
        "0000001400000001000b03000084000000020020{}0020{}",
        "ff".repeat(32),
        "00".repeat(32)
    );
    let values = pcrs::read(&hex(&two), asked).unwrap();
    assert_eq!(values[0], PcrValue { pcr: 18, value: [255; 32] });
    assert_eq!((values[1], values.len()), (PcrValue { pcr: 23, value: [0; 32] }, 2));
    let none = pcrs::read(&hex("0000001400000001000b0300000000000000"), asked).unwrap();
    assert!(none.is_empty(), "a bank that is off");
    for bad in [
        two.replacen("000b03000084", "000b03000085", 1),
        two.replacen("000b03000084", "000b03000080", 1),
        two.replacen("0000000200", "0000000300", 1),
        two.replacen("0000000200", "ffffffff00", 1),
        two.replacen("0020ff", "001fff", 1),
        two.replacen("00000001000b", "0000ffff000b", 1),
        two.replacen("000b03", "000bff", 1),
    ] {
        assert_ne!(bad, two);
        pcrs::read(&hex(&bad), asked).unwrap_err();
    }
    for length in 0..two.len() / 2 {
        pcrs::read(&hex(&two[..2 * length]), asked).unwrap_err();
    }
    assert!(PcrSet::new(&[24]).is_none() && PcrSet::new(&[255]).is_none());
    assert_eq!(PcrSet::new(&[11, 7, 7]).unwrap().to_string(), "7,11");
}

#[test]
fn every_truncated_or_stretched_answer_is_refused() {
    let good = hex(PRIMARY);
    for length in 0..good.len() {
        let mut cut = good[..length].to_vec();
        let (error, _) = unseal(vec![cut.clone()], [0; 32]);
        assert!(matches!(error, TpmFault::Garbled(_)), "{length}: {error}");
        // The same with a length that fits.
        if let Some(size) = cut.get_mut(2..6) {
            size.copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        }
        let (error, _) = unseal(vec![cut], [0; 32]);
        assert!(matches!(error, TpmFault::Garbled(_)), "{length}: {error}");
    }
    let mut long = good.clone();
    long.push(0);
    assert!(matches!(unseal(vec![long], [0; 32]).0, TpmFault::Garbled(_)));
    for (at, value) in [(0, 0x81), (1, 0x01), (2, 0xff), (5, 0), (17, 0xff), (24, 1), (40, 3)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(matches!(unseal(vec![bad], [0; 32]).0, TpmFault::Garbled(_)), "byte {at}");
    }
}

#[test]
fn refusals_are_told_apart() {
    let refusal = |code: u32| [&hex("80010000000a")[..], &code.to_be_bytes()].concat();
    let of = |code| unseal(vec![refusal(code)], [0; 32]).0.to_string();
    for (code, needle) in [
        (0x921, "lockout"),
        (0x100, "not started"),
        (0x101, "failure mode"),
        (0x902, "no room"),
        (0x9a2, "password"),
        (0x98e, "password"),
        (0x123, "TPM2_CreatePrimary"),
    ] {
        assert!(of(code).contains(needle), "{code:#x}: {}", of(code));
    }
    // The TPM asks for patience, and for more than it is given.
    let (error, asked) = unseal(vec![refusal(0x922), refusal(0x90a), refusal(0x921)], [0; 32]);
    assert!(matches!(error, TpmFault::Lockout) && asked.len() == 3);
    assert!(matches!(unseal(vec![refusal(0x922)], [0; 32]).0, TpmFault::Silent(1)));
    // A code of version 1.2, and a refusal that has something to say.
    assert!(matches!(wire::answer(&hex("00c40000000a0000001e"), true), Ok(Answer::Refused(0x1e))));
    wire::answer(&hex("80010000000b0000092100"), false).unwrap_err();
    wire::answer(&hex("80010000000a00000000"), true).unwrap_err();
    wire::answer(&[0x80; MAX_MESSAGE + 1], false).unwrap_err();

    let policy = fault(Code::UNSEAL, 0x99d).of_policy(&[]);
    assert!(matches!(policy, TpmFault::Damaged), "{policy}");
    let values = [PcrValue { pcr: 7, value: [0; 32] }];
    for code in [0x128, 0x1c4] {
        let changed = fault(Code::POLICY_PCR, code).of_policy(&values);
        assert!(matches!(&changed, TpmFault::PcrsChanged(list) if *list == [7]), "{changed}");
        assert!(changed.to_string().starts_with("PCR 7 is not what it was"), "{changed}");
    }
}

#[test]
fn areas_that_no_tpm_made_are_not_sent() {
    let arena = Arena::new(64 << 10).unwrap();
    let mut asked = Vec::new();
    let answers = vec![hex(PRIMARY)].into_iter();
    let parent = wire::sha256(&[&hex(PRIMARY)[20..110]]);
    let line = Script { answers, asked: &mut asked };
    let sealed = Sealed { parent, public: vec![1; 2000], private: vec![2], pcrs: Vec::new() };
    let error = Tpm::over(Box::new(line)).unseal(&arena, &sealed).unwrap_err();
    assert!(matches!(error, TpmFault::Damaged), "{error}");
    assert_eq!(asked.len(), 2, "made and flushed, nothing loaded");
}

#[test]
fn addresses_are_spelled_in_two_ways() {
    for text in ["/dev/tpmrm0", "unix:/run/swtpm/sock"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in ["", "tpm0", "unix:", "unix:sock", "tcp:127.0.0.1:2321"] {
        text.parse::<Address>().unwrap_err();
    }
    assert_eq!(Address::default().to_string(), "/dev/tpmrm0");
}

#[test]
fn a_tpm_that_seals_in_another_way_is_not_believed() {
    let arena = Arena::new(64 << 10).unwrap();
    let kek = Kek::generate(&arena).unwrap();
    let session = hex(
        "80010000003000000000020000000020aa1197ea6a0940956c467632105f028449352f046545dc0a29c909921e7c11a6",
    );
    // An answer whose HMAC is of nobody.
    let areas = "000161000162";
    let nonce_and_attributes = format!("0020{}20", "77".repeat(32));
    let body = format!("00000006{areas}{nonce_and_attributes}0020{}", "11".repeat(32));
    let size = 10 + body.len() / 2;
    let made = hex(&format!("8002{size:08x}00000000{body}"));
    let mut asked = Vec::new();
    let answers = vec![hex(PRIMARY), session, made].into_iter();
    let line = Script { answers, asked: &mut asked };
    let error = Tpm::over(Box::new(line)).seal(&arena, &kek, PcrSet::default()).unwrap_err();
    assert!(matches!(error, TpmFault::NotAuthentic), "{error}");
    assert_eq!(asked.len(), 5, "session and storage key are flushed");
}

proptest! {
    /// The fuzz target `tpm` does the same for longer.
    #[test]
    fn no_made_up_dialogue_gives_a_key(
        made in vec((0_usize..6, vec((any::<u16>(), any::<u8>()), 0..4)), 0..12)
    ) {
        let good = [
            hex(PRIMARY),
            hex("80020000003b0000000080000001000000240022000b2c2f7f85e3e5147aaaa3e73c79545b2f91b9c0cfb1de54bc31fbddb921effd450000010000"),
            hex("80010000003000000000020000000020aa1197ea6a0940956c467632105f028449352f046545dc0a29c909921e7c11a6"),
            hex("80010000000a00000000"),
            hex("80020000007500000000000000220020f6461473b138e1a7073d6c10ef5cce01c9afb89b86fc5bb36ae07ee180037b740020938423df835a5c265541b9b12b3f2e15a4e03f6fc8dba9f34bbf5f5fb655b6164000208ac752c5e46e36354788b323b64b7cb0379a2061b5a4ac9505edb9455e8f5c21"),
            hex("80010000000a00000922"),
        ];
        let answers = made.iter().map(|(which, edits)| {
            let mut answer = good[*which].clone();
            for (at, value) in edits {
                let at = usize::from(*at) % answer.len();
                answer[at] = *value;
            }
            answer
        });
        let (_, asked) = unseal(answers.collect(), wire::sha256(&[&hex(PRIMARY)[20..110]]));
        prop_assert!(asked.len() <= made.len() + 4, "{}", asked.len());
    }
}
