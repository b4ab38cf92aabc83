//! `qemu-img` runs: real copies between files, failure, and interruption.

use super::*;
use crate::error::CliError;
use crate::progress::Style;
use std::fs;
use std::time::Instant;

fn have_qemu_img() -> bool {
    let there = command().arg("--version").output().is_ok();
    if !there {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: qemu-img is not installed (Debian package qemu-utils)\n"),
        );
    }
    there
}

fn quiet() -> Meter {
    Meter::new(Style::Quiet, "copy", 1 << 20)
}

fn copy<'a>(source: &'a Path, target: &'a Path, into_zeros: bool) -> Copy<'a> {
    Copy {
        from: Format::Raw,
        source: source.as_os_str(),
        to: Format::Raw,
        target: target.as_os_str(),
        into_zeros,
    }
}

#[test]
fn a_copy_arrives_whole_into_a_target_that_is_there() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("a"), folder.path().join("b"));
    let mut content = vec![0; 1 << 20];
    content[5000..9000].fill(7);
    fs::write(&source, &content).expect("written");
    fs::File::create(&target).and_then(|file| file.set_len(1 << 20)).expect("made");
    let copy = copy(&source, &target, true);
    convert(&copy, &mut quiet(), &Interrupt::default()).expect("copied");
    assert!(fs::read(&target).expect("there") == content);
}

#[test]
fn a_failure_brings_the_last_words() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("none"), folder.path().join("b"));
    let error = convert(&copy(&source, &target, false), &mut quiet(), &Interrupt::default());
    let error = error.expect_err("there is no source");
    assert!(matches!(&error, CliError::Helper(HelperError::Failed { .. })), "{error:?}");
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn an_interrupt_ends_the_child() {
    let (sender, figures) = mpsc::sync_channel(WAITING_FIGURES);
    let interrupt = Interrupt::default();
    interrupt.set();
    let start = Instant::now();
    let ended = watch(&figures, &mut quiet(), &interrupt);
    assert!(matches!(ended, Err(CliError::Interrupted)));
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(sender);
    assert!(watch(&figures, &mut quiet(), &Interrupt::default()).is_ok());
}

#[test]
fn only_the_end_of_long_complaints_is_kept() {
    let text = "x".repeat(3 * LAST_WORDS) + "end";
    let kept = last_words(text.as_bytes());
    assert_eq!(kept.len(), LAST_WORDS);
    assert!(kept.ends_with(b"xend"));
}
