//! `coffer disk`.

use super::name_parser;
use crate::image::Format;
use crate::size::parse_size;
use clap::{Args, Subcommand, ValueEnum};
use hostd_api::types::CacheMode;
use std::fmt;
use std::path::PathBuf;

/// VM and disk, as most verbs take them.
#[derive(Debug, Args)]
pub(crate) struct DiskName {
    /// Name of the VM.
    #[arg(value_parser = name_parser())]
    pub(crate) vm: String,
    /// Name of the disk.
    #[arg(value_parser = name_parser())]
    pub(crate) disk: String,
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vm, self.disk)
    }
}

/// Verbs of a disk.
#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// Make an empty disk.
    Create {
        /// Which.
        #[command(flatten)]
        name: DiskName,
        /// Size: bytes, or K, M, G, T, P in powers of 1024 (20G, 1.5T).
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// Data unit in bytes, 4096 or 512; chosen by the size when absent.
        #[arg(long, value_parser = parse_unit)]
        unit: Option<u32>,
    },
    /// Make a disk from an image file or block device, encrypted on the way.
    Import(ImportArgs),
    /// Write the decrypted content of a disk to an image file.
    Export(ExportArgs),
    /// List the disks of a VM.
    List {
        /// Name of the VM.
        #[arg(value_parser = name_parser())]
        vm: String,
    },
    /// Serve a disk over NBD, and print how to give it to QEMU.
    Attach {
        /// Which.
        #[command(flatten)]
        name: DiskName,
        /// Allow no writes.
        #[arg(long)]
        read_only: bool,
        /// Let only this user connect (and the members of the group): the one that the VM's QEMU runs as.
        #[arg(long, value_name = "USER[:GROUP]")]
        owner: Option<String>,
        /// What the page cache of the host is used for.
        #[arg(long, value_name = "MODE", default_value = "writeback")]
        cache: Cache,
        /// Print the libvirt element too.
        #[arg(short = 'v', long)]
        libvirt: bool,
    },
    /// Stop serving a disk.
    Detach {
        /// Which.
        #[command(flatten)]
        name: DiskName,
        /// Do it although clients are connected.
        #[arg(long)]
        force: bool,
    },
    /// Change the size of a disk.
    Resize {
        /// Which.
        #[command(flatten)]
        name: DiskName,
        /// New size: bytes, or K, M, G, T, P in powers of 1024.
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// Needed to make it smaller: what lies behind the new end is lost.
        #[arg(long)]
        shrink: bool,
        /// Do not ask before shrinking.
        #[arg(long)]
        yes: bool,
        /// Do it although another host uses the VM.
        #[arg(long)]
        force: bool,
    },
    /// Delete a disk; nothing brings it back.
    Delete {
        /// Which.
        #[command(flatten)]
        name: DiskName,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Do it although another host uses the VM.
        #[arg(long)]
        force: bool,
    },
}

/// Cache modes of `disk attach`, as QEMU names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    /// Reads and writes go through the page cache.
    Writeback,
    /// The page cache is kept out (O_DIRECT).
    None,
}

impl From<Cache> for CacheMode {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::Writeback => Self::Writeback,
            Cache::None => Self::None,
        }
    }
}

/// Options of `disk import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Which.
    #[command(flatten)]
    pub(crate) name: DiskName,
    /// Image file or block device.
    pub(crate) file: PathBuf,
    /// Format of the image; told by its header when absent.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Data unit in bytes, 4096 or 512; chosen by the size when absent.
    #[arg(long, value_parser = parse_unit)]
    pub(crate) unit: Option<u32>,
    /// Follow backing files and extents that the image names, wherever they are; only for images you trust.
    #[arg(long)]
    pub(crate) allow_backing: bool,
}

/// Options of `disk export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Which.
    #[command(flatten)]
    pub(crate) name: DiskName,
    /// File to write; it will hold plain data, readable by its owner only.
    pub(crate) file: PathBuf,
    /// Format to write.
    #[arg(long, default_value = "raw")]
    pub(crate) format: ExportFormat,
    /// Replace FILE when it exists.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Formats that `disk export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Plain bytes, sparse.
    Raw,
    /// QEMU's own format.
    Qcow2,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Raw => Self::Raw,
            ExportFormat::Qcow2 => Self::Qcow2,
        }
    }
}

fn parse_unit(text: &str) -> Result<u32, String> {
    match text {
        "4096" | "4K" | "4k" => Ok(4096),
        "512" => Ok(512),
        _ => Err(String::from("accepted are 4096 and 512")),
    }
}
