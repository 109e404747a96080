//! What peers may take of this process on the way out. Every figure has a reason; tests inject small ones.

use std::time::Duration;

/// The bridges' limits and deadlines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Peers with a bridge at once; one that is idle makes room for another. Connections cost about 100 KB each, most of it TLS's.
    pub bridges_max: usize,
    /// How long an answer waits to be safe, in all: for a connection, for credit, for acceptance. Clients of Corda try again after
    /// 30 s on their own.
    pub answer_hold: Duration,
    /// Answers that wait for one peer. At 10 ms for a peer to take one, 128 let it have 12 800 a second.
    pub answers_per_peer_max: usize,
    /// The same in bytes: answers have some 5 KB, one that lists 10 000 conflicts about 2 MB.
    pub answer_bytes_per_peer_max: usize,
    /// Bytes of answers that wait for peers in all.
    pub answer_bytes_max: usize,
    /// A peer that took nothing for so long, though answers wait for it, is stuck; so is one that cannot be reached. Ten times what
    /// a slow disk of a peer's broker takes.
    pub stuck_after: Duration,
    /// Answers that wait for a peer that is stuck. They hold places in the worker that others need, and one would be enough to find
    /// out when the peer is back.
    pub answers_per_stuck_peer_max: usize,
    /// Answers that wait for all stuck peers together. The worker's settings make it a part of its slots, so that any number of
    /// lost peers leaves room for the others.
    pub answers_stuck_max: usize,
    /// A bridge without answers for so long is closed; it opens again in some round trips. Those of nodes stay for ever; a notary has
    /// more peers, and most of them ask now and then.
    pub idle_timeout: Duration,
    /// For connecting and each handshake, and for a link to attach: a round trip or four, with a lost packet or two.
    pub step_timeout: Duration,
    /// A peer silent for so long is gone. Half of it is advertised, which gives Corda's 5 s.
    pub silence_max: Duration,
    /// The pause after the first round through a peer's addresses that gave no connection; doubles. Corda's figure.
    pub retry_base: Duration,
    /// The longest such pause. A third of the hold, so that every answer that waits is there for some attempts and a peer that is
    /// back is found within its time; a node's own bridge, whose messages wait for ever, takes 60 s.
    pub retry_cap: Duration,
    /// The pause before a request is given back whose answer found nobody; doubles while that goes on. A peer's own bridge delivers
    /// again at once, and all that it has under way here with it.
    pub release_base: Duration,
    /// The longest such pause.
    pub release_cap: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            bridges_max: 1_024,
            answer_hold: Duration::from_secs(30),
            answers_per_peer_max: 128,
            answer_bytes_per_peer_max: 16 * MIB,
            answer_bytes_max: 256 * MIB,
            stuck_after: Duration::from_secs(2),
            answers_per_stuck_peer_max: 16,
            answers_stuck_max: 256,
            idle_timeout: Duration::from_secs(60),
            step_timeout: Duration::from_secs(10),
            silence_max: Duration::from_secs(10),
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_secs(10),
            release_base: Duration::from_secs(1),
            release_cap: Duration::from_secs(30),
        }
    }
}
