//! Components: the parts of a transaction, each a serialized message of its own, whose bytes make the transaction's id.

use core::fmt;

use super::amqp::header::unpack;
use super::amqp::{Message, View, Writer};
use super::error::WireError;
use super::hash::{read_hash, read_state_ref, read_state_refs, write_hash, write_state_ref};
use super::limits::{Limits, NestedBudget};
use super::party::{read_party, write_party};
use super::time::{read_time_window, write_time_window};
use super::types::Type;
use crate::domain::{Party, SecureHash, StateRef, TimeWindow};

/// Whether a value is `OpaqueBytes`, or `SerializedBytes` of anything.
pub(super) fn is_opaque(view: &View<'_, '_>) -> bool {
    let has_parameter =
        |name: &str| name.strip_prefix(Type::SerializedBytes.name()).is_some_and(|rest| rest.starts_with('<'));
    view.is(Type::SerializedBytes) || view.is(Type::OpaqueBytes) || view.type_name().is_some_and(has_parameter)
}

/// Reads bytes that are mostly themselves a serialized message.
#[inline]
pub(super) fn read_opaque<'a>(view: View<'_, 'a>) -> Result<&'a [u8], WireError> {
    match view.as_object() {
        Some(object) if is_opaque(&view) => {
            let bytes = object.field("bytes")?;
            match bytes.binary()? {
                [] => bytes.refuse("serialized bytes are empty"),
                bytes => Ok(bytes),
            }
        }
        _ => view.wrong_type(Type::OpaqueBytes.name()),
    }
}

/// Reads a message nested in another; `part` says which, should it be refused.
pub(super) fn read_nested<T>(
    bytes: &[u8],
    nested: &NestedBudget<'_>,
    part: impl fmt::Display,
    read: impl FnOnce(View<'_, '_>) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let read_all = || {
        let plain = nested.open(bytes)?;
        read(Message::read(&plain, nested.limits())?.root())
    };
    read_all().map_err(|error| error.inside(part))
}

macro_rules! components {
    ($($decode:ident, $encode:ident, $of:ty, $read:path, $write:path, $what:literal;)*) => { $(
        #[doc = concat!("Reads a component: ", $what, ".")]
        ///
        /// # Errors
        /// [`WireError`] for anything else.
        pub fn $decode(bytes: &[u8], limits: &Limits) -> Result<$of, WireError> {
            let plain = unpack(bytes, limits)?;
            $read(Message::read(&plain, limits)?.root())
        }

        #[doc = concat!("Serializes a component: ", $what, ".")]
        pub fn $encode(value: &$of) -> Vec<u8> {
            Writer::message(|w| $write(w, value))
        }
    )* };
}

components! {
    decode_state_ref, encode_state_ref, StateRef, read_state_ref, write_state_ref, "a state";
    decode_party, encode_party, Party, read_party, write_party, "a party";
    decode_time_window, encode_time_window, TimeWindow, read_time_window, write_time_window, "a time window";
    decode_secure_hash, encode_secure_hash, SecureHash, read_hash, write_hash, "a hash";
}

/// Reads a component: the list of inputs of a notary change or contract upgrade.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_state_refs(bytes: &[u8], limits: &Limits) -> Result<Vec<StateRef>, WireError> {
    let plain = unpack(bytes, limits)?;
    read_state_refs(Message::read(&plain, limits)?.root())
}

/// Serializes a component: the list of inputs of a notary change or contract upgrade.
pub fn encode_state_refs(states: &[StateRef]) -> Vec<u8> {
    Writer::message_sharing_hashes(|w| {
        w.list_of(Type::ListOfObject, |w| states.iter().for_each(|state| write_state_ref(w, state)));
    })
}
