//! Tests of the configuration: the sample is the truth, and every fault names file, key and remedy.

use super::*;

const STORE: &str = "[[datastore]]\nname = \"local\"\npath = \"/srv/coffer\"\n";

const SERVER: &str = "[[provider.kmip.server]]\nhost = \"kms1\"\n";

const BAO: &str = "[[provider.openbao.server]]\nhost = \"bao1\"\n";

const TLS: &str = "[tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/coffer/test.toml"))
}

/// The sample with all commented defaults switched on.
fn uncommented() -> String {
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_is_valid_and_shows_the_real_defaults() {
    let expected = Config {
        datastore: vec![DatastoreConfig { name: "local".into(), path: "/srv/coffer".into() }],
        ..Config::default()
    };
    assert_eq!(parse(SAMPLE).unwrap(), expected);
    assert_eq!(parse(&uncommented()).unwrap(), expected);
}

#[test]
fn the_sample_names_every_key() {
    let keys = [
        "run_dir",
        "state_dir",
        "vmd",
        "on_stop",
        "mode",
        "group",
        "disk_mode",
        "disk_group",
        "name",
        "path",
        "file",
        "passphrase_file",
        "credential",
        "prompt",
        "key_memory_kib",
        "key_idle_seconds",
        "vms",
        "disk_connections",
        "tls_connections",
        "listen",
        "ports",
        "certificate",
        "key",
        "client_ca",
        "disks",
        "control_connections",
        "polling_threads",
        "default",
        "ca",
        "pinned",
        "version",
        "timeout_seconds",
        "copies",
        "operation_policy",
        "user",
        "password_file",
        "password_credential",
        "check_seconds",
        "allow_compromised",
        "mount",
        "auth_mount",
        "role",
        "namespace",
        "key_prefix",
        "transit_key",
        "host",
        "port",
        "tls_name",
        "enabled",
        "allow_unconfined_vmd",
        "allow_readable_passphrase",
    ];
    for key in keys {
        assert!(SAMPLE.contains(&format!("{key} = ")), "{key} is missing in the sample");
    }
    assert_eq!(uncommented().lines().filter(|l| l.starts_with("prompt")).count(), 1);
}

#[test]
fn examples_of_the_sample_are_valid() {
    for line in SAMPLE.lines().filter_map(|l| l.strip_prefix("# Example: ")) {
        let setting = line.split(" (").next().unwrap();
        let name = setting.split(" = ").next().unwrap();
        let text = match name {
            "vmd" => format!("{setting}\n{STORE}"),
            "polling_threads" => format!("{STORE}[limits]\n{setting}\n"),
            "file" | "credential" | "passphrase_file" => {
                format!("{STORE}[provider.native]\n{setting}\n")
            }
            _ if setting.contains("/cluster/") || name == "listen" => {
                let files = ["listen", "certificate", "key", "ca"].map(|k| match k {
                    "listen" => "listen = \"127.0.0.1:1\"".to_owned(),
                    file => format!("{file} = \"/x/{file}\""),
                });
                let others = files.iter().filter(|l| !l.starts_with(&format!("{name} =")));
                let others: Vec<_> = others.map(String::as_str).collect();
                format!("{STORE}[control]\n{setting}\n{}\n", others.join("\n"))
            }
            "certificate" | "key" | "client_ca" => {
                let files =
                    ["certificate", "key", "client_ca"].map(|k| format!("{k} = \"/x/{k}\""));
                let others: Vec<_> = files.iter().filter(|l| !l.starts_with(name)).collect();
                format!("{STORE}[tls]\n{setting}\n{}\n{}\n", others[0], others[1])
            }
            "user" | "password_file" => {
                let both = "user = \"u\"\npassword_file = \"/p\"\n";
                let other = both.lines().find(|line| !line.starts_with(name)).unwrap();
                format!("{STORE}[provider.kmip]\n{setting}\n{other}\n{SERVER}")
            }
            "password_credential" => {
                format!("{STORE}[provider.kmip]\nuser = \"u\"\n{setting}\n{SERVER}")
            }
            "role" | "namespace" | "transit_key" => {
                format!("{STORE}[provider.openbao]\n{setting}\n{BAO}")
            }
            "ca" | "pinned" | "operation_policy" => {
                format!("{STORE}[provider.kmip]\n{setting}\n{SERVER}")
            }
            "default" => format!("{STORE}[provider]\n{setting}\n"),
            "host" => format!("{STORE}[[provider.kmip.server]]\n{setting}\n"),
            "port" | "tls_name" => {
                format!("{STORE}[[provider.kmip.server]]\nhost = \"a\"\n{setting}\n")
            }
            "name" => format!("{STORE}{TLS}[[tls.client]]\n{setting}\ndisks = []\n"),
            "disks" => format!("{STORE}{TLS}[[tls.client]]\nname = \"a\"\n{setting}\n"),
            // Group names may be absent on the machine of the test; only the key is checked.
            "group" | "disk_group" => format!("{STORE}[socket]\n{name} = 0\n"),
            other => panic!("the sample has an example of {other}, which this test does not know"),
        };
        parse(&text).unwrap();
    }
}

#[test]
fn faults_name_file_key_reason_and_remedy() {
    let cases = [
        ("", "datastore: there is none", "add a [[datastore]]"),
        ("run_dri = \"/x\"\n", "line 1, run_dri: unknown field", "sample-config"),
        ("run_dir = \"run\"\n", "run_dir: run is relative", "whole path"),
        ("on_stop = \"kill\"\n", "line 1, on_stop: unknown variant", "sample-config"),
        ("[socket]\nmode = \"rw\"\n", "line 2, mode: \"rw\" is no file mode", "sample-config"),
        ("[socket]\ngroup = \"no-such\"\n", "socket.group", "make the group"),
        ("[limits]\nvms = 0\n", "limits.vms: the value is out of range", "choose one of"),
        ("[limits]\nkey_memory_kib = 1\n", "limits.key_memory_kib", "choose one of"),
        (
            "[danger_zone]\nallow_unconfined_vmd = true\n",
            "danger_zone.allow_unconfined_vmd",
            "really meant",
        ),
        (
            "[danger_zone]\nallow_readable_passphrase = true\n",
            "danger_zone.allow_readable_passphrase",
            "enabled",
        ),
        (
            "[provider.native]\ncredential = \"../x\"\n",
            "provider.native.credential",
            "LoadCredential",
        ),
        (
            "[provider.native]\ncredential = \"x\"\nprompt = true\n",
            "provider.native: more than one",
            "keep one",
        ),
        ("[tls]\nkey = \"/k\"\n", "tls.certificate: it is not set", "set it"),
        ("[tls]\ncertificate = \"c\"\n", "tls.certificate: c is relative", "whole path"),
        ("[tls]\nports = \"9-5\"\n", "line 2, ports: \"9-5\" is no range", "sample-config"),
        ("[limits]\ntls_connections = 0\n", "limits.tls_connections", "choose one of"),
        ("[provider.vault]\n", "unknown field", "sample-config"),
        (
            "[provider.openbao]\nca = \"/x\"\n",
            "provider.openbao.ca: it is set, but",
            "openbao.server",
        ),
        (
            "[provider.openbao]\nname = \"kmip\"\n[[provider.openbao.server]]\nhost = \"a\"\n\
             [[provider.kmip.server]]\nhost = \"b\"\n",
            "the name of the KMIP",
            "its own name",
        ),
        ("[provider.openbao]\nmounts = \"a\"\n", "unknown field", "sample-config"),
        ("[provider.kmip]\nca = \"/x\"\n", "provider.kmip.ca: it is set, but", "kmip.server"),
        (
            "[provider.kmip]\noperation_policy = \"\"\n[[provider.kmip.server]]\nhost = \"a\"\n",
            "provider.kmip.operation_policy",
            "ask who runs the servers",
        ),
        ("[provider.kmip]\nversion = \"2.0\"\n", "no version of KMIP", "sample-config"),
        ("[provider]\ndefault = \"kmip\"\n", "provider.default: there is no", "name native"),
    ];
    for (text, reason, remedy) in cases {
        let text = if text.is_empty() { String::new() } else { format!("{text}{STORE}") };
        let message = parse(&text).unwrap_err().to_string();
        assert!(message.starts_with("/etc/coffer/test.toml: "), "{message}");
        assert!(message.contains(reason) && message.contains(remedy), "{text} gave {message}");
    }
}

#[test]
fn datastores_must_not_overlap() {
    for (name, path, reason) in [
        ("local", "/other", "used twice"),
        ("b", "/srv/coffer/inner", "inside"),
        ("b", "/srv", "inside"),
        (".b", "/other", "cannot start with"),
        ("b", "other", "relative"),
    ] {
        let text = format!("{STORE}[[datastore]]\nname = {name:?}\npath = {path:?}\n");
        let message = parse(&text).unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn clients_of_a_vm_are_those_with_disks_of_it() {
    let client = |name: &str, disks: &str| {
        format!("{STORE}{TLS}[[tls.client]]\nname = {name:?}\ndisks = [{disks}]\n")
    };
    let text = client("host-2", r#""web01/*", "db/data""#);
    let tls =
        parse(&format!("{text}[[tls.client]]\nname = \"b\"\ndisks = [\"*/root\"]\n")).unwrap().tls;
    let of = |vm: &str| {
        let clients = tls.clients_of(&vm.parse().unwrap());
        clients.iter().map(|c| format!("{}:{}", c.name, c.disks.join(","))).collect::<Vec<_>>()
    };
    assert_eq!(of("web01"), ["host-2:*", "b:root"]);
    assert_eq!(of("db"), ["host-2:data", "b:root"]);
    assert_eq!(of("other"), ["b:root"]);
    for (name, disks) in [("a", "\"web01\""), ("a", "\"-x/y\""), ("", ""), ("a\u{e9}", "")] {
        let message = parse(&client(name, disks)).unwrap_err().to_string();
        assert!(message.contains("disks") || message.contains("certificate"), "{message}");
    }
}

#[test]
fn a_kmip_cluster_is_on_with_a_server_and_the_default_then() {
    let kmip = |more: &str| parse(&format!("{STORE}[provider.kmip]\n{more}\n{SERVER}"));
    assert_eq!(parse(STORE).unwrap().default_provider(), "native");
    let config = kmip("name = \"kms\"\ntimeout_seconds = 2").unwrap();
    assert_eq!(config.default_provider(), "kms");
    let settings = config.provider.kmip.settings(Path::new("/s"), Path::new("/c"));
    assert_eq!(settings.servers[0].port, 5696);
    assert_eq!(settings.tls.key, Path::new("/s/kmip/client.key"));
    assert_eq!(settings.tls.trust.path(), Path::new("/s/kmip/pinned.pem"));
    assert_eq!(settings.budgets.request.as_secs(), 2, "no step is longer than the whole");
    let settings =
        kmip("ca = \"/ca\"").unwrap().provider.kmip.settings(Path::new("/s"), Path::new("/c"));
    assert_eq!(settings.tls.trust, kms_client::kmip::tls::Trust::Authority("/ca".into()));
    let account = |more: &str| {
        let kmip = kmip(&format!("user = \"Fred\"\n{more}")).unwrap().provider.kmip;
        kmip.settings(Path::new("/s"), Path::new("/c")).account.unwrap()
    };
    let by_file = account("password_file = \"/p\"");
    assert_eq!((by_file.user.as_str(), by_file.path()), ("Fred", Path::new("/p")));
    let by_credential = account("password_credential = \"kms\"");
    assert_eq!((by_credential.path(), by_credential.sheltered), (Path::new("/c/kms"), true));
    for (more, reason) in [
        ("ca = \"/a\"\npinned = \"/b\"", "ca is set as well"),
        ("key = \"k\"", "k is relative"),
        ("name = \"native\"", "cannot be the name"),
        ("name = \"a/b\"", "cannot be the name"),
        ("user = \"u\"", "password_file or password_credential"),
        ("password_file = \"/p\"", "without a user"),
        ("user = \"u\"\npassword_file = \"p\"", "p is relative"),
        ("user = \"u\"\npassword_file = \"/p\"\npassword_credential = \"c\"", "one of"),
        ("user = \"u\"\npassword_credential = \"../c\"", "no name of a credential"),
        ("user = \"\"\npassword_file = \"/p\"", "1 to 255 bytes"),
        ("timeout_seconds = 0", "out of range"),
        ("check_seconds = 1", "out of range"),
        ("copies = 0", "1 copy at least"),
    ] {
        let message = kmip(more).unwrap_err().to_string();
        assert!(message.contains("provider.kmip.") && message.contains(reason), "{message}");
    }
}

#[test]
fn openbao_is_on_with_a_server_and_the_default_then() {
    let bao = |more: &str| parse(&format!("{STORE}[provider.openbao]\n{more}\n{BAO}"));
    let config = bao("name = \"vault\"\nkey_prefix = \"h1-\"").unwrap();
    assert_eq!(config.default_provider(), "vault");
    let settings = config.provider.openbao.settings(Path::new("/s"));
    assert_eq!((settings.servers[0].port, settings.mount.as_str()), (8200, "transit"));
    assert_eq!(settings.tls.key, Path::new("/s/openbao/client.key"));
    assert_eq!(settings.keys, kms_client::bao::KeyChoice::Each("h1-".into()));
    let settings = bao("transit_key = \"hosts\"").unwrap().provider.openbao;
    let settings = settings.settings(Path::new("/s"));
    assert_eq!(settings.keys, kms_client::bao::KeyChoice::Named("hosts".into()));
    let both = parse(&format!("{STORE}{SERVER}{BAO}")).unwrap();
    assert_eq!(both.default_provider(), "kmip");
    for (more, reason) in [
        ("ca = \"/a\"\npinned = \"/b\"", "ca is set as well"),
        ("certificate = \"c\"", "c is relative"),
        ("name = \"native\"", "cannot be the name"),
        ("timeout_seconds = 51", "out of range"),
        ("check_seconds = 4", "out of range"),
    ] {
        let message = bao(more).unwrap_err().to_string();
        assert!(message.contains("provider.openbao.") && message.contains(reason), "{message}");
    }
}

#[test]
fn insecure_options_are_warnings() {
    assert!(parse(STORE).unwrap().warnings().is_empty());
    let text = format!("{STORE}[danger_zone]\nenabled = true\nallow_unconfined_vmd = true\n");
    let warnings = parse(&text).unwrap().warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("allow_unconfined_vmd"), "{warnings:?}");
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let message = Config::read(Path::new("/nonexistent/hostd.toml")).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/hostd.toml") && message.contains("sample-config"));
}

#[test]
fn the_manual_page_names_every_key() {
    let page = include_str!("../../../docs/configuration.md");
    let shown = |line: &str| Some(line.strip_prefix('#')?.split_once(" = ")?.0.to_owned());
    let keys = SAMPLE.lines().filter_map(shown).map(|k| k.replace(" Example: ", ""));
    let keys: Vec<_> =
        keys.filter(|k| k.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect();
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("`{key}`")), "docs/configuration.md lacks {key}");
    }
}

#[test]
fn the_control_port_needs_all_its_settings() {
    let files = "certificate = \"/x/c\"\nkey = \"/x/k\"\n";
    let listen = "listen = \"127.0.0.1:10800\"\n";
    let cases = [
        (listen.to_owned(), "control.certificate: it is not set"),
        (format!("{listen}{files}"), "control.ca: it is not set"),
        (format!("{files}ca = \"/x/a\"\n"), "control.listen: it is not set"),
        (format!("{listen}{files}ca = \"a\"\n"), "control.ca: a is relative"),
        ("listen = \"10800\"\n".to_owned(), "listen"),
    ];
    for (text, problem) in cases {
        let error = parse(&format!("{STORE}[control]\n{text}")).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let all = parse(&format!("{STORE}[control]\n{listen}{files}ca = \"/x/a\"\n")).unwrap();
    assert!(all.control.is_on() && all.control.port().is_some());
    assert!(!parse(STORE).unwrap().control.is_on());
}
