//! Conversations of the standard in their XML form (KMIP profiles, "KMIP XML encoding"), made into messages.
//!
//! Owns a reader for exactly the XML of those files. Flow: [`messages`] finds elements, keeps the nesting on a stack, and
//! writes each `RequestMessage` and `ResponseMessage` by the encoder under test.

use crate::names::{BITS, TAGS, VALUES};
use kms_client::kmip::ttlv::{Tag, Writer};
use std::path::PathBuf;

/// An element with what is inside.
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
}

/// The XML files, sorted; `None`, with a line that says so, where they are not.
pub(crate) fn files() -> Option<Vec<PathBuf>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let folder =
        std::env::var_os("COFFER_VECTORS").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let folder = folder.join("kmip");
    let Ok(versions) = std::fs::read_dir(&folder) else {
        let text = format!("SKIPPED: no vectors at {} (set COFFER_VECTORS)\n", folder.display());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        return None;
    };
    let folders = versions.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut files: Vec<_> = folders
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|end| end == "xml"))
        .collect();
    files.sort();
    Some(files)
}

/// The messages of a file, in order, as bytes.
pub(crate) fn messages(text: &str) -> Vec<(String, Vec<u8>)> {
    let wanted = |e: &&Element| e.name == "RequestMessage" || e.name == "ResponseMessage";
    let roots = parse(text);
    let all = roots.iter().flat_map(|root| std::iter::once(root).chain(&root.children));
    all.filter(wanted)
        .map(|message| {
            let mut writer = Writer::default();
            message.write(&mut writer);
            (message.name.clone(), writer.finish().unwrap().to_vec())
        })
        .collect()
}

/// The elements of a text. Comments, declarations and text between elements are passed over.
fn parse(text: &str) -> Vec<Element> {
    let mut stack = vec![Element { name: String::new(), attributes: vec![], children: vec![] }];
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let end = if rest.starts_with("<!--") { "-->" } else { ">" };
        let length = rest.find(end).expect("an end") + end.len();
        let (token, after) = rest.split_at(length);
        rest = after;
        if token.starts_with("<!") || token.starts_with("<?") {
            continue;
        }
        let inner = token.trim_start_matches('<').trim_end_matches('>');
        if let Some(name) = inner.strip_prefix('/') {
            let done = stack.pop().unwrap();
            assert_eq!(done.name, name.trim());
            stack.last_mut().unwrap().children.push(done);
            continue;
        }
        let element = open(inner.trim_end_matches('/'));
        if inner.ends_with('/') {
            stack.last_mut().unwrap().children.push(element);
        } else {
            stack.push(element);
        }
    }
    assert_eq!(stack.len(), 1, "all elements are closed");
    stack.pop().unwrap().children
}

fn open(inner: &str) -> Element {
    let (name, mut rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
    let mut attributes = Vec::new();
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"').expect("a closing quote");
        let value = value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        attributes.push((key.trim().to_owned(), value));
        rest = next;
    }
    Element { name: name.trim().to_owned(), attributes, children: vec![] }
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn tag(&self) -> Tag {
        if let Some(number) = self.attribute("tag") {
            return Tag(u32::from_str_radix(number.trim_start_matches("0x"), 16).unwrap());
        }
        let found = TAGS.iter().find(|(name, _)| *name == self.name);
        Tag(found.unwrap_or_else(|| panic!("no tag of {}", self.name)).1)
    }

    fn write(&self, w: &mut Writer) {
        let (tag, value) = (self.tag(), self.attribute("value").unwrap_or_default());
        match self.attribute("type") {
            None | Some("Structure") => {
                w.structure(tag, |w| self.children.iter().for_each(|child| child.write(w)));
            }
            Some("Integer") => w.integer(tag, integer(value)),
            Some("LongInteger") => w.long_integer(tag, value.parse().unwrap()),
            Some("BigInteger") => w.big_integer(tag, &extended(bytes(value))),
            Some("Enumeration") => w.enumeration(tag, self.enumeration(value)),
            Some("Boolean") => w.boolean(tag, value == "true"),
            Some("TextString") => w.text(tag, value),
            Some("ByteString") => w.bytes(tag, &bytes(value)),
            Some("DateTime") => w.date_time(tag, seconds(value)),
            Some("Interval") => w.interval(tag, value.parse().unwrap()),
            Some(other) => panic!("no type {other}"),
        }
    }

    fn enumeration(&self, value: &str) -> u32 {
        if let Some(number) = value.strip_prefix("0x") {
            return u32::from_str_radix(number, 16).unwrap();
        }
        let found = VALUES.iter().find(|(name, word, _)| *name == self.name && *word == value);
        found.unwrap_or_else(|| panic!("no {} {value}", self.name)).2
    }
}

/// Bytes in hex; a placeholder stands for itself.
fn bytes(value: &str) -> Vec<u8> {
    if value.starts_with('$') { value.into() } else { hex::decode(value).unwrap() }
}

/// A number, or the words of a mask.
fn integer(value: &str) -> i32 {
    value.parse().unwrap_or_else(|_| {
        let bit = |word: &str| BITS.iter().find(|(name, _)| *name == word).expect("a bit").1;
        value.split_whitespace().map(bit).fold(0, |mask, bit| mask | bit)
    })
}

/// Brought to a multiple of eight by repeating the sign.
fn extended(mut bytes: Vec<u8>) -> Vec<u8> {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xFF } else { 0 };
    while bytes.is_empty() || !bytes.len().is_multiple_of(8) {
        bytes.insert(0, sign);
    }
    bytes
}

/// Seconds since 1970 of `2012-04-27T08:12:24+00:00`; a placeholder for the present is a fixed time.
fn seconds(text: &str) -> i64 {
    if let Some(shift) = text.strip_prefix("$NOW") {
        return 1_764_000_000 + shift.parse().unwrap_or(0);
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days of the civil calendar, with years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month_days = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + month_days - 719_468;
    days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}

#[test]
fn times_are_seconds() {
    assert_eq!(seconds("1970-01-01T00:00:06+00:00"), 6);
    assert_eq!(seconds("2012-04-27T08:12:24+00:00"), 1_335_514_344);
}
