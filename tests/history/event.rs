//! What a history is made of.

use std::sync::Arc;

use notary_worker::domain::notary_error::Consumption;
use notary_worker::domain::{StateRef, TimeWindow, Timestamp, TxId};

/// One thing that was seen. The order of records in a history is the order in which things were seen.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Record {
    /// When, in milliseconds since the test began, by a clock that no fault touches.
    pub(crate) at_ms: u64,
    /// By whom.
    pub(crate) process: Arc<str>,
    /// What.
    pub(crate) event: Event,
}

/// What can be seen. An *exchange* is one message to the notary with the answer it gets; its number is unique in a history.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// A message went to the notary.
    Invoke { exchange: u64, asks: Asks },
    /// A part of an answer arrived that says something. Repeats are recorded too: every signature that left counts.
    Answer { exchange: u64, answer: Answer },
    /// The whole answer is with the peer.
    Complete { exchange: u64 },
    /// The message left the broker's care, or went back into it.
    Settled { exchange: u64, how: Settled },
    /// An outcome became durable in the store just now.
    Stored(Entry),
    /// An outcome that a copy of the store holds in the end: the store itself, a promoted standby, a crash image.
    Kept { copy: Arc<str>, entry: Entry },
    /// The last fault is over. Of several, the last counts.
    Healed,
}

/// What a message asks for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Asks {
    /// A notarisation.
    Notarisation(Arc<Request>),
    /// A session to be confirmed; the request follows in another exchange.
    Confirmation,
    /// Nothing, such as a session's end.
    Nothing,
    /// Nothing that can be understood.
    Garbage,
}

/// A request as its client made it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Request {
    /// The transaction.
    pub(crate) tx: TxId,
    /// States it consumes, in its order.
    pub(crate) inputs: Vec<StateRef>,
    /// States it refers to, in its order.
    pub(crate) references: Vec<StateRef>,
    /// When it may be notarised.
    pub(crate) window: Option<TimeWindow>,
    /// Whether it deserves to pass the checks that need no store, such as that of its signature.
    pub(crate) valid: bool,
}

/// What a client was told.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Answer {
    /// Notarised. The signature is in a form that the test's [`super::Verifier`] reads.
    Ok { tx: TxId, signature: Vec<u8> },
    /// States are consumed by other transactions.
    Conflict { tx: TxId, consumed: Vec<Consumption> },
    /// Refused for good: by its window at the moment `judged_at`, else by a check that needs no store.
    Invalid { tx: TxId, reason: String, judged_at: Option<Timestamp> },
    /// Not now. Never definite.
    Unavailable,
    /// The client gave up waiting. Never definite.
    Unknown,
}

/// How a delivery of a message ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Settled {
    /// Done.
    Accepted,
    /// It comes again.
    Released,
    /// Put aside for an operator.
    Parked { reason: String },
}

/// A transaction's outcome on record.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    /// The transaction.
    pub(crate) tx: TxId,
    /// Committed, or else refused.
    pub(crate) committed: bool,
    /// Its place in the order of all outcomes, if the store keeps that order.
    pub(crate) position: Option<u64>,
    /// The moment for which it was decided, if the store keeps it.
    pub(crate) moment: Option<Timestamp>,
    /// The states that the store holds to be consumed by it, in any order.
    pub(crate) spent: Vec<StateRef>,
}
