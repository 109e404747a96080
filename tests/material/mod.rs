//! New versions of a development network's documents, signed by its own keys.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file is a program of its own and uses a part of this"
)]

use std::fs;
use std::path::Path;

use notary_worker::domain::SecureHash;
use notary_worker::keys::PrivateKey;
use notary_worker::network::Certificate;
use notary_worker::wire::{self, Limits};
use sha2::{Digest, Sha256};

/// A key of `authorities/`.
pub fn authority(net: &Path, name: &str) -> PrivateKey {
    let pem = fs::read_to_string(net.join(format!("authorities/{name}.p8"))).expect("a key");
    PrivateKey::from_pkcs8_pem(&pem).expect("a key")
}

/// The parameters in force with another epoch and a hash to know them by, signed by the network or another key.
pub fn parameters(net: &Path, epoch: i32, key: Option<&PrivateKey>) -> (SecureHash, Vec<u8>) {
    let bytes = fs::read(net.join("network/network-parameters")).expect("a file");
    let signed = wire::decode_signed_network_parameters(&bytes, &Limits::DEFAULT).expect("signed");
    let mut document = wire::decode_network_parameters(&signed.raw, &Limits::DEFAULT).expect("a document");
    document.parameters.epoch = epoch;
    let raw = wire::encode_network_parameters(&document);
    let signature = key.unwrap_or(&authority(net, "parameters")).sign(&raw);
    let hash = SecureHash::sha256(Sha256::digest(&raw).into());
    (hash, wire::encode_signed_network_parameters(&wire::SignedNetworkParameters { raw, signature, ..signed }))
}

pub fn node_info(file: &Path) -> wire::NodeInfo {
    let bytes = fs::read(file).expect("a file");
    let signed = wire::decode_signed_node_info(&bytes, &Limits::DEFAULT).expect("signed");
    wire::decode_node_info(&signed.raw, &Limits::DEFAULT).expect("info")
}

/// Writes a path of certificates as PEM, own certificate first.
pub fn write_chain(file: &Path, path: &wire::CertificatePath) {
    let pem = path.0.iter().rev().map(|der| Certificate::from_der(der).expect("a certificate").to_pem());
    fs::write(file, pem.collect::<String>()).expect("written");
}
