//! Signatures, replies that carry them, and the bytes that they cover.

use core::time::Duration;

use super::amqp::header::unpack;
use super::amqp::{Message, View, Writer};
use super::error::{Fault, WireError};
use super::hash::{write_hash, write_state_ref};
use super::limits::Limits;
use super::party::{read_public_key, write_public_key};
use super::time::{read_duration, write_duration};
use super::tree::{TreeBudget, read_tree, write_tree};
use super::types::Type;
use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::signed_form::{SignatureMetadata, SignedForm};
use crate::domain::{SecureHash, StateRef, TxId};

/// The longest signature that is kept, in bytes: twice that of an RSA key of 16,384 bits, longer than any in use.
const SIGNATURE_BYTES_MAX: usize = 4096;

/// Reads a signature's bytes.
pub(super) fn read_signature_bytes(view: View<'_, '_>) -> Result<Vec<u8>, WireError> {
    match view.binary()? {
        bytes if bytes.len() <= SIGNATURE_BYTES_MAX => Ok(bytes.to_vec()),
        _ => view.fail(Fault::limit("bytes of a signature", SIGNATURE_BYTES_MAX as u64)),
    }
}

pub(super) fn read_transaction_signature(
    view: View<'_, '_>,
    trees: &TreeBudget,
) -> Result<TransactionSignature, WireError> {
    let object = view.object(Type::TransactionSignature)?;
    let metadata = object.field("signatureMetadata")?.object(Type::SignatureMetadata)?;
    Ok(TransactionSignature {
        by: read_public_key(object.field("by")?)?,
        bytes: read_signature_bytes(object.field("bytes")?)?,
        partial_tree: object.optional("partialMerkleTree")?.map(|tree| read_tree(tree, trees)).transpose()?,
        metadata: SignatureMetadata {
            platform_version: metadata.field("platformVersion")?.int()?,
            scheme_number_id: metadata.field("schemeNumberID")?.int()?,
        },
    })
}

pub(super) fn read_response(view: View<'_, '_>, limits: &Limits) -> Result<Vec<TransactionSignature>, WireError> {
    let signatures = view.object(Type::NotarisationResponse)?.field("signatures")?;
    let trees = TreeBudget::new(limits);
    signatures.list()?.map(|signature| read_transaction_signature(signature?, &trees)).collect()
}

pub(super) fn read_wait_time_update(view: View<'_, '_>) -> Result<Duration, WireError> {
    read_duration(view.object(Type::WaitTimeUpdate)?.field("waitTime")?)
}

fn write_metadata(w: &mut Writer, metadata: SignatureMetadata) {
    w.composite(Type::SignatureMetadata, |w| {
        w.int(metadata.platform_version);
        w.int(metadata.scheme_number_id);
    });
}

fn write_transaction_signature(w: &mut Writer, signature: &TransactionSignature) {
    w.composite(Type::TransactionSignature, |w| {
        write_public_key(w, &signature.by);
        w.binary(&signature.bytes);
        w.optional(signature.partial_tree.as_ref(), write_tree);
        write_metadata(w, signature.metadata);
    });
}

/// Serializes a `NotarisationResponse`: the payload of the data message that answers a committed request.
pub fn encode_notarisation_response(signatures: &[TransactionSignature]) -> Vec<u8> {
    Writer::message(|w| {
        w.composite(Type::NotarisationResponse, |w| {
            w.list_of(Type::ListOfTransactionSignature, |w| {
                signatures.iter().for_each(|signature| write_transaction_signature(w, signature));
            });
        });
    })
}

/// Serializes one `TransactionSignature` by itself.
pub fn encode_transaction_signature(signature: &TransactionSignature) -> Vec<u8> {
    Writer::message(|w| write_transaction_signature(w, signature))
}

/// Reads one `TransactionSignature` by itself.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_transaction_signature(bytes: &[u8], limits: &Limits) -> Result<TransactionSignature, WireError> {
    let plain = unpack(bytes, limits)?;
    read_transaction_signature(Message::read(&plain, limits)?.root(), &TreeBudget::new(limits))
}

/// Serializes a `WaitTimeUpdate`: the payload of the data message that asks a client to wait longer.
pub fn encode_wait_time_update(wait_time: Duration) -> Vec<u8> {
    Writer::message(|w| w.composite(Type::WaitTimeUpdate, |w| write_duration(w, wait_time)))
}

/// What a notary sends as data in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotaryReply {
    /// The request is committed: the signatures.
    Signatures(Vec<TransactionSignature>),
    /// The answer will take this long.
    WaitTime(Duration),
}

/// Reads what a notary sends as data: `NotarisationResponse` or `WaitTimeUpdate`.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_notary_reply(bytes: &[u8], limits: &Limits) -> Result<NotaryReply, WireError> {
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let root = message.root();
    if root.is(Type::WaitTimeUpdate) {
        return read_wait_time_update(root).map(NotaryReply::WaitTime);
    }
    read_response(root, limits).map(NotaryReply::Signatures)
}

/// Corda's serialized form of what is signed (PROTOCOL a.8). No references occur in it: the bytes depend on the values alone.
#[derive(Clone, Copy, Default, Debug)]
pub struct CordaSignedForm;

impl SignedForm for CordaSignedForm {
    fn notarisation_request(&self, inputs: &[StateRef], tx_id: &TxId) -> Vec<u8> {
        let mut sorted: Vec<_> = inputs.iter().collect();
        sorted.sort_by(|a, b| a.cmp_corda(b));
        Writer::message(|w| {
            w.composite(Type::NotarisationRequest, |w| {
                w.list_of(Type::ListOfStateRef, |w| sorted.iter().for_each(|state| write_state_ref(w, state)));
                write_hash(w, &tx_id.0);
            });
        })
    }

    fn signable_data(&self, id: &SecureHash, metadata: SignatureMetadata) -> Vec<u8> {
        Writer::message(|w| {
            w.composite(Type::SignableData, |w| {
                write_metadata(w, metadata);
                write_hash(w, id);
            });
        })
    }
}
