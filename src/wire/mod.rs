//! Bytes to domain and back: the Corda AMQP codec (PROTOCOL a, c.1, d.1, i).
//!
//! `decode_session_message` and `decode_notarisation_payload` read what clients send; the `encode_session_*` functions and
//! `encode_notarisation_response` write what the worker answers. The rest is the clients' half and the network's documents.
//!
//! `amqp` is the serialization as a format, `types` the table of Corda's types, and every other module reads and writes one
//! family of them. Nothing here decides anything: what is well-formed passes, whether it is true is for `domain` to check.
//!
//! A message may be compressed. Functions whose results borrow from their input ask for bytes that went through `unpack`, the
//! others do it themselves.

mod amqp;
mod component;
mod dump;
mod error;
mod hash;
mod inspect;
mod limits;
mod network;
mod network_map;
mod notary_error;
mod party;
mod payload;
mod session;
mod signature;
mod time;
mod tree;
mod types;

use std::borrow::Cow;

pub use component::{
    decode_party, decode_secure_hash, decode_state_ref, decode_state_refs, decode_time_window, encode_party,
    encode_secure_hash, encode_state_ref, encode_state_refs, encode_time_window,
};
pub use error::{Fault, WireError};
pub use inspect::inspect;
pub use limits::Limits;
pub use network::{
    CertificatePath, NetworkParametersDocument, NodeInfo, SignedNetworkParameters, SignedNodeInfo, announcement,
    decode_network_parameters, decode_node_info, decode_signed_network_parameters, decode_signed_node_info,
    encode_network_parameters, encode_node_info, encode_signed_network_parameters, encode_signed_node_info,
};
pub use network_map::{
    NetworkMapDocument, ParametersUpdate, decode_network_map, encode_legal_name, encode_network_map,
};
pub use notary_error::FlowException;
pub use payload::{decode_notarisation_payload, encode_notarisation_payload};
pub use session::{
    ExistingPayload, InitialSession, SessionMessage, Telemetry, decode_session_message, encode_session_confirm,
    encode_session_data, encode_session_end, encode_session_error, encode_session_initial, encode_session_reject,
};
pub use signature::{
    CordaSignedForm, NotaryReply, decode_notary_reply, decode_transaction_signature, encode_notarisation_response,
    encode_transaction_signature, encode_wait_time_update,
};
pub use tree::{decode_partial_tree, encode_partial_tree};

/// Undoes a message's compression, if it has one.
///
/// # Errors
/// [`WireError`] for anything but Corda's AMQP serialization, for compression other than Snappy's, and for more bytes than
/// `limits` allow, before or after.
pub fn unpack<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, WireError> {
    amqp::header::unpack(bytes, limits)
}
