use super::*;
use crate::descriptor::Descriptor;
use crate::safe::{Names, Policy, Safe};
use crate::testing::{TestKek, arena, descriptor, safe};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::fs;
use tempfile::TempDir;

/// A written safe and what opens it.
struct Fixture {
    arena: Arena,
    kek: TestKek,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let arena = arena();
        let kek = TestKek::new(&arena, "native/k1");
        let folder = tempfile::tempdir().unwrap();
        let fixture = Self { arena, kek, folder };
        let (mut body, key) = safe(&fixture.arena, &[&fixture.kek]);
        create(&fixture.path(), &mut body, &key, &fixture.arena).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vm.safe")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// The result of parsing and opening these bytes instead of the file.
    fn open(&self, bytes: &[u8]) -> Result<Safe, SealError> {
        let sealed = Sealed::<Safe>::parse(&self.path(), bytes)?;
        sealed.open(&self.kek.kek, &self.kek.id, &self.arena).map(|(body, _)| body)
    }

    /// The error after replacing a text in the file.
    fn edited(&self, from: &str, to: &str) -> SealError {
        let text = String::from_utf8(self.bytes()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        self.open(text.replacen(from, to, 1).as_bytes()).unwrap_err()
    }
}

macro_rules! assert_error {
    ($error:expr, $($pattern:tt)+) => {{
        let error = $error;
        assert!(matches!(&error, $($pattern)+), "{error:?}");
        error.to_string()
    }};
}

#[test]
fn what_was_created_opens() {
    let fixture = Fixture::new();
    let sealed = Sealed::<Safe>::read(&fixture.path()).unwrap();
    assert_eq!(sealed.key_ids().collect::<Vec<_>>(), [&fixture.kek.id]);
    assert_eq!(sealed.unverified().name.as_str(), "web01");
    let (body, _) = sealed.open(&fixture.kek.kek, &fixture.kek.id, &fixture.arena).unwrap();
    assert_eq!((body.sequence, body.id), (1, uuid::Uuid::from_u128(7)));
}

#[test]
fn the_file_is_two_lines_of_json() {
    let text = String::from_utf8(Fixture::new().bytes()).unwrap();
    let lines: Vec<_> = text.split('\n').collect();
    assert_eq!((lines.len(), lines[2]), (3, ""));
    let body: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&body["format"], &body["version"]), (&"coffer-safe".into(), &1.into()));
    assert_eq!(body["wraps"][0]["alg"], "A256KW");
    assert_eq!(body["wraps"][0]["blob"].as_str().unwrap().len(), 80, "32 + 8 bytes in hex");
    assert_eq!(body["policy"]["on_key_loss"], "keep");
    let mac: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(mac["mac"].as_str().unwrap().len(), 64);
    assert_eq!(lines[1].len(), 74);
}

/// The policy of names stands twice in a safe, as what it is and as a feature, so that older programs refuse the file.
#[test]
fn encrypted_names_are_a_feature() {
    let fixture = Fixture::new();
    let policy = Policy { names: Names::Encrypted, ..Policy::default() };
    let (plain, key) = safe(&fixture.arena, &[&fixture.kek]);
    let mut body = Safe::new(plain.id, plain.name, policy, plain.wraps);
    let path = fixture.folder.path().join("encrypted.safe");
    create(&path, &mut body, &key, &fixture.arena).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""features":["encrypted-names"]"#), "{text}");
    assert!(text.contains(r#""names":"encrypted""#), "{text}");
    let open = |path: &Path| {
        Sealed::<Safe>::read(path)?.open(&fixture.kek.kek, &fixture.kek.id, &fixture.arena)
    };
    let (mut read, key) = open(&path).unwrap();
    assert_eq!(read, body);
    read.name = "web02".parse().unwrap();
    replace(&path, &mut read, &key, &fixture.arena).unwrap();
    assert_eq!(open(&path).unwrap().0.policy, policy, "it outlives a replacement");
    // One without the other, and once too often.
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        (r#""names":"encrypted""#, r#""names":"plain""#),
        (r#"["encrypted-names"]"#, "[]"),
        (r#"["encrypted-names"]"#, r#"["encrypted-names","encrypted-names"]"#),
    ] {
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = open(&path).map(|_| ()).unwrap_err();
        assert_error!(error, SealError::Damaged { what: Flaw::Features, .. });
    }
    // Nor can both be taken back, or a plain safe be given them.
    let edited = text.replace(r#"["encrypted-names"]"#, "[]").replace("encrypted", "plain");
    std::fs::write(&path, edited).unwrap();
    let error = open(&path).map(|_| ()).unwrap_err();
    assert_error!(error, SealError::MacMismatch { .. });
}

#[test]
fn create_never_replaces() {
    let fixture = Fixture::new();
    let before = fixture.bytes();
    let (mut body, key) = safe(&fixture.arena, &[&fixture.kek]);
    let error = create(&fixture.path(), &mut body, &key, &fixture.arena).unwrap_err();
    assert_error!(error, SealError::Exists { .. });
    assert_eq!(fixture.bytes(), before);
}

#[test]
fn replace_counts_and_refuses_a_stale_body() {
    let fixture = Fixture::new();
    let open = || {
        let sealed = Sealed::<Safe>::read(&fixture.path()).unwrap();
        sealed.open(&fixture.kek.kek, &fixture.kek.id, &fixture.arena).unwrap()
    };
    let (mut first, key) = open();
    let (mut second, _) = open();
    first.name = "web02".parse().unwrap();
    replace(&fixture.path(), &mut first, &key, &fixture.arena).unwrap();
    assert_eq!((open().0.name.as_str(), open().0.sequence), ("web02", 2));
    let error = replace(&fixture.path(), &mut second, &key, &fixture.arena).unwrap_err();
    assert_error!(error, SealError::Stale { expected: 1, found: 2, .. });
    assert_eq!((second.sequence, open().0.name.as_str()), (1, "web02"));
}

#[test]
fn replace_needs_a_file() {
    let fixture = Fixture::new();
    let (mut body, key) = safe(&fixture.arena, &[&fixture.kek]);
    let path = fixture.folder.path().join("other.safe");
    let error = replace(&path, &mut body, &key, &fixture.arena).unwrap_err();
    assert_error!(error, SealError::Missing { .. });
    assert_eq!(body.sequence, 0);
}

#[test]
fn each_of_several_keys_opens() {
    let arena = arena();
    let keks = ["native/a", "native/b", "vault/recovery"].map(|id| TestKek::new(&arena, id));
    let (mut body, key) = safe(&arena, &[&keks[0], &keks[1]]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.safe");
    create(&path, &mut body, &key, &arena).unwrap();
    let open = |kek: &TestKek| Sealed::<Safe>::read(&path).unwrap().open(&kek.kek, &kek.id, &arena);
    // A shallow recrypt: opened by one key, wrapped by another, the first wrap dropped.
    let (mut body, key) = open(&keks[1]).unwrap();
    let wrap = Wrap::make(&keks[2].kek, &keks[2].id, &key).unwrap();
    let kept = body.wraps[1].clone();
    body.set_wraps(vec![kept, wrap]);
    replace(&path, &mut body, &key, &arena).unwrap();
    assert_eq!(open(&keks[2]).unwrap().0, body);
    assert_eq!(open(&keks[1]).unwrap().0, body);
    let text = assert_error!(open(&keks[0]).map(|_| ()).unwrap_err(), SealError::NoWrap { .. });
    assert!(text.contains("native/a"), "{text}");
}

#[test]
fn a_wrong_key_is_told_from_a_damaged_blob() {
    let fixture = Fixture::new();
    let other = TestKek::new(&fixture.arena, "native/k1");
    let sealed = Sealed::<Safe>::read(&fixture.path()).unwrap();
    let error = sealed.open(&other.kek, &other.id, &fixture.arena).map(|_| ()).unwrap_err();
    assert_error!(error, SealError::WrongKey { .. });
    let text = String::from_utf8(fixture.bytes()).unwrap();
    let blob = text.find("\"blob\":\"").unwrap() + 8;
    let digit = if &text[blob..=blob] == "0" { "1" } else { "0" };
    let damaged = format!("{}{digit}{}", &text[..blob], &text[blob + 1..]);
    assert_error!(fixture.open(damaged.as_bytes()).unwrap_err(), SealError::DamagedWrap { .. });
}

#[test]
fn edits_do_not_pass_the_mac() {
    let fixture = Fixture::new();
    for (from, to) in [
        ("\"name\":\"web01\"", "\"name\":\"web02\""),
        ("\"on_key_loss\":\"keep\"", "\"on_key_loss\":\"fail\""),
        ("\"sequence\":1", "\"sequence\":2"),
        ("\"features\":[],", "\"features\":[], "),
        ("00000007", "00000006"),
    ] {
        assert_error!(fixture.edited(from, to), SealError::MacMismatch { .. });
    }
}

#[test]
fn foreign_files_are_not_ours() {
    let fixture = Fixture::new();
    for bytes in [&b"QFI\xfb\0\0\0\x03"[..], b"\x7fELF", b"[]\n{}\n", b"{}\n{}\n", &[0; 4096]] {
        let error = fixture.open(bytes).unwrap_err();
        assert_error!(error, SealError::NotOurs { found: None, .. });
    }
    let (mut disk, key) = descriptor(&fixture.arena, &fixture.kek, 4096);
    let path = fixture.folder.path().join("root.disk");
    create(&path, &mut disk, &key, &fixture.arena).unwrap();
    let text = assert_error!(
        Sealed::<Safe>::read(&path).unwrap_err(),
        SealError::NotOurs { found: Some(_), .. }
    );
    assert!(text.contains("not a coffer-safe file (its format is \"coffer-disk\")"), "{text}");
}

#[test]
fn the_future_is_refused_as_such() {
    let fixture = Fixture::new();
    for found in [0, 2, u64::MAX] {
        let error = fixture.edited("\"version\":1", &format!("\"version\":{found}"));
        assert_error!(error, SealError::UnsupportedVersion { found: f, .. } if *f == found);
    }
    // A later version may have fields that this one has not.
    let error = fixture.edited("\"version\":1", "\"version\":2,\"kind\":{\"x\":[1,2]}");
    assert_error!(error, SealError::UnsupportedVersion { found: 2, .. });
    let error = fixture.edited("\"features\":[]", "\"features\":[\"verified\"],\"tags\":3");
    let text = assert_error!(error, SealError::UnsupportedFeature { .. });
    assert!(text.contains("\"verified\""), "{text}");
    let error = fixture.edited("\"features\":[]", "\"features\":[],\"tags\":3");
    let text = assert_error!(error, SealError::Damaged { what: Flaw::Body(_), .. });
    assert!(text.contains("tags"), "{text}");
}

#[test]
fn wraps_are_counted_and_measured() {
    let fixture = Fixture::new();
    let text = String::from_utf8(fixture.bytes()).unwrap();
    let start = text.find("\"wraps\":[").unwrap() + 9;
    let wrap = &text[start..text.find("]}\n").unwrap()];
    let flaw = |wraps: String| match fixture.edited(wrap, &wraps) {
        SealError::Damaged { what, .. } => what,
        error => panic!("{error:?}"),
    };
    assert_eq!(flaw(String::new()), Flaw::NoWraps);
    assert_eq!(flaw(format!("{wrap},{wrap}")), Flaw::SameKeyTwice(fixture.kek.id.clone()));
    assert_eq!(flaw([wrap; MAX_WRAPS + 1].join(",")), Flaw::TooManyWraps(MAX_WRAPS + 1));
    let short = wrap.replace("\"blob\":\"", "\"blob\":\"\",\"x\":\"");
    assert!(matches!(flaw(short), Flaw::Body(_)), "an unknown field of a wrap");
    let cut = format!("{}\"}}", &wrap[..wrap.len() - 4]);
    let key = fixture.kek.id.clone();
    assert_eq!(flaw(cut), Flaw::WrapLength { key, len: 39, expected: 40 });
    assert!(matches!(flaw(wrap.replace("A256KW", "none")), Flaw::Body(_)));
}

#[test]
fn a_body_that_could_not_be_read_is_not_written() {
    let fixture = Fixture::new();
    let (mut body, key) = safe(&fixture.arena, &[]);
    let path = fixture.folder.path().join("other.safe");
    let error = create(&path, &mut body, &key, &fixture.arena).unwrap_err();
    assert_error!(error, SealError::Refused { what: Flaw::NoWraps, .. });
    assert!(!path.exists());
}

#[test]
fn the_shape_of_the_file_is_strict() {
    let fixture = Fixture::new();
    let bytes = fixture.bytes();
    assert_error!(fixture.open(b"").unwrap_err(), SealError::Damaged { what: Flaw::Empty, .. });
    let more = [&bytes[..], b"\n"].concat();
    assert_error!(fixture.open(&more).unwrap_err(), SealError::Damaged { what: Flaw::MacLine, .. });
    let crlf = String::from_utf8(bytes.clone()).unwrap().replace('\n', "\r\n");
    let error = fixture.open(crlf.as_bytes()).unwrap_err();
    assert_error!(error, SealError::Damaged { what: Flaw::MacLine, .. });
    let large = [&bytes[..], &[b' '; MAX_SEALED]].concat();
    assert_error!(fixture.open(&large).unwrap_err(), SealError::TooLarge { .. });
    for end in 0..bytes.len() {
        let error = fixture.open(&bytes[..end]).unwrap_err();
        assert_error!(error, SealError::Damaged { .. } | SealError::NotOurs { .. });
    }
}

/// What may be said when a byte at `at` is changed, by the field that it is in.
fn fits(text: &str, at: usize, error: &SealError) -> bool {
    let field = |name: &str| {
        let start = text.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        let end = start + text[start..].find([',', '}', ']']).unwrap();
        (start..end).contains(&at)
    };
    let general = matches!(error, SealError::Damaged { .. } | SealError::MacMismatch { .. });
    general
        || (at < 40 && matches!(error, SealError::NotOurs { .. }))
        || (field("version") && matches!(error, SealError::UnsupportedVersion { .. }))
        || (field("key") && matches!(error, SealError::NoWrap { .. }))
        || (field("blob") && matches!(error, SealError::DamagedWrap { .. }))
}

/// Changes each byte of a file in several ways and opens it.
fn change_each_byte<B: Body>(path: &Path, kek: &TestKek, arena: &Arena) {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    for (at, change) in
        (0..bytes.len()).flat_map(|at| [1, 2, 0x20, 0x80].map(|change| (at, change)))
    {
        let mut changed = bytes.clone();
        changed[at] ^= change;
        let opened = Sealed::<B>::parse(path, &changed)
            .and_then(|sealed| sealed.open(&kek.kek, &kek.id, arena).map(|_| ()));
        let error = opened.expect_err("a changed file opened");
        assert!(fits(&text, at, &error), "byte {at} ^ {change:#x}: {error:?}");
    }
}

#[test]
fn each_changed_byte_of_a_safe_is_refused() {
    let fixture = Fixture::new();
    change_each_byte::<Safe>(&fixture.path(), &fixture.kek, &fixture.arena);
}

#[test]
fn each_changed_byte_of_a_descriptor_is_refused() {
    let fixture = Fixture::new();
    let (mut disk, key) = descriptor(&fixture.arena, &fixture.kek, 1 << 30);
    let path = fixture.folder.path().join("root.disk");
    create(&path, &mut disk, &key, &fixture.arena).unwrap();
    change_each_byte::<Descriptor>(&path, &fixture.kek, &fixture.arena);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn any_bytes_parse_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let framed = [b"{\"format\":\"coffer-safe\",\"version\":1", &bytes[..], b"}\n"].concat();
        for bytes in [&bytes, &framed] {
            assert!(Sealed::<Safe>::parse(Path::new("x"), bytes).is_err());
            assert!(Sealed::<Descriptor>::parse(Path::new("x"), bytes).is_err());
        }
    }
}

#[test]
fn a_body_keeps_the_sequence_of_the_file_in_place() {
    let arena = crate::testing::arena();
    let kek = crate::testing::TestKek::new(&arena, "a/1");
    let (mut safe, _) = crate::testing::safe(&arena, &[&kek]);
    let path = std::path::PathBuf::from("vm.safe");
    let source = || std::io::Error::from_raw_os_error(5);
    for (error, left) in [
        (SealError::NotDurable { path: path.clone(), source: source() }, 8),
        (SealError::Io { path: path.clone(), action: "write", source: source() }, 7),
    ] {
        safe.set_sequence(8);
        assert!(keep_sequence(&mut safe, 7, Err(error)).is_err());
        assert_eq!(safe.sequence(), left);
    }
}
