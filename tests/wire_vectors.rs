//! Real Corda's messages, every one of the manifest: they decode to what the manifest says, and what is encoded here equals
//! them byte for byte wherever it is deterministic.

mod wire_support;

use notary_worker::domain::merkle::{PartialNode, PartialTree};
use notary_worker::domain::merkle_batch::TransactionSignature;
use notary_worker::domain::notary_error::{Cause, StateUsage};
use notary_worker::domain::signed_form::{SignatureMetadata, SignedForm};
use notary_worker::domain::transaction::{CoreTransaction, FilteredTransaction, NotarisationPayload, RequestSignature};
use notary_worker::domain::{HashAlgorithm, NotaryError, Party, SecureHash, TimeWindow, TxId, X500Name};
use notary_worker::wire::*;
use serde_json::Value;
use wire_support::{entries, expected, hash, hex_bytes, key, list, state, states, text, vector};

const LIMITS: Limits = Limits::DEFAULT;

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not an integer: {value}"))
}

/// The six attributes, taken from the manifest's text by hand: how names are printed is not the wire's.
fn name(expected: &Value) -> X500Name {
    let attribute = |wanted: &str| {
        let found = text(expected).split(", ").find_map(|part| part.strip_prefix(wanted)?.strip_prefix('='));
        found.map(str::to_owned)
    };
    let mandatory = |wanted| attribute(wanted).unwrap_or_else(|| panic!("{expected} has no {wanted}"));
    X500Name {
        common_name: attribute("CN"),
        organisation_unit: attribute("OU"),
        organisation: mandatory("O"),
        locality: mandatory("L"),
        state: attribute("ST"),
        country: mandatory("C"),
    }
}

fn party(expected: &Value) -> Party {
    Party { name: name(&expected["name"]), owning_key: key(&expected["owningKeyX509Hex"]) }
}

/// The manifest's nested tree as a preorder.
fn tree(expected: &Value) -> Vec<PartialNode> {
    if !expected["leaf"].is_null() {
        return vec![PartialNode::Leaf(hash(&expected["leaf"]))];
    }
    if !expected["includedLeaf"].is_null() {
        return vec![PartialNode::Included(hash(&expected["includedLeaf"]))];
    }
    let algorithm = HashAlgorithm::from_name(text(&expected["hashAlgorithm"])).expect("an algorithm");
    [vec![PartialNode::Node(algorithm)], tree(&expected["left"]), tree(&expected["right"])].concat()
}

fn check_tree(actual: &PartialTree, expected: &Value) {
    assert_eq!(actual.nodes(), tree(expected));
}

fn check_window(actual: Option<&TimeWindow>, expected: &Value) {
    let moment = |name: &str| expected.get(name).and_then(Value::as_str).map(str::to_owned);
    let bounds = (moment("fromTime"), moment("untilTime"));
    let actual = actual.map_or((None, None), |window| {
        (window.from().map(|from| from.to_string()), window.until().map(|until| until.to_string()))
    });
    assert_eq!(actual, bounds);
}

fn check_request_signature(actual: &RequestSignature, expected: &Value) {
    assert_eq!(actual.by, key(&expected["byX509Hex"]));
    assert_eq!(actual.bytes, hex_bytes(&expected["signatureHex"]));
    assert_eq!(i64::from(actual.platform_version), int(&expected["platformVersion"]));
}

fn check_filtered(tx: &FilteredTransaction<'_>, expected: &Value) {
    assert_eq!(tx.id.0, hash(&expected["txId"]));
    assert_eq!(tx.digest.name(), text(&expected["digestService"]));
    assert_eq!(tx.group_hashes, list(&expected["groupHashes"]).iter().map(hash).collect::<Vec<_>>());
    assert_eq!(tx.visible.inputs, states(&expected["inputs"]));
    assert_eq!(tx.visible.references, states(&expected["references"]));
    assert_eq!(tx.visible.notaries, [party(&expected["notary"])]);
    assert_eq!(tx.visible.parameters, [hash(&expected["networkParametersHash"])]);
    check_window(tx.visible.time_windows.first(), &expected["timeWindow"]);
    assert_eq!(tx.visible.time_windows.len(), usize::from(!expected["timeWindow"].is_null()));
    let groups = list(&expected["filteredComponentGroups"]);
    assert_eq!(tx.groups.len(), groups.len());
    for (group, expected) in tx.groups.iter().zip(groups) {
        assert_eq!(i64::from(group.index), int(&expected["groupIndex"]));
        assert_eq!(group.nonces, list(&expected["nonces"]).iter().map(hash).collect::<Vec<_>>());
        check_tree(&group.tree, &expected["partialMerkleTree"]);
        let digests: Vec<_> = group
            .components
            .iter()
            .map(|bytes| HashAlgorithm::Sha256.digest(&[bytes]).expect("SHA-256").to_string().to_lowercase())
            .collect();
        assert_eq!(digests, list(&expected["componentBytesSha256"]).iter().map(text).collect::<Vec<_>>());
    }
}

fn decode_payload(bytes: &[u8]) -> NotarisationPayload<'_> {
    decode_notarisation_payload(bytes, &LIMITS).expect("a payload")
}

fn check_payload(bytes: &[u8], expected: &Value) {
    let payload = decode_payload(bytes);
    match &payload.transaction {
        CoreTransaction::Filtered(tx) => check_filtered(tx, expected),
        CoreTransaction::NotaryChange(tx) => {
            assert_eq!(tx.digest, HashAlgorithm::Sha256);
            assert_eq!(tx.inputs, states(&expected["inputs"]));
            assert_eq!(tx.notary, party(&expected["notary"]));
            assert_eq!(tx.new_notary, party(&expected["newNotary"]));
            assert_eq!(tx.parameters, Some(hash(&expected["networkParametersHash"])));
            let components: Vec<_> = list(&expected["serializedComponentsHex"]).iter().map(hex_bytes).collect();
            assert_eq!(tx.components, components);
        }
        CoreTransaction::ContractUpgrade(tx) => {
            assert_eq!(tx.inputs, states(&expected["inputs"]));
            let visible: Vec<_> = tx.visible.iter().map(|(n, bytes, nonce)| (*n, bytes.to_vec(), *nonce)).collect();
            let number = |value: &Value| int(&value["index"]) as u32;
            let component = |value: &Value| (number(value), hex_bytes(&value["componentHex"]), hash(&value["nonce"]));
            assert_eq!(visible, list(&expected["visibleComponents"]).iter().map(component).collect::<Vec<_>>());
            let hidden = |value: &Value| (number(value), hash(&value["hash"]));
            assert_eq!(tx.hidden, list(&expected["hiddenComponents"]).iter().map(hidden).collect::<Vec<_>>());
        }
        CoreTransaction::Unsupported { type_name } => {
            assert_eq!(type_name, "net.corda.core.transactions.SignedTransaction");
            return;
        }
    }
    check_request_signature(&payload.request_signature, &expected["requestSignature"]);
    check_payload_encodes_back(bytes);
}

fn check_payload_encodes_back(bytes: &[u8]) {
    let payload = decode_payload(bytes);
    match encode_notarisation_payload(&payload) {
        Some(encoded) => assert_eq!(encoded, bytes, "the encoding differs"),
        None => assert!(matches!(payload.transaction, CoreTransaction::Unsupported { .. })),
    }
}

fn check_request(bytes: &[u8], expected: &Value, inputs: &Value) {
    let mut inputs = states(inputs);
    inputs.reverse(); // The form sorts by itself.
    assert_eq!(CordaSignedForm.notarisation_request(&inputs, &TxId(hash(&expected["txId"]))), bytes);
}

fn check_signature(actual: &TransactionSignature, expected: &Value) {
    assert_eq!(actual.by, key(&expected["byX509Hex"]));
    assert_eq!(actual.bytes, hex_bytes(&expected["signatureHex"]));
    assert_eq!(i64::from(actual.metadata.platform_version), int(&expected["platformVersion"]));
    assert_eq!(i64::from(actual.metadata.scheme_number_id), int(&expected["schemeNumberID"]));
    match &actual.partial_tree {
        Some(actual) => check_tree(actual, &expected["partialMerkleTree"]),
        None => assert!(expected["partialMerkleTree"].is_null()),
    }
}

fn decode_signatures(bytes: &[u8]) -> Vec<TransactionSignature> {
    match decode_notary_reply(bytes, &LIMITS) {
        Ok(NotaryReply::Signatures(signatures)) => signatures,
        other => panic!("not a response: {other:?}"),
    }
}

fn check_response(bytes: &[u8], expected: &[Value]) {
    let signatures = decode_signatures(bytes);
    assert_eq!(signatures.len(), expected.len());
    signatures.iter().zip(expected).for_each(|(actual, expected)| check_signature(actual, expected));
    assert_eq!(encode_notarisation_response(&signatures), bytes);
}

fn decode_existing(bytes: &[u8]) -> (i64, ExistingPayload<'_>) {
    match decode_session_message(bytes, &LIMITS) {
        Ok(SessionMessage::Existing { recipient_session_id, payload }) => (recipient_session_id, payload),
        other => panic!("not a message of an existing session: {other:?}"),
    }
}

fn check_data(bytes: &[u8], expected: &Value) {
    let (recipient, payload) = decode_existing(bytes);
    assert_eq!(recipient, int(&expected["recipientSessionId"]));
    let ExistingPayload::Data(payload) = payload else { panic!("not data: {payload:?}") };
    assert_eq!(*payload, vector(text(&expected["payloadFile"])));
    assert_eq!(encode_session_data(recipient, &payload), bytes);
}

fn check_cause(cause: &Cause, expected: &Value) {
    if !expected["causeClass"].is_null() {
        assert_eq!(cause.class, text(&expected["causeClass"]));
    }
    if !expected["causeMessage"].is_null() {
        assert_eq!(cause.message, text(&expected["causeMessage"]));
    }
}

fn check_error(bytes: &[u8], expected: &Value) {
    let (recipient, payload) = decode_existing(bytes);
    assert_eq!(recipient, int(&expected["recipientSessionId"]));
    let ExistingPayload::Error { error_id, exception } = payload else { panic!("not an error: {payload:?}") };
    assert_eq!(error_id, int(&expected["errorId"]));
    let Some(exception) = exception else {
        assert!(expected.get("error").is_none(), "an error was lost");
        assert_eq!(encode_session_error(recipient, None, error_id), bytes);
        return;
    };
    let FlowException::Notary { error, tx_id, message } = exception else { panic!("{exception:?}") };
    assert_eq!(error.kind(), text(&expected["error"]));
    assert_eq!(message, text(&expected["message"]));
    assert_eq!(tx_id.map(|id| id.to_string()).as_deref(), expected["notaryExceptionTxId"].as_str());
    match &error {
        NotaryError::Conflict { tx_id, consumed } => {
            assert_eq!(tx_id.0, hash(&expected["txId"]));
            let expected = list(&expected["consumedStates"]);
            assert_eq!(consumed.len(), expected.len());
            for (consumption, expected) in consumed.iter().zip(expected) {
                assert_eq!(consumption.state, state(expected));
                assert_eq!(consumption.hashed_consumer, hash(&expected["hashOfTransactionId"]));
                let usage = match consumption.usage {
                    StateUsage::Input => "INPUT_STATE",
                    StateUsage::Reference => "REFERENCE_INPUT_STATE",
                };
                assert_eq!(usage, text(&expected["type"]));
            }
        }
        NotaryError::TimeWindowInvalid { now, window } => {
            assert_eq!(now.to_string(), text(&expected["currentTime"]));
            check_window(Some(window), &expected["txTimeWindow"]);
        }
        NotaryError::TransactionInvalid(cause)
        | NotaryError::RequestSignatureInvalid(cause)
        | NotaryError::General(cause) => check_cause(cause, expected),
    }
    assert_eq!(encode_session_error(recipient, Some((&error, tx_id)), error_id), bytes);
}

fn check_session(file: &str, bytes: &[u8], expected: &Value) {
    match decode_session_message(bytes, &LIMITS).expect("a session message") {
        SessionMessage::Initial(initial) => {
            assert_eq!(initial.initiator_session_id, int(&expected["initiatorSessionId"]));
            assert_eq!(encode_session_initial(&initial), bytes);
            if let Some(keys) = expected.get("telemetryKeys") {
                let telemetry = initial.telemetry.as_ref().expect("telemetry");
                assert_eq!(telemetry.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), [text(&keys[0])]);
                return;
            }
            assert_eq!(initial.initiation_entropy, int(&expected["initiationEntropy"]));
            assert_eq!(initial.flow_class, text(&expected["initiatorFlowClassName"]));
            assert_eq!(i64::from(initial.flow_version), int(&expected["flowVersion"]));
            assert_eq!(initial.app_name, text(&expected["appName"]));
            assert_eq!(initial.telemetry, None);
            assert_eq!(initial.first_payload.as_deref(), Some(&*vector(text(&expected["firstPayloadFile"]))));
        }
        SessionMessage::Existing { recipient_session_id, payload } => {
            assert_eq!(recipient_session_id, int(&expected["recipientSessionId"]));
            match payload {
                ExistingPayload::Confirm { initiated_session_id, flow_version, app_name } => {
                    assert_eq!(initiated_session_id, int(&expected["initiatedSessionId"]));
                    let info = &expected["initiatedFlowInfo"];
                    assert_eq!(
                        (i64::from(flow_version), &*app_name),
                        (int(&info["flowVersion"]), text(&info["appName"]))
                    );
                    let encoded = encode_session_confirm(recipient_session_id, initiated_session_id, flow_version);
                    assert_eq!(encoded, bytes);
                }
                ExistingPayload::Reject { error_id, message } => {
                    assert_eq!((error_id, &*message), (int(&expected["errorId"]), text(&expected["message"])));
                    assert_eq!(encode_session_reject(recipient_session_id, &message, error_id), bytes);
                }
                ExistingPayload::End => assert_eq!(encode_session_end(recipient_session_id), bytes),
                other => panic!("{file}: {other:?}"),
            }
        }
    }
}

fn check_node_info(bytes: &[u8], expected: &Value) {
    let signed = decode_signed_node_info(bytes, &LIMITS).expect("a signed node info");
    assert_eq!(encode_signed_node_info(&signed), bytes);
    let digest = HashAlgorithm::Sha256.digest(&[&signed.raw]).expect("SHA-256");
    assert_eq!(digest, hash(&expected["nodeInfoHash"]));
    let info = decode_node_info(&signed.raw, &LIMITS).expect("a node info");
    assert_eq!(encode_node_info(&info), signed.raw);
    let addresses: Vec<_> = info.addresses.iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
    assert_eq!(addresses, list(&expected["addresses"]).iter().map(text).collect::<Vec<_>>());
    assert_eq!(i64::from(info.platform_version), int(&expected["platformVersion"]));
    assert_eq!(info.serial, int(&expected["serial"]));
    let identities = list(&expected["legalIdentities"]);
    assert_eq!(info.identities.len(), identities.len());
    assert_eq!(signed.signatures.len(), identities.len());
    for (path, expected) in info.identities.iter().zip(identities) {
        assert_eq!(path.0.len() as i64, int(&expected["certCount"]));
        // The identity's own certificate comes last, and holds its key.
        let (leaf, key) = (path.0.last().expect("a leaf"), hex_bytes(&expected["owningKeyX509Hex"]));
        assert!(leaf.windows(key.len()).any(|window| window == key));
        assert_eq!(hex::encode(&path.0[0]), text(&wire_support::manifest()["pki"]["rootCertDerHex"]));
    }
}

fn check_parameters(bytes: &[u8], expected: &Value) {
    let signed = decode_signed_network_parameters(bytes, &LIMITS).expect("signed parameters");
    assert_eq!(encode_signed_network_parameters(&signed), bytes);
    assert_eq!(signed.raw, hex_bytes(&expected["rawHex"]));
    assert_eq!(signed.certificate, hex_bytes(&expected["signerCertDerHex"]));
    let digest = HashAlgorithm::Sha256.digest(&[&signed.raw]).expect("SHA-256");
    assert_eq!(digest, hash(&expected["parametersHash"]));
    let document = decode_network_parameters(&signed.raw, &LIMITS).expect("parameters");
    assert_eq!(encode_network_parameters(&document), signed.raw);
    let parameters = &document.parameters;
    for (actual, name) in [
        (parameters.minimum_platform_version, "minimumPlatformVersion"),
        (parameters.max_message_size, "maxMessageSize"),
        (parameters.max_transaction_size, "maxTransactionSize"),
        (parameters.epoch, "epoch"),
    ] {
        assert_eq!(i64::from(actual), int(&expected[name]), "{name}");
    }
    let notaries: Vec<_> = parameters.notaries.iter().map(|info| (info.identity.clone(), info.validating)).collect();
    let notary = |value: &Value| (party(value), value["validating"].as_bool().expect("a boolean"));
    assert_eq!(notaries, list(&expected["notaries"]).iter().map(notary).collect::<Vec<_>>());
}

fn metadata(expected: &Value) -> SignatureMetadata {
    SignatureMetadata {
        platform_version: int(&expected["platformVersion"]) as i32,
        scheme_number_id: int(&expected["schemeNumberID"]) as i32,
    }
}

fn check_single_signature(bytes: &[u8], expected: &Value) {
    let signature = decode_transaction_signature(bytes, &LIMITS).expect("a signature");
    assert_eq!(encode_transaction_signature(&signature), bytes);
    assert_eq!(signature.by, key(&expected["key"]["publicKeyX509Hex"]));
    assert_eq!(signature.bytes, hex_bytes(&expected["signatureHex"]));
    assert_eq!(i64::from(signature.metadata.scheme_number_id), int(&expected["key"]["schemeNumberID"]));
    let signed = CordaSignedForm.signable_data(&hash(&expected["txId"]), signature.metadata);
    assert_eq!(signed, hex_bytes(&expected["signedBytesHex"]));
}

/// Checks one vector; panics on a file that no check is written for.
fn check(file: &str, kind: &str, expected: &Value) {
    let bytes = vector(file);
    match file {
        "tampered_header.bin" => {
            let error = decode_session_message(&bytes, &LIMITS).expect_err("another version's magic");
            assert_eq!((error.fault(), error.offset()), (&Fault::UnsupportedScheme, 0));
        }
        // All other tampering keeps a message well-formed, and is for the rules to find.
        _ if file.starts_with("tampered_") && kind == "NotarisationResponse" => {
            assert_eq!(encode_notarisation_response(&decode_signatures(&bytes)), bytes);
        }
        _ if file.starts_with("tampered_") => check_payload_encodes_back(&bytes),
        "request_300_inputs.bin" => check_request(&bytes, expected, &expected["statesToConsumeSorted"]),
        "payload_notary_change.request.bin" => {
            check_request(&bytes, expected, &wire_support::expected("payload_notary_change.bin")["inputs"]);
        }
        _ if file.ends_with(".request.bin") => check_request(&bytes, expected, &expected["statesToConsumeSorted"]),
        _ if file.starts_with("payload_") => check_payload(&bytes, expected),
        "wire_transaction_w1.bin" => {
            let payload = vector("payload_signed_transaction.bin");
            assert!(payload.windows(bytes.len()).any(|window| window == bytes), "it is a part of the payload");
        }
        "response_composite.bin" => check_response(&bytes, list(&expected["signatures"])),
        _ if file.starts_with("response_") && file.ends_with(".payload.bin") => {
            check_response(&bytes, std::slice::from_ref(&expected["signature"]));
        }
        _ if file.starts_with("response_") || file == "wait_time_update.bin" => check_data(&bytes, expected),
        "wait_time_update.payload.bin" => {
            let Ok(NotaryReply::WaitTime(wait)) = decode_notary_reply(&bytes, &LIMITS) else { panic!("no wait time") };
            assert_eq!(wait.as_secs() as i64, int(&expected["waitTimeSeconds"]));
            assert_eq!(i64::from(wait.subsec_nanos()), int(&expected["nanos"]));
            assert_eq!(encode_wait_time_update(wait), bytes);
        }
        "signable_batch_root.bin" => {
            assert_eq!(CordaSignedForm.signable_data(&hash(&expected["root"]), metadata(expected)), bytes);
        }
        _ if file.starts_with("signable_") => {
            assert_eq!(CordaSignedForm.signable_data(&hash(&expected["txId"]), metadata(expected)), bytes);
        }
        "partial_merkle_tree.bin" => {
            let tree = decode_partial_tree(&bytes, &LIMITS).expect("a tree");
            check_tree(&tree, &expected["tree"]);
            assert_eq!(tree.root(), Ok(hash(&expected["root"])));
            assert_eq!(encode_partial_tree(&tree), bytes);
        }
        _ if file.starts_with("session_error_") => check_error(&bytes, expected),
        _ if file.starts_with("session_") => check_session(file, &bytes, expected),
        _ if file.starts_with("sig_") => check_single_signature(&bytes, expected),
        _ if file.starts_with("party_") => {
            let party = decode_party(&bytes, &LIMITS).expect("a party");
            assert_eq!(party.name, name(&expected["name"]));
            assert_eq!(encode_party(&party), bytes);
        }
        _ if file.starts_with("signed_node_info_") => check_node_info(&bytes, expected),
        "signed_network_parameters.bin" => check_parameters(&bytes, expected),
        // Not Corda messages: keys in DER, and AMQP around a message.
        _ if file.starts_with("composite_key_") => assert!(unpack(&bytes, &LIMITS).is_err()),
        "bridge_message_session_initial.amqp" => {
            let session = vector("session_initial.bin");
            assert!(bytes.windows(session.len()).any(|window| window == session));
        }
        _ => panic!("no check for {file} ({kind})"),
    }
}

#[test]
fn every_vector_decodes_to_the_manifests_values_and_encodes_back_to_its_bytes() {
    let entries = entries();
    assert!(entries.len() >= 64, "the manifest lost entries");
    for (file, kind, expected) in entries {
        println!("{file}");
        check(&file, &kind, &expected);
    }
}

#[test]
fn components_encode_to_the_bytes_within_payloads() {
    let bytes = vector("payload_filtered_many.bin");
    let CoreTransaction::Filtered(tx) = decode_payload(&bytes).transaction else { panic!("not filtered") };
    let mut encoded = 0;
    for group in &tx.groups {
        for (i, component) in group.components.iter().enumerate() {
            let again = match group.index {
                0 => encode_state_ref(&tx.visible.inputs[i]),
                4 => encode_party(&tx.visible.notaries[i]),
                5 => encode_time_window(&tx.visible.time_windows[i]),
                7 => encode_state_ref(&tx.visible.references[i]),
                8 => encode_secure_hash(&tx.visible.parameters[i]),
                other => panic!("group {other}"),
            };
            assert_eq!(again, *component, "component {i} of group {}", group.index);
            encoded += 1;
        }
    }
    assert_eq!(encoded, 13);
    let bytes = vector("payload_notary_change.bin");
    let CoreTransaction::NotaryChange(tx) = decode_payload(&bytes).transaction else { panic!("no notary change") };
    assert_eq!(encode_state_refs(&tx.inputs), tx.components[0]);
    assert_eq!(decode_state_refs(tx.components[0], &LIMITS).expect("states"), tx.inputs);
}

#[test]
fn every_message_of_a_whole_conversation_decodes() {
    /// Every string of the transcript that is a Corda message in hex.
    fn messages(value: &Value, found: &mut Vec<Vec<u8>>) {
        match value {
            Value::String(text) => {
                if let Some(place) = text.find("636f7264610100")
                    && let Ok(bytes) = hex::decode(&text[place..])
                {
                    found.push(bytes);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
            Value::Object(values) => values.values().for_each(|value| messages(value, found)),
            _ => {}
        }
    }
    let transcript: Value = serde_json::from_slice(&vector("amqp_transcript.json")).expect("JSON");
    let mut found = Vec::new();
    messages(&transcript, &mut found);
    assert!(!found.is_empty(), "the transcript holds session messages");
    for bytes in found {
        decode_session_message(&bytes, &LIMITS).expect("a session message");
    }
}

#[test]
fn a_conflict_of_many_states_lists_five_for_people_and_all_for_programs() {
    let consumed: Vec<_> = (0..7)
        .map(|n| notary_worker::domain::notary_error::Consumption {
            state: notary_worker::domain::StateRef { tx_id: TxId(SecureHash::sha256([7; 32])), index: n },
            hashed_consumer: SecureHash::sha256([n as u8; 32]),
            usage: StateUsage::Input,
        })
        .collect();
    let error = NotaryError::Conflict { tx_id: TxId(SecureHash::sha256([9; 32])), consumed };
    let bytes = encode_session_error(1, Some((&error, None)), 2);
    let (_, ExistingPayload::Error { exception: Some(FlowException::Notary { error: again, message, tx_id }), .. }) =
        decode_existing(&bytes)
    else {
        panic!("not a notary's error")
    };
    assert_eq!((again, tx_id), (error, None));
    assert_eq!(message.matches(" -> StateConsumptionDetails(").count(), 5);
    assert!(message.contains("state count: 7, consumption details:\n"), "{message}");
    assert!(message.contains("type=INPUT_STATE),\n....\nTo find out"), "{message}");
}

#[test]
fn signed_bytes_follow_values_at_the_widths_boundaries() {
    // Platform version 140 (Corda 4.12) takes the wide form of an int: four bytes more than 12 takes.
    let id = hash(&expected("signable_w1.bin")["txId"]);
    let signable = |platform_version| {
        CordaSignedForm.signable_data(&id, SignatureMetadata { platform_version, scheme_number_id: 3 })
    };
    assert_eq!(signable(12).len(), 999);
    assert_eq!(signable(127).len(), 999);
    assert_eq!(signable(128).len(), 1002);
    assert_eq!(signable(140).len(), 1002);
}

#[test]
fn inspect_shows_every_vector_that_is_a_message() {
    for (file, ..) in entries() {
        let shown = inspect(&vector(&file), &LIMITS);
        let is_message = !file.starts_with("composite_key") && file != "tampered_header.bin" && file.ends_with(".bin");
        assert_eq!(shown.is_ok(), is_message, "{file}: {shown:?}");
    }
}

#[test]
fn inspect_shows_what_an_operator_asks_for() {
    let shown = |file: &str| inspect(&vector(file), &LIMITS).expect("a message");
    let at = |value: &Value, pointer: &str| value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
    let state = |value: &Value| format!("{}({})", text(&value["txhash"]), int(&value["index"]));

    let (session, expected_payload) = (shown("session_initial.bin"), expected("payload_filtered_1_input.bin"));
    assert_eq!(at(&session, "/initiatorSessionId"), expected("session_initial.bin")["initiatorSessionId"]);
    assert_eq!(at(&session, "/firstPayload/transaction/id"), expected_payload["txId"]);
    assert_eq!(at(&session, "/firstPayload/transaction/inputs/0"), state(&expected_payload["inputs"][0]));
    let signature = "/firstPayload/requestSignature/signature";
    assert_eq!(at(&session, signature), expected_payload["requestSignature"]["signatureHex"]);
    let signer = "/firstPayload/requestSignature/by/x509";
    assert_eq!(at(&session, signer), expected_payload["requestSignature"]["byX509Hex"]);

    let (many, expected_many) = (shown("payload_filtered_many.bin"), expected("payload_filtered_many.bin"));
    assert_eq!(at(&many, "/transaction/references/2"), state(&expected_many["references"][2]));
    let window = &expected_many["timeWindow"];
    let window = format!("[{}, {})", text(&window["fromTime"]), text(&window["untilTime"]));
    assert_eq!(at(&many, "/transaction/timeWindow"), window);
    assert_eq!(at(&many, "/transaction/networkParametersHash"), expected_many["networkParametersHash"]);
    let key = "/transaction/notary/owningKey/x509";
    assert_eq!(at(&many, key), expected_many["notary"]["owningKeyX509Hex"]);

    for kind in ["conflict", "time_window_invalid", "transaction_invalid", "request_signature_invalid", "general"] {
        let file = format!("session_error_{kind}.bin");
        assert_eq!(at(&shown(&file), "/payload/exception/error/kind"), expected(&file)["error"]);
    }
    assert_eq!(at(&shown("session_error_unrevealed.bin"), "/payload/exception"), Value::Null);
    let response = shown("response_batch.bin");
    let signature = &expected("response_batch.bin")["signature"];
    assert_eq!(at(&response, "/payload/payload/signatures/0/signature"), signature["signatureHex"]);

    // Types of which this worker knows nothing: a whole transaction with its states.
    let whole = shown("payload_signed_transaction.bin");
    assert_eq!(at(&whole, "/transaction/txBits/componentGroups/1/components/0/contract"), "vg.VContract");
    let parameters = shown("signed_network_parameters.bin");
    assert_eq!(at(&parameters, "/raw/epoch"), expected("signed_network_parameters.bin")["epoch"]);
}
