//! `coffer key provider`: key servers, and the set-up of trust with them.
//!
//! Private keys stay with hostd: it makes them, or copies them from a file that is named to it.

use super::Context;
use crate::answer::Answer;
use crate::cli::ProviderVerb;
use crate::error::CliError;
use crate::table::{Align, Table, clean, or_dash};
use crate::time::format_utc;
use hostd_api::kms::{
    CertificateInfo, CommonName, ImportCertificate, InstallPair, ServerInfo, TrustServer,
};
use hostd_api::types::ProviderInfo;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn run(context: &Context, verb: ProviderVerb) -> Result<Answer, CliError> {
    match verb {
        ProviderVerb::Status => {
            let providers = context.api.providers()?;
            Ok(Answer::new(&providers, status(&providers)))
        }
        ProviderVerb::Csr { name, provider } => {
            let body = CommonName { common_name: name, provider: provider.name };
            let made = context.api.kmip_csr(&body)?;
            Ok(Answer::new(&made, made.request.clone()))
        }
        ProviderVerb::Import { certificate, provider } => {
            let text = fs::read_to_string(&certificate);
            let text = text.map_err(CliError::file("read", &certificate))?;
            let body = ImportCertificate { certificate: text, provider: provider.name };
            let taken = context.api.kmip_import(&body)?;
            Ok(Answer::new(&taken, in_place(&taken)))
        }
        ProviderVerb::SelfSigned { name, provider } => {
            let body = CommonName { common_name: name, provider: provider.name };
            let made = context.api.kmip_self_signed(&body)?;
            Ok(Answer::new(&made, made.certificate.clone()))
        }
        ProviderVerb::Upload { certificate, key, provider } => {
            let (certificate, key) = (whole(&certificate)?, whole(&key)?);
            let pair = InstallPair { certificate, key, provider: provider.name };
            let taken = context.api.kmip_pair(&pair)?;
            Ok(Answer::new(&taken, in_place(&taken)))
        }
        ProviderVerb::Trust { server, pin, provider } => {
            let body = TrustServer { server: server.clone(), sha256: pin, provider: provider.name };
            let seen = context.api.kmip_server(&body)?;
            Ok(Answer::new(&seen, trust(&server, &seen)))
        }
    }
}

/// hostd has another working folder.
fn whole(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().map_err(CliError::file("find", path))
}

fn status(providers: &[ProviderInfo]) -> String {
    let mut text = String::new();
    for provider in providers {
        let default = if provider.default { ", default" } else { "" };
        let state = if provider.available { "available" } else { "not available" };
        text.push_str(&clean(&format!(
            "{} ({}{default}): {state}: {}",
            provider.name, provider.kind, provider.detail
        )));
        text.push('\n');
        if let Some(days) = provider.certificate_days {
            text.push_str(&format!("our certificate: {}\n", validity(days)));
        }
        if !provider.servers.is_empty() {
            text.push_str(&servers(&provider.servers));
        }
        for difference in provider.differences.iter().filter(|d| d.may_be_lag) {
            text.push_str(&clean(&difference.detail));
            text.push('\n');
        }
        for alarm in &provider.alarms {
            text.push_str(&clean(&format!("alarm: {alarm}")));
            text.push('\n');
        }
    }
    text
}

fn servers(list: &[ServerInfo]) -> String {
    let mut table = Table::new(&[
        ("SERVER", Align::Left),
        ("UP", Align::Left),
        ("WE TRUST IT", Align::Left),
        ("IT TRUSTS US", Align::Left),
        ("CERTIFICATE", Align::Left),
        ("ANSWER", Align::Right),
        ("KEY FETCHED", Align::Left),
        ("MAKES KEYS", Align::Left),
        ("REASON", Align::Left),
        ("CHECKED", Align::Left),
    ]);
    for server in list {
        table.row([
            server.address.clone(),
            yes_no(server.up),
            yes_no(server.trusted),
            yes_no(server.trusts_us),
            or_dash(server.certificate_days.map(validity)),
            or_dash(server.latency_ms.map(|ms| format!("{ms} ms"))),
            yes_no(server.key_fetched),
            yes_no(server.up.filter(|up| *up).map(|_| !server.read_only)),
            or_dash(server.reason.clone()),
            or_dash(server.checked_at.map(format_utc)),
        ]);
    }
    table.to_string()
}

fn yes_no(value: Option<bool>) -> String {
    or_dash(value.map(|yes| if yes { "yes" } else { "no" }.to_owned()))
}

fn validity(days: i64) -> String {
    if days < 0 {
        return format!("ran out {} days ago", days.unsigned_abs());
    }
    format!("{days} days left")
}

fn in_place(taken: &CertificateInfo) -> String {
    format!(
        "the certificate is in place ({}, SHA-256 {}); it counts from the next connection on\n",
        taken.days_left.map_or_else(|| "validity unknown".to_owned(), validity),
        taken.sha256
    )
}

fn trust(server: &str, seen: &CertificateInfo) -> String {
    let names = if seen.names.is_empty() { "none".to_owned() } else { seen.names.join(", ") };
    let shown = format!(
        "server:    {server}\nSHA-256:   {}\nDNS names: {names}\nvalidity:  {}\n",
        seen.sha256,
        seen.days_left.map_or_else(|| "unknown".to_owned(), validity),
    );
    let next = if seen.pinned {
        "This certificate is trusted from now on.\n".to_owned()
    } else {
        format!(
            "It is not trusted yet. Compare the SHA-256 with what the server itself tells, then run\n\
             coffer key provider trust {server} --pin {}\n",
            seen.sha256
        )
    };
    shown.lines().map(|line| clean(line) + "\n").collect::<String>() + &next
}
