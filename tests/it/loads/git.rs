//! git: thousands of small files made, renamed, packed and removed, and a checksum of each.

use super::{MODES, host_with_home, program, remount, sized};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use tests::command::run_command;
use tests::host::pattern;
use tests::{needs, wait};

/// Files that each commit changes.
const CHANGED: u32 = 4;

/// Settings that keep the user's own out and git from working on in the background.
fn git(folder: &Path, args: &[&str]) -> String {
    let quiet = ["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.fsync=all"];
    let as_ours = ["-c", "safe.directory=*", "-c", "user.name=t", "-c", "user.email=t@t.invalid"];
    program(folder, "git", &[&quiet[..], &as_ours[..], args].concat())
}

/// Commits for `git fast-import`: each has new content for some of a few hundred files in a few dozen folders.
fn history(commits: u32) -> String {
    let mut stream = String::new();
    for commit in 1..=commits {
        let message = format!("commit {commit}");
        let (time, length) = (1_700_000_000 + commit, message.len());
        write!(
            stream,
            "commit refs/heads/main\ncommitter t <t@t.invalid> {time} +0000\ndata {length}\n{message}\n"
        )
        .unwrap();
        for file in 0..CHANGED {
            let number = commit * 7 + file * 131;
            let path = format!("d{}/e{}/f{}", number % 6, number % 7, number % 11);
            let size = usize::try_from(number * 977 % 20_000).unwrap();
            let text: String =
                pattern(size, commit).iter().map(|byte| format!("{byte:02x}")).collect();
            write!(stream, "M 100644 inline {path}\ndata {}\n{text}\n", text.len()).unwrap();
        }
    }
    stream
}

fn import(folder: &Path, commits: u32) {
    git(folder.parent().unwrap(), &["init", "-q", "-b", "main", folder.to_str().unwrap()]);
    let mut command = Command::new("git");
    command.current_dir(folder).args(["fast-import", "--quiet"]);
    run_command(command, Some(history(commits).as_bytes()), wait::PROGRAM).ok();
}

/// What a repository holds, as a text that two copies of it share.
fn inventory(folder: &Path) -> String {
    git(folder, &["fsck", "--full", "--strict", "--no-progress"]);
    let objects = git(folder, &["rev-list", "--all", "--objects"]);
    assert!(objects.lines().count() > 1000);
    let mut lines: Vec<&str> = objects.lines().filter_map(|line| line.split(' ').next()).collect();
    lines.sort_unstable();
    lines.join("\n") + &git(folder, &["rev-parse", "main"])
}

/// All objects as files of their own: thousands of them are made by a temporary name and a link or rename.
fn unpack(from: &Path, to: &Path) {
    git(to.parent().unwrap(), &["init", "-q", "-b", "main", to.to_str().unwrap()]);
    let pack = fs::read_dir(from.join(".git/objects/pack")).unwrap();
    let pack = pack.map(|entry| entry.unwrap().path());
    let pack = pack.into_iter().find(|path| path.extension().is_some_and(|end| end == "pack"));
    let mut command = Command::new("git");
    command.current_dir(to).args(["unpack-objects", "-q"]);
    run_command(command, Some(&fs::read(pack.unwrap()).unwrap()), wait::PROGRAM).ok();
    let head = git(from, &["rev-parse", "main"]);
    git(to, &["update-ref", "refs/heads/main", head.trim()]);
    git(to, &["reset", "-q", "--hard", "main"]);
}

#[test]
fn a_repository_is_cloned_checked_and_packed() {
    needs!(Root, Fuse, Program("git"));
    for mode in MODES {
        let host = host_with_home(mode);
        let home = host.home("web01");
        let outside = host.scratch().join("origin");
        import(&outside, sized(250, 3000));
        let expected = inventory(&outside);

        let origin = format!("file://{}", outside.display());
        git(&home, &["clone", "-q", &origin, "clone"]);
        unpack(&home.join("clone"), &home.join("loose"));
        for name in ["clone", "loose"] {
            assert!(inventory(&home.join(name)) == expected, "{mode} {name}");
        }
        git(&home.join("loose"), &["gc", "-q", "--prune=now"]);
        let count = git(&home.join("loose"), &["count-objects", "-v"]);
        assert!(count.contains("count: 0\n") && count.contains("garbage: 0\n"), "{count}");
        remount(&host, mode);
        for name in ["clone", "loose"] {
            let folder = home.join(name);
            assert!(inventory(&folder) == expected, "{mode} {name} after a remount");
            // What git remembers of each file, inode and times among it, is still so. The change time is the storage's,
            // which is later than the kernel's where that collects writes.
            let remembered = ["-c", "core.trustctime=false", "diff-files", "--raw"];
            assert_eq!(git(&folder, &remembered), "", "{mode} {name}");
            assert_eq!(git(&folder, &["status", "--porcelain"]), "", "{mode} {name}");
        }
        git(&home, &["clone", "-q", "--local", "loose", "linked"]);
        assert!(inventory(&home.join("linked")) == expected, "{mode} by hard links");
    }
}
