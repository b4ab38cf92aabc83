//! `coffer disk export`: the decrypted content of a disk in an image file.
//!
//! Flow: attach read-only, unless it is attached -> qemu-img into a hidden file beside the target -> fsync and
//! rename -> detach, if it was attached here. The file holds plain data; it is readable by its owner only.

use super::{Context, import};
use crate::answer::Answer;
use crate::cli::{DiskName, ExportArgs};
use crate::error::CliError;
use crate::image::Format;
use crate::interrupt::Interrupt;
use crate::progress::Meter;
use crate::qemu_img::{self, Copy};
use crate::savefile::SaveFile;
use crate::size::format_size;
use hostd_api::types::{AttachDisk, DiskInfo, DiskState};
use serde::Serialize;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The answer of `disk export`.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    ok: bool,
    vm: &'a str,
    disk: &'a str,
    size: u64,
    file: &'a Path,
    format: Format,
    warnings: &'a [String],
}

pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<Answer, CliError> {
    let name = &args.name;
    // First, so that no signal leaves the hidden file behind.
    let interrupt = import::watch()?;
    let (save, _file) = SaveFile::create(&args.file, args.force)?;
    let before = find(context, name)?;
    let warnings: Vec<String> = before.as_ref().and_then(in_use).into_iter().collect();
    context.warn(&warnings);
    let (disk, ours) = match before.filter(|disk| disk.attachment.is_some()) {
        Some(disk) => (disk, false),
        None => {
            let body = AttachDisk { read_only: true, importing: false, ..AttachDisk::default() };
            (context.api.attach(&name.vm, &name.disk, &body)?, true)
        }
    };
    let copied = copy(context, args, &disk, save, &interrupt);
    // The copy decides how the command ends; a disk that stays attached is said beside it.
    let detached = if ours { import::detach(context, name).map(|_| ()) } else { Ok(()) };
    let file = copied?;
    detached?;
    let format = Format::from(args.format);
    let answer = Exported {
        ok: true,
        vm: &name.vm,
        disk: &name.disk,
        size: disk.size,
        file: &file,
        format,
        warnings: &warnings,
    };
    let text = format!(
        "disk {name} exported to {} ({}, {}); the file is not encrypted\n",
        file.display(),
        format_size(disk.size),
        format.name()
    );
    Ok(Answer::new(&answer, text))
}

fn find(context: &Context, name: &DiskName) -> Result<Option<DiskInfo>, CliError> {
    let vm = context.api.vm(&name.vm)?;
    // A disk that is not there is reported by attach, in the words of hostd.
    Ok(vm
        .disks
        .into_iter()
        .find(|disk| disk.name == name.disk && disk.state == DiskState::Attached))
}

/// What to know about a disk that somebody may be writing to.
fn in_use(disk: &DiskInfo) -> Option<String> {
    let attachment = disk.attachment.as_ref()?;
    if attachment.read_only {
        return None;
    }
    Some(format!(
        "disk {} is attached for writing ({} clients); what is written during the export may be half in it",
        disk.name, attachment.clients
    ))
}

fn copy(
    context: &Context,
    args: &ExportArgs,
    disk: &DiskInfo,
    save: SaveFile,
    interrupt: &Interrupt,
) -> Result<PathBuf, CliError> {
    let uri = import::uri(disk)?;
    let copy = Copy {
        // What a guest wrote must never choose the format.
        from: Format::Raw,
        source: OsStr::new(&uri),
        to: args.format.into(),
        target: save.temporary().as_os_str(),
        into_zeros: false,
    };
    let mut meter = Meter::new(context.progress(), &format!("export {}", args.name), disk.size);
    qemu_img::convert(&copy, &mut meter, interrupt)?;
    save.commit()
}
