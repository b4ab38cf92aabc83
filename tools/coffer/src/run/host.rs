//! `coffer host`: the daemon, its protection of keys, its datastores.

use super::{Context, kebab};
use crate::answer::Answer;
use crate::cli::HostVerb;
use crate::error::CliError;
use crate::size::format_size;
use crate::table::{Align, Table, clean, fields, or_dash};
use crate::time::format_duration;
use hostd_api::control::ControlInfo;
use hostd_api::types::{DatastoreInfo, DatastoreState, HostStatus};

pub(super) fn run(context: &Context, verb: &HostVerb) -> Result<Answer, CliError> {
    match verb {
        HostVerb::Status => {
            let status = context.api.host()?;
            Ok(Answer::new(&status, show(&status)))
        }
    }
}

fn show(status: &HostStatus) -> String {
    let memory = format!(
        "{}, {} of {} used",
        status.key_memory,
        format_size(status.key_memory_used),
        format_size(status.key_memory_capacity)
    );
    let mut text = fields(&[
        ("hostd", Some(format!("{}, process {}", status.version, status.pid))),
        ("up for", Some(format_duration(status.uptime_seconds))),
        ("VMs", Some(format!("{}, {} running", status.vms, status.running))),
        ("key memory", Some(memory)),
        ("keys", Some(kebab(&status.crypto_state))),
        ("control plane", status.control.as_ref().map(control)),
        ("cipher engine", Some(status.engine.clone())),
        ("confinement", Some(or_dash(Some(status.confinement.join(", "))))),
    ]);
    if !status.datastores.is_empty() {
        text.push('\n');
        text.push_str(&datastores(&status.datastores));
    }
    for store in &status.datastores {
        for problem in &store.problems {
            text.push_str(&format!("problem on {}: {}\n", clean(&store.name), clean(problem)));
        }
    }
    for warning in &status.warnings {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    text
}

fn control(info: &ControlInfo) -> String {
    let ControlInfo { listen, cluster, name, generation, keys } = info;
    format!("cluster {cluster}, as {name} on {listen}, {keys} keys, list {generation}")
}

fn datastores(list: &[DatastoreInfo]) -> String {
    let mut table = Table::new(&[
        ("DATASTORE", Align::Left),
        ("STATE", Align::Left),
        ("FREE", Align::Right),
        ("FOLDER", Align::Left),
    ]);
    for store in list {
        let state = match &store.state {
            DatastoreState::Ready => String::from("ready"),
            DatastoreState::ReadOnly => String::from("read-only"),
            DatastoreState::Unavailable(reason) => format!("unavailable: {reason}"),
        };
        table.row([
            store.name.clone(),
            state,
            or_dash(store.free_bytes.map(format_size)),
            store.path.display().to_string(),
        ]);
    }
    table.to_string()
}
