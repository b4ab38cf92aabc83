//! `SQLite` in WAL mode: a shared mapping that several processes write, locks, and a sync for every commit.

use super::{MODES, crash, host_with_home, program, remount, sized};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use tests::needs;
use tests::talker::Talker;

/// Processes that write at the same time.
const WRITERS: u32 = 3;

/// Rows that a writer is given; it is killed long before.
const ROWS: u32 = 10_000;

/// What each connection begins with. FULL has every commit synced before it is told.
const SETTINGS: &str =
    "PRAGMA busy_timeout=60000; PRAGMA synchronous=FULL; PRAGMA mmap_size=268435456;\n";

/// Runs statements, and gives back what they select.
fn query(home: &Path, statements: &str) -> String {
    program(home, "sqlite3", &["-bail", "db", statements])
}

fn make(home: &Path) {
    let mode = query(home, "PRAGMA journal_mode=WAL;");
    assert_eq!(mode, "wal\n");
    query(home, "CREATE TABLE t(writer INT, n INT, data BLOB, PRIMARY KEY(writer, n));");
}

/// A process that says each row once it is committed.
fn writer(home: &Path, number: u32, first: u32) -> Talker {
    let mut statements = SETTINGS.to_owned();
    for n in first..first + ROWS {
        // A blob that the row tells: so a row is wrong when a byte of it is.
        write!(
            statements,
            "INSERT INTO t VALUES({number}, {n}, CAST(printf('%.*c%d', {}, 'x', {n}) AS BLOB));\nSELECT 'row {n}';\n",
            n * 37 % 6000
        )
        .unwrap();
    }
    // The output of each statement at once, not when a buffer is full.
    let mut command = Command::new("stdbuf");
    command.current_dir(home).args(["-oL", "sqlite3", "-bail", "db"]);
    Talker::start(command, statements)
}

/// Row numbers that a writer has said.
fn rows(said: &[String]) -> Vec<u32> {
    said.iter().filter_map(|line| line.strip_prefix("row ")?.parse().ok()).collect()
}

/// The database is whole, and every row that was told is in it, as it was written.
fn check(home: &Path, told: &[Vec<u32>], when: &str) {
    assert_eq!(query(home, "PRAGMA integrity_check;"), "ok\n", "{when}");
    let wrong = "SELECT count(*) FROM t WHERE data <> CAST(printf('%.*c%d', n * 37 % 6000, 'x', n) AS BLOB);";
    assert_eq!(query(home, wrong), "0\n", "{when}");
    for (number, told) in told.iter().enumerate() {
        let found = query(home, &format!("SELECT n FROM t WHERE writer={number} ORDER BY n;"));
        let found: Vec<u32> = found.lines().filter_map(|line| line.parse().ok()).collect();
        assert!(found.len() >= told.len());
        for row in told {
            let missing = found.binary_search(row).is_err();
            assert!(!missing, "{when}: row {row} of writer {number} was told and is gone");
        }
    }
}

/// What ends the writers.
#[derive(Debug, Clone, Copy)]
enum End {
    /// They are killed while they write.
    Writers,
    /// The vmd is killed under them.
    Server,
}

/// One round: writers go on from where the last round got to, and something ends them.
fn round(host: &tests::host::Host, told: &mut [Vec<u32>], end: End) {
    let home = host.home("web01");
    let next = query(&home, "SELECT coalesce(max(n), 0) + 1 FROM t;");
    let next = next.trim().parse().unwrap();
    let mut writers: Vec<Talker> = (0..WRITERS).map(|number| writer(&home, number, next)).collect();
    for writer in &mut writers {
        writer.says_more(usize::try_from(sized(20, 400)).unwrap());
    }
    if matches!(end, End::Server) {
        crash(host);
    }
    for (writer, told) in writers.into_iter().zip(told) {
        let said = match end {
            End::Writers => writer.kill(),
            End::Server => writer.ended(),
        };
        told.extend(rows(&said));
    }
}

#[test]
fn committed_rows_of_sqlite_survive_the_death_of_writers_and_of_the_vmd() {
    needs!(Root, Fuse, Program("sqlite3"), Program("stdbuf"));
    for mode in MODES {
        let host = host_with_home(mode);
        let home = host.home("web01");
        make(&home);
        let mut told = vec![Vec::new(); usize::try_from(WRITERS).unwrap()];
        for number in 0..sized(2, 6) {
            let end = if number % 2 == 0 { End::Writers } else { End::Server };
            round(&host, &mut told, end);
            check(&home, &told, &format!("{mode}, round {number}, after the end of {end:?}"));
        }
        query(&home, "PRAGMA wal_checkpoint(TRUNCATE);");
        remount(&host, mode);
        check(&home, &told, &format!("{mode}, after a remount"));
        query(&home, "VACUUM;");
        check(&home, &told, &format!("{mode}, after everything was written anew"));
    }
}
