//! Which providers a configuration opens, and which of them makes new keys.

use super::*;

/// The providers that are opened, in order, and those that stay closed.
fn opened(more: &str) -> Result<(Vec<String>, Vec<String>), StartError> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "state_dir = {:?}\n[[datastore]]\nname = \"a\"\npath = \"/srv/a\"\n{more}",
        dir.path()
    );
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let (keyring, native) = open_keys(&config, false, Arena::new(64 * 1024).unwrap())?;
    assert!(native.is_none(), "there is no passphrase");
    let open = keyring.providers().iter().map(|p| p.name().to_owned()).collect();
    Ok((open, keyring.closed().iter().map(|c| c.name.clone()).collect()))
}

/// A server that nobody runs: a provider opens without asking.
const KMIP: &str = "[provider.kmip]\nname = \"kms\"\n[[provider.kmip.server]]\n\
                    host = \"127.0.0.1\"\nport = 1\n";

#[test]
fn the_native_provider_without_a_passphrase_stays_closed() {
    assert_eq!(opened("").unwrap(), (vec![], vec!["native".to_owned()]));
}

#[test]
fn a_host_with_key_servers_alone_does_not_miss_the_native_provider() {
    assert_eq!(opened(KMIP).unwrap(), (vec!["kms".to_owned()], vec![]));
}

#[test]
fn a_host_may_have_all_kinds_of_providers() {
    let openbao =
        "[provider.openbao]\n[[provider.openbao.server]]\nhost = \"127.0.0.1\"\nport = 1\n";
    assert_eq!(opened(openbao).unwrap(), (vec!["openbao".to_owned()], vec![]));
    let both = format!("{KMIP}{openbao}");
    assert_eq!(opened(&both).unwrap().0, ["kms", "openbao"]);
    let (open, _) = opened(&format!("[provider]\ndefault = \"openbao\"\n{both}")).unwrap();
    assert_eq!(open, ["openbao", "kms"]);
    let bad = openbao.replace("[provider.openbao]", "[provider.openbao]\nmount = \"a//b\"");
    let said = opened(&bad).unwrap_err().to_string();
    assert!(said.contains("mount") && said.contains("check [provider.openbao]"), "{said}");
}

#[test]
fn a_default_that_is_closed_is_not_replaced_in_silence() {
    let error = opened(&format!("[provider]\ndefault = \"native\"\n{KMIP}")).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("native is the default, but it is not open"), "{said}");
}
