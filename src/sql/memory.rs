//! A store that forgets everything with the process: for tests and simulations, and refused by the worker's settings.
//!
//! It shows the port's whole meaning in the fewest lines, so read it before the embedded store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::verdict::{Decision, History, Outcome, decide};
use crate::domain::{CheckedRequest, StateRef, Timestamp, TxId, Verdict};
use crate::ports::uniqueness::CommitError;
use crate::ports::{BoxFuture, UniquenessProvider};

/// The in-memory store. Clones share their records, as several workers share a database.
#[derive(Clone, Default, Debug)]
pub struct Memory(Arc<Mutex<Records>>);

#[derive(Default, Debug)]
struct Records {
    outcomes: HashMap<TxId, Outcome>,
    consumers: HashMap<StateRef, TxId>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transaction that consumed `state`, if one did.
    pub fn consumer(&self, state: &StateRef) -> Option<TxId> {
        self.with_records(|records| records.consumers.get(state).copied())
    }

    /// The recorded outcome of `tx_id`, if it was decided.
    pub fn outcome(&self, tx_id: &TxId) -> Option<Outcome> {
        self.with_records(|records| records.outcomes.get(tx_id).cloned())
    }

    fn with_records<T>(&self, use_them: impl FnOnce(&mut Records) -> T) -> T {
        // Nothing in here panics between two writes that belong together, so a poisoned lock guards whole records.
        use_them(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl UniquenessProvider for Memory {
    fn commit<'a>(
        &'a self,
        batch: &'a [CheckedRequest],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, CommitError>> {
        Box::pin(async move { Ok(self.with_records(|records| records.commit(batch, now))) })
    }
}

impl Records {
    fn commit(&mut self, batch: &[CheckedRequest], now: Timestamp) -> Vec<Verdict> {
        let Ok(decisions) = decide(batch, now, self);
        let verdict = |(request, Decision { outcome, repeat }): (&CheckedRequest, Decision)| {
            if !repeat {
                if outcome == Outcome::Committed {
                    self.consumers.extend(request.inputs.iter().map(|state| (*state, request.tx_id)));
                }
                self.outcomes.insert(request.tx_id, outcome.clone());
            }
            outcome.into_verdict(request.tx_id)
        };
        batch.iter().zip(decisions).map(verdict).collect()
    }
}

impl History for Records {
    type Error = Infallible;

    fn outcome(&mut self, request: &CheckedRequest) -> Result<Option<Outcome>, Infallible> {
        Ok(self.outcomes.get(&request.tx_id).cloned())
    }

    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Infallible> {
        Ok(self.consumers.get(state).copied())
    }
}
