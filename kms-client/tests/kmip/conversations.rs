//! The test cases of the standard, all 410: every message decodes, and encodes to the same bytes.

use crate::xml;
use kms_client::kmip::ttlv::{Item, Writer};

#[test]
fn every_message_of_the_standard_encodes_to_itself() {
    let Some(files) = xml::files() else { return };
    assert!(files.len() >= 400, "only {} files", files.len());
    let mut requests = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (name, bytes) in xml::messages(&text) {
            let item = Item::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let mut again = Writer::default();
            again.copy(&item);
            assert_eq!(again.finish().unwrap()[..], bytes[..], "{}", file.display());
            requests += usize::from(name == "RequestMessage");
        }
    }
    assert!(requests >= 2500, "only {requests} requests");
}
