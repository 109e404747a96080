//! Session messages and notary replies: no panic on any bytes, and what decodes is shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notary_worker::wire::{Limits, decode_notary_reply, decode_session_message, inspect};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::DEFAULT;
    if let Ok(message) = decode_session_message(bytes, &limits) {
        assert_eq!(message.clone().into_owned(), message);
    }
    let _ = decode_notary_reply(bytes, &limits);
    let _ = inspect(bytes, &limits);
});
