//! The worker's own endpoint: no panic and nothing left behind, whatever a peer says from its first byte on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notary_worker::broker::embedded::rehearsal::rehearse;

fuzz_target!(|bytes: &[u8]| {
    rehearse(bytes);
});
