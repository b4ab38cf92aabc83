use super::*;
use std::os::unix::fs::PermissionsExt;

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn host(text: &str) -> Member {
    Member { site: name("berlin"), role: Role::Host, name: name(text) }
}

fn made(dir: &Path) -> Ca {
    Ca::make(&dir.join("ca.pem"), &dir.join("ca.key"), &name("berlin"), NOW).unwrap()
}

#[test]
fn names_are_read_as_they_are_written() {
    for role in [Role::Controld, Role::Host, Role::User] {
        let member = Member { role, ..host("h1") };
        assert_eq!(Member::parse(&member.uri()), Some(member));
    }
    assert_eq!(host("h1").uri(), "coffer://berlin/host/h1");
    for bad in [
        "",
        "coffer://",
        "coffer://a/host",
        "coffer://a/root/b",
        "coffer://a/host/b/c",
        "http://a/host/b",
        "coffer://a/host/",
        "coffer:///host/b",
    ] {
        assert_eq!(Member::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_ca_is_made_once_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let ca = made(dir.path());
    let mode = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
    assert_eq!(mode("ca.key") & 0o777, 0o600);
    let again = Ca::make(&dir.path().join("ca.pem"), &dir.path().join("ca.key"), &name("b"), NOW);
    assert!(matches!(again, Err(CaError::Io { .. })));
    let opened = Ca::open(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
    assert_eq!(opened.sha256(), ca.sha256());
    let other = tempfile::tempdir().unwrap();
    made(other.path());
    let mixed = Ca::open(&dir.path().join("ca.pem"), &other.path().join("ca.key"));
    assert!(mixed.err().unwrap().to_string().contains("is not the key of"));
    std::fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    assert!(matches!(
        Ca::open(&dir.path().join("ca.pem"), &dir.path().join("ca.key")),
        Err(CaError::Unfit { .. })
    ));
}

/// A verifier that trusts the CA, as TLS has it.
fn verify(ca: &Ca, pem: &str, at: u64, server: bool) -> Result<Vec<String>, String> {
    use rustls::pki_types::{CertificateDer, UnixTime};
    let der = der_of(pem).unwrap();
    let der = CertificateDer::from(der);
    let root = CertificateDer::from(ca.der.clone());
    let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
    let cert = webpki::EndEntityCert::try_from(&der).unwrap();
    let usage =
        if server { webpki::KeyUsage::server_auth() } else { webpki::KeyUsage::client_auth() };
    let algorithms =
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
    cert.verify_for_usage(algorithms.all, &[anchor], &[], time, usage, None, None)
        .map_err(|e| e.to_string())?;
    Ok(cert.valid_uri_names().map(ToOwned::to_owned).collect())
}

#[test]
fn a_signed_certificate_says_what_the_authority_says() {
    let dir = tempfile::tempdir().unwrap();
    let ca = made(dir.path());
    // A request that asks for another name, and to be an authority.
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec!["evil.example".into()]).unwrap();
    wanted.subject_alt_names.push(SanType::URI("coffer://berlin/controld/c1".try_into().unwrap()));
    wanted.distinguished_name.push(DnType::CommonName, "admin");
    let request = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let issued = ca.sign(&request, &host("h1"), NOW).unwrap();
    assert_eq!(verify(&ca, &issued.pem, NOW, false).unwrap(), ["coffer://berlin/host/h1"]);
    verify(&ca, &issued.pem, NOW, true).unwrap();
    let der = der_of(&issued.pem).unwrap();
    assert_eq!(issued.sha256, crypto::sha256_hex(&der));
    let text = String::from_utf8_lossy(&der).into_owned();
    assert!(!text.contains("evil.example") && !text.contains("admin"));
    verify(&ca, &issued.pem, issued.until, false).unwrap();
    assert!(verify(&ca, &issued.pem, issued.until + 1, false).is_err());
    verify(&ca, &issued.pem, NOW - 1800, false).unwrap();
    let other = tempfile::tempdir().unwrap();
    assert!(verify(&made(other.path()), &issued.pem, NOW, false).is_err());
}

#[test]
fn the_authority_knows_which_certificates_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let ca = made(dir.path());
    let member = Member { role: Role::Controld, ..host("c1") };
    let names = ["c1.example".to_owned(), "192.0.2.1".to_owned()];
    let pem = ca.pair(&member, &names, NOW).unwrap().certificate;
    assert!(ca.vouches(&pem, &names, NOW) && ca.vouches(&pem, &names[..1], NOW));
    assert!(!ca.vouches(&pem, &names, NOW + (HOST_DAYS + 1) * 86_400));
    assert!(!ca.vouches(&pem, &["c2.example".to_owned()], NOW));
    let other = tempfile::tempdir().unwrap();
    assert!(!made(other.path()).vouches(&pem, &names, NOW));
    assert!(!ca.vouches("", &[], NOW));
}

#[test]
fn a_replaced_file_has_its_mode_and_no_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.key");
    std::fs::write(dir.path().join("x.key.new"), "rest").unwrap();
    replace(&path, b"1", 0o600).unwrap();
    replace(&path, b"2", 0o600).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"2");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn users_are_no_servers() {
    let dir = tempfile::tempdir().unwrap();
    let ca = made(dir.path());
    let user = Member { role: Role::User, ..host("anna") };
    let pair = ca.pair(&user, &[], NOW).unwrap();
    verify(&ca, &pair.certificate, NOW, false).unwrap();
    assert!(verify(&ca, &pair.certificate, NOW, true).is_err());
}

#[test]
fn wrong_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = made(dir.path());
    let good = new_request().unwrap().certificate;
    let member = host("h1");
    ca.sign(&good, &member, NOW).unwrap();
    // One bit of the signature: it is in the last bytes.
    use base64::Engine;
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    *der.last_mut().unwrap() ^= 1;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let forged =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    for bad in [forged.as_str(), "", "x", &ca.pem.clone(), &"x".repeat(MAX_REQUEST + 1)] {
        assert!(matches!(ca.sign(bad, &member, NOW), Err(CaError::Request(_))));
    }
}
