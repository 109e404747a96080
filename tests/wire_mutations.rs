//! Real messages, changed at random: no decoder panics, and what decodes means the same after it is encoded again.
//!
//! `WIRE_SEED` replays a run, `WIRE_CASES` sets its length; both are printed. CI runs the fixed seed, nightly runs draw one.

mod wire_support;

use notary_worker::wire::*;
use wire_support::mutate::{Dice, mutated};
use wire_support::{entries, vector};

const LIMITS: Limits = Limits::DEFAULT;

/// As many as take a few seconds.
const CASES: u64 = 20_000;
const SEED: u64 = 0x006e_6f74_6172_7900;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

/// Says how to replay a case, should it panic.
struct Replay {
    seed: u64,
    case: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("case {} of WIRE_SEED={} (WIRE_CASES={})", self.case, self.seed, self.case + 1);
        }
    }
}

/// Decodes the message as what it is, and checks that encoding keeps its meaning. Says whether it decoded.
fn check(bytes: &[u8]) -> bool {
    let shown = inspect(bytes, &LIMITS);
    let session = decode_session_message(bytes, &LIMITS);
    if let Ok(message) = &session
        && let Some(again) = encode_session(message)
    {
        assert_eq!(decode_session_message(&again, &LIMITS).as_ref(), Ok(message));
    }
    if let Ok(payload) = decode_notarisation_payload(bytes, &LIMITS)
        && let Some(again) = encode_notarisation_payload(&payload)
    {
        let payload = decode_notarisation_payload(&again, &LIMITS).expect("what is encoded decodes");
        assert_eq!(encode_notarisation_payload(&payload).as_ref(), Some(&again));
    }
    if let Ok(NotaryReply::Signatures(signatures)) = decode_notary_reply(bytes, &LIMITS) {
        let again = encode_notarisation_response(&signatures);
        assert_eq!(decode_notary_reply(&again, &LIMITS), Ok(NotaryReply::Signatures(signatures)));
    }
    if let Ok(info) = decode_node_info(bytes, &LIMITS) {
        assert_eq!(decode_node_info(&encode_node_info(&info), &LIMITS), Ok(info));
    }
    if let Ok(document) = decode_network_parameters(bytes, &LIMITS) {
        let again = decode_network_parameters(&encode_network_parameters(&document), &LIMITS);
        assert_eq!(again.expect("what is encoded decodes").parameters, document.parameters);
    }
    shown.is_ok()
}

fn encode_session(message: &SessionMessage<'_>) -> Option<Vec<u8>> {
    let SessionMessage::Existing { recipient_session_id: recipient, payload } = message else {
        let SessionMessage::Initial(initial) = message else { unreachable!("there are two kinds") };
        return Some(encode_session_initial(initial));
    };
    match payload {
        ExistingPayload::Confirm { initiated_session_id, flow_version, app_name } if app_name == "corda" => {
            Some(encode_session_confirm(*recipient, *initiated_session_id, *flow_version))
        }
        ExistingPayload::Data(payload) => Some(encode_session_data(*recipient, payload)),
        ExistingPayload::Reject { error_id, message } => Some(encode_session_reject(*recipient, message, *error_id)),
        ExistingPayload::End => Some(encode_session_end(*recipient)),
        ExistingPayload::Error { error_id, exception: None } => Some(encode_session_error(*recipient, None, *error_id)),
        // A confirm of another application is never sent, and an error's text follows from the error.
        ExistingPayload::Confirm { .. } | ExistingPayload::Error { .. } => None,
    }
}

#[test]
fn mutated_messages_are_refused_or_mean_what_they_say() {
    let (seed, cases) = (setting("WIRE_SEED", SEED), setting("WIRE_CASES", CASES));
    println!("WIRE_SEED={seed} WIRE_CASES={cases}");
    let messages: Vec<_> = entries()
        .into_iter()
        .filter(|(file, ..)| file.ends_with(".bin") && !file.starts_with("composite_key") && !file.contains("300"))
        .map(|(file, ..)| vector(&file))
        .collect();
    assert!(messages.len() >= 55, "the vectors are there");
    let mut decoded = 0u64;
    for case in 0..cases {
        let _replay = Replay { seed, case };
        // Each case has dice of its own, so that it replays without those before it.
        let mut dice = Dice::new(seed ^ case.wrapping_mul(0xd6e8_feb8_6659_fd93));
        decoded += u64::from(check(&mutated(&messages, &mut dice)));
    }
    println!("{decoded} of {cases} decoded");
    // Mutations must reach behind the first check: a tenth decode still, and not all do.
    assert!(decoded > cases / 20 && decoded < cases, "{decoded} of {cases} decoded");
}
