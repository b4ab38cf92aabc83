//! rsync: a tree with everything that a file can have beside its content, there and back.

use super::{MODES, host_with_home, program, remount, sized};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tests::host::{pattern, write_pattern};
use tests::needs;

/// What rsync is to carry: owners, times, modes, links of both kinds, special files, lists, attributes, holes.
const CARRY: &str = "-aHAXS";

/// Makes the tree. Sizes, names and values are those at which others have had faults.
fn make(root: &Path) {
    fs::create_dir(root).unwrap();
    for folder in ["d", "d/deep", "d/deep/er", "\u{e4}\u{1f512}", "with\nnewline"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    for number in 0..sized(80, 800) {
        let size = [0, 1, 15, 16, 511, 512, 513, 4095, 4096, 4097, 8191, 65_537, 300_001];
        let size = size[usize::try_from(number).unwrap() % size.len()];
        let folder =
            ["d", "d/deep", "d/deep/er", "\u{e4}\u{1f512}"][usize::try_from(number).unwrap() % 4];
        let path = root.join(folder).join(format!("f{number}"));
        write_pattern(&path, size, number);
        fs::set_permissions(&path, Permissions::from_mode(0o400 + number % 0o400)).unwrap();
        chown(&path, Some(1000 + number % 3), Some(2000 + number % 5)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(u64::from(number) * 12_345_678, number);
        File::open(&path).unwrap().set_modified(time).unwrap();
        if number % 5 == 0 {
            fs::hard_link(&path, root.join(format!("link{number}"))).unwrap();
        }
    }
    fs::write(root.join("d").join("n".repeat(255)), b"long name").unwrap();
    symlink("f0", root.join("d/soft")).unwrap();
    symlink("x/".repeat(1500), root.join("d/nowhere")).unwrap();
    lchown(root.join("d/nowhere"), Some(1234), Some(1234)).unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    make_sparse(&root.join("sparse"));
    attributes(root);
}

fn make_sparse(path: &Path) {
    let file = File::create_new(path).unwrap();
    file.set_len(40 << 20).unwrap();
    for at in [4095, 1_000_000, 20 << 20, (40 << 20) - 1] {
        file.write_all_at(b"x", at).unwrap();
    }
}

fn attributes(root: &Path) {
    let set = |path: &str, name: &str, value: &[u8]| {
        lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    for path in ["d", "d/f0", "sparse", "\u{e4}\u{1f512}"] {
        set(path, "user.note", b"kept");
        set(path, "user.empty", b"");
        set(path, "trusted.note", &pattern(1000, 7));
        set(path, "security.note", b"\0\xff");
    }
    // A file that may bind a low port (capability version 2).
    set(
        "d/f4",
        "security.capability",
        &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    program(root, "setfacl", &["-m", "u:1234:rw,g:777:r", "d/f0", "d/f8", "sparse"]);
    program(
        root,
        "setfacl",
        &["-m", "u:1234:rwx", "-m", "d:u:4321:rwx,d:g:888:x", "d", "d/deep/er"],
    );
    // After the default list, so that it is inherited.
    fs::write(root.join("d/deep/er/inherits"), b"a list").unwrap();
}

/// Copies and compares; the second comparison reads every byte.
fn carry(from: &Path, to: &Path) {
    let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
    program(Path::new("/"), "rsync", &[CARRY, &from, &to]);
    same(&from, &to);
}

fn same(from: &str, to: &str) {
    for compare in ["-nci", "-ni"] {
        let told = program(Path::new("/"), "rsync", &[CARRY, "--delete", compare, from, to]);
        assert_eq!(told, "", "{from} and {to} differ");
    }
    let lists = |root: &str| program(Path::new(root), "getfacl", &["-R", "-n", "."]);
    assert_eq!(lists(from), lists(to));
    let attributes = |root: &str| {
        let all = ["-R", "-h", "-d", "-m", "-", "-e", "hex", "."];
        program(Path::new(root), "getfattr", &all)
    };
    let shown = attributes(from);
    // Four, and the second name of one.
    assert_eq!(shown.matches("trusted.note").count(), 5);
    assert!(shown.contains("security.capability") && shown.contains("posix_acl_default"));
    assert_eq!(shown, attributes(to));
}

#[test]
fn a_tree_with_everything_goes_there_and_back() {
    needs!(Root, Fuse, Program("rsync"), Program("setfacl"), Program("getfattr"));
    for mode in MODES {
        let host = host_with_home(mode);
        let (home, scratch) = (host.home("web01"), host.scratch());
        make(&scratch.join("tree"));
        carry(&scratch.join("tree"), &home.join("copy"));
        let (one, two) = (home.join("copy/d/f0"), home.join("copy/link0"));
        assert_eq!(fs::metadata(one).unwrap().ino(), fs::metadata(two).unwrap().ino());
        let sparse = fs::metadata(home.join("copy/sparse")).unwrap();
        assert!(sparse.blocks() < 2000, "{mode}: {} blocks", sparse.blocks());
        remount(&host, mode);
        carry(&home.join("copy"), &scratch.join("back"));
        same(
            &format!("{}/", scratch.join("tree").display()),
            &format!("{}/", scratch.join("back").display()),
        );
        // From the home to the home, as a tool that makes a backup in place does.
        carry(&home.join("copy"), &home.join("again"));
    }
}

/// What cp makes of modes and lists in a folder.
fn copies(folder: &Path) -> String {
    fs::write(folder.join("source"), b"content").unwrap();
    fs::set_permissions(folder.join("source"), Permissions::from_mode(0o640)).unwrap();
    program(folder, "setfacl", &["-m", "u:1234:rw,m::r", "source"]);
    fs::create_dir(folder.join("lists")).unwrap();
    program(folder, "setfacl", &["-m", "d:u:4321:rw,d:m::rw", "lists"]);
    for (options, to) in
        [("-f", "plain"), ("-p", "kept"), ("-a", "all"), ("-f", "lists/plain"), ("-a", "lists/all")]
    {
        program(folder, "cp", &[options, "source", to]);
    }
    let names = ["source", "plain", "kept", "all", "lists/plain", "lists/all"];
    program(folder, "getfacl", &[&["-n"][..], &names[..]].concat())
}

#[test]
fn cp_keeps_modes_and_lists_as_on_the_storage() {
    needs!(Root, Fuse, Program("setfacl"), Program("getfacl"));
    for mode in MODES {
        let host = host_with_home(mode);
        let outside = host.scratch().join("outside");
        fs::create_dir(&outside).unwrap();
        let expected = copies(&outside);
        assert!(expected.matches("user:1234:rw-").count() >= 4, "{expected}");
        assert_eq!(copies(&host.home("web01")), expected, "{mode}");
    }
}
