//! Values that neither TOML nor JSON has a type for: file modes, groups, and owners of sockets.
//!
//! Owns their text forms; must not know what they are used for.

use serde::{Deserialize, Deserializer, de::Error as _};
use thiserror::Error;

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

/// Who may connect to a socket, with the ids of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id; without it the user alone may connect.
    pub group: Option<u32>,
}

/// What is wrong with the text of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OwnerError {
    /// No such user.
    #[error("{0:?} is no user in /etc/passwd")]
    User(String),
    /// No such group.
    #[error("{0:?} is no group in /etc/group")]
    Group(String),
}

impl Owner {
    /// Reads `USER` or `USER:GROUP`; `users` and `groups` are the texts of `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// [`OwnerError`] names the part that is not known.
    pub fn parse(text: &str, users: &str, groups: &str) -> Result<Self, OwnerError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = id(user, users).ok_or_else(|| OwnerError::User(user.into()))?;
        let known = |name: &str| id(name, groups).ok_or_else(|| OwnerError::Group(name.into()));
        Ok(Self { user, group: group.map(known).transpose()? })
    }

    /// Reads it with the users and groups of this host.
    ///
    /// # Errors
    /// As [`Owner::parse`].
    pub fn resolve(text: &str) -> Result<Self, OwnerError> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(text, &read("/etc/passwd"), &read("/etc/group"))
    }
}

/// The id of a user or group: both files have it in the third field (passwd(5), group(5)). `u32::MAX` is no id but
/// means "unchanged" (chown(2)).
fn id(name: &str, file: &str) -> Option<u32> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().ok().filter(|id| *id != u32::MAX);
    }
    file.lines().filter(|_| !name.is_empty()).find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
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

    #[test]
    fn owners_are_users_with_or_without_a_group() {
        let users = "root:x:0:0::/root:/bin/sh\nqemu:x:64055:108::/:/bin/false\n";
        let groups = "root:x:0:\nkvm:x:108:qemu\n";
        let parse = |text| Owner::parse(text, users, groups);
        assert_eq!(parse("qemu"), Ok(Owner { user: 64055, group: None }));
        assert_eq!(parse("qemu:kvm"), Ok(Owner { user: 64055, group: Some(108) }));
        assert_eq!(parse("1000:1001"), Ok(Owner { user: 1000, group: Some(1001) }));
        for unknown in ["", "kvm", "-1", "+5", "4294967295", "4294967296", ":kvm", "qemu x"] {
            assert!(matches!(parse(unknown), Err(OwnerError::User(_))), "{unknown:?}");
        }
        for unknown in ["qemu:", "qemu:qemu", "qemu:kvm:", "0:-1"] {
            assert!(matches!(parse(unknown), Err(OwnerError::Group(_))), "{unknown:?}");
        }
    }
}
