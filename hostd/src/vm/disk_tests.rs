//! Tests of the verbs on disks: sizes, states, damage, and what is never followed.

use crate::testing::{TestHost, code, create_disk, refused};
use crate::vm::open_payload;
use cryptfs::descriptor::Descriptor;
use cryptfs::seal::Sealed;
use hostd_api::error::ErrorCode;
use hostd_api::types::{AttachDisk, CreateDisk, DiskState, Force, ResizeDisk};
use std::fs::File;

#[test]
fn disks_are_padded_sparse_and_checked() {
    let t = TestHost::new();
    t.vm("web01");
    let info = t.host.create_disk("web01", &create_disk("odd", 1000)).unwrap();
    assert_eq!((info.size, info.unit, info.allocated), (1024, 512, 0));
    let info = t.host.create_disk("web01", &create_disk("big", 1 << 30)).unwrap();
    assert_eq!((info.size, info.unit, info.allocated), (1 << 30, 4096, 0));
    assert_eq!(info.state, DiskState::Detached);
    let again = t.host.create_disk("web01", &create_disk("big", 512));
    assert_eq!(code(again), ErrorCode::AlreadyExists);
    let unit = |unit, size| CreateDisk { unit: Some(unit), ..create_disk("x", size) };
    for bad in [unit(1024, 4096), unit(4096, 512), create_disk("x", 0), create_disk("x", u64::MAX)]
    {
        assert_eq!(code(t.host.create_disk("web01", &bad)), ErrorCode::InvalidArgument, "{bad:?}");
    }
    let reserved = t.host.create_disk("web01", &create_disk("vmd", 512));
    assert_eq!(code(reserved), ErrorCode::InvalidArgument);
    let vm = "v".repeat(40);
    t.vm(&vm);
    let long = t.host.create_disk(&vm, &create_disk(&"x".repeat(64), 512));
    assert!(refused(long).message.contains("at most 107"));
    assert_eq!(t.host.list_disks("web01").unwrap().len(), 2);
}

#[test]
fn resize_grows_and_shrinks_only_when_told() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    let resize = |size, shrink| {
        t.host.resize_disk("web01", "root", &ResizeDisk { size, shrink, force: false })
    };
    let payload = t.store().join("web01/disks/root.data");
    assert_eq!(resize((2 << 20) - 1, false).unwrap().size, 2 << 20);
    assert_eq!(std::fs::metadata(&payload).unwrap().len(), 2 << 20);
    assert_eq!(code(resize(4096, false)), ErrorCode::InvalidArgument);
    assert_eq!(code(resize(0, true)), ErrorCode::InvalidArgument);
    assert_eq!(code(resize(u64::MAX, false)), ErrorCode::InvalidArgument);
    std::fs::write(&payload, vec![0xaa; 2 << 20]).unwrap();
    assert_eq!(resize(4096, true).unwrap().size, 4096);
    assert_eq!(std::fs::metadata(&payload).unwrap().len(), 4096);
    // A shrink that was interrupted before the cut must not bring old data back.
    std::fs::write(&payload, vec![0xaa; 12_288]).unwrap();
    resize(8192, false).unwrap();
    assert_eq!(std::fs::read(&payload).unwrap()[4096..], [0; 4096]);
}

#[test]
fn an_import_is_served_to_the_import_only() {
    let t = TestHost::new();
    t.vm("web01");
    let importing = CreateDisk { importing: true, ..create_disk("root", 4096) };
    assert_eq!(t.host.create_disk("web01", &importing).unwrap().state, DiskState::Importing);
    let attach = |importing| {
        t.host.attach_disk("web01", "root", &AttachDisk { importing, ..AttachDisk::default() })
    };
    assert_eq!(code(attach(false)), ErrorCode::WrongState);
    assert_eq!(t.host.disk_ready("web01", "root").unwrap().state, DiskState::Detached);
    assert_eq!(code(attach(true)), ErrorCode::WrongState);
    t.host.disk_ready("web01", "root").unwrap();
}

#[test]
fn damaged_disks_are_shown_and_hide_nothing() {
    let t = TestHost::new();
    t.vm("web01");
    for name in ["a", "b", "c", "d"] {
        t.disk("web01", name);
    }
    let disks = t.store().join("web01/disks");
    std::fs::write(disks.join("a.disk"), "{").unwrap();
    std::fs::remove_file(disks.join("b.data")).unwrap();
    std::fs::copy(disks.join("d.disk"), disks.join("c.disk")).unwrap();
    let states: Vec<_> =
        t.host.list_disks("web01").unwrap().into_iter().map(|d| (d.state, d.problem)).collect();
    assert!(states[..3].iter().all(|(s, p)| *s == DiskState::Damaged && p.is_some()), "{states:?}");
    assert_eq!(states[3], (DiskState::Detached, None));
    let attach = |disk| code(t.host.attach_disk("web01", disk, &AttachDisk::default()));
    assert_eq!(attach("a"), ErrorCode::Damaged);
    assert_eq!(attach("b"), ErrorCode::Storage);
    assert_eq!(attach("c"), ErrorCode::Damaged);
    t.host.delete_disk("web01", "a", &Force::default()).unwrap();
    assert_eq!(t.host.list_disks("web01").unwrap().len(), 3);
}

#[test]
fn a_payload_that_is_a_link_is_not_followed() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    let payload = t.store().join("web01/disks/root.data");
    std::fs::remove_file(&payload).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &payload).unwrap();
    assert!(t.host.attach_disk("web01", "root", &AttachDisk::default()).is_err());
    assert!(
        t.host
            .resize_disk(
                "web01",
                "root",
                &ResizeDisk { size: 8 << 20, shrink: false, force: false }
            )
            .is_err()
    );
    assert_eq!(t.host.show_disk("web01", "root").unwrap().state, DiskState::Damaged);
    // Nor is a folder on the way to it.
    t.disk("web01", "other");
    let (disks, moved) = (t.store().join("web01/disks"), t.dir.path().join("moved"));
    let sealed = Sealed::<Descriptor>::read(&disks.join("other.disk")).unwrap();
    std::fs::rename(&disks, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &disks).unwrap();
    let error = t.host.attach_disk("web01", "other", &AttachDisk::default()).unwrap_err();
    assert!(error.to_string().contains("other.disk"), "{error}");
    let vm = t.host.inventory.get("web01").unwrap();
    let error = open_payload(&vm, sealed.unverified(), true).unwrap_err();
    assert!(error.to_string().contains("other.data"), "{error}");
}

#[test]
fn an_edited_descriptor_takes_no_other_disk_with_it() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "a");
    t.disk("web01", "b");
    let disks = t.store().join("web01/disks");
    let text = std::fs::read_to_string(disks.join("a.disk")).unwrap();
    std::fs::write(disks.join("a.disk"), text.replace("a.data", "b.data")).unwrap();
    t.host.delete_disk("web01", "a", &Force::default()).unwrap();
    assert!(disks.join("b.data").exists() && !disks.join("a.data").exists());
    assert_eq!(t.host.show_disk("web01", "b").unwrap().state, DiskState::Detached);
}

/// hostd was killed between the payload and the descriptor, or between the payload and its size.
#[test]
fn a_creation_that_was_cut_short_is_made_again() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "other");
    let disks = t.store().join("web01/disks");
    for size in [0, 1 << 30] {
        File::create(disks.join("root.data")).unwrap().set_len(size).unwrap();
        assert!(t.host.show_disk("web01", "root").is_err());
        t.disk("web01", "root");
        assert_eq!(t.host.show_disk("web01", "root").unwrap().state, DiskState::Detached);
        t.host.delete_disk("web01", "root", &Force::default()).unwrap();
    }
    // What holds a byte, is another disk's, or may be, stays.
    std::fs::write(disks.join("root.data"), "x").unwrap();
    let refusal = refused(t.host.create_disk("web01", &create_disk("root", 4096)));
    assert_eq!(refusal.code, ErrorCode::AlreadyExists);
    assert!(refusal.remedy.contains("disk delete web01 root"), "{}", refusal.remedy);
    std::fs::write(disks.join("root.data"), "").unwrap();
    std::fs::write(disks.join("bad.disk"), "{").unwrap();
    let refusal = code(t.host.create_disk("web01", &create_disk("root", 4096)));
    assert_eq!(refusal, ErrorCode::AlreadyExists);
    std::fs::remove_file(disks.join("bad.disk")).unwrap();
    std::fs::remove_file(disks.join("root.data")).unwrap();
    std::os::unix::fs::symlink("other.data", disks.join("root.data")).unwrap();
    let refusal = code(t.host.create_disk("web01", &create_disk("root", 4096)));
    assert_eq!(refusal, ErrorCode::AlreadyExists);
}

/// hostd was killed between the descriptor and the payload.
#[test]
fn a_deletion_that_was_cut_short_is_done_again() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    t.disk("web01", "other");
    let disks = t.store().join("web01/disks");
    std::fs::write(disks.join("root.data"), vec![7; 1 << 20]).unwrap();
    std::fs::remove_file(disks.join("root.disk")).unwrap();
    std::fs::write(disks.join("bad.disk"), "{").unwrap();
    assert_eq!(
        code(t.host.delete_disk("web01", "root", &Force::default())),
        ErrorCode::NotFound,
        "it may be bad's"
    );
    std::fs::remove_file(disks.join("bad.disk")).unwrap();
    t.host.delete_disk("web01", "root", &Force::default()).unwrap();
    assert!(!disks.join("root.data").exists());
    assert_eq!(code(t.host.delete_disk("web01", "root", &Force::default())), ErrorCode::NotFound);
    // The payload of a disk that has another name.
    let text = std::fs::read_to_string(disks.join("other.disk")).unwrap();
    std::fs::write(disks.join("other.disk"), text.replace("other.data", "root.data")).unwrap();
    std::fs::rename(disks.join("other.data"), disks.join("root.data")).unwrap();
    assert_eq!(code(t.host.delete_disk("web01", "root", &Force::default())), ErrorCode::NotFound);
    let refusal = code(t.host.create_disk("web01", &create_disk("root", 4096)));
    assert_eq!(refusal, ErrorCode::AlreadyExists);
    assert!(disks.join("root.data").exists());
}

/// hostd was killed between the descriptor and the cut.
#[test]
fn a_shrink_that_was_cut_short_is_done_again() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    let payload = t.store().join("web01/disks/root.data");
    let resize = |size, shrink| {
        t.host.resize_disk("web01", "root", &ResizeDisk { size, shrink, force: false })
    };
    resize(4096, true).unwrap();
    std::fs::write(&payload, vec![0xaa; 1 << 20]).unwrap();
    resize(4096, false).unwrap();
    assert_eq!(std::fs::metadata(&payload).unwrap().len(), 1 << 20, "cut off unasked");
    resize(4096, true).unwrap();
    assert_eq!(std::fs::metadata(&payload).unwrap().len(), 4096);
}
