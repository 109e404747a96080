//! Any Corda message of this protocol as readable JSON: what an operator asks of a message in a dead-letter queue.
//!
//! The message is decoded exactly as the worker decodes it, so what the worker refuses is refused here with the same reason.

use serde_json::{Value, json};

use super::amqp::Message;
use super::amqp::header::unpack;
use super::dump::Dump;
use super::error::{Fault, WireError};
use super::limits::Limits;
use super::network::{
    decode_network_parameters, decode_node_info, decode_signed_network_parameters, decode_signed_node_info,
};
use super::notary_error::FlowException;
use super::payload::decode_notarisation_payload;
use super::session::{ExistingPayload, InitialSession, SessionMessage, decode_session_message};
use super::signature::{NotaryReply, decode_notary_reply};
use super::time::{corda_time_window, java_instant};
use super::types::Type;
use crate::domain::merkle::{PartialNode, PartialTree};
use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::notary_error::StateUsage;
use crate::domain::transaction::{CoreTransaction, FilteredTransaction, NotarisationPayload};
use crate::domain::{NotaryError, SecureHash, StateRef, TimeWindow};

/// Decodes a message of any type, and the messages nested in it, to JSON for people. The key `message` names the outer type;
/// for the types of this protocol the rest follows Corda's names, for any other it is one entry a field.
///
/// # Errors
/// [`WireError`] for anything that is not exactly one message within the limits, or that this worker would refuse to decode.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Value, WireError> {
    show(bytes, limits, 0)
}

/// Messages nest in messages this deep: a payload in a session message, or parameters in what is signed.
const LEVELS_MAX: u32 = 2;

fn show(bytes: &[u8], limits: &Limits, level: u32) -> Result<Value, WireError> {
    if level >= LEVELS_MAX {
        return Err(WireError::new(Fault::limit("levels of nested messages", LEVELS_MAX.into()), 0));
    }
    let nested = |bytes: &[u8], part| show(bytes, limits, level + 1).map_err(|error| error.inside(part));
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let root = message.root();
    let dump = Dump::new(limits, plain.len());
    if root.is(Type::InitialSessionMessage) || root.is(Type::ExistingSessionMessage) {
        session(&decode_session_message(&plain, limits)?, &dump, nested)
    } else if root.is(Type::NotarisationPayload) {
        payload(&plain, &message, &dump, limits)
    } else if root.is(Type::NotarisationResponse) || root.is(Type::WaitTimeUpdate) {
        reply(&decode_notary_reply(&plain, limits)?, &dump)
    } else if root.is(Type::SignedNodeInfo) {
        let signed = decode_signed_node_info(&plain, limits)?;
        Ok(json!({
            "message": "SignedNodeInfo",
            "signatures": all(&signed.signatures, |bytes| dump.bytes(bytes))?,
            "raw": nested(&signed.raw, "the node info")?,
        }))
    } else if root.is(Type::NodeInfo) {
        let info = decode_node_info(&plain, limits)?;
        Ok(json!({
            "message": "NodeInfo",
            "addresses": info.addresses.iter().map(|at| format!("{}:{}", at.host, at.port)).collect::<Vec<_>>(),
            "certificatePaths": all(&info.identities, |path| all(&path.0, |der| dump.bytes(der)))?,
            "platformVersion": info.platform_version,
            "serial": info.serial,
        }))
    } else if root.is(Type::SignedDataWithCert) {
        let signed = decode_signed_network_parameters(&plain, limits)?;
        Ok(json!({
            "message": "SignedDataWithCert",
            "certificate": dump.bytes(&signed.certificate)?,
            "signature": dump.bytes(&signed.signature)?,
            "parentCertificates": all(&signed.parent_certificates, |der| dump.bytes(der))?,
            "raw": nested(&signed.raw, "the signed data")?,
        }))
    } else if root.is(Type::NetworkParameters) {
        parameters(&plain, &dump, limits)
    } else {
        Ok(json!({ "message": root.type_name(), "content": dump.value(root, 0)? }))
    }
}

/// A list of values.
fn all<T>(values: &[T], show: impl Fn(&T) -> Result<Value, WireError>) -> Result<Value, WireError> {
    values.iter().map(show).collect::<Result<_, _>>().map(Value::Array)
}

/// What a transaction has at most one of; should there be more, all of them.
fn at_most_one<T>(values: &[T], show: impl Fn(&T) -> Result<Value, WireError>) -> Result<Value, WireError> {
    match values {
        [] => Ok(Value::Null),
        [value] => show(value),
        values => all(values, show),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn session(
    message: &SessionMessage<'_>,
    dump: &Dump<'_>,
    nested: impl Fn(&[u8], &'static str) -> Result<Value, WireError>,
) -> Result<Value, WireError> {
    match message {
        SessionMessage::Initial(initial) => session_start(initial, dump, nested),
        SessionMessage::Existing { recipient_session_id, payload } => Ok(json!({
            "message": "ExistingSessionMessage",
            "recipientSessionId": recipient_session_id,
            "payload": existing(payload, nested)?,
        })),
    }
}

fn session_start(
    initial: &InitialSession<'_>,
    dump: &Dump<'_>,
    nested: impl Fn(&[u8], &'static str) -> Result<Value, WireError>,
) -> Result<Value, WireError> {
    let first_payload = match &initial.first_payload {
        Some(payload) => nested(payload, "the first payload")?,
        None => Value::Null,
    };
    let telemetry = initial
        .telemetry
        .as_ref()
        .map(|entries| all(entries, |(key, value)| Ok(json!({ "key": key, "value": dump.bytes(value)? }))));
    Ok(json!({
        "message": "InitialSessionMessage",
        "initiatorSessionId": initial.initiator_session_id,
        "initiationEntropy": initial.initiation_entropy,
        "initiatorFlowClassName": initial.flow_class,
        "flowVersion": initial.flow_version,
        "appName": initial.app_name,
        "serializedTelemetry": telemetry.transpose()?,
        "firstPayload": first_payload,
    }))
}

fn existing(
    payload: &ExistingPayload<'_>,
    nested: impl Fn(&[u8], &'static str) -> Result<Value, WireError>,
) -> Result<Value, WireError> {
    Ok(match payload {
        ExistingPayload::Confirm { initiated_session_id, flow_version, app_name } => json!({
            "kind": "Confirm",
            "initiatedSessionId": initiated_session_id,
            "flowVersion": flow_version,
            "appName": app_name,
        }),
        ExistingPayload::Data(payload) => json!({
            "kind": "Data",
            "payload": nested(payload, "the data")?,
        }),
        ExistingPayload::Error { error_id, exception } => json!({
            "kind": "Error",
            "errorId": error_id,
            "exception": exception.as_ref().map(flow_exception),
        }),
        ExistingPayload::Reject { error_id, message } => {
            json!({ "kind": "Reject", "errorId": error_id, "text": message })
        }
        ExistingPayload::End => json!({ "kind": "End" }),
    })
}

fn flow_exception(exception: &FlowException) -> Value {
    match exception {
        FlowException::Notary { error, tx_id, message } => json!({
            "class": "NotaryException",
            "txId": tx_id.map(|id| id.to_string()),
            "error": notary_error(error),
            "text": message,
        }),
        FlowException::Other { class, message } => json!({ "class": class, "text": message }),
    }
}

fn notary_error(error: &NotaryError) -> Value {
    let kind = error.kind();
    match error {
        NotaryError::Conflict { tx_id, consumed } => {
            let consumed = consumed.iter().map(|consumption| {
                json!({
                    "state": consumption.state.to_string(),
                    "hashOfTransactionId": consumption.hashed_consumer.to_string(),
                    "type": match consumption.usage {
                        StateUsage::Input => "INPUT_STATE",
                        StateUsage::Reference => "REFERENCE_INPUT_STATE",
                    },
                })
            });
            json!({ "kind": kind, "txId": tx_id.to_string(), "consumedStates": consumed.collect::<Vec<_>>() })
        }
        NotaryError::TimeWindowInvalid { now, window } => {
            json!({ "kind": kind, "currentTime": java_instant(*now), "txTimeWindow": corda_time_window(window) })
        }
        NotaryError::TransactionInvalid(cause)
        | NotaryError::RequestSignatureInvalid(cause)
        | NotaryError::General(cause) => {
            json!({ "kind": kind, "causeClass": cause.class, "causeMessage": cause.message })
        }
    }
}

fn payload(plain: &[u8], message: &Message<'_>, dump: &Dump<'_>, limits: &Limits) -> Result<Value, WireError> {
    let NotarisationPayload { transaction, request_signature } = decode_notarisation_payload(plain, limits)?;
    let parameters = |hash: &Option<SecureHash>| hash.map(|hash| hash.to_string());
    let transaction = match &transaction {
        CoreTransaction::Filtered(tx) => filtered(tx, dump)?,
        CoreTransaction::NotaryChange(tx) => json!({
            "kind": "NotaryChangeWireTransaction",
            "digest": tx.digest.name(),
            "inputs": texts(&tx.inputs),
            "notary": dump.party(&tx.notary)?,
            "newNotary": dump.party(&tx.new_notary)?,
            "networkParametersHash": parameters(&tx.parameters),
        }),
        CoreTransaction::ContractUpgrade(tx) => json!({
            "kind": "ContractUpgradeFilteredTransaction",
            "digest": tx.digest.name(),
            "inputs": texts(&tx.inputs),
            "notary": dump.party(&tx.notary)?,
            "networkParametersHash": parameters(&tx.parameters),
            "visibleComponents": tx.visible.iter().map(|(number, ..)| *number).collect::<Vec<_>>(),
            "hiddenComponents": tx.hidden.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        }),
        CoreTransaction::Unsupported { .. } => {
            let object = message.root().object(Type::NotarisationPayload)?;
            dump.value(object.field("transaction")?, 0)?
        }
    };
    Ok(json!({
        "message": "NotarisationPayload",
        "transaction": transaction,
        "requestSignature": {
            "by": dump.key(&request_signature.by)?,
            "signature": hex::encode(&request_signature.bytes),
            "platformVersion": request_signature.platform_version,
        },
    }))
}

fn filtered(tx: &FilteredTransaction<'_>, dump: &Dump<'_>) -> Result<Value, WireError> {
    let text = |text: String| Ok(Value::String(text));
    let visible = &tx.visible;
    let groups = tx.groups.iter().map(|group| {
        json!({
            "groupIndex": group.index,
            "components": group.components.len(),
            "partialMerkleTree": tree_outline(&group.tree),
        })
    });
    Ok(json!({
        "kind": "FilteredTransaction",
        "id": tx.id.to_string(),
        "digest": tx.digest.name(),
        "inputs": states(&visible.inputs),
        "references": states(&visible.references),
        "timeWindow": at_most_one(&visible.time_windows, |window: &TimeWindow| text(corda_time_window(window)))?,
        "notary": at_most_one(&visible.notaries, |party| dump.party(party))?,
        "networkParametersHash": at_most_one(&visible.parameters, |hash: &SecureHash| text(hash.to_string()))?,
        "groupHashes": texts(&tx.group_hashes),
        "filteredComponentGroups": groups.collect::<Vec<_>>(),
    }))
}

fn states(states: &[StateRef]) -> Vec<String> {
    texts(states)
}

/// A tree by the number of its parts: its hashes prove something to programs only.
fn tree_outline(tree: &PartialTree) -> Value {
    let count = |wanted: fn(&PartialNode) -> bool| tree.nodes().iter().filter(|node| wanted(node)).count();
    json!({
        "includedLeaves": count(|node| matches!(node, PartialNode::Included(_))),
        "otherLeaves": count(|node| matches!(node, PartialNode::Leaf(_))),
        "root": tree.root().map_or_else(|error| error.to_string(), |root| root.to_string()),
    })
}

fn reply(reply: &NotaryReply, dump: &Dump<'_>) -> Result<Value, WireError> {
    Ok(match reply {
        NotaryReply::Signatures(signatures) => json!({
            "message": "NotarisationResponse",
            "signatures": all(signatures, |signature| transaction_signature(signature, dump))?,
        }),
        NotaryReply::WaitTime(wait) => json!({ "message": "WaitTimeUpdate", "waitSeconds": wait.as_secs_f64() }),
    })
}

fn transaction_signature(signature: &TransactionSignature, dump: &Dump<'_>) -> Result<Value, WireError> {
    Ok(json!({
        "by": dump.key(&signature.by)?,
        "signature": hex::encode(&signature.bytes),
        "platformVersion": signature.metadata.platform_version,
        "schemeNumberID": signature.metadata.scheme_number_id,
        "partialMerkleTree": signature.partial_tree.as_ref().map(tree_outline),
    }))
}

fn parameters(plain: &[u8], dump: &Dump<'_>, limits: &Limits) -> Result<Value, WireError> {
    let document = decode_network_parameters(plain, limits)?;
    let parameters = &document.parameters;
    Ok(json!({
        "message": "NetworkParameters",
        "epoch": parameters.epoch,
        "minimumPlatformVersion": parameters.minimum_platform_version,
        "notaries": all(&parameters.notaries, |notary| {
            Ok(json!({ "identity": dump.party(&notary.identity)?, "validating": notary.validating }))
        })?,
        "maxMessageSize": parameters.max_message_size,
        "maxTransactionSize": parameters.max_transaction_size,
        "modifiedTime": java_instant(parameters.modified_time),
        "eventHorizonSeconds": document.event_horizon.map(|horizon| horizon.as_secs()),
        "packageOwnership": all(&document.package_ownership, |(package, owner)| {
            Ok(json!({ "package": package, "owner": dump.key(owner)? }))
        })?,
        "whitelistedContractImplementations": all(&document.contract_whitelist, |(class, hashes)| {
            Ok(json!({ "contract": class, "attachments": texts(hashes) }))
        })?,
    }))
}
