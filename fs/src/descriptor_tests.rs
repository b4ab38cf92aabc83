use super::*;
use crate::seal::{Sealed, create};
use crate::testing::{TestKek, arena, descriptor};

fn parts() -> (crypto::Arena, TestKek) {
    let arena = arena();
    let kek = TestKek::new(&arena, "native/k1");
    (arena, kek)
}

#[test]
fn a_new_descriptor_survives_the_way_to_storage_and_back() {
    let (arena, kek) = parts();
    let (mut disk, key) = descriptor(&arena, &kek, 1 << 30);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.disk");
    create(&path, &mut disk, &key, &arena).unwrap();
    let sealed = Sealed::<Descriptor>::read(&path).unwrap();
    let (read, _) = sealed.open(&kek.kek, &kek.id, &arena).unwrap();
    assert_eq!(read, disk);
    assert_eq!((read.payload.as_str(), read.unit, read.state), ("root.data", 4096, State::Ready));
    let geometry = read.geometry(true).unwrap();
    assert_eq!((geometry.size, geometry.unit.bytes(), geometry.read_only), (1 << 30, 4096, true));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"cipher\":\"aes-xts-plain64\""), "{text}");
}

#[test]
fn a_size_of_odd_sectors_takes_the_small_unit() {
    let (arena, kek) = parts();
    assert_eq!(descriptor(&arena, &kek, 4096 + 512).0.unit, 512);
    let new = |size, unit| {
        Descriptor::new(Uuid::nil(), "a".parse().unwrap(), Uuid::nil(), size, unit, vec![])
    };
    assert_eq!(new(8192, Some(Unit::B512)).unwrap().unit, 512);
    let error = new(4608, Some(Unit::B4096)).unwrap_err();
    assert_eq!(error, GeometryError::Uneven { size: 4608, unit: 4096 });
    assert_eq!(new(MAX_SIZE + 4096, None).unwrap_err(), GeometryError::TooLarge(MAX_SIZE + 4096));
    assert_eq!(new(0, None).unwrap_err(), GeometryError::Empty);
}

#[test]
fn fields_out_of_range_are_flaws() {
    let (arena, kek) = parts();
    let (disk, _) = descriptor(&arena, &kek, 8192);
    assert_eq!(disk.check(), Ok(()));
    let flaw = |change: fn(&mut Descriptor)| {
        let mut disk = disk.clone();
        change(&mut disk);
        disk.check().unwrap_err()
    };
    assert!(matches!(flaw(|d| d.cipher = "null".into()), Flaw::Unknown { field: "cipher", .. }));
    assert_eq!(flaw(|d| d.unit = 1024), Flaw::Geometry(GeometryError::Unit(1024)));
    assert_eq!(flaw(|d| d.unit = 0), Flaw::Geometry(GeometryError::Unit(0)));
    assert_eq!(flaw(|d| d.size = 0), Flaw::Geometry(GeometryError::Empty));
    assert!(matches!(flaw(|d| d.size = u64::MAX), Flaw::Geometry(GeometryError::TooLarge(_))));
    assert!(matches!(flaw(|d| d.size += 512), Flaw::Geometry(GeometryError::Uneven { .. })));
}

#[test]
fn a_payload_is_a_file_beside_the_descriptor() {
    for good in ["root.data", "a", "disk image.raw", "a..b"] {
        assert!(is_payload_name(good), "{good}");
    }
    let long = "x".repeat(256);
    for bad in
        ["", ".", "..", "../vm.safe", "/dev/sda", "a/b", ".lock", "other.disk", "a\0b", &long]
    {
        assert!(!is_payload_name(bad), "{bad:?}");
    }
}

#[test]
fn swapped_descriptors_are_misplaced() {
    let (arena, kek) = parts();
    let (disk, _) = descriptor(&arena, &kek, 8192);
    let (path, name, vm) = (Path::new("root.disk"), disk.name.clone(), disk.vm);
    disk.check_place(path, &name, vm).unwrap();
    let error = disk.check_place(path, &"data".parse().unwrap(), vm).unwrap_err();
    assert!(matches!(error, SealError::Misplaced { field: "name", .. }), "{error}");
    let error = disk.check_place(path, &name, Uuid::from_u128(9)).unwrap_err();
    assert!(matches!(error, SealError::Misplaced { field: "vm", .. }), "{error}");
    assert!(error.to_string().contains(&vm.to_string()), "{error}");
}
