//! Tests of key ids.

use super::{KeyId, KeyIdError};

#[test]
fn round_trips_as_text_and_as_json() {
    let id: KeyId = "main-kms/1f.3:a_b-C".parse().unwrap();
    assert_eq!((id.provider(), id.uid()), ("main-kms", "1f.3:a_b-C"));
    assert_eq!(id, KeyId::new("main-kms", "1f.3:a_b-C").unwrap());
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(json, "\"main-kms/1f.3:a_b-C\"");
    assert_eq!(serde_json::from_str::<KeyId>(&json).unwrap(), id);
}

#[test]
fn takes_the_longest_parts_and_no_longer() {
    let (provider, uid) = ("p".repeat(64), "u".repeat(128));
    assert!(KeyId::new(&provider, &uid).is_ok());
    assert!(matches!(KeyId::new(&format!("{provider}p"), &uid), Err(KeyIdError::Provider(_))));
    assert!(matches!(KeyId::new(&provider, &format!("{uid}u")), Err(KeyIdError::Uid(_))));
}

#[test]
fn refuses_everything_else() {
    assert!(matches!("noslash".parse::<KeyId>(), Err(KeyIdError::NoSlash(_))));
    for text in ["/u", "a:b/u", "a b/u", "\u{e4}/u", "a\n/u"] {
        assert!(matches!(text.parse::<KeyId>(), Err(KeyIdError::Provider(_))), "{text}");
    }
    for text in ["p/", "p/a/b", "p/a b", "p/\0", "p/\u{e4}"] {
        assert!(matches!(text.parse::<KeyId>(), Err(KeyIdError::Uid(_))), "{text}");
    }
    assert!(serde_json::from_str::<KeyId>("\"x\"").is_err());
}
