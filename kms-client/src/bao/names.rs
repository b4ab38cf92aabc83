//! Names that go into the path or the head of a request.
//!
//! Owns what they may be made of, so that none can leave its place: key ids come from files that anybody may have made up. It must not
//! know requests.

use super::provider::{BaoSettings, KeyChoice};
use crate::KmsError;
use crypto::KeyId;

/// Longest name of a key.
const MAX_NAME: usize = 128;

/// Longest mount path, role or namespace.
const MAX_PLACE: usize = 256;

/// Whether a key can have this name: that of a transit engine, whose names begin and end with a letter, digit or `_` and have `-` and `.`
/// within.
#[must_use]
pub(super) fn is_key_name(name: &str) -> bool {
    let outer = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = name.as_bytes();
    (1..=MAX_NAME).contains(&bytes.len())
        && bytes.first().is_some_and(outer)
        && bytes.last().is_some_and(outer)
        && bytes.iter().all(|byte| outer(byte) || matches!(byte, b'-' | b'.'))
}

/// Whether something can be mounted there, or be a namespace: names of letters, digits, `_`, `-` and `.`, with slashes between them.
fn is_place(place: &str) -> bool {
    place.len() <= MAX_PLACE && place.split('/').all(is_key_name)
}

/// Checks every name that goes into a request.
///
/// # Errors
/// [`KmsError::Config`] for the first that cannot.
pub(super) fn check(settings: &BaoSettings) -> Result<(), KmsError> {
    let config = |problem: String, remedy: &str| Err(config(&settings.name, problem, remedy));
    if let Err(e) = KeyId::new(&settings.name, "1") {
        return config(format!("cannot have this name: {e}"), "choose another name");
    }
    let (what, name, fits) = match &settings.keys {
        KeyChoice::Each(prefix) => {
            // It begins a name that goes on with 32 digits.
            ("the prefix", prefix, prefix.len() <= 64 && is_key_name(&format!("{prefix}0")))
        }
        KeyChoice::Named(name) => ("the key", name, is_key_name(name)),
    };
    if !fits {
        let problem = format!("has {what} {name:?}, which cannot be in the name of a key");
        return config(problem, "use letters, digits, _, and - and . within");
    }
    let role = settings.role.as_deref();
    let namespace = settings.namespace.as_deref().map(|name| name.trim_matches('/'));
    for (what, place) in [
        ("mount", Some(settings.mount.as_str())),
        ("auth_mount", Some(settings.auth_mount.as_str())),
        ("role", role),
        ("namespace", namespace),
    ] {
        if place.is_some_and(|place| !is_place(place)) {
            let problem = format!("has the {what} {:?}", place.unwrap_or_default());
            return config(problem, "use letters, digits, _, - and ., with / between parts");
        }
    }
    Ok(())
}

/// An error of the settings of the provider `name`.
pub(super) fn config(name: &str, problem: String, remedy: &str) -> KmsError {
    KmsError::Config { origin: format!("key provider {name}"), problem, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_path_are_none() {
        for name in ["k", "coffer-0a", "a.b_c-D", "_"] {
            assert!(is_key_name(name), "{name}");
        }
        let long = "k".repeat(MAX_NAME + 1);
        for name in ["", ".", "..", "-a", "a-", "a/b", "a:b", "a?b", "a b", "\u{e9}", "a%2f", &long]
        {
            assert!(!is_key_name(name), "{name}");
        }
        assert!(is_place("team/transit") && !is_place("transit/") && !is_place("a//b"));
        assert!(!is_place("../sys") && !is_place("a\r\nb"));
    }
}
