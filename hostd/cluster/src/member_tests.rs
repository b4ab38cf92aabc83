//! Names, good and bad, and certificates that carry them.

use super::*;
use rcgen::{CertificateParams, KeyPair, SanType};

fn certificate(uris: &[&str]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

#[test]
fn a_name_is_read_and_written() {
    let longest = format!("coffer://prod/user/{}", "x".repeat(MAX_PART));
    for (text, role) in [
        ("coffer://prod/host/h-1", Role::Host),
        ("coffer://a.b/controld/c_2", Role::Controld),
        (&longest, Role::User),
    ] {
        let member: Member = text.parse().unwrap();
        assert_eq!((member.role(), member.to_string().as_str()), (role, text));
    }
    let long = "x".repeat(MAX_PART + 1);
    for wrong in [
        "",
        "prod/host/h1",
        "coffer://prod/host",
        "coffer://prod/host/",
        "coffer:///host/h1",
        "coffer://prod/Host/h1",
        "coffer://prod/admin/h1",
        "coffer://prod/host/h1/more",
        "coffer://prod/host/h 1",
        "coffer://pro\u{fc}d/host/h1",
        "COFFER://prod/host/h1",
        &format!("coffer://{long}/host/h1"),
        &format!("coffer://prod/host/{long}"),
    ] {
        assert!(matches!(wrong.parse::<Member>(), Err(MemberError::Form(_))), "{wrong}");
    }
}

#[test]
fn a_certificate_speaks_for_exactly_one_member() {
    let one = "coffer://prod/controld/c1";
    let found = Member::of(&certificate(&["https://example.org/x", one])).unwrap();
    assert_eq!(found.to_string(), one);
    let cases = [
        (certificate(&[]), MemberError::NoName),
        (certificate(&["https://example.org/x"]), MemberError::NoName),
        (certificate(&[one, "coffer://test/controld/c1"]), MemberError::Several),
        (certificate(&["coffer://prod/c1"]), MemberError::Form("coffer://prod/c1".into())),
    ];
    for (certificate, error) in cases {
        assert_eq!(Member::of(&certificate).unwrap_err(), error);
    }
    let nothing = Member::of(&CertificateDer::from(vec![1, 2, 3]));
    assert!(matches!(nothing, Err(MemberError::Unreadable(_))));
}

#[test]
fn another_cluster_is_told_apart_from_another_role() {
    let member: Member = "coffer://test/host/h1".parse().unwrap();
    assert_eq!(member.is_a(Role::Host, "test"), Ok(()));
    let role = member.is_a(Role::Controld, "test").unwrap_err();
    assert_eq!(role.to_string(), "coffer://test/host/h1 has the role host, not controld");
    let cluster = member.is_a(Role::Controld, "prod").unwrap_err();
    assert_eq!(cluster.to_string(), "coffer://test/host/h1 is of the cluster test, not of prod");
}
