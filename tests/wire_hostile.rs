//! Bytes made to hurt: they are refused, quickly and in little memory, and never panic.

mod wire_support;

use std::time::{Duration, Instant};

use notary_worker::wire::*;
use wire_support::amqp::{self, MAGIC, Tree, Width, composite, object, reference, restricted, text};
use wire_support::vector;

const LIMITS: Limits = Limits::DEFAULT;

/// Longest that one hostile message may keep a decoder. Real ones take microseconds, and the largest some tenths of a second;
/// the rest is for a busy machine and a build without optimisation.
const DECODE_TIME_MAX: Duration = Duration::from_secs(10);

/// Most memory that the whole process may come to use. One message of 10 MiB in all its forms stays far below.
const RESIDENT_KIB_MAX: u64 = 1 << 20;

/// Hands the bytes to every decoder. Returns the refusal of `inspect`, which looks into everything.
fn decode_every_way(bytes: &[u8]) -> Result<serde_json::Value, WireError> {
    let start = Instant::now();
    let _ = decode_session_message(bytes, &LIMITS);
    let _ = decode_notarisation_payload(bytes, &LIMITS);
    let _ = decode_notary_reply(bytes, &LIMITS);
    let _ = decode_transaction_signature(bytes, &LIMITS);
    let _ = decode_partial_tree(bytes, &LIMITS);
    let _ = decode_signed_node_info(bytes, &LIMITS);
    let _ = decode_node_info(bytes, &LIMITS);
    let _ = decode_signed_network_parameters(bytes, &LIMITS);
    let _ = decode_network_parameters(bytes, &LIMITS);
    let _ = decode_party(bytes, &LIMITS);
    let _ = decode_state_ref(bytes, &LIMITS);
    let _ = decode_state_refs(bytes, &LIMITS);
    let _ = decode_time_window(bytes, &LIMITS);
    let result = inspect(bytes, &LIMITS);
    assert!(start.elapsed() < DECODE_TIME_MAX, "took {:?}", start.elapsed());
    result
}

/// Why hostile bytes are refused, by a decoder that must not have used much memory.
fn refusal(bytes: &[u8]) -> String {
    let error = decode_every_way(bytes).expect_err("the bytes should be refused");
    check_memory();
    error.to_string()
}

fn check_memory() {
    // Where the system tells: the most memory that this process ever had.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(kib < RESIDENT_KIB_MAX, "{kib} KiB were used");
    }
}

const SMALL: [&str; 9] = [
    "session_end.bin",
    "session_error_conflict.bin",
    "session_error_general.bin",
    "wait_time_update.payload.bin",
    "response_batch.payload.bin",
    "partial_merkle_tree.bin",
    "party_full_name.bin",
    "payload_notary_change.bin",
    "payload_filtered_1_input.bin",
];

#[test]
fn every_truncation_is_refused() {
    for file in SMALL.into_iter().chain(["signed_node_info_worker.bin", "signed_network_parameters.bin"]) {
        let bytes = vector(file);
        for length in 0..bytes.len() {
            assert!(inspect(&bytes[..length], &LIMITS).is_err(), "{file} cut to {length} bytes");
        }
    }
}

#[test]
fn no_changed_byte_makes_a_decoder_panic_or_linger() {
    for file in SMALL {
        let bytes = vector(file);
        for place in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[place] ^= change;
                let start = Instant::now();
                let _ = inspect(&changed, &LIMITS);
                assert!(start.elapsed() < DECODE_TIME_MAX, "{file}: byte {place} took {:?}", start.elapsed());
            }
        }
    }
    check_memory();
}

#[test]
fn a_message_longer_than_the_network_allows_is_refused_unread() {
    let mut bytes = MAGIC.to_vec();
    bytes.resize(LIMITS.message_bytes_max + 1, 0x40);
    assert!(refusal(&bytes).starts_with("more than 10485760 bytes"));
}

/// Snappy's framing of zeros: each 64 KiB shrink to some 3 KiB.
fn snappy_of_zeros(mib: usize) -> Vec<u8> {
    let mut chunk = Vec::new();
    let data = snap::raw::Encoder::new().compress_vec(&[0; 65_536]).expect("compresses");
    chunk.push(0);
    chunk.extend(&(data.len() as u32 + 4).to_le_bytes()[..3]);
    chunk.extend([0; 4]);
    chunk.extend(data);
    let mut bytes = [&MAGIC[..MAGIC.len() - 1], &[2, 1, 0xff, 6, 0, 0], b"sNaPpY"].concat();
    bytes.extend(chunk.repeat(mib * 16));
    bytes
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let bytes = snappy_of_zeros(200);
    assert!(bytes.len() < LIMITS.message_bytes_max, "the bomb is small enough to be looked at");
    assert!(refusal(&bytes).starts_with("more than 10485760 bytes after decompression"));
}

#[test]
fn a_snappy_chunk_that_lies_about_its_length_is_refused() {
    let start = [&MAGIC[..MAGIC.len() - 1], &[2, 1, 0xff, 6, 0, 0], b"sNaPpY"].concat();
    // Claims 4 GiB, then 64 KiB and a byte, of which it has none.
    for claim in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x81, 0x80, 0x04]] {
        let mut bytes = start.clone();
        bytes.push(0);
        bytes.extend(&(claim.len() as u32 + 4).to_le_bytes()[..3]);
        bytes.extend([0; 4]);
        bytes.extend(claim);
        assert!(refusal(&bytes).starts_with("compression: a Snappy chunk is too long"), "{claim:x?}");
    }
}

/// A list of one element of its own kind, `depth` times.
fn nested_lists(depth: usize) -> Vec<u8> {
    let mut body = object("L", Tree::List(vec![]));
    for _ in 0..depth {
        body = object("L", Tree::List(vec![body]));
    }
    amqp::message(body, vec![restricted("L", "list")])
}

#[test]
fn nesting_is_bounded() {
    assert!(inspect(&nested_lists(63), &LIMITS).is_ok());
    assert!(refusal(&nested_lists(64)).starts_with("more than 64 levels of nesting"));
    // Deeper than any stack, written by hand: the test's own tree would not survive it.
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0x00, 0x80, 0xc5, 0x62, 0, 0, 0, 0, 0, 1, 0xd0]);
    let content_start = bytes.len();
    let level = [0x00, 0xa3, 1, b'L', 0xd0];
    let (depth, level_length) = (500_000, 13);
    let mut left = depth * level_length;
    bytes.extend((left as u32 + 600).to_be_bytes());
    bytes.extend(3u32.to_be_bytes());
    for _ in 0..depth {
        bytes.extend(level);
        left -= level_length;
        bytes.extend((left as u32 + 4).to_be_bytes());
        bytes.extend(u32::from(left > 0).to_be_bytes());
    }
    let template = nested_lists(0);
    let schema = template.windows(10).position(|w| w == [0, 0x80, 0xc5, 0x62, 0, 0, 0, 0, 0, 2]).expect("a schema");
    bytes.extend(&template[schema..]);
    let size = (bytes.len() - content_start - 4) as u32;
    bytes[content_start..content_start + 4].copy_from_slice(&size.to_be_bytes());
    assert!(refusal(&bytes).starts_with("more than 64 levels of nesting"));
}

#[test]
fn descriptors_do_not_nest() {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(vec![0x00; 1_000_000]);
    assert!(refusal(&bytes).contains("descriptor"));
}

#[test]
fn counts_and_lengths_beyond_the_bytes_are_refused() {
    for (file, pattern) in [("payload_filtered_many.bin", 0xd0), ("response_batch.payload.bin", 0xc0)] {
        let bytes = vector(file);
        let places = (8..bytes.len() - 9).filter(|place| bytes[*place] == pattern);
        for place in places {
            for huge in
                [[0xff; 8], [0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]]
            {
                let mut changed = bytes.clone();
                changed[place + 1..place + 9].copy_from_slice(&huge);
                let _ = decode_every_way(&changed);
            }
        }
    }
    check_memory();
}

#[test]
fn elements_values_types_and_fields_are_bounded() {
    let list =
        |count: usize| amqp::message(object("L", Tree::List(vec![Tree::Null; count])), vec![restricted("L", "list")]);
    assert!(inspect(&list(32_768), &LIMITS).is_ok());
    assert!(refusal(&list(32_769)).starts_with("more than 32768 elements of one list or map"));

    let many = object("L", Tree::List(vec![object("L", Tree::List(vec![Tree::Null; 30_000])); 20]));
    assert!(refusal(&amqp::message(many, vec![restricted("L", "list")])).starts_with("more than 500000 values"));

    let types = |count: usize| (0..count).map(|i| composite(&format!("t.T{i}"), &[])).collect::<Vec<_>>();
    assert!(inspect(&amqp::message(text("x"), types(256)), &LIMITS).is_ok());
    assert!(refusal(&amqp::message(text("x"), types(257))).starts_with("more than 256 types"));

    let names: Vec<_> = (0..129).map(|i| format!("f{i:03}")).collect();
    let fields: Vec<_> = names.iter().map(|name| (&**name, "int")).collect();
    assert!(inspect(&amqp::message(text("x"), vec![composite("t.T", &fields[..128])]), &LIMITS).is_ok());
    let error = refusal(&amqp::message(text("x"), vec![composite("t.T", &fields)]));
    assert!(error.starts_with("more than 128 fields of one type"), "{error}");

    let custom = (0..600).map(|i| object(&format!("net.corda:c.C{i}"), Tree::Null)).collect();
    let error = refusal(&amqp::message(object("L", Tree::List(custom)), vec![restricted("L", "list")]));
    assert!(error.starts_with("more than 512 types"), "{error}");
}

#[test]
fn references_are_bounded_and_name_earlier_objects_only() {
    let list = |elements| amqp::message(object("L", Tree::List(elements)), vec![restricted("L", "list")]);
    let with_references = |count| list([vec![text("x")], vec![reference(0); count]].concat());
    assert!(inspect(&with_references(1000), &LIMITS).is_ok());
    let many = object("L", Tree::List([vec![text("x")], vec![reference(0); 20_000]].concat()));
    let error = refusal(&list(vec![many.clone(), many]));
    assert!(error.starts_with("more than 32768 references"), "{error}");
    for index in [0, 1, u32::MAX] {
        let error = refusal(&list(vec![reference(index)]));
        assert!(error.starts_with("a reference names no earlier object"), "{index}: {error}");
    }
    // An object has no index before it ends, so none can contain itself.
    let error = refusal(&list(vec![text("x"), reference(1)]));
    assert!(error.starts_with("a reference names no earlier object"), "{error}");
}

const NODE: &str = "net.corda.core.crypto.PartialMerkleTree$PartialTree$Node";
const LEAF: &str = "net.corda.core.crypto.PartialMerkleTree$PartialTree$Leaf";
const TREE: &str = "net.corda.core.crypto.PartialMerkleTree";
const SHA256: &str = "net.corda.core.crypto.SecureHash$SHA256";

fn tree_types() -> Vec<Tree> {
    vec![
        composite(NODE, &[("left", "t.Tree"), ("right", "t.Tree")]),
        composite(LEAF, &[("hash", "t.Hash")]),
        composite(TREE, &[("root", "t.Tree")]),
        composite(SHA256, &[("bytes", "binary")]),
        restricted("L", "list"),
    ]
}

/// A tree whose every right half is its left half once more: 2^depth leaves in a few bytes.
fn doubling_tree(depth: u32) -> Tree {
    let hash = object(SHA256, Tree::List(vec![Tree::Bytes(vec![7; 32])]));
    let mut root = object(LEAF, Tree::List(vec![hash]));
    for level in 0..depth {
        // The hash is object 0, the leaf 1, and each level one more.
        root = object(NODE, Tree::List(vec![root, reference(level + 1)]));
    }
    object(TREE, Tree::List(vec![root]))
}

#[test]
fn references_do_not_make_trees_explode() {
    let message = |depth| amqp::message(doubling_tree(depth), tree_types());
    assert_eq!(decode_partial_tree(&message(4), &LIMITS).expect("a small tree").nodes().len(), 31);
    for depth in [10, 15, 20, 31, 40, 60] {
        let bytes = message(depth);
        let error = decode_partial_tree(&bytes, &LIMITS).expect_err("an exploding tree").to_string();
        assert!(
            error.starts_with("references make the message too large") || error.contains("of a partial Merkle tree"),
            "{depth}: {error}"
        );
        let _ = decode_every_way(&bytes);
    }
    check_memory();
}

#[test]
fn references_do_not_make_lists_explode() {
    // Each list names the one before it ten times: 10^40 elements.
    let mut levels = vec![object("L", Tree::List(vec![Tree::Bool(true); 10]))];
    for level in 0..40 {
        levels.push(object("L", Tree::List(vec![reference(level); 10])));
    }
    let error = refusal(&amqp::message(object("L", Tree::List(levels)), vec![restricted("L", "list")]));
    assert!(error.starts_with("references make the message too large"), "{error}");
}

#[test]
fn references_do_not_make_long_values_many() {
    // A text of a megabyte, thirty thousand times.
    let elements = [vec![text(&"x".repeat(1 << 20))], vec![reference(0); 30_000]].concat();
    let error = refusal(&amqp::message(object("L", Tree::List(elements)), vec![restricted("L", "list")]));
    assert!(error.starts_with("references make the message too large"), "{error}");
}

#[test]
fn references_do_not_make_components_many() {
    const GROUPS: &str = "net.corda:zjA++OSTyVSwzQ63SDZCAA==";
    const COMPONENTS: &str = "net.corda:JYpeblY7Crx/a1JihxJC6w==";
    const HASHES: &str = "net.corda:cSkzqbskuJ0tzGSo1k+Zvw==";
    let mut tree = Tree::of_message(&vector("payload_filtered_1_input.bin"));
    // The first component and the first nonce, by the order in which objects end: key, signature, request signature, digest
    // service, component, list, nonce.
    let (component, nonce) = (4, 6);
    tree.parts()[0].each(&mut |value| {
        if let Tree::Described(symbol, content) = value
            && let Tree::List(elements) = &mut **content
        {
            match symbol.as_text_or_empty() {
                COMPONENTS => elements.extend(vec![reference(component); 15_000]),
                HASHES if elements.len() == 1 => elements.extend(vec![reference(nonce); 15_000]),
                HASHES => elements.clear(), // The group hashes name objects of groups that are left out.
                GROUPS => elements.truncate(1),
                _ => {}
            }
        }
    });
    let bytes = tree.to_message(Width::Narrow);
    let start = Instant::now();
    let error = decode_notarisation_payload(&bytes, &LIMITS).expect_err("15,000 times one component").to_string();
    assert!(start.elapsed() < DECODE_TIME_MAX);
    assert!(error.starts_with("references make the message too large"), "{error}");
    let _ = decode_every_way(&bytes);
    check_memory();
}

#[test]
fn a_compressed_component_cannot_outgrow_its_payload() {
    // Within the limit for messages, but hundreds of times as long as the payload around it.
    let mut tree = Tree::of_message(&vector("payload_filtered_1_input.bin"));
    tree.each_object("net.corda.core.serialization.SerializedBytes", |values| {
        values[0] = Tree::Bytes(snappy_of_zeros(9));
    });
    let bytes = tree.to_message(Width::Narrow);
    let total = 4 * bytes.len();
    assert!(total < 9 << 20, "the component would fit");
    let error = decode_notarisation_payload(&bytes, &LIMITS).expect_err("9 MiB of zeros").to_string();
    assert!(error.starts_with(&format!("more than {total} bytes after decompression")), "{error}");
    assert!(error.ends_with(" of component 0 of group 0)"), "{error}");
}

#[test]
fn messages_do_not_nest_without_end() {
    let mut bytes = vector("session_end.bin");
    for _ in 0..200 {
        bytes = encode_session_data(1, &bytes);
    }
    let error = refusal(&bytes);
    assert!(error.starts_with("more than 2 levels of nested messages"), "{error}");
    // The same through a type that is no session message: what is shown nests as deep as its own limit.
    let serialized = "net.corda.core.serialization.SerializedBytes";
    let mut bytes = amqp::message(text("x"), vec![]);
    for _ in 0..2000 {
        let body = object(serialized, Tree::List(vec![Tree::Bytes(bytes)]));
        bytes = amqp::message(body, vec![composite(serialized, &[("bytes", "binary")])]);
    }
    let _ = decode_every_way(&bytes);
    check_memory();
}

#[test]
fn the_largest_real_request_passes() {
    use notary_worker::domain::merkle::PartialTree;
    use notary_worker::domain::signature::PublicKey;
    use notary_worker::domain::transaction::*;
    use notary_worker::domain::{HashAlgorithm, SecureHash, StateRef, TxId};

    // 9,990 inputs, each of its own transaction; nearly all that the rules allow and that fits a message.
    let hash = |n: u32, salt: u8| HashAlgorithm::Sha256.digest(&[&n.to_be_bytes(), &[salt]]).expect("SHA-256");
    let inputs: Vec<_> = (0..9_990).map(|n| StateRef { tx_id: TxId(hash(n, 0)), index: n }).collect();
    let components: Vec<_> = inputs.iter().map(encode_state_ref).collect();
    let leaves: Vec<SecureHash> = (0..9_990).map(|n| hash(n, 1)).collect();
    let group = FilteredGroup {
        index: 0,
        components: components.iter().map(Vec::as_slice).collect(),
        nonces: (0..9_990).map(|n| hash(n, 2)).collect(),
        tree: PartialTree::build(HashAlgorithm::Sha256, &leaves, |_| true).expect("a tree"),
    };
    let payload = NotarisationPayload {
        transaction: CoreTransaction::Filtered(FilteredTransaction {
            id: TxId(hash(0, 3)),
            digest: HashAlgorithm::Sha256,
            groups: vec![group],
            group_hashes: vec![hash(0, 4)],
            visible: VisibleComponents::default(),
        }),
        request_signature: RequestSignature {
            by: PublicKey::from_spki(&wire_support::hex_bytes(
                &wire_support::manifest()["keys"]["alice"]["publicKeyX509Hex"],
            ))
            .expect("a key"),
            bytes: vec![7; 64],
            platform_version: 12,
        },
    };
    let bytes = encode_notarisation_payload(&payload).expect("a payload");
    assert!(bytes.len() < LIMITS.message_bytes_max, "{} bytes", bytes.len());
    let CoreTransaction::Filtered(tx) =
        decode_notarisation_payload(&bytes, &LIMITS).expect("within limits").transaction
    else {
        panic!("not filtered")
    };
    assert_eq!(tx.visible.inputs, inputs);
    inspect(&bytes, &LIMITS).expect("within limits");
}
