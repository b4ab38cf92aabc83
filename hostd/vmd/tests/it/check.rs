//! The check of a home by the confined binary.

use super::process::{Host, Process, ok};
use crypto::{HomeKey, KeySheet, SheetKey};
use hostd_api::error::ErrorCode;
use hostd_api::link::{CheckHome, Request, Response};
use hostd_api::types::HomeNames;
use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};

fn ask(vmd: &Process, key: &HomeKey, report: &OwnedFd, repair: bool) -> Response {
    let sheet = KeySheet::seal(&[SheetKey::Home(key)]).unwrap();
    let request = Request::CheckHome(CheckHome { repair, names: HomeNames::Plain });
    vmd.link.call(&request, &[report.as_fd(), sheet.as_fd()]).unwrap().0
}

fn start(vmd: &Process, key: &HomeKey, repair: bool) -> PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    ok(&ask(vmd, key, &OwnedFd::from(writer), repair));
    reader
}

fn lines(mut report: PipeReader) -> Vec<String> {
    let mut text = String::new();
    report.read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_home_is_checked_and_mended_under_the_confinement() {
    let host = Host::new();
    let vmd = host.start();
    let key = HomeKey::generate(&host.arena).unwrap();
    let home = host.folder().join("home");
    fs::create_dir_all(home.join("sub")).unwrap();
    fs::write(home.join("sub/foreign"), "in clear").unwrap();
    fs::write(home.join("blank"), [0; 100]).unwrap();
    std::os::unix::fs::symlink("/etc", home.join("planted")).unwrap();
    for repair in [false, true] {
        let said = lines(start(&vmd, &key, repair));
        let (last, found) = said.split_last().unwrap();
        assert_eq!(found.len(), 3, "{said:?}");
        assert!(last.contains(r#""line":"done""#) && last.contains(r#""damaged":2"#), "{last}");
        assert!(last.contains(&format!(r#""mended":{}"#, u8::from(repair))), "{last}");
        let left = if repair { 0 } else { 100 };
        assert_eq!(home.join("blank").metadata().unwrap().len(), left);
    }
    assert_eq!(lines(start(&vmd, &key, true)).len(), 3);
    assert_eq!(fs::read(home.join("sub/foreign")).unwrap(), b"in clear");
}

#[test]
fn a_report_goes_through_a_pipe_only() {
    let host = Host::new();
    let vmd = host.start();
    fs::create_dir_all(host.folder().join("home")).unwrap();
    let key = HomeKey::generate(&host.arena).unwrap();
    let file = host.dir.path().join("precious");
    fs::write(&file, "precious").unwrap();
    let report = File::options().write(true).open(&file).unwrap();
    match ask(&vmd, &key, &OwnedFd::from(report), false) {
        Response::Failed(failure) => assert_eq!(failure.code, ErrorCode::InvalidArgument),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_second_check_waits_for_the_first_and_ends_with_its_reader() {
    let host = Host::new();
    let vmd = host.start();
    let key = HomeKey::generate(&host.arena).unwrap();
    let home = host.folder().join("home");
    fs::create_dir_all(&home).unwrap();
    // More than a pipe holds (pipe(7): 64 KiB), so the first check cannot end before it is read.
    for file in 0..900 {
        fs::write(home.join(format!("{file:0>200}")), "in clear").unwrap();
    }
    let first = start(&vmd, &key, false);
    let (_reader, writer) = std::io::pipe().unwrap();
    match ask(&vmd, &key, &OwnedFd::from(writer), false) {
        Response::Failed(failure) => assert_eq!(failure.code, ErrorCode::InUse, "{failure:?}"),
        other => panic!("{other:?}"),
    }
    drop(first);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let (reader, writer) = std::io::pipe().unwrap();
        // Closed here before the report is read, or it would have no end.
        let answer = ask(&vmd, &key, &OwnedFd::from(writer), false);
        match answer {
            Response::Ok => {
                assert_eq!(lines(reader).len(), 901);
                return;
            }
            other => assert!(std::time::Instant::now() < end, "{other:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
