//! The answer to "has any of these states been spent before?", and the rule that finds it (PROTOCOL f.1).
//!
//! Requests are decided one after another in the order of the batch, each seeing what the earlier ones consumed: so the
//! verdicts are those of deciding every request alone, and never depend on how requests were batched.
//!
//! Where the peer is wrong this rule is right: the first decision about a transaction is recorded and stands for ever
//! (promise P3, row PR5). A notarised transaction gets success again even when its references were consumed since or its time
//! window is over; a refused one is refused again in the same words, whatever the clock says by then.

use std::collections::HashMap;

use super::notary_error::{Consumption, NotaryError, StateUsage};
use super::request::CheckedRequest;
use super::state_ref::{StateRef, TxId};
use super::time::{TimeWindow, Timestamp};

/// The definite, durable answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its inputs are consumed by it, for ever; it may be signed.
    Committed(CommittedTx),
    /// It is refused, for ever.
    Rejected(Rejection),
}

/// A transaction that is durably committed: the only thing that can be signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommittedTx {
    tx_id: TxId,
}

impl CommittedTx {
    /// States that `tx_id` is durable in the store. For uniqueness providers only, after their commit returned;
    /// `tests/architecture.rs` holds everybody else to that.
    pub fn after_durable_commit(tx_id: TxId) -> Self {
        Self { tx_id }
    }

    /// The transaction.
    pub fn tx_id(&self) -> TxId {
        self.tx_id
    }
}

/// Why a request is refused by the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// States were consumed by other transactions: inputs first, then references, each in the request's order.
    Conflict(Vec<Consumption>),
    /// The moment of the first decision lies outside the window.
    TimeWindowInvalid {
        /// The moment of the first decision.
        now: Timestamp,
        /// The transaction's window.
        window: TimeWindow,
    },
}

impl Rejection {
    /// The error the client of `tx_id` is sent.
    pub fn into_error(self, tx_id: TxId) -> NotaryError {
        match self {
            Self::Conflict(consumed) => NotaryError::Conflict { tx_id, consumed },
            Self::TimeWindowInvalid { now, window } => NotaryError::TimeWindowInvalid { now, window },
        }
    }
}

/// What the store has on record, as [`decide`] asks for it.
pub trait History {
    /// What reading may fail with.
    type Error;

    /// The recorded outcome of `tx_id`, if it was decided before.
    ///
    /// # Errors
    /// Whatever the store fails with.
    fn outcome(&mut self, request: &CheckedRequest) -> Result<Option<Outcome>, Self::Error>;

    /// The transaction that consumed `state`, if one did.
    ///
    /// # Errors
    /// Whatever the store fails with.
    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Self::Error>;
}

/// A decision that is not yet durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What was decided.
    pub outcome: Outcome,
    /// Whether the outcome was on record (or decided earlier in this batch) and needs no writing.
    pub repeat: bool,
}

/// What a transaction's first decision said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Committed.
    Committed,
    /// Refused.
    Rejected(Rejection),
}

impl Outcome {
    /// The verdict to give out; call it only once the decision is durable.
    pub fn into_verdict(self, tx_id: TxId) -> Verdict {
        match self {
            Self::Committed => Verdict::Committed(CommittedTx::after_durable_commit(tx_id)),
            Self::Rejected(rejection) => Verdict::Rejected(rejection),
        }
    }
}

/// Decides a batch against `history` at the moment `now`: one decision per request, in order.
///
/// # Errors
/// The first error of `history`; then nothing was decided.
pub fn decide<H: History>(
    batch: &[CheckedRequest],
    now: Timestamp,
    history: &mut H,
) -> Result<Vec<Decision>, H::Error> {
    let mut decided: HashMap<TxId, Outcome> = HashMap::with_capacity(batch.len());
    let mut consumed: HashMap<StateRef, TxId> = HashMap::new();
    let mut decisions = Vec::with_capacity(batch.len());
    for request in batch {
        let on_record = match decided.get(&request.tx_id) {
            Some(outcome) => Some(outcome.clone()),
            None => history.outcome(request)?,
        };
        let decision = match on_record {
            Some(outcome) => Decision { outcome, repeat: true },
            None => {
                let outcome = decide_first(request, now, &consumed, history)?;
                if outcome == Outcome::Committed {
                    consumed.extend(request.inputs.iter().map(|state| (*state, request.tx_id)));
                }
                Decision { outcome, repeat: false }
            }
        };
        decided.insert(request.tx_id, decision.outcome.clone());
        decisions.push(decision);
    }
    Ok(decisions)
}

/// The first decision about a transaction: conflicts before the time window, as clients expect.
fn decide_first<H: History>(
    request: &CheckedRequest,
    now: Timestamp,
    consumed: &HashMap<StateRef, TxId>,
    history: &mut H,
) -> Result<Outcome, H::Error> {
    let mut conflicts = Vec::new();
    let used = request.inputs.iter().map(|state| (state, StateUsage::Input));
    for (state, usage) in used.chain(request.references.iter().map(|state| (state, StateUsage::Reference))) {
        let consumer = match consumed.get(state) {
            Some(tx_id) => Some(*tx_id),
            None => history.consumer(state)?,
        };
        if let Some(consumer) = consumer {
            conflicts.push(Consumption::new(*state, consumer, usage));
        }
    }
    Ok(match request.time_window {
        _ if !conflicts.is_empty() => Outcome::Rejected(Rejection::Conflict(conflicts)),
        Some(window) if !window.contains(now) => Outcome::Rejected(Rejection::TimeWindowInvalid { now, window }),
        _ => Outcome::Committed,
    })
}
