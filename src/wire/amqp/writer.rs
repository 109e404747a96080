//! Writes messages byte for byte as a Corda node does (PROTOCOL a.3, a.5, a.6).
//!
//! A schema lists types in the order in which the writer first needs them. Each type's notation is encoded once per process, so a
//! message's schema is a few copies.

use std::collections::HashMap;

use super::header;
use super::known::known;
use super::schema::DESCRIPTOR_PREFIX;
use crate::domain::SecureHash;
use crate::wire::types::{Form, Type};

/// A message being written.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Values written to the innermost list or map.
    count: u32,
    /// The schema, in the order of need.
    types: Vec<Type>,
    /// The same as a set of bits by table place.
    known: u128,
    /// Objects written, which is the next object's index.
    objects: u32,
    /// Where equal hashes are shared: their indices.
    hashes: Option<HashMap<SecureHash, u32>>,
}

const _: () = assert!(Type::ALL.len() <= u128::BITS as usize, "a set of types is one bit each");

/// Bytes that a list or map may take before its first element: constructor, size and count in their wide form.
const COMPOUND_HEAD: usize = 9;

impl Writer {
    /// Writes one message whose outermost value is what `body` writes. Every value is written in full.
    pub(crate) fn message(body: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::write(None, body)
    }

    /// As [`Self::message`], but a hash that occurs again is written as a reference to its first occurrence. In a node's own
    /// messages equal hashes are mostly one instance, so this gives the node's bytes.
    pub(crate) fn message_sharing_hashes(body: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::write(Some(HashMap::new()), body)
    }

    fn write(hashes: Option<HashMap<SecureHash, u32>>, body: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2048);
        bytes.extend_from_slice(header::MAGIC);
        bytes.push(header::DATA_AND_STOP);
        let mut writer = Self { bytes, count: 0, types: Vec::with_capacity(16), known: 0, objects: 0, hashes };
        writer.framework(1, |w| {
            body(w);
            w.schema();
            w.framework_map(9);
        });
        writer.bytes
    }

    /// Writes values that are no message.
    pub(super) fn fragment(content: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self { bytes: Vec::new(), count: 0, types: Vec::new(), known: 0, objects: 0, hashes: None };
        content(&mut writer);
        writer.bytes
    }

    fn schema(&mut self) {
        let types = core::mem::take(&mut self.types);
        self.framework(2, |w| {
            w.list(|w| {
                for ty in types {
                    w.count += 1;
                    w.bytes.extend_from_slice(&known(ty).notation);
                }
            });
        });
    }

    fn need(&mut self, ty: Type) {
        let bit = 1u128 << ty as u8;
        if self.known & bit == 0 {
            self.known |= bit;
            self.types.push(ty);
            for needed in &known(ty).needs {
                self.need(*needed);
            }
        }
    }

    fn framework_descriptor(&mut self, number: u8) {
        self.bytes.extend_from_slice(&[0x00, 0x80, 0xc5, 0x62, 0, 0, 0, 0, 0, number]);
    }

    pub(super) fn framework(&mut self, number: u8, content: impl FnOnce(&mut Self)) {
        self.framework_descriptor(number);
        self.list(content);
    }

    /// An empty map of a framework type.
    fn framework_map(&mut self, number: u8) {
        self.framework_descriptor(number);
        self.map(|_| {});
    }

    pub(super) fn list(&mut self, content: impl FnOnce(&mut Self)) {
        self.compound(0xc0, content);
    }

    fn map(&mut self, content: impl FnOnce(&mut Self)) {
        self.compound(0xc1, content);
    }

    /// Writes a list or map: `narrow` is its narrow constructor, the wide one is 0x10 above.
    fn compound(&mut self, narrow: u8, content: impl FnOnce(&mut Self)) {
        let outer_count = core::mem::take(&mut self.count);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; COMPOUND_HEAD]);
        content(self);
        let count = core::mem::replace(&mut self.count, outer_count + 1);
        let length = self.bytes.len() - start - COMPOUND_HEAD;
        if count == 0 && narrow == 0xc0 {
            self.bytes.truncate(start);
            self.bytes.push(0x45);
        } else if length < 255 {
            // A count above 255 needs more bytes than that, so it fits too.
            self.bytes[start..start + 3].copy_from_slice(&[narrow, length as u8 + 1, count as u8]);
            self.bytes.copy_within(start + COMPOUND_HEAD.., start + 3);
            self.bytes.truncate(start + 3 + length);
        } else {
            let head = &mut self.bytes[start..start + COMPOUND_HEAD];
            head[0] = narrow + 0x10;
            head[1..5].copy_from_slice(&(length as u32 + 4).to_be_bytes());
            head[5..9].copy_from_slice(&count.to_be_bytes());
        }
    }

    fn object(&mut self, ty: Type, content: impl FnOnce(&mut Self)) {
        self.need(ty);
        self.bytes.extend_from_slice(&known(ty).head);
        content(self);
        self.objects += 1;
    }

    /// An object of a composite type: `fields` writes one value a field, in wire order.
    pub(crate) fn composite(&mut self, ty: Type, fields: impl FnOnce(&mut Self)) {
        debug_assert!(matches!(ty.info().form, Form::Composite(_)), "{ty:?}");
        self.object(ty, |w| {
            w.list(|w| {
                fields(w);
                if let Form::Composite(expected) = ty.info().form {
                    debug_assert_eq!(w.count as usize, expected.len(), "{ty:?} has another number of fields");
                }
            });
        });
    }

    /// A list or array of objects.
    pub(crate) fn list_of(&mut self, ty: Type, elements: impl FnOnce(&mut Self)) {
        self.object(ty, |w| w.list(elements));
    }

    /// A map: `entries` writes keys and values in turn.
    pub(crate) fn map_of(&mut self, ty: Type, entries: impl FnOnce(&mut Self)) {
        self.object(ty, |w| w.map(entries));
    }

    /// A throwable of a declared type: `parts` writes the six parts of its proxy.
    pub(crate) fn throwable(&mut self, ty: Type, parts: impl FnOnce(&mut Self)) {
        self.object(ty, |w| w.list(parts));
    }

    /// A constant of an enum by its ordinal.
    pub(crate) fn constant(&mut self, ty: Type, ordinal: usize) {
        let Form::Enum(constants) = ty.info().form else { unreachable!("{ty:?} is no enum") };
        self.object(ty, |w| {
            w.list(|w| {
                w.string(constants[ordinal]);
                w.int(ordinal as i32);
            });
        });
    }

    /// A Kotlin object.
    pub(crate) fn singleton(&mut self, ty: Type) {
        self.object(ty, |w| w.boolean(false));
    }

    /// What the custom serializer of `class` writes as a list.
    pub(crate) fn custom_list(&mut self, class: &str, parts: impl FnOnce(&mut Self)) {
        self.custom_head(class);
        self.list(parts);
        self.objects += 1;
    }

    /// What the custom serializer of `class` writes as bytes.
    pub(crate) fn custom_binary(&mut self, class: &str, bytes: &[u8]) {
        self.custom_head(class);
        self.binary(bytes);
        self.objects += 1;
    }

    fn custom_head(&mut self, class: &str) {
        self.bytes.push(0x00);
        write_symbol(&mut self.bytes, &[DESCRIPTOR_PREFIX, class]);
    }

    /// The index of the object written last.
    pub(crate) fn last_object(&self) -> u32 {
        self.objects - 1
    }

    /// The object of this index, once more.
    pub(crate) fn reference(&mut self, index: u32) {
        self.framework_descriptor(8);
        match u8::try_from(index) {
            Ok(0) => self.bytes.push(0x43),
            Ok(narrow) => self.bytes.extend_from_slice(&[0x52, narrow]),
            Err(_) => {
                self.bytes.push(0x70);
                self.bytes.extend_from_slice(&index.to_be_bytes());
            }
        }
        self.count += 1;
    }

    /// `hash`, written by `content` unless it is shared and was written before.
    pub(crate) fn shared_hash(&mut self, hash: &SecureHash, content: impl FnOnce(&mut Self)) {
        match self.hashes.as_ref().and_then(|hashes| hashes.get(hash)) {
            Some(&index) => self.reference(index),
            None => {
                content(self);
                let index = self.last_object();
                if let Some(hashes) = &mut self.hashes {
                    hashes.insert(*hash, index);
                }
            }
        }
    }

    pub(super) fn symbol(&mut self, text: &str) {
        self.count += 1;
        write_symbol(&mut self.bytes, &[text]);
    }

    pub(crate) fn null(&mut self) {
        self.count += 1;
        self.bytes.push(0x40);
    }

    /// The value, or null.
    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.count += 1;
        self.bytes.push(if value { 0x41 } else { 0x42 });
    }

    pub(crate) fn int(&mut self, value: i32) {
        self.count += 1;
        match i8::try_from(value) {
            Ok(narrow) => self.bytes.extend_from_slice(&[0x54, narrow as u8]),
            Err(_) => {
                self.bytes.push(0x71);
                self.bytes.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    pub(crate) fn long(&mut self, value: i64) {
        self.count += 1;
        match i8::try_from(value) {
            Ok(narrow) => self.bytes.extend_from_slice(&[0x55, narrow as u8]),
            Err(_) => {
                self.bytes.push(0x81);
                self.bytes.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    /// A string as a field, which is no object.
    pub(crate) fn string(&mut self, text: &str) {
        self.count += 1;
        write_string(&mut self.bytes, text);
    }

    /// A string in a list or map, which is an object.
    pub(crate) fn string_object(&mut self, text: &str) {
        self.string(text);
        self.objects += 1;
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.count += 1;
        write_variable(&mut self.bytes, 0xa0, &[bytes]);
    }
}

/// Writes bytes of variable length: `narrow` is the narrow constructor, the wide one is 0x10 above.
fn write_variable(out: &mut Vec<u8>, narrow: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[narrow, length]),
        Err(_) => {
            out.push(narrow + 0x10);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    write_variable(out, 0xa1, &[text.as_bytes()]);
}

pub(super) fn write_symbol(out: &mut Vec<u8>, parts: &[&str]) {
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    write_variable(out, 0xa3, &parts);
}
