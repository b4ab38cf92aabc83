//! Fields of a JSON text (RFC 8259), where it stands.
//!
//! Owns a walk over the bytes, pure and bounded, that copies nothing and says nothing of the content in its errors: one of the texts
//! may be a key. It must not know what the fields mean. Flow: [`Object::of`] walks over the whole text once, so that it is well-formed;
//! [`Object::field`] goes over the members again and gives the value of one name, which must not be there twice.

/// Deepest nesting: answers of OpenBao have four levels.
const MAX_DEPTH: usize = 16;

/// What is no JSON, or not of the form that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at} of its JSON")]
pub struct JsonFault {
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

/// A well-formed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<'a> {
    text: &'a [u8],
    /// Where it begins in the whole text, for errors.
    at: usize,
}

/// A value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string: what stands between its quotes, with its escapes.
    Text(&'a [u8]),
    /// A number as it is written.
    Number(&'a [u8]),
    /// True or false.
    Bool(bool),
    /// Null.
    Null,
    /// An object.
    Object(Object<'a>),
    /// A list: the whole text of it.
    List(&'a [u8]),
}

impl<'a> Object<'a> {
    /// The object that a text is, with nothing but white space around it.
    ///
    /// # Errors
    /// [`JsonFault`] at the first byte that breaks the rules.
    pub fn of(text: &'a [u8]) -> Result<Self, JsonFault> {
        let mut walk = Walk { text, at: 0 };
        walk.space();
        let start = walk.at;
        if walk.peek() != Some(b'{') {
            return Err(walk.fault("no object"));
        }
        walk.value(0)?;
        let end = walk.at;
        walk.space();
        if walk.at != text.len() {
            return Err(walk.fault("something after the object"));
        }
        Ok(Self { text: text.get(start..end).unwrap_or_default(), at: start })
    }

    /// The value of a name; `None` when there is none, or null.
    ///
    /// # Errors
    /// [`JsonFault`] when the name is there twice.
    pub fn field(&self, name: &str) -> Result<Option<Value<'a>>, JsonFault> {
        let mut found = None;
        // The text is well-formed, so that the walk only repeats what it has done.
        let mut walk = Walk { text: self.text, at: 1 };
        loop {
            walk.space();
            if walk.peek() != Some(b'"') {
                break;
            }
            let at = walk.at;
            let is_it = walk.string()? == name.as_bytes();
            walk.space();
            walk.at += 1;
            walk.space();
            let start = walk.at;
            let value = walk.value(1)?;
            if is_it && found.replace(self.placed(value, start)).is_some() {
                return Err(JsonFault { what: "the same name twice", at: self.at + at });
            }
            walk.space();
            if walk.peek() != Some(b',') {
                break;
            }
            walk.at += 1;
        }
        Ok(found.filter(|value| *value != Value::Null))
    }

    /// The object of a name.
    ///
    /// # Errors
    /// [`JsonFault`] when there is none.
    pub fn object(&self, name: &str) -> Result<Self, JsonFault> {
        match self.field(name)? {
            Some(Value::Object(object)) => Ok(object),
            _ => Err(self.missing("an object is missing")),
        }
    }

    /// The text of a name, which has no escapes.
    ///
    /// # Errors
    /// [`JsonFault`] when there is none, or it has escapes.
    pub fn text(&self, name: &str) -> Result<&'a [u8], JsonFault> {
        match self.field(name)? {
            Some(Value::Text(text)) if !text.contains(&b'\\') => Ok(text),
            Some(Value::Text(_)) => Err(self.missing("a text has escapes")),
            _ => Err(self.missing("a text is missing")),
        }
    }

    /// The number of a name, which is a whole one and not negative.
    ///
    /// # Errors
    /// [`JsonFault`] when there is none.
    pub fn number(&self, name: &str) -> Result<u64, JsonFault> {
        let number = match self.field(name)? {
            Some(Value::Number(text)) => {
                std::str::from_utf8(text).ok().and_then(|t| t.parse().ok())
            }
            _ => None,
        };
        number.ok_or_else(|| self.missing("a whole number is missing"))
    }

    /// Whether a name is true; false when there is none.
    ///
    /// # Errors
    /// [`JsonFault`] when it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, JsonFault> {
        match self.field(name)? {
            Some(Value::Bool(flag)) => Ok(flag),
            None => Ok(false),
            Some(_) => Err(self.missing("true or false is missing")),
        }
    }

    fn placed(&self, value: Value<'a>, start: usize) -> Value<'a> {
        match value {
            Value::Object(object) => Value::Object(Self { at: self.at + start, ..object }),
            other => other,
        }
    }

    fn missing(&self, what: &'static str) -> JsonFault {
        JsonFault { what, at: self.at }
    }
}

/// The kind of a value, and never its content.
impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Number(_) => "Number",
            Self::Bool(_) => "Bool",
            Self::Null => "Null",
            Self::Object(_) => "Object",
            Self::List(_) => "List",
        })
    }
}

/// A place in a text.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn fault(&self, what: &'static str) -> JsonFault {
        JsonFault { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Passes over one byte, which must be this.
    fn byte(&mut self, byte: u8, what: &'static str) -> Result<(), JsonFault> {
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over a value.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, JsonFault> {
        if depth > MAX_DEPTH {
            return Err(self.fault("nested too deep"));
        }
        match self.peek() {
            Some(b'{') => self.members(depth),
            Some(b'[') => self.items(depth),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.digits(),
            _ => self.word(),
        }
    }

    fn members(&mut self, depth: usize) -> Result<Value<'a>, JsonFault> {
        let start = self.at;
        self.at += 1;
        self.space();
        let mut first = true;
        while self.peek() != Some(b'}') {
            if !std::mem::take(&mut first) {
                self.byte(b',', "no comma")?;
                self.space();
            }
            self.string()?;
            self.space();
            self.byte(b':', "no colon")?;
            self.space();
            self.value(depth + 1)?;
            self.space();
        }
        self.at += 1;
        Ok(Value::Object(Object { text: self.since(start), at: start }))
    }

    fn items(&mut self, depth: usize) -> Result<Value<'a>, JsonFault> {
        let start = self.at;
        self.at += 1;
        self.space();
        let mut first = true;
        while self.peek() != Some(b']') {
            if !std::mem::take(&mut first) {
                self.byte(b',', "no comma")?;
                self.space();
            }
            self.value(depth + 1)?;
            self.space();
        }
        self.at += 1;
        Ok(Value::List(self.since(start)))
    }

    /// What is between the quotes.
    fn string(&mut self) -> Result<&'a [u8], JsonFault> {
        self.byte(b'"', "no quote")?;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        Some(b'u') if self.has_hex() => self.at += 4,
                        _ => return Err(self.fault("an escape that does not exist")),
                    }
                }
                Some(0..=0x1F) => return Err(self.fault("a control character")),
                Some(_) => {}
                None => return Err(self.fault("a text without an end")),
            }
            self.at += 1;
        }
        let text = self.since(start);
        self.at += 1;
        Ok(text)
    }

    fn has_hex(&self) -> bool {
        let digits = self.text.get(self.at + 1..self.at + 5);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    }

    fn digits(&mut self) -> Result<Value<'a>, JsonFault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let whole = self.run()?;
        if zero && whole > 1 {
            return Err(self.fault("a number that begins with zero"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.run()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.run()?;
        }
        Ok(Value::Number(self.since(start)))
    }

    /// Passes over digits, of which there is one at least; their number.
    fn run(&mut self) -> Result<usize, JsonFault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("no digit")) } else { Ok(self.at - start) }
    }

    fn word(&mut self) -> Result<Value<'a>, JsonFault> {
        let words =
            [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)];
        let rest = self.text.get(self.at..).unwrap_or_default();
        for (word, value) in words {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.fault("no value"))
    }

    fn since(&self, start: usize) -> &'a [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
