//! Values of the configuration that TOML has no type for: file modes and groups.
//!
//! Owns their text forms; must not know what they are used for.

use serde::{Deserialize, Deserializer, de::Error};

/// Permission bits, written as octal text: `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        let bits = u32::from_str_radix(&text, 8).ok().filter(|bits| *bits <= 0o777);
        let bits = bits.ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no file mode; write it as \"0660\""))
        })?;
        Ok(Self(bits))
    }
}

/// A group, written as a number, or as a name that `/etc/group` has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Group {
    /// Group id.
    Id(u32),
    /// Group name.
    Name(String),
}

impl Group {
    /// The group id; `None` when `groups` (the text of `/etc/group`) does not have the name.
    #[must_use]
    pub fn id(&self, groups: &str) -> Option<u32> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Name(name) => groups.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name.as_str())).then(|| fields.nth(1)?.parse().ok())?
            }),
        }
    }

    /// The group id on this host.
    #[must_use]
    pub fn resolve(&self) -> Option<u32> {
        self.id(&std::fs::read_to_string("/etc/group").unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_or_number() {
        let groups = "root:x:0:\nkvm:x:108:qemu\nbroken\n";
        assert_eq!(Group::Name("kvm".into()).id(groups), Some(108));
        assert_eq!(Group::Name("broken".into()).id(groups), None);
        assert_eq!(Group::Name("nobody".into()).id(groups), None);
        assert_eq!(Group::Id(7).id(""), Some(7));
    }
}
