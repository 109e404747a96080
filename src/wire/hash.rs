//! Hashes, and the states that they name.

use super::amqp::{Object, View, Writer};
use super::error::WireError;
use super::types::Type;
use crate::domain::{HashAlgorithm, SecureHash, StateRef, TxId};

/// Reads `SecureHash$SHA256` or `SecureHash$HASH`.
#[inline]
pub(super) fn read_hash(view: View<'_, '_>) -> Result<SecureHash, WireError> {
    let (object, algorithm) = match view.as_object() {
        Some(object) if view.is(Type::Sha256Hash) => (object, HashAlgorithm::Sha256),
        _ => {
            let object = view.object(Type::NamedHash)?;
            let algorithm = read_algorithm(object.field("algorithm")?)?;
            if algorithm == HashAlgorithm::Sha256 {
                // SHA-256 has its own class. Under two classes one state would have two names, and could be spent twice.
                return view.refuse("a hash names SHA-256 explicitly, which is not its canonical form");
            }
            (object, algorithm)
        }
    };
    SecureHash::new(algorithm, object.field("bytes")?.binary()?).or_else(|error| view.refuse(error.to_string()))
}

/// Reads the name of a hash algorithm. Only canonical names pass: an alias would give one state two names.
pub(super) fn read_algorithm(view: View<'_, '_>) -> Result<HashAlgorithm, WireError> {
    let name = view.string()?;
    HashAlgorithm::from_name(name)
        .map_or_else(|| view.refuse(format!("{:?} is no hash algorithm's canonical name", shortened(name))), Ok)
}

/// Reads the field `digestService`; senders before platform version 9 have none and mean SHA-256.
pub(super) fn read_digest_service(object: &Object<'_, '_>) -> Result<HashAlgorithm, WireError> {
    if !object.has("digestService") {
        return Ok(HashAlgorithm::Sha256);
    }
    read_algorithm(object.field("digestService")?.object(Type::DigestService)?.field("hashAlgorithm")?)
}

/// Reads a `StateRef`.
pub(super) fn read_state_ref(view: View<'_, '_>) -> Result<StateRef, WireError> {
    let object = view.object(Type::StateRef)?;
    let index = object.field("index")?;
    let index = match u32::try_from(index.int()?) {
        Ok(index) => index,
        Err(_) => return index.refuse("a state's index is negative"),
    };
    Ok(StateRef { tx_id: TxId(read_hash(object.field("txhash")?)?), index })
}

/// Reads a list of `StateRef`s.
pub(super) fn read_state_refs(view: View<'_, '_>) -> Result<Vec<StateRef>, WireError> {
    view.list()?.map(|state| read_state_ref(state?)).collect()
}

/// Reads a list of hashes.
pub(super) fn read_hashes(view: View<'_, '_>) -> Result<Vec<SecureHash>, WireError> {
    view.list()?.map(|hash| read_hash(hash?)).collect()
}

pub(super) fn write_hash(w: &mut Writer, hash: &SecureHash) {
    w.shared_hash(hash, |w| match hash.algorithm() {
        HashAlgorithm::Sha256 => w.composite(Type::Sha256Hash, |w| w.binary(hash.as_bytes())),
        algorithm => w.composite(Type::NamedHash, |w| {
            w.string(algorithm.name());
            w.binary(hash.as_bytes());
        }),
    });
}

pub(super) fn write_digest_service(w: &mut Writer, algorithm: HashAlgorithm) {
    w.composite(Type::DigestService, |w| w.string(algorithm.name()));
}

pub(super) fn write_state_ref(w: &mut Writer, state: &StateRef) {
    w.composite(Type::StateRef, |w| {
        debug_assert!(state.index <= StateRef::INDEX_MAX, "Java's int is signed");
        w.int(state.index as i32);
        write_hash(w, &state.tx_id.0);
    });
}

/// The start of a text from outside, fit for a message to people.
pub(super) fn shortened(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}
