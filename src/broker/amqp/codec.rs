//! AMQP 1.0 values (specification part 1), read from slices and written to vectors.

/// The bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DecodeError(pub &'static str);

const TRUNCATED: DecodeError = DecodeError("truncated value");

/// One value. Integers are widened: a peer that sends a `ulong` where a `uint` is due is understood if it fits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Binary(&'a [u8]),
    String(&'a str),
    Symbol(&'a str),
    List(Fields<'a>),
    Map(Fields<'a>),
    Array(Array<'a>),
    Described(Described<'a>),
    /// A type that nothing here needs.
    Other,
}

/// A described value. The descriptor is numeric; a symbolic one, which we know none of, reads as `u64::MAX`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Described<'a> {
    pub code: u64,
    /// Exactly one encoded value.
    pub value: &'a [u8],
}

impl<'a> Described<'a> {
    /// The fields of a composite type.
    pub(crate) fn fields(self) -> Result<Fields<'a>, DecodeError> {
        match Reader::new(self.value).value()? {
            Value::List(fields) => Ok(fields),
            _ => Err(DecodeError("a composite type must be a list")),
        }
    }
}

/// An array's elements, all of one constructor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Array<'a> {
    count: u32,
    body: &'a [u8],
}

impl Array<'_> {
    /// Whether this is an array of symbols that contains `symbol`.
    pub(crate) fn contains_symbol(&self, symbol: &str) -> bool {
        let Some((&code, mut rest)) = self.body.split_first() else { return false };
        let width = match code {
            0xa3 => 1,
            0xb3 => 4,
            _ => return false,
        };
        for _ in 0..self.count {
            let mut reader = Reader::new(rest);
            let Ok(element) = reader.variable(width) else { return false };
            if element == symbol.as_bytes() {
                return true;
            }
            rest = reader.rest();
        }
        false
    }
}

/// Reads values one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    /// A length of one or four bytes.
    fn length(&mut self, width: usize) -> Result<usize, DecodeError> {
        if width == 1 { self.byte().map(usize::from) } else { self.array().map(|n| u32::from_be_bytes(n) as usize) }
    }

    fn variable(&mut self, width: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.length(width)?;
        self.take(len)
    }

    fn text(&mut self, width: usize) -> Result<&'a str, DecodeError> {
        core::str::from_utf8(self.variable(width)?).map_err(|_| DecodeError("text is not UTF-8"))
    }

    /// Count and elements of a list or map whose size has the given width.
    fn compound(&mut self, width: usize) -> Result<Fields<'a>, DecodeError> {
        let mut body = Reader::new(self.variable(width)?);
        let count = body.length(width)?;
        // Every element takes at least a byte, so this bounds all iteration by what was really sent.
        if count > body.rest.len() {
            return Err(DecodeError("more elements than bytes"));
        }
        Ok(Fields { remaining: count as u32, reader: body })
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        let code = self.byte()?;
        Ok(match code {
            0x00 => {
                let code = self.descriptor()?;
                let start = self.rest;
                self.skip()?;
                Value::Described(Described { code, value: &start[..start.len() - self.rest.len()] })
            }
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x56 => match self.byte()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(DecodeError("a boolean is neither 0 nor 1")),
            },
            0x43 | 0x44 => Value::Unsigned(0),
            0x50 | 0x52 | 0x53 => Value::Unsigned(self.byte()?.into()),
            0x60 => Value::Unsigned(u16::from_be_bytes(self.array()?).into()),
            0x70 => Value::Unsigned(u32::from_be_bytes(self.array()?).into()),
            0x80 => Value::Unsigned(u64::from_be_bytes(self.array()?)),
            0x51 | 0x54 | 0x55 => Value::Signed(i8::from_be_bytes(self.array()?).into()),
            0x61 => Value::Signed(i16::from_be_bytes(self.array()?).into()),
            0x71 => Value::Signed(i32::from_be_bytes(self.array()?).into()),
            0x81 => Value::Signed(i64::from_be_bytes(self.array()?)),
            0xa0 => Value::Binary(self.variable(1)?),
            0xb0 => Value::Binary(self.variable(4)?),
            0xa1 => Value::String(self.text(1)?),
            0xb1 => Value::String(self.text(4)?),
            0xa3 => Value::Symbol(self.text(1)?),
            0xb3 => Value::Symbol(self.text(4)?),
            0x45 => Value::List(Fields::default()),
            0xc0 => Value::List(self.compound(1)?),
            0xd0 => Value::List(self.compound(4)?),
            0xc1 => Value::Map(self.compound(1)?),
            0xd1 => Value::Map(self.compound(4)?),
            0xe0 | 0xf0 => {
                let width = if code == 0xe0 { 1 } else { 4 };
                let mut body = Reader::new(self.variable(width)?);
                let count = body.length(width)? as u32;
                Value::Array(Array { count, body: body.rest })
            }
            _ => {
                self.skip_body(code)?;
                Value::Other
            }
        })
    }

    fn descriptor(&mut self) -> Result<u64, DecodeError> {
        Ok(match self.byte()? {
            0x44 => 0,
            0x53 => self.byte()?.into(),
            0x80 => u64::from_be_bytes(self.array()?),
            0xa3 => self.variable(1).map(|_| u64::MAX)?,
            0xb3 => self.variable(4).map(|_| u64::MAX)?,
            _ => return Err(DecodeError("a descriptor is neither ulong nor symbol")),
        })
    }

    /// Skips one value, however deeply nested, without looking into it.
    fn skip(&mut self) -> Result<(), DecodeError> {
        loop {
            match self.byte()? {
                // A loop and no recursion: a described value may be described again.
                0x00 => self.descriptor().map(|_| ())?,
                code => return self.skip_body(code),
            }
        }
    }

    /// Skips what follows a constructor: its upper half tells the size (specification 1.2).
    fn skip_body(&mut self, code: u8) -> Result<(), DecodeError> {
        match code >> 4 {
            0x4 => Ok(()),
            0x5 => self.take(1).map(|_| ()),
            0x6 => self.take(2).map(|_| ()),
            0x7 => self.take(4).map(|_| ()),
            0x8 => self.take(8).map(|_| ()),
            0x9 => self.take(16).map(|_| ()),
            0xa | 0xc | 0xe => self.variable(1).map(|_| ()),
            0xb | 0xd | 0xf => self.variable(4).map(|_| ()),
            _ => Err(DecodeError("unknown constructor")),
        }
    }
}

/// The elements of a list, in order. Fields that were left out read as null (specification 1.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    remaining: u32,
    reader: Reader<'a>,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self { remaining: 0, reader: Reader::new(&[]) }
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.remaining == other.remaining && self.reader.rest == other.reader.rest
    }
}

impl<'a> Fields<'a> {
    /// How many elements are left.
    pub(crate) fn remaining(&self) -> u32 {
        self.remaining
    }

    /// The next element; null when none is left.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        if self.remaining == 0 {
            return Ok(Value::Null);
        }
        self.remaining -= 1;
        self.reader.value()
    }

    /// The next element as it is encoded; `None` for null.
    pub(crate) fn encoded(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let start = self.reader.rest;
        let value = self.value()?;
        Ok((value != Value::Null).then(|| &start[..start.len() - self.reader.rest.len()]))
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        (0..count).try_for_each(|_| self.value().map(|_| ()))
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.value()? {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(value),
            _ => Err(DecodeError("expected a boolean")),
        }
    }

    fn unsigned<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::Unsigned(value) => {
                T::try_from(value).map(Some).map_err(|_| DecodeError("an unsigned integer is too large"))
            }
            _ => Err(DecodeError("expected an unsigned integer")),
        }
    }

    pub(crate) fn ubyte(&mut self) -> Result<Option<u8>, DecodeError> {
        self.unsigned()
    }

    pub(crate) fn ushort(&mut self) -> Result<Option<u16>, DecodeError> {
        self.unsigned()
    }

    pub(crate) fn uint(&mut self) -> Result<Option<u32>, DecodeError> {
        self.unsigned()
    }

    pub(crate) fn ulong(&mut self) -> Result<Option<u64>, DecodeError> {
        self.unsigned()
    }

    pub(crate) fn mandatory_uint(&mut self) -> Result<u32, DecodeError> {
        self.uint()?.ok_or(DecodeError("a mandatory field is missing"))
    }

    /// A string or a symbol.
    pub(crate) fn text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::String(text) | Value::Symbol(text) => Ok(Some(text)),
            _ => Err(DecodeError("expected text")),
        }
    }

    pub(crate) fn binary(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::Binary(bytes) => Ok(Some(bytes)),
            _ => Err(DecodeError("expected binary")),
        }
    }

    pub(crate) fn described(&mut self) -> Result<Option<Described<'a>>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::Described(described) => Ok(Some(described)),
            _ => Err(DecodeError("expected a described value")),
        }
    }
}

/// Writes values. Compound ones take the wide form with sizes filled in afterwards: six bytes more, one pass less.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    out: &'b mut Vec<u8>,
    count: u32,
}

impl<'b> Writer<'b> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out, count: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self.count += 1;
        self
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.put(&[0x40])
    }

    pub(crate) fn nulls(&mut self, count: usize) -> &mut Self {
        (0..count).for_each(|_| {
            self.null();
        });
        self
    }

    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.put(&[if value { 0x41 } else { 0x42 }])
    }

    pub(crate) fn ubyte(&mut self, value: u8) -> &mut Self {
        self.put(&[0x50, value])
    }

    pub(crate) fn ushort(&mut self, value: u16) -> &mut Self {
        let [a, b] = value.to_be_bytes();
        self.put(&[0x60, a, b])
    }

    pub(crate) fn uint(&mut self, value: u32) -> &mut Self {
        match u8::try_from(value) {
            Ok(0) => self.put(&[0x43]),
            Ok(small) => self.put(&[0x52, small]),
            Err(_) => {
                self.out.push(0x70);
                self.put(&value.to_be_bytes())
            }
        }
    }

    pub(crate) fn ulong(&mut self, value: u64) -> &mut Self {
        match u8::try_from(value) {
            Ok(0) => self.put(&[0x44]),
            Ok(small) => self.put(&[0x53, small]),
            Err(_) => {
                self.out.push(0x80);
                self.put(&value.to_be_bytes())
            }
        }
    }

    pub(crate) fn int(&mut self, value: i32) -> &mut Self {
        match i8::try_from(value) {
            Ok(small) => self.put(&[0x54, small.to_be_bytes()[0]]),
            Err(_) => {
                self.out.push(0x71);
                self.put(&value.to_be_bytes())
            }
        }
    }

    fn variable(&mut self, narrow: u8, wide: u8, bytes: &[u8]) -> &mut Self {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.out.extend_from_slice(&[narrow, len]),
            Err(_) => {
                self.out.push(wide);
                let len = u32::try_from(bytes.len()).expect("messages are limited far below 4 GiB");
                self.out.extend_from_slice(&len.to_be_bytes());
            }
        }
        self.put(bytes)
    }

    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        self.variable(0xa1, 0xb1, text.as_bytes())
    }

    pub(crate) fn symbol(&mut self, text: &str) -> &mut Self {
        self.variable(0xa3, 0xb3, text.as_bytes())
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) -> &mut Self {
        self.variable(0xa0, 0xb0, bytes)
    }

    /// A value that is encoded already, or null.
    pub(crate) fn encoded(&mut self, value: Option<&[u8]>) -> &mut Self {
        self.put(value.unwrap_or(&[0x40]))
    }

    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            Some(value) => write(self, value),
            None => {
                self.null();
            }
        }
        self
    }

    fn compound(&mut self, code: u8, write: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.out.push(code);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 8]);
        let mut inner = Writer::new(self.out);
        write(&mut inner);
        let count = inner.count;
        let size = u32::try_from(self.out.len() - start - 4).expect("messages are limited far below 4 GiB");
        self.out[start..start + 4].copy_from_slice(&size.to_be_bytes());
        self.out[start + 4..start + 8].copy_from_slice(&count.to_be_bytes());
        self.count += 1;
        self
    }

    /// A map; `write` writes keys and values in turn.
    pub(crate) fn map(&mut self, write: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.compound(0xd1, write)
    }

    /// A composite type: its descriptor and the list of its fields.
    pub(crate) fn composite(&mut self, code: u8, write: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.descriptor(code).compound(0xd0, write)
    }

    /// The descriptor of the value that is written next, by its name.
    pub(crate) fn symbolic_descriptor(&mut self, name: &str) -> &mut Self {
        self.out.push(0x00);
        self.symbol(name);
        // It belongs to the value that follows, which counts itself.
        self.count -= 1;
        self
    }

    /// The descriptor of the value that is written next.
    pub(crate) fn descriptor(&mut self, code: u8) -> &mut Self {
        self.out.extend_from_slice(&[0x00, 0x53, code]);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let long = "x".repeat(300);
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).composite(0x70, |w| {
            w.boolean(true).ubyte(7).ushort(65_535).uint(0).uint(255).uint(256).ulong(0).ulong(9).ulong(u64::MAX);
            w.int(-128).int(128).string("é").string(&long).symbol("s").binary(&[1, 2]).null();
            w.map(|w| {
                w.symbol("k").int(1);
            });
        });
        let Ok(Value::Described(described)) = Reader::new(&bytes).value() else { panic!("not described") };
        assert_eq!(described.code, 0x70);
        let mut fields = described.fields().expect("a list");
        let mut next = || fields.value().expect("just written");
        assert_eq!([next(), next()], [Value::Bool(true), Value::Unsigned(7)]);
        for expected in [65_535, 0, 255, 256, 0, 9, u64::MAX] {
            assert_eq!(next(), Value::Unsigned(expected));
        }
        assert_eq!([next(), next()], [Value::Signed(-128), Value::Signed(128)]);
        assert_eq!([next(), next()], [Value::String("é"), Value::String(&long)]);
        assert_eq!([next(), next(), next()], [Value::Symbol("s"), Value::Binary(&[1, 2]), Value::Null]);
        let Value::Map(mut map) = next() else { panic!("no map") };
        assert_eq!([map.value(), map.value()], [Ok(Value::Symbol("k")), Ok(Value::Signed(1))]);
        assert_eq!(next(), Value::Null, "left out fields are null");
    }

    #[test]
    fn nesting_of_any_depth_is_skipped_without_stack() {
        let descriptors = [[0x00, 0x53, 0x01].repeat(100_000), vec![0x40]].concat();
        assert!(matches!(Reader::new(&descriptors).value(), Ok(Value::Described(_))));
        // Lists that claim to hold each other: the outermost size already fails.
        let lists = [0xc0, 0xff, 0x01].repeat(100_000);
        assert!(matches!(Reader::new(&lists).value(), Ok(Value::List(_))), "only one level is looked at");
    }

    #[test]
    fn claimed_lengths_and_counts_are_checked_against_what_is_there() {
        for bytes in [
            &[0xb0, 0xff, 0xff, 0xff, 0xff][..],
            &[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            &[0xc0, 0x00],
            &[0xa1],
            &[0x00, 0x40, 0x40],
            &[0x10],
            &[],
        ] {
            assert!(Reader::new(bytes).value().is_err(), "{bytes:02x?}");
        }
        // An array of four billion nothings costs nothing.
        let Ok(Value::Array(array)) = Reader::new(&[0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40]).value() else {
            panic!("not an array")
        };
        assert!(!array.contains_symbol("PLAIN"));
    }

    #[test]
    fn an_array_of_symbols_is_searched() {
        let Ok(Value::Array(array)) = Reader::new(b"\xe0\x0b\x02\xa3\x05PLAIN\x02AB").value() else {
            panic!("no array")
        };
        assert!(array.contains_symbol("PLAIN") && array.contains_symbol("AB") && !array.contains_symbol("A"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(value) = reader.value() {
                if let Value::List(mut fields) | Value::Map(mut fields) = value {
                    while fields.remaining() > 0 && fields.encoded().is_ok() {}
                }
            }
        }
    }
}
