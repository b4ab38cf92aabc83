//! Key files of every version that was ever released still open, and give the keys that they gave.
//!
//! A golden file is never made again: a new version of the format gets a new file beside the old ones.

use crypto::{Arena, KeyId, Passphrase};
use kms_client::native::NativeProvider;
use kms_client::{Health, KeyProvider};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

const PASSPHRASE: &[u8] = b"golden key file of version 1";

/// Uids and the check values of their KEKs. The last uid is not recorded in the file.
const KEYS: [(&str, &str); 3] = [
    ("native/0bff9539-6256-42d2-a215-3868128499b8", "bed65f5ece0dcdbe"),
    ("native/cd6e69f2-dc6d-4f17-a5c0-8e15090c0c0a", "95f6b264fe00b9be"),
    ("native/6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "661ae7d66df8cdb0"),
];

#[test]
fn version_1_opens_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("native.keys");
    let golden = include_bytes!("golden/keys-v1.keys");
    fs::write(&path, golden).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let arena = Arena::new(64 << 10).unwrap();
    let passphrase = Passphrase::read(&arena, PASSPHRASE).unwrap();
    let provider = NativeProvider::open(&path, &passphrase, "native", false, || 2, &arena).unwrap();

    for (id, check) in KEYS {
        let kek = provider.fetch(&id.parse().unwrap(), &arena).unwrap();
        assert_eq!(kek.check_value().to_string(), check, "{id}");
    }
    let listed: Vec<KeyId> = provider.keys().unwrap().into_iter().map(|key| key.id).collect();
    assert_eq!(listed, [KEYS[0].0.parse().unwrap(), KEYS[1].0.parse().unwrap()]);
    let status = provider.status();
    assert_eq!((status.health, status.backed_up_at), (Health::Ready, Some(1_764_037_700)));
    assert_eq!(provider.backup().as_bytes(), golden);

    provider.create_key().unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\"sequence\":5,"));
}
