//! Rows to domain and back: what a batch asks for, what the database found, what is to be written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::domain::notary_error::{Consumption, StateUsage};
use crate::domain::verdict::{Decision, History, Outcome, Rejection};
use crate::domain::{CheckedRequest, StateRef, TimeWindow, Timestamp, TxId};

/// `transactions.outcome`; never renumbered.
const COMMITTED: i16 = 0;
const CONFLICT: i16 = 1;
const TIME_WINDOW_INVALID: i16 = 2;

/// A record that does not read as this module writes it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record of {0} is damaged")]
pub(super) struct Damaged(&'static str);

/// The keys a batch asks about, sorted, each once.
pub(super) struct Keys {
    pub(super) transactions: Vec<Vec<u8>>,
    pub(super) states: Vec<Vec<u8>>,
}

impl Keys {
    pub(super) fn of(batch: &[CheckedRequest]) -> Self {
        let sorted = |mut keys: Vec<Vec<u8>>| {
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let states = batch.iter().flat_map(|request| request.inputs.iter().chain(&request.references));
        Self {
            transactions: sorted(batch.iter().map(|request| request.tx_id.to_key()).collect()),
            states: sorted(states.map(StateRef::to_key).collect()),
        }
    }
}

/// What is on record about a batch's transactions and states. The default knows nothing.
#[derive(Default, Debug)]
pub(super) struct OnRecord {
    outcomes: HashMap<TxId, Outcome>,
    consumers: HashMap<StateRef, TxId>,
}

impl OnRecord {
    /// Reads the rows of the queries of these names.
    pub(super) fn read(read_outcomes: &[Row], read_conflicts: &[Row], read_consumers: &[Row]) -> Result<Self, Damaged> {
        let mut conflicts: HashMap<TxId, Vec<Consumption>> = HashMap::new();
        for row in read_conflicts {
            let (tx_id, consumption) = conflict(row).ok_or(Damaged("conflicts"))?;
            conflicts.entry(tx_id).or_default().push(consumption); // The query sorts them by position.
        }
        let mut outcomes = HashMap::with_capacity(read_outcomes.len());
        for row in read_outcomes {
            let (tx_id, outcome) = outcome(row, &mut conflicts).ok_or(Damaged("transactions"))?;
            outcomes.insert(tx_id, outcome);
        }
        let mut consumers = HashMap::with_capacity(read_consumers.len());
        for row in read_consumers {
            let (state, consumer) = consumer(row).ok_or(Damaged("states"))?;
            consumers.insert(state, consumer);
        }
        Ok(Self { outcomes, consumers })
    }
}

impl History for OnRecord {
    type Error = Infallible;

    fn outcome(&mut self, request: &CheckedRequest) -> Result<Option<Outcome>, Infallible> {
        Ok(self.outcomes.get(&request.tx_id).cloned())
    }

    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Infallible> {
        Ok(self.consumers.get(state).copied())
    }
}

fn conflict(row: &Row) -> Option<(TxId, Consumption)> {
    let usage = if row.try_get("is_reference").ok()? { StateUsage::Reference } else { StateUsage::Input };
    let state = StateRef::from_key(row.try_get("state").ok()?)?;
    let consumer = tx_id(row, "consumer")?;
    Some((tx_id(row, "transaction_id")?, Consumption::new(state, consumer, usage)))
}

fn outcome(row: &Row, conflicts: &mut HashMap<TxId, Vec<Consumption>>) -> Option<(TxId, Outcome)> {
    let tx_id = tx_id(row, "id")?;
    let outcome = match row.try_get::<_, i16>("outcome").ok()? {
        COMMITTED => Outcome::Committed,
        CONFLICT => Outcome::Rejected(Rejection::Conflict(conflicts.remove(&tx_id)?)),
        TIME_WINDOW_INVALID => {
            let now = moment(row, "decided_s", "decided_ns")??;
            let ends =
                (moment(row, "window_from_s", "window_from_ns")?, moment(row, "window_until_s", "window_until_ns")?);
            let window = match ends {
                (Some(from), Some(until)) => TimeWindow::Between { from, until },
                (Some(from), None) => TimeWindow::From(from),
                (None, Some(until)) => TimeWindow::Until(until),
                (None, None) => return None,
            };
            Outcome::Rejected(Rejection::TimeWindowInvalid { now, window })
        }
        _ => return None,
    };
    Some((tx_id, outcome))
}

fn consumer(row: &Row) -> Option<(StateRef, TxId)> {
    Some((StateRef::from_key(row.try_get("key").ok()?)?, tx_id(row, "consumer")?))
}

fn tx_id(row: &Row, column: &str) -> Option<TxId> {
    TxId::from_key(row.try_get(column).ok()?)
}

/// `None` if damaged, `Some(None)` if absent.
fn moment(row: &Row, seconds: &str, nanos: &str) -> Option<Option<Timestamp>> {
    let (seconds, nanos): (Option<i64>, Option<i32>) = (row.try_get(seconds).ok()?, row.try_get(nanos).ok()?);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Timestamp::new(seconds, nanos.try_into().ok()?).map(Some),
        (None, None) => Some(None),
        _ => None,
    }
}

/// First decisions as columns, each table's rows sorted by key: all workers write in one order, so none waits in a circle.
#[derive(Default, Debug)]
pub(super) struct Rows {
    pub(super) transactions: TransactionColumns,
    pub(super) states: StateColumns,
    pub(super) conflicts: ConflictColumns,
}

#[derive(Default, Debug)]
pub(super) struct TransactionColumns {
    pub(super) id: Vec<Vec<u8>>,
    pub(super) outcome: Vec<i16>,
    pub(super) window_from_s: Vec<Option<i64>>,
    pub(super) window_from_ns: Vec<Option<i32>>,
    pub(super) window_until_s: Vec<Option<i64>>,
    pub(super) window_until_ns: Vec<Option<i32>>,
    pub(super) requester: Vec<i32>,
    pub(super) inputs: Vec<i32>,
    pub(super) references: Vec<i32>,
    pub(super) platform_version: Vec<i32>,
    pub(super) signature: Vec<Vec<u8>>,
}

#[derive(Default, Debug)]
pub(super) struct StateColumns {
    pub(super) key: Vec<Vec<u8>>,
    pub(super) consumer: Vec<Vec<u8>>,
}

#[derive(Default, Debug)]
pub(super) struct ConflictColumns {
    pub(super) transaction_id: Vec<Vec<u8>>,
    pub(super) position: Vec<i32>,
    pub(super) is_reference: Vec<bool>,
    pub(super) state: Vec<Vec<u8>>,
}

impl Rows {
    /// What to write for decisions that are not on record; `requesters` are the numbers under which those who ask are known.
    pub(super) fn of(batch: &[CheckedRequest], decisions: &[Decision], requesters: &[i32]) -> Self {
        let first = batch.iter().zip(decisions).zip(requesters).filter(|((_, decision), _)| !decision.repeat);
        let sorted: BTreeMap<Vec<u8>, _> = first.map(|decided| (decided.0.0.tx_id.to_key(), decided)).collect();
        let mut rows = Self::default();
        let mut consumed: Vec<(Vec<u8>, &[u8])> = Vec::new();
        for (id, ((request, decision), requester)) in &sorted {
            rows.transactions.push(id, request, &decision.outcome, **requester);
            match &decision.outcome {
                Outcome::Committed => {
                    consumed.extend(request.inputs.iter().map(|state| (state.to_key(), id.as_slice())))
                }
                Outcome::Rejected(Rejection::Conflict(conflicts)) => rows.conflicts.push(id, conflicts),
                Outcome::Rejected(Rejection::TimeWindowInvalid { .. }) => {}
            }
        }
        consumed.sort_unstable();
        (rows.states.key, rows.states.consumer) = consumed.into_iter().map(|(key, id)| (key, id.to_vec())).unzip();
        rows
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.transactions.id.is_empty() // Every decision has a row there.
    }
}

impl TransactionColumns {
    /// In the order of `insert_transactions.sql`.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 11] {
        let Self { id, outcome, window_from_s, window_from_ns, window_until_s, window_until_ns, .. } = self;
        let Self { requester, inputs, references, platform_version, signature, .. } = self;
        [
            id,
            outcome,
            window_from_s,
            window_from_ns,
            window_until_s,
            window_until_ns,
            requester,
            inputs,
            references,
            platform_version,
            signature,
        ]
    }

    fn push(&mut self, id: &[u8], request: &CheckedRequest, outcome: &Outcome, requester: i32) {
        let (code, window) = match outcome {
            Outcome::Committed => (COMMITTED, None),
            Outcome::Rejected(Rejection::Conflict(_)) => (CONFLICT, None),
            Outcome::Rejected(Rejection::TimeWindowInvalid { window, .. }) => (TIME_WINDOW_INVALID, Some(window)),
        };
        let (from, until) = (window.and_then(TimeWindow::from), window.and_then(TimeWindow::until));
        self.id.push(id.to_vec());
        self.outcome.push(code);
        self.window_from_s.push(from.map(|moment| moment.seconds()));
        self.window_from_ns.push(from.map(|moment| nanos(&moment)));
        self.window_until_s.push(until.map(|moment| moment.seconds()));
        self.window_until_ns.push(until.map(|moment| nanos(&moment)));
        self.requester.push(requester);
        self.inputs.push(count(request.inputs.len()));
        self.references.push(count(request.references.len()));
        self.platform_version.push(request.request_signature.platform_version);
        self.signature.push(request.request_signature.bytes.clone());
    }
}

impl StateColumns {
    /// In the order of `insert_states.sql`.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 2] {
        [&self.key, &self.consumer]
    }
}

impl ConflictColumns {
    /// In the order of `insert_conflicts.sql`.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.transaction_id, &self.position, &self.is_reference, &self.state]
    }

    fn push(&mut self, id: &[u8], conflicts: &[Consumption]) {
        for (position, conflict) in conflicts.iter().enumerate() {
            self.transaction_id.push(id.to_vec());
            self.position.push(count(position));
            self.is_reference.push(conflict.usage == StateUsage::Reference);
            self.state.push(conflict.state.to_key());
        }
    }
}

/// Nanoseconds within a second, as the database's signed number.
pub(super) fn nanos(moment: &Timestamp) -> i32 {
    i32::try_from(moment.nanos()).expect("less than a thousand million")
}

fn count(number: usize) -> i32 {
    i32::try_from(number).expect("a request has at most a million states")
}

/// Whether the batch's verdicts rest on states staying unspent that the batch itself does not write. Then nobody else may consume
/// any between its look and its commit.
///
/// So it is with references, and with rivals in one batch: the one refused for what its rival consumes is told at the same time
/// that its *other* states were unspent, which is true only if nothing happened between the look and the rival's commit.
pub(super) fn needs_to_be_alone(batch: &[CheckedRequest]) -> bool {
    let mut inputs: HashMap<&StateRef, TxId> = HashMap::new();
    let mut seen: HashSet<TxId> = HashSet::new();
    batch.iter().any(|request| {
        !request.references.is_empty()
            || (seen.insert(request.tx_id)
                && request.inputs.iter().any(|state| inputs.insert(state, request.tx_id).is_some()))
    })
}
