//! `coffer vm`: VMs of this host.

use super::{Context, Done, disk, fsck, kebab, lock_code};
use crate::answer::Answer;
use crate::cli::VmVerb;
use crate::confirm::Question;
use crate::error::CliError;
use crate::size::format_size;
use crate::table::{Align, Table, fields, or_dash};
use hostd_api::types::{
    CheckVm, CreateVm, HomeMode, MountVm, RegisterVm, SetTls, UmountVm, VmInfo,
};
use std::path::{Path, PathBuf};

pub(super) fn run(context: &Context, verb: VmVerb) -> Result<Answer, CliError> {
    let api = &context.api;
    match verb {
        VmVerb::Create { name, datastore, names, key: key_id } => {
            let names = names.into();
            let vm = api.create_vm(&CreateVm { name, datastore, names, key_id })?;
            let text = format!("VM {} created in {}\n", vm.name, vm.path.display());
            Ok(Answer::new(&vm, text))
        }
        VmVerb::List => {
            let vms = api.vms()?;
            Ok(Answer::new(&vms, list(&vms)))
        }
        VmVerb::Show { name } => {
            let vm = api.vm(&name)?;
            Ok(Answer::new(&vm, show(&vm)))
        }
        VmVerb::Register { path } => {
            let vm = api.register_vm(&RegisterVm { path: absolute(&path)? })?;
            let text = format!("VM {} registered, {}\n", vm.name, state(&vm));
            Ok(Answer::new(&vm, text))
        }
        VmVerb::Mount { name, exclusive, shared, force } => {
            let mode = match (exclusive, shared) {
                (true, _) => Some(HomeMode::Exclusive),
                (_, true) => Some(HomeMode::Shared),
                _ => None,
            };
            let vm = api.mount(&name, &MountVm { mode, force })?;
            Ok(Answer::new(&vm, mounted(&vm)))
        }
        VmVerb::Umount { name, force, lazy } => {
            let vm = api.umount(&name, &UmountVm { force, lazy })?;
            let rest = match &vm.home_mount {
                Some(_) => ", and served on for programs that use it",
                None => "",
            };
            let text = format!("home of VM {} unmounted{rest}\n", vm.name);
            Ok(Answer::new(&vm, text))
        }
        VmVerb::Lock { name, force } => said_state(&api.lock(&name, force)?),
        VmVerb::Unlock { name } => said_state(&api.unlock(&name)?),
        VmVerb::Fsck { name, repair } => {
            let report = api.check(&name, &CheckVm { repair })?;
            Ok(Answer::new(&report, fsck::text(&report)).but(fsck::failure(&report)))
        }
        VmVerb::Tls { name, on, port, off: _ } => {
            let vm = api.set_tls(&name, &SetTls { on, port })?;
            let text = match tls(&vm) {
                Some(tls) => format!("VM {} has network port {tls}\n", vm.name),
                None => format!("VM {} has no network port\n", vm.name),
            };
            Ok(Answer::new(&vm, text))
        }
        VmVerb::Delete { name, yes, force } => delete(context, &name, yes, force),
    }
}

fn said_state(vm: &VmInfo) -> Result<Answer, CliError> {
    Ok(Answer::new(vm, format!("VM {} is {}\n", vm.name, state(vm))))
}

fn delete(context: &Context, name: &str, yes: bool, force: bool) -> Result<Answer, CliError> {
    let vm = context.api.vm(name)?;
    let size = vm.disks.iter().fold(0_u64, |sum, disk| sum.saturating_add(disk.size));
    let loss = format!(
        "VM {name}, its home and its {} disks ({}) are deleted with their keys; nothing brings them back.",
        vm.disks.len(),
        format_size(size)
    );
    let what = format!("deleting VM {name}");
    Question { what, loss, name, yes, json: context.json }.ask()?;
    context.api.delete_vm(name, force)?;
    let done = Done { ok: true, vm: Some(name), disk: None };
    Ok(Answer::new(&done, format!("VM {name} deleted\n")))
}

/// hostd has another current folder.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(CliError::file("open", path))
}

fn mounted(vm: &VmInfo) -> String {
    match &vm.home {
        Some(home) => {
            let mode = vm.home_mount.as_ref().map(|m| format!(" ({})", kebab(&m.mode)));
            let mode = mode.unwrap_or_default();
            format!("home of VM {} mounted at {}{mode}\n", vm.name, home.display())
        }
        None => format!("home of VM {} is not mounted\n", vm.name),
    }
}

fn list(vms: &[VmInfo]) -> String {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("DISKS", Align::Right),
        ("SIZE", Align::Right),
        ("DATASTORE", Align::Left),
        ("HOME", Align::Left),
    ]);
    for vm in vms {
        let size = vm.disks.iter().fold(0_u64, |sum, disk| sum.saturating_add(disk.size));
        table.row([
            vm.name.clone(),
            state(vm),
            vm.disks.len().to_string(),
            format_size(size),
            vm.datastore.clone(),
            or_dash(vm.home.as_ref().map(|home| home.display().to_string())),
        ]);
    }
    table.to_string()
}

/// `locked (key-not-found)`, `running`.
fn state(vm: &VmInfo) -> String {
    match &vm.lock {
        Some(lock) => format!("{} ({})", kebab(&vm.state), kebab(&lock.code)),
        None => kebab(&vm.state),
    }
}

/// `192.0.2.1:10810, 2 clients`.
fn tls(vm: &VmInfo) -> Option<String> {
    let tls = vm.tls.as_ref()?;
    Some(match (tls.open, tls.clients) {
        (false, _) => format!("{} (closed while the VM does not run)", tls.address),
        (true, 0) => tls.address.clone(),
        (true, 1) => format!("{}, 1 client", tls.address),
        (true, clients) => format!("{}, {clients} clients", tls.address),
    })
}

/// `/run/coffer/vm/web01/home, exclusive`, `unmounted, in use`.
fn home(vm: &VmInfo) -> Option<String> {
    let mount = vm.home_mount.as_ref();
    match &vm.home {
        Some(path) => {
            let mode = mount.map_or_else(String::new, |m| format!(", {}", kebab(&m.mode)));
            Some(format!("{}{mode}", path.display()))
        }
        None => mount.map(|_| "unmounted, but programs still use it".to_owned()),
    }
}

fn show(vm: &VmInfo) -> String {
    let lock = vm.lock.as_ref();
    let restarts = (vm.vmd_restarts > 0).then(|| vm.vmd_restarts.to_string());
    let mut text = fields(&[
        ("name", Some(vm.name.clone())),
        ("id", Some(vm.id.to_string())),
        ("state", Some(kebab(&vm.state))),
        ("locked because", lock.map(|lock| format!("{}: {}", lock_code(lock), lock.detail))),
        ("key to unlock", lock.and_then(|lock| lock.key_id.clone())),
        ("datastore", Some(vm.datastore.clone())),
        ("folder", Some(vm.path.display().to_string())),
        ("home", Some(or_dash(home(vm)))),
        ("home names", vm.names.map(|names| kebab(&names))),
        ("home stopped", vm.home_problem.clone()),
        ("keys", Some(vm.key_ids.join(", "))),
        ("vmd", vm.vmd_pid.map(|pid| format!("process {pid}"))),
        ("vmd restarts", restarts),
        ("network port", tls(vm)),
    ]);
    if !vm.disks.is_empty() {
        text.push('\n');
        text.push_str(&disk::list(&vm.disks));
    }
    text
}
