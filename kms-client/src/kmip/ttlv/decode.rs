//! Reading a message: one pass that checks everything, then views into the bytes.
//!
//! Owns the checks and the views. It must not copy a value. Flow: [`Item::parse`] runs [`check`] over all of the bytes, with
//! the ends of the open structures in an array, so no input can make it recurse or allocate; [`Item`]s and
//! [`Children`] are then plain arithmetic on bytes that are known to be right.

use super::{HEADER, Kind, MAX_DEPTH, MAX_ITEMS, MAX_MESSAGE, Reason, Tag, TtlvError, padded};

/// One item of a checked message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    tag: Tag,
    kind: Kind,
    offset: usize,
    value: &'a [u8],
}

/// The items inside a structure.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// A value, borrowed from the message.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum Value<'a> {
    Structure(()),
    Integer(i32),
    LongInteger(i64),
    BigInteger(&'a [u8]),
    Enumeration(u32),
    Boolean(bool),
    TextString(&'a str),
    ByteString(&'a [u8]),
    DateTime(i64),
    Interval(u32),
}

/// Bytes of the whole message that begins with `header`, judged before any of it is read: it must be a structure with the
/// tag `wanted`, of whole eights, and not larger than [`MAX_MESSAGE`].
///
/// # Errors
/// [`TtlvError`] for a header that begins no such message.
pub fn frame_length(header: &[u8; HEADER], wanted: Tag) -> Result<usize, TtlvError> {
    let head = Head::read(header);
    let fault = |reason| Err(TtlvError { tag: head.tag, offset: 0, reason });
    if head.tag != wanted {
        return fault(Reason::WrongTag { wanted });
    }
    match Kind::of(head.kind) {
        Some(Kind::Structure) => {}
        Some(found) => return fault(Reason::WrongKind { wanted: Kind::Structure, found }),
        None => return fault(Reason::UnknownType(head.kind)),
    }
    if head.length > MAX_MESSAGE - HEADER {
        let length = head.length.saturating_add(HEADER);
        return fault(Reason::Large { length, limit: MAX_MESSAGE });
    }
    if !head.length.is_multiple_of(8) {
        return fault(Reason::WrongLength { kind: Kind::Structure, length: head.length });
    }
    Ok(head.length + HEADER)
}

impl<'a> Item<'a> {
    /// The one item that all of `message` is, with everything inside it checked.
    ///
    /// # Errors
    /// [`TtlvError`] names the first item that breaks the encoding or a limit.
    pub fn parse(message: &'a [u8]) -> Result<Self, TtlvError> {
        check(message)?;
        let mut items = Children { bytes: message, offset: 0 };
        items.next().ok_or(TtlvError {
            tag: Tag::NONE,
            offset: 0,
            reason: Reason::CutHeader { left: message.len() },
        })
    }

    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it begins in the message.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The items inside, in order; none for anything but a structure.
    #[must_use]
    pub fn children(&self) -> Children<'a> {
        let bytes = if self.kind == Kind::Structure { self.value } else { &[] };
        Children { bytes, offset: self.offset + HEADER }
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> Value<'a> {
        match self.kind {
            Kind::Structure => Value::Structure(()),
            Kind::Integer => Value::Integer(i32::from_be_bytes(fixed(self.value))),
            Kind::LongInteger => Value::LongInteger(i64::from_be_bytes(fixed(self.value))),
            Kind::BigInteger => Value::BigInteger(self.value),
            Kind::Enumeration => Value::Enumeration(u32::from_be_bytes(fixed(self.value))),
            Kind::Boolean => Value::Boolean(self.value.last() == Some(&1)),
            Kind::TextString => {
                Value::TextString(std::str::from_utf8(self.value).unwrap_or_default())
            }
            Kind::ByteString => Value::ByteString(self.value),
            Kind::DateTime => Value::DateTime(i64::from_be_bytes(fixed(self.value))),
            Kind::Interval => Value::Interval(u32::from_be_bytes(fixed(self.value))),
        }
    }

    /// A fault of this item.
    #[must_use]
    pub fn fault(&self, reason: Reason) -> TtlvError {
        TtlvError { tag: self.tag, offset: self.offset, reason }
    }

    /// The field with this tag, if it is there; others are passed over.
    ///
    /// # Errors
    /// [`Reason::Repeated`] when it is there twice.
    pub fn optional(&self, tag: Tag) -> Result<Option<Item<'a>>, TtlvError> {
        let mut found = self.children().filter(|child| child.tag == tag);
        let first = found.next();
        match found.next() {
            None => Ok(first),
            Some(_) => Err(self.fault(Reason::Repeated(tag))),
        }
    }

    /// The field with this tag, which must be there.
    ///
    /// # Errors
    /// [`Reason::Missing`], [`Reason::Repeated`].
    pub fn required(&self, tag: Tag) -> Result<Item<'a>, TtlvError> {
        self.optional(tag)?.ok_or_else(|| self.fault(Reason::Missing(tag)))
    }

    /// Its number.
    ///
    /// # Errors
    /// [`Reason::WrongKind`] when it is not an integer.
    pub fn integer(&self) -> Result<i32, TtlvError> {
        match self.value() {
            Value::Integer(value) => Ok(value),
            _ => Err(self.not_a(Kind::Integer)),
        }
    }

    /// Its enumeration value.
    ///
    /// # Errors
    /// [`Reason::WrongKind`] when it is not an enumeration.
    pub fn enumeration(&self) -> Result<u32, TtlvError> {
        match self.value() {
            Value::Enumeration(value) => Ok(value),
            _ => Err(self.not_a(Kind::Enumeration)),
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// [`Reason::WrongKind`] when it is not text.
    pub fn text(&self) -> Result<&'a str, TtlvError> {
        match self.value() {
            Value::TextString(value) => Ok(value),
            _ => Err(self.not_a(Kind::TextString)),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`Reason::WrongKind`] when it is not a byte string.
    pub fn bytes(&self) -> Result<&'a [u8], TtlvError> {
        match self.value() {
            Value::ByteString(value) => Ok(value),
            _ => Err(self.not_a(Kind::ByteString)),
        }
    }

    /// Its time, seconds since 1970.
    ///
    /// # Errors
    /// [`Reason::WrongKind`] when it is not a time.
    pub fn date_time(&self) -> Result<i64, TtlvError> {
        match self.value() {
            Value::DateTime(value) => Ok(value),
            _ => Err(self.not_a(Kind::DateTime)),
        }
    }

    /// Itself, when it is a structure.
    ///
    /// # Errors
    /// [`Reason::WrongKind`] when it is not.
    pub fn structure(self) -> Result<Self, TtlvError> {
        if self.kind == Kind::Structure { Ok(self) } else { Err(self.not_a(Kind::Structure)) }
    }

    fn not_a(&self, wanted: Kind) -> TtlvError {
        self.fault(Reason::WrongKind { wanted, found: self.kind })
    }
}

/// Without the value, which may be a key.
impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} of {} bytes at {}", self.tag, self.kind, self.value.len(), self.offset)
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (header, rest) = self.bytes.split_first_chunk::<HEADER>()?;
        let head = Head::read(header);
        let item = Item {
            tag: head.tag,
            kind: Kind::of(head.kind)?,
            offset: self.offset,
            value: rest.get(..head.length)?,
        };
        let length = padded(head.length);
        self.bytes = rest.get(length..)?;
        self.offset += HEADER + length;
        Some(item)
    }
}

/// The eight bytes before a value.
struct Head {
    tag: Tag,
    kind: u8,
    length: usize,
}

impl Head {
    #[inline]
    fn read(header: &[u8; HEADER]) -> Self {
        let [a, b, c, kind, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        Self { tag: Tag(u32::from_be_bytes([0, a, b, c])), kind, length }
    }
}

/// Checks every item of a message.
fn check(message: &[u8]) -> Result<(), TtlvError> {
    if message.len() > MAX_MESSAGE {
        let reason = Reason::Large { length: message.len(), limit: MAX_MESSAGE };
        return Err(TtlvError { tag: Tag::NONE, offset: 0, reason });
    }
    // The open structures: their tags for messages, and where they end.
    let mut open = [(Tag::NONE, message.len()); MAX_DEPTH + 1];
    let mut depth = 0;
    let mut at = 0;
    for _ in 0..MAX_ITEMS {
        let (around, end) = open[depth];
        let left = end - at;
        let Some(header) = message.get(at..end).and_then(<[u8]>::first_chunk::<HEADER>) else {
            let reason = Reason::CutHeader { left };
            return Err(TtlvError { tag: around, offset: at, reason });
        };
        let head = Head::read(header);
        let offset = at;
        let fault = |reason| TtlvError { tag: head.tag, offset, reason };
        let room = left - HEADER;
        if head.length > room || padded(head.length) > room {
            return Err(fault(Reason::BeyondParent { length: head.length, left: room }));
        }
        let kind = Kind::of(head.kind).ok_or_else(|| fault(Reason::UnknownType(head.kind)))?;
        let start = at + HEADER;
        let next = start + padded(head.length);
        if kind == Kind::Structure {
            if depth == MAX_DEPTH {
                return Err(fault(Reason::Depth { limit: MAX_DEPTH }));
            }
            if !head.length.is_multiple_of(8) {
                return Err(fault(Reason::WrongLength { kind, length: head.length }));
            }
            depth += 1;
            open[depth] = (head.tag, next);
            at = start;
        } else {
            check_value(kind, message.get(start..next).unwrap_or_default(), head.length)
                .map_err(fault)?;
            at = next;
        }
        while at == open[depth].1 {
            if depth == 0 {
                return Ok(());
            }
            depth -= 1;
        }
        if depth == 0 {
            return Err(fault(Reason::Trailing { left: message.len() - at }));
        }
    }
    Err(TtlvError { tag: open[depth].0, offset: at, reason: Reason::Items { limit: MAX_ITEMS } })
}

/// Checks one value, which is `length` of the bytes in `field`, the rest being its padding.
#[inline]
fn check_value(kind: Kind, field: &[u8], length: usize) -> Result<(), Reason> {
    let fits = match kind {
        Kind::Integer | Kind::Enumeration | Kind::Interval => length == 4,
        Kind::LongInteger | Kind::Boolean | Kind::DateTime => length == 8,
        Kind::BigInteger => length != 0 && length.is_multiple_of(8),
        Kind::Structure | Kind::TextString | Kind::ByteString => true,
    };
    if !fits {
        return Err(Reason::WrongLength { kind, length });
    }
    let (value, padding) = field.split_at_checked(length).unwrap_or_default();
    if padding.iter().any(|byte| *byte != 0) {
        return Err(Reason::Padding);
    }
    match kind {
        Kind::Boolean if u64::from_be_bytes(fixed(value)) > 1 => Err(Reason::Boolean),
        Kind::TextString if std::str::from_utf8(value).is_err() => Err(Reason::Text),
        _ => Ok(()),
    }
}

/// The value as an array; its length has been checked, so the default is never taken.
#[inline]
fn fixed<const N: usize>(value: &[u8]) -> [u8; N] {
    value.try_into().unwrap_or([0; N])
}
