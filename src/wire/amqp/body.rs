//! The values of one message, in a flat arena.
//!
//! A value lies directly after its parent's earlier values, and knows where its own subtree ends; so a tree is walked without
//! pointers, and reading it recurses only as deep as the limit allows. A reference to an earlier object stays a reference, so
//! that its target is never copied.

use core::cell::Cell;

use super::cursor::{Compound, Cursor, Descriptor, Scalar, Token};
use super::header;
use super::schema::{Schema, TypeId, TypeKind};
use crate::wire::error::{Fault, WireError};
use crate::wire::limits::Limits;

/// One message, read but not yet understood.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(super) schema: Schema<'a>,
    pub(super) nodes: Vec<Node<'a>>,
    /// How much more reading is allowed.
    pub(super) work_left: Cell<u64>,
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) value: Value<'a>,
    /// Where in the message it starts.
    pub(super) offset: u32,
    /// The place in the arena after its subtree.
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Scalar(Scalar<'a>),
    /// A value of a described type; its parts follow.
    Object(TypeId),
    /// The object at this place of the arena, once more.
    Reference(u32),
}

impl<'a> Message<'a> {
    /// Reads an uncompressed message.
    ///
    /// # Errors
    /// [`WireError`] for anything but exactly one message within the limits.
    pub(crate) fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, WireError> {
        header::check_plain(bytes, limits)?;
        let mut cursor = Cursor::new(bytes, header::DATA_OFFSET);
        let (count, envelope) = cursor.framework_list(1, 2, 3, "not an envelope")?;
        // The schema explains the body but stands after it.
        let mut body = cursor.clone();
        cursor.skip()?;
        let body_end = cursor.at();
        let schema = Schema::read(&mut cursor, limits)?;
        if count == 3 {
            read_transforms(&mut cursor)?;
        }
        cursor.leave(envelope)?;
        if !cursor.is_at_end() {
            return cursor.fail(Fault::Trailing);
        }
        let mut reader = BodyReader::new(schema, limits, body_end - body.at());
        reader.value(&mut body, 0, true)?;
        debug_assert_eq!(body.at(), body_end, "a value ends where skipping it ended");
        let BodyReader { schema, nodes, .. } = reader;
        let work_left = Cell::new(bytes.len() as u64 * limits.work_per_byte_max);
        Ok(Self { schema, nodes, work_left })
    }
}

/// Transforms describe how enums evolved. No enum of this protocol did, so they are not looked at.
fn read_transforms(cursor: &mut Cursor<'_>) -> Result<(), WireError> {
    if cursor.token()? == Token::Described
        && cursor.descriptor()? == Descriptor::Framework(9)
        && let Token::Map(map) = cursor.token()?
    {
        cursor.skip_compound(map);
        return Ok(());
    }
    cursor.fail(Fault::Malformed("not transforms"))
}

struct BodyReader<'a, 'l> {
    schema: Schema<'a>,
    limits: &'l Limits,
    nodes: Vec<Node<'a>>,
    /// Every object that a reference can name, in the order in which the objects end (PROTOCOL a.6).
    history: Vec<u32>,
    references: u32,
}

impl<'a, 'l> BodyReader<'a, 'l> {
    fn new(schema: Schema<'a>, limits: &'l Limits, length: usize) -> Self {
        // A guess that fits real messages: a hash is two values in some 70 bytes. Never more than the limit, or 64 KiB.
        let guess = (length / 32).clamp(8, 2048).min(limits.nodes_max as usize);
        Self { schema, limits, nodes: Vec::with_capacity(guess), history: Vec::with_capacity(guess / 2), references: 0 }
    }

    fn push(&mut self, value: Value<'a>, offset: usize) -> Result<u32, WireError> {
        let place = self.nodes.len() as u32;
        if place >= self.limits.nodes_max {
            return Err(WireError::new(Fault::limit("values", self.limits.nodes_max.into()), offset));
        }
        self.nodes.push(Node { value, offset: offset as u32, end: place + 1 });
        Ok(place)
    }

    /// Reads one value. `is_object` says whether it went through the writer's object path, so that a string counts as one.
    fn value(&mut self, cursor: &mut Cursor<'a>, depth: u32, is_object: bool) -> Result<(), WireError> {
        let offset = cursor.at();
        match cursor.token()? {
            Token::Scalar(scalar) => {
                let place = self.push(Value::Scalar(scalar), offset)?;
                if is_object && is_referable(scalar) {
                    self.history.push(place);
                }
                Ok(())
            }
            Token::Described => match cursor.descriptor()? {
                Descriptor::Framework(8) => self.reference(cursor, offset),
                Descriptor::Framework(_) => {
                    Err(WireError::new(Fault::Malformed("a framework type stands for a value"), offset))
                }
                Descriptor::Symbol(symbol) => self.object(cursor, depth, symbol, offset),
            },
            Token::List(_) | Token::Map(_) => {
                Err(WireError::new(Fault::Malformed("a list or map has no type"), offset))
            }
        }
    }

    fn reference(&mut self, cursor: &mut Cursor<'a>, offset: usize) -> Result<(), WireError> {
        self.references += 1;
        if self.references > self.limits.references_max {
            return Err(WireError::new(Fault::limit("references", self.limits.references_max.into()), offset));
        }
        let Token::Scalar(Scalar::UInt(index)) = cursor.token()? else {
            return Err(WireError::new(Fault::Malformed("a reference is no uint"), offset));
        };
        match self.history.get(index as usize) {
            Some(&target) => self.push(Value::Reference(target), offset).map(drop),
            None => Err(WireError::new(Fault::Malformed("a reference names no earlier object"), offset)),
        }
    }

    fn object(
        &mut self,
        cursor: &mut Cursor<'a>,
        depth: u32,
        descriptor: &'a str,
        offset: usize,
    ) -> Result<(), WireError> {
        if depth >= self.limits.depth_max {
            return Err(WireError::new(Fault::limit("levels of nesting", self.limits.depth_max.into()), offset));
        }
        let id = self.schema.resolve(descriptor, self.limits).map_err(|fault| WireError::new(fault, offset))?;
        let place = self.push(Value::Object(id), offset)?;
        self.content(cursor, depth, id, offset)?;
        self.nodes[place as usize].end = self.nodes.len() as u32;
        self.history.push(place);
        Ok(())
    }

    fn content(&mut self, cursor: &mut Cursor<'a>, depth: u32, id: TypeId, offset: usize) -> Result<(), WireError> {
        let fail = |what| Err(WireError::new(Fault::Malformed(what), offset));
        let content_offset = cursor.at();
        let token = cursor.token()?;
        let kind = self.schema.get(id).kind();
        match (kind, token) {
            (TypeKind::Composite(fields), Token::List(list)) => {
                if list.count as usize != fields.len() {
                    return fail("an object has more or fewer values than its type has fields");
                }
                let entered = cursor.enter(list);
                for i in 0..list.count as usize {
                    let is_object = self.schema.fields(id)[i].is_object;
                    self.value(cursor, depth + 1, is_object)?;
                }
                cursor.leave(entered)
            }
            (TypeKind::List, Token::List(list)) => self.elements(cursor, depth, list, true),
            (TypeKind::Map, Token::Map(map)) => {
                if map.count % 2 != 0 {
                    return fail("a map has a key without a value");
                }
                self.elements(cursor, depth, map, true)
            }
            (TypeKind::Enum, Token::List(list)) if list.count == 2 => self.elements(cursor, depth, list, false),
            // A proxy's fields: strings are bare, all else says by its descriptor that it is an object.
            (TypeKind::Throwable | TypeKind::Custom, Token::List(list)) => self.elements(cursor, depth, list, false),
            (TypeKind::Scalar | TypeKind::Custom, Token::Scalar(scalar)) => {
                self.push(Value::Scalar(scalar), content_offset).map(drop)
            }
            _ => fail("a value does not have the form of its type"),
        }
    }

    fn elements(
        &mut self,
        cursor: &mut Cursor<'a>,
        depth: u32,
        compound: Compound,
        are_objects: bool,
    ) -> Result<(), WireError> {
        if compound.count > self.limits.elements_max {
            return cursor.fail(Fault::limit("elements of one list or map", self.limits.elements_max.into()));
        }
        let entered = cursor.enter(compound);
        for _ in 0..compound.count {
            self.value(cursor, depth + 1, are_objects)?;
        }
        cursor.leave(entered)
    }
}

/// Whether the writer gives such a value an index: not Java's primitives, nor byte arrays.
fn is_referable(scalar: Scalar<'_>) -> bool {
    match scalar {
        Scalar::Null | Scalar::Bool(_) | Scalar::Int(_) | Scalar::Long(_) | Scalar::Binary(_) => false,
        Scalar::String(_) | Scalar::Symbol(_) | Scalar::UInt(_) | Scalar::ULong(_) => true,
        Scalar::Other(kind, _) => !matches!(kind, "byte" | "short" | "float" | "double" | "char"),
    }
}
