//! `coffer disk`: disks of a VM, but for the long copies in `import` and `export`.

use super::{Context, Done, export, import, kebab};
use crate::answer::Answer;
use crate::cli::{DiskName, DiskVerb};
use crate::confirm::Question;
use crate::error::CliError;
use crate::qemu_args::Hints;
use crate::size::format_size;
use crate::table::{Align, Table, or_dash};
use hostd_api::types::{AttachDisk, CreateDisk, DiskInfo, ResizeDisk};
use serde::Serialize;

pub(super) fn run(context: &Context, verb: DiskVerb) -> Result<Answer, CliError> {
    let api = &context.api;
    match verb {
        DiskVerb::Create { name, size, unit } => {
            let body = CreateDisk { name: name.disk.clone(), size, unit, importing: false };
            let disk = api.create_disk(&name.vm, &body)?;
            Ok(Answer::new(&disk, format!("disk {name} created, {}\n", sizes(&disk))))
        }
        DiskVerb::Import(args) => import::run(context, &args),
        DiskVerb::Export(args) => export::run(context, &args),
        DiskVerb::List { vm } => {
            let disks = api.vm(&vm)?.disks;
            Ok(Answer::new(&disks, list(&disks)))
        }
        DiskVerb::Attach { name, read_only, owner, cache, libvirt } => {
            let body = AttachDisk { read_only, importing: false, owner, cache: cache.into() };
            attach(context, &name, &body, libvirt)
        }
        DiskVerb::Detach { name, force } => {
            let disk = api.detach(&name.vm, &name.disk, force)?;
            Ok(Answer::new(&disk, format!("disk {name} detached\n")))
        }
        DiskVerb::Resize { name, size, shrink, yes, force } => {
            resize(context, &name, &ResizeDisk { size, shrink, force }, yes)
        }
        DiskVerb::Delete { name, yes, force } => delete(context, &name, yes, force),
    }
}

/// The answer of `disk attach`: the disk, and how to give it to a VM.
#[derive(Debug, Serialize)]
struct Attached<'a> {
    #[serde(flatten)]
    disk: &'a DiskInfo,
    #[serde(flatten)]
    hints: Option<&'a Hints>,
}

fn attach(
    context: &Context,
    name: &DiskName,
    body: &AttachDisk,
    libvirt: bool,
) -> Result<Answer, CliError> {
    let disk = context.api.attach(&name.vm, &name.disk, body)?;
    let Some(attachment) = &disk.attachment else {
        return Ok(Answer::new(&disk, format!("disk {name} is not attached\n")));
    };
    let hints = Hints::of(&disk, attachment);
    let mut mode = String::from(if attachment.read_only { ", read-only" } else { "" });
    if !attachment.cache.is_default() {
        mode.push_str(&format!(", cache {}", kebab(&attachment.cache)));
    }
    let mut text = format!(
        "disk {name} attached{mode}\n\nNBD:\n  {}\n\nQEMU:\n  {}\n",
        attachment.uri,
        hints.shell()
    );
    if libvirt {
        text.push_str("\nlibvirt, in <devices> (choose a free target dev):\n");
        text.push_str(&hints.libvirt_xml);
    }
    Ok(Answer::new(&Attached { disk: &disk, hints: Some(&hints) }, text))
}

fn resize(
    context: &Context,
    name: &DiskName,
    body: &ResizeDisk,
    yes: bool,
) -> Result<Answer, CliError> {
    if body.shrink {
        let loss = format!(
            "What lies behind {} on disk {name} is lost; nothing brings it back.",
            format_size(body.size)
        );
        let what = format!("shrinking disk {name}");
        Question { what, loss, name: &name.disk, yes, json: context.json }.ask()?;
    }
    let disk = context.api.resize(&name.vm, &name.disk, body)?;
    Ok(Answer::new(&disk, format!("disk {name} resized, {}\n", sizes(&disk))))
}

fn delete(context: &Context, name: &DiskName, yes: bool, force: bool) -> Result<Answer, CliError> {
    let loss = format!("Disk {name} is deleted with its key; nothing brings it back.");
    let what = format!("deleting disk {name}");
    Question { what, loss, name: &name.disk, yes, json: context.json }.ask()?;
    context.api.delete_disk(&name.vm, &name.disk, force)?;
    let done = Done { ok: true, vm: Some(&name.vm), disk: Some(&name.disk) };
    Ok(Answer::new(&done, format!("disk {name} deleted\n")))
}

/// `20 GiB (21474836480 bytes), unit 4096`.
pub(super) fn sizes(disk: &DiskInfo) -> String {
    format!("{} ({} bytes), unit {}", format_size(disk.size), disk.size, disk.unit)
}

/// The table of `disks`.
pub(super) fn list(disks: &[DiskInfo]) -> String {
    let mut table = Table::new(&[
        ("DISK", Align::Left),
        ("SIZE", Align::Right),
        ("USED", Align::Right),
        ("UNIT", Align::Right),
        ("STATE", Align::Left),
        ("CLIENTS", Align::Right),
        ("NBD", Align::Left),
    ]);
    for disk in disks {
        let attachment = disk.attachment.as_ref();
        table.row([
            disk.name.clone(),
            format_size(disk.size),
            format_size(disk.allocated),
            disk.unit.to_string(),
            state(disk),
            or_dash(attachment.map(|a| a.clients.to_string())),
            or_dash(attachment.map(|a| a.uri.clone())),
        ]);
    }
    table.to_string()
}

/// `attached read-only`, `attached cache=none`, `damaged: the descriptor is missing`.
fn state(disk: &DiskInfo) -> String {
    let mut text = kebab(&disk.state);
    if disk.attachment.as_ref().is_some_and(|a| a.read_only) {
        text.push_str(" read-only");
    }
    if let Some(a) = disk.attachment.as_ref().filter(|a| !a.cache.is_default()) {
        text.push_str(&format!(" cache={}", kebab(&a.cache)));
    }
    if let Some(problem) = &disk.problem {
        text.push_str(": ");
        text.push_str(problem);
    }
    text
}
