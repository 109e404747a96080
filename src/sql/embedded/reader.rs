//! The read side, for operators: what was decided about a transaction, who consumed a state, the log in order, totals.
//!
//! A [`Reader`] reads a running store from inside its process, or a file that no worker has open. It writes nothing, also where
//! the last worker was killed.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::file::{OpenError, bytes_on_disk, open_to_read};
use super::ledger::{Slot, TotalsNow, open_database};
use super::overlay::Overlay;
use super::tables::{
    FORMAT, Kind, LOG, LogRecord, META, Malformed, NAMES_BY_ID, Name, REPEATS, RepeatRecord, STATES, SeqBytes,
    TRANSACTIONS, meta, seq_of,
};
use crate::domain::{StateRef, TimeWindow, Timestamp, TxId, X500Name};

/// Log entries read under one view of the store. While a view lives its pages cannot be reused, so it must not live long.
const LOG_PAGE_ENTRIES: usize = 256;

/// Memory for cached pages of a store that is read offline: whole scans gain nothing from more.
const CACHE_BYTES: usize = 16 << 20;

/// Reads a store.
pub struct Reader {
    source: Source,
    path: PathBuf,
}

enum Source {
    /// Of the process's own store; empty while that is opened again after a failure.
    Live(Slot),
    Offline(Database),
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed and is not open again yet.
    #[error("the store is not open at the moment")]
    Closed,
    /// The engine failed; a damaged block is among the reasons.
    #[error("the store cannot be read: {0}")]
    Engine(#[from] redb::Error),
    /// What is on record makes no sense.
    #[error("the store cannot be trusted: {0}")]
    Damaged(String),
}

impl From<Malformed> for ReadError {
    fn from(error: Malformed) -> Self {
        Self::Damaged(error.to_string())
    }
}

macro_rules! engine_errors {
    ($($error:ident),*) => { $(
        impl From<redb::$error> for ReadError {
            fn from(error: redb::$error) -> Self {
                Self::Engine(error.into())
            }
        }
    )* };
}
engine_errors!(TransactionError, TableError, StorageError);

/// What a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Committed transactions.
    pub committed: u64,
    /// Refused transactions.
    pub rejected: u64,
    /// Requests for a transaction that was decided before.
    pub repeats: u64,
    /// Consumed states.
    pub states: u64,
    /// Bytes the file takes on the disk.
    pub file_bytes: u64,
}

impl Figures {
    pub(super) fn new(totals: TotalsNow, path: &Path) -> Self {
        let TotalsNow { committed, rejected, repeats, states } = totals;
        // A file that cannot be looked at is reported by whoever writes to it.
        Self { committed, rejected, repeats, states, file_bytes: bytes_on_disk(path).unwrap_or(0) }
    }

    /// Transactions with an outcome.
    pub fn transactions(&self) -> u64 {
        self.committed + self.rejected
    }
}

/// The record of a transaction's first decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Its number in the order of decisions, from 1.
    pub seq: u64,
    /// The transaction.
    pub tx_id: TxId,
    /// What was decided.
    pub outcome: LoggedOutcome,
    /// When.
    pub decided_at: Timestamp,
    /// How many states it consumes, or would have.
    pub inputs: u64,
    /// How many states it refers to.
    pub references: u64,
    /// Who asked.
    pub request: LoggedRequest,
    /// The worker that decided.
    pub worker: X500Name,
    /// Who asked again, one entry for each asker.
    pub repeats: Vec<LoggedRepeat>,
}

/// A request's signature and whose it is; it covers the inputs and the transaction's id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedRequest {
    /// The party.
    pub requester: X500Name,
    /// The signing key's SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// The signature in the form of the key's scheme.
    pub signature: Vec<u8>,
    /// The client's platform version.
    pub platform_version: i32,
}

/// Requests for a transaction that was decided before, all by one party with one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedRepeat {
    /// The party.
    pub requester: X500Name,
    /// The signing key's SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// The first signature; `None` if the party also asked first, so that the entry has it.
    pub signature: Option<Vec<u8>>,
    /// How often it asked.
    pub count: u64,
    /// The last time.
    pub last_seen: Timestamp,
}

/// A first decision as logged. A conflict's states are those of the transaction's that were consumed under a lower number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoggedOutcome {
    /// Committed.
    Committed,
    /// Refused: another transaction consumed one of its states before.
    Conflict,
    /// Refused: decided outside this window.
    TimeWindowInvalid(TimeWindow),
}

impl Reader {
    /// Opens a store that no worker has open.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::InUse`] while a worker runs on it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = Overlay::over(open_to_read(path)?).map_err(|error| OpenError::io(path, error))?;
        let database = open_database(file, CACHE_BYTES).map_err(|error| OpenError::redb(path, error))?;
        let reader = Self { source: Source::Offline(database), path: path.into() };
        let damaged = |error: ReadError| OpenError::Damaged { path: path.into(), reason: error.to_string() };
        let format = reader.format().map_err(damaged)?;
        if format != FORMAT {
            return Err(OpenError::UnknownFormat { path: path.into(), found: format, known: FORMAT });
        }
        Ok(reader)
    }

    pub(super) fn live(slot: Slot, path: PathBuf) -> Self {
        Self { source: Source::Live(slot), path }
    }

    /// Totals.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn figures(&self) -> Result<Figures, ReadError> {
        let view = self.view()?;
        let states = view.open_table(STATES)?.len()?;
        Ok(Figures::new(TotalsNow::read(&view.open_table(META)?, states)?, &self.path))
    }

    /// What was decided about `tx_id`, if anything.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn transaction(&self, tx_id: &TxId) -> Result<Option<LogEntry>, ReadError> {
        let view = self.view()?;
        let seq = number(view.open_table(TRANSACTIONS)?.get(tx_id.to_key().as_slice())?);
        seq.map(|seq| entry(&view, seq)).transpose()
    }

    /// The transaction that consumed `state`, if one did.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn consumer(&self, state: &StateRef) -> Result<Option<LogEntry>, ReadError> {
        let view = self.view()?;
        let seq = number(view.open_table(STATES)?.get(state.to_key().as_slice())?);
        seq.map(|seq| entry(&view, seq)).transpose()
    }

    /// The log from the number `from` on, in the order of decisions, up to where it ends while it is read.
    pub fn log(&self, from: u64) -> impl Iterator<Item = Result<LogEntry, ReadError>> + '_ {
        let mut next = from.max(1);
        let mut page = Vec::new().into_iter();
        std::iter::from_fn(move || {
            if page.len() == 0 {
                page = self.log_page(next).unwrap_or_else(|error| vec![Err(error)]).into_iter();
            }
            let entry = page.next()?;
            // After an error nothing can be said of the rest.
            next = entry.as_ref().map_or(u64::MAX, |entry| entry.seq + 1);
            Some(entry)
        })
    }

    fn log_page(&self, from: u64) -> Result<Vec<Result<LogEntry, ReadError>>, ReadError> {
        let view = self.view()?;
        let log = view.open_table(LOG)?;
        let mut page = Vec::new();
        for record in log.range(from..)?.take(LOG_PAGE_ENTRIES) {
            page.push(entry(&view, record?.0.value()));
        }
        Ok(page)
    }

    fn format(&self) -> Result<u64, ReadError> {
        let format = self.view()?.open_table(META)?.get(meta::FORMAT)?;
        Ok(format.map_or(0, |format| format.value()))
    }

    fn view(&self) -> Result<ReadTransaction, ReadError> {
        match &self.source {
            Source::Offline(database) => Ok(database.begin_read()?),
            Source::Live(slot) => {
                let database = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(database.ok_or(ReadError::Closed)?.begin_read()?)
            }
        }
    }
}

fn number(seq: Option<redb::AccessGuard<'_, SeqBytes>>) -> Option<u64> {
    seq.map(|seq| seq_of(seq.value()))
}

fn entry(view: &ReadTransaction, seq: u64) -> Result<LogEntry, ReadError> {
    let log = view.open_table(LOG)?;
    let record = log.get(seq)?.ok_or_else(|| ReadError::Damaged(format!("number {seq} has no record in the log")))?;
    let record = LogRecord::decode(record.value())?;
    let (requester, key) = requester(view, record.requester)?;
    let mut repeats = Vec::new();
    for repeat in view.open_table(REPEATS)?.range((seq, 0)..=(seq, u32::MAX))? {
        let (id, repeat) = repeat?;
        let (requester, key) = self::requester(view, id.value().1)?;
        let RepeatRecord { count, last_seen, signature } = RepeatRecord::decode(repeat.value())?;
        let signature = (!signature.is_empty()).then(|| signature.to_vec());
        repeats.push(LoggedRepeat { requester, key, signature, count, last_seen });
    }
    Ok(LogEntry {
        seq,
        tx_id: record.tx_id,
        outcome: match record.kind {
            Kind::Committed => LoggedOutcome::Committed,
            Kind::Conflict => LoggedOutcome::Conflict,
            Kind::TimeWindowInvalid(window) => LoggedOutcome::TimeWindowInvalid(window),
        },
        decided_at: record.decided_at,
        inputs: record.inputs,
        references: record.references,
        request: LoggedRequest {
            requester,
            key,
            signature: record.signature.to_vec(),
            platform_version: record.platform_version,
        },
        worker: match name(view, record.worker, |name| match name {
            Name::Worker(worker) => Some(worker),
            Name::Requester(..) => None,
        })? {
            Some(worker) => worker,
            None => return Err(ReadError::Damaged(format!("name {} is no worker's", record.worker))),
        },
        repeats,
    })
}

fn requester(view: &ReadTransaction, id: u32) -> Result<(X500Name, Vec<u8>), ReadError> {
    let requester = name(view, id, |name| match name {
        Name::Requester(name, key) => Some((name, key.to_vec())),
        Name::Worker(_) => None,
    })?;
    requester.ok_or_else(|| ReadError::Damaged(format!("name {id} is no requester's")))
}

fn name<T>(view: &ReadTransaction, id: u32, read: impl FnOnce(Name<'_>) -> Option<T>) -> Result<Option<T>, ReadError> {
    let name =
        view.open_table(NAMES_BY_ID)?.get(id)?.ok_or_else(|| ReadError::Damaged(format!("no name has id {id}")))?;
    Ok(read(Name::decode(name.value())?))
}
