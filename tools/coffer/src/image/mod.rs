//! Images that are imported: what they are, how large, and which other files they would read.
//!
//! Nothing is guessed by QEMU: the format comes from the user or from the header read here, and is named to
//! `qemu-img`, so that no content can choose its own driver. Files that an image names are refused before
//! QEMU sees the image. Flow: head of the file -> `header` -> format and foreign names -> `qemu_img::info`.

mod header;
mod vmdk;

use crate::error::{CliError, ImageError};
use crate::qemu_img;
use clap::ValueEnum;
use serde::Serialize;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Bytes read from the front of an image: a qcow2 header with its backing name, a VMDK descriptor as
/// extent file or embedded (VMware puts it into the first 64 KiB), and room for descriptors with
/// hundreds of extents.
const HEAD: u64 = 1 << 20;

/// Sector of every raw format and of NBD; sizes are padded up to it.
pub(crate) const SECTOR: u64 = 512;

/// Formats that are imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Plain bytes.
    Raw,
    /// QEMU's own format.
    Qcow2,
    /// VMware's format, in one file or with extents beside the descriptor.
    Vmdk,
}

impl Format {
    /// Its name in QEMU.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        }
    }
}

/// An image that may be imported.
#[derive(Debug)]
pub(crate) struct Source {
    /// Absolute path, so that QEMU cannot take it for a protocol.
    pub(crate) path: PathBuf,
    /// Its format.
    pub(crate) format: Format,
    /// Size in bytes as a guest sees it, padded up to `SECTOR`.
    pub(crate) size: u64,
    /// What the user should know: assumed format, padding.
    pub(crate) warnings: Vec<String>,
}

/// Looks at the image at `path`. `allow_others` lets it name backing files and extents elsewhere.
pub(crate) fn probe(
    path: &Path,
    format: Option<Format>,
    allow_others: bool,
) -> Result<Source, CliError> {
    let path = fs::canonicalize(path).map_err(CliError::file("open", path))?;
    let head = read_head(&path)?;
    let mut warnings = Vec::new();
    let format = match format {
        Some(format) => format,
        None => told_by_header(&path, &head, &mut warnings)?,
    };
    let names = names_of_others(&path, format, &head)?;
    if !names.is_empty() && !allow_others {
        return Err(ImageError::ReadsOthers { path, names }.into());
    }
    let info = qemu_img::info(&path, format)?;
    let size = info.virtual_size.next_multiple_of(SECTOR);
    if size == 0 {
        return Err(ImageError::Empty { path }.into());
    }
    if format == Format::Qcow2 {
        match qemu_img::faults(&path, format)? {
            0 => {}
            faults => return Err(ImageError::Inconsistent { path, faults }.into()),
        }
    }
    if let Some(warning) = padding(&path, format, size)? {
        warnings.push(warning);
    }
    Ok(Source { path, format, size, warnings })
}

/// The front of a plain file or block device. Pipes and other devices have no size, and a pipe would block.
fn read_head(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut head = Vec::new();
    let kind = fs::metadata(path).map_err(CliError::file("open", path))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(ImageError::NoStorage { path: path.to_owned() }.into());
    }
    let file = File::open(path).map_err(CliError::file("open", path))?;
    file.take(HEAD).read_to_end(&mut head).map_err(CliError::file("read", path))?;
    Ok(head)
}

fn told_by_header(
    path: &Path,
    head: &[u8],
    warnings: &mut Vec<String>,
) -> Result<Format, ImageError> {
    match header::sniff(head) {
        header::Kind::Known(format) => Ok(format),
        header::Kind::Foreign(format) => Err(ImageError::Foreign { path: path.to_owned(), format }),
        header::Kind::Unknown => {
            warnings.push(format!(
                "{} has no known header and is taken as raw; name its --format if it is not",
                path.display()
            ));
            Ok(Format::Raw)
        }
    }
}

/// Other files that QEMU would open for this image, without extents that stand beside it.
fn names_of_others(path: &Path, format: Format, head: &[u8]) -> Result<Vec<String>, CliError> {
    match format {
        Format::Raw => Ok(Vec::new()),
        Format::Qcow2 => Ok(header::qcow2_others(head).map_err(damaged(path))?),
        Format::Vmdk => vmdk_others(path, head),
    }
}

fn vmdk_others(path: &Path, head: &[u8]) -> Result<Vec<String>, CliError> {
    let mut others = Vec::new();
    for name in vmdk::files(head).map_err(damaged(path))? {
        if !stands_beside(path, &name) {
            others.push(name);
            continue;
        }
        // An extent may be a VMDK itself; one that leads further is not taken.
        let extent = path.with_file_name(&name);
        let head = read_head(&extent)?;
        if vmdk::is_vmdk(&head) {
            let further = vmdk::files(&head).map_err(damaged(&extent))?;
            others.extend(further.into_iter().map(|next| format!("{name} -> {next}")));
        }
    }
    Ok(others)
}

fn damaged(path: &Path) -> impl Fn(&'static str) -> ImageError {
    let path = path.to_owned();
    move |what| ImageError::Damaged { path: path.clone(), what }
}

/// Whether `name` is a plain file in the folder of the image: the usual form of a VMDK with extents. A
/// symbolic link may lead anywhere and does not count.
fn stands_beside(image: &Path, name: &str) -> bool {
    let plain = !name.contains(['/', ':', '\\']);
    let file = image.with_file_name(name);
    plain && fs::symlink_metadata(file).is_ok_and(|data| data.file_type().is_file())
}

/// A raw file that ends inside a sector gets zeros behind it.
fn padding(path: &Path, format: Format, size: u64) -> Result<Option<String>, CliError> {
    let data = fs::metadata(path).map_err(CliError::file("read", path))?;
    if format != Format::Raw || !data.is_file() || data.len().is_multiple_of(SECTOR) {
        return Ok(None);
    }
    let zeros = size.saturating_sub(data.len());
    Ok(Some(format!(
        "{} has {} bytes, which is no multiple of {SECTOR}; the disk is padded with {zeros} zero bytes",
        path.display(),
        data.len()
    )))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
