//! AMQP 1.0 primitive values, read from a slice without copying.

use crate::wire::error::{Fault, WireError};

/// Where reading stands. `end` is the end of the innermost list being read, never beyond the slice.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

/// A value without parts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    String(&'a str),
    Binary(&'a [u8]),
    Symbol(&'a str),
    /// `uint`: only references to earlier objects have it.
    UInt(u32),
    /// `ulong`: only descriptors have it.
    ULong(u64),
    /// Any other scalar: its name and its bytes. No type of the protocol has one, but unknown types are shown by `inspect`.
    Other(&'static str, &'a [u8]),
}

/// The start of a list or map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compound {
    /// Elements, or keys plus values.
    pub(crate) count: u32,
    /// Where the content ends.
    pub(crate) end: usize,
}

/// What a constructor byte announces.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Token<'a> {
    Scalar(Scalar<'a>),
    List(Compound),
    Map(Compound),
    /// A descriptor follows, then the described value.
    Described,
}

/// What describes a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Descriptor<'a> {
    /// One of the framework's own types, by its number in Corda's range.
    Framework(u8),
    /// A type of the schema or a custom one.
    Symbol(&'a str),
}

/// Corda's range of framework descriptors: its number as a registered enterprise, then 32 bits.
const FRAMEWORK_BASE: u64 = 0xc562_0000_0000_0000;

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, end: bytes.len() }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    #[cold]
    pub(crate) fn fail<T>(&self, fault: Fault) -> Result<T, WireError> {
        Err(WireError::new(fault, self.at))
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        if count > self.end - self.at {
            return self.fail(Fault::Truncated);
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let taken = self.take(N)?;
        Ok(*taken.first_chunk().expect("took N bytes"))
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.take_array()?))
    }

    #[inline]
    fn length(&mut self, wide: bool) -> Result<usize, WireError> {
        Ok(if wide { self.u32()? as usize } else { usize::from(self.byte()?) })
    }

    fn text(&mut self, wide: bool) -> Result<&'a str, WireError> {
        let length = self.length(wide)?;
        let bytes = self.take(length)?;
        core::str::from_utf8(bytes).or_else(|_| self.fail(Fault::Malformed("text is not UTF-8")))
    }

    #[inline]
    fn compound(&mut self, wide: bool) -> Result<Compound, WireError> {
        let size = self.length(wide)?;
        let start = self.at;
        let count = if wide { self.u32()? } else { u32::from(self.byte()?) };
        let counted = self.at - start;
        if size < counted || size > self.end - start {
            return self.fail(Fault::Truncated);
        }
        // Every element takes a byte at least, so a count beyond the size is a lie.
        if count as usize > size - counted {
            return self.fail(Fault::Malformed("a list counts more elements than it has bytes"));
        }
        Ok(Compound { count, end: start + size })
    }

    /// Reads one value, or the start of one that has parts.
    #[inline]
    pub(crate) fn token(&mut self) -> Result<Token<'a>, WireError> {
        let code = self.byte()?;
        Ok(Token::Scalar(match code {
            0x00 => return Ok(Token::Described),
            0x45 => return Ok(Token::List(Compound { count: 0, end: self.at })),
            0xc0 | 0xd0 => return Ok(Token::List(self.compound(code == 0xd0)?)),
            0xc1 | 0xd1 => return Ok(Token::Map(self.compound(code == 0xd1)?)),
            0x40 => Scalar::Null,
            0x41 => Scalar::Bool(true),
            0x42 => Scalar::Bool(false),
            0x56 => match self.byte()? {
                0 => Scalar::Bool(false),
                1 => Scalar::Bool(true),
                _ => return self.fail(Fault::Malformed("a boolean is neither 0 nor 1")),
            },
            0x54 => Scalar::Int(i32::from(self.byte()? as i8)),
            0x71 => Scalar::Int(i32::from_be_bytes(self.take_array()?)),
            0x55 => Scalar::Long(i64::from(self.byte()? as i8)),
            0x81 => Scalar::Long(i64::from_be_bytes(self.take_array()?)),
            0x43 => Scalar::UInt(0),
            0x52 => Scalar::UInt(u32::from(self.byte()?)),
            0x70 => Scalar::UInt(self.u32()?),
            0x44 => Scalar::ULong(0),
            0x53 => Scalar::ULong(u64::from(self.byte()?)),
            0x80 => Scalar::ULong(u64::from_be_bytes(self.take_array()?)),
            0xa0 | 0xb0 => {
                let length = self.length(code == 0xb0)?;
                Scalar::Binary(self.take(length)?)
            }
            0xa1 | 0xb1 => Scalar::String(self.text(code == 0xb1)?),
            0xa3 | 0xb3 => Scalar::Symbol(self.text(code == 0xb3)?),
            0x50 => Scalar::Other("ubyte", self.take(1)?),
            0x51 => Scalar::Other("byte", self.take(1)?),
            0x60 => Scalar::Other("ushort", self.take(2)?),
            0x61 => Scalar::Other("short", self.take(2)?),
            0x72 => Scalar::Other("float", self.take(4)?),
            0x73 => Scalar::Other("char", self.take(4)?),
            0x74 => Scalar::Other("decimal32", self.take(4)?),
            0x82 => Scalar::Other("double", self.take(8)?),
            0x83 => Scalar::Other("timestamp", self.take(8)?),
            0x84 => Scalar::Other("decimal64", self.take(8)?),
            0x94 => Scalar::Other("decimal128", self.take(16)?),
            0x98 => Scalar::Other("uuid", self.take(16)?),
            // AMQP arrays (e0, f0) are left out: Corda writes its arrays as lists.
            _ => {
                self.at -= 1;
                return self.fail(Fault::Malformed("not a value that Corda writes"));
            }
        }))
    }

    /// Reads what describes a value, after [`Token::Described`].
    #[inline]
    pub(crate) fn descriptor(&mut self) -> Result<Descriptor<'a>, WireError> {
        match self.token()? {
            Token::Scalar(Scalar::Symbol(symbol)) => Ok(Descriptor::Symbol(symbol)),
            Token::Scalar(Scalar::ULong(code)) if code & !0xff == FRAMEWORK_BASE => {
                Ok(Descriptor::Framework(code as u8))
            }
            _ => self.fail(Fault::Malformed("a descriptor is neither a symbol nor one of Corda's numbers")),
        }
    }

    /// Enters a list or map: until [`Self::leave`], nothing beyond its end is read.
    #[inline]
    pub(crate) fn enter(&mut self, compound: Compound) -> Entered {
        let outer_end = self.end;
        self.end = compound.end;
        Entered { outer_end }
    }

    /// Leaves a list or map, all of whose bytes must have been read.
    #[inline]
    pub(crate) fn leave(&mut self, entered: Entered) -> Result<(), WireError> {
        if self.at != self.end {
            return self.fail(Fault::Malformed("a list has more bytes than elements"));
        }
        self.end = entered.outer_end;
        Ok(())
    }

    /// Skips one value without looking into it; its bytes are within this list's.
    pub(crate) fn skip(&mut self) -> Result<(), WireError> {
        loop {
            match self.token()? {
                Token::Scalar(_) => return Ok(()),
                Token::List(compound) | Token::Map(compound) => {
                    self.skip_compound(compound);
                    return Ok(());
                }
                Token::Described => {
                    self.descriptor()?;
                }
            }
        }
    }

    /// The bytes from here to where `after` stands.
    pub(crate) fn slice(&self, after: &Self) -> &'a [u8] {
        &self.bytes[self.at..after.at]
    }

    /// Skips the content of a list or map.
    pub(crate) fn skip_compound(&mut self, compound: Compound) {
        self.at = compound.end;
    }

    /// Enters a list described by the framework's type `number` with between `count_min` and `count_max` elements.
    pub(crate) fn framework_list(
        &mut self,
        number: u8,
        count_min: u32,
        count_max: u32,
        what: &'static str,
    ) -> Result<(u32, Entered), WireError> {
        let start = self.at;
        let described = self.token()? == Token::Described && self.descriptor()? == Descriptor::Framework(number);
        if described
            && let Token::List(list) = self.token()?
            && (count_min..=count_max).contains(&list.count)
        {
            return Ok((list.count, self.enter(list)));
        }
        Err(WireError::new(Fault::Malformed(what), start))
    }

    /// Enters a plain list.
    pub(crate) fn list(&mut self, what: &'static str) -> Result<(u32, Entered), WireError> {
        let start = self.at;
        match self.token()? {
            Token::List(list) => Ok((list.count, self.enter(list))),
            _ => Err(WireError::new(Fault::Malformed(what), start)),
        }
    }

    /// Reads a string.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        self.optional_string(what)?.map_or_else(|| self.fail(Fault::Malformed(what)), Ok)
    }

    /// Reads a string or null.
    pub(crate) fn optional_string(&mut self, what: &'static str) -> Result<Option<&'a str>, WireError> {
        let start = self.at;
        match self.token()? {
            Token::Scalar(Scalar::String(text)) => Ok(Some(text)),
            Token::Scalar(Scalar::Null) => Ok(None),
            _ => Err(WireError::new(Fault::Malformed(what), start)),
        }
    }
}

/// A list or map being read.
#[derive(Debug)]
#[must_use = "a list that was entered must be left"]
pub(crate) struct Entered {
    outer_end: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(bytes: &[u8]) -> Result<Token<'_>, WireError> {
        Cursor::new(bytes, 0).token()
    }

    #[test]
    fn narrow_and_wide_forms_mean_the_same() {
        for (narrow, wide, value) in [
            (&[0x54, 0xfe][..], &[0x71, 0xff, 0xff, 0xff, 0xfe][..], Scalar::Int(-2)),
            (&[0x55, 7], &[0x81, 0, 0, 0, 0, 0, 0, 0, 7], Scalar::Long(7)),
            (&[0x43], &[0x70, 0, 0, 0, 0], Scalar::UInt(0)),
            (&[0x41], &[0x56, 1], Scalar::Bool(true)),
            (&[0xa1, 1, b'x'], &[0xb1, 0, 0, 0, 1, b'x'], Scalar::String("x")),
            (&[0xa0, 1, 9], &[0xb0, 0, 0, 0, 1, 9], Scalar::Binary(&[9])),
        ] {
            assert_eq!(scalar(narrow), Ok(Token::Scalar(value)));
            assert_eq!(scalar(wide), Ok(Token::Scalar(value)));
        }
    }

    #[test]
    fn lengths_and_counts_that_lie_are_refused() {
        let refused: [&[u8]; 9] = [
            &[],
            &[0xa1, 2, b'x'],
            &[0xb0, 0xff, 0xff, 0xff, 0xff],
            &[0xc0, 0, 0],
            &[0xc0, 9, 0],
            &[0xc0, 2, 200, 0x40],
            &[0xd0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40],
            &[0x56, 2],
            &[0xe0, 0, 0],
        ];
        for bytes in refused {
            assert!(scalar(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_list_is_read_to_its_end_and_not_beyond() {
        let bytes = [0xc0, 3, 2, 0x41, 0x42, 0x40];
        let mut cursor = Cursor::new(&bytes, 0);
        let (count, entered) = cursor.list("list").expect("a list");
        assert_eq!(count, 2);
        cursor.token().expect("true");
        let early = Entered { outer_end: entered.outer_end };
        assert!(cursor.clone().leave(early).is_err(), "an element is left");
        cursor.token().expect("false");
        assert_eq!(cursor.clone().token().expect_err("one element too many").fault(), &Fault::Truncated);
        cursor.leave(entered).expect("all read");
        assert_eq!(cursor.token(), Ok(Token::Scalar(Scalar::Null)));
    }
}
