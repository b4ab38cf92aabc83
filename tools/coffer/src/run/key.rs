//! `coffer key`: providers and keys, never key bytes.

use super::{Context, kebab};
use crate::answer::Answer;
use crate::cli::KeyVerb;
use crate::confirm::Question;
use crate::error::CliError;
use crate::savefile::SaveFile;
use crate::table::{Align, Table, clean, or_dash};
use crate::time::format_utc;
use hostd_api::kms::{DestroyKey, EndedKey, RevokeKey};
use hostd_api::types::{ConfirmBackup, KeyInfo, KeyStatus, ProviderInfo, RotateKeys, RotateReport};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;

pub(super) fn run(context: &Context, verb: KeyVerb) -> Result<Answer, CliError> {
    match verb {
        KeyVerb::Status => {
            let status = context.api.keys()?;
            Ok(Answer::new(&status, show(&status)))
        }
        KeyVerb::Backup { file, force } => backup(context, &file, force),
        KeyVerb::Rotate { vm, key: key_id, force, rewrap } => {
            let report = context.api.rotate(&RotateKeys { vm, key_id, force, rewrap })?;
            Ok(Answer::new(&report, rotated(&report)).but(incomplete(&report)))
        }
        KeyVerb::Revoke { key, compromised, why, yes } => {
            confirmed(
                context,
                "taking back",
                "Other hosts can make nothing new with it.",
                &key,
                yes,
            )?;
            let ended = context.api.revoke(&RevokeKey { key, compromised, why })?;
            Ok(Answer::new(&ended, end_of("taken back", &ended)))
        }
        KeyVerb::Destroy { key, yes } => {
            let loss = "Whatever is encrypted by it, here, elsewhere or in a backup, is lost.";
            confirmed(context, "destroying", loss, &key, yes)?;
            let ended = context.api.destroy(&DestroyKey { key })?;
            Ok(Answer::new(&ended, end_of("destroyed", &ended)))
        }
        KeyVerb::Tpm(verb) => super::tpm::run(context, verb),
        KeyVerb::Provider(verb) => super::provider::run(context, verb),
    }
}

/// The answer of `key backup`.
#[derive(Debug, Serialize)]
struct BackedUp<'a> {
    ok: bool,
    file: &'a Path,
    sha256: &'a str,
}

fn backup(context: &Context, file: &Path, force: bool) -> Result<Answer, CliError> {
    let (save, mut writer) = SaveFile::create(file, force)?;
    let backup = context.api.backup()?;
    let damaged = |what| CliError::BackupDamaged { path: file.to_owned(), what };
    if sha256_hex(backup.content.as_bytes()) != backup.sha256 {
        return Err(damaged("it was changed on the way from hostd"));
    }
    writer.write_all(backup.content.as_bytes()).map_err(CliError::file("write", file))?;
    let path = save.commit()?;
    let stored = fs::read(&path).map_err(CliError::file("read", &path))?;
    if sha256_hex(&stored) != backup.sha256 {
        return Err(damaged("what is read back differs"));
    }
    context.api.confirm_backup(&ConfirmBackup { sha256: backup.sha256.clone() })?;
    let answer = BackedUp { ok: true, file: &path, sha256: &backup.sha256 };
    let text = format!(
        "backup of the key provider written to {} (SHA-256 {})\n\
         It covers every key made so far and later. It is sealed: the passphrase of the provider is needed to\n\
         open it. Keep file and passphrase apart, both away from this host; without both, a lost host means\n\
         lost VMs.\n",
        path.display(),
        backup.sha256
    );
    Ok(Answer::new(&answer, text))
}

/// SHA-256 (FIPS 180-4 section 6.2) in lower-case hex.
fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn show(status: &KeyStatus) -> String {
    let mut text = providers(&status.providers);
    if !status.keys.is_empty() {
        text.push('\n');
        text.push_str(&keys(&status.keys));
    }
    text
}

fn providers(list: &[ProviderInfo]) -> String {
    let mut table = Table::new(&[
        ("PROVIDER", Align::Left),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("BACKUP", Align::Left),
        ("DETAIL", Align::Left),
    ]);
    for provider in list {
        let default = if provider.default { " (default)" } else { "" };
        let demo = if provider.demo { ", demo" } else { "" };
        let state = if provider.available { "available" } else { "not available" };
        table.row([
            format!("{}{default}", provider.name),
            provider.kind.clone(),
            format!("{state}{demo}"),
            backup_of(provider),
            provider.detail.clone(),
        ]);
    }
    table.to_string()
}

/// Key servers are backed up by those who run them.
fn backup_of(provider: &ProviderInfo) -> String {
    match provider.backed_up_at {
        Some(at) => format_utc(at),
        None if provider.kind == "native" => String::from("never"),
        None => String::from("-"),
    }
}

fn keys(list: &[KeyInfo]) -> String {
    let mut table = Table::new(&[
        ("KEY", Align::Left),
        ("MADE", Align::Left),
        ("HERE", Align::Left),
        ("USED BY", Align::Left),
    ]);
    for key in list {
        table.row([
            key.id.clone(),
            or_dash(key.created_at.map(format_utc)),
            format!("{}{}", kebab(&key.keyring), if key.pushed { ", pushed" } else { "" }),
            or_dash(Some(key.used_by.join(", "))),
        ]);
    }
    table.to_string()
}

fn confirmed(
    context: &Context,
    doing: &str,
    loss: &str,
    key: &str,
    yes: bool,
) -> Result<(), CliError> {
    let (what, loss) = (format!("{doing} key {key}"), loss.to_owned());
    Ok(Question { what, loss, name: key, yes, json: context.json }.ask()?)
}

/// What was done, what the servers say now, and how far it was looked.
fn end_of(done: &str, ended: &EndedKey) -> String {
    let mut text = format!("key {} was {done}\n", ended.key);
    for said in &ended.servers {
        text.push_str(&clean(&format!("{}: {}", said.server, said.state)));
        text.push('\n');
    }
    text.push_str(&format!(
        "looked for users in {} safes and descriptors of the datastores {}\n",
        ended.files,
        ended.datastores.join(", ")
    ));
    text
}

fn rotated(report: &RotateReport) -> String {
    if report.vms.is_empty() {
        return String::from("no VM to rotate\n");
    }
    let mut table = Table::new(&[
        ("VM", Align::Left),
        ("NEW KEY", Align::Left),
        ("REWRAPPED", Align::Right),
        ("PROBLEM", Align::Left),
    ]);
    for vm in &report.vms {
        table.row([
            vm.vm.clone(),
            or_dash(vm.key_id.clone()),
            vm.rewrapped.to_string(),
            vm.error.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn incomplete(report: &RotateReport) -> Option<CliError> {
    let failed = report.vms.iter().filter(|vm| vm.error.is_some()).count();
    (failed > 0).then_some(CliError::RotateIncomplete { failed, total: report.vms.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_a_known_text() {
        // FIPS 180-2 appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), known);
    }
}
