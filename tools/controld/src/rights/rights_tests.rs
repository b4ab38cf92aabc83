use super::*;
use crate::store::EmbeddedStore;

struct T {
    rights: Rights,
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

fn new() -> T {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap());
    T { rights: Rights::new(Arc::clone(&store)), store, _dir: dir }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn certificate(uri: &str) -> Identity {
    Identity::Certificate { sha256: "ab".repeat(32), uris: vec![uri.into()] }
}

fn binding(subject: &str, role: &str, scope: Scope) -> Binding {
    Binding { subject: subject.into(), name: name("anna"), role: name(role), scope }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, RightsError>) -> Refusal {
    match outcome {
        Err(RightsError::Refused(refusal)) => refusal,
        other => panic!("{other:?} is no refusal"),
    }
}

fn pass(text: &str) -> Pass {
    Pass { name: text.into(), by: "token" }
}

#[test]
fn built_in_roles_have_what_their_names_say() {
    let t = new();
    let of = |role: &str| t.rights.role(&name(role)).unwrap().unwrap().privileges;
    assert_eq!(of("administrator").len(), Privilege::ALL.len());
    let plain = of("no-cryptography-administrator");
    assert!(plain.iter().all(|privilege| !privilege.is_cryptographer()));
    assert!(!plain.contains(&Privilege::ManageRights), "it could give itself the rest");
    assert!(plain.contains(&Privilege::ManageInventory));
    let operator = of("operator");
    assert!(operator.contains(&Privilege::Encrypt) && operator.contains(&Privilege::RegisterVm));
    for no in [
        Privilege::Decrypt,
        Privilege::ManageKeys,
        Privilege::ManageRights,
        Privilege::RegisterHost,
    ] {
        assert!(!operator.contains(&no), "{no}");
    }
    assert_eq!(of("auditor").len(), 3);
    assert!(matches!(
        t.rights.put_role(&Role { name: name("auditor"), privileges: BTreeSet::new() }),
        Err(RightsError::Fixed(_))
    ));
    assert!(matches!(t.rights.remove_role(&name("operator")), Err(RightsError::Fixed(_))));
}

#[test]
fn every_privilege_is_refused_to_who_lacks_it_and_given_to_who_has_it() {
    let t = new();
    for (number, privilege) in Privilege::ALL.iter().enumerate() {
        let role = Role { name: name(&format!("only{number}")), privileges: [*privilege].into() };
        t.rights.put_role(&role).unwrap();
        let subject = format!("uri:coffer://c/user/u{number}");
        t.rights.bind(&binding(&subject, role.name.as_str(), Scope::Everything)).unwrap();
        let identity = certificate(&format!("coffer://c/user/u{number}"));
        for other in Privilege::ALL {
            let outcome = t.rights.check(&identity, *other, None, 0);
            if other == privilege {
                assert_eq!(outcome.unwrap(), Pass { name: "anna".into(), by: "certificate" });
            } else {
                let refused = refusal(outcome);
                assert!(
                    matches!(&refused, Refusal::Missing { privilege, .. } if privilege == other)
                );
                assert!(refused.to_string().contains(&format!("only{number}")), "{refused}");
            }
        }
    }
}

#[test]
fn nobody_and_strangers_are_refused() {
    let t = new();
    assert_eq!(
        refusal(t.rights.check(&Identity::Nobody, Privilege::Read, None, 0)),
        Refusal::Nobody
    );
    let stranger = certificate("coffer://c/user/eve");
    assert!(matches!(
        refusal(t.rights.check(&stranger, Privilege::Read, None, 0)),
        Refusal::Unknown { .. }
    ));
    for text in [
        "",
        "coffer-token",
        "coffer-token.x.y",
        "coffer-token.0123456789abcdef.",
        &"x".repeat(100_000),
    ] {
        let token = Identity::Token(text.into());
        assert!(matches!(
            refusal(t.rights.check(&token, Privilege::Read, None, 0)),
            Refusal::Unknown { .. }
        ));
    }
    for subject in ["", "anna", "uri:", "token:", &format!("uri:{}", "x".repeat(300))] {
        assert!(matches!(
            t.rights.bind(&binding(subject, "auditor", Scope::Everything)),
            Err(RightsError::Fixed(_))
        ));
    }
    assert!(matches!(
        t.rights.bind(&binding("uri:a", "nothing", Scope::Everything)),
        Err(RightsError::NotFound(_))
    ));
}

#[test]
fn certificates_are_known_by_fingerprint_or_name_and_by_nothing_else() {
    let t = new();
    let print = format!("sha256:{}", "ab".repeat(32));
    t.rights.bind(&binding(&print, "auditor", Scope::Everything)).unwrap();
    t.rights.check(&certificate("anything"), Privilege::ReadAudit, None, 0).unwrap();
    t.rights.unbind(&binding(&print, "auditor", Scope::Everything)).unwrap();
    t.rights.bind(&binding("uri:coffer://c/user/a/b", "auditor", Scope::Everything)).unwrap();
    t.rights.check(&certificate("coffer://c/user/a/b"), Privilege::ReadAudit, None, 0).unwrap();
    for other in ["coffer://c/user/a", "coffer://c/user/a/b/c", "coffer://c/user/a%2Fb", ""] {
        assert!(matches!(
            refusal(t.rights.check(&certificate(other), Privilege::ReadAudit, None, 0)),
            Refusal::Unknown { .. }
        ));
    }
}

#[test]
fn a_role_in_one_cluster_counts_nowhere_else() {
    let t = new();
    t.rights.bind(&binding("uri:a", "operator", Scope::Cluster(name("berlin")))).unwrap();
    let check = |cluster: Option<&str>| {
        t.rights.check(&certificate("a"), Privilege::Encrypt, cluster.map(name).as_ref(), 0)
    };
    check(Some("berlin")).unwrap();
    for other in [Some("paris"), None] {
        let refused = refusal(check(other));
        assert!(refused.to_string().contains("none here"), "{refused}");
    }
}

#[test]
fn a_token_is_kept_as_a_hash_and_ends() {
    let t = new();
    let made = t.rights.make_token(&name("ci"), 100, 1000).unwrap();
    let identity = Identity::Token(made.text.clone());
    let check = |identity: &Identity, now| t.rights.check(identity, Privilege::Read, None, now);
    assert!(
        matches!(refusal(check(&identity, 1000)), Refusal::Unknown { .. }),
        "it has no role yet"
    );
    t.rights
        .bind(&binding(&format!("token:{}", made.token.id), "auditor", Scope::Everything))
        .unwrap();
    assert_eq!(check(&identity, 1100).unwrap().by, "token");
    assert!(matches!(refusal(check(&identity, 1101)), Refusal::Expired { .. }));
    // The right id with another secret.
    let last = made.text.chars().last().unwrap();
    let other =
        format!("{}{}", &made.text[..made.text.len() - 1], if last == '0' { '1' } else { '0' });
    assert!(matches!(refusal(check(&Identity::Token(other), 1000)), Refusal::Unknown { .. }));
    let secret = made.text.rsplit('.').next().unwrap();
    let everything = t.store.scan("", None, 1000).unwrap().entries;
    assert!(everything.iter().all(|e| !String::from_utf8_lossy(&e.value).contains(secret)));
    assert_eq!(t.rights.tokens().unwrap(), std::slice::from_ref(&made.token));
    t.rights.remove_token(&made.token.id).unwrap();
    assert!(matches!(refusal(check(&identity, 1000)), Refusal::Unknown { .. }));
    assert!(matches!(t.rights.remove_token("../role/x"), Err(RightsError::NotFound(_))));
    for life in [0, MAX_YEAR + 1] {
        assert!(matches!(t.rights.make_token(&name("ci"), life, 0), Err(RightsError::Fixed(_))));
    }
}

const MAX_YEAR: u64 = 366 * 86_400;

#[test]
fn a_role_that_was_removed_gives_nothing() {
    let t = new();
    let role = Role { name: name("helper"), privileges: [Privilege::Decrypt].into() };
    t.rights.put_role(&role).unwrap();
    assert_eq!(t.rights.roles().unwrap().len(), 5);
    t.rights.bind(&binding("uri:a", "helper", Scope::Everything)).unwrap();
    t.rights.check(&certificate("a"), Privilege::Decrypt, None, 0).unwrap();
    t.rights.remove_role(&name("helper")).unwrap();
    assert!(matches!(
        refusal(t.rights.check(&certificate("a"), Privilege::Decrypt, None, 0)),
        Refusal::Missing { .. }
    ));
}

fn hindered<T: std::fmt::Debug>(outcome: Result<T, RightsError>) -> String {
    match outcome {
        Err(RightsError::Approval(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_act_of_two_people_needs_two_people() {
    let t = new();
    let (anna, bert) = (pass("anna"), pass("bert"));
    let asked = t.rights.ask(&anna, "key.destroy", "kmip/1", b"{}", "rotated", 100).unwrap();
    let id = asked.id.as_str();
    let act = |who: &Pass, verb: &str, target: &str, content: &[u8], now| {
        t.rights.use_up(who, id, verb, target, content, now)
    };
    assert!(
        hindered(act(&anna, "key.destroy", "kmip/1", b"{}", 101)).contains("nobody has allowed")
    );
    assert!(hindered(t.rights.decide(&anna, id, true, 101)).contains("somebody else"));
    t.rights.decide(&bert, id, true, 101).unwrap();
    assert!(hindered(t.rights.decide(&bert, id, false, 101)).contains("before"));
    assert!(hindered(act(&bert, "key.destroy", "kmip/1", b"{}", 102)).contains("anna asked"));
    for (verb, target, content) in [
        ("key.retire", "kmip/1", "{}"),
        ("key.destroy", "kmip/2", "{}"),
        ("key.destroy", "kmip/1", "{1}"),
    ] {
        assert!(
            hindered(act(&anna, verb, target, content.as_bytes(), 102)).contains("other content")
        );
    }
    let used = act(&anna, "key.destroy", "kmip/1", b"{}", 102).unwrap();
    assert_eq!(used.state, ApprovalState::Used("bert".into()));
    assert!(hindered(act(&anna, "key.destroy", "kmip/1", b"{}", 103)).contains("used before"));
    assert_eq!(t.rights.approvals().unwrap(), [used]);
    assert!(matches!(t.rights.decide(&bert, "nothing", true, 1), Err(RightsError::NotFound(_))));
}

#[test]
fn requests_and_approvals_run_out_and_can_be_refused() {
    let t = new();
    let (anna, bert) = (pass("anna"), pass("bert"));
    let ask = || t.rights.ask(&anna, "v", "t", b"", "", 100).unwrap().id;
    let late = ask();
    assert!(hindered(t.rights.decide(&bert, &late, true, 101 + APPROVAL_LIFE)).contains("run out"));
    let idle = ask();
    t.rights.decide(&bert, &idle, true, 200).unwrap();
    assert!(
        hindered(t.rights.use_up(&anna, &idle, "v", "t", b"", 201 + APPROVAL_LIFE))
            .contains("run out")
    );
    let refused = ask();
    t.rights.decide(&anna, &refused, false, 200).unwrap();
    assert!(hindered(t.rights.use_up(&anna, &refused, "v", "t", b"", 201)).contains("refused"));
}
