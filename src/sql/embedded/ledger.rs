//! The write side: one batch, one transaction of the engine, durable before anybody hears of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::file::{Medium, OpenError};
use super::tables::{
    FORMAT, Kind, LOG, LogRecord, META, Malformed, NAMES, NAMES_BY_ID, Name, REPEATS, RepeatRecord, STATES, SeqBytes,
    TRANSACTIONS, meta, seq_bytes, seq_of,
};
use crate::domain::notary_error::{Consumption, StateUsage};
use crate::domain::verdict::{Decision, History, Outcome, Rejection, decide};
use crate::domain::{CheckedRequest, StateRef, Timestamp, TxId, Verdict, X500Name};
use crate::observe;
use crate::ports::uniqueness::CommitError;

/// The database in use, or nothing between a failure and the next opening. Readers in the process share it.
pub(super) type Slot = Arc<Mutex<Option<Arc<Database>>>>;

/// Totals as of the last commit, for metrics.
#[derive(Default, Debug)]
pub(super) struct Totals {
    pub(super) committed: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) repeats: AtomicU64,
    pub(super) states: AtomicU64,
}

/// Why a transaction of the engine could not be prepared.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(redb::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the records contradict each other: {0}")]
    Contradiction(&'static str),
}

macro_rules! engine_failures {
    ($($error:ident),*) => { $(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Engine(error.into())
            }
        }
    )* };
}
engine_failures!(TransactionError, TableError, StorageError);

/// The records, open for writing.
pub(super) struct Ledger<M> {
    medium: M,
    cache_bytes_max: usize,
    /// The worker's name as the records spell it.
    worker: Vec<u8>,
    slot: Slot,
    totals: Arc<Totals>,
}

impl<M: Medium> Ledger<M> {
    /// Opens the records on `medium`.
    pub(super) fn open(medium: M, worker: X500Name, cache_bytes_max: usize) -> Result<Self, OpenError> {
        let worker = Name::Worker(worker).encode();
        let ledger = Self { medium, cache_bytes_max, worker, slot: Slot::default(), totals: Arc::default() };
        ledger.reopen()?;
        Ok(ledger)
    }

    pub(super) fn slot(&self) -> Slot {
        Arc::clone(&self.slot)
    }

    pub(super) fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.totals)
    }

    /// Decides and records `batch`. This blocks until it is durable. An empty batch tells whether the
    /// store can be written: it opens the file if need be, and commits nothing, durably.
    pub(super) fn commit(&self, batch: &[CheckedRequest], now: Timestamp) -> Result<Vec<Verdict>, CommitError> {
        let unavailable = |error: &dyn std::error::Error| CommitError::Unavailable(error.to_string());
        let database = self.database().map_err(|error| unavailable(&error))?;
        if batch.is_empty() {
            let written = begin_durable(&database).map_err(redb::Error::from);
            let written = written.and_then(|transaction| transaction.commit().map_err(redb::Error::from));
            return match written {
                Ok(()) => Ok(Vec::new()),
                Err(error) => {
                    self.forget();
                    Err(unavailable(&error))
                }
            };
        }
        let prepared = self.prepare(&database, batch, now).map_err(|failure| {
            if let Failure::Engine(_) = failure {
                self.forget();
            }
            // Reading may have met a damaged page that only one of the requests needs.
            CommitError::Refused(failure.to_string())
        });
        let Prepared { transaction, decisions, totals } = prepared?;
        // From here on nobody knows, unless the engine says that it is durable.
        transaction.commit().map_err(|error| {
            self.forget();
            CommitError::OutcomeUnknown(error.to_string())
        })?;
        totals.publish(&self.totals);
        observe::metrics::decided(batch, &decisions);
        let verdict = |(request, decision): (&CheckedRequest, Decision)| decision.outcome.into_verdict(request.tx_id);
        Ok(batch.iter().zip(decisions).map(verdict).collect())
    }

    fn prepare(&self, database: &Database, batch: &[CheckedRequest], now: Timestamp) -> Result<Prepared, Failure> {
        let transaction = begin_durable(database)?;
        let (decisions, totals) = {
            let mut records = Records::open(&transaction)?;
            let decisions = decide(batch, now, &mut records)?;
            let totals = records.record(batch, &decisions, now, &self.worker)?;
            (decisions, totals)
        };
        Ok(Prepared { transaction, decisions, totals })
    }

    /// Closes the file. The next commit, if there is one, opens it again.
    pub(super) fn close(&self) {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn database(&self) -> Result<Arc<Database>, OpenError> {
        let in_use = self.slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match in_use {
            Some(database) => Ok(database),
            None => self.reopen(),
        }
    }

    /// Drops the database: after a failed write the engine's view of the file is not to be trusted, the file is.
    fn forget(&self) {
        tracing::warn!(path = %self.medium.path().display(), "the store failed and will be opened again");
        self.close();
    }

    fn reopen(&self) -> Result<Arc<Database>, OpenError> {
        let path = self.medium.path();
        let database = open_database(self.medium.open()?, self.cache_bytes_max);
        let database = database.map_err(|error| OpenError::redb(path, error))?;
        let (format, totals) = read_meta(&database).map_err(|error| OpenError::redb(path, error))?;
        if format != FORMAT {
            return Err(OpenError::UnknownFormat { path: path.into(), found: format, known: FORMAT });
        }
        // Opened again, it must hold all that was answered for. If it does not, it is another file, or its disk lied.
        if totals.decided() < TotalsNow::of(&self.totals).decided() {
            let reason = "it holds fewer transactions than were committed to it".into();
            return Err(OpenError::Damaged { path: path.into(), reason });
        }
        totals.publish(&self.totals);
        let database = Arc::new(database);
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&database));
        Ok(database)
    }
}

/// Opens the engine on `backend`.
pub(super) fn open_database(
    backend: impl redb::StorageBackend,
    cache_bytes_max: usize,
) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(cache_bytes_max).create_with_backend(backend)
}

/// Begins the records on an empty `backend`, durably.
pub(super) fn create(backend: impl redb::StorageBackend, cache_bytes_max: usize) -> Result<(), redb::Error> {
    let database = open_database(backend, cache_bytes_max)?;
    let transaction = begin_durable(&database)?;
    {
        let mut meta = transaction.open_table(META)?;
        for (name, number) in [(meta::FORMAT, FORMAT), (meta::COMMITTED, 0), (meta::REJECTED, 0), (meta::REPEATS, 0)] {
            meta.insert(name, number)?;
        }
        transaction.open_table(LOG)?;
        transaction.open_table(TRANSACTIONS)?;
        transaction.open_table(STATES)?;
        transaction.open_table(REPEATS)?;
        transaction.open_table(NAMES)?;
        transaction.open_table(NAMES_BY_ID)?;
    }
    transaction.commit()?;
    database.close()?;
    Ok(())
}

/// A write whose commit returns once it is durable. Two phases: the switch to the new state is written after the state itself is
/// on the disk, so an opening after a crash never weighs checksums, which are not cryptographic and whose input senders choose.
/// Quick repair: the commit carries the allocator's state, so that opening after a crash takes no walk through the file.
fn begin_durable(database: &Database) -> Result<WriteTransaction, redb::TransactionError> {
    let mut transaction = database.begin_write()?; // Durability::Immediate unless told otherwise.
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn read_meta(database: &Database) -> Result<(u64, TotalsNow), redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let format = meta.get(meta::FORMAT)?.map_or(0, |number| number.value());
    Ok((format, TotalsNow::read(&meta, transaction.open_table(STATES)?.len()?)?))
}

struct Prepared {
    transaction: WriteTransaction,
    decisions: Vec<Decision>,
    totals: TotalsNow,
}

/// [`Totals`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TotalsNow {
    pub(super) committed: u64,
    pub(super) rejected: u64,
    pub(super) repeats: u64,
    pub(super) states: u64,
}

impl TotalsNow {
    pub(super) fn read(meta: &impl ReadableTable<&'static str, u64>, states: u64) -> Result<Self, redb::StorageError> {
        let total = |name| meta.get(name).map(|number| number.map_or(0, |number| number.value()));
        let (committed, rejected) = (total(meta::COMMITTED)?, total(meta::REJECTED)?);
        Ok(Self { committed, rejected, repeats: total(meta::REPEATS)?, states })
    }

    pub(super) fn of(totals: &Totals) -> Self {
        let now = |total: &AtomicU64| total.load(Ordering::Relaxed); // Each is exact; together they are only for people.
        Self {
            committed: now(&totals.committed),
            rejected: now(&totals.rejected),
            repeats: now(&totals.repeats),
            states: now(&totals.states),
        }
    }

    fn publish(self, totals: &Totals) {
        totals.committed.store(self.committed, Ordering::Relaxed);
        totals.rejected.store(self.rejected, Ordering::Relaxed);
        totals.repeats.store(self.repeats, Ordering::Relaxed);
        totals.states.store(self.states, Ordering::Relaxed);
    }

    /// Transactions with an outcome; the last of them has this number.
    pub(super) fn decided(self) -> u64 {
        self.committed + self.rejected
    }
}

/// Every table, within one write.
struct Records<'t> {
    meta: Table<'t, &'static str, u64>,
    log: Table<'t, u64, &'static [u8]>,
    transactions: Table<'t, &'static [u8], SeqBytes>,
    states: Table<'t, &'static [u8], SeqBytes>,
    repeats: Table<'t, (u64, u32), &'static [u8]>,
    names: Table<'t, &'static [u8], u32>,
    names_by_id: Table<'t, u32, &'static [u8]>,
}

impl<'t> Records<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            log: transaction.open_table(LOG)?,
            transactions: transaction.open_table(TRANSACTIONS)?,
            states: transaction.open_table(STATES)?,
            repeats: transaction.open_table(REPEATS)?,
            names: transaction.open_table(NAMES)?,
            names_by_id: transaction.open_table(NAMES_BY_ID)?,
        })
    }

    /// Records what was decided, repeats included, and returns the totals that result.
    fn record(
        &mut self,
        batch: &[CheckedRequest],
        decisions: &[Decision],
        now: Timestamp,
        worker: &[u8],
    ) -> Result<TotalsNow, Failure> {
        let mut totals = TotalsNow::read(&self.meta, 0)?;
        let worker = self.id_of(worker)?;
        let mut consumed = Vec::new();
        for (request, decision) in batch.iter().zip(decisions) {
            if decision.repeat {
                self.record_repeat(request, now)?;
                totals.repeats += 1;
                continue;
            }
            match decision.outcome {
                Outcome::Committed => totals.committed += 1,
                Outcome::Rejected(_) => totals.rejected += 1,
            }
            let seq = totals.decided();
            self.record_first(seq, request, &decision.outcome, now, worker)?;
            if decision.outcome == Outcome::Committed {
                consumed.extend(request.inputs.iter().map(|state| (state.to_key(), seq)));
            }
        }
        consumed.sort_unstable(); // Neighbours in the tree are written while their page is at hand.
        for (state, seq) in &consumed {
            if self.states.insert(state.as_slice(), seq_bytes(*seq))?.is_some() {
                return Err(Failure::Contradiction("a consumed state was about to be consumed again"));
            }
        }
        for (name, total) in
            [(meta::COMMITTED, totals.committed), (meta::REJECTED, totals.rejected), (meta::REPEATS, totals.repeats)]
        {
            self.meta.insert(name, total)?;
        }
        totals.states = self.states.len()?;
        if cfg!(debug_assertions) {
            for (request, decision) in batch.iter().zip(decisions) {
                assert_eq!(
                    self.outcome(request)?.as_ref(),
                    Some(&decision.outcome),
                    "a record reads as it was decided"
                );
            }
        }
        Ok(totals)
    }

    fn record_first(
        &mut self,
        seq: u64,
        request: &CheckedRequest,
        outcome: &Outcome,
        now: Timestamp,
        worker: u32,
    ) -> Result<(), Failure> {
        let record = LogRecord {
            kind: match outcome {
                Outcome::Committed => Kind::Committed,
                Outcome::Rejected(Rejection::Conflict(_)) => Kind::Conflict,
                Outcome::Rejected(Rejection::TimeWindowInvalid { window, .. }) => Kind::TimeWindowInvalid(*window),
            },
            tx_id: request.tx_id,
            decided_at: now,
            inputs: request.inputs.len() as u64,
            references: request.references.len() as u64,
            requester: self.requester_of(request)?,
            worker,
            platform_version: request.request_signature.platform_version,
            signature: &request.request_signature.bytes,
        };
        let old = self.log.insert(seq, record.encode().as_slice())?.is_some();
        let tx_key = request.tx_id.to_key();
        if old | self.transactions.insert(tx_key.as_slice(), seq_bytes(seq))?.is_some() {
            return Err(Failure::Contradiction("a first decision was about to replace an older one"));
        }
        Ok(())
    }

    /// Counts a repeat. The first signature of everybody who asks is kept, so that it can be proven who did.
    fn record_repeat(&mut self, request: &CheckedRequest, now: Timestamp) -> Result<(), Failure> {
        let Some(seq) = self.seq_of(&request.tx_id)? else {
            return Err(Failure::Contradiction("a repeat of a transaction that has no record"));
        };
        let requester = self.requester_of(request)?;
        let known = self.repeats.get((seq, requester))?.map(|record| record.value().to_vec());
        let record = match &known {
            Some(known) => {
                let known = RepeatRecord::decode(known)?;
                RepeatRecord { count: known.count + 1, last_seen: known.last_seen.max(now), ..known }
            }
            None => {
                let asked_first = self.with_log(seq, |record| record.requester == requester)?;
                let signature = if asked_first { &[][..] } else { &request.request_signature.bytes };
                RepeatRecord { count: 1, last_seen: now, signature }
            }
        };
        self.repeats.insert((seq, requester), record.encode().as_slice())?;
        Ok(())
    }

    fn requester_of(&mut self, request: &CheckedRequest) -> Result<u32, Failure> {
        let key = request.request_signature.by.as_spki();
        self.id_of(&Name::Requester(request.requester.clone(), key).encode())
    }

    /// The id of an encoded name; a new one gets the next.
    fn id_of(&mut self, name: &[u8]) -> Result<u32, Failure> {
        if let Some(id) = self.names.get(name)? {
            return Ok(id.value());
        }
        let Ok(id) = u32::try_from(self.names.len()?) else {
            return Err(Failure::Contradiction("more names than there are people"));
        };
        self.names.insert(name, id)?;
        self.names_by_id.insert(id, name)?;
        Ok(id)
    }

    fn seq_of(&self, tx_id: &TxId) -> Result<Option<u64>, Failure> {
        Ok(self.transactions.get(tx_id.to_key().as_slice())?.map(|seq| seq_of(seq.value())))
    }

    fn consumer_of(&self, state: &StateRef) -> Result<Option<u64>, Failure> {
        Ok(self.states.get(state.to_key().as_slice())?.map(|seq| seq_of(seq.value())))
    }

    fn with_log<T>(&self, seq: u64, use_it: impl FnOnce(LogRecord<'_>) -> T) -> Result<T, Failure> {
        let record = self.log.get(seq)?.ok_or(Failure::Contradiction("a number without a record in the log"))?;
        Ok(use_it(LogRecord::decode(record.value())?))
    }

    /// The conflicts of `request` as they were when it was refused under the number `seq`.
    fn conflicts(&self, request: &CheckedRequest, seq: u64) -> Result<Vec<Consumption>, Failure> {
        let mut conflicts = Vec::new();
        let inputs = request.inputs.iter().map(|state| (*state, StateUsage::Input));
        for (state, usage) in inputs.chain(request.references.iter().map(|state| (*state, StateUsage::Reference))) {
            if let Some(consumer) = self.consumer_of(&state)?.filter(|consumer| *consumer < seq) {
                let consumer = self.with_log(consumer, |record| record.tx_id)?;
                conflicts.push(Consumption::new(state, consumer, usage));
            }
        }
        if conflicts.is_empty() {
            return Err(Failure::Contradiction("a conflict on record whose states nobody consumed"));
        }
        Ok(conflicts)
    }
}

impl History for Records<'_> {
    type Error = Failure;

    fn outcome(&mut self, request: &CheckedRequest) -> Result<Option<Outcome>, Failure> {
        let Some(seq) = self.seq_of(&request.tx_id)? else { return Ok(None) };
        let (kind, now) = self.with_log(seq, |record| (record.kind, record.decided_at))?;
        Ok(Some(match kind {
            Kind::Committed => Outcome::Committed,
            Kind::Conflict => Outcome::Rejected(Rejection::Conflict(self.conflicts(request, seq)?)),
            Kind::TimeWindowInvalid(window) => Outcome::Rejected(Rejection::TimeWindowInvalid { now, window }),
        }))
    }

    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Failure> {
        match self.consumer_of(state)? {
            Some(seq) => self.with_log(seq, |record| Some(record.tx_id)),
            None => Ok(None),
        }
    }
}
