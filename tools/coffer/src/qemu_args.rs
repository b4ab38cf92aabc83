//! How an attached disk is given to QEMU and to libvirt: arguments and XML, ready to paste.
//!
//! Pure text. QEMU splits option values at commas (a comma in a value is doubled), shells at blanks, XML at
//! its own signs; each has its quoting here.

use hostd_api::types::{Attachment, DiskInfo};
use serde::Serialize;

/// Seconds that QEMU holds requests back when the NBD server is gone: hostd starts a new vmd within a few.
const RECONNECT_DELAY: u32 = 60;

/// Longest node name that QEMU takes (`node_name[32]` with its end).
const MAX_NODE_NAME: usize = 31;

/// How to give a disk to a VM.
#[derive(Debug, Serialize)]
pub(crate) struct Hints {
    /// Arguments of `qemu-system-*`.
    pub(crate) qemu_args: Vec<String>,
    /// Element for `<devices>` of a libvirt domain.
    pub(crate) libvirt_xml: String,
}

impl Hints {
    /// Hints for `disk`, served at `attachment`.
    pub(crate) fn of(disk: &DiskInfo, attachment: &Attachment) -> Self {
        Self { qemu_args: qemu_args(disk, attachment), libvirt_xml: libvirt_xml(disk, attachment) }
    }

    /// The QEMU arguments as one command line piece for a shell, an option a line.
    pub(crate) fn shell(&self) -> String {
        let pairs: Vec<String> = self
            .qemu_args
            .chunks(2)
            .map(|pair| pair.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" "))
            .collect();
        pairs.join(" \\\n  ")
    }
}

fn qemu_args(disk: &DiskInfo, attachment: &Attachment) -> Vec<String> {
    let node = node_name(disk);
    let path = attachment.socket.to_string_lossy();
    let mut block = format!(
        "driver=nbd,node-name={node},server.type=unix,server.path={},export={},reconnect-delay={RECONNECT_DELAY}",
        option_value(&path),
        option_value(&disk.name),
    );
    block.push_str(if attachment.read_only { ",read-only=on" } else { ",discard=unmap" });
    vec!["-blockdev".into(), block, "-device".into(), format!("virtio-blk-pci,drive={node}")]
}

/// `coffer-DISK`, or with the identity of the disk where that is too long.
fn node_name(disk: &DiskInfo) -> String {
    let name = format!("coffer-{}", disk.name);
    if name.len() <= MAX_NODE_NAME {
        return name;
    }
    let id = disk.id.simple().to_string();
    format!("coffer-{}", &id[..16])
}

fn libvirt_xml(disk: &DiskInfo, attachment: &Attachment) -> String {
    let discard = if attachment.read_only { "" } else { " discard='unmap'" };
    let read_only = if attachment.read_only { "  <readonly/>\n" } else { "" };
    format!(
        "<disk type='network' device='disk'>\n  \
           <driver name='qemu' type='raw'{discard}/>\n  \
           <source protocol='nbd' name='{}'>\n    \
             <host transport='unix' socket='{}'/>\n    \
             <reconnect delay='{RECONNECT_DELAY}'/>\n  \
           </source>\n  \
           <target dev='vda' bus='virtio'/>\n\
         {read_only}</disk>\n",
        xml_value(&disk.name),
        xml_value(&attachment.socket.to_string_lossy()),
    )
}

fn option_value(text: &str) -> String {
    text.replace(',', ",,")
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:%+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn xml_value(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostd_api::types::DiskState;
    use std::path::PathBuf;

    fn disk(name: &str) -> DiskInfo {
        let json = serde_json::json!({
            "name": name, "id": "0123456789abcdef0123456789abcdef", "size": 512, "allocated": 0,
            "unit": 512, "key_ids": [], "state": "attached",
        });
        let disk: DiskInfo = serde_json::from_value(json).expect("a disk");
        assert_eq!(disk.state, DiskState::Attached);
        disk
    }

    fn attachment(socket: &str, read_only: bool) -> Attachment {
        Attachment {
            socket: PathBuf::from(socket),
            uri: String::new(),
            read_only,
            cache: hostd_api::types::CacheMode::Writeback,
            clients: 0,
        }
    }

    #[test]
    fn arguments_for_a_plain_path() {
        let hints = Hints::of(&disk("root"), &attachment("/run/coffer/vm/web01/root.sock", false));
        assert_eq!(
            hints.shell(),
            "-blockdev driver=nbd,node-name=coffer-root,server.type=unix,\
             server.path=/run/coffer/vm/web01/root.sock,export=root,reconnect-delay=60,discard=unmap \\\n  \
             -device virtio-blk-pci,drive=coffer-root"
        );
    }

    #[test]
    fn every_quoting_is_applied() {
        let hints = Hints::of(&disk("root"), &attachment("/run/a,b c'd<&>/s", true));
        assert!(hints.qemu_args[1].contains("server.path=/run/a,,b c'd<&>/s,export"));
        assert!(hints.qemu_args[1].ends_with(",read-only=on"));
        assert!(hints.shell().starts_with("-blockdev 'driver=nbd"));
        assert!(hints.shell().contains("c'\\''d"));
        assert!(hints.libvirt_xml.contains("socket='/run/a,b c&apos;d&lt;&amp;&gt;/s'"));
        assert!(hints.libvirt_xml.contains("  <readonly/>\n</disk>"));
    }

    #[test]
    fn node_names_fit_into_qemu() {
        let name = node_name(&disk(&"x".repeat(64)));
        assert_eq!(name, "coffer-0123456789abcdef");
        assert_eq!(node_name(&disk(&"x".repeat(24))).len(), MAX_NODE_NAME);
    }
}
