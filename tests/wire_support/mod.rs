//! What the suites share: the vectors of real Corda and, for the wire, an AMQP tree to take messages apart with.

#![allow(dead_code, missing_docs, reason = "each suite uses its part")]

pub(crate) mod amqp;
pub(crate) mod mutate;

use notary_worker::domain::{PublicKey, SecureHash, StateRef, TxId};
use serde_json::Value;

/// A file of `tests/vectors`.
pub(crate) fn vector(file: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/").to_owned() + file;
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn manifest() -> Value {
    serde_json::from_slice(&vector("manifest.json")).expect("the manifest is JSON")
}

/// The manifest's entries as (file, kind, expected).
pub(crate) fn entries() -> Vec<(String, String, Value)> {
    let manifest = manifest();
    let entry =
        |entry: &Value| (text(&entry["file"]).to_owned(), text(&entry["kind"]).to_owned(), entry["expected"].clone());
    list(&manifest["vectors"]).iter().map(entry).collect()
}

pub(crate) fn expected(file: &str) -> Value {
    let found = entries().into_iter().find(|(name, ..)| name == file);
    found.unwrap_or_else(|| panic!("{file} is not in the manifest")).2
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

pub(crate) fn hex_bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).expect("hex")
}

pub(crate) fn hash(value: &Value) -> SecureHash {
    SecureHash::parse(text(value)).unwrap_or_else(|| panic!("not a hash: {value}"))
}

pub(crate) fn state(value: &Value) -> StateRef {
    StateRef { tx_id: TxId(hash(&value["txhash"])), index: value["index"].as_u64().expect("an index") as u32 }
}

pub(crate) fn states(value: &Value) -> Vec<StateRef> {
    list(value).iter().map(state).collect()
}

pub(crate) fn key(value: &Value) -> PublicKey {
    PublicKey::from_spki(&hex_bytes(value)).expect("a key")
}
