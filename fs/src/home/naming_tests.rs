use super::*;

fn naming(names: Names) -> Naming {
    let arena = Arena::new(64 * 1024).unwrap();
    Naming::new(&HomeKey::generate(&arena).unwrap(), &arena, names).unwrap()
}

#[test]
fn plain_names_are_stored_as_they_are() {
    let plain = naming(Names::Plain);
    let name = OsStr::from_bytes(&[0xff; 300]);
    assert_eq!(&*plain.stored(name).unwrap(), name);
    assert_eq!(plain.plain(name.as_bytes(), &mut Room::new()), Some(name));
    assert_eq!(plain.plain_owned(name.into()), name);
    assert_eq!((plain.limit(255), plain.limit(1000)), (255, 1000));
}

#[test]
fn encrypted_names_come_back_and_have_their_limit() {
    let encrypted = naming(Names::Encrypted);
    let name = OsStr::from_bytes(b"any \xff\n bytes");
    let stored = encrypted.stored(name).unwrap();
    assert_ne!(&*stored, name);
    assert_eq!(encrypted.plain(stored.as_bytes(), &mut Room::new()), Some(name));
    assert_eq!(encrypted.plain_owned(stored.to_os_string()), name);
    assert_eq!(encrypted.plain(b"foreign", &mut Room::new()), None);
    assert_eq!(encrypted.plain_owned("foreign".into()), "foreign");
    assert_eq!(
        (encrypted.limit(255), encrypted.limit(u64::MAX), encrypted.limit(8)),
        (175, 175, 0)
    );
    let refused = encrypted.stored(OsStr::from_bytes(&[b'n'; 176]));
    let Err(HomeError::Io { source, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(source.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
}

#[test]
fn a_stray_is_told_of_once_for_each_folder_and_the_memory_of_it_is_bounded() {
    let encrypted = naming(Names::Encrypted);
    let told = std::cell::Cell::new(0);
    let met = |folder, stored: &[u8]| {
        let label = || {
            told.set(told.get() + 1);
            "folder".to_owned()
        };
        encrypted.stray((1, folder), label, stored);
        told.get()
    };
    // The label is asked for only when something is logged, and someone listens to the log.
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!((met(1, b"a"), met(1, b"a"), met(1, b"b"), met(2, b"a")), (1, 1, 2, 3));
        for number in 0..2 * MAX_LOGGED {
            met(3, &number.to_le_bytes());
        }
        assert_eq!(told.get(), MAX_LOGGED);
    });
    assert_eq!(encrypted.logged.lock().unwrap().len(), MAX_LOGGED);
}
