//! A notarisation request that passed every check, and so may ask the store for its verdict.

use super::party::X500Name;
use super::state_ref::{StateRef, TxId};
use super::time::TimeWindow;
use super::transaction::RequestSignature;

/// The parts of a request; plain data, no promise that anything was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestParts {
    /// The transaction.
    pub tx_id: TxId,
    /// States it consumes, without duplicates.
    pub inputs: Vec<StateRef>,
    /// States it refers to, without duplicates and none of them an input.
    pub references: Vec<StateRef>,
    /// When it may be notarised.
    pub time_window: Option<TimeWindow>,
    /// Who asks.
    pub requester: X500Name,
    /// The requester's signature over inputs and id.
    pub request_signature: RequestSignature,
}

/// A request whose transaction, request signature and size were checked. The worker makes one in `domain::check` only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedRequest(RequestParts);

impl CheckedRequest {
    /// Vouches for `parts` without checking them: for suites, benchmarks and simulations of what comes *after* the check.
    /// `tests/architecture.rs` keeps it out of the worker's path.
    pub fn assume_checked(parts: RequestParts) -> Self {
        Self(parts)
    }
}

impl core::ops::Deref for CheckedRequest {
    type Target = RequestParts;

    fn deref(&self) -> &RequestParts {
        &self.0
    }
}
