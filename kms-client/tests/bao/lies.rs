//! A server that lies, stalls, cuts, drips and refuses: each is its own error, which names server, operation and reason, and repeats no key.

use crate::fake::{Act, Fake};
use crate::pki::Authority;
use crate::support::{BUDGETS, arena, id, key, provider, says, settings};
use crypto::{Arena, OpaqueKey, Wrapped};
use kms_client::bao::{BaoProvider, BaoSettings, KeyChoice};
use kms_client::kmip::Budgets;
use kms_client::kmip::tls::{TlsFiles, Trust};
use kms_client::{Custody, KeyProvider, KmsError};
use std::sync::Arc;
use std::time::Duration;

/// A provider of one fake server that has the key `coffer-k`, and a wrap of a key.
struct World {
    authority: Authority,
    fake: Fake,
    provider: BaoProvider,
    arena: Arena,
    data: OpaqueKey,
    wrapped: Wrapped,
}

impl World {
    fn new() -> Self {
        Self::with(BUDGETS)
    }

    fn with(budgets: Budgets) -> Self {
        let authority = Authority::new();
        let fake = Fake::start(&authority);
        fake.state.lock().unwrap().keys.insert("coffer-k".into(), 1);
        let mut settings = settings(&authority, &[fake.port]);
        settings.budgets = budgets;
        let (provider, arena) = (provider(settings), arena());
        let data = key(64, &arena);
        let wrapped = provider.wrap(&id("coffer-k"), &data, "disk", &arena).unwrap();
        Self { authority, fake, provider, arena, data, wrapped }
    }

    /// The error of opening the wrap when the server answers a request with `part` in its path so. Afterwards it opens again.
    fn unwrapping(&self, part: &str, act: Act) -> KmsError {
        self.fake.always(part, act);
        let opened = self.provider.unwrap(&id("coffer-k"), &self.wrapped, "disk", &self.arena);
        let error = opened.map(drop).unwrap_err();
        self.fake.behave();
        says(&error, &[&format!("OpenBao server 127.0.0.1:{}: ", self.fake.port)]);
        self.repeats_no_key(&error);
        self.opens();
        error
    }

    fn wrapping(&self, part: &str, act: Act) -> KmsError {
        self.fake.always(part, act);
        let wrapped = self.provider.wrap(&id("coffer-k"), &self.data, "disk", &self.arena);
        let error = wrapped.unwrap_err();
        self.fake.behave();
        self.repeats_no_key(&error);
        error
    }

    fn opens(&self) {
        let opened = self.provider.unwrap(&id("coffer-k"), &self.wrapped, "disk", &self.arena);
        let value = opened.map(|opened| opened.check_value().unwrap());
        assert_eq!(value.unwrap(), self.data.check_value().unwrap());
    }

    /// The key as base64.
    fn code(&self) -> String {
        let mut code = vec![0; OpaqueKey::base64_len(64)];
        self.data.write_base64(&mut code).unwrap();
        String::from_utf8(code).unwrap()
    }

    fn repeats_no_key(&self, error: &KmsError) {
        let (said, code) = (format!("{error} {error:?}"), self.code());
        for at in 0..code.len() - 12 {
            assert!(!said.contains(&code[at..at + 12]), "{said}");
        }
    }
}

fn plaintext(text: &str) -> Act {
    Act::Say(200, format!("{{\"data\":{{\"plaintext\":{text:?}}}}}"))
}

#[test]
fn it_keeps_its_keys_and_ties_wraps_to_what_they_belong_to() {
    let world = World::new();
    assert_eq!(world.provider.custody(), Custody::Provider);
    let error = world.provider.fetch(&id("coffer-k"), &world.arena).map(drop).unwrap_err();
    says(&error, &["never leaves OpenBao"]);
    let error = world.provider.unwrap(&id("coffer-k"), &world.wrapped, "other", &world.arena);
    let error = error.map(drop).unwrap_err();
    assert!(matches!(error, KmsError::BadKey { .. }), "{error}");
    says(&error, &["decrypt: the wrap does not open by key coffer-k", "belongs to something else"]);
    assert_eq!(world.fake.state.lock().unwrap().logins, 1, "one log-in for all");
}

#[test]
fn answers_in_chunks_and_slow_answers_are_whole_answers() {
    let world = World::new();
    for size in [1, 2, 7, 1000] {
        world.fake.once("decrypt", Act::Chunked(size));
        if size == 1 {
            let opened =
                world.provider.unwrap(&id("coffer-k"), &world.wrapped, "disk", &world.arena);
            let error = opened.map(drop).unwrap_err();
            says(&error, &["it has too many parts"]);
        } else {
            world.opens();
        }
    }
    world.fake.once("decrypt", Act::Drip(Duration::from_millis(1)));
    world.opens();
}

#[test]
fn answers_that_are_no_key_are_refused_and_not_repeated() {
    let world = World::new();
    let code = world.code();
    let zeros = "A".repeat(86) + "==";
    for (act, reason) in [
        (plaintext(&code[4..]), "a key has 64 bytes, not 6"),
        (plaintext(&format!("{code}AAAA")), "a key has 64 bytes, not 6"),
        (plaintext(&format!("-{}", &code[1..])), "not in base64"),
        (plaintext(&zeros), "all zeros"),
        (plaintext(""), "a key has 64 bytes, not 0"),
        (Act::Say(200, format!("{{\"data\":{{\"plaintext\":[{code:?}]}}}}")), "a text is missing"),
        (Act::Say(200, format!("{{\"plaintext\":{code:?}}}")), "an object is missing"),
        (Act::Say(200, format!("{{\"data\":{{\"plaintext\":\"\\u0041{code}\"}}}}")), "has escapes"),
        (
            Act::Say(
                200,
                format!("{{\"data\":{{\"plaintext\":{code:?},\"plaintext\":{code:?}}}}}"),
            ),
            "the same name twice",
        ),
        (Act::Say(200, format!("{{\"data\":{{\"plaintext\":{code:?}}}")), "no comma"),
        (Act::Say(200, format!("{code:?}")), "no object"),
        (Act::Say(200, "[".repeat(4000)), "no object"),
        (Act::Say(200, format!("{{\"data\":{}", "[".repeat(4000))), "nested too deep"),
        (Act::Say(204, String::new()), "no object"),
    ] {
        let error = world.unwrapping("decrypt", act);
        says(&error, &[": decrypt: ", reason]);
    }
    // What it says in words is repeated, but for what could be a key.
    let text = format!("{{\"errors\":[\"cannot open\\n {code} now\"]}}");
    let error = world.unwrapping("decrypt", Act::Say(422, text));
    says(&error, &["refused (status 422): cannot open (...) now"]);
}

#[test]
fn answers_that_are_no_http_are_told() {
    let world = World::new();
    let raw = |text: &str| Act::Raw(text.as_bytes().to_vec());
    for (act, reason) in [
        (raw("220 mail.example ESMTP\r\n\r\n"), "does not begin as an answer in HTTP/1"),
        (raw("HTTP/1.1 200 OK\r\n\r\n{}"), "it has no length"),
        (raw("HTTP/1.1 100 Continue\r\n\r\n"), "none of a final answer"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "its length is no number"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n"), "two lengths"),
        (
            raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "a length and is chunked",
        ),
        (raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), "transfer encoding"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"), "longer than 65536 bytes"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}"), "goes on after its end"),
        (raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), "length of a part"),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n"),
            "another length than it says",
        ),
        (Act::Raw([b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'a'; 70_000]].concat()), "longer than"),
        (Act::Raw(vec![0; 64]), "does not begin as an answer"),
    ] {
        let error = world.unwrapping("decrypt", act);
        says(&error, &[": decrypt: its answer is malformed: ", reason]);
    }
}

#[test]
fn silence_and_ends_are_told_apart() {
    let world = World::with(Budgets { request: Duration::from_secs(2), ..BUDGETS });
    let error = world.unwrapping("decrypt", Act::Silent);
    says(&error, &["decrypt: no whole answer within", "it has sent 0 bytes"]);
    let error = world.unwrapping("decrypt", Act::Drip(Duration::from_millis(100)));
    says(&error, &["decrypt: no whole answer within", "ms; it has sent"]);
    assert!(!error.to_string().contains("sent 0 bytes"), "{error}");
    for act in [Act::Close, Act::HalfClose, Act::Truncate(0)] {
        let error = world.unwrapping("decrypt", act);
        says(&error, &["decrypt: it closed the connection without an answer"]);
    }
    let error = world.unwrapping("decrypt", Act::Truncate(60));
    says(&error, &["closed the connection after 60 bytes of its answer, before the end"]);
}

#[test]
fn refusals_have_their_own_names() {
    let world = World::with(Budgets { operation: Duration::from_secs(4), ..BUDGETS });
    let errors = |text: &str| format!("{{\"errors\":[{text:?}]}}");
    let say = |status, text: &str| Act::Say(status, errors(text));
    let no_leader = "local node not active but active cluster node not found";
    for (act, parts) in [
        (say(503, "OpenBao is sealed"), vec!["it is sealed", "bao operator unseal"]),
        (say(501, ""), vec!["never initialized"]),
        (say(307, ""), vec!["a standby that does not pass requests on (status 307)"]),
        (say(473, ""), vec!["a standby", "status 473"]),
        (say(429, ""), vec!["limits how often"]),
        (say(500, no_leader), vec!["no active node to pass the request on to"]),
        (say(500, "disk full"), vec!["it failed (status 500): disk full"]),
        (say(502, ""), vec!["it failed (status 502)"]),
        (say(404, "no handler for route"), vec!["nothing mounted at transit", "no handler"]),
        (say(400, "invalid ciphertext: version is too new"), vec!["it is behind"]),
        (say(400, "ciphertext version is disallowed by policy (too old)"), vec!["min_decryption"]),
        (say(418, "teapot"), vec!["refused (status 418): teapot"]),
    ] {
        let error = world.unwrapping("decrypt", act);
        says(&error, &[": decrypt: "]);
        says(&error, &parts);
    }
    let error = world.unwrapping("decrypt", say(400, "encryption key not found"));
    assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    says(&error, &["it has no key coffer-k"]);
}

#[test]
fn a_denial_is_asked_for_again_once_with_a_new_token() {
    let world = World::new();
    let logins = || world.fake.state.lock().unwrap().logins;
    // The token is not taken any more.
    let before = logins();
    world.fake.state.lock().unwrap().revoked = before;
    world.opens();
    assert_eq!(logins(), before + 1);
    // The policy does not allow it.
    let denied = || Act::Say(403, "{\"errors\":[\"permission denied\"]}".into());
    let error = world.unwrapping("decrypt", denied());
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    says(
        &error,
        &["decrypt: permission denied (status 403)", "update on transit/decrypt/coffer-k"],
    );
    assert_eq!(logins(), before + 2, "one log-in for the denial");
    // Nor a log-in.
    world.fake.state.lock().unwrap().revoked = logins();
    let error = world.unwrapping("login", Act::Say(400, "{\"errors\":[\"no chain\"]}".into()));
    says(&error, &["log-in by certificate: it gives no token", "no chain", "auth/cert"]);
}

#[test]
fn a_log_in_without_a_token_is_refused() {
    let world = World::new();
    for (auth, reason) in [
        ("null", "an object is missing"),
        ("{\"client_token\":\"\",\"lease_duration\":1}", "its token cannot be one"),
        ("{\"client_token\":\"a b\",\"lease_duration\":1}", "its token cannot be one"),
        ("{\"client_token\":\"a\\r\\nX: y\",\"lease_duration\":1}", "has escapes"),
        ("{\"client_token\":\"a\"}", "a whole number is missing"),
        ("{\"client_token\":\"a\",\"lease_duration\":-1}", "a whole number is missing"),
    ] {
        let logins = world.fake.state.lock().unwrap().logins;
        world.fake.state.lock().unwrap().revoked = logins;
        let error = world.unwrapping("login", Act::Say(200, format!("{{\"auth\":{auth}}}")));
        says(&error, &["log-in by certificate: ", reason]);
    }
}

#[test]
fn what_is_wrapped_is_opened_before_it_is_trusted() {
    let world = World::new();
    let other = key(64, &world.arena);
    let mut code = vec![0; OpaqueKey::base64_len(64)];
    other.write_base64(&mut code).unwrap();
    let error = world.wrapping("decrypt", plaintext(&String::from_utf8(code).unwrap()));
    assert!(matches!(error, KmsError::BadKey { .. }), "{error}");
    says(&error, &["decrypt: what it just encrypted does not decrypt to the same key"]);
    let wrap = |text: &str| Act::Say(200, format!("{{\"data\":{{\"ciphertext\":{text:?}}}}}"));
    let text = String::from_utf8(world.wrapped.blob.clone()).unwrap();
    for bad in ["", "vault:v1:", &text.replace("v1", "v0"), &text[..60], &format!("{text}AAAA")] {
        let error = world.wrapping("encrypt", wrap(bad));
        says(&error, &["encrypt: its answer does not fit: its ciphertext is no wrap"]);
    }
    // An older version than one that was seen: the server is behind.
    world.provider.renew(&id("coffer-k")).unwrap();
    let short = World::with(Budgets { operation: Duration::from_secs(3), ..BUDGETS });
    short.provider.renew(&id("coffer-k")).unwrap();
    let error = short.wrapping("encrypt", wrap(&text));
    says(
        &error,
        &["encrypt: it is behind: it wraps by version 1 of key coffer-k, the newest is 2"],
    );
}

#[test]
fn only_keys_that_cannot_be_mistaken_wrap() {
    let world = World::new();
    let facts = |text: &str| Act::Say(200, format!("{{\"data\":{{{text},\"latest_version\":1}}}}"));
    for (text, reason) in [
        ("\"type\":\"chacha20-poly1305\"", "key coffer-k is of type chacha20-poly1305"),
        ("\"type\":\"rsa-2048\"", "is of type rsa-2048"),
        ("\"type\":\"aes256-gcm96\",\"derived\":true", "from which others are derived"),
    ] {
        let error = world.wrapping("GET /v1/transit/keys", facts(text));
        says(&error, &["reading the key: ", reason, "aes256-gcm96"]);
    }
    let count = world.fake.count("encrypt");
    let error = world.wrapping("GET /v1/transit/keys", Act::Say(404, "{\"errors\":[]}".into()));
    assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    assert_eq!(world.fake.count("encrypt"), count, "nothing was sent for a key that is not there");
    // One that may leave is used, and told.
    let leaves = facts("\"type\":\"aes256-gcm96\",\"exportable\":true");
    world.fake.once("GET /v1/transit/keys", leaves);
    world.provider.wrap(&id("coffer-k"), &world.data, "disk", &world.arena).unwrap();
    let alarms = world.provider.status().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.contains("key coffer-k can be exported")),
        "{alarms:?}"
    );
}

#[test]
fn a_name_from_a_file_cannot_leave_its_path() {
    let world = World::new();
    let asked = world.fake.state.lock().unwrap().asked.len();
    for name in ["..", "a:b", "-a"] {
        let opened = world.provider.unwrap(&id(name), &world.wrapped, "disk", &world.arena);
        let error = opened.map(drop).unwrap_err();
        assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    }
    assert_eq!(world.fake.state.lock().unwrap().asked.len(), asked, "nobody was asked");
}

#[test]
fn a_rotation_in_doubt_is_looked_at_before_it_is_done_again() {
    let world = World::new();
    let second = Fake::start(&world.authority);
    second.state.lock().unwrap().keys.insert("coffer-k".into(), 2);
    let settings = settings(&world.authority, &[world.fake.port, second.port]);
    let provider = provider(settings);
    // It is done, but nobody hears of it; the other server knows the new version.
    world.fake.once("rotate", Act::Close);
    assert!(provider.renew(&id("coffer-k")).unwrap());
    assert_eq!(world.fake.state.lock().unwrap().keys["coffer-k"], 2);
    assert_eq!(second.state.lock().unwrap().keys["coffer-k"], 2, "not rotated once more");
}

#[test]
fn trust_is_checked_in_both_directions() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    theirs.client("old", 2020);
    theirs.server("named", &["bao.example"], 4000);
    theirs.server("server", &["bao.example"], 4000);
    let fake = Fake::start(&theirs);
    let with = |tls: TlsFiles, name: Option<&str>| {
        let mut settings = settings(&theirs, &[fake.port]);
        settings.tls = tls;
        settings.servers[0].tls_name = name.map(ToOwned::to_owned);
        let provider = provider(settings);
        let made = provider.create_key();
        provider.check();
        (made, provider.status().servers.remove(0))
    };
    let good = Some("bao.example");
    let (made, status) = with(theirs.files("client"), good);
    made.unwrap();
    assert_eq!(
        (status.trusted, status.trusts_us, status.key_fetched),
        (Some(true), Some(true), Some(true))
    );
    assert!(status.certificate_days.unwrap() > 300_000 && status.latency_ms.is_some());
    let (made, status) = with(theirs.files("client"), None);
    says(&made.unwrap_err(), &["its certificate is not for 127.0.0.1, but for", "bao.example"]);
    assert_eq!((status.up, status.trusted), (Some(false), Some(false)));
    let (made, status) = with(ours.files("client"), good);
    says(&made.unwrap_err(), &["its certificate is not trusted"]);
    assert_eq!(status.trusted, Some(false));
    let trust = Trust::Authority(theirs.path("ca.pem"));
    let (made, status) = with(TlsFiles { trust, ..ours.files("client") }, good);
    says(&made.unwrap_err(), &["log-in by certificate: it does not take our certificate"]);
    assert_eq!((status.trusted, status.trusts_us), (Some(true), Some(false)));
    let (made, status) = with(theirs.files("old"), good);
    says(&made.unwrap_err(), &["our certificate ran out"]);
    assert_eq!(status.trusts_us, Some(false));
    let pinned = Trust::Pinned(theirs.path("server.pem"));
    with(TlsFiles { trust: pinned, ..theirs.files("client") }, None).0.unwrap();
}

#[test]
fn names_that_cannot_be_used_are_told_at_the_start() {
    let authority = Authority::new();
    let open = |change: &dyn Fn(&mut BaoSettings)| {
        let mut settings = settings(&authority, &[1]);
        change(&mut settings);
        BaoProvider::open(settings, crate::pki::now, &arena()).map(drop)
    };
    open(&|settings| settings.mount = "team/transit".into()).unwrap();
    open(&|settings| settings.namespace = Some("a/b/".into())).unwrap();
    for (change, part) in [
        (&(|s: &mut BaoSettings| s.mount = "../sys".into()) as &dyn Fn(&mut BaoSettings), "mount"),
        (&|s| s.auth_mount = String::new(), "auth_mount"),
        (&|s| s.role = Some("a\r\nb".into()), "role"),
        (&|s| s.keys = KeyChoice::Named("a/b".into()), "the key"),
        (&|s| s.keys = KeyChoice::Each("-".into()), "the prefix"),
        (&|s| s.servers[0].host = "a b".into(), "no name of a machine"),
        (&|s| s.name = "a/b".into(), "cannot have this name"),
    ] {
        says(&open(change).unwrap_err(), &["key provider ", part]);
    }
}

#[test]
fn a_check_tells_what_one_server_lacks() {
    let authority = Authority::new();
    let (one, two) = (Fake::start(&authority), Fake::start(&authority));
    let mut settings = settings(&authority, &[one.port, two.port]);
    settings.budgets.operation = Duration::from_secs(20);
    let provider = provider(settings);
    assert_eq!(provider.status().detail, "its servers were not checked yet");
    // The second one is no part of the first one's cluster: it cannot open the wrap for checks.
    provider.check();
    let status = provider.status();
    assert_eq!(status.servers[0].key_fetched, Some(true), "{:?}", status.servers);
    assert_eq!(status.servers[1].key_fetched, Some(false));
    assert_eq!(status.servers[1].reason, Some("KeyStateMissingInKMS"));
    assert_eq!(status.detail, "1 of 2 servers give keys");
    // Sealed, and without rights.
    one.always("sys/health", Act::Say(503, "{}".into()));
    two.always("decrypt", Act::Say(403, "{\"errors\":[\"permission denied\"]}".into()));
    two.state.lock().unwrap().keys.insert("coffer-check".into(), 1);
    provider.check();
    let status = provider.status();
    assert_eq!(status.servers[0].up, Some(false));
    assert_eq!(status.servers[0].reason, Some("KeyStateClusterUnreachable"));
    assert!(status.servers[0].detail.contains("it is sealed"), "{:?}", status.servers);
    assert_eq!(status.servers[1].reason, Some("NoPermissionToAccessKeyProvider"));
    assert_eq!(status.health, kms_client::Health::Unavailable);
    assert!(status.alarms.iter().any(|alarm| alarm.contains("permission denied")));
}

/// Nothing of this is needed by the others, but the type must be able to hold any function.
#[test]
fn an_answer_can_have_more_than_is_asked_for() {
    let world = World::new();
    let more = Act::Edit(Arc::new(|body: String| {
        body.replacen('{', " {\"warnings\":[\"a\\\"b\\u00e9\"],\"x\":{\"plaintext\":1.5e-3},", 1)
            + "\n"
    }));
    world.fake.once("decrypt", more);
    world.opens();
}
