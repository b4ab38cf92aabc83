//! `coffer vm`.

use super::name_parser;
use clap::{Subcommand, ValueEnum};
use hostd_api::types::HomeNames;
use std::path::PathBuf;

/// How names in the home are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Names {
    /// As they are, up to 255 bytes long.
    #[default]
    Plain,
    /// Encrypted, up to 175 bytes long.
    Encrypted,
}

impl From<Names> for HomeNames {
    fn from(names: Names) -> Self {
        match names {
            Names::Plain => Self::Plain,
            Names::Encrypted => Self::Encrypted,
        }
    }
}

/// Verbs of a VM.
#[derive(Debug, Subcommand)]
pub(crate) enum VmVerb {
    /// Make a VM: a new key, a new VM folder.
    Create {
        /// 1 to 64 characters of A-Z a-z 0-9 . _ -, not starting with . or -
        #[arg(value_parser = name_parser())]
        name: String,
        /// Datastore to put it on; the first one of the configuration by default.
        #[arg(long, value_name = "NAME", value_parser = name_parser())]
        datastore: Option<String>,
        /// How file names in the home are stored; it cannot be changed later.
        #[arg(long, value_name = "HOW", value_enum, default_value_t)]
        names: Names,
        /// Key to wrap by, PROVIDER/UID: one of `key status`; a new one by default.
        #[arg(long, value_name = "KEY-ID", value_parser = name_parser())]
        key: Option<String>,
    },
    /// List the VMs of this host.
    List,
    /// Show a VM, its disks, and why it is locked.
    Show {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
    },
    /// Take a VM folder of a datastore into the inventory.
    Register {
        /// Folder of the VM.
        path: PathBuf,
    },
    /// Mount the decrypted home of a VM.
    Mount {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
        /// No other host may use the home meanwhile; the default where no other host can.
        #[arg(long, conflicts_with = "shared")]
        exclusive: bool,
        /// Other hosts may, in this mode too; the default on network file systems.
        #[arg(long)]
        shared: bool,
        /// Take the home from another host that holds it.
        #[arg(long)]
        force: bool,
    },
    /// Unmount the home of a VM.
    Umount {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
        /// Do it although files in it are open: who uses them is cut off.
        #[arg(long)]
        force: bool,
        /// When files in it are open, take it away now and serve them until they are closed.
        #[arg(long, conflicts_with = "force")]
        lazy: bool,
    },
    /// Lock a VM: its keys are not used until it is unlocked.
    Lock {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
        /// Do it although the VM is in use.
        #[arg(long)]
        force: bool,
    },
    /// Unlock a VM: its keys are fetched, or the reason is told.
    Unlock {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
    },
    /// Check everything that is stored of a VM: safe, disks, home.
    Fsck {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
        /// Mend what can be mended without a risk for data.
        #[arg(long)]
        repair: bool,
    },
    /// Give a VM a network port for its disks, under TLS, or take it away.
    #[command(group = clap::ArgGroup::new("state").required(true))]
    Tls {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
        /// Give it one; said again, certificate and key are read anew.
        #[arg(long, group = "state")]
        on: bool,
        /// Take it away.
        #[arg(long, group = "state")]
        off: bool,
        /// Which port; the one it had, or a free one, by default.
        #[arg(long, conflicts_with = "off")]
        port: Option<u16>,
    },
    /// Delete a VM with its home and disks; nothing brings them back.
    Delete {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Do it although another host has the home, or nobody knows whether one has.
        #[arg(long)]
        force: bool,
    },
}
