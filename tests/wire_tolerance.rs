//! What a sender may vary without being misunderstood (PROTOCOL a.4), and what is refused because it could be.

mod wire_support;

use std::io::Write;

use notary_worker::domain::HashAlgorithm;
use notary_worker::domain::merkle::PartialNode;
use notary_worker::domain::transaction::CoreTransaction;
use notary_worker::wire::*;
use wire_support::amqp::{self, MAGIC, Tree, Width};
use wire_support::vector;

const LIMITS: Limits = Limits::DEFAULT;

const PAYLOADS: [&str; 7] = [
    "payload_filtered_1_input.bin",
    "payload_filtered_many.bin",
    "payload_filtered_issuance_tw.bin",
    "payload_filtered_from_only.bin",
    "payload_filtered_sha384.bin",
    "payload_notary_change.bin",
    "payload_contract_upgrade.bin",
];

const SESSIONS: [&str; 11] = [
    "session_initial.bin",
    "session_initial_telemetry.bin",
    "session_confirm.bin",
    "session_end.bin",
    "session_reject.bin",
    "session_error_conflict.bin",
    "session_error_general.bin",
    "session_error_time_window_invalid.bin",
    "session_error_transaction_invalid.bin",
    "session_error_request_signature_invalid.bin",
    "session_error_unrevealed.bin",
];

const REPLIES: [&str; 5] = [
    "response_single.payload.bin",
    "response_batch.payload.bin",
    "response_batch_of_one.payload.bin",
    "response_composite.bin",
    "wait_time_update.payload.bin",
];

/// The meaning of a message, in a form that can be compared: payloads are written again in the one canonical way.
fn meaning(file: &str, bytes: &[u8]) -> Result<String, WireError> {
    let plain = unpack(bytes, &LIMITS)?;
    Ok(if file.starts_with("payload_") {
        let payload = decode_notarisation_payload(&plain, &LIMITS)?;
        hex::encode(encode_notarisation_payload(&payload).expect("a kind that is written"))
    } else if file.starts_with("session_") {
        format!("{:?}", decode_session_message(bytes, &LIMITS)?)
    } else if file == "signed_node_info_worker.bin" {
        let signed = decode_signed_node_info(bytes, &LIMITS)?;
        format!("{signed:?} {:?}", decode_node_info(&signed.raw, &LIMITS)?)
    } else if file == "signed_network_parameters.bin" {
        let signed = decode_signed_network_parameters(bytes, &LIMITS)?;
        format!("{signed:?} {:?}", decode_network_parameters(&signed.raw, &LIMITS)?)
    } else {
        format!("{:?}", decode_notary_reply(bytes, &LIMITS)?)
    })
}

fn files() -> impl Iterator<Item = &'static str> {
    let network = ["signed_node_info_worker.bin", "signed_network_parameters.bin"];
    PAYLOADS.into_iter().chain(SESSIONS).chain(REPLIES).chain(network)
}

/// Checks that a change of each message's bytes leaves its meaning.
fn means_the_same(change: impl Fn(Tree) -> Vec<u8>) {
    for file in files() {
        let bytes = vector(file);
        let changed = change(Tree::of_message(&bytes));
        assert_ne!(changed, bytes, "{file}: nothing was changed");
        let original = meaning(file, &bytes).expect("a vector");
        assert_eq!(meaning(file, &changed).unwrap_or_else(|error| panic!("{file}: {error}")), original, "{file}");
    }
}

fn is_fingerprint(symbol: &str) -> bool {
    symbol.ends_with("==")
}

#[test]
fn the_test_tree_writes_what_it_reads() {
    for file in files() {
        let bytes = vector(file);
        assert_eq!(Tree::of_message(&bytes).to_message(Width::Narrow), bytes, "{file}");
    }
}

#[test]
fn the_widest_encoding_of_every_value_means_the_same() {
    means_the_same(|tree| tree.to_message(Width::Widest));
}

#[test]
fn fingerprints_may_be_any_consistent_text() {
    for prefix in ["net.corda:", ""] {
        means_the_same(|mut tree| {
            tree.each(&mut |value| {
                if let Tree::Symbol(symbol) = value
                    && is_fingerprint(symbol)
                {
                    let digits: String = symbol.bytes().rev().map(|byte| format!("{byte:02x}")).collect();
                    *symbol = format!("{prefix}any/{digits}==");
                }
            });
            tree.to_message(Width::Narrow)
        });
    }
}

#[test]
fn transforms_may_be_left_out() {
    means_the_same(|mut tree| {
        tree.parts().pop();
        tree.to_message(Width::Narrow)
    });
}

#[test]
fn the_schema_may_be_in_any_order() {
    means_the_same(|mut tree| {
        let mut types = std::mem::take(tree.types());
        types.reverse();
        // Where there is one type only, its order is what it was: say something else that means nothing.
        if types.len() == 1 {
            tree.parts().pop();
        }
        *tree.types() = types;
        tree.to_message(Width::Narrow)
    });
}

#[test]
fn types_that_do_not_occur_may_be_left_out_of_the_schema() {
    for file in files() {
        let bytes = vector(file);
        let mut tree = Tree::of_message(&bytes);
        let mut used = Vec::new();
        tree.parts()[0].each(&mut |value| {
            if let Tree::Symbol(symbol) = value {
                used.push(symbol.clone());
            }
        });
        let descriptors = tree.descriptors();
        tree.types().retain_mut(|notation| {
            let name = notation.parts()[0].as_text().to_owned();
            used.contains(&descriptors[&name])
        });
        let changed = tree.to_message(Width::Narrow);
        assert_eq!(meaning(file, &changed).expect(file), meaning(file, &bytes).expect(file), "{file}");
    }
}

#[test]
fn fields_that_this_worker_does_not_know_are_dropped() {
    means_the_same(|mut tree| {
        let names: Vec<_> = tree.descriptors().into_keys().collect();
        let composites = names.iter().filter(|name| {
            let place = tree.types().iter_mut().position(|notation| notation.parts()[0].as_text() == **name);
            tree.types()[place.expect("a type of the schema")].parts().len() == 5
        });
        let composites: Vec<_> = composites.cloned().collect();
        for name in composites {
            // Last in name order, and bare, so that no reference moves.
            let mut field = amqp::composite("any", &[("zzz", "string")]);
            let field = field.parts()[4].parts().remove(0);
            tree.fields(&name).push(field);
            tree.each_object(&name, |values| values.push(amqp::text("news from a later version")));
        }
        let mut changed = false;
        tree.each(&mut |value| changed |= *value == amqp::text("zzz"));
        if !changed {
            tree.parts().pop(); // No composite type at all.
        }
        tree.to_message(Width::Narrow)
    });
}

#[test]
fn fields_that_an_older_sender_does_not_know_are_filled_in() {
    for (file, type_name, field) in [
        ("session_initial.bin", "InitialSessionMessage", "serializedTelemetry"),
        ("session_error_unrevealed.bin", "ErrorSessionMessage", "flowException"),
        ("response_single.payload.bin", "TransactionSignature", "partialMerkleTree"),
        ("response_batch.payload.bin", "PartialMerkleTree$PartialTree$Node", "hashAlgorithm"),
        ("payload_filtered_many.bin", "PartialMerkleTree$PartialTree$Node", "hashAlgorithm"),
        ("payload_notary_change.bin", "NotaryChangeWireTransaction", "digestService"),
        ("payload_contract_upgrade.bin", "ContractUpgradeFilteredTransaction", "digestService"),
        ("signed_network_parameters.bin", "DigitalSignatureWithCert", "parentCertsChain"),
    ] {
        let bytes = vector(file);
        let mut tree = Tree::of_message(&bytes);
        let names: Vec<_> = tree.descriptors().into_keys().collect();
        let full = names.iter().find(|name| name.rsplit('.').next() == Some(type_name)).expect("the type");
        let changed = tree.without_field(full, field).to_message(Width::Narrow);
        assert_eq!(meaning(file, &changed).expect(file), meaning(file, &bytes).expect(file), "{file}: {field}");
    }
}

#[test]
fn a_field_without_a_default_must_be_there() {
    for (file, type_name, field) in [
        ("session_initial.bin", "net.corda.node.services.statemachine.InitialSessionMessage", "initiatorSessionId"),
        ("payload_filtered_many.bin", "net.corda.core.transactions.FilteredTransaction", "groupHashes"),
        ("response_single.payload.bin", "net.corda.core.crypto.TransactionSignature", "by"),
    ] {
        let changed = Tree::of_message(&vector(file)).without_field(type_name, field).to_message(Width::Narrow);
        let error = meaning(file, &changed).expect_err(field);
        assert!(error.to_string().contains("lacks"), "{file}: {error}");
    }
}

fn set_field(tree: &mut Tree, type_name: &str, field: &str, value: Tree) {
    let place = tree.field_place(type_name, field);
    tree.each_object(type_name, |values| values[place] = value.clone());
}

/// Why a changed vector is refused.
fn refusal(file: &str, change: impl FnOnce(&mut Tree)) -> String {
    let mut tree = Tree::of_message(&vector(file));
    change(&mut tree);
    let error = meaning(file, &tree.to_message(Width::Narrow));
    error.expect_err("the message should be refused").to_string()
}

const NODE: &str = "net.corda.core.crypto.PartialMerkleTree$PartialTree$Node";
const FILTERED: &str = "net.corda.core.transactions.FilteredTransaction";
const GROUP: &str = "net.corda.core.transactions.FilteredComponentGroup";
const NAMED_HASH: &str = "net.corda.core.crypto.SecureHash$HASH";
const SHA256: &str = "net.corda.core.crypto.SecureHash$SHA256";

#[test]
fn fields_out_of_name_order_are_refused_as_nodes_would_misread_them() {
    let error = refusal("session_confirm.bin", |tree| {
        let name = "net.corda.core.flows.FlowInfo";
        tree.fields(name).reverse();
        tree.each_object(name, |values| values.reverse());
    });
    assert!(error.starts_with("fields are not in ascending name order"), "{error}");
}

#[test]
fn true_fingerprints_without_a_schema_are_refused() {
    let error = refusal("session_confirm.bin", |tree| tree.types().clear());
    assert!(error.starts_with("no type is described for net.corda:FEWLfjgHA2C9cSmEOhvumA=="), "{error}");
}

#[test]
fn two_types_under_one_descriptor_are_refused() {
    let error = refusal("session_confirm.bin", |tree| {
        let again = tree.types()[0].clone();
        tree.types().push(again);
    });
    assert!(error.starts_with("two types have one descriptor"), "{error}");
}

#[test]
fn an_object_has_one_value_for_each_field() {
    let error = refusal("session_confirm.bin", |tree| {
        tree.each_object("net.corda.core.flows.FlowInfo", |values| values.push(Tree::Null));
    });
    assert!(error.starts_with("an object has more or fewer values"), "{error}");
}

#[test]
fn a_null_hash_algorithm_is_refused_though_an_absent_one_is_sha_256() {
    let error = refusal("payload_filtered_many.bin", |tree| set_field(tree, NODE, "hashAlgorithm", Tree::Null));
    assert!(error.contains("lacks hashAlgorithm"), "{error}");
    let bytes = Tree::of_message(&vector("response_batch.payload.bin"))
        .without_field(NODE, "hashAlgorithm")
        .to_message(Width::Narrow);
    let Ok(NotaryReply::Signatures(signatures)) = decode_notary_reply(&bytes, &LIMITS) else { panic!("no response") };
    let nodes = signatures[0].partial_tree.as_ref().expect("a tree").nodes();
    assert_eq!(nodes[0], PartialNode::Node(HashAlgorithm::Sha256));
}

#[test]
fn only_one_name_of_each_hash_algorithm_is_accepted() {
    for alias in ["sha-384", "SHA384", "SHA-384 ", "2.16.840.1.101.3.4.2.2", "", "SHA-1"] {
        let error = refusal("payload_filtered_sha384.bin", |tree| {
            set_field(tree, NAMED_HASH, "algorithm", amqp::text(alias));
        });
        assert!(error.contains("is no hash algorithm's canonical name"), "{alias}: {error}");
    }
    let error = refusal("payload_filtered_sha384.bin", |tree| {
        set_field(tree, NAMED_HASH, "algorithm", amqp::text("SHA-256"));
        set_field(tree, NAMED_HASH, "bytes", Tree::Bytes(vec![1; 32]));
    });
    assert!(error.contains("names SHA-256 explicitly"), "{error}");
}

#[test]
fn a_hash_has_its_algorithms_length() {
    let error = refusal("payload_filtered_1_input.bin", |tree| {
        set_field(tree, SHA256, "bytes", Tree::Bytes(vec![1; 31]));
    });
    assert!(error.starts_with("a SHA-256 hash has 32 bytes, not 31"), "{error}");
}

/// A component in place of the first input of `payload_filtered_1_input.bin`.
fn with_input(component: &Tree) -> impl FnOnce(&mut Tree) {
    let bytes = Tree::Bytes(component.to_message(Width::Narrow));
    move |tree| {
        let mut first = true;
        tree.each_object("net.corda.core.serialization.SerializedBytes", |values| {
            if std::mem::take(&mut first) {
                values[0] = bytes.clone();
            }
        });
    }
}

fn input_component() -> Tree {
    let bytes = vector("payload_filtered_1_input.bin");
    let payload = decode_notarisation_payload(&bytes, &LIMITS).expect("a payload");
    let CoreTransaction::Filtered(tx) = payload.transaction else { panic!("not filtered") };
    Tree::of_message(tx.groups[0].components[0])
}

#[test]
fn a_negative_index_of_a_state_is_refused_and_says_in_which_component() {
    let mut component = input_component();
    set_field(&mut component, "net.corda.core.contracts.StateRef", "index", Tree::Int(-1));
    let error = refusal("payload_filtered_1_input.bin", with_input(&component));
    assert!(error.starts_with("a state's index is negative (at byte "), "{error}");
    assert!(error.ends_with(" of component 0 of group 0)"), "{error}");
}

#[test]
fn a_component_of_another_type_is_refused() {
    let party = Tree::of_message(&vector("party_notary.bin"));
    let error = refusal("payload_filtered_1_input.bin", with_input(&party));
    assert!(
        error.starts_with("net.corda.core.contracts.StateRef expected, net.corda.core.identity.Party found"),
        "{error}"
    );
}

#[test]
fn an_index_is_an_int_and_nothing_else() {
    for value in [Tree::Long(0), Tree::UInt(0), amqp::text("0"), Tree::Bool(false)] {
        let mut component = input_component();
        set_field(&mut component, "net.corda.core.contracts.StateRef", "index", value.clone());
        let error = refusal("payload_filtered_1_input.bin", with_input(&component));
        assert!(error.starts_with("int expected"), "{value:?}: {error}");
    }
}

#[test]
fn components_and_nonces_come_in_pairs() {
    let error = refusal("payload_filtered_many.bin", |tree| {
        let nonces = tree.field_place(GROUP, "nonces");
        tree.each_object(GROUP, |values| {
            values[nonces].parts().pop();
        });
    });
    assert!(error.contains("nonces"), "{error}");
}

#[test]
fn a_component_number_occurs_once_visible_or_hidden() {
    const UPGRADE: &str = "net.corda.core.transactions.ContractUpgradeFilteredTransaction";
    for (field, first) in [("visibleComponents", 0), ("hiddenComponents", 2), ("hiddenComponents", 0)] {
        let error = refusal("payload_contract_upgrade.bin", |tree| {
            let place = tree.field_place(UPGRADE, field);
            tree.each_object(UPGRADE, |values| {
                let entries = values[place].parts();
                entries[2] = Tree::Int(first);
            });
        });
        assert!(error.starts_with("a component number occurs twice"), "{field}: {error}");
    }
}

#[test]
fn a_consumed_state_occurs_once() {
    let error = refusal("session_error_conflict.bin", |tree| {
        tree.each_object("net.corda.core.contracts.StateRef", |values| {
            values[0] = Tree::Int(0);
            values[1] = amqp::object("net.corda:7YZSUU3tC6YvtX33Klo9Jg==", Tree::List(vec![Tree::Bytes(vec![7; 32])]));
        });
    });
    assert!(error.starts_with("a consumed state occurs twice"), "{error}");
}

#[test]
fn a_constants_name_and_ordinal_agree() {
    let error = refusal("session_error_conflict.bin", |tree| {
        tree.each_object("net.corda.core.flows.StateConsumptionDetails$ConsumedStateType", |values| {
            values[1] = Tree::Int(1);
        });
    });
    assert!(error.contains("a name that does not fit its ordinal"), "{error}");
}

#[test]
fn a_time_window_begins_before_it_ends() {
    let error = refusal("session_error_time_window_invalid.bin", |tree| {
        tree.each_object("net.corda.core.contracts.TimeWindow$Between", |values| values.reverse());
    });
    assert!(error.starts_with("a time window ends before it begins"), "{error}");
}

#[test]
fn a_moment_carries_no_nanoseconds_over() {
    for nanos in [-1, 1_000_000_000] {
        let error = refusal("session_error_time_window_invalid.bin", |tree| {
            tree.each(&mut |value| {
                if let Tree::Described(symbol, value) = value
                    && **symbol == Tree::Symbol("net.corda:java.time.Instant".into())
                {
                    value.parts()[1] = Tree::Int(nanos);
                }
            });
        });
        assert!(error.starts_with("a moment is out of range"), "{nanos}: {error}");
    }
}

#[test]
fn an_unsupported_transaction_is_named_not_refused() {
    let bytes = vector("payload_signed_transaction.bin");
    let payload = decode_notarisation_payload(&bytes, &LIMITS).expect("a payload");
    let CoreTransaction::Unsupported { type_name } = payload.transaction else { panic!("supported") };
    assert_eq!(type_name, "net.corda.core.transactions.SignedTransaction");
}

#[test]
fn more_notaries_than_the_rules_need_to_see_are_not_decoded() {
    let error = refusal("payload_filtered_1_input.bin", |tree| {
        let (components, nonces) = (tree.field_place(GROUP, "components"), tree.field_place(GROUP, "nonces"));
        let groups = tree.field_place(FILTERED, "filteredComponentGroups");
        tree.each_object(FILTERED, |values| {
            let group = values[groups].parts()[1].parts();
            for place in [components, nonces] {
                let first = group[place].parts()[0].clone();
                group[place].parts().extend(vec![first; 5]);
            }
            // References behind the added objects would name others: drop what has them.
            values.truncate(2);
            values.push(amqp::object("net.corda:cSkzqbskuJ0tzGSo1k+Zvw==", Tree::List(vec![])));
            values.push(amqp::object("net.corda:7YZSUU3tC6YvtX33Klo9Jg==", Tree::List(vec![Tree::Bytes(vec![7; 32])])));
        });
    });
    assert!(error.starts_with("more than 4 notaries"), "{error}");
}

#[test]
fn nothing_may_follow_a_message() {
    for file in files() {
        let mut bytes = vector(file);
        bytes.push(0x40);
        assert_eq!(meaning(file, &bytes).expect_err(file).fault(), &Fault::Trailing, "{file}");
    }
}

#[test]
fn the_other_data_section_means_the_same() {
    for file in files() {
        let mut bytes = vector(file);
        bytes[MAGIC.len() - 1] = 1;
        assert_eq!(meaning(file, &bytes).expect(file), meaning(file, &vector(file)).expect(file), "{file}");
    }
}

/// A message with its data section compressed by the reference implementation of Snappy's framing format.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let magic = &MAGIC[..MAGIC.len() - 1];
    let mut out = [magic, &[2, 1]].concat();
    let mut encoder = snap::write::FrameEncoder::new(&mut out);
    encoder.write_all(bytes.strip_prefix(magic).expect("a message")).expect("writing to memory");
    encoder.flush().expect("writing to memory");
    drop(encoder);
    out
}

#[test]
fn a_compressed_message_means_the_same() {
    for file in files() {
        let (bytes, packed) = (vector(file), compressed(&vector(file)));
        assert_eq!(*unpack(&packed, &LIMITS).expect(file), bytes);
        assert_eq!(meaning(file, &packed).expect(file), meaning(file, &bytes).expect(file), "{file}");
    }
    let packed = compressed(&vector("session_initial.bin"));
    let SessionMessage::Initial(initial) = decode_session_message(&packed, &LIMITS).expect("a session message") else {
        panic!("no session start")
    };
    assert_eq!(initial.first_payload.as_deref(), Some(&*vector("payload_filtered_1_input.bin")));
}

#[test]
fn a_payload_is_unpacked_before_it_is_decoded() {
    let packed = compressed(&vector("payload_filtered_1_input.bin"));
    let error = decode_notarisation_payload(&packed, &LIMITS).expect_err("borrowing needs plain bytes");
    assert_eq!(error.fault(), &Fault::Compression("still compressed"));
}

#[test]
fn other_compressions_and_double_ones_are_refused() {
    let start = &MAGIC[..MAGIC.len() - 1];
    let of = |sections: &[u8]| unpack(&[start, sections].concat(), &LIMITS).expect_err("refused").fault().clone();
    assert_eq!(of(&[2, 0, 0x78, 0x9c]), Fault::Compression("DEFLATE is not accepted"));
    assert_eq!(of(&[2, 7]), Fault::Compression("unknown compression"));
    assert_eq!(of(&[2]), Fault::Compression("unknown compression"));
    assert_eq!(of(&[3]), Fault::Malformed("unknown section"));
    assert_eq!(of(&[]), Fault::Truncated);
    assert_eq!(of(&[2, 1]), Fault::Truncated);
    assert_eq!(of(&[2, 1, 0, 0, 0, 0]), Fault::Compression("no Snappy stream identifier"));
    let twice = compressed(&compressed(&vector("session_end.bin")));
    assert!(matches!(unpack(&twice, &LIMITS).expect_err("twice").fault(), Fault::Compression(_)));
}
