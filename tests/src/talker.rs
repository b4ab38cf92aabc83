//! A program that works on while the test reads what it says, line by line, and ends it at a moment of its choice.

use crate::wait;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A running program. Dropping it ends it by SIGKILL.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Talker {
    /// Starts it; `input` goes to its standard input, which is closed then.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command, input: String) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut pipe = child.stdin.take().expect("a pipe");
        std::thread::spawn(move || {
            // A program that is killed reads no further.
            let _ = pipe.write_all(input.as_bytes());
        });
        let said = collect(child.stdout.take().expect("a pipe"));
        let complaints = collect(child.stderr.take().expect("a pipe"));
        Self { child, said, complaints }
    }

    /// What it has said, in whole lines.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        self.said.lock().map(|lines| lines.clone()).unwrap_or_default()
    }

    /// Waits until it has said so many lines more than it has now.
    ///
    /// # Panics
    /// When it ends before, or takes longer than `wait::PROGRAM`.
    pub fn says_more(&mut self, lines: usize) {
        let before = self.said().len();
        wait::until(&format!("{lines} lines"), wait::PROGRAM, || {
            let ended = self.child.try_wait().ok().flatten();
            let enough = self.said().len() >= before + lines;
            assert!(enough || ended.is_none(), "it ended ({ended:?}): {:?}", self.complaints());
            enough.then_some(())
        });
    }

    /// Ends it by SIGKILL, and gives back all that it said.
    ///
    /// # Panics
    /// When it cannot be ended.
    #[must_use]
    pub fn kill(mut self) -> Vec<String> {
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
        self.rest()
    }

    /// Waits until it ends by itself, however that is, and gives back all that it said.
    ///
    /// # Panics
    /// When it takes longer than `wait::PROGRAM`.
    #[must_use]
    pub fn ended(mut self) -> Vec<String> {
        wait::until("the program ends", wait::PROGRAM, || self.child.try_wait().ok().flatten());
        self.rest()
    }

    /// What it said on its standard error.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().map(|lines| lines.clone()).unwrap_or_default()
    }

    /// All lines, once the reader of the pipe has seen its end and let its end of them go.
    fn rest(&self) -> Vec<String> {
        wait::until_true("the pipe is read", || Arc::strong_count(&self.said) == 1);
        self.said()
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&lines);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        // A last line without its end was cut by the kill: the program may not have meant it so.
        while reader.read_until(b'\n', &mut line).is_ok() && line.ends_with(b"\n") {
            if let Ok(mut lines) = shared.lock() {
                lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.clear();
        }
    });
    lines
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
