//! What the user reads when a command failed: message, remedy, lock reason, as text or as JSON.
//!
//! The only place with advice for errors that arise in the command line itself; errors of hostd bring their
//! own remedy. Reads the owner of the socket and `/etc/group` to name the group that may use it.

use crate::error::{CliError, HelperError, ImageError, UsageError};
use crate::exit::exit_of;
use crate::table::clean;
use hostd_api::client::ClientError;
use hostd_api::error::LockReason;
use serde::Serialize;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An error as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    error: Fault,
    exit_code: u8,
}

/// The shape of `ApiError`, with the codes of the command line beside those of the API.
#[derive(Debug, Serialize)]
struct Fault {
    code: String,
    message: String,
    remedy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<LockReason>,
}

impl Report {
    /// What is shown of `error`.
    pub(crate) fn of(error: &CliError) -> Self {
        let fault = Fault {
            code: code(error),
            message: error.to_string(),
            remedy: remedy(error),
            lock: lock(error).cloned(),
        };
        Self { error: fault, exit_code: exit_of(error).number() }
    }

    /// What is shown of arguments that cannot be parsed.
    pub(crate) fn of_usage(message: &str) -> Self {
        let message = message.trim().trim_start_matches("error: ").to_owned();
        let remedy = String::from("see `coffer --help`");
        let fault = Fault { code: String::from("usage"), message, remedy, lock: None };
        Self { error: fault, exit_code: crate::exit::Exit::Usage.number() }
    }

    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let fault = &self.error;
        let mut text = format!("error: {}\n", clean(&fault.message));
        if let Some(lock) = &fault.lock {
            let code = crate::run::lock_code(lock);
            // hostd mostly says the detail in its message.
            let told = fault.message.contains(&lock.detail);
            let detail = if told { String::new() } else { format!(", {}", clean(&lock.detail)) };
            text.push_str(&format!("  locked: {code}{detail}\n"));
            if let Some(key) = &lock.key_id {
                text.push_str(&format!("  key: {}\n", clean(key)));
            }
        }
        if !fault.remedy.is_empty() {
            text.push_str(&format!("  to do: {}\n", clean(&fault.remedy)));
        }
        text
    }
}

/// The stable code: that of the API, or one of the command line (listed in `docs/cli.md`).
fn code(error: &CliError) -> String {
    let code = match error {
        CliError::Client(ClientError::Api { error, .. }) => return crate::run::kebab(&error.code),
        CliError::Import { cause, .. } => return code(cause),
        CliError::Client(ClientError::Unreachable { .. }) => "hostd-unreachable",
        CliError::Client(ClientError::Protocol(_)) => "hostd-protocol",
        CliError::Usage(_) => "usage",
        CliError::FileExists { .. } => "file-exists",
        CliError::File { .. } | CliError::Output(_) => "file",
        CliError::Image(_) => "image",
        CliError::Helper(_) => "helper",
        CliError::Unfinished { .. } => "import-unfinished",
        CliError::BackupDamaged { .. } => "backup-damaged",
        CliError::VmDamaged { .. } => "vm-damaged",
        CliError::RotateIncomplete { .. } => "rotate-incomplete",
        CliError::Interrupted => "interrupted",
    };
    code.to_owned()
}

fn lock(error: &CliError) -> Option<&LockReason> {
    match error {
        CliError::Client(ClientError::Api { error, .. }) => error.lock.as_ref(),
        CliError::Import { cause, .. } => lock(cause),
        _ => None,
    }
}

/// What to do about `error`.
fn remedy(error: &CliError) -> String {
    match error {
        CliError::Client(ClientError::Api { error, .. }) => error.remedy.clone(),
        CliError::Client(ClientError::Unreachable { socket, reason }) => {
            unreachable(socket, reason)
        }
        CliError::Client(ClientError::Protocol(_)) => String::from(
            "see `journalctl -u hostd`, and check that coffer and hostd have the same version",
        ),
        CliError::Usage(usage) => match usage {
            UsageError::NobodyToAsk { .. } => String::from("say --yes if it is meant"),
            UsageError::NotConfirmed => String::new(),
        },
        CliError::FileExists { .. } => {
            String::from("choose another name, or say --force to replace it")
        }
        CliError::File { reason, .. } => file_remedy(reason.kind()),
        CliError::Output(_) => String::from("check where the output goes"),
        CliError::Image(image) => image_remedy(image),
        CliError::Helper(helper) => helper_remedy(helper),
        CliError::Unfinished { vm, disk, attached } => unfinished(vm, disk, *attached),
        CliError::Import { cause, cleanup: None, .. } => remedy(cause),
        CliError::Import { vm, disk, cause, cleanup: Some(_) } => {
            let first = remedy(cause);
            let then = unfinished(vm, disk, true);
            if first.is_empty() { then } else { format!("{first}; then {then}") }
        }
        CliError::BackupDamaged { .. } => {
            String::from("write the backup to another medium; hostd was not told that it is safe")
        }
        CliError::VmDamaged { .. } => String::from("do for each finding what stands beside it"),
        CliError::RotateIncomplete { .. } => {
            String::from("remove the reason shown for each VM, then rotate again")
        }
        CliError::Interrupted => String::new(),
    }
}

fn file_remedy(kind: ErrorKind) -> String {
    let text = match kind {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied => "check its permissions, or use sudo",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space",
        _ => "check the path and the storage behind it",
    };
    text.to_owned()
}

fn unfinished(vm: &str, disk: &str, attached: bool) -> String {
    let delete = format!("coffer disk delete {vm} {disk} --yes");
    let command = match attached {
        true => format!("coffer disk detach {vm} {disk} --force; {delete}"),
        false => delete,
    };
    format!("if no import is running, delete it: {command}")
}

fn image_remedy(error: &ImageError) -> String {
    match error {
        ImageError::Foreign { path, .. } => format!(
            "convert it first: qemu-img convert -O qcow2 {0} {0}.qcow2; or say --format raw to take its bytes as they are",
            path.display()
        ),
        ImageError::ReadsOthers { .. } => String::from(
            "say --allow-backing if you trust who made the image, or ask for an image that stands alone",
        ),
        ImageError::Damaged { .. } => String::from("get the image again, or name its --format"),
        ImageError::Inconsistent { path, .. } => format!(
            "get the image again; `qemu-img check {0}` lists the faults, and `qemu-img check -r all {0}` repairs what can be repaired",
            path.display()
        ),
        ImageError::NoStorage { .. } => String::from("write the image to a file first"),
        ImageError::Empty { .. } => {
            String::from("make an empty disk with `coffer disk create VM DISK --size SIZE`")
        }
    }
}

fn helper_remedy(error: &HelperError) -> String {
    match error {
        HelperError::Missing { .. } => {
            String::from("install it: apt install qemu-utils (Debian and Ubuntu)")
        }
        HelperError::NotRun { program, .. } => format!("check that {program} can be executed"),
        HelperError::NoSpace { .. } => {
            String::from("free space where the copy was written to, then try again")
        }
        HelperError::Failed { .. } => String::from("see what it said above; then try again"),
        HelperError::Answer { program, .. } => {
            format!("{program} of QEMU 5.0 and later is understood; check `{program} --version`")
        }
    }
}

fn unreachable(socket: &Path, reason: &io::Error) -> String {
    match reason.kind() {
        ErrorKind::NotFound => format!(
            "start it (systemctl start hostd), or name its socket with --socket or COFFER_SOCKET; tried {}",
            socket.display()
        ),
        ErrorKind::ConnectionRefused => {
            String::from("hostd is not running: systemctl start hostd, then journalctl -u hostd")
        }
        ErrorKind::PermissionDenied => refused(group_of(socket).as_deref()),
        _ => String::from("see `journalctl -u hostd`"),
    }
}

/// Advice to a user who may not use the socket, which belongs to `group`.
fn refused(group: Option<&str>) -> String {
    match group {
        // Membership in root's own group would give more than access to hostd.
        Some("root") => String::from(
            "use sudo, or let a group in: set `group` under [socket] in /etc/coffer/hostd.toml",
        ),
        Some(group) => format!(
            "ask for membership in group {group} (usermod -aG {group} USER, then log in again), or use sudo"
        ),
        None => String::from("the folder of the socket is closed to you; use sudo"),
    }
}

/// Group that owns `path`, by name where `/etc/group` has it.
fn group_of(path: &Path) -> Option<String> {
    let gid = std::fs::metadata(path).ok()?.gid();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, gid).unwrap_or_else(|| gid.to_string()))
}

/// Name of group `gid` in the text of a group file: `NAME:password:GID:members`, group(5).
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        let number: u32 = parts.nth(1)?.parse().ok()?;
        (number == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
