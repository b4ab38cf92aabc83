//! Which client may open which disk of the VM.
//!
//! Owns the names in a client's certificate and the list that hostd gave. It must not know TLS sessions. Flow:
//! [`names_of`] takes the names from a verified certificate, [`Access::may_open`] compares.
//!
//! A client is known by its subject alternative names of type DNS and URI (RFC 5280 section 4.2.1.6). The common name is
//! not looked at, as RFC 9525 section 2 has it: it has no type, and what is in it is a matter of taste.

use hostd_api::link::TlsClient;
use rustls::pki_types::CertificateDer;

/// Most names of one certificate that are looked at; a host has a few.
const MAX_NAMES: usize = 64;

/// Stands for every disk in a list of disks.
const ALL: &str = "*";

/// The clients of a VM, each with its disks.
#[derive(Debug, Clone, Default)]
pub struct Access {
    clients: Vec<TlsClient>,
}

impl Access {
    /// Access for these clients and nobody else.
    pub fn new(clients: Vec<TlsClient>) -> Self {
        Self { clients }
    }

    /// Whether a client with these names may open `disk`. Names are compared whole; a wildcard in a certificate is a
    /// name like any other.
    pub fn may_open(&self, names: &[String], disk: &str) -> bool {
        self.clients
            .iter()
            .filter(|client| names.iter().any(|name| is_same(name, &client.name)))
            .any(|client| client.disks.iter().any(|allowed| allowed == ALL || allowed == disk))
    }
}

/// Whether two names are the same. Host names are without regard to case (RFC 5280 section 7.2), URIs are not: the path
/// of one tells clients apart by it (section 7.4; RFC 3986 section 6.2.2.1). A colon is in every URI and in no host name.
fn is_same(name: &str, listed: &str) -> bool {
    if listed.contains(':') { name == listed } else { name.eq_ignore_ascii_case(listed) }
}

/// The names of a certificate that has been verified; none when it cannot be read again.
pub fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let names = parsed.valid_dns_names().chain(parsed.valid_uri_names());
    names.take(MAX_NAMES).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(list: &[(&str, &[&str])]) -> Access {
        let client = |(name, disks): &(&str, &[&str])| TlsClient {
            name: (*name).to_owned(),
            disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
        };
        Access::new(list.iter().map(client).collect())
    }

    #[test]
    fn a_client_opens_its_own_disks_and_no_other() {
        let access = access(&[("host-2", &["root"]), ("backup", &["*"]), ("idle", &[])]);
        let opens = |name: &str, disk| access.may_open(&[name.to_owned()], disk);
        assert!(opens("host-2", "root") && opens("HOST-2", "root"));
        assert!(!opens("host-2", "data") && !opens("host-22", "root") && !opens("host", "root"));
        assert!(opens("backup", "root") && opens("backup", "data"));
        assert!(!opens("idle", "root") && !opens("", "root") && !opens("*", "root"));
        assert!(!access.may_open(&[], "root"));
        assert!(access.may_open(&["x".into(), "backup".into()], "data"));
        assert!(!Access::default().may_open(&["host-2".into()], "root"));
    }

    #[test]
    fn the_case_of_a_uri_tells_clients_apart() {
        let access = access(&[("spiffe://example.org/Host-2", &["root"])]);
        let opens = |name: &str| access.may_open(&[name.to_owned()], "root");
        assert!(opens("spiffe://example.org/Host-2"));
        assert!(!opens("spiffe://example.org/host-2") && !opens("SPIFFE://EXAMPLE.ORG/HOST-2"));
    }
}
