use super::*;
use cryptfs::fsck::{Finding, Grade, MAX_FINDINGS, Mend, Totals};
use hostd_api::types::CheckReport;
use std::io::Write;

/// What comes of a report that a vmd writes so.
fn read(report: &[u8]) -> (Result<(), String>, CheckReport) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut found = Collected::default();
    let outcome = std::thread::scope(|scope| {
        // A reader that has given up breaks the pipe.
        scope.spawn(move || writer.write_all(report));
        let outcome = follow(&reader, &mut found, &|| None);
        drop(reader);
        outcome
    });
    (outcome, found.report("web01"))
}

fn line(line: &Line) -> Vec<u8> {
    let mut text = serde_json::to_vec(line).unwrap();
    text.push(b'\n');
    text
}

fn finding() -> Line {
    let mend = Mend::Possible { how: "removes it".into() };
    let (path, what) = ("home/a".into(), "it is odd".into());
    Line::Finding(Finding { path, plain: None, grade: Grade::Damaged, what, mend })
}

fn done(damaged: u64) -> Line {
    Line::Done(Totals { objects: 7, damaged, ..Totals::default() })
}

#[test]
fn a_report_is_read_to_its_end() {
    let text = [line(&Line::Alive), line(&finding()), line(&done(1))].concat();
    let (outcome, report) = read(&text);
    assert_eq!(outcome, Ok(()));
    assert_eq!((report.objects, report.damaged, report.unlisted), (7, 1, 0));
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].how, "removes it");
}

#[test]
fn an_end_without_a_last_line_is_none() {
    let (outcome, _) = read(&line(&finding()));
    assert_eq!(outcome, Err("the vmd ended".into()));
    let (outcome, _) = read(&line(&Line::Failed("no memory for keys".into())));
    assert_eq!(outcome, Err("no memory for keys".into()));
}

#[test]
fn what_is_no_report_is_refused() {
    for text in [&b"{}\n"[..], b"\n", b"\xff\n", br#"{"line":"fly"}"#, b"{\"line\":\"done\"}\n"] {
        assert!(read(text).0.is_err(), "{text:?}");
    }
    let (outcome, _) = read(&vec![b' '; 3 * MAX_LINE]);
    assert_eq!(outcome, Err("the vmd sent a line over the limit".into()));
}

#[test]
fn findings_without_end_take_no_memory() {
    let many = usize::try_from(MAX_FINDINGS).unwrap() + 10;
    let text = [line(&finding()).repeat(many), line(&done(u64::MAX)), line(&done(1))].concat();
    let (outcome, report) = read(&text);
    assert_eq!(outcome, Ok(()));
    assert_eq!(report.findings.len(), many - 10);
    assert_eq!((report.unlisted, report.damaged), (10, u64::MAX));
}

#[test]
fn a_check_gives_way_although_the_vmd_is_silent() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let asked = std::cell::Cell::new(0);
    let why_end = || (asked.replace(asked.get() + 1) > 0).then_some("it gave way");
    let outcome = follow(&reader, &mut Collected::default(), &why_end);
    assert!(outcome.is_err_and(|why| why.contains("gave way")));
    assert_eq!(asked.get(), 2);
}
