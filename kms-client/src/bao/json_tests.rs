//! Tests of the walk over JSON: it takes what the standard's parser takes, and gives the same fields.

use super::*;
use proptest::prelude::*;

fn of(text: &str) -> Result<Object<'_>, JsonFault> {
    Object::of(text.as_bytes())
}

#[test]
fn fields_are_found_where_they_stand() {
    let text = r#" { "data" : {"plaintext":"QUJD","n":12,"off":false,"on":true,"none":null,
        "deep":[[{"plaintext":"no"}]],"e":"a\"b"}, "plaintext": 1 } "#;
    let whole = of(text).unwrap();
    let data = whole.object("data").unwrap();
    assert_eq!(data.text("plaintext").unwrap(), b"QUJD");
    assert_eq!(data.number("n").unwrap(), 12);
    assert!(data.flag("on").unwrap() && !data.flag("off").unwrap() && !data.flag("x").unwrap());
    assert_eq!(data.field("none").unwrap(), None);
    assert_eq!(data.text("e").unwrap_err().what, "a text has escapes");
    assert_eq!(data.text("n").unwrap_err().what, "a text is missing");
    assert_eq!(data.text("deep").unwrap_err().what, "a text is missing");
    assert_eq!(data.number("plaintext").unwrap_err().what, "a whole number is missing");
    assert_eq!(whole.object("plaintext").unwrap_err().what, "an object is missing");
    assert_eq!(whole.object("plaintext").unwrap_err().at, 1);
    assert_eq!(data.flag("n").unwrap_err().what, "true or false is missing");
    assert_eq!(data.flag("n").unwrap_err().at, text.find("{\"plain").unwrap());
    for number in ["-1", "1.0", "1e3", "18446744073709551616"] {
        let text = format!("{{\"n\":{number}}}");
        assert!(of(&text).unwrap().number("n").is_err(), "{number}");
    }
}

#[test]
fn a_name_that_is_there_twice_is_no_field() {
    let whole = of(r#"{"a":1,"b":{"a":2},"a":3,"c":4}"#).unwrap();
    let fault = whole.field("a").unwrap_err();
    assert_eq!((fault.what, fault.at), ("the same name twice", 19));
    assert_eq!(whole.number("c").unwrap(), 4);
    assert_eq!(whole.object("b").unwrap().number("a").unwrap(), 2);
}

#[test]
fn what_is_no_json_is_refused_and_not_repeated() {
    for text in [
        "",
        "[]",
        "1",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}x",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":tru}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{a:1}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":\"\\u1",
    ] {
        let fault = of(text).unwrap_err();
        assert!(fault.at <= text.len(), "{text}: {fault}");
    }
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(of(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(of(&deep(MAX_DEPTH + 1)).unwrap_err().what, "nested too deep");
    let secret = of(r#"{"plaintext":"SECRET"}"#).unwrap();
    assert!(!format!("{:?}", secret.field("plaintext").unwrap()).contains("SECRET"));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        // Eighths, which every parser reads to the last bit.
        any::<i32>().prop_map(|number| (f64::from(number) / 8.0).into()),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-c\"]{0,2}", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn it_takes_what_the_other_parser_writes(value in json(), pretty in any::<bool>()) {
        let whole = serde_json::json!({ "x": value });
        let text = if pretty { serde_json::to_string_pretty(&whole) } else { serde_json::to_string(&whole) };
        let text = text.unwrap();
        let found = of(&text).unwrap().field("x").unwrap();
        match (&value, found) {
            (serde_json::Value::Null, found) => prop_assert_eq!(found, None),
            (serde_json::Value::Bool(flag), Some(found)) => prop_assert!(found == Value::Bool(*flag)),
            (serde_json::Value::String(text), Some(Value::Text(found))) => {
                let quoted = [b"\"", found, b"\""].concat();
                prop_assert_eq!(&serde_json::from_slice::<String>(&quoted).unwrap(), text);
            }
            (serde_json::Value::Object(_), Some(Value::Object(found))) => {
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(found.text).unwrap(), &value);
            }
            (serde_json::Value::Array(_), Some(Value::List(found))) => {
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(found).unwrap(), &value);
            }
            (serde_json::Value::Number(_), Some(Value::Number(found))) => {
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(found).unwrap(), &value);
            }
            (_, found) => prop_assert!(false, "{:?}", found),
        }
    }

    /// Whatever one takes the other takes as well, but for the limits of both and for surrogates alone, which are of no use here.
    #[test]
    fn it_takes_nothing_that_the_other_parser_refuses(text in r#"[\{\}\[\]":,0-9eE+\-. truefalsn\\ux]{0,24}"#) {
        let text = format!("{{\"a\":{text}}}");
        let other = serde_json::from_str::<serde_json::Value>(&text);
        let range = other.as_ref().is_err_and(|e| e.to_string().contains("number out of range"));
        if !text.contains("\\u") && !range {
            prop_assert_eq!(of(&text).is_ok(), other.is_ok(), "{}", text);
        }
    }
}
