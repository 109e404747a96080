//! AMQP as a tree, written anew and apart from the code under test: to change one thing in a real message.

use std::collections::BTreeMap;

pub(crate) const MAGIC: &[u8] = b"corda\x01\x00\x00";

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    UInt(u32),
    ULong(u64),
    Text(String),
    Symbol(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<Tree>),
    Described(Box<Tree>, Box<Tree>),
}

/// How wide values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Width {
    /// As a node writes them.
    Narrow,
    /// As wide as AMQP can.
    Widest,
}

pub(crate) fn framework(number: u64, parts: Vec<Tree>) -> Tree {
    Tree::Described(Box::new(Tree::ULong(0xc562_0000_0000_0000 | number)), Box::new(Tree::List(parts)))
}

pub(crate) fn reference(index: u32) -> Tree {
    Tree::Described(Box::new(Tree::ULong(0xc562_0000_0000_0008)), Box::new(Tree::UInt(index)))
}

pub(crate) fn object(descriptor: &str, content: Tree) -> Tree {
    Tree::Described(Box::new(Tree::Symbol(descriptor.to_owned())), Box::new(content))
}

pub(crate) fn text(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

/// A composite type's notation; its descriptor is its name.
pub(crate) fn composite(name: &str, fields: &[(&str, &str)]) -> Tree {
    let field = |(name, of): &(&str, &str)| {
        let (of, nothing) = (text(of), Tree::List(vec![]));
        framework(4, vec![text(name), of, nothing, Tree::Null, Tree::Null, Tree::Bool(true), Tree::Bool(false)])
    };
    let descriptor = framework(3, vec![Tree::Symbol(name.to_owned()), Tree::Null]);
    let fields = Tree::List(fields.iter().map(field).collect());
    framework(5, vec![text(name), Tree::Null, Tree::List(vec![]), descriptor, fields])
}

/// A restricted type's notation; its descriptor is its name.
pub(crate) fn restricted(name: &str, source: &str) -> Tree {
    let descriptor = framework(3, vec![Tree::Symbol(name.to_owned()), Tree::Null]);
    let nothing = || Tree::List(vec![]);
    framework(6, vec![text(name), Tree::Null, nothing(), text(source), descriptor, nothing()])
}

/// A whole message.
pub(crate) fn message(body: Tree, types: Vec<Tree>) -> Vec<u8> {
    let schema = framework(2, vec![Tree::List(types)]);
    let transforms = Tree::Described(Box::new(Tree::ULong(0xc562_0000_0000_0009)), Box::new(Tree::Map(vec![])));
    framework(1, vec![body, schema, transforms]).to_message(Width::Narrow)
}

impl Tree {
    /// Takes a real message apart; panics on anything else.
    pub(crate) fn of_message(bytes: &[u8]) -> Self {
        Self::try_of_message(bytes).expect("a plain Corda message")
    }

    /// Takes a message apart, if it is one of the values that Corda writes.
    pub(crate) fn try_of_message(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let tree = Self::read(&mut rest, 0)?;
        rest.is_empty().then_some(tree)
    }

    fn read(rest: &mut &[u8], depth: usize) -> Option<Self> {
        fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
            let (taken, after) = rest.split_at_checked(count)?;
            *rest = after;
            Some(taken)
        }
        fn number(rest: &mut &[u8], width: usize) -> Option<u64> {
            Some(take(rest, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        if depth > 200 {
            return None; // The stack of a test is small, and no real message nests so deep.
        }
        let code = number(rest, 1)?;
        let width = if code & 0xf0 == 0xb0 || code & 0xf0 == 0xd0 { 4 } else { 1 };
        Some(match code {
            0x00 => {
                let descriptor = Self::read(rest, depth + 1)?;
                Self::Described(Box::new(descriptor), Box::new(Self::read(rest, depth + 1)?))
            }
            0x40 => Self::Null,
            0x41 | 0x42 => Self::Bool(code == 0x41),
            0x56 => Self::Bool(number(rest, 1)? == 1),
            0x54 => Self::Int(i32::from(number(rest, 1)? as i8)),
            0x71 => Self::Int(number(rest, 4)? as i32),
            0x55 => Self::Long(i64::from(number(rest, 1)? as i8)),
            0x81 => Self::Long(number(rest, 8)? as i64),
            0x43 => Self::UInt(0),
            0x52 => Self::UInt(number(rest, 1)? as u32),
            0x70 => Self::UInt(number(rest, 4)? as u32),
            0x80 => Self::ULong(number(rest, 8)?),
            0x45 => Self::List(vec![]),
            0xa0 | 0xb0 | 0xa1 | 0xb1 | 0xa3 | 0xb3 => {
                let length = number(rest, width)? as usize;
                let bytes = take(rest, length)?.to_vec();
                match code & 0x0f {
                    0 => Self::Bytes(bytes),
                    1 => Self::Text(String::from_utf8(bytes).ok()?),
                    _ => Self::Symbol(String::from_utf8(bytes).ok()?),
                }
            }
            0xc0 | 0xd0 | 0xc1 | 0xd1 => {
                number(rest, width)?;
                let count = number(rest, width)?;
                let parts = (0..count).map(|_| Self::read(rest, depth + 1)).collect::<Option<_>>()?;
                if code & 0x0f == 0 { Self::List(parts) } else { Self::Map(parts) }
            }
            _ => return None,
        })
    }

    pub(crate) fn to_message(&self, width: Width) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.write(width, &mut out);
        out
    }

    fn write(&self, width: Width, out: &mut Vec<u8>) {
        let wide = width == Width::Widest;
        let mut variable = |narrow: u8, bytes: &[u8]| {
            if wide || bytes.len() > 255 {
                out.push(narrow + 0x10);
                out.extend((bytes.len() as u32).to_be_bytes());
            } else {
                out.extend([narrow, bytes.len() as u8]);
            }
            out.extend(bytes);
        };
        match self {
            Self::Null => out.push(0x40),
            Self::Bool(value) if wide => out.extend([0x56, u8::from(*value)]),
            Self::Bool(value) => out.push(if *value { 0x41 } else { 0x42 }),
            Self::Int(value) if !wide && i8::try_from(*value).is_ok() => out.extend([0x54, *value as u8]),
            Self::Int(value) => {
                out.push(0x71);
                out.extend(value.to_be_bytes());
            }
            Self::Long(value) if !wide && i8::try_from(*value).is_ok() => out.extend([0x55, *value as u8]),
            Self::Long(value) => {
                out.push(0x81);
                out.extend(value.to_be_bytes());
            }
            Self::UInt(0) if !wide => out.push(0x43),
            Self::UInt(value) if !wide && *value < 256 => out.extend([0x52, *value as u8]),
            Self::UInt(value) => {
                out.push(0x70);
                out.extend(value.to_be_bytes());
            }
            Self::ULong(value) => {
                out.push(0x80);
                out.extend(value.to_be_bytes());
            }
            Self::Text(text) => variable(0xa1, text.as_bytes()),
            Self::Symbol(text) => variable(0xa3, text.as_bytes()),
            Self::Bytes(bytes) => variable(0xa0, bytes),
            Self::Described(descriptor, value) => {
                out.push(0x00);
                descriptor.write(width, out);
                value.write(width, out);
            }
            Self::List(parts) if parts.is_empty() && !wide => out.push(0x45),
            Self::List(parts) | Self::Map(parts) => {
                let narrow = if matches!(self, Self::List(_)) { 0xc0 } else { 0xc1 };
                let mut content = Vec::new();
                parts.iter().for_each(|part| part.write(width, &mut content));
                if !wide && content.len() < 255 && parts.len() < 256 {
                    out.extend([narrow, content.len() as u8 + 1, parts.len() as u8]);
                } else {
                    out.push(narrow + 0x10);
                    out.extend((content.len() as u32 + 4).to_be_bytes());
                    out.extend((parts.len() as u32).to_be_bytes());
                }
                out.extend(content);
            }
        }
    }

    /// Changes every value, inner ones first.
    pub(crate) fn each(&mut self, change: &mut impl FnMut(&mut Self)) {
        match self {
            Self::List(parts) | Self::Map(parts) => parts.iter_mut().for_each(|part| part.each(change)),
            Self::Described(descriptor, value) => {
                descriptor.each(change);
                value.each(change);
            }
            _ => {}
        }
        change(self);
    }

    pub(crate) fn parts(&mut self) -> &mut Vec<Self> {
        match self {
            Self::List(parts) | Self::Map(parts) => parts,
            Self::Described(_, value) => value.parts(),
            other => panic!("{other:?} has no parts"),
        }
    }

    pub(crate) fn as_text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Symbol(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    pub(crate) fn as_text_or_empty(&self) -> &str {
        match self {
            Self::Text(text) | Self::Symbol(text) => text,
            _ => "",
        }
    }

    /// The type notations of a message's schema.
    pub(crate) fn types(&mut self) -> &mut Vec<Self> {
        self.parts()[1].parts()[0].parts()
    }

    /// Descriptors by type name, of a message's schema.
    pub(crate) fn descriptors(&mut self) -> BTreeMap<String, String> {
        let mut descriptors = BTreeMap::new();
        for notation in self.types() {
            let parts = notation.parts();
            let place = if parts.len() == 5 { 3 } else { 4 };
            let descriptor = parts[place].parts()[0].as_text().to_owned();
            descriptors.insert(parts[0].as_text().to_owned(), descriptor);
        }
        descriptors
    }

    /// The fields of a composite type in a message's schema.
    pub(crate) fn fields(&mut self, type_name: &str) -> &mut Vec<Self> {
        let place = self.types().iter_mut().position(|notation| notation.parts()[0].as_text() == type_name);
        self.types()[place.unwrap_or_else(|| panic!("no type {type_name}"))].parts()[4].parts()
    }

    /// The place of a field of a composite type.
    pub(crate) fn field_place(&mut self, type_name: &str, field: &str) -> usize {
        let place =
            self.fields(type_name).iter_mut().position(|field_notation| field_notation.parts()[0].as_text() == field);
        place.unwrap_or_else(|| panic!("no field {field} in {type_name}"))
    }

    /// Changes the values of every object of a type.
    pub(crate) fn each_object(&mut self, type_name: &str, mut change: impl FnMut(&mut Vec<Self>)) {
        let descriptor = self.descriptors()[type_name].clone();
        self.parts()[0].each(&mut |tree| {
            if let Self::Described(symbol, value) = tree
                && matches!(&**symbol, Self::Symbol(symbol) if *symbol == descriptor)
            {
                change(value.parts());
            }
        });
    }

    /// Takes a field out of a type and all its objects.
    pub(crate) fn without_field(mut self, type_name: &str, field: &str) -> Self {
        let place = self.field_place(type_name, field);
        self.fields(type_name).remove(place);
        self.each_object(type_name, |values| {
            values.remove(place);
        });
        self
    }
}
