//! The checks of a non-validating notary, held against real Corda bytes: good vectors pass with the manifest's values, tampered
//! ones are refused with the named error.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use notary_worker::domain::check::{CheckPolicy, Refusal, check};
use notary_worker::domain::network::{KnownParameters, NetworkParameters, NotaryInfo};
use notary_worker::domain::transaction::{CoreTransaction, NotarisationPayload};
use notary_worker::domain::{
    CheckedRequest, HashAlgorithm, NotaryError, Party, PublicKey, SecureHash, StateRef, Timestamp, TxId, X500Name,
};
use notary_worker::wire::{CordaSignedForm, Limits, decode_notarisation_payload};
use serde_json::Value;

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn manifest() -> Value {
    serde_json::from_slice(&fs::read(vectors().join("manifest.json")).expect("manifest")).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn party(value: &Value) -> Party {
    let key = hex::decode(text(&value["owningKeyX509Hex"])).expect("hex");
    Party {
        name: X500Name::parse(text(&value["name"])).expect("a name"),
        owning_key: PublicKey::from_spki(&key).expect("a key"),
    }
}

fn hash(value: &Value) -> SecureHash {
    SecureHash::parse(text(value)).expect("a hash")
}

fn states(value: &Value) -> Vec<StateRef> {
    let state = |entry: &Value| StateRef {
        tx_id: TxId(hash(&entry["txhash"])),
        index: u32::try_from(entry["index"].as_u64().expect("an index")).expect("small"),
    };
    value.as_array().expect("a list").iter().map(state).collect()
}

/// A network whose only parameters are `known`, with `notary` on the whitelist.
fn parameters(known: SecureHash, notaries: &[&Party], minimum_platform_version: i32) -> KnownParameters {
    let parameters = NetworkParameters {
        epoch: 1,
        minimum_platform_version,
        notaries: notaries.iter().map(|n| NotaryInfo { identity: (*n).clone(), validating: false }).collect(),
        max_message_size: 10_485_760,
        max_transaction_size: 10_485_760,
        modified_time: Timestamp::from_millis(0),
    };
    KnownParameters { current: Some(known), by_hash: HashMap::from([(known, Arc::new(parameters))]) }
}

struct Setting {
    service: Party,
    other: Party,
    alice: Party,
    parameters_hash: SecureHash,
}

fn setting(manifest: &Value) -> Setting {
    let parties = &manifest["parties"];
    let first = &manifest["vectors"][0]["expected"];
    Setting {
        service: party(&parties["notary"]),
        other: party(&parties["otherNotary"]),
        alice: party(&parties["alice"]),
        parameters_hash: hash(&first["networkParametersHash"]),
    }
}

impl Setting {
    fn policy(&self) -> CheckPolicy {
        CheckPolicy { service_key: self.service.owning_key.clone(), states_limit: CheckPolicy::STATES_LIMIT }
    }

    fn check(&self, payload: &NotarisationPayload<'_>, caller: &Party) -> Result<CheckedRequest, Box<Refusal>> {
        let known = parameters(self.parameters_hash, &[&self.service, &self.other], 4);
        check(payload, caller, &self.policy(), &known, &CordaSignedForm)
    }
}

fn read(file: &str) -> Vec<u8> {
    fs::read(vectors().join(file)).expect("a vector")
}

fn decode(bytes: &[u8]) -> NotarisationPayload<'_> {
    decode_notarisation_payload(bytes, &Limits::DEFAULT).expect("it decodes")
}

#[test]
fn good_payloads_pass_with_the_manifests_values() {
    let manifest = manifest();
    let setting = setting(&manifest);
    let mut passed = 0;
    for vector in manifest["vectors"].as_array().expect("a list") {
        let (file, expected) = (text(&vector["file"]), &vector["expected"]);
        let payload = text(&vector["kind"]).starts_with("NotarisationPayload(");
        if !payload || expected["verify"] != "accept" || file == "payload_signed_transaction.bin" {
            continue;
        }
        let bytes = read(file);
        let caller = if expected["caller"].is_null() { setting.alice.clone() } else { party(&expected["caller"]) };
        let request = setting.check(&decode(&bytes), &caller).unwrap_or_else(|refusal| panic!("{file}: {refusal:?}"));
        assert_eq!(request.tx_id.to_string(), text(&expected["txId"]), "{file}");
        assert_eq!(request.inputs, states(&expected["inputs"]), "{file}");
        if let Some(references) = expected.get("references") {
            assert_eq!(request.references, states(references), "{file}");
        }
        if let Some(window) = expected.get("timeWindow") {
            let edge = |at: &Value| at.as_str().map(|at| at.parse::<jiff::Timestamp>().expect("RFC 3339"));
            let stamp = |at: Timestamp| jiff::Timestamp::new(at.seconds(), at.nanos() as i32).expect("in range");
            let found = request.time_window;
            assert_eq!(found.and_then(|w| w.from()).map(stamp), edge(&window["fromTime"]), "{file}");
            assert_eq!(found.and_then(|w| w.until()).map(stamp), edge(&window["untilTime"]), "{file}");
        }
        assert_eq!(request.requester, caller.name, "{file}");
        passed += 1;
    }
    assert_eq!(passed, 7, "every good payload vector was checked");
}

#[test]
fn tampered_payloads_are_refused_with_the_named_error() {
    let expected = [
        ("tampered_hidden_input.bin", "TransactionInvalid", "Some components for group 0 are not visible"),
        ("tampered_hidden_time_window.bin", "TransactionInvalid", "Some components for group 5 are not visible"),
        ("tampered_hidden_references.bin", "TransactionInvalid", "Some components for group 7 are not visible"),
        ("tampered_swapped_input.bin", "TransactionInvalid", "partial Merkle tree"),
        ("tampered_wrong_id.bin", "TransactionInvalid", "Top level Merkle tree cannot be verified"),
        ("tampered_signed_by_bob.bin", "RequestSignatureInvalid", "Expected a signature by"),
        ("tampered_signature_other_tx.bin", "RequestSignatureInvalid", "Signature Verification failed"),
        ("tampered_group_hash.bin", "TransactionInvalid", "Top level Merkle tree cannot be verified"),
        ("tampered_wrong_notary.bin", "TransactionInvalid", "does not match the notary service's identity"),
    ];
    let manifest = manifest();
    let setting = setting(&manifest);
    let tampered = manifest["vectors"].as_array().expect("a list").iter();
    let payloads = tampered.filter(|v| text(&v["kind"]) == "NotarisationPayload").count();
    assert_eq!(payloads, expected.len(), "every tampered payload is in the table");
    for (file, kind, reason) in expected {
        let bytes = read(file);
        let mut payload = decode(&bytes);
        // Those that change what is signed carry the old signature; that check comes first and would hide the one in question.
        if kind == "TransactionInvalid" && file != "tampered_wrong_notary.bin" {
            resign(&mut payload, &manifest);
        }
        let refusal = setting.check(&payload, &setting.alice).expect_err(file);
        assert_eq!(
            (refusal.error.kind(), refusal.error.to_string().contains(reason)),
            (kind, true),
            "{file}: {refusal:?}"
        );
    }
}

/// Signs the payload anew with Alice's key.
fn resign(payload: &mut NotarisationPayload<'_>, manifest: &Value) {
    use ed25519_dalek::pkcs8::DecodePrivateKey;
    use ed25519_dalek::{Signer, SigningKey};
    use notary_worker::domain::signed_form::SignedForm;

    let der = hex::decode(text(&manifest["keys"]["alice"]["privateKeyPkcs8Hex"])).expect("hex");
    let key = SigningKey::from_pkcs8_der(&der).expect("an Ed25519 key");
    let CoreTransaction::Filtered(tx) = &payload.transaction else { panic!("only filtered transactions are tampered") };
    let signed = CordaSignedForm.notarisation_request(&tx.visible.inputs, &tx.id);
    payload.request_signature.bytes = key.sign(&signed).to_bytes().to_vec();
}

#[test]
fn a_whole_transaction_is_refused_by_kind() {
    let setting = setting(&manifest());
    let bytes = read("payload_signed_transaction.bin");
    let refusal = setting.check(&decode(&bytes), &setting.alice).expect_err("not for a non-validating notary");
    assert_eq!(refusal.error.kind(), "TransactionInvalid");
    assert!(refusal.error.to_string().contains("SignedTransaction"), "{refusal:?}");
}

#[test]
fn parameters_decide_what_is_required() {
    let setting = setting(&manifest());
    let bytes = read("payload_filtered_1_input.bin");
    let payload = decode(&bytes);
    let run = |known: &KnownParameters| check(&payload, &setting.alice, &setting.policy(), known, &CordaSignedForm);

    // Unknown parameters may become known: the client shall try again (PR4).
    let unknown = parameters(SecureHash::sha256([7; 32]), &[&setting.service], 4);
    assert_eq!(run(&unknown).expect_err("unknown").error.kind(), "General");
    let none = KnownParameters::default();
    assert_eq!(run(&none).expect_err("nothing known").error.kind(), "General");

    let not_listed = parameters(setting.parameters_hash, &[&setting.other], 4);
    let refusal = run(&not_listed).expect_err("not on the whitelist");
    assert!(refusal.error.to_string().contains("not on the network parameter whitelist"), "{refusal:?}");

    assert!(run(&parameters(setting.parameters_hash, &[&setting.service], 4)).is_ok());
    assert!(run(&parameters(setting.parameters_hash, &[&setting.service], 3)).is_ok());
}

#[test]
fn size_and_doubles_are_bounded() {
    let manifest = manifest();
    let setting = setting(&manifest);
    let bytes = read("payload_filtered_many.bin");
    let payload = decode(&bytes);
    let with_limit = |states_limit| {
        let policy = CheckPolicy { states_limit, ..setting.policy() };
        let known = parameters(setting.parameters_hash, &[&setting.service], 4);
        check(&payload, &setting.alice, &policy, &known, &CordaSignedForm)
    };
    // Seven inputs and three references: the limit is exclusive, as the peer's.
    assert!(with_limit(11).is_ok());
    assert!(matches!(with_limit(10).expect_err("too many").error, NotaryError::TransactionInvalid(_)));
}

#[test]
fn a_nonce_of_another_length_cannot_move_the_boundary_to_its_component() {
    use notary_worker::domain::check::component_hash;
    use notary_worker::domain::merkle::MerkleError;
    // The same bytes split elsewhere would hash to the same leaf and show another component.
    let nonce = SecureHash::all_ones(HashAlgorithm::Sha512);
    assert!(matches!(component_hash(HashAlgorithm::Sha256, &nonce, b"component"), Err(MerkleError::Mixed { .. })));
}
