//! Where requests come from and answers go. One rule replaces outboxes and hand-offs: a request stays with its sender,
//! unsettled, until its answer is safe.

use super::BoxFuture;
use crate::domain::{Timestamp, X500Name};

/// A source of requests with a way back to their senders.
pub trait RequestQueue: Send + Sync {
    /// Waits for the next delivery. Cancel-safe. The worker asks only when it has a free slot, so an adapter must not take
    /// from senders much more than it was asked for.
    ///
    /// # Errors
    /// [`QueueError::Closed`] once the queue is shut down and drained.
    fn receive(&self) -> BoxFuture<'_, Result<Delivery, QueueError>>;

    /// Sends the replies to a delivery's sender, in order, and returns once all of them are safe: accepted by the peer.
    ///
    /// # Errors
    /// [`QueueError::Unsafe`] if they are not known to be safe within the adapter's bounded hold; then release the delivery.
    fn reply(&self, to: DeliveryId, replies: Vec<Reply>) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Ends a delivery. Every delivery received is settled exactly once, even when its reply was [`QueueError::Unsafe`]: until
    /// then the adapter counts it as held.
    ///
    /// # Errors
    /// [`QueueError::Unsafe`] if the connection was lost first; the sender delivers again.
    fn settle(&self, delivery: DeliveryId, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Leaves the queue, or joins it again: a worker that has lost its store or its key must not keep requests from others who
    /// could serve them. What waits unreceived goes back. An endpoint that no other worker shares has nowhere to leave to.
    fn serve(&self, serving: bool) {
        let _ = serving;
    }

    /// Ends: gives back what waits unreceived, closes connections. What is received and not settled stays with its sender.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One delivery of one message, unique within the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId(pub u64);

/// A message as delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its handle.
    pub id: DeliveryId,
    /// Who sent it, as the connection was authenticated; never what a message property claims.
    pub caller: X500Name,
    /// The sender's platform version, if it says (PROTOCOL b.4).
    pub platform_version: Option<i32>,
    /// The sender's deduplication id, if it gives one (PROTOCOL c.4). For logs only: requests are told apart by transaction.
    pub dedup_id: Option<String>,
    /// When the message was made, as its sender says. For figures only: clocks of senders prove nothing.
    pub sent_at: Option<Timestamp>,
    /// How often the message was delivered before, as its sender counts; a hint.
    pub prior_deliveries: u32,
    /// A serialized session message.
    pub body: Vec<u8>,
}

/// A message for the sender of a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Deduplication id (PROTOCOL c.4): the same on every worker for the same logical message.
    pub dedup_id: String,
    /// Facts in the clear for people who look at queues, such as transaction id, outcome and worker: names and texts, sent as
    /// application properties. Receivers of the answer need none of them.
    pub headers: Vec<(&'static str, String)>,
    /// A serialized session message.
    pub body: Vec<u8>,
}

/// How a delivery ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settlement {
    /// Done: the answer is safe.
    Accept,
    /// Not done; the sender, or another worker, tries again.
    Release,
    /// It never can be done. The reason is for the sender or the dead-letter queue.
    Reject {
        /// For people.
        reason: String,
    },
}

/// Why the queue did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueueError {
    /// Shut down: nothing more will come.
    #[error("the request queue is closed")]
    Closed,
    /// The peer or the connection did not confirm.
    #[error("not confirmed: {0}")]
    Unsafe(String),
}
