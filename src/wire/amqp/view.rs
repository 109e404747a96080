//! Access to a message's values by type and field name.

use super::body::{Message, Value};
use super::cursor::Scalar;
use super::schema::{TypeKind, TypeNotation};
use crate::wire::error::{Fault, WireError};
use crate::wire::types::Type;

/// A value of a message. References are followed where one is made, so none is ever seen. Each view costs work, since references
/// make it cheap to name one value many times.
#[derive(Clone, Copy)]
pub(crate) struct View<'m, 'a> {
    message: &'m Message<'a>,
    place: u32,
}

/// An object with named fields.
#[derive(Clone, Copy)]
pub(crate) struct Object<'m, 'a>(View<'m, 'a>);

impl<'a> Message<'a> {
    /// The outermost value.
    pub(crate) fn root(&self) -> View<'_, 'a> {
        View { message: self, place: 0 }
    }

    #[inline]
    fn type_of(&self, place: u32) -> Option<&TypeNotation<'a>> {
        match self.nodes[place as usize].value {
            Value::Object(id) => Some(self.schema.get(id)),
            _ => None,
        }
    }
}

impl<'m, 'a> View<'m, 'a> {
    #[inline]
    fn at(&self, place: u32) -> Result<Self, WireError> {
        let place = match self.message.nodes[place as usize].value {
            Value::Reference(target) => target,
            _ => place,
        };
        let work = match self.message.nodes[place as usize].value {
            Value::Scalar(Scalar::String(text) | Scalar::Symbol(text)) => 1 + text.len(),
            Value::Scalar(Scalar::Binary(bytes)) => 1 + bytes.len(),
            _ => 1,
        };
        match self.message.work_left.get().checked_sub(work as u64) {
            Some(left) => self.message.work_left.set(left),
            None => return self.refuse("references make the message too large"),
        }
        Ok(Self { place, ..*self })
    }

    fn end(&self) -> u32 {
        self.message.nodes[self.place as usize].end
    }

    fn next_sibling_place(&self, place: u32) -> u32 {
        self.message.nodes[place as usize].end
    }

    /// Where in the message it starts.
    pub(crate) fn offset(&self) -> usize {
        self.message.nodes[self.place as usize].offset as usize
    }

    /// An error about this value.
    #[cold]
    pub(crate) fn fail<T>(&self, fault: Fault) -> Result<T, WireError> {
        Err(WireError::new(fault, self.offset()))
    }

    /// An error about this value's content.
    #[cold]
    pub(crate) fn refuse<T>(&self, why: impl Into<String>) -> Result<T, WireError> {
        self.fail(Fault::Refused(why.into()))
    }

    /// An error about this value's type.
    #[cold]
    pub(crate) fn wrong_type<T>(&self, expected: &'static str) -> Result<T, WireError> {
        let found = match (self.type_name(), self.scalar()) {
            (Some(name), _) => name.chars().take(120).collect(),
            (None, Some(scalar)) => scalar_name(scalar).to_owned(),
            (None, None) => String::from("nothing"),
        };
        self.fail(Fault::WrongType { expected, found })
    }

    /// The name of its type, unless it is a bare scalar.
    #[inline]
    pub(crate) fn type_name(&self) -> Option<&'a str> {
        self.message.type_of(self.place).map(TypeNotation::name)
    }

    /// Whether it is of this type.
    #[inline]
    pub(crate) fn is(&self, ty: Type) -> bool {
        self.message.type_of(self.place).is_some_and(|notation| notation.is(ty))
    }

    /// How its type looks, unless it is a bare scalar.
    pub(crate) fn kind(&self) -> Option<&'m TypeKind> {
        self.message.type_of(self.place).map(TypeNotation::kind)
    }

    /// The value, if it is a bare scalar.
    #[inline]
    pub(crate) fn scalar(&self) -> Option<Scalar<'a>> {
        match self.message.nodes[self.place as usize].value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// The value, unless it is null.
    pub(crate) fn non_null(self) -> Option<Self> {
        (!self.is_null()).then_some(self)
    }

    #[inline]
    pub(crate) fn int(&self) -> Result<i32, WireError> {
        match self.scalar() {
            Some(Scalar::Int(value)) => Ok(value),
            _ => self.wrong_type("int"),
        }
    }

    #[inline]
    pub(crate) fn long(&self) -> Result<i64, WireError> {
        match self.scalar() {
            Some(Scalar::Long(value)) => Ok(value),
            _ => self.wrong_type("long"),
        }
    }

    #[inline]
    pub(crate) fn boolean(&self) -> Result<bool, WireError> {
        match self.scalar() {
            Some(Scalar::Bool(value)) => Ok(value),
            _ => self.wrong_type("boolean"),
        }
    }

    #[inline]
    pub(crate) fn string(&self) -> Result<&'a str, WireError> {
        match self.scalar() {
            Some(Scalar::String(value)) => Ok(value),
            _ => self.wrong_type("string"),
        }
    }

    #[inline]
    pub(crate) fn binary(&self) -> Result<&'a [u8], WireError> {
        match self.scalar() {
            Some(Scalar::Binary(value)) => Ok(value),
            _ => self.wrong_type("binary"),
        }
    }

    /// The object, which must be of the composite type `ty`.
    #[inline]
    pub(crate) fn object(self, ty: Type) -> Result<Object<'m, 'a>, WireError> {
        match self.as_object() {
            Some(object) if self.is(ty) => Ok(object),
            _ => self.wrong_type(ty.name()),
        }
    }

    /// The object, if it is of a composite type.
    #[inline]
    pub(crate) fn as_object(self) -> Option<Object<'m, 'a>> {
        matches!(self.kind(), Some(TypeKind::Composite(_))).then_some(Object(self))
    }

    /// The parts of a value of the custom type `name`.
    pub(crate) fn custom(self, name: &'static str) -> Result<Elements<'m, 'a>, WireError> {
        match self.kind() {
            Some(TypeKind::Custom) if self.type_name() == Some(name) => Ok(self.parts()),
            _ => self.wrong_type(name),
        }
    }

    /// The elements of a list, whatever its declared element type: each element says its own.
    pub(crate) fn list(self) -> Result<Elements<'m, 'a>, WireError> {
        match self.kind() {
            Some(TypeKind::List) => Ok(self.parts()),
            _ => self.wrong_type("a list"),
        }
    }

    /// The keys and values of a map, alternating.
    pub(crate) fn map(self) -> Result<Elements<'m, 'a>, WireError> {
        match self.kind() {
            Some(TypeKind::Map) => Ok(self.parts()),
            _ => self.wrong_type("a map"),
        }
    }

    /// The six parts of a throwable, of whatever class.
    pub(crate) fn throwable(self) -> Result<[Self; 6], WireError> {
        let is_throwable = match self.kind() {
            Some(TypeKind::Throwable) => true,
            Some(TypeKind::Custom) => self.type_name() == Some("java.lang.Throwable"),
            _ => false,
        };
        if is_throwable { self.parts().exactly(self) } else { self.wrong_type("java.lang.Throwable") }
    }

    /// The constant of the enum `ty`: its own name and its ordinal.
    pub(crate) fn constant(self, ty: Type) -> Result<(&'a str, i32), WireError> {
        match self.kind() {
            Some(TypeKind::Enum) if self.is(ty) => {
                let [constant, ordinal] = self.parts().exactly(self)?;
                Ok((constant.string()?, ordinal.int()?))
            }
            _ => self.wrong_type(ty.name()),
        }
    }

    /// The single value of a restricted type such as a singleton.
    pub(crate) fn restricted(self, ty: Type) -> Result<Self, WireError> {
        match self.kind() {
            Some(TypeKind::Scalar) if self.is(ty) => {
                let [value] = self.parts().exactly(self)?;
                Ok(value)
            }
            _ => self.wrong_type(ty.name()),
        }
    }

    /// Its parts, whatever its type; none for a bare scalar.
    pub(crate) fn parts(self) -> Elements<'m, 'a> {
        Elements { parent: self, place: self.place + 1 }
    }
}

impl<'m, 'a> Object<'m, 'a> {
    /// The object as a value.
    pub(crate) fn view(&self) -> View<'m, 'a> {
        self.0
    }

    #[inline]
    fn position(&self, name: &str) -> Option<usize> {
        match self.0.message.nodes[self.0.place as usize].value {
            Value::Object(id) => self.0.message.schema.fields(id).iter().position(|field| field.name == name),
            _ => None,
        }
    }

    /// Whether its type has such a field; one may be missing where the sender's version is older.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.position(name).is_some()
    }

    /// All fields by name.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'m str, Result<View<'m, 'a>, WireError>)> {
        let fields = match self.0.message.nodes[self.0.place as usize].value {
            Value::Object(id) => self.0.message.schema.fields(id),
            _ => &[],
        };
        fields.iter().map(|field| field.name).zip(self.0.parts())
    }

    /// A field that may be null or, where the sender's version is older, missing.
    #[inline]
    pub(crate) fn optional(&self, name: &'static str) -> Result<Option<View<'m, 'a>>, WireError> {
        let Some(position) = self.position(name) else { return Ok(None) };
        let mut place = self.0.place + 1;
        for _ in 0..position {
            place = self.0.next_sibling_place(place);
        }
        Ok(self.0.at(place)?.non_null())
    }

    /// A field that must be there.
    #[inline]
    pub(crate) fn field(&self, name: &'static str) -> Result<View<'m, 'a>, WireError> {
        match self.optional(name)? {
            Some(view) => Ok(view),
            None => {
                let type_name = self.0.type_name().unwrap_or_default().chars().take(120).collect();
                self.0.fail(Fault::MissingField { type_name, field: name })
            }
        }
    }
}

/// The parts of a value, one after another.
#[derive(Clone)]
pub(crate) struct Elements<'m, 'a> {
    parent: View<'m, 'a>,
    place: u32,
}

impl<'m, 'a> Elements<'m, 'a> {
    /// All parts, which must be `N`.
    pub(crate) fn exactly<const N: usize>(mut self, of: View<'m, 'a>) -> Result<[View<'m, 'a>; N], WireError> {
        let mut parts = [of; N];
        for part in &mut parts {
            *part = match self.next() {
                Some(next) => next?,
                None => return of.refuse("a value has too few parts"),
            };
        }
        match self.next() {
            None => Ok(parts),
            Some(_) => of.refuse("a value has too many parts"),
        }
    }
}

impl<'m, 'a> Iterator for Elements<'m, 'a> {
    type Item = Result<View<'m, 'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.place >= self.parent.end() {
            return None;
        }
        let place = self.place;
        self.place = self.parent.next_sibling_place(place);
        Some(self.parent.at(place))
    }
}

pub(crate) fn scalar_name(scalar: Scalar<'_>) -> &'static str {
    match scalar {
        Scalar::Null => "null",
        Scalar::Bool(_) => "boolean",
        Scalar::Int(_) => "int",
        Scalar::Long(_) => "long",
        Scalar::String(_) => "string",
        Scalar::Binary(_) => "binary",
        Scalar::Symbol(_) => "symbol",
        Scalar::UInt(_) => "uint",
        Scalar::ULong(_) => "ulong",
        Scalar::Other(kind, _) => kind,
    }
}
