//! The verifier of real signatures, held against responses that real Corda made, and against tampered ones.

use notary_worker::domain::{PublicKey, SecureHash, TxId};
use serde_json::Value;

use crate::history::{CordaVerifier, Verifier};

fn vector(file: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/").to_owned() + file;
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The transaction and the key of a response that real Corda accepts.
fn expected(file: &str) -> (TxId, PublicKey) {
    let manifest: Value = serde_json::from_slice(&vector("manifest.json")).expect("the manifest is JSON");
    let entries = manifest["vectors"].as_array().expect("a list");
    let expected = &entries.iter().find(|entry| entry["file"] == file).expect("it is in the manifest")["expected"];
    let tx = SecureHash::parse(expected["txId"].as_str().expect("text")).expect("a hash");
    let key = hex::decode(expected["signature"]["byX509Hex"].as_str().expect("text")).expect("hexadecimal");
    (TxId(tx), PublicKey::from_spki(&key).expect("a key"))
}

#[test]
fn real_responses_hold_for_their_transaction_and_key_only() {
    let (other_tx, _) = expected("response_batch.payload.bin");
    for file in ["response_single.payload.bin", "response_batch_of_one.payload.bin"] {
        let (tx, notary) = expected(file);
        let verifier = CordaVerifier { notary };
        assert_eq!(verifier.verify(&tx, &vector(file)), Ok(()), "{file}");
        assert!(verifier.verify(&other_tx, &vector(file)).is_err(), "{file} for another transaction");
        assert!(verifier.verify(&tx, &vector(file)[1..]).is_err(), "{file} damaged");

        let spki = "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let notary = PublicKey::from_spki(&hex::decode(spki).expect("hexadecimal")).expect("a key");
        assert!(CordaVerifier { notary }.verify(&tx, &vector(file)).is_err(), "{file} under another key");
    }
}

#[test]
fn a_real_batch_response_holds() {
    let (tx, notary) = expected("response_batch.payload.bin");
    assert_eq!(CordaVerifier { notary }.verify(&tx, &vector("response_batch.payload.bin")), Ok(()));
}

#[test]
fn tampered_responses_do_not_hold() {
    let (tx, notary) = expected("response_single.payload.bin");
    let verifier = CordaVerifier { notary };
    let tampered =
        ["tampered_response_metadata.bin", "tampered_response_batch_other_tx.bin", "tampered_response_bit.bin"];
    for file in tampered {
        assert!(verifier.verify(&tx, &vector(file)).is_err(), "{file}");
    }
}
