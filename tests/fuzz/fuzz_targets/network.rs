//! Node infos and network parameters: no panic on any bytes, and what decodes keeps its meaning when it is encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notary_worker::wire::{
    Limits, decode_network_parameters, decode_node_info, decode_signed_network_parameters, decode_signed_node_info,
    encode_node_info,
};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::DEFAULT;
    let node_info = |bytes: &[u8]| {
        if let Ok(info) = decode_node_info(bytes, &limits) {
            assert_eq!(decode_node_info(&encode_node_info(&info), &limits).as_ref(), Ok(&info));
        }
    };
    if let Ok(signed) = decode_signed_node_info(bytes, &limits) {
        node_info(&signed.raw);
    }
    node_info(bytes);
    if let Ok(signed) = decode_signed_network_parameters(bytes, &limits) {
        let _ = decode_network_parameters(&signed.raw, &limits);
    }
    let _ = decode_network_parameters(bytes, &limits);
});
