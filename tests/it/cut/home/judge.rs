//! What a home may show after a loss of power.
//!
//! Owns the rules: the names are those after some step, none of a synced folder missing; of each file every byte is
//! one that it had since it was last synced, or zero where it ended before it then; its size is one that it had, or the
//! end of a page on the way there. Must not know how the state came about.

use super::history::{Attributes, History, Kind, Names, Node};
use crate::cut::ground::Cut;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Data unit of a home.
const UNIT: usize = 4096;

/// An object that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) inode: u64,
    pub(super) content: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// Everything in a mounted home.
pub(super) fn look(home: &Path) -> Result<BTreeMap<String, Found>, String> {
    let mut found = BTreeMap::new();
    walk(home, "", &mut found)?;
    Ok(found)
}

/// Compares the mounted home with its history; says what must not be.
pub(super) fn judge(home: &Path, history: &History, cut: Cut) -> Result<(), String> {
    let found = look(home)?;
    let first = history.names_durable(cut.done);
    let mut why = None;
    let mut last: Option<&Names> = None;
    for step in (first..=cut.begun).rev() {
        let names = history.names_after(step);
        if last == Some(names) {
            continue;
        }
        last = Some(names);
        if same_names(&found, names, history) {
            match objects(&found, names, history, cut) {
                Ok(()) => return Ok(()),
                Err(fault) => why = why.or(Some(fault)),
            }
        }
    }
    Err(why.unwrap_or_else(|| {
        let there: Vec<&String> = found.keys().collect();
        let wanted: Vec<&String> = history.names_after(first).keys().collect();
        format!("the names {there:?} were never there together; durable are {wanted:?}")
    }))
}

fn walk(home: &Path, below: &str, found: &mut BTreeMap<String, Found>) -> Result<(), String> {
    let io = |name: &str, error: std::io::Error| format!("{name}: {error}");
    for entry in fs::read_dir(home.join(below)).map_err(|error| io(below, error))? {
        let entry = entry.map_err(|error| io(below, error))?;
        let name = format!("{below}{}", entry.file_name().to_str().ok_or("a strange name")?);
        let path = entry.path();
        let stat = fs::symlink_metadata(&path).map_err(|error| io(&name, error))?;
        let mut object = Found {
            kind: Kind::File,
            inode: stat.ino(),
            content: Vec::new(),
            attributes: Attributes::new(),
        };
        if stat.is_dir() {
            object.kind = Kind::Folder;
            walk(home, &format!("{name}/"), found)?;
        } else if stat.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| io(&name, error))?;
            object.kind = Kind::Link(target.to_string_lossy().into_owned());
        } else {
            object.content = fs::read(&path).map_err(|error| io(&name, error))?;
            object.attributes = attributes(&path).map_err(|error| io(&name, error.into()))?;
            if object.content.len() as u64 != stat.len() {
                return Err(format!("{name} has another size than it shows"));
            }
        }
        found.insert(name, object);
    }
    Ok(())
}

fn attributes(path: &Path) -> Result<Attributes, rustix::io::Errno> {
    let mut room = vec![0; 4096];
    let len = rustix::fs::listxattr(path, &mut room[..])?;
    let names = room[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found = Attributes::new();
    for name in names.map(|name| String::from_utf8_lossy(name).into_owned()) {
        let mut value = vec![0; 4096];
        let len = rustix::fs::getxattr(path, name.as_str(), &mut value[..])?;
        value.truncate(len);
        found.insert(name, value);
    }
    Ok(found)
}

/// Whether these are the names, each of the right kind, and two of one object where they were.
fn same_names(found: &BTreeMap<String, Found>, names: &Names, history: &History) -> bool {
    let kinds = found.len() == names.len()
        && found.iter().zip(names).all(|((found, object), (name, node))| {
            found == name && object.kind == *history.kind(*node)
        });
    let mut inodes: BTreeMap<Node, u64> = BTreeMap::new();
    kinds
        && names
            .values()
            .zip(found.values())
            .all(|(node, object)| *inodes.entry(*node).or_insert(object.inode) == object.inode)
}

fn objects(
    found: &BTreeMap<String, Found>,
    names: &Names,
    history: &History,
    cut: Cut,
) -> Result<(), String> {
    for ((name, object), node) in found.iter().zip(names.values()) {
        if object.kind != Kind::File {
            continue;
        }
        let contents = history.contents(*node, cut);
        size(&object.content, &contents)
            .and_then(|()| bytes(&object.content, &contents))
            .map_err(|fault| format!("{name}#{node}: {fault}"))?;
        let allowed = history.attributes_after(*node, cut);
        if !allowed.iter().any(|attributes| **attributes == object.attributes) {
            return Err(format!("{name}#{node}: attributes that it never had"));
        }
    }
    Ok(())
}

/// A shrink to another unit passes through the size rounded up to the unit; and the kernel may hand on one write as
/// several, each of which ends where a page does.
fn size(content: &[u8], contents: &[Arc<Vec<u8>>]) -> Result<(), String> {
    let size = content.len();
    let known = contents.iter().any(|had| {
        had.len() == size || (had.len() < size && had.len().next_multiple_of(UNIT) == size)
    });
    let most = contents.iter().map(|had| had.len()).max().unwrap_or(0);
    let least = contents.iter().map(|had| had.len()).min().unwrap_or(0);
    let page = size.is_multiple_of(UNIT) && (least..=most).contains(&size);
    match known || page {
        true => Ok(()),
        false => Err(format!(
            "it has {size} bytes, but had {:?}",
            contents.iter().map(|had| had.len()).collect::<Vec<_>>()
        )),
    }
}

/// Every byte is one that was there, or zero where it was not yet.
pub(in crate::cut) fn bytes(content: &[u8], contents: &[Arc<Vec<u8>>]) -> Result<(), String> {
    for (number, sector) in content.chunks(512).enumerate() {
        let at = number * 512;
        let is_there = |had: &Arc<Vec<u8>>| had.get(at..at + sector.len()) == Some(sector);
        if contents.iter().rev().any(is_there) {
            continue;
        }
        for (inside, byte) in sector.iter().enumerate() {
            let had = contents.iter().map(|had| had.get(at + inside).copied().unwrap_or(0));
            if !had.clone().any(|had| had == *byte) {
                let had: Vec<u8> = had.collect();
                return Err(format!(
                    "byte {} of {} is {byte}, but was one of {had:?}",
                    at + inside,
                    content.len()
                ));
            }
        }
    }
    Ok(())
}
