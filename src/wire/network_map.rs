//! What a network map server says: who takes part, under which parameters, and which are to come.
//!
//! The envelope is that of network parameters (`SignedDataWithCert`); signatures are for `network` to judge.

use super::amqp::header::unpack;
use super::amqp::{Message, Writer};
use super::error::WireError;
use super::hash::{read_hash, read_hashes, write_hash};
use super::limits::Limits;
use super::party::write_name;
use super::time::{read_instant, write_instant};
use super::types::Type;
use crate::domain::{SecureHash, Timestamp, X500Name};

/// A network map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkMapDocument {
    /// The participants' node infos: SHA-256 of the bytes that each of them signed.
    pub node_infos: Vec<SecureHash>,
    /// The parameters in force, by the hash that transactions name.
    pub parameters: SecureHash,
    /// Parameters that will be in force.
    pub update: Option<ParametersUpdate>,
}

/// Announced network parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParametersUpdate {
    /// By the hash that transactions will name.
    pub parameters: SecureHash,
    /// For people.
    pub description: String,
    /// Until when participants have to accept them; they are in force some time later.
    pub deadline: Timestamp,
}

/// Reads a `NetworkMap`.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_network_map(bytes: &[u8], limits: &Limits) -> Result<NetworkMapDocument, WireError> {
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let object = message.root().object(Type::NetworkMap)?;
    let update = object.optional("parametersUpdate")?.map(|update| {
        let update = update.object(Type::ParametersUpdate)?;
        Ok::<_, WireError>(ParametersUpdate {
            parameters: read_hash(update.field("newParametersHash")?)?,
            description: update.field("description")?.string()?.to_owned(),
            deadline: read_instant(update.field("updateDeadline")?)?,
        })
    });
    Ok(NetworkMapDocument {
        node_infos: read_hashes(object.field("nodeInfoHashes")?)?,
        parameters: read_hash(object.field("networkParameterHash")?)?,
        update: update.transpose()?,
    })
}

/// Serializes a `NetworkMap`, as a server does.
pub fn encode_network_map(map: &NetworkMapDocument) -> Vec<u8> {
    Writer::message(|w| {
        w.composite(Type::NetworkMap, |w| {
            write_hash(w, &map.parameters);
            w.list_of(Type::ListOfSecureHash, |w| map.node_infos.iter().for_each(|hash| write_hash(w, hash)));
            w.optional(map.update.as_ref(), |w, update| {
                w.composite(Type::ParametersUpdate, |w| {
                    w.string(&update.description);
                    write_hash(w, &update.parameters);
                    write_instant(w, update.deadline);
                });
            });
        });
    })
}

/// Serializes a `CordaX500Name`. Its SHA-256 is in the name of a node info's file.
pub fn encode_legal_name(name: &X500Name) -> Vec<u8> {
    Writer::message(|w| write_name(w, name))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Made by Corda 4.10's classes.
    fn vector(file: &str) -> Vec<u8> {
        let path = format!("{}/tests/vectors/network-map/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("a vector")
    }

    fn sha256(text: &[u8]) -> SecureHash {
        SecureHash::sha256(Sha256::digest(text).into())
    }

    #[test]
    fn network_maps_by_corda_are_read_and_written_as_corda_does() {
        let plain = NetworkMapDocument {
            node_infos: [1, 2, 3].map(|i| sha256(&[i])).into(),
            parameters: sha256(b"parameters"),
            update: None,
        };
        let deadline = Timestamp::new(1_800_000_000, 5).expect("in range");
        let update =
            ParametersUpdate { parameters: sha256(b"update"), description: "Important update".into(), deadline };
        let update = NetworkMapDocument { update: Some(update), ..plain.clone() };
        let empty = NetworkMapDocument { node_infos: Vec::new(), ..plain.clone() };
        for (file, expected) in [("plain.bin", plain), ("update.bin", update), ("empty.bin", empty)] {
            let bytes = vector(file);
            assert_eq!(decode_network_map(&bytes, &Limits::DEFAULT).as_ref(), Ok(&expected), "{file}");
            assert_eq!(encode_network_map(&expected), bytes, "{file}");
            for len in 0..bytes.len() {
                assert!(decode_network_map(&bytes[..len], &Limits::DEFAULT).is_err(), "{file} cut to {len}");
            }
        }
    }

    #[test]
    fn a_legal_name_is_written_as_corda_does() {
        let name = X500Name::parse("O=HA Notary Worker 1, L=Zurich, C=CH").expect("a name");
        assert_eq!(encode_legal_name(&name), vector("name.bin"));
    }
}
