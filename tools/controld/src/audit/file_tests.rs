use super::*;
use crate::audit::{LineFault, Outcome, Target, Trouble, Who, export, verify};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Files of a few lines, so that there are many.
const SHORT: u64 = 1500;

fn act(number: u64) -> Act {
    Act {
        who: Who { name: "anna".into(), by: "certificate".into(), address: None },
        verb: "vm.put".into(),
        target: Target { vm: Some(format!("web{number}")), ..Target::default() },
        why: "a \"reason\"\nof two lines".into(),
        outcome: if number.is_multiple_of(3) {
            Outcome::Denied("no".into())
        } else {
            Outcome::Done
        },
    }
}

fn filled(folder: &Path, count: u64) -> Vec<Head> {
    let log = Log::open_with(folder, SHORT).unwrap();
    (1..=count).map(|n| log.append(1000 + n, &act(n)).unwrap()).collect()
}

fn report(folder: &Path) -> u64 {
    verify(folder, None).unwrap().unwrap().last.seq
}

fn trouble(folder: &Path, anchor: Option<&Head>) -> Trouble {
    verify(folder, anchor).unwrap().unwrap_err()
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files(folder).unwrap();
    files.into_iter().map(|(_, path)| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn lines_are_chained_over_files_and_starts() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(report(dir.path()), 0);
    let heads = filled(dir.path(), 10);
    let log = Log::open_with(dir.path(), SHORT).unwrap();
    assert_eq!(log.head().unwrap(), heads[9]);
    let last = log.append(2000, &act(11)).unwrap();
    assert_eq!(last.seq, 11);
    assert!(files(dir.path()).unwrap().len() >= 3);
    for head in heads.iter().chain([&last]) {
        let report = verify(dir.path(), Some(head)).unwrap().unwrap();
        assert!(report.anchored && report.first == 1 && report.last == last);
    }
    let mut out = Vec::new();
    assert_eq!(export(dir.path(), 4, &mut out).unwrap().unwrap(), last);
    let text = String::from_utf8(out).unwrap();
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 8);
    assert_eq!(records[0]["record"]["seq"], 4);
    assert_eq!(records[2]["record"]["outcome"], "denied");
    assert_eq!(records[2]["record"]["reason"], "no");
    assert_eq!(records[2]["record"]["who"]["name"], "anna");
}

#[test]
fn one_process_writes() {
    let dir = tempfile::tempdir().unwrap();
    let _log = Log::open(dir.path()).unwrap();
    assert!(matches!(Log::open(dir.path()), Err(LogError::InUse { .. })));
}

/// A kill may leave any part of the file that was written last.
#[test]
fn a_log_cut_at_any_byte_goes_on_after_its_last_whole_line() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 2);
    let (path, whole) = contents(dir.path()).pop().unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in 0..=whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let kept = if length < first { 0 } else { 1 + u64::from(length == whole.len()) };
        let torn = ![0, first, whole.len()].contains(&length);
        assert_eq!(verify(dir.path(), None).unwrap().is_err(), torn, "{length}");
        let log = Log::open_with(dir.path(), SHORT).unwrap();
        assert_eq!(log.head().unwrap().seq, kept, "{length}");
        log.append(1, &act(7)).unwrap();
        drop(log);
        assert_eq!(report(dir.path()), kept + 1, "{length}");
        std::fs::read_dir(dir.path())
            .unwrap()
            .for_each(|entry| std::fs::remove_file(entry.unwrap().path()).unwrap());
    }
    // The end of the last line is there, its beginning is not.
    let mut holed = whole.clone();
    holed[first..first + 40].fill(0);
    std::fs::write(&path, &holed).unwrap();
    assert_eq!(Log::open_with(dir.path(), SHORT).unwrap().head().unwrap().seq, 1);
}

#[test]
fn a_kill_between_two_files_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let heads = filled(dir.path(), 10);
    std::fs::write(dir.path().join(format!("{:016x}.jsonl", 11)), "").unwrap();
    let log = Log::open_with(dir.path(), SHORT).unwrap();
    assert_eq!(&log.head().unwrap(), heads.last().unwrap());
    log.append(1, &act(11)).unwrap();
    drop(log);
    assert_eq!(report(dir.path()), 11);
    std::fs::write(dir.path().join(format!("{:016x}.jsonl", 20)), "").unwrap();
    assert!(matches!(Log::open_with(dir.path(), SHORT), Err(LogError::Broken { .. })));
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 4);
    let (path, whole) = contents(dir.path()).remove(0);
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        assert!(verify(dir.path(), None).unwrap().is_err(), "bit {} of byte {at}", at % 8);
    }
}

#[test]
fn removed_added_and_moved_lines_are_found() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 4);
    let (path, whole) = contents(dir.path()).remove(0);
    let all: Vec<Vec<u8>> = lines(&whole).map(|line| [line, b"\n"].concat()).collect();
    assert!(all.len() >= 2);
    let write = |order: &[usize]| {
        let text: Vec<u8> = order.iter().flat_map(|at| all[*at].clone()).collect();
        std::fs::write(&path, text).unwrap();
        trouble(dir.path(), None)
    };
    let order = |trouble| matches!(trouble, Trouble::Line { fault: LineFault::Order { .. }, .. });
    assert!(order(write(&[1, 0])), "moved");
    assert!(order(write(&[1])), "removed");
    assert!(order(write(&[0, 0, 1])), "added");
}

#[test]
fn missing_files_are_found_except_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let heads = filled(dir.path(), 12);
    let all = files(dir.path()).unwrap();
    assert!(all.len() >= 3);
    let (_, middle) = &all[1];
    let content = std::fs::read(middle).unwrap();
    std::fs::remove_file(middle).unwrap();
    assert!(matches!(trouble(dir.path(), None), Trouble::File { .. }));
    std::fs::write(middle, content).unwrap();
    // Old files may be moved to an archive; the report says where the log begins now.
    std::fs::remove_file(&all[0].1).unwrap();
    let report = verify(dir.path(), heads.last()).unwrap().unwrap();
    assert_eq!(report.first, all[1].0);
    assert_eq!(Log::open_with(dir.path(), SHORT).unwrap().head().unwrap(), heads[11]);
}

#[test]
fn a_cut_end_and_a_log_written_anew_are_found_by_their_heads() {
    let dir = tempfile::tempdir().unwrap();
    let heads = filled(dir.path(), 10);
    let anchor = heads.last();
    let (_, last) = files(dir.path()).unwrap().pop().unwrap();
    std::fs::remove_file(&last).unwrap();
    assert!(verify(dir.path(), None).unwrap().is_ok(), "the chain alone cannot tell");
    assert!(matches!(trouble(dir.path(), anchor), Trouble::Short { head: 10, .. }));
    let other = tempfile::tempdir().unwrap();
    let log = Log::open_with(other.path(), SHORT).unwrap();
    (1..=12).for_each(|n| assert_eq!(log.append(9, &act(n)).unwrap().seq, n));
    assert!(matches!(trouble(other.path(), anchor), Trouble::Rewritten { seq: 10 }));
    assert!(verify(other.path(), Some(&Head::nothing())).unwrap().unwrap().anchored);
}

#[test]
fn long_texts_are_cut_and_still_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let long = Act { why: "\u{1f512}\n".repeat(100_000), verb: "x".repeat(100_000), ..act(1) };
    log.append(1, &long).unwrap();
    let (_, content) = contents(dir.path()).remove(0);
    assert!(content.len() < crate::audit::MAX_LINE, "{}", content.len());
    assert_eq!(report(dir.path()), 1);
}

#[test]
fn a_log_that_cannot_be_written_says_so_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open_with(dir.path(), 1).unwrap();
    log.append(1, &act(1)).unwrap();
    // The next line wants a new file, where a folder is in the way.
    std::fs::create_dir(dir.path().join(format!("{:016x}.jsonl", 2))).unwrap();
    assert!(matches!(log.append(2, &act(2)), Err(LogError::Io { .. })));
    assert!(matches!(log.append(3, &act(3)), Err(LogError::Failed { .. })));
    assert!(matches!(log.head(), Err(LogError::Failed { .. })));
}

const CHILD: &str = "COFFER_TEST_AUDIT_CHILD";

/// Runs only as a child of the test below: writes lines, and says the number of each after it was acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let log = Log::open_with(Path::new(&folder), SHORT).unwrap();
    let begun = log.head().unwrap().seq;
    for n in begun + 1..begun + 100_000 {
        log.append(n, &act(n)).unwrap();
        let said = format!("acknowledged {n}\n");
        io::stdout().write_all(said.as_bytes()).unwrap();
    }
}

#[test]
fn every_acknowledged_line_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "audit::file::tests::child_that_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = said.map_while(Result::ok).filter_map(|line| {
            line.split_once("acknowledged ").and_then(|(_, number)| number.parse::<u64>().ok())
        });
        for number in numbers.take(usize::try_from(5 + round * 7).unwrap()) {
            acknowledged = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(acknowledged > 0);
        let log = Log::open_with(dir.path(), SHORT).unwrap();
        let head = log.head().unwrap();
        assert!(head.seq >= acknowledged, "{} {acknowledged}", head.seq);
        assert!(verify(dir.path(), Some(&head)).unwrap().unwrap().anchored);
    }
}
