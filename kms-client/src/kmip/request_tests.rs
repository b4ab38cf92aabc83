//! Requests are, byte for byte, what another encoder makes of the same facts.

use super::*;

/// Line of the golden file with this name.
fn golden(name: &str) -> Vec<u8> {
    let text = include_str!("../../tests/golden/kmip/requests.txt");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    hex::decode(line.expect("the line")).unwrap()
}

/// An id as vCenter makes them.
fn id(count: u32) -> Vec<u8> {
    [&b"QLKC"[..], &count.to_le_bytes()].concat()
}

fn made(version: Version, calls: &[(Call<'_>, Option<&[u8]>)]) -> Vec<u8> {
    encode(version, calls).unwrap().to_vec()
}

#[test]
fn requests_of_vcenter() {
    let vendor = ["x-Product_Version"];
    let name = [Attribute::SYMMETRIC_KEY, Attribute::name("coffer-1")];
    let reason = Revocation::CessationOfOperation;
    let calls = [
        ("query_server_information", 2, Call::Query(&[QueryFunction::ServerInformation])),
        ("create", 3, Call::Create(&[])),
        ("get", 4, Call::Get("1")),
        ("get_attributes_state", 5, Call::GetAttributes("1", &["State"])),
        ("get_attributes_vendor", 6, Call::GetAttributes("1", &vendor)),
        ("activate", 7, Call::Activate("1")),
        ("revoke", 8, Call::Revoke("1", reason, "no VM refers to it")),
        ("locate", 9, Call::Locate(&name, 16)),
    ];
    for (name, count, call) in calls {
        assert_eq!(made(Version::V1_1, &[(call, Some(&id(count)))]), golden(name), "{name}");
    }
    let discover = (Call::DiscoverVersions(&[]), None);
    assert_eq!(made(Version::V1_1, &[discover]), golden("discover_all"));
    assert_eq!(made(Version::V1_0, &[(Call::Destroy("1"), None)]), golden("destroy_10"));
}

#[test]
fn a_user_and_a_password_stand_in_the_header() {
    let credential = Credential::new("Fred", "password1");
    let id = id(13);
    let calls = [(Call::Get("1"), Some(id.as_slice()))];
    let message = encode_as(Version::V1_1, Some(&credential), &calls).unwrap();
    assert_eq!(message.to_vec(), golden("get_as_fred"));
}

#[test]
fn three_tags_in_one_message() {
    let tags = [
        Attribute::text("x-Product_Version", "7.0.3 build-19480866"),
        Attribute::text("x-Vendor", "VMware, Inc."),
        Attribute::text("x-Product", "VMware vSphere"),
    ];
    let ids = [id(10), id(11), id(12)];
    let calls: Vec<_> = tags
        .into_iter()
        .zip(&ids)
        .map(|(tag, id)| (Call::AddAttribute("1", tag), Some(id.as_slice())))
        .collect();
    assert_eq!(made(Version::V1_1, &calls), golden("add_attributes"));
}

#[test]
fn a_registered_key_is_in_the_message_once() {
    let arena = crypto::Arena::new(64 * 1024).unwrap();
    let key = Kek::from_wire(&arena, &[7; 32]).unwrap();
    let message = made(Version::V1_1, &[(Call::Register(&key, &[]), None)]);
    assert_eq!(message.windows(32).filter(|part| *part == [7; 32]).count(), 1);
}
