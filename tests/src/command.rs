//! Running a program to its end, with a limit, and what it said.

use crate::wait;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// The command, for messages.
    pub command: String,
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The standard output of a program that must have succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.out
    }

    /// The standard output as JSON.
    ///
    /// # Panics
    /// When the program failed or did not say JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("no JSON ({error}): {out}"))
    }

    /// The standard error of a program that must have failed with `code`, and whose message has all `words`.
    ///
    /// # Panics
    /// When it ended otherwise or said something else.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "{self}");
        let lower = self.err.to_lowercase();
        for word in words {
            assert!(lower.contains(&word.to_lowercase()), "no `{word}` in what it said: {self}");
        }
        assert!(!lower.contains("panicked"), "{self}");
        self.err
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n-- out:\n{}\n-- err:\n{}",
            self.command, self.code, self.out, self.err
        )
    }
}

/// Runs `program` with `args`; kills it after `limit`.
///
/// # Panics
/// When it cannot be started or takes longer.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S], limit: Duration) -> Said {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command, None, limit)
}

/// Runs a prepared command, with `input` on its standard input.
///
/// # Panics
/// When it cannot be started or takes longer than `limit`.
#[track_caller]
pub fn run_command(mut command: Command, input: Option<&[u8]>, limit: Duration) -> Said {
    let name = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends before it has read everything says so in another way.
        let _ = pipe.write_all(bytes);
    }
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let code = wait_for(&mut child, &name, limit);
    Said {
        command: name,
        code,
        out: out.join().unwrap_or_default(),
        err: err.join().unwrap_or_default(),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[track_caller]
fn wait_for(child: &mut Child, name: &str, limit: Duration) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{name} took longer than {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program that must succeed within one step.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn ok<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    run(program, args, wait::STEP * 4).ok()
}
