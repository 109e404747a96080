//! The errors a client sees: the closed family of Corda's `NotaryError`.

use super::hash::SecureHash;
use super::state_ref::{StateRef, TxId};
use super::time::{TimeWindow, Timestamp};

/// Why a request is refused, as the client is told. Only [`Self::General`] is retried by a client on its own (PROTOCOL g.12),
/// so it stands for what may pass later and never for a permanent fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotaryError {
    /// States were consumed before by another transaction.
    #[error("{} of its states are consumed by another transaction", consumed.len())]
    Conflict {
        /// The transaction refused.
        tx_id: TxId,
        /// Every consumed state among its inputs, then its references, in the request's order.
        consumed: Vec<Consumption>,
    },
    /// The moment of the decision lies outside the time window.
    #[error("the current time {now} is outside the time window {window}")]
    TimeWindowInvalid {
        /// The notary's time when it decided.
        now: Timestamp,
        /// The transaction's window.
        window: TimeWindow,
    },
    /// The transaction breaks a rule.
    #[error("{0}")]
    TransactionInvalid(Cause),
    /// The request is not signed by the party that sent it.
    #[error("request signature invalid: {0}")]
    RequestSignatureInvalid(Cause),
    /// Not now; the client tries again by itself.
    #[error("{0}")]
    General(Cause),
}

impl NotaryError {
    /// A [`Self::TransactionInvalid`] with a Java `IllegalArgumentException` as its cause.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::TransactionInvalid(Cause { class: Cause::ILLEGAL_ARGUMENT, message: message.into() })
    }

    /// A short stable name for tables, metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::TimeWindowInvalid { .. } => "TimeWindowInvalid",
            Self::TransactionInvalid(_) => "TransactionInvalid",
            Self::RequestSignatureInvalid(_) => "RequestSignatureInvalid",
            Self::General(_) => "General",
        }
    }
}

/// A Java throwable by class name and message: what a Corda client sees inside an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// Fully qualified Java class.
    pub class: &'static str,
    /// For people.
    pub message: String,
}

impl Cause {
    /// What Corda's own checks throw.
    pub const ILLEGAL_ARGUMENT: &'static str = "java.lang.IllegalArgumentException";
    /// A signature that does not verify.
    pub const SIGNATURE: &'static str = "java.security.SignatureException";
    /// Anything else.
    pub const EXCEPTION: &'static str = "java.lang.Exception";
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.message)
    }
}

/// One state that another transaction consumed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Consumption {
    /// The consumed state.
    pub state: StateRef,
    /// The consuming transaction's id, hashed once more: a stranger learns nothing else about it.
    pub hashed_consumer: SecureHash,
    /// How the refused transaction uses the state.
    pub usage: StateUsage,
}

impl Consumption {
    /// States that `consumer` consumed `state`, which the refused transaction uses as `usage`.
    pub fn new(state: StateRef, consumer: TxId, usage: StateUsage) -> Self {
        // A consumer was committed, so its id was computed here or by a peer with the same algorithms.
        Self { state, hashed_consumer: consumer.hashed().unwrap_or(consumer.0), usage }
    }
}

/// How a transaction uses a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StateUsage {
    /// It consumes the state.
    Input,
    /// It only refers to the state.
    Reference,
}
