//! User name and password, for servers that want them beside the certificate.
//!
//! Owns where they come from and how they stand in a message (KMIP 1.4 sections 2.1.2 and 6.6). It must not know what is asked for. Flow:
//! the password is read from its file for each conversation, so a changed one counts from the next on; it is written into the
//! requests, and wiped with them.

use super::fault::IdentityError;
use super::tls::read;
use super::ttlv::{Tag, Writer};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest password, in bytes. A longer file is not one.
const MAX_PASSWORD: usize = 1024;

/// Credential Type (section 9.1.3.2.1): user name and password.
const USERNAME_AND_PASSWORD: u32 = 1;

/// What the file is called in messages.
const WHAT: &str = "password for the key servers";

/// Who we are to the servers, beyond the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name of the user.
    pub user: String,
    /// File with the password, readable by its owner only; a line end after it does not count.
    pub password: PathBuf,
    /// The file is in a folder that is closed to others, so its own mode does not matter.
    pub sheltered: bool,
}

/// A user name and a password. Wiped when dropped.
pub struct Credential {
    user: String,
    password: Zeroizing<String>,
}

impl Account {
    /// The credential as it is now.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and what is wrong with it.
    pub fn read(&self) -> Result<Credential, IdentityError> {
        let unfit = |problem: &str, remedy| IdentityError {
            what: WHAT,
            path: self.password.clone(),
            problem: problem.to_owned(),
            remedy,
        };
        let bytes = Zeroizing::new(read(&self.password, WHAT, !self.sheltered)?);
        let text = std::str::from_utf8(&bytes);
        let text =
            text.map_err(|_| unfit("is no text in UTF-8", "put the password alone there"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() || text.len() > MAX_PASSWORD {
            let problem = format!("has {} bytes, not 1 to {MAX_PASSWORD}", text.len());
            return Err(unfit(&problem, "put the password alone there"));
        }
        Ok(Credential::new(&self.user, text))
    }

    /// Where the password is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.password
    }
}

impl Credential {
    /// A credential of these.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) }
    }

    /// The field Authentication of a request header.
    pub(super) fn write(&self, w: &mut Writer) {
        w.structure(Tag::AUTHENTICATION, |w| {
            w.structure(Tag::CREDENTIAL, |w| {
                w.enumeration(Tag::CREDENTIAL_TYPE, USERNAME_AND_PASSWORD);
                w.structure(Tag::CREDENTIAL_VALUE, |w| {
                    w.text(Tag::USERNAME, &self.user);
                    w.text(Tag::PASSWORD, &self.password);
                });
            });
        });
    }
}

/// Never the password.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn account(content: &[u8], mode: u32) -> (tempfile::TempDir, Account) {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        fs::write(&password, content).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(mode)).unwrap();
        (dir, Account { user: "Fred".into(), password, sheltered: false })
    }

    #[test]
    fn the_password_is_the_line_in_the_file() {
        for content in ["password1", "password1\n", "password1\r\n"] {
            let (_dir, account) = account(content.as_bytes(), 0o600);
            let credential = account.read().unwrap();
            assert_eq!(*credential.password, "password1");
            assert_eq!(format!("{credential:?}"), "Credential(Fred)");
        }
        let (_dir, two_lines) = account(b"one\ntwo\n", 0o400);
        assert_eq!(*two_lines.read().unwrap().password, "one\ntwo");
    }

    #[test]
    fn a_file_that_is_none_is_named_and_its_content_is_not() {
        let large = [b'x'; MAX_PASSWORD + 1];
        for (content, mode, problem) in [
            (&b"secret"[..], 0o640, "can be used by group or others"),
            (b"", 0o600, "has 0 bytes"),
            (b"\n", 0o600, "has 0 bytes"),
            (b"secret\xff", 0o600, "is no text"),
            (&large, 0o600, "has 1025 bytes"),
        ] {
            let (_dir, account) = account(content, mode);
            let error = account.read().unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("secret"), "{error}");
            assert!(error.contains(&account.path().display().to_string()), "{error}");
        }
        let (_dir, mut sheltered) = account(b"secret", 0o440);
        sheltered.sheltered = true;
        sheltered.read().unwrap();
    }
}
