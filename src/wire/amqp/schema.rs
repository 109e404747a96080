//! The types that a message describes for itself (PROTOCOL a.2, a.4).
//!
//! Fingerprints are not checked: values are bound by type name and field name. But two layouts that a Corda node reads
//! differently from what they say (fields out of name order, PROTOCOL a.4) are refused, lest the same bytes mean one state to
//! a node and another to this worker.

use core::ops::Range;

use super::cursor::{Cursor, Descriptor, Scalar, Token};
use super::known::{by_notation, known};
use crate::wire::error::{Fault, WireError};
use crate::wire::limits::Limits;
use crate::wire::types::{Form, Type};

/// Room for the readable descriptors of one message: keys, moments, throwables.
const CUSTOM_TYPES_EXPECTED: usize = 4;

/// What precedes every descriptor of a real node.
pub(super) const DESCRIPTOR_PREFIX: &str = "net.corda:";

/// The types of one message, by their place.
#[derive(Default, Debug)]
pub(crate) struct Schema<'a> {
    types: Vec<TypeNotation<'a>>,
    /// Fields of composite types that are not in the table.
    fields: Vec<Field<'a>>,
    /// Tags of descriptors and places in `types`, sorted by tag and then by descriptor.
    by_descriptor: Vec<(u64, u16)>,
}

/// The place of a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TypeId(u16);

/// A type as a message describes it.
#[derive(Clone, Debug)]
pub(crate) struct TypeNotation<'a> {
    name: &'a str,
    descriptor: &'a str,
    kind: TypeKind,
    /// The type of the table that is described in exactly the same bytes. Without one, names are compared.
    known: Option<Type>,
}

impl<'a> TypeNotation<'a> {
    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    pub(crate) fn kind(&self) -> &TypeKind {
        &self.kind
    }

    #[inline]
    pub(crate) fn is(&self, ty: Type) -> bool {
        match self.known {
            Some(known) => known == ty,
            None => self.name == ty.name(),
        }
    }

    fn of_table(ty: Type) -> Self {
        let kind = match ty.info().form {
            Form::Composite(_) => TypeKind::Composite(0..known(ty).fields.len() as u32),
            Form::List => TypeKind::List,
            Form::Map => TypeKind::Map,
            Form::Enum(_) => TypeKind::Enum,
            Form::Throwable => TypeKind::Throwable,
            Form::Singleton => TypeKind::Scalar,
        };
        Self { name: ty.name(), descriptor: &known(ty).descriptor, kind, known: Some(ty) }
    }
}

/// How values of a type look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TypeKind {
    /// A list with one value a field; the range is of all fields of the schema, or of the table's type.
    Composite(Range<u32>),
    /// A list of objects.
    List,
    /// A map of objects.
    Map,
    /// A constant's name and ordinal.
    Enum,
    /// A throwable in its own proxy's form.
    Throwable,
    /// A single value.
    Scalar,
    /// Not in the schema: what a custom serializer writes, named by its readable descriptor.
    Custom,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    /// Whether its values are objects, which references can name, rather than bare scalars.
    pub(crate) is_object: bool,
}

impl<'a> Schema<'a> {
    /// Reads a schema.
    pub(crate) fn read(cursor: &mut Cursor<'a>, limits: &Limits) -> Result<Self, WireError> {
        let mut schema = Self::default();
        let (_, outer) = cursor.framework_list(2, 1, 1, "not a schema")?;
        let (count, inner) = cursor.list("not a list of types")?;
        if count > limits.types_max {
            return cursor.fail(Fault::limit("types", limits.types_max.into()));
        }
        schema.types.reserve(count as usize + CUSTOM_TYPES_EXPECTED);
        schema.by_descriptor.reserve(count as usize + CUSTOM_TYPES_EXPECTED);
        for _ in 0..count {
            let start = cursor.at();
            let mut after = cursor.clone();
            after.skip()?;
            let notation = match by_notation(cursor.slice(&after)) {
                Some(ty) => {
                    *cursor = after;
                    TypeNotation::of_table(ty)
                }
                None => schema.read_type(cursor, limits)?,
            };
            if schema.add(notation).is_none() {
                return Err(WireError::new(Fault::Malformed("two types have one descriptor"), start));
            }
        }
        cursor.leave(inner)?;
        cursor.leave(outer)?;
        Ok(schema)
    }

    fn read_type(&mut self, cursor: &mut Cursor<'a>, limits: &Limits) -> Result<TypeNotation<'a>, WireError> {
        let start = cursor.at();
        if cursor.token()? != Token::Described {
            return cursor.fail(Fault::Malformed("not a type"));
        }
        let number = cursor.descriptor()?;
        let (count, entered) = cursor.list("not a type")?;
        let (name, descriptor, kind) = match (number, count) {
            (Descriptor::Framework(5), 5) => {
                let name = cursor.string("a type has no name")?;
                cursor.optional_string("a label is no string")?;
                read_names(cursor, limits)?;
                let descriptor = read_descriptor(cursor)?;
                (name, descriptor, TypeKind::Composite(self.read_fields(cursor, limits)?))
            }
            (Descriptor::Framework(6), 6) => {
                let name = cursor.string("a type has no name")?;
                cursor.optional_string("a label is no string")?;
                read_names(cursor, limits)?;
                let source = cursor.string("a restricted type has no source")?;
                let descriptor = read_descriptor(cursor)?;
                let is_enum = read_choices(cursor, limits)? > 0;
                let kind = match source {
                    "list" if is_enum => TypeKind::Enum,
                    "list" => TypeKind::List,
                    "map" => TypeKind::Map,
                    "java.lang.Throwable" => TypeKind::Throwable,
                    _ => TypeKind::Scalar,
                };
                (name, descriptor, kind)
            }
            _ => return Err(WireError::new(Fault::Malformed("not a type"), start)),
        };
        cursor.leave(entered)?;
        Ok(TypeNotation { name, descriptor, kind, known: None })
    }

    fn read_fields(&mut self, cursor: &mut Cursor<'a>, limits: &Limits) -> Result<Range<u32>, WireError> {
        let first = self.fields.len() as u32;
        let (count, entered) = cursor.list("a type has no list of fields")?;
        if count > limits.fields_max {
            return cursor.fail(Fault::limit("fields of one type", limits.fields_max.into()));
        }
        let mut previous = None;
        for _ in 0..count {
            let start = cursor.at();
            let (_, field) = cursor.framework_list(4, 7, 7, "not a field")?;
            let name = cursor.string("a field has no name")?;
            let type_name = cursor.string("a field has no type")?;
            read_names(cursor, limits)?;
            cursor.optional_string("a default is no string")?;
            cursor.optional_string("a label is no string")?;
            for _ in ["mandatory", "multiple"] {
                if !matches!(cursor.token()?, Token::Scalar(Scalar::Bool(_))) {
                    return cursor.fail(Fault::Malformed("a field's property is no boolean"));
                }
            }
            cursor.leave(field)?;
            if previous.replace(name).is_some_and(|previous| previous >= name) {
                return Err(WireError::new(Fault::Malformed("fields are not in ascending name order"), start));
            }
            self.fields.push(Field { name, is_object: !is_primitive(type_name) });
        }
        cursor.leave(entered)?;
        Ok(first..self.fields.len() as u32)
    }

    /// Adds a type, unless another has its descriptor.
    fn add(&mut self, notation: TypeNotation<'a>) -> Option<TypeId> {
        let id = u16::try_from(self.types.len()).ok()?;
        let place = self.search(notation.descriptor).err()?;
        self.by_descriptor.insert(place, (tag(notation.descriptor), id));
        self.types.push(notation);
        Some(TypeId(id))
    }

    #[inline]
    fn search(&self, descriptor: &str) -> Result<usize, usize> {
        let wanted = tag(descriptor);
        self.by_descriptor.binary_search_by(|(tag, id)| {
            tag.cmp(&wanted).then_with(|| self.types[usize::from(*id)].descriptor.cmp(descriptor))
        })
    }

    /// The type with this descriptor. A readable descriptor of a custom serializer needs no entry in the schema.
    #[inline]
    pub(crate) fn resolve(&mut self, descriptor: &'a str, limits: &Limits) -> Result<TypeId, Fault> {
        if let Ok(place) = self.search(descriptor) {
            return Ok(TypeId(self.by_descriptor[place].1));
        }
        // Custom types get a table as long as the schema's own.
        let types_max = 2 * u64::from(limits.types_max);
        match descriptor.strip_prefix(DESCRIPTOR_PREFIX) {
            _ if self.types.len() as u64 >= types_max => Err(Fault::limit("types", types_max)),
            Some(name) if is_class_name(name) => self
                .add(TypeNotation { name, descriptor, kind: TypeKind::Custom, known: None })
                .ok_or(Fault::limit("types", u64::from(u16::MAX))),
            _ => Err(Fault::UnknownType(descriptor.chars().take(80).collect())),
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: TypeId) -> &TypeNotation<'a> {
        &self.types[usize::from(id.0)]
    }

    /// The fields of a composite type; none for any other.
    #[inline]
    pub(crate) fn fields(&self, id: TypeId) -> &[Field<'a>] {
        let notation = self.get(id);
        match (&notation.kind, notation.known) {
            (TypeKind::Composite(_), Some(ty)) => &known(ty).fields,
            (TypeKind::Composite(range), None) => &self.fields[range.start as usize..range.end as usize],
            _ => &[],
        }
    }
}

/// Eight bytes that tell descriptors apart quickly: the start of a fingerprint.
#[inline]
fn tag(descriptor: &str) -> u64 {
    let fingerprint = descriptor.as_bytes().get(DESCRIPTOR_PREFIX.len()..).unwrap_or_default();
    fingerprint.first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
}

/// Skips a list of strings, such as the interfaces that a type provides.
fn read_names(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<(), WireError> {
    let (count, entered) = cursor.list("not a list of names")?;
    if count > limits.fields_max {
        return cursor.fail(Fault::limit("names in one list", limits.fields_max.into()));
    }
    for _ in 0..count {
        cursor.string("not a name")?;
    }
    cursor.leave(entered)
}

fn read_descriptor<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, WireError> {
    let (_, entered) = cursor.framework_list(3, 2, 2, "not an object descriptor")?;
    let Token::Scalar(Scalar::Symbol(descriptor)) = cursor.token()? else {
        return cursor.fail(Fault::Malformed("a type has no descriptor"));
    };
    if !matches!(cursor.token()?, Token::Scalar(Scalar::Null | Scalar::ULong(_))) {
        return cursor.fail(Fault::Malformed("a descriptor's code is no number"));
    }
    cursor.leave(entered)?;
    Ok(descriptor)
}

/// Skips the constants of an enum and counts them.
fn read_choices(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<u32, WireError> {
    let (count, entered) = cursor.list("not a list of choices")?;
    if count > limits.fields_max {
        return cursor.fail(Fault::limit("choices of one type", limits.fields_max.into()));
    }
    for _ in 0..count {
        let (_, choice) = cursor.framework_list(7, 2, 2, "not a choice")?;
        cursor.string("a choice has no name")?;
        cursor.string("a choice has no ordinal")?;
        cursor.leave(choice)?;
    }
    cursor.leave(entered)?;
    Ok(count)
}

/// Types whose values are written bare and are no objects to which references could point (PROTOCOL a.5, a.6).
pub(super) fn is_primitive(type_name: &str) -> bool {
    const PRIMITIVES: [&str; 17] = [
        "binary",
        "boolean",
        "byte",
        "char",
        "double",
        "float",
        "int",
        "long",
        "short",
        "string",
        "symbol",
        "timestamp",
        "ubyte",
        "uint",
        "ulong",
        "ushort",
        "uuid",
    ];
    PRIMITIVES.contains(&type_name)
}

/// A fully qualified Java class name. A fingerprint never is one: it ends in `==`.
fn is_class_name(name: &str) -> bool {
    name.contains('.')
        && name.split('.').all(|part| {
            part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
        })
}
