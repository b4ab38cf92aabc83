//! `coffer disk import`: a new disk with the content of an image, encrypted on the way.
//!
//! The disk stays in state `importing` until everything is written, so that no half copy is ever taken for a
//! disk. Flow: probe -> create -> attach -> qemu-img -> detach -> ready. Whatever fails after `create`, also
//! Ctrl-C, ends in the deletion of the disk; only `kill -9` leaves it, and the next import says so.

use super::{Context, disk};
use crate::answer::Answer;
use crate::cli::{DiskName, ImportArgs};
use crate::error::{CliError, HelperError};
use crate::image::{self, Format, Source};
use crate::interrupt::Interrupt;
use crate::progress::Meter;
use crate::qemu_img::{self, Copy, PROGRAM};
use hostd_api::client::ClientError;
use hostd_api::error::ErrorCode;
use hostd_api::types::{AttachDisk, CreateDisk, DiskInfo, DiskState};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may count `qemu-img` as a client after its end, before that is taken for another client.
const GOODBYE: Duration = Duration::from_secs(3);

/// How long hostd may be away after a copy: vmd processes outlive a restart of hostd, and so should an import.
const RESTART: Duration = Duration::from_secs(10);

/// How often it is asked again meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// The answer of `disk import`.
#[derive(Debug, Serialize)]
struct Imported<'a> {
    ok: bool,
    vm: &'a str,
    disk: &'a DiskInfo,
    source: &'a Path,
    format: Format,
    warnings: &'a [String],
}

pub(super) fn run(context: &Context, args: &ImportArgs) -> Result<Answer, CliError> {
    let source = image::probe(&args.file, args.format, args.allow_backing)?;
    context.warn(&source.warnings);
    let interrupt = watch()?;
    create(context, args, source.size)?;
    let filled = fill(context, &args.name, &source, &interrupt);
    let disk = filled.map_err(|cause| undo(context, &args.name, cause))?;
    let answer = Imported {
        ok: true,
        vm: &args.name.vm,
        disk: &disk,
        source: &source.path,
        format: source.format,
        warnings: &source.warnings,
    };
    let text = format!("disk {} imported, {}\n", args.name, disk::sizes(&disk));
    Ok(Answer::new(&answer, text))
}

/// Watches for Ctrl-C from here on.
pub(super) fn watch() -> Result<Interrupt, CliError> {
    let watch = Interrupt::watch();
    watch.map_err(|reason| HelperError::NotRun { program: PROGRAM, reason }.into())
}

fn create(context: &Context, args: &ImportArgs, size: u64) -> Result<(), CliError> {
    let name = &args.name;
    let body = CreateDisk { name: name.disk.clone(), size, unit: args.unit, importing: true };
    let Err(error) = context.api.create_disk(&name.vm, &body) else { return Ok(()) };
    let exists =
        matches!(&error, ClientError::Api { error, .. } if error.code == ErrorCode::AlreadyExists);
    let left = exists.then(|| unfinished(context, name)).flatten();
    Err(left.unwrap_or(CliError::Client(error)))
}

/// The disk of that name, when it is the rest of an import.
fn unfinished(context: &Context, name: &DiskName) -> Option<CliError> {
    let vm = context.api.vm(&name.vm).ok()?;
    let disk = vm.disks.into_iter().find(|disk| disk.name == name.disk)?;
    (disk.state == DiskState::Importing).then(|| CliError::Unfinished {
        vm: name.vm.clone(),
        disk: name.disk.clone(),
        attached: disk.attachment.is_some(),
    })
}

fn fill(
    context: &Context,
    name: &DiskName,
    source: &Source,
    interrupt: &Interrupt,
) -> Result<DiskInfo, CliError> {
    let body = AttachDisk { read_only: false, importing: true, ..AttachDisk::default() };
    let disk = context.api.attach(&name.vm, &name.disk, &body)?;
    let uri = uri(&disk)?;
    let copy = Copy {
        from: source.format,
        source: source.path.as_os_str(),
        to: Format::Raw,
        target: OsStr::new(&uri),
        // Nothing has been written to the disk, and holes of a payload read as zeros.
        into_zeros: true,
    };
    let mut meter = Meter::new(context.progress(), &format!("import {name}"), source.size);
    qemu_img::convert(&copy, &mut meter, interrupt)?;
    // Detaching makes it durable; only then it may be called ready.
    detach(context, name)?;
    if interrupt.is_set() {
        return Err(CliError::Interrupted);
    }
    Ok(patient(|| context.api.ready(&name.vm, &name.disk))?)
}

/// Detaches a disk that was attached for a copy that has ended.
pub(super) fn detach(context: &Context, name: &DiskName) -> Result<DiskInfo, ClientError> {
    patient(|| context.api.detach(&name.vm, &name.disk, false))
}

/// Asks again while a refusal is likely to pass by itself.
fn patient<T>(ask: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let start = Instant::now();
    loop {
        match ask() {
            Err(error) if start.elapsed() < patience(&error) => thread::sleep(LOOK),
            answer => return answer,
        }
    }
}

fn patience(error: &ClientError) -> Duration {
    match error {
        ClientError::Api { error, .. } if error.code == ErrorCode::InUse => GOODBYE,
        ClientError::Unreachable { reason, .. }
            if [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&reason.kind()) =>
        {
            RESTART
        }
        _ => Duration::ZERO,
    }
}

/// NBD URI of an attached disk.
pub(super) fn uri(disk: &DiskInfo) -> Result<String, CliError> {
    disk.attachment.as_ref().map(|attachment| attachment.uri.clone()).ok_or_else(|| {
        ClientError::Protocol(format!("disk {} was attached, but no socket told", disk.name)).into()
    })
}

/// Deletes the disk of a failed import.
fn undo(context: &Context, name: &DiskName, cause: CliError) -> CliError {
    // Not attached is what is wanted, and a real obstacle shows when the disk is deleted.
    let _ = context.api.detach(&name.vm, &name.disk, true);
    let deleted = context.api.delete_disk(&name.vm, &name.disk, false);
    CliError::Import {
        vm: name.vm.clone(),
        disk: name.disk.clone(),
        cause: Box::new(cause),
        cleanup: deleted.err().map(|reason| Box::new(reason.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io;
    use std::path::PathBuf;

    fn away(kind: ErrorKind) -> ClientError {
        ClientError::Unreachable { socket: PathBuf::from("/s"), reason: io::Error::from(kind) }
    }

    #[test]
    fn a_restart_of_hostd_is_waited_for() {
        let asked = Cell::new(0);
        let answer = patient(|| {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Err(away(ErrorKind::ConnectionRefused)) } else { Ok(asked.get()) }
        });
        assert_eq!(answer.expect("the third time"), 3);
    }

    #[test]
    fn a_lasting_refusal_is_told_at_once() {
        let asked = Cell::new(0);
        let answer = patient(|| {
            asked.set(asked.get() + 1);
            Err::<(), _>(away(ErrorKind::PermissionDenied))
        });
        assert!(answer.is_err());
        assert_eq!(asked.get(), 1);
    }
}
