//! Any message as JSON, known types in the form people write them, unknown ones field by field.

use core::cell::Cell;

use serde_json::{Map, Value, json};

use super::amqp::cursor::Scalar;
use super::amqp::header::MAGIC;
use super::amqp::schema::TypeKind;
use super::amqp::{Elements, Message, Object, View};
use super::component::{is_opaque, read_opaque};
use super::error::{Fault, WireError};
use super::hash::{read_algorithm, read_hash, read_state_ref, shortened};
use super::limits::{Limits, NestedBudget};
use super::party::{read_name, read_party, read_public_key};
use super::time::{corda_time_window, java_instant, read_duration, read_instant, read_time_window};
use super::types::Type;
use crate::domain::{Party, PublicKey};

/// Deepest JSON, over nested messages: four of them, each within its own limit, would still fit the stack many times over.
const DEPTH_MAX: u32 = 256;

/// Most text of one document, in bytes. A message of the largest size in hexadecimal, and as much again around it.
const TEXT_BYTES_MAX: usize = 32 << 20;

/// Longest bytes that are shown in full; of longer ones only the start is. A public key or signature in use fits.
const BYTES_SHOWN_MAX: usize = 1024;

/// What one document may still take.
pub(super) struct Dump<'l> {
    limits: &'l Limits,
    nested: NestedBudget<'l>,
    text_left: Cell<usize>,
}

impl<'l> Dump<'l> {
    pub(super) fn new(limits: &'l Limits, length: usize) -> Self {
        Self { limits, nested: NestedBudget::new(limits, length), text_left: Cell::new(TEXT_BYTES_MAX) }
    }

    fn text(&self, text: impl Into<String>) -> Result<Value, WireError> {
        let text = text.into();
        // A value takes some bytes even if its text is short.
        let left = self.text_left.get().checked_sub(text.len() + 8);
        let left = left.ok_or_else(|| WireError::new(Fault::limit("bytes to show", TEXT_BYTES_MAX as u64), 0))?;
        self.text_left.set(left);
        Ok(Value::String(text))
    }

    /// One value of a message.
    pub(super) fn value(&self, view: View<'_, '_>, depth: u32) -> Result<Value, WireError> {
        if depth >= DEPTH_MAX {
            return view.fail(Fault::limit("levels to show", DEPTH_MAX.into()));
        }
        if let Some(scalar) = view.scalar() {
            return self.scalar(scalar, depth);
        }
        if let Some(known) = self.known(view, depth)? {
            return Ok(known);
        }
        let parts = || view.parts();
        match view.kind() {
            Some(TypeKind::Composite(_)) => match view.as_object() {
                Some(object) => self.object(&object, depth),
                None => view.refuse("an object without fields"),
            },
            Some(TypeKind::List) => self.list(parts(), depth),
            Some(TypeKind::Map) => self.map(parts(), depth),
            Some(TypeKind::Enum) => match parts().next() {
                Some(constant) => self.value(constant?, depth + 1),
                None => view.refuse("a constant without a name"),
            },
            Some(TypeKind::Throwable) => self.throwable(view, depth),
            Some(TypeKind::Scalar) => self.text(short_name(view)),
            Some(TypeKind::Custom) => {
                let value = self.list(parts(), depth)?;
                Ok(json!({ "type": self.text(short_name(view))?, "value": value }))
            }
            None => view.refuse("a value without a type"),
        }
    }

    fn scalar(&self, scalar: Scalar<'_>, depth: u32) -> Result<Value, WireError> {
        match scalar {
            Scalar::Null => Ok(Value::Null),
            Scalar::Bool(value) => Ok(value.into()),
            Scalar::Int(value) => Ok(value.into()),
            Scalar::Long(value) => Ok(value.into()),
            Scalar::UInt(value) => Ok(value.into()),
            Scalar::ULong(value) => Ok(value.into()),
            Scalar::String(text) | Scalar::Symbol(text) => self.text(text),
            Scalar::Binary(bytes) => match bytes.starts_with(MAGIC) {
                // Bytes that merely look like a message are shown as they are.
                true => self.nested(bytes, depth).or_else(|_| self.bytes(bytes)),
                false => self.bytes(bytes),
            },
            Scalar::Other(kind, bytes) => Ok(json!({ "type": kind, "hex": self.text(hex::encode(bytes))? })),
        }
    }

    /// Bytes in hexadecimal, or the start of long ones.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<Value, WireError> {
        match bytes.get(..BYTES_SHOWN_MAX) {
            None | Some([]) => self.text(hex::encode(bytes)),
            Some(start) => Ok(json!({ "length": bytes.len(), "start": self.text(hex::encode(start))? })),
        }
    }

    /// A message within a message.
    pub(super) fn nested(&self, bytes: &[u8], depth: u32) -> Result<Value, WireError> {
        let plain = self.nested.open(bytes)?;
        self.value(Message::read(&plain, self.limits)?.root(), depth + 1)
    }

    /// The types that people write in a form of their own.
    fn known(&self, view: View<'_, '_>, depth: u32) -> Result<Option<Value>, WireError> {
        let is = |ty| view.is(ty);
        Ok(Some(if is(Type::Sha256Hash) || is(Type::NamedHash) {
            self.text(read_hash(view)?.to_string())?
        } else if is(Type::StateRef) {
            self.text(read_state_ref(view)?.to_string())?
        } else if is(Type::Party) {
            self.party(&read_party(view)?)?
        } else if is(Type::CordaX500Name) {
            self.text(read_name(view)?.to_string())?
        } else if is(Type::TimeWindowBetween) || is(Type::TimeWindowFrom) || is(Type::TimeWindowUntil) {
            self.text(corda_time_window(&read_time_window(view)?))?
        } else if is(Type::DigestService) {
            self.text(read_algorithm(view.object(Type::DigestService)?.field("hashAlgorithm")?)?.name())?
        } else if is_opaque(&view) {
            let bytes = read_opaque(view)?;
            match bytes.starts_with(MAGIC) {
                true => self.nested(bytes, depth).map_err(|error| error.inside("a message within the message"))?,
                false => self.bytes(bytes)?,
            }
        } else {
            match view.type_name() {
                Some("java.security.PublicKey") => self.key(&read_public_key(view)?)?,
                Some("java.time.Instant") => self.text(java_instant(read_instant(view)?))?,
                Some("java.time.Duration") => self.text(format!("{:?}", read_duration(view)?))?,
                Some("java.lang.Throwable") => self.throwable(view, depth)?,
                _ => return Ok(None),
            }
        }))
    }

    fn object(&self, object: &Object<'_, '_>, depth: u32) -> Result<Value, WireError> {
        let mut fields = Map::new();
        fields.insert(String::from("type"), self.text(short_name(object.view()))?);
        for (name, value) in object.fields() {
            let Value::String(name) = self.text(shortened(name))? else { unreachable!("text is a string") };
            fields.insert(name, self.value(value?, depth + 1)?);
        }
        Ok(Value::Object(fields))
    }

    fn list(&self, parts: Elements<'_, '_>, depth: u32) -> Result<Value, WireError> {
        parts.map(|part| self.value(part?, depth + 1)).collect::<Result<_, _>>().map(Value::Array)
    }

    /// A map, as pairs: its keys need not be text.
    fn map(&self, mut parts: Elements<'_, '_>, depth: u32) -> Result<Value, WireError> {
        let mut entries = Vec::new();
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            let (key, value) = (self.value(key?, depth + 1)?, self.value(value?, depth + 1)?);
            entries.push(json!({ "key": key, "value": value }));
        }
        Ok(Value::Array(entries))
    }

    fn throwable(&self, view: View<'_, '_>, depth: u32) -> Result<Value, WireError> {
        let [properties, cause, class, message, _stack_trace, _suppressed] = view.throwable()?;
        Ok(json!({
            "class": self.value(class, depth + 1)?,
            "message": self.value(message, depth + 1)?,
            "cause": self.value(cause, depth + 1)?,
            "properties": self.value(properties, depth + 1)?,
        }))
    }

    pub(super) fn party(&self, party: &Party) -> Result<Value, WireError> {
        Ok(json!({ "name": self.text(party.name.to_string())?, "owningKey": self.key(&party.owning_key)? }))
    }

    pub(super) fn key(&self, key: &PublicKey) -> Result<Value, WireError> {
        Ok(json!({ "scheme": format!("{:?}", key.scheme()), "x509": self.bytes(key.as_spki())? }))
    }
}

/// A class without its package, which says enough where only few occur.
fn short_name(view: View<'_, '_>) -> String {
    let name = view.type_name().unwrap_or_default();
    let (class, _) = name.split_once('<').unwrap_or((name, ""));
    shortened(class.rsplit_once('.').map_or(class, |(_, class)| class)).to_owned()
}
