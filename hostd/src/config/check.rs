//! What a parsed configuration must fulfil beyond its types.
//!
//! Owns the rules; reads nothing but `/etc/group`. One function a topic, each returns the first fault found.

use super::{Config, ConfigError, Control, DangerZone, Kmip, Tls};
use std::path::{Path, PathBuf};

/// Bounds of the key arena in KiB: below, a handful of keys fill it; above, it is surely a mistake.
const KEY_MEMORY_KIB: std::ops::RangeInclusive<usize> = 64..=1_048_576;

/// Most connections for one disk; each costs vmd a thread and buffers.
const DISK_CONNECTIONS: std::ops::RangeInclusive<u32> = 1..=1024;

/// Most connections to one VM's network port; each costs vmd a thread and buffers.
const TLS_CONNECTIONS: std::ops::RangeInclusive<u32> = 1..=4096;

/// Most clients of network ports: with names of usual length their list fits into one message to a vmd.
const TLS_CLIENTS: usize = 256;

/// Longest name of a client: that of a DNS name (RFC 1035 section 2.3.4).
const TLS_NAME: usize = 255;

/// Bounds of connections to the control socket; each costs memory of the daemon.
const CONTROL_CONNECTIONS: std::ops::RangeInclusive<usize> = 1..=4096;

/// Most threads that may look for requests instead of sleeping: as many as large hosts have processors.
const MAX_POLLING_THREADS: u32 = 512;

/// Bounds of the number of VMs.
const VMS: std::ops::RangeInclusive<usize> = 1..=100_000;

/// Longest name of a user or an operation policy; servers keep them in columns of tables.
const KMIP_TEXT: usize = 255;

/// Most key servers of a provider: the largest KMIP clusters known have 20 clones.
const KEY_SERVERS: usize = 32;

/// Bounds of the time for one operation of key servers, in seconds. A verb waits a minute for a key at most.
const KEY_TIMEOUT: std::ops::RangeInclusive<u64> = 1..=50;

/// Bounds of the pause between checks of key servers, in seconds.
const KEY_CHECK: std::ops::RangeInclusive<u64> = 5..=86_400;

type Problem = (String, String, String);

pub(super) fn check(config: &Config, file: &Path) -> Result<(), ConfigError> {
    let found = folders(config)
        .or_else(|| datastores(config))
        .or_else(|| passphrase(config))
        .or_else(|| kmip(&config.provider.kmip))
        .or_else(|| openbao(config))
        .or_else(|| default_provider(config))
        .or_else(|| groups(config))
        .or_else(|| tls(&config.tls))
        .or_else(|| control(&config.control))
        .or_else(|| limits(config))
        .or_else(|| danger(&config.danger_zone));
    match found {
        None => Ok(()),
        Some((key, reason, remedy)) => {
            Err(ConfigError { file: file.to_owned(), key, reason, remedy })
        }
    }
}

fn problem(key: impl Into<String>, reason: impl Into<String>, remedy: &str) -> Option<Problem> {
    Some((key.into(), reason.into(), remedy.into()))
}

fn folders(config: &Config) -> Option<Problem> {
    let named = [
        ("run_dir", Some(&config.run_dir)),
        ("state_dir", Some(&config.state_dir)),
        ("vmd", config.vmd.as_ref()),
    ];
    let native = &config.provider.native;
    let more = [
        ("provider.native.file", native.file.as_ref()),
        ("provider.native.passphrase_file", native.passphrase_file.as_ref()),
    ];
    let all = named.into_iter().chain(more);
    for (key, path) in all.filter_map(|(key, path)| Some((key, path?))) {
        if !path.is_absolute() {
            return problem(key, format!("{} is relative", path.display()), "write the whole path");
        }
    }
    None
}

fn datastores(config: &Config) -> Option<Problem> {
    if config.datastore.is_empty() {
        return problem("datastore", "there is none", "add a [[datastore]] with name and path");
    }
    for (index, store) in config.datastore.iter().enumerate() {
        let key = format!("datastore.{}", store.name);
        if let Err(e) = store.name.parse::<cryptfs::name::Name>() {
            return problem(key, e.to_string(), "choose another name");
        }
        if !store.path.is_absolute() {
            return problem(key, "its path is relative", "write the whole path");
        }
        for other in config.datastore.iter().take(index) {
            if other.name == store.name {
                return problem(key, "the name is used twice", "give each datastore its own name");
            }
            if store.path.starts_with(&other.path) || other.path.starts_with(&store.path) {
                let reason = format!("its path lies inside that of {} or around it", other.name);
                return problem(key, reason, "give each datastore a folder of its own");
            }
        }
    }
    None
}

fn passphrase(config: &Config) -> Option<Problem> {
    let native = &config.provider.native;
    let given = [native.passphrase_file.is_some(), native.credential.is_some(), native.prompt];
    if given.iter().filter(|on| **on).count() > 1 {
        return problem(
            "provider.native",
            "more than one of passphrase_file, credential and prompt is set",
            "keep one of them",
        );
    }
    match &native.credential {
        Some(name) if !is_credential(name) => problem(
            "provider.native.credential",
            format!("{name:?} is no name of a credential"),
            "use the name given to LoadCredential=",
        ),
        _ => None,
    }
}

/// Whether systemd could pass a credential of this name.
fn is_credential(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}

/// What providers with key servers have in common.
struct KeyServers<'a> {
    section: &'static str,
    name: &'a str,
    files: &'a [(&'static str, Option<&'a PathBuf>)],
    timeout_seconds: u64,
    check_seconds: u64,
    servers: usize,
}

fn key_servers(given: &KeyServers<'_>) -> Option<Problem> {
    let key = |name: &str| format!("provider.{}.{name}", given.section);
    for (name, path) in given.files.iter().filter_map(|(name, path)| Some((name, (*path)?))) {
        if !path.is_absolute() {
            let reason = format!("{} is relative", path.display());
            return problem(key(name), reason, "write the whole path");
        }
        if given.servers == 0 {
            let remedy = format!("add a [[provider.{}.server]]", given.section);
            return problem(key(name), "it is set, but there is no server", &remedy);
        }
    }
    let set = |wanted| given.files.iter().any(|(name, path)| *name == wanted && path.is_some());
    if set("ca") && set("pinned") {
        return problem(key("pinned"), "ca is set as well", "keep one of them");
    }
    if given.name == crate::keys::NATIVE || crypto::KeyId::new(given.name, "1").is_err() {
        let reason = format!("{:?} cannot be the name of this provider", given.name);
        return problem(key("name"), reason, "use 1 to 64 letters, digits and . _ -");
    }
    let ranges = [
        ("timeout_seconds", KEY_TIMEOUT.contains(&given.timeout_seconds), KEY_TIMEOUT),
        ("check_seconds", KEY_CHECK.contains(&given.check_seconds), KEY_CHECK),
    ];
    if let Some((name, _, range)) = ranges.into_iter().find(|(_, fine, _)| !fine) {
        let remedy = format!("choose one of {range:?}");
        return problem(key(name), "the value is out of range", &remedy);
    }
    if given.servers > KEY_SERVERS {
        let reason = format!("there are {} servers, the limit is {KEY_SERVERS}", given.servers);
        return problem(key("server"), reason, "remove some");
    }
    None
}

fn kmip(kmip: &Kmip) -> Option<Problem> {
    let files = [
        ("certificate", kmip.certificate.as_ref()),
        ("key", kmip.key.as_ref()),
        ("ca", kmip.ca.as_ref()),
        ("pinned", kmip.pinned.as_ref()),
        ("password_file", kmip.password_file.as_ref()),
    ];
    let common = KeyServers {
        section: "kmip",
        name: &kmip.name,
        files: &files,
        timeout_seconds: kmip.timeout_seconds,
        check_seconds: kmip.check_seconds,
        servers: kmip.server.len(),
    };
    if let Some(found) = key_servers(&common) {
        return Some(found);
    }
    let key = |name: &str| format!("provider.kmip.{name}");
    for (name, text) in [("operation_policy", &kmip.operation_policy), ("user", &kmip.user)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > KMIP_TEXT) {
            let reason = format!("it does not have 1 to {KMIP_TEXT} bytes");
            return problem(key(name), reason, "ask who runs the servers");
        }
    }
    if kmip.copies == 0 {
        return problem(key("copies"), "there must be 1 copy at least", "choose another number");
    }
    kmip_account(kmip)
}

fn openbao(config: &Config) -> Option<Problem> {
    let openbao = &config.provider.openbao;
    let files = [
        ("certificate", openbao.certificate.as_ref()),
        ("key", openbao.key.as_ref()),
        ("ca", openbao.ca.as_ref()),
        ("pinned", openbao.pinned.as_ref()),
    ];
    let common = KeyServers {
        section: "openbao",
        name: &openbao.name,
        files: &files,
        timeout_seconds: openbao.timeout_seconds,
        check_seconds: openbao.check_seconds,
        servers: openbao.server.len(),
    };
    let kmip = &config.provider.kmip;
    if openbao.is_on() && kmip.is_on() && openbao.name == kmip.name {
        let reason = format!("{:?} is the name of the KMIP provider", openbao.name);
        return problem("provider.openbao.name", reason, "give each provider its own name");
    }
    key_servers(&common)
}

/// User name and password for key servers.
fn kmip_account(kmip: &Kmip) -> Option<Problem> {
    let sources = [kmip.password_file.is_some(), kmip.password_credential.is_some()];
    let count = sources.into_iter().filter(|set| *set).count();
    match (&kmip.user, count) {
        (None, 0) => return None,
        (None, _) => {
            let reason = "there is a password without a user";
            return problem("provider.kmip.user", reason, "set user as well");
        }
        (Some(_), 1) => {}
        (Some(_), _) => {
            let reason = "a user needs one of password_file or password_credential";
            return problem("provider.kmip.user", reason, "set one of the two");
        }
    }
    match &kmip.password_credential {
        Some(name) if !is_credential(name) => problem(
            "provider.kmip.password_credential",
            format!("{name:?} is no name of a credential"),
            "use the name given to LoadCredential=",
        ),
        _ => None,
    }
}

fn default_provider(config: &Config) -> Option<Problem> {
    let name = config.default_provider();
    let (kmip, openbao) = (&config.provider.kmip, &config.provider.openbao);
    let servers = (kmip.is_on() && name == kmip.name) || (openbao.is_on() && name == openbao.name);
    if name == crate::keys::NATIVE || servers {
        return None;
    }
    problem(
        "provider.default",
        format!("there is no provider {name:?}"),
        "name native, or the name of a provider that is set up",
    )
}

fn tls(tls: &Tls) -> Option<Problem> {
    let named = [
        ("tls.certificate", &tls.certificate),
        ("tls.key", &tls.key),
        ("tls.client_ca", &tls.client_ca),
    ];
    let wanted = named.iter().any(|(_, path)| path.is_some()) || !tls.client.is_empty();
    for (key, path) in named {
        match path {
            None if wanted => {
                return problem(key, "it is not set, but other settings of [tls] are", "set it");
            }
            Some(path) if !path.is_absolute() => {
                let reason = format!("{} is relative", path.display());
                return problem(key, reason, "write the whole path");
            }
            _ => {}
        }
    }
    if tls.client.len() > TLS_CLIENTS {
        let reason = format!("there are {}, the limit is {TLS_CLIENTS}", tls.client.len());
        return problem("tls.client", reason, "give hosts of one kind one name in common");
    }
    let wrong = |name: &str| name.is_empty() || name.len() > TLS_NAME || !name.is_ascii();
    let client = tls.client.iter().find(|client| wrong(&client.name))?;
    problem(
        "tls.client",
        format!("{:?} can be no name in a certificate", client.name),
        "write a DNS name or a URI as it is in the certificate of the client",
    )
}

fn control(control: &Control) -> Option<Problem> {
    let files = [
        ("control.certificate", &control.certificate),
        ("control.key", &control.key),
        ("control.ca", &control.ca),
    ];
    let wanted = control.is_on() || files.iter().any(|(_, path)| path.is_some());
    if wanted && !control.is_on() {
        let reason = "it is not set, but other settings of [control] are";
        return problem("control.listen", reason, "set it to ADDRESS:PORT");
    }
    for (key, path) in files {
        match path {
            None if wanted => {
                let reason = "it is not set, but other settings of [control] are";
                return problem(key, reason, "set it");
            }
            Some(path) if !path.is_absolute() => {
                let reason = format!("{} is relative", path.display());
                return problem(key, reason, "write the whole path");
            }
            _ => {}
        }
    }
    None
}

fn groups(config: &Config) -> Option<Problem> {
    let named =
        [("socket.group", &config.socket.group), ("socket.disk_group", &config.socket.disk_group)];
    let (key, group) = named.into_iter().find_map(|(key, group)| {
        group.as_ref().filter(|g| g.resolve().is_none()).map(|g| (key, g))
    })?;
    problem(key, format!("{group:?} is not in /etc/group"), "make the group, or write its number")
}

fn limits(config: &Config) -> Option<Problem> {
    let l = &config.limits;
    let faults = [
        (
            "limits.key_memory_kib",
            KEY_MEMORY_KIB.contains(&l.key_memory_kib),
            format!("{KEY_MEMORY_KIB:?}"),
        ),
        (
            "limits.disk_connections",
            DISK_CONNECTIONS.contains(&l.disk_connections),
            format!("{DISK_CONNECTIONS:?}"),
        ),
        (
            "limits.tls_connections",
            TLS_CONNECTIONS.contains(&l.tls_connections),
            format!("{TLS_CONNECTIONS:?}"),
        ),
        (
            "limits.control_connections",
            CONTROL_CONNECTIONS.contains(&l.control_connections),
            format!("{CONTROL_CONNECTIONS:?}"),
        ),
        (
            "limits.polling_threads",
            l.polling_threads.is_none_or(|threads| threads <= MAX_POLLING_THREADS),
            format!("0..={MAX_POLLING_THREADS}"),
        ),
        ("limits.vms", VMS.contains(&l.vms), format!("{VMS:?}")),
    ];
    let (key, _, range) = faults.into_iter().find(|(_, fine, _)| !fine)?;
    problem(key, "the value is out of range", &format!("choose one of {range}"))
}

fn danger(zone: &DangerZone) -> Option<Problem> {
    let named = [
        ("allow_unconfined_vmd", zone.allow_unconfined_vmd),
        ("allow_readable_passphrase", zone.allow_readable_passphrase),
    ];
    let (key, _) = named.into_iter().find(|(_, on)| *on && !zone.enabled)?;
    problem(
        format!("danger_zone.{key}"),
        "an insecure option is set, but danger_zone.enabled is not",
        "remove the option, or set enabled = true as well if it is really meant",
    )
}
