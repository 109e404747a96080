//! The model store that all workers share: one transaction after another, each seeing all earlier ones, every write durable at
//! once. It decides by the notary's own rule, so a run tests the rule too.

use std::collections::BTreeMap;
use std::convert::Infallible;

use notary_worker::domain::verdict::{Decision, History, Outcome, decide};
use notary_worker::domain::{CheckedRequest, StateRef, Timestamp, TxId, Verdict};

use crate::bugs::Bug;
use crate::history::Entry;

/// What is durable.
#[derive(Default)]
pub(crate) struct Store {
    outcomes: BTreeMap<TxId, Outcome>,
    consumers: BTreeMap<StateRef, TxId>,
    entries: BTreeMap<TxId, Entry>,
    bug: Option<Bug>,
}

/// What a batch came to.
pub(crate) struct Batch {
    /// One for each request, in order.
    pub(crate) verdicts: Vec<Verdict>,
    /// What became durable with it.
    pub(crate) stored: Vec<Entry>,
    /// How many of its transactions were on record.
    pub(crate) repeats: usize,
}

impl Store {
    /// An empty store, with a bug planted in it or not.
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    /// Commits a batch at the moment `now`.
    pub(crate) fn commit(&mut self, batch: &[CheckedRequest], now: Timestamp) -> Batch {
        let decisions = match self.bug {
            Some(bug) => bug.decide(batch, now, self),
            None => self.decide(batch, now),
        };
        let mut stored = Vec::new();
        let mut repeats = 0;
        for (request, decision) in batch.iter().zip(&decisions) {
            match decision.repeat {
                true => repeats += 1,
                false => stored.push(self.record(request, &decision.outcome, now)),
            }
        }
        if self.bug == Some(Bug::ForgetCommit) && self.entries.len().is_multiple_of(3) {
            stored.iter().for_each(|entry| self.forget(&entry.tx));
        }
        let verdicts = batch.iter().zip(decisions);
        let verdicts = verdicts.map(|(request, decision)| decision.outcome.into_verdict(request.tx_id)).collect();
        Batch { verdicts, stored, repeats }
    }

    /// What the rule says, before anything is written.
    pub(crate) fn decide(&mut self, batch: &[CheckedRequest], now: Timestamp) -> Vec<Decision> {
        let Ok(decisions) = decide(batch, now, self);
        decisions
    }

    fn record(&mut self, request: &CheckedRequest, outcome: &Outcome, now: Timestamp) -> Entry {
        let committed = *outcome == Outcome::Committed;
        let spent = if committed { request.inputs.clone() } else { Vec::new() };
        self.consumers.extend(spent.iter().map(|state| (*state, request.tx_id)));
        let position = Some(self.entries.len() as u64);
        let entry = Entry { tx: request.tx_id, committed, position, moment: Some(now), spent };
        self.outcomes.insert(request.tx_id, outcome.clone());
        self.entries.insert(request.tx_id, entry.clone());
        entry
    }

    fn forget(&mut self, tx: &TxId) {
        self.outcomes.remove(tx);
        self.entries.remove(tx);
        self.consumers.retain(|_, consumer| consumer != tx);
    }

    /// Everything it holds.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Whether one of a notarised transaction's references was consumed since.
    pub(crate) fn consumed_reference(&self, request: &CheckedRequest) -> Option<(StateRef, TxId)> {
        let consumed = request.references.iter().filter_map(|state| Some((*state, *self.consumers.get(state)?)));
        consumed.into_iter().find(|(_, consumer)| *consumer != request.tx_id)
    }

    /// Whether `tx` is committed on record.
    pub(crate) fn committed(&self, tx: &TxId) -> bool {
        self.outcomes.get(tx) == Some(&Outcome::Committed)
    }
}

impl History for Store {
    type Error = Infallible;

    fn outcome(&mut self, request: &CheckedRequest) -> Result<Option<Outcome>, Infallible> {
        Ok(self.outcomes.get(&request.tx_id).cloned())
    }

    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Infallible> {
        Ok(self.consumers.get(state).copied())
    }
}
