use super::*;
use crate::home::attributes::Changes;
use crate::home::create::Caller;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

const SELF: Caller = Caller { uid: 0, gid: 0, umask: 0 };

struct Fixture {
    home: Home,
    folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    fixture_with(Names::Plain)
}

fn fixture_with(names: Names) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let arena = Arena::new(256 * 1024).unwrap();
    let key = HomeKey::generate(&arena).unwrap();
    let fd = OwnedFd::from(fs::File::open(folder.path()).unwrap());
    let home = Home::open(fd, key, Uuid::from_u128(3), names, arena).unwrap();
    Fixture { home, folder }
}

fn root_only() -> bool {
    // Giving files away needs a capability that tests outside of root do not have.
    rustix::process::geteuid().is_root()
}

/// Where the storage has an object of the root folder.
fn below(fixture: &Fixture, name: &str) -> PathBuf {
    fixture.folder.path().join(&*fixture.home.names.stored(OsStr::new(name)).unwrap())
}

#[test]
fn names_of_more_than_one_component_are_refused() {
    let Fixture { home, folder } = fixture();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for name in ["", ".", "..", "sub/..", "/etc/passwd", "a\0b"] {
        let found = home.lookup(1, OsStr::new(name));
        assert!(matches!(found, Err(HomeError::BadName)), "{name:?}");
        let made = home.make_folder(1, OsStr::new(name), 0o700, SELF);
        assert!(matches!(made, Err(HomeError::BadName)), "{name:?}");
    }
}

#[test]
fn links_are_shown_and_never_followed() {
    if !root_only() {
        return;
    }
    let Fixture { home, folder } = fixture();
    let link = home.make_link(1, OsStr::new("out"), OsStr::new("/etc"), SELF).unwrap();
    assert_eq!((link.kind, link.size), (FileType::Symlink, 4));
    assert_eq!(home.read_link(link.id).unwrap(), "/etc");
    assert_ne!(fs::read_link(folder.path().join("out")).unwrap().as_os_str(), "/etc");
    let through = home.lookup(link.id, OsStr::new("passwd"));
    assert!(matches!(through, Err(HomeError::Io { .. })), "{through:?}");
    let node = home.node(link.id).unwrap();
    assert!(home.open_file(&node, true).is_err());
}

#[test]
fn links_that_were_planted_below_are_refused() {
    let Fixture { home, folder } = fixture();
    symlink("/etc", folder.path().join("out")).unwrap();
    let link = home.lookup(1, OsStr::new("out")).unwrap();
    assert_eq!((link.kind, link.size), (FileType::Symlink, 0));
    let target = home.read_link(link.id);
    assert!(matches!(&target, Err(HomeError::Damaged { file, .. }) if file == "out"), "{target:?}");
}

#[test]
fn targets_that_are_too_long_are_refused_as_such() {
    for (names, limit) in [
        (Names::Plain, crate::home::link::MAX_TARGET),
        (Names::Encrypted, crate::home::link::MAX_SEALED_TARGET),
    ] {
        let Fixture { home, folder: _kept } = fixture_with(names);
        let long = "x".repeat(limit + 1);
        let made = home.make_link(1, OsStr::new("l"), OsStr::new(&long), SELF);
        let Err(HomeError::Io { source, .. }) = made else { panic!("{made:?}") };
        assert_eq!(source.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    }
}

#[test]
fn encrypted_names_are_on_the_storage_and_plain_ones_everywhere_else() {
    if !root_only() {
        return;
    }
    let fixture = fixture_with(Names::Encrypted);
    let home = &fixture.home;
    let (made, open) = home.create(1, OsStr::new("secret plan"), 0o600, SELF).unwrap();
    drop(open);
    let link = home.make_link(1, OsStr::new("link"), OsStr::new("secret plan"), SELF).unwrap();
    assert_eq!(link.size, 11);
    assert_eq!(home.read_link(link.id).unwrap(), "secret plan");
    for entry in fs::read_dir(fixture.folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.len() >= 23 && !name.contains("link"), "{name}");
    }
    let stored = fs::read_link(below(&fixture, "link")).unwrap().into_os_string();
    assert!(!stored.to_str().unwrap().contains("secret"), "{stored:?}");
    assert_eq!(home.node(made.id).unwrap().label(&home.names), "secret plan");
    let mut asked = home.nodes.least_used();
    asked.sort();
    assert_eq!(asked, [(1, OsString::from("link")), (1, OsString::from("secret plan"))]);
    assert_eq!(home.space(1).unwrap().f_namemax, 175);
    // The same name in another folder is stored the same: a move changes the folder and nothing else.
    let folder = home.make_folder(1, OsStr::new("d"), 0o755, SELF).unwrap();
    home.rename((1, OsStr::new("secret plan")), (folder.id, OsStr::new("secret plan")), 0).unwrap();
    let moved = below(&fixture, "d").join(below(&fixture, "secret plan").file_name().unwrap());
    assert!(moved.exists());
    let node = home.node(made.id).unwrap();
    assert!(home.open_file(&node, true).is_ok(), "it is found by its new place");
}

#[test]
fn names_that_are_not_of_the_home_are_passed_over_and_keep_their_folder() {
    if !root_only() {
        return;
    }
    let fixture = fixture_with(Names::Encrypted);
    let home = &fixture.home;
    let folder = home.make_folder(1, OsStr::new("d"), 0o755, SELF).unwrap();
    home.make_folder(1, OsStr::new("e"), 0o755, SELF).unwrap();
    home.make_folder(folder.id, OsStr::new("ours"), 0o755, SELF).unwrap();
    let stray = below(&fixture, "d").join(".nfs0001");
    fs::write(&stray, "x").unwrap();
    let listed = || {
        let (mut names, opened) = (Vec::new(), home.open_folder(folder.id).unwrap());
        let mut take = |listed: crate::home::Listed<'_>| {
            names.extend((!listed.is_dot()).then(|| listed.name.to_os_string()));
            Ok(false)
        };
        opened.list(0, &mut take).unwrap();
        names
    };
    assert_eq!(listed(), ["ours"]);
    // Something of the home is in it as well: everybody sees why it is not empty.
    let refused = home.remove_folder(1, OsStr::new("d")).unwrap_err();
    assert!(matches!(&refused, HomeError::Io { .. }), "{refused}");
    home.remove_folder(folder.id, OsStr::new("ours")).unwrap();
    assert_eq!(listed(), <[&str; 0]>::default());
    let refusals = [
        home.remove_folder(1, OsStr::new("d")).unwrap_err(),
        home.rename((1, OsStr::new("e")), (1, OsStr::new("d")), 0).unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(&refused, HomeError::Strays { folder, stray }
            if folder == "d" && stray == ".nfs0001"),
            "{refused}"
        );
    }
    assert_eq!(fs::read(&stray).unwrap(), b"x");
    // The plain form of a name is not one of the home, whoever asks.
    let asked = home.lookup(folder.id, OsStr::new(".nfs0001"));
    assert!(asked.unwrap_err().is_not_found());
    fs::remove_file(&stray).unwrap();
    home.remove_folder(1, OsStr::new("d")).unwrap();
}

#[test]
fn a_name_that_is_too_long_leaves_everything_as_it_was() {
    if !root_only() {
        return;
    }
    let fixture = fixture_with(Names::Encrypted);
    let home = &fixture.home;
    let (made, open) = home.create(1, OsStr::new("a"), 0o600, SELF).unwrap();
    drop(open);
    let long = "n".repeat(176);
    let long = OsStr::new(&long);
    let refusals = [
        home.rename((1, OsStr::new("a")), (1, long), 0).unwrap_err(),
        home.link(made.id, 1, long).unwrap_err(),
        home.lookup(1, long).unwrap_err(),
        home.make_folder(1, long, 0o755, SELF).unwrap_err(),
        home.create(1, long, 0o600, SELF).unwrap_err(),
        home.remove(1, long).unwrap_err(),
    ];
    for refused in refusals {
        let HomeError::Io { source, .. } = &refused else { panic!("{refused}") };
        assert_eq!(source.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()), "{refused}");
    }
    assert_eq!(home.lookup(1, OsStr::new("a")).unwrap().links, 1);
    assert_eq!(fs::read_dir(fixture.folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_swapped_for_a_link_is_stale() {
    if !root_only() {
        return;
    }
    let Fixture { home, folder } = fixture();
    let (made, open) = home.create(1, OsStr::new("f"), 0o600, SELF).unwrap();
    open.file.write(0, b"secret").unwrap();
    drop(open);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::remove_file(folder.path().join("f")).unwrap();
    symlink(outside.path(), folder.path().join("f")).unwrap();
    let node = home.node(made.id).unwrap();
    assert!(matches!(home.open_file(&node, true), Err(HomeError::Stale(_))));
    let changes = Changes { size: Some(3), ..Changes::default() };
    assert!(matches!(home.change(made.id, changes, None, SELF), Err(HomeError::Stale(_))));
    assert_eq!(fs::read(outside.path()).unwrap(), b"", "something outside was written");
}

#[test]
fn hard_links_share_a_node_and_its_size() {
    if !root_only() {
        return;
    }
    let Fixture { home, folder } = fixture();
    let (made, open) = home.create(1, OsStr::new("a"), 0o640, SELF).unwrap();
    open.file.write(0, &[1; 5000]).unwrap();
    let linked = home.link(made.id, 1, OsStr::new("b")).unwrap();
    assert_eq!((linked.id, linked.size, linked.links), (made.id, 5000, 2));
    drop(open);
    home.remove(1, OsStr::new("a")).unwrap();
    home.remove(1, OsStr::new("b")).unwrap();
    assert!(folder.path().read_dir().unwrap().next().is_none());
    assert_eq!(home.attributes(made.id).unwrap().links, 0);
}

#[test]
fn nodes_live_as_long_as_the_kernel_counts_them() {
    let Fixture { home, folder } = fixture();
    fs::create_dir(folder.path().join("d")).unwrap();
    let first = home.lookup(1, OsStr::new("d")).unwrap();
    let second = home.lookup(1, OsStr::new("d")).unwrap();
    assert_eq!((first.id, home.nodes.count()), (second.id, 2));
    assert_eq!(first.id, fs::metadata(folder.path().join("d")).unwrap().ino());
    home.forget(first.id, 1);
    assert!(home.attributes(first.id).is_ok());
    home.forget(first.id, 1);
    assert!(matches!(home.attributes(first.id), Err(HomeError::Stale(_))));
    home.forget(1, 1000);
    assert!(home.attributes(1).is_ok(), "the root stays");
    let again = home.lookup(1, OsStr::new("d")).unwrap();
    assert_ne!(again.generation, first.generation);
}

#[test]
fn the_kernel_is_asked_to_forget_what_is_idle_and_folders_only_if_empty() {
    let Fixture { home, folder } = fixture();
    fs::create_dir_all(folder.path().join("parent")).unwrap();
    fs::create_dir_all(folder.path().join("opened")).unwrap();
    for name in ["idle", "open", "parent/child"] {
        fs::write(folder.path().join(name), b"").unwrap();
    }
    let look = |parent, name: &str| home.lookup(parent, OsStr::new(name)).unwrap().id;
    let (parent, opened) = (look(1, "parent"), look(1, "opened"));
    let open = home.open_file(&home.node(look(1, "open")).unwrap(), false).unwrap();
    look(1, "idle");
    let child = look(parent, "child");
    let handle = home.open_folder(opened).unwrap();
    let named = |names: &[(u64, &str)]| -> Vec<(u64, OsString)> {
        names.iter().map(|(id, name)| (*id, OsString::from(name))).collect()
    };
    let sorted = || {
        let mut names = home.nodes.least_used();
        names.sort();
        names
    };
    let mut expected = named(&[(1, "idle"), (parent, "child")]);
    expected.sort();
    assert_eq!(sorted(), expected);
    home.forget(child, 1);
    drop((open, handle));
    let mut expected = named(&[(1, "idle"), (1, "open"), (1, "opened"), (1, "parent")]);
    expected.sort();
    assert_eq!(sorted(), expected);
}

#[test]
fn renames_keep_the_node_and_open_by_the_new_name() {
    if !root_only() {
        return;
    }
    let Fixture { home, folder: _kept } = fixture();
    let (made, open) = home.create(1, OsStr::new("old"), 0o600, SELF).unwrap();
    open.file.write(0, b"content").unwrap();
    drop(open);
    let folder = home.make_folder(1, OsStr::new("d"), 0o755, SELF).unwrap();
    home.rename((1, OsStr::new("old")), (folder.id, OsStr::new("new")), 0).unwrap();
    let node = home.node(made.id).unwrap();
    let open = home.open_file(&node, false).unwrap();
    assert_eq!(open.file.read(0, 100, <[u8]>::to_vec).unwrap(), b"content");
    let unknown = home.rename((1, OsStr::new("d")), (1, OsStr::new("e")), 1 << 20);
    assert!(matches!(unknown, Err(HomeError::Io { .. })), "the storage knows no such flag");
}

#[test]
fn what_cannot_be_given_to_the_caller_is_not_left_behind() {
    if root_only() {
        return;
    }
    let Fixture { home, folder } = fixture();
    let other = Caller { uid: 0, gid: 0, umask: 0 };
    assert!(home.make_folder(1, OsStr::new("d"), 0o755, other).is_err());
    assert!(home.create(1, OsStr::new("f"), 0o644, other).is_err());
    assert!(folder.path().read_dir().unwrap().next().is_none());
}

#[test]
fn a_file_open_for_reading_only_is_not_opened_twice() {
    if !root_only() {
        return;
    }
    let Fixture { home, folder } = fixture();
    let (made, open) = home.create(1, OsStr::new("f"), 0o600, SELF).unwrap();
    drop(open);
    let node = home.node(made.id).unwrap();
    // A storage that refuses writing at the first open: an immutable file does, also to root.
    let reading = {
        let below = fs::File::open(folder.path().join("f")).unwrap();
        let flags = rustix::fs::ioctl_getflags(&below);
        let immutable = |flags| rustix::fs::ioctl_setflags(&below, flags);
        let Ok(flags) = flags else { return skipped() };
        if immutable(flags | rustix::fs::IFlags::IMMUTABLE).is_err() {
            return skipped();
        }
        let reading = home.open_file(&node, false);
        immutable(flags).unwrap();
        reading.unwrap()
    };
    assert!(!reading.writable);
    assert!(matches!(home.open_file(&node, true), Err(HomeError::ReadOnly)));
    assert!(Arc::ptr_eq(&reading, &home.open_file(&node, false).unwrap()));
    drop(reading);
    assert!(home.open_file(&node, true).unwrap().writable);
}

/// Past the capture of test output, so that a skipped test is seen.
fn skipped() {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        b"SKIPPED: needs a folder for temporary files that knows immutable files\n",
    );
}

#[test]
fn a_file_opens_by_one_name_while_another_is_moved() {
    let fixture = fixture();
    let home = &fixture.home;
    fs::write(below(&fixture, "kept"), []).unwrap();
    fs::hard_link(below(&fixture, "kept"), below(&fixture, "moved")).unwrap();
    let kept = home.lookup(1, OsStr::new("kept")).unwrap();
    // Somebody else looks up the other name, which is then moved by a third.
    assert_eq!(home.lookup(1, OsStr::new("moved")).unwrap().id, kept.id);
    fs::rename(below(&fixture, "moved"), below(&fixture, "elsewhere")).unwrap();
    let node = home.node(kept.id).unwrap();
    assert!(home.open_file(&node, true).is_ok(), "its own name is as it was");
    // Nothing is opened that only has the name now.
    fs::rename(below(&fixture, "kept"), below(&fixture, "aside")).unwrap();
    fs::write(below(&fixture, "kept"), []).unwrap();
    let opened = home.open_file(&node, true);
    assert!(matches!(opened, Err(HomeError::Stale(_))), "{opened:?}");
}
