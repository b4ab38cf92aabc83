//! Files of version 1 that another program made (`golden/coffer_v1.py`) open and hold the right bytes;
//! what this program writes, that program reads; and the numbers of `docs/format.md` are true.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

use cryptfs::backing::{Backing, FileBacking};
use cryptfs::descriptor::{Descriptor, State};
use cryptfs::folder::VmFolder;
use cryptfs::home::header::{self, Header};
use cryptfs::home::layout::{self, Stored};
use cryptfs::home::{link, names, xattr};
use cryptfs::lease::{Holder, Leases, Renewal, Standing, Use};
use cryptfs::name::Name;
use cryptfs::safe::{Names, OnKeyLoss, Policy, Safe};
use cryptfs::seal::{Sealed, Wrap, create};
use cryptfs::volume::{Geometry, Volume};
use crypto::{
    Arena, Argon2Params, Dek, HomeKey, Kek, KeyId, MacKey, Passphrase, SivKey, Unit, Xts,
};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

const VM: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

fn arena() -> Arena {
    Arena::new(64 * 1024).unwrap()
}

/// The key-encrypting keys of the golden files, by id.
fn kek(arena: &Arena, id: &str) -> (Kek, KeyId) {
    let text = match id {
        "golden/1" => "golden",
        "recovery/2" => "golden recovery",
        _ => panic!("no golden key {id}"),
    };
    let passphrase = Passphrase::read(arena, text.as_bytes()).unwrap();
    let salt = std::array::from_fn(|n| u8::try_from(n).unwrap());
    let params = Argon2Params { memory_kib: 8192, passes: 1, lanes: 1, salt };
    (Kek::from_passphrase(arena, &passphrase, &params).unwrap(), id.parse().unwrap())
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn open_disk(arena: &Arena, disk: &str) -> (Descriptor, Dek) {
    let path = VmFolder::new(golden("v1")).descriptor(&name(disk));
    let (kek, id) = kek(arena, "golden/1");
    let (descriptor, key) =
        Sealed::<Descriptor>::read(&path).unwrap().open(&kek, &id, arena).unwrap();
    descriptor.check_place(&path, &name(disk), VM).unwrap();
    (descriptor, key)
}

fn open_volume(arena: &Arena, disk: &str) -> (Descriptor, Volume) {
    let (descriptor, key) = open_disk(arena, disk);
    let file = File::open(golden("v1/disks").join(&descriptor.payload)).unwrap();
    let geometry = descriptor.geometry(true).unwrap();
    (descriptor, Volume::open(Box::new(FileBacking::from(file)), key, geometry).unwrap())
}

/// Plaintext of the golden disks: a pattern in some ranges, zeros elsewhere.
fn expected(size: usize, written: &[std::ops::Range<usize>]) -> Vec<u8> {
    let mut plain = vec![0; size];
    for at in written.iter().cloned().flatten() {
        plain[at] = u8::try_from((at + at / 256) & 0xFF).unwrap();
    }
    plain
}

const ROOT: [std::ops::Range<usize>; 4] = [0..4096, 8192..9728, 10240..12288, 28672..32768];
const OLD: [std::ops::Range<usize>; 2] = [0..512, 4096..4608];

#[test]
fn the_safe_opens_with_each_key() {
    let arena = arena();
    let path = VmFolder::new(golden("v1")).safe();
    for id in ["golden/1", "recovery/2"] {
        let (kek, id) = kek(&arena, id);
        let (safe, _) = Sealed::<Safe>::read(&path).unwrap().open(&kek, &id, &arena).unwrap();
        assert_eq!((safe.id, safe.name.as_str(), safe.sequence), (VM, "golden", 1));
        assert_eq!(safe.policy, Policy { on_key_loss: OnKeyLoss::Keep, names: Names::Plain });
        assert_eq!(safe.wraps.len(), 2);
    }
}

#[test]
fn disks_of_both_units_hold_the_right_bytes() {
    let arena = arena();
    for (disk, unit, state, plain) in [
        ("root", Unit::B4096, State::Ready, expected(32768, &ROOT)),
        ("old", Unit::B512, State::Importing, expected(4608, &OLD)),
    ] {
        let (descriptor, volume) = open_volume(&arena, disk);
        assert_eq!((descriptor.state, volume.unit()), (state, unit));
        let mut all = vec![0; plain.len()];
        volume.read(0, &mut all).unwrap();
        assert_eq!(all, plain, "{disk}");
        let mut part = [0; 1000];
        volume.read(3333, &mut part).unwrap();
        assert_eq!(part, plain[3333..4333], "{disk}");
    }
}

#[test]
fn writing_the_same_bytes_gives_the_same_payload() {
    let arena = arena();
    for (disk, size, written) in [("root", 32768, &ROOT[..]), ("old", 4608, &OLD[..])] {
        let (descriptor, key) = open_disk(&arena, disk);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size as u64).unwrap();
        let backing = FileBacking::from(file.reopen().unwrap());
        let geometry = descriptor.geometry(false).unwrap();
        let volume = Volume::open(Box::new(backing), key, geometry).unwrap();
        let plain = expected(size, written);
        for range in written {
            volume.write(range.start as u64, &mut plain[range.clone()].to_vec()).unwrap();
        }
        let payload = fs::read(golden("v1/disks").join(&descriptor.payload)).unwrap();
        assert!(fs::read(file.path()).unwrap() == payload, "{disk}");
    }
}

/// The stored file of the home, its length and header, deciphered by hand.
#[test]
fn the_home_file_holds_the_right_bytes() {
    let arena = arena();
    let stored = fs::read(golden("v1/home/notes.txt")).unwrap();
    let size = 5000;
    assert_eq!(layout::decode(stored.len() as u64), Stored::Sized(size));
    assert_eq!(layout::physical(size), stored.len() as u64);
    let (kek, id) = kek(&arena, "golden/1");
    let safe = Sealed::<Safe>::read(&VmFolder::new(golden("v1")).safe()).unwrap();
    let (safe, home) = safe.open(&kek, &id, &arena).unwrap();
    let mac = MacKey::derive(&home, &arena, header::MAC_INFO).unwrap();
    let page = stored[..4096].try_into().unwrap();
    let Ok(Header::Nonce(nonce)) = header::decode(page, safe.id, &mac) else { panic!("header") };
    let cipher = Xts::new(home.file_key(&arena, &nonce).unwrap(), Unit::B4096).unwrap();
    let mut units = stored[4096..12288].to_vec();
    cipher.decrypt(0, &mut units).unwrap();
    let size = usize::try_from(size).unwrap();
    assert_eq!(units[..size], expected(size, std::slice::from_ref(&(0..size))));
    assert_eq!(header::encode(&nonce, safe.id, &mac)[..], stored[..4096]);
    let document = document();
    let numbers =
        [&stored[..48], &stored[48..96], &stored[4096..4112], &stored[8192..8208]].map(hex::encode);
    for number in numbers {
        assert!(document.contains(&number), "{number} is not in docs/format.md");
    }
}

#[test]
fn the_home_link_holds_the_right_target() {
    let arena = arena();
    let stored = fs::read_link(golden("v1/home/current")).unwrap().into_os_string();
    let (kek, id) = kek(&arena, "golden/1");
    let safe = Sealed::<Safe>::read(&VmFolder::new(golden("v1")).safe()).unwrap();
    let (_, home) = safe.open(&kek, &id, &arena).unwrap();
    let mac = MacKey::derive(&home, &arena, link::MAC_INFO).unwrap();
    let stored = stored.into_encoded_bytes();
    assert_eq!(link::decode(&stored, &mac), Some(&b"notes.txt"[..]));
    assert_eq!(link::encode(b"notes.txt", &mac).as_ref(), Some(&stored));
    let text = String::from_utf8(stored).unwrap();
    assert!(document().contains(&text), "{text} is not in docs/format.md");
}

/// The example of an extended attribute, which no repository can keep.
#[test]
fn the_home_attribute_opens_to_the_right_value() {
    let arena = arena();
    let (kek, id) = kek(&arena, "golden/1");
    let safe = Sealed::<Safe>::read(&VmFolder::new(golden("v1")).safe()).unwrap();
    let (_, home) = safe.open(&kek, &id, &arena).unwrap();
    let key = SivKey::derive(&home, &arena, xattr::KEY_INFO).unwrap();
    let nonce = std::array::from_fn(|at| 0xe0 + u8::try_from(at).unwrap());
    let (name, value, mut room) = (b"user.comment", b"of the golden file", [0; 64]);
    let mut stored = xattr::seal(name, value, &nonce, &key, &mut room).unwrap().to_vec();
    assert!(document().contains(&hex::encode(&stored)), "{}", hex::encode(stored));
    assert_eq!(xattr::open(name, &mut stored, &key), Some(&value[..]));
    let kept = xattr::StoredName::of(name).unwrap();
    assert_eq!(kept.as_c_str(), c"user.:ucomment");
}

/// The VM whose names are encrypted: its safe, every name, a file and the link.
#[test]
fn encrypted_names_are_those_of_the_document() {
    let (arena, document) = (arena(), document());
    let (kek, id) = kek(&arena, "golden/1");
    let folder = VmFolder::new(golden("v1-names"));
    let safe = Sealed::<Safe>::read(&folder.safe()).unwrap();
    let (safe, home) = safe.open(&kek, &id, &arena).unwrap();
    assert_eq!(safe.policy, Policy { on_key_loss: OnKeyLoss::Keep, names: Names::Encrypted });
    for line in fs::read_to_string(folder.safe()).unwrap().lines() {
        assert!(document.contains(line), "{line} is not in docs/format.md");
    }
    let key = SivKey::derive(&home, &arena, names::KEY_INFO).unwrap();
    let stored = |name: &str| {
        let encoded = names::encode(name.as_bytes(), &key).unwrap();
        String::from_utf8(encoded.as_bytes().to_vec()).unwrap()
    };
    let longest = "n".repeat(175);
    for name in ["notes.txt", "logs", "current", "a", "A", &longest] {
        let stored = stored(name);
        let mut room = names::Room::new();
        assert_eq!(names::decode(stored.as_bytes(), &key, &mut room), Some(name.as_bytes()));
        assert!(document.contains(&stored), "{stored} of {name} is not in docs/format.md");
    }
    let at = |path: &str| {
        let mut at = folder.home();
        at.extend(path.split('/').map(stored));
        at
    };
    let mac = MacKey::derive(&home, &arena, header::MAC_INFO).unwrap();
    for file in ["notes.txt", "logs/notes.txt"] {
        let page = fs::read(at(file)).unwrap()[..4096].try_into().unwrap();
        assert!(matches!(header::decode(&page, safe.id, &mac), Ok(Header::Nonce(_))), "{file}");
    }
    let key = SivKey::derive(&home, &arena, link::KEY_INFO).unwrap();
    let target = fs::read_link(at("current")).unwrap().into_os_string().into_encoded_bytes();
    assert_eq!(link::open(&target, &key), Some(b"notes.txt".to_vec()));
    assert_eq!(link::seal(b"notes.txt", &key).as_ref(), Some(&target));
    let text = String::from_utf8(target).unwrap();
    assert!(document.contains(&text), "{text} is not in docs/format.md");
}

const EXCLUSIVE: &str = "exclusive.0000000000000001";
const SHARED: &str = "shared.00000000-0000-4000-8000-00000000000b";

/// The hosts of the golden leases, the one that had the home alone and the one that shares it.
fn hosts() -> [Holder; 2] {
    [(0x0a, "host-a"), (0x0b, "host-b")].map(|(last, name)| Holder {
        id: Uuid::from_u128(VM.as_u128() - 1 + last),
        name: name.to_owned(),
    })
}

fn home_key(arena: &Arena) -> HomeKey {
    let (kek, id) = kek(arena, "golden/1");
    let safe = Sealed::<Safe>::read(&VmFolder::new(golden("v1")).safe()).unwrap();
    safe.open(&kek, &id, arena).unwrap().1
}

#[test]
fn the_leases_say_who_has_the_home() {
    let arena = arena();
    let folder = VmFolder::new(golden("v1"));
    let leases = Leases::new(&folder, VM, &home_key(&arena), &arena).unwrap();
    let [_, sharing] = hosts();
    let holders = leases.holders().unwrap();
    let [record] = &holders[..] else { panic!("{holders:?}") };
    assert_eq!((record.vm, record.how, record.epoch), (VM, Use::Shared, 1));
    assert_eq!((record.host, &record.host_name), (sharing.id, &sharing.name));
    assert_eq!((record.since, record.renewed), (1_764_038_000, 1_764_038_005));
    assert_eq!(record.standing, Standing::Held);
    let document = document();
    for file in [EXCLUSIVE, SHARED] {
        assert!(document.contains(file), "{file} is not in docs/format.md");
        for line in fs::read_to_string(folder.leases().join(file)).unwrap().lines() {
            assert!(document.contains(line), "{line} is not in docs/format.md");
        }
    }
}

#[test]
fn taking_the_same_leases_gives_the_same_files() {
    let arena = arena();
    let temporary = tempfile::tempdir().unwrap();
    let folder = VmFolder::new(temporary.path());
    let leases = Leases::new(&folder, VM, &home_key(&arena), &arena).unwrap();
    let [alone, sharing] = hosts();
    let claim = leases.take(&alone, Use::Exclusive, false, 1_764_037_800).unwrap().claim;
    leases.release(&claim, 1_764_037_925).unwrap();
    let mut claim = leases.take(&sharing, Use::Shared, false, 1_764_038_000).unwrap().claim;
    assert_eq!(leases.renew(&mut claim, 1_764_038_005).unwrap(), Renewal::Stands);
    for file in [EXCLUSIVE, SHARED] {
        let made = fs::read_to_string(folder.leases().join(file)).unwrap();
        assert_eq!(made, fs::read_to_string(golden("v1/leases").join(file)).unwrap(), "{file}");
    }
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    fs::read_to_string(path).unwrap()
}

/// Every number of the worked examples that can be computed here stands in the document.
#[test]
fn the_examples_of_the_document_are_true() {
    let arena = arena();
    let document = document();
    let stands = |what: &str, number: &str| {
        assert!(document.contains(number), "{what} {number} is not in docs/format.md");
    };
    let (kek, _) = kek(&arena, "golden/1");
    stands("check value", &kek.check_value().to_string());
    stands("wrapped key", &hex::encode(kek.wrap(&open_disk(&arena, "root").1).unwrap()));
    let file = fs::read_to_string(golden("v1/disks/root.disk")).unwrap();
    for line in file.lines() {
        stands("line of the descriptor", line);
    }
    for line in fs::read_to_string(golden("v1/vm.safe")).unwrap().lines() {
        stands("line of the safe", line);
    }
    let backing = FileBacking::from(tempfile::tempfile().unwrap());
    backing.set_len(32768).unwrap();
    let geometry = Geometry { size: 32768, unit: Unit::B4096, read_only: false };
    let backing = std::sync::Arc::new(backing);
    let shared = Box::new(std::sync::Arc::clone(&backing));
    let volume = Volume::open(shared, open_disk(&arena, "root").1, geometry).unwrap();
    volume.write(0, &mut expected(32768, &ROOT)).unwrap();
    for at in [0, 8192, 9712, 10240] {
        let mut cipher = [0; 16];
        backing.read_at(at, &mut cipher).unwrap();
        let plain = &expected(32768, &ROOT)[usize::try_from(at).unwrap()..][..16];
        stands("plaintext", &hex::encode(plain));
        stands("ciphertext", &hex::encode(cipher));
    }
    let payload = fs::read(golden("v1/disks/root.data")).unwrap();
    stands("digest of the payload", &crypto::sha256_hex(&payload));
}

/// Makes a VM folder with the golden keys and reads it with the other program.
#[test]
fn another_program_reads_what_this_one_writes() {
    let probe = ["-c", "from cryptography.hazmat.primitives.kdf.argon2 import Argon2id"];
    if !Command::new("python3").args(probe).output().is_ok_and(|out| out.status.success()) {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: needs python3 with the package cryptography\n"),
        );
        return;
    }
    let arena = arena();
    let temporary = tempfile::tempdir().unwrap();
    let folder = VmFolder::new(temporary.path());
    fs::create_dir(folder.disks()).unwrap();
    let plain = expected(1 << 20, &[1000..70_001, 500_000..500_512]);
    write_folder(&arena, &folder, &plain);
    let program = golden("coffer_v1.py");
    let out =
        Command::new("python3").arg(program).arg("read").arg(temporary.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let read: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&read["name"], &read["sequence"]), (&"other".into(), &1.into()));
    for disk in ["a", "b"] {
        assert_eq!(read["disks"][disk]["size"], 1 << 20);
        assert_eq!(read["disks"][disk]["sha256"], crypto::sha256_hex(&plain), "{disk}");
    }
    let lease = &read["leases"]["exclusive.0000000000000001"];
    assert_eq!((&lease["host_name"], &lease["standing"]), (&"host-a".into(), &"held".into()));
}

/// Writes a safe with two wraps, a lease, and the disks `a` and `b`, one of each unit, with the same content.
fn write_folder(arena: &Arena, folder: &VmFolder, plain: &[u8]) {
    let keks = [kek(arena, "golden/1"), kek(arena, "recovery/2")];
    let home = HomeKey::generate(arena).unwrap();
    let wraps = keks.iter().map(|(kek, id)| Wrap::make(kek, id, &home).unwrap()).collect();
    let mut safe = Safe::new(VM, name("other"), Policy::default(), wraps);
    create(&folder.safe(), &mut safe, &home, arena).unwrap();
    let leases = Leases::new(folder, VM, &home, arena).unwrap();
    leases.take(&hosts()[0], Use::Exclusive, false, 1).unwrap();
    let size = plain.len() as u64;
    for (number, (disk, unit)) in [("a", Unit::B512), ("b", Unit::B4096)].into_iter().enumerate() {
        let key = Dek::generate(arena).unwrap();
        let wraps = vec![Wrap::make(&keks[number].0, &keks[number].1, &key).unwrap()];
        let id = Uuid::from_u128(number as u128);
        let mut descriptor = Descriptor::new(id, name(disk), VM, size, Some(unit), wraps).unwrap();
        create(&folder.descriptor(&name(disk)), &mut descriptor, &key, arena).unwrap();
        let file = File::create_new(folder.payload(&name(disk))).unwrap();
        file.set_len(size).unwrap();
        let geometry = descriptor.geometry(false).unwrap();
        let volume = Volume::open(Box::new(FileBacking::from(file)), key, geometry).unwrap();
        // At odd offsets, and only what is not zero.
        volume.write(1000, &mut plain[1000..70_001].to_vec()).unwrap();
        volume.write(500_000, &mut plain[500_000..500_512].to_vec()).unwrap();
    }
}

#[test]
fn a_payload_that_was_cut_is_refused() {
    let arena = arena();
    let (descriptor, key) = open_disk(&arena, "root");
    let payload = fs::read(golden("v1/disks/root.data")).unwrap();
    let cut = tempfile::NamedTempFile::new().unwrap();
    fs::write(cut.path(), &payload[..32767]).unwrap();
    let backing = FileBacking::from(cut.reopen().unwrap());
    let error = Volume::open(Box::new(backing), key, descriptor.geometry(false).unwrap());
    let text = error.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("32767") && text.contains("32768"), "{text}");
}
