//! Payloads: no panic on any bytes, and what decodes keeps its meaning when it is encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notary_worker::wire::{Limits, decode_notarisation_payload, encode_notarisation_payload, unpack};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::DEFAULT;
    let Ok(plain) = unpack(bytes, &limits) else { return };
    let Ok(payload) = decode_notarisation_payload(&plain, &limits) else { return };
    if let Some(encoded) = encode_notarisation_payload(&payload) {
        let again = decode_notarisation_payload(&encoded, &limits).expect("what is encoded decodes");
        assert_eq!(encode_notarisation_payload(&again), Some(encoded));
    }
});
