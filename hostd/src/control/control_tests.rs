//! Tests of the control API over a real Unix socket: routes, wrong requests, and the document.

use super::*;
use crate::testing::TestHost;
use hostd_api::client::{Client, ClientError};
use hostd_api::error::{ApiError, LockCode};
use hostd_api::types::{
    CreateVm, DiskInfo, HostStatus, KeyBackup, KeyStatus, RotateReport, VmInfo,
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A host whose API is served until the end of the test.
struct Served {
    client: Client,
    t: TestHost,
    _runtime: tokio::runtime::Runtime,
}

fn served() -> Served {
    served_with(CLIENT_WAIT)
}

/// With another time that clients have.
fn served_with(client_wait: Duration) -> Served {
    let t = TestHost::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gate = runtime.block_on(async { bind(&t.host.config) }).unwrap();
    let routes = router(Arc::clone(&t.host));
    runtime.spawn(serve(gate, routes, client_wait, std::future::pending::<()>()));
    let client = Client::new(&t.host.config.control_socket());
    Served { client, t, _runtime: runtime }
}

fn api(outcome: Result<IgnoredAny, ClientError>) -> (u16, ApiError) {
    match outcome {
        Err(ClientError::Api { status, error }) => (status, *error),
        other => panic!("{other:?} is no error of the API"),
    }
}

/// Sends text as it is and returns the whole answer.
fn raw(s: &Served, text: &str) -> String {
    let mut stream = UnixStream::connect(s.client.socket()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_vm_lives_through_the_api() {
    let s = served();
    let c = &s.client;
    let vm: VmInfo = c.post("/v1/vms", &json!({"name": "web01"})).unwrap();
    let disk: DiskInfo =
        c.post("/v1/vms/web01/disks", &json!({"name": "root", "size": 4096})).unwrap();
    assert_eq!(c.get::<VmInfo>("/v1/vms/web01").unwrap().disks[0].id, disk.id);
    assert_eq!(c.get::<Vec<DiskInfo>>("/v1/vms/web01/disks").unwrap().len(), 1);
    assert_eq!(c.get::<DiskInfo>("/v1/vms/web01/disks/root").unwrap().size, 4096);
    let larger: DiskInfo =
        c.post("/v1/vms/web01/disks/root/resize", &json!({"size": 8192})).unwrap();
    assert_eq!(larger.size, 8192);
    let report: RotateReport = c.post("/v1/keys/rotate", &json!({})).unwrap();
    assert_eq!((report.vms.len(), report.vms[0].rewrapped), (1, 2));
    c.delete::<DiskInfo>("/v1/vms/web01/disks/root").unwrap();
    c.post::<_, VmInfo>("/v1/vms/web01/lock", &json!({"force": true})).unwrap();
    let (status, error) = api(c.post("/v1/vms/web01/mount", &json!({})));
    assert_eq!((status, error.lock.unwrap().code), (423, LockCode::LockedByOperator));
    c.post::<_, VmInfo>("/v1/vms/web01/unlock", &json!({})).unwrap();
    assert_eq!(c.get::<Vec<VmInfo>>("/v1/vms").unwrap()[0].id, vm.id);
    c.delete::<VmInfo>("/v1/vms/web01").unwrap();
    let status: HostStatus = c.get("/v1/host").unwrap();
    assert_eq!((status.vms, status.running), (0, 0));
    assert!(status.warnings.iter().any(|w| w.contains("demo mode")), "{:?}", status.warnings);
}

#[test]
fn a_backup_is_confirmed_by_its_digest() {
    let s = served();
    let backup: KeyBackup = s.client.get("/v1/keys/backup").unwrap();
    let confirm =
        |digest: &str| s.client.post("/v1/keys/backup/confirm", &json!({"sha256": digest}));
    assert_eq!(api(confirm("zz")).0, 400);
    assert_eq!(api(confirm(&"0".repeat(64))).0, 409);
    s.client
        .post::<_, KeyStatus>("/v1/keys/backup/confirm", &json!({"sha256": backup.sha256}))
        .unwrap();
    let status: KeyStatus = s.client.get("/v1/keys").unwrap();
    assert!(status.providers[0].backed_up_at.is_some());
}

#[test]
fn wrong_requests_get_an_api_error() {
    let s = served();
    let cases: [(&str, Value, u16); 9] = [
        ("/v1/vms", json!({}), 400),
        ("/v1/vms", json!({"name": 7}), 400),
        ("/v1/vms", json!({"name": "a", "nmae": "b"}), 400),
        ("/v1/vms", json!([]), 400),
        ("/v1/vms", json!({"name": "../etc"}), 400),
        ("/v1/vms/register", json!({"path": "/etc"}), 400),
        ("/v1/vms/nope/mount", json!({}), 404),
        ("/v1/vms/..%2F..%2Fetc/mount", json!({}), 400),
        ("/v1/nothing", json!({}), 404),
    ];
    for (path, body, expected) in cases {
        let (status, error) = api(s.client.post(path, &body));
        assert_eq!(status, expected, "{path} {body}: {error:?}");
        assert!(!error.message.is_empty() && !error.remedy.is_empty());
    }
    assert_eq!(api(s.client.delete("/v1/host")).0, 400);
    assert_eq!(api(s.client.get("/v1/vms/%ff")).0, 400);
}

#[test]
fn wrong_http_does_not_hurt() {
    let s = served();
    let post = |body: &str| {
        let length = body.len();
        raw(
            &s,
            &format!(
                "POST /v1/vms HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        )
    };
    for body in ["{", "\u{0}", "{\"name\":\"a\"} x", &"[".repeat(10_000)] {
        let answer = post(body);
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("invalid-argument"),
            "{answer}"
        );
    }
    let large = post(&" ".repeat(MAX_BODY + 1));
    assert!(large.starts_with("HTTP/1.1 400") && large.contains("limit"), "{large}");
    assert!(raw(&s, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(s.client.get::<HostStatus>("/v1/host").unwrap().vms, 0, "it still answers");
}

#[test]
fn a_body_that_comes_late_is_read_before_the_answer() {
    let s = served();
    for path in ["/v1/vms/nope/unlock", "/v1/nothing"] {
        let mut stream = UnixStream::connect(s.client.socket()).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        stream.write_all(b"{}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[test]
fn a_second_socket_is_refused_and_a_stale_one_replaced() {
    let s = served();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let again = runtime.block_on(async { bind(&s.t.host.config) }).err().unwrap();
    assert!(again.to_string().contains("another hostd"), "{again}");
    let t = TestHost::new();
    drop(std::os::unix::net::UnixListener::bind(t.host.config.control_socket()).unwrap());
    runtime.block_on(async { bind(&t.host.config) }).unwrap();
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(&document().unwrap()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let source = concat!(
        include_str!("routes.rs"),
        include_str!("kmip.rs"),
        include_str!("plane.rs"),
        include_str!("tpm.rs")
    );
    let routed: std::collections::BTreeSet<_> = source
        .lines()
        .filter_map(|l| l.trim().strip_prefix(".route(\"")?.split('"').next())
        .collect();
    let described = document["paths"].as_object().unwrap();
    assert_eq!(
        described.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
        routed
    );
    for (path, verbs) in described {
        for (verb, operation) in verbs.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{verb} {path} has no summary");
        }
    }
    assert!(document["components"]["schemas"]["ApiError"].is_object());
    let _shape: CreateVm = serde_json::from_value(json!({"name": "a"})).unwrap();
}

/// As many as there are places, some with the beginning of a request: each is cut, and the next client gets in.
#[test]
fn silent_connections_give_their_places_up() {
    let s = served_with(Duration::from_millis(300));
    let places = s.t.host.config.limits.control_connections;
    let silent: Vec<UnixStream> = (0..places + 3)
        .map(|number| {
            let mut stream = UnixStream::connect(s.client.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            if number % 2 == 1 {
                stream.write_all(b"GET /v1/host HTTP/1.1\r\nHost: h\r\n").unwrap();
            }
            stream
        })
        .collect();
    let status: HostStatus = s.client.get("/v1/host").unwrap();
    assert_eq!(status.vms, 0);
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    // A client that keeps its connection is cut as well once it is silent, and not before.
    let mut kept = UnixStream::connect(s.client.socket()).unwrap();
    for _ in 0..2 {
        kept.write_all(b"GET /v1/host HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(kept.read(&mut [0; 65536]).unwrap() > 0);
    }
    kept.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).unwrap();
}

/// As many as there are places, each with more requests than the socket holds answers: each is cut.
#[test]
fn clients_that_read_no_answer_give_their_places_up() {
    let s = served_with(Duration::from_millis(300));
    let request = "GET /v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    let deaf: Vec<UnixStream> = (0..s.t.host.config.limits.control_connections)
        .map(|_| {
            let mut stream = UnixStream::connect(s.client.socket()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut next = UnixStream::connect(s.client.socket()).unwrap();
    next.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    next.write_all(b"GET /v1/host HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut start = [0; 12];
    next.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    drop(deaf);
}
