//! The table walked, and requests through the service without a network.

use super::*;
use crate::audit::{Log, verify};
use crate::inventory::KeyId;
use crate::pki::{JoinToken, new_request};
use crate::rights::{Binding, Privilege, Scope};
use crate::store::EmbeddedStore;

const NOW: u64 = 1_800_000_000;

struct T {
    service: Service,
    store: Arc<dyn Store>,
    dir: tempfile::TempDir,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn new() -> T {
    new_with(1 << 20)
}

/// With another length of the files of the audit log.
fn new_with(file_bytes: u64) -> T {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap());
    let (pem, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
    let ca = Ca::make(&pem, &key, &name("site"), NOW).unwrap();
    let log = Log::open_with(&dir.path().join("audit"), file_bytes).unwrap();
    let audit = Auditor::new(log, Arc::clone(&store), name("c1")).unwrap().unwrap();
    let service = Service::new(&store, name("site"), ca, audit, || NOW);
    for (user, role) in [("root", "administrator"), ("second", "administrator"), ("eve", "auditor")]
    {
        let subject = format!("uri:coffer://site/user/{user}");
        let binding =
            Binding { subject, name: name(user), role: name(role), scope: Scope::Everything };
        service.rights.bind(&binding).unwrap();
    }
    T { service, store, dir }
}

fn user(text: &str) -> Identity {
    Identity::Certificate {
        sha256: "00".repeat(32),
        uris: vec![format!("coffer://site/user/{text}")],
    }
}

fn asked(identity: Identity, method: &Method, path: &str, body: &Value) -> Asked {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    Asked {
        method: method.clone(),
        path: path.into(),
        query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        body: serde_json::to_vec(body).unwrap(),
        identity,
        address: "192.0.2.1:5".into(),
        why: "a test".into(),
        approval: None,
    }
}

impl T {
    fn ask(&self, who: &str, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.service.answer(&asked(user(who), method, path, body));
        (answer.status.as_u16(), answer.body)
    }

    fn done(&self, who: &str, method: &Method, path: &str, body: &Value) -> Value {
        let (status, body) = self.ask(who, method, path, body);
        assert_eq!(status, 200, "{method} {path}: {body}");
        body
    }

    /// Records of the audit log from a line on.
    fn lines(&self, from: u64) -> Vec<Value> {
        let folder = self.dir.path().join("audit");
        let mut out = Vec::new();
        crate::audit::export(&folder, from, &mut out).unwrap().unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].clone())
            .collect()
    }

    fn next_line(&self) -> u64 {
        self.service.audit.head().unwrap().seq + 1
    }

    fn host_pair(&self, token: &str) -> (Value, Identity) {
        let token: JoinToken = token.parse().unwrap();
        assert_eq!(token.ca, self.service.ca.sha256());
        let request = new_request().unwrap().certificate;
        let body = json!({ "secret": token.secret(), "request": request, "hpke_key": "AB01", "address": "h1:8471" });
        let answer =
            self.service.answer(&asked(Identity::Nobody, &Method::POST, "/v1/join", &body));
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
        let identity = host_identity(&answer.body);
        (answer.body, identity)
    }
}

/// As TLS shows the certificate of an answer.
fn host_identity(answer: &Value) -> Identity {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let pem = answer["certificate"].as_str().unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Identity::Certificate { sha256: crate::pki::fingerprint(&der), uris: crate::pki::uris_of(&der) }
}

/// A path of a route, with something in each of its parts.
fn sample(route: &Route) -> String {
    let parts = route.path.split('/').map(|part| match part {
        "{key}" => "kmip/1".to_owned(),
        part if part.starts_with('{') => "x1".to_owned(),
        part => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_without_rights_answers_403_and_is_audited() {
    let t = new();
    let stranger = user("stranger");
    let mut open = Vec::new();
    for route in table::ROUTES {
        if route.access == Access::Anybody {
            open.push(route.verb);
            continue;
        }
        for (identity, by) in [
            (stranger.clone(), "certificate"),
            (Identity::Nobody, "nobody"),
            (Identity::Token("coffer-token.x.y".into()), "token"),
        ] {
            let before = t.next_line();
            let answer =
                t.service.answer(&asked(identity, &route.method, &sample(route), &json!({})));
            assert_eq!(
                answer.status.as_u16(),
                403,
                "{} {}: {}",
                route.method,
                route.path,
                answer.body
            );
            assert_eq!(answer.body["code"], "denied");
            // Of strangers, only so many are written in a minute.
            let lines = t.lines(before);
            if by == "nobody" && lines.is_empty() {
                assert!(before > 60, "{before}");
                continue;
            }
            assert_eq!(lines.len(), 1, "{}", route.verb);
            assert_eq!(
                (&lines[0]["verb"], &lines[0]["outcome"]),
                (&json!(route.verb), &json!("denied"))
            );
            assert_eq!(lines[0]["who"]["by"], by);
            assert_eq!(lines[0]["why"], "a test");
        }
    }
    assert_eq!(open, ["openapi", "host.join"], "these prove themselves, or are no secret");
}

#[test]
fn every_privilege_of_a_route_is_enough_and_every_other_is_not() {
    let t = new();
    for (number, privilege) in Privilege::ALL.iter().enumerate() {
        let role = crate::rights::Role {
            name: name(&format!("r{number}")),
            privileges: [*privilege].into(),
        };
        t.service.rights.put_role(&role).unwrap();
        let subject = format!("uri:coffer://site/user/u{number}");
        let binding =
            Binding { subject, name: name("u"), role: role.name, scope: Scope::Everything };
        t.service.rights.bind(&binding).unwrap();
        for route in table::ROUTES {
            let Access::Needs(needed) = route.access else { continue };
            let (status, body) =
                t.ask(&format!("u{number}"), &route.method, &sample(route), &json!({}));
            assert_eq!(
                status != 403,
                needed == *privilege,
                "{privilege} {} {}: {body}",
                route.method,
                route.path
            );
        }
    }
}

#[test]
fn the_document_has_every_route_with_its_privilege() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    for route in table::ROUTES {
        let path = route.path.replace("{key}", "{provider}/{uid}");
        let operation = &document["paths"][&path][route.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], route.verb, "{path}");
        assert_eq!(operation["summary"], route.summary);
        if let Access::Needs(privilege) = route.access {
            assert_eq!(operation["x-privilege"], privilege.as_str());
        }
        if [Method::PUT].contains(&route.method) {
            assert!(operation["requestBody"].is_object(), "{path}");
        }
        count += 1;
    }
    let described: usize = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|verbs| verbs.as_object().unwrap().len())
        .sum();
    assert_eq!(described, count);
    let answer = new().service.answer(&asked(
        Identity::Nobody,
        &Method::GET,
        "/v1/openapi.json",
        &json!({}),
    ));
    assert_eq!(answer.body, document);
}

#[test]
fn a_site_lives_through_the_api() {
    let t = new();
    let (get, put, post, delete) = (&Method::GET, &Method::PUT, &Method::POST, &Method::DELETE);
    t.done("root", put, "/v1/clusters/berlin", &json!({}));
    let id = "11111111-2222-4333-8444-555555555555";
    let vm = json!({ "id": id, "key_ids": ["kmip/1"] });
    let made = t.done("root", put, "/v1/clusters/berlin/vms/web01", &vm);
    let disk = json!({ "id": "11111111-2222-4333-8444-000000000001", "size": 4096, "key_ids": ["kmip/1", "kmip/2"] });
    t.done("root", put, "/v1/clusters/berlin/vms/web01/disks/root", &disk);
    assert_eq!(t.ask("root", put, "/v1/clusters/berlin/vms/web01", &vm).0, 409);
    let moved = json!({ "id": id, "host": "h1", "key_ids": ["kmip/3"] });
    let revision = made["revision"].as_u64().unwrap();
    let path = format!("/v1/clusters/berlin/vms/web01?revision={revision}");
    t.done("root", put, &path, &moved);
    assert_eq!(t.ask("root", put, &path, &moved).0, 409, "the revision is used");
    let list = t.done("eve", get, "/v1/clusters/berlin/vms?limit=1", &json!({}));
    assert_eq!(list["items"][0]["record"]["host"], "h1");
    let users = t.done("eve", get, "/v1/keys/kmip/1/users", &json!({}));
    assert_eq!(
        (users["users"].as_array().unwrap().len(), &users["users"][0]["kind"]),
        (1, &json!("disk"))
    );
    let verdict = t.done("eve", get, "/v1/keys/kmip/2/verdict", &json!({}));
    assert_eq!(verdict["verdict"], "needed");
    assert_eq!(t.ask("eve", delete, "/v1/clusters/berlin/vms/web01", &json!({})).0, 403);
    assert_eq!(t.ask("root", delete, "/v1/clusters/berlin", &json!({})).0, 409);
    t.done("root", delete, "/v1/clusters/berlin/vms/web01/disks/root", &json!({}));
    t.done("root", delete, "/v1/clusters/berlin/vms/web01", &json!({}));
    t.done("root", delete, "/v1/clusters/berlin", &json!({}));
    let made = t.done("root", post, "/v1/tokens", &json!({ "name": "ci", "life": 60 }));
    let (id, text) = (made["id"].as_str().unwrap(), made["text"].as_str().unwrap());
    let scope = json!({ "subject": format!("token:{id}"), "name": "ci", "role": "auditor", "scope": "everything" });
    t.done("root", post, "/v1/bindings", &scope);
    let token = Identity::Token(text.into());
    let answer = t.service.answer(&asked(token, get, "/v1/audit/verify", &json!({})));
    assert_eq!((answer.status.as_u16(), &answer.body["holds"]), (200, &json!(true)));
    let audit = t.done("eve", get, "/v1/audit?from=3", &json!({}));
    assert_eq!(audit["lines"][0]["record"]["seq"], 3);
    assert!(!audit.to_string().contains(text), "no secret is in the log");
    let roles = t.done("eve", get, "/v1/roles", &json!({}));
    assert_eq!(roles["items"].as_array().unwrap().len(), 4);
}

#[test]
fn a_change_is_written_before_and_after() {
    let t = new();
    let before = t.next_line();
    t.done("root", &Method::PUT, "/v1/clusters/berlin", &json!({}));
    t.ask("root", &Method::DELETE, "/v1/clusters/paris", &json!({}));
    let outcomes: Vec<_> = t
        .lines(before)
        .iter()
        .map(|line| (line["verb"].clone(), line["outcome"].clone()))
        .collect();
    let expected = [
        ("cluster.put", "begun"),
        ("cluster.put", "done"),
        ("cluster.remove", "begun"),
        ("cluster.remove", "failed"),
    ];
    assert_eq!(outcomes, expected.map(|(verb, outcome)| (json!(verb), json!(outcome))));
    let line = &t.lines(before)[1];
    assert_eq!(
        (&line["who"]["name"], &line["target"]["other"]),
        (&json!("root"), &json!("cluster berlin"))
    );
}

#[test]
fn nothing_is_done_that_cannot_be_written_down() {
    let t = new_with(1);
    // Every line wants a file of its own, and a folder is in the way of the next one.
    let next = t.dir.path().join("audit").join(format!("{:016x}.jsonl", 2));
    t.ask("nobody", &Method::PUT, "/v1/clusters/first", &json!({}));
    std::fs::create_dir(next).unwrap();
    for _ in 0..2 {
        let (status, error) = t.ask("root", &Method::PUT, "/v1/clusters/berlin", &json!({}));
        assert_eq!(status, 503, "{error}");
    }
    assert_eq!(t.ask("root", &Method::GET, "/v1/clusters", &json!({})).1["items"], json!([]));
    assert_eq!(t.ask("stranger", &Method::GET, "/v1/clusters", &json!({})).0, 503);
}

#[test]
fn a_log_that_lacks_its_last_line_is_refused() {
    let t = new();
    t.done("root", &Method::PUT, "/v1/clusters/berlin", &json!({}));
    let folder = t.dir.path().join("audit");
    // The last head in the store is one that this log has not.
    let store: Arc<dyn Store> = Arc::clone(&t.store);
    let head = json!({ "seq": 99, "hash": "0".repeat(64) }).to_string();
    store.commit(&crate::store::Txn::new().put(anchor_key(&name("c1")), head)).unwrap();
    drop(t.service);
    let log = Log::open(&folder).unwrap();
    let broken = Auditor::new(log, store, name("c1")).unwrap();
    assert!(broken.err().unwrap().to_string().contains("its end is missing"));
}

#[test]
fn a_key_is_retired_by_two_people() {
    let t = new();
    let path = "/v1/keys/kmip/old/retire";
    let (status, waiting) = t.ask("root", &Method::POST, path, &json!({}));
    assert_eq!(status, 202);
    let id = waiting["approval"]["id"].as_str().unwrap().to_owned();
    let allow = format!("/v1/approvals/{id}/allow");
    assert_eq!(t.ask("root", &Method::POST, &allow, &json!({})).0, 409, "not by oneself");
    assert_eq!(t.ask("eve", &Method::POST, &allow, &json!({})).0, 403);
    let repeat = |who: &str, path: &str| {
        let mut again = asked(user(who), &Method::POST, path, &json!({}));
        again.approval = Some(id.clone());
        t.service.answer(&again).status.as_u16()
    };
    assert_eq!(repeat("root", path), 409, "nobody has allowed it");
    t.done("second", &Method::POST, &allow, &json!({}));
    assert_eq!(repeat("root", "/v1/keys/kmip/other/retire"), 409);
    assert_eq!(repeat("root", path), 200);
    assert_eq!(repeat("root", path), 409, "once");
    let key: KeyId = "kmip/old".parse().unwrap();
    let state = t.service.inventory.key(&key).unwrap().unwrap().record.state;
    assert_eq!(state, crate::inventory::KeyState::Retired);
}

#[test]
fn a_host_joins_once_and_renews_by_itself() {
    let t = new();
    t.done("root", &Method::PUT, "/v1/clusters/berlin", &json!({}));
    let invite = |host: &str| {
        let made = t.done(
            "root",
            &Method::POST,
            "/v1/clusters/berlin/join-tokens",
            &json!({ "host": host }),
        );
        made["token"].as_str().unwrap().to_owned()
    };
    let token = invite("h1");
    let (joined, identity) = t.host_pair(&token);
    assert_eq!((&joined["host"], &joined["cluster"]), (&json!("h1"), &json!("berlin")));
    let hosts = t.done("eve", &Method::GET, "/v1/hosts", &json!({}));
    assert_eq!(hosts["items"][0]["record"]["hpke_key"], "ab01");
    // The token is spent.
    let secret = token.parse::<JoinToken>().unwrap().secret().to_owned();
    let body = json!({ "secret": secret, "request": new_request().unwrap().certificate });
    let again = t.service.answer(&asked(Identity::Nobody, &Method::POST, "/v1/join", &body));
    assert_eq!(again.status.as_u16(), 403);
    // Its certificate opens its own routes and no other.
    let call = |identity: &Identity, path: &str, body: &Value| {
        let answer = t.service.answer(&asked(identity.clone(), &Method::POST, path, body));
        (answer.status.as_u16(), answer.body)
    };
    let renew = || json!({ "request": new_request().unwrap().certificate });
    assert_eq!(call(&identity, "/v1/host/publish", &json!({ "hpke_key": "cd" })).0, 200);
    assert_eq!(call(&identity, "/v1/host/publish", &json!({ "hpke_key": "xyz" })).0, 400);
    let get = asked(identity.clone(), &Method::GET, "/v1/hosts", &json!({}));
    assert_eq!(t.service.answer(&get).status.as_u16(), 403);
    // The answer to a renewal may be lost: the old certificate counts for one more.
    assert_eq!(call(&identity, "/v1/host/renew", &renew()).0, 200);
    let (status, renewed) = call(&identity, "/v1/host/renew", &renew());
    assert_eq!(status, 200);
    let newer = host_identity(&renewed);
    assert_eq!(call(&newer, "/v1/host/renew", &renew()).0, 200);
    assert_eq!(call(&identity, "/v1/host/renew", &renew()).0, 403, "two renewals ago");
    // Another host cannot come as this one, and a removed one is nobody.
    let (_, other) = t.host_pair(&invite("h2"));
    t.done("root", &Method::DELETE, "/v1/hosts/h2", &json!({}));
    assert_eq!(call(&other, "/v1/host/renew", &renew()).0, 403);
    let forged = Identity::Certificate {
        sha256: "11".repeat(32),
        uris: vec!["coffer://site/host/h1".into()],
    };
    assert_eq!(call(&forged, "/v1/host/renew", &renew()).0, 403);
    let elsewhere = Identity::Certificate {
        sha256: "11".repeat(32),
        uris: vec!["coffer://other/host/h1".into()],
    };
    assert_eq!(call(&elsewhere, "/v1/host/renew", &renew()).0, 403);
    assert!(
        verify(&t.dir.path().join("audit"), Some(&t.service.audit.head().unwrap()))
            .unwrap()
            .is_ok()
    );
}

#[test]
fn wrong_requests_get_an_api_error() {
    let t = new();
    let cases: [(&Method, &str, Value, u16); 9] = [
        (&Method::GET, "/v1/nothing", json!({}), 404),
        (&Method::GET, "/", json!({}), 404),
        (&Method::GET, "/v1/clusters/", json!({}), 400),
        (&Method::POST, "/v1/clusters", json!({}), 400),
        (&Method::PUT, "/v1/clusters/a%2Fb", json!({}), 400),
        (&Method::PUT, "/v1/clusters/%ff", json!({}), 400),
        (&Method::PUT, "/v1/clusters/a", json!({ "prvoider": "x" }), 400),
        (&Method::PUT, "/v1/clusters/a/vms/b", json!({ "id": 7 }), 400),
        (
            &Method::PUT,
            "/v1/clusters/nope/vms/b",
            json!({ "id": "11111111-2222-4333-8444-555555555555", "key_ids": [] }),
            404,
        ),
    ];
    for (method, path, body, expected) in cases {
        let (status, error) = t.ask("root", method, path, &body);
        assert_eq!(status, expected, "{method} {path}: {error}");
        assert!(error["message"].is_string() && error["remedy"].is_string(), "{error}");
    }
}

#[test]
fn strangers_cannot_fill_the_log() {
    let t = new();
    let before = t.next_line();
    for _ in 0..200 {
        let answer =
            t.service.answer(&asked(Identity::Nobody, &Method::GET, "/v1/hosts", &json!({})));
        assert_eq!(answer.status.as_u16(), 403);
    }
    assert_eq!(t.next_line() - before, 60);
}
