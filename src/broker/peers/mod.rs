//! Corda nodes as peers: their requests come in somewhere, the answers go out on our own connections, as bridges between nodes
//! have it (PROTOCOL b.2, b.5).
//!
//! ```text
//! peer's bridge ──TLS──> the worker's own endpoint         ┐
//! peer's bridge ──TLS──> Artemis ──AMQP 1.0──> the worker  ┴─> flow → uniqueness → signing ─> Bridges ──TLS──> peer's own broker
//! ```
//!
//! [`PeerQueue`] puts the two halves together. Nothing is stored: a delivery stays unsettled with the peer until the peer's own
//! broker has accepted every message of its answer. So a worker may die at any moment, and a peer's broker may be away: the
//! request comes again, here or at another worker, and is answered with the same messages under the same ids.
//!
//! A node's bridge delivers again at once what is given back, with everything else that it has under way here. So nothing is given
//! back without a pause, and peers that cannot be answered hold few of the worker's places: one lost peer costs the others
//! nothing.

mod bridge;
mod bridges;
mod limits;
mod queue;
mod table;
#[cfg(test)]
mod tests;

pub use self::bridges::Bridges;
pub use self::limits::Limits;
pub use self::queue::PeerQueue;
pub use self::table::Load;

use self::bridges::Shared;
