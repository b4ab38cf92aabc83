//! Probing of real image files, made with the installed `qemu-img`.

use super::*;
use std::process::Command;

/// Whether `qemu-img` is there; says so when not, so that a skipped test is seen.
fn have_qemu_img() -> bool {
    let there = Command::new(qemu_img::PROGRAM).arg("--version").output().is_ok();
    if !there {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: qemu-img is not installed (Debian package qemu-utils)\n"),
        );
    }
    there
}

fn make(folder: &Path, arguments: &[&str]) {
    let made = Command::new(qemu_img::PROGRAM).args(arguments).current_dir(folder).output();
    let made = made.expect("qemu-img runs");
    assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn real_images_are_told_apart_and_measured() {
    if !have_qemu_img() {
        return;
    }
    let folder = folder();
    for (format, name) in [("qcow2", Format::Qcow2), ("vmdk", Format::Vmdk), ("raw", Format::Raw)] {
        make(folder.path(), &["create", "-q", "-f", format, "image", "10M"]);
        let source = probe(&folder.path().join("image"), None, false).expect("a good image");
        assert_eq!((source.format, source.size), (name, 10 << 20));
        assert!(source.path.is_absolute());
        assert_eq!(source.warnings.len(), usize::from(name == Format::Raw), "{source:?}");
        let named = probe(&folder.path().join("image"), Some(name), false).expect("named");
        assert!(named.warnings.is_empty(), "{named:?}");
    }
}

#[test]
fn every_kind_of_vmdk_is_measured() {
    if !have_qemu_img() {
        return;
    }
    for kind in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let folder = folder();
        let option = format!("subformat={kind}");
        make(folder.path(), &["create", "-q", "-f", "vmdk", "-o", &option, "disk.vmdk", "3M"]);
        let source = probe(&folder.path().join("disk.vmdk"), None, false);
        let source = source.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!((source.format, source.size), (Format::Vmdk, 3 << 20), "{kind}");
    }
}

#[test]
fn a_raw_file_is_padded_and_the_user_told() {
    if !have_qemu_img() {
        return;
    }
    let folder = folder();
    let path = folder.path().join("odd");
    fs::write(&path, [7; 1000]).expect("written");
    let source = probe(&path, Some(Format::Raw), false).expect("a good image");
    assert_eq!(source.size, 1024);
    assert_eq!(source.warnings.len(), 1);
    assert!(source.warnings[0].contains("24 zero bytes"), "{:?}", source.warnings);
}

#[test]
fn a_backing_file_is_refused_unless_allowed() {
    if !have_qemu_img() {
        return;
    }
    let folder = folder();
    make(folder.path(), &["create", "-q", "-f", "raw", "base", "1M"]);
    make(folder.path(), &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top"]);
    let error = probe(&folder.path().join("top"), None, false).expect_err("it has a backing file");
    assert!(error.to_string().ends_with("would read other files: backing file base"), "{error}");
    let source = probe(&folder.path().join("top"), None, true).expect("allowed");
    assert_eq!(source.size, 1 << 20);
}

#[test]
fn an_external_data_file_is_refused() {
    if !have_qemu_img() {
        return;
    }
    let folder = folder();
    make(
        folder.path(),
        &["create", "-q", "-f", "qcow2", "-o", "data_file=d,data_file_raw=on", "top", "1M"],
    );
    let error = probe(&folder.path().join("top"), None, false).expect_err("it has a data file");
    assert!(error.to_string().contains("an external data file"), "{error}");
}

#[test]
fn a_vmdk_that_reads_elsewhere_is_refused() {
    let folder = folder();
    let image = folder.path().join("disk.vmdk");
    fs::write(folder.path().join("good"), [0; 512]).expect("written");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("linked");
    // An extent beside it that leads further.
    fs::write(folder.path().join("nested"), "# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n")
        .expect("written");
    for (name, seen) in [
        ("/etc/passwd", "/etc/passwd"),
        ("../x", "../x"),
        ("nbd:localhost:1", "nbd:localhost:1"),
        ("link", "link"),
        ("missing", "missing"),
        ("nested", "nested -> /etc/passwd"),
    ] {
        let text = format!("# Disk DescriptorFile\nRW 1 FLAT \"good\" 0\nRW 1 FLAT \"{name}\" 0\n");
        fs::write(&image, text).expect("written");
        let error = probe(&image, None, false).expect_err(name);
        assert!(error.to_string().ends_with(&format!("read other files: {seen}")), "{error}");
    }
}

#[test]
fn other_formats_are_refused_by_name() {
    let folder = folder();
    let path = folder.path().join("image");
    fs::write(&path, b"vhdxfile").expect("written");
    let error = probe(&path, None, false).expect_err("not imported");
    assert!(
        matches!(error, CliError::Image(ImageError::Foreign { format: "VHDX", .. })),
        "{error}"
    );
    let error = probe(&path, Some(Format::Qcow2), false).expect_err("no qcow2");
    assert!(matches!(error, CliError::Image(ImageError::Damaged { .. })), "{error}");
}

#[test]
fn nothing_and_missing_files_are_refused() {
    let folder = folder();
    let missing = probe(&folder.path().join("no"), None, false).expect_err("missing");
    assert!(matches!(missing, CliError::File { .. }), "{missing}");
    for path in [folder.path(), Path::new("/dev/null")] {
        let error = probe(path, Some(Format::Raw), false).expect_err("no storage");
        assert!(matches!(error, CliError::Image(ImageError::NoStorage { .. })), "{error}");
    }
    if have_qemu_img() {
        fs::write(folder.path().join("empty"), b"").expect("written");
        let empty = probe(&folder.path().join("empty"), None, false).expect_err("empty");
        assert!(matches!(empty, CliError::Image(ImageError::Empty { .. })), "{empty}");
    }
}

#[test]
fn what_qemu_img_cannot_read_is_its_failure() {
    if !have_qemu_img() {
        return;
    }
    let folder = folder();
    let mut head = vec![0; 512];
    head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let path = folder.path().join("broken");
    fs::write(&path, head).expect("written");
    let error = probe(&path, None, false).expect_err("broken");
    assert!(matches!(error, CliError::Helper(_)), "{error}");
    assert!(error.to_string().starts_with("qemu-img failed"), "{error}");
}

#[test]
fn a_cut_qcow2_is_refused() {
    if !have_qemu_img() {
        return;
    }
    let folder = folder();
    let raw = folder.path().join("raw");
    std::fs::write(&raw, vec![0xa5; 4 << 20]).expect("a file");
    make(folder.path(), &["convert", "-f", "raw", "-O", "qcow2", "raw", "image"]);
    let image = folder.path().join("image");
    let whole = std::fs::metadata(&image).expect("an image").len();
    assert_eq!(probe(&image, None, false).expect("a whole image").size, 4 << 20);
    let file = File::options().write(true).open(&image).expect("an image");
    for len in [whole / 2, 400_000] {
        file.set_len(len).expect("a cut");
        let refused = probe(&image, None, false);
        assert!(
            matches!(refused, Err(CliError::Image(ImageError::Inconsistent { faults: 1.., .. }))),
            "{len} of {whole} bytes: {refused:?}"
        );
    }
}
