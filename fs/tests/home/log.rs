//! What the door logs, kept for tests that ask.

use std::io;
use std::sync::{Mutex, OnceLock};

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ONCE: OnceLock<()> = OnceLock::new();

struct Keep;

impl io::Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts keeping; the log is the process's, so lines of other tests are in it too.
pub(crate) fn keep() {
    ONCE.get_or_init(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| Keep).init();
    });
}

/// Starts keeping also what developers ask for; for tests that are alone in their process.
pub(crate) fn keep_all() {
    ONCE.get_or_init(|| {
        let all = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
        all.with_ansi(false).with_writer(|| Keep).init();
    });
}

/// Forgets what was kept.
pub(crate) fn clear() {
    LINES.lock().unwrap().clear();
}

/// How many lines hold all these words.
pub(crate) fn count(words: &[&str]) -> usize {
    let text = String::from_utf8(LINES.lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}
