//! A peer's first words without a socket, for fuzzing: SASL, open, links, transfers, whatever else, from any bytes.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::Semaphore;

use super::conversation::Conversation;
use super::handshake::{self, Proof};
use super::hub::Hub;
use super::refusal::Refusals;
use super::{Caller, Credentials, Entrance, Limits, Shared};
use crate::domain::X500Name;
use crate::ports::request_queue::Settlement;

/// The address at which a rehearsal takes requests.
pub const ADDRESS: &str = "p2p.inbound.service";

/// Says `bytes` to an endpoint, as a node that its certificate has named, and returns the bodies of the requests that came of it,
/// each of which was accepted.
///
/// # Panics
/// Never, whatever is said: that is what this is for.
pub fn rehearse(bytes: &[u8]) -> Vec<Vec<u8>> {
    rehearse_at(bytes, ADDRESS)
}

fn rehearse_at(bytes: &[u8], address: &str) -> Vec<Vec<u8>> {
    let limits = Arc::new(Limits::default());
    let shared = Arc::new(Shared {
        hub: Arc::new(Hub::new(Arc::clone(&limits))),
        refusals: Refusals::default(),
        // What tells nodes from others after the handshake is tested where there is a socket.
        entrance: Entrance::Secrets(Arc::new(Credentials::default())),
        addresses: vec![address.to_owned()],
        container_id: "rehearsal".to_owned(),
        platform_version: 12,
        handshakes: Arc::new(Semaphore::new(1)),
        callers: Mutex::new(HashMap::new()),
        limits,
    });
    let name = X500Name::new("Rehearsal", "Zurich", "CH").expect("a legal name");
    let caller = Caller { name, reply_address: "p2p.inbound.rehearsal".to_owned() };
    let mut rest = bytes;
    let opened = {
        let mut stream = tokio::io::join(&mut rest, tokio::io::sink());
        let proof = Proof::Certificate(&caller);
        let handshake = pin!(handshake::accept(&mut stream, &shared.container_id, proof, &shared.limits));
        // All bytes are there, and nothing is waited for.
        match now(handshake) {
            Some(Ok(opened)) => opened,
            _ => return Vec::new(),
        }
    };
    let caller = Arc::new(caller);
    let Ok((id, mut commands)) = shared.hub.register(&caller) else { return Vec::new() };
    let mut conversation = Conversation::new(Arc::clone(&shared), id, caller, &opened, &"rehearsal");
    let mut bodies = Vec::new();
    // In pieces, as a network has it: the borders fall anywhere.
    let mut input = Vec::new();
    for piece in rest.chunks(97) {
        input.extend_from_slice(piece);
        if conversation.on_input(&mut input).is_err() || conversation.is_closed() {
            break;
        }
        conversation.pump();
        while let Some(Ok(delivery)) = now(pin!(shared.hub.take())) {
            bodies.push(delivery.body);
            // Fails if the peer has given it up.
            let _ = shared.hub.settle(delivery.id, Settlement::Accept);
        }
        while let Ok(command) = commands.try_recv() {
            conversation.on_command(command);
        }
        conversation.pump();
        let written = conversation.pending().len();
        conversation.on_written(written);
    }
    drop(conversation);
    assert_eq!(shared.hub.load(), super::hub::Load::default(), "nothing is left behind");
    bodies
}

/// The result of a future that does not have to wait.
fn now<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    match std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a bridge of a Corda 4.10 node said to the node's own AMQP server (PROTOCOL b.4), to the byte.
    #[test]
    fn the_bridge_of_a_corda_node_gets_its_request_here() {
        let text = include_str!("../../../tests/vectors/amqp_transcript.json");
        let transcript: serde_json::Value = serde_json::from_str(text).expect("a vector");
        let steps = transcript["steps"].as_array().expect("steps").iter();
        let said = steps.filter(|step| step["from"].as_str().is_some_and(|from| from.starts_with("bridge")));
        let mut said: Vec<u8> =
            said.flat_map(|step| hex::decode(step["hex"].as_str().expect("hex")).expect("hex")).collect();
        // The node's server begins a session of its own, which the bridge confirms on channel 1; this endpoint begins none.
        let confirmed = hex::decode("0000002202000001005311").expect("hex");
        let at = said.windows(confirmed.len()).position(|window| window == confirmed).expect("it confirms it");
        said.drain(at..at + 0x22);
        let at = said.windows(12).position(|window| window == b"p2p.inbound.").expect("it names its target");
        let len = usize::from(said[at - 1]);
        let target = said[at..at + len].to_vec();
        let heard = rehearse_at(&said, std::str::from_utf8(&target).expect("text"));
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0], include_bytes!("../../../tests/vectors/session_initial.bin"));
        for cut in 0..said.len() {
            rehearse(&said[..cut]);
        }
    }
}
