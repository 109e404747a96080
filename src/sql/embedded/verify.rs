//! The integrity check an operator runs on a store, or on a copy of one, that no worker has open.
//!
//! It reaches further than the seals: the engine's checksums form a tree under the last commit, so a block that *was* right
//! once, but lost its last write to a disk that lied, is found too. Then every record is read and counted against the others.
//! It finds damage. It does not find a forger, who can recompute everything that is checked here.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend};

use super::file::{OpenError, open_to_read};
use super::ledger::TotalsNow;
use super::overlay::Overlay;
use super::reader::{Figures, ReadError};
use super::tables::{
    FORMAT, Kind, LOG, LogRecord, META, NAMES, NAMES_BY_ID, Name, REPEATS, RepeatRecord, STATES, TRANSACTIONS, meta,
    seq_of,
};
use crate::domain::StateRef;

/// Checks the store at `path` from end to end, changing nothing. It reads the whole file once and looks every transaction up, so
/// expect a minute for ten million; it needs four bytes of memory a transaction.
///
/// # Errors
/// [`OpenError::Damaged`] with the first fault found, or why the store did not open.
pub fn verify(path: impl AsRef<Path>) -> Result<Figures, OpenError> {
    verify_backend(open_to_read(path.as_ref())?, path.as_ref())
}

pub(super) fn verify_backend(backend: impl StorageBackend, path: &Path) -> Result<Figures, OpenError> {
    let damaged = |reason: String| OpenError::Damaged { path: path.into(), reason };
    // The engine's check wants to write down what it found; the overlay lets it, and forgets it.
    let file = Overlay::over(backend).map_err(|error| OpenError::io(path, error))?;
    let mut builder = Database::builder();
    let database = builder.set_check_integrity_on_open(true).create_with_backend(file);
    let database = database.map_err(|error| OpenError::redb(path, error))?;
    let format = read_format(&database).map_err(|error| damaged(error.to_string()))?;
    if format != FORMAT {
        return Err(OpenError::UnknownFormat { path: path.into(), found: format, known: FORMAT });
    }
    match check_records(&database) {
        Ok(totals) => Ok(Figures::new(totals, path)),
        Err(ReadError::Damaged(reason)) => Err(damaged(reason)),
        Err(error) => Err(damaged(error.to_string())),
    }
}

fn read_format(database: &Database) -> Result<u64, ReadError> {
    let format = database.begin_read()?.open_table(META)?.get(meta::FORMAT)?;
    Ok(format.map_or(0, |format| format.value()))
}

/// Reads every record and counts: numbers without gaps, both directions of each index, totals.
fn check_records(database: &Database) -> Result<TotalsNow, ReadError> {
    let fault = |reason: String| Err(ReadError::Damaged(reason));
    let view = database.begin_read()?;
    let names = check_names(&view)?;

    let transactions = view.open_table(TRANSACTIONS)?;
    let (mut committed, mut rejected) = (0, 0);
    // How many consumed states each transaction still has to show.
    let mut unseen: Vec<u32> = Vec::new();
    for record in view.open_table(LOG)?.iter()? {
        let (seq, record) = record?;
        let (seq, record) = (seq.value(), LogRecord::decode(record.value())?);
        if seq != unseen.len() as u64 + 1 {
            return fault(format!("the log has {seq} where {} belongs", unseen.len() + 1));
        }
        let index = transactions.get(record.tx_id.to_key().as_slice())?.map(|seq| seq_of(seq.value()));
        if index != Some(seq) {
            return fault(format!(
                "transaction {} has number {seq} in the log and {index:?} in the index",
                record.tx_id
            ));
        }
        if [record.requester, record.worker].iter().any(|id| u64::from(*id) >= names) {
            return fault(format!("number {seq} names somebody who has no name"));
        }
        unseen.push(match record.kind {
            Kind::Committed => match u32::try_from(record.inputs) {
                Ok(inputs) => inputs,
                Err(_) => return fault(format!("number {seq} claims {} inputs", record.inputs)),
            },
            Kind::Conflict | Kind::TimeWindowInvalid(_) => 0,
        });
        if record.kind == Kind::Committed { committed += 1 } else { rejected += 1 }
    }
    if transactions.len()? != unseen.len() as u64 {
        return fault(format!("{} transactions are indexed, {} logged", transactions.len()?, unseen.len()));
    }

    let states = view.open_table(STATES)?;
    for state in states.iter()? {
        let (key, seq) = state?;
        let (state, seq) = (StateRef::from_key(key.value()), seq_of(seq.value()));
        let Some(state) = state else { return fault("a key among the states is no state".into()) };
        let left = usize::try_from(seq).ok().and_then(|seq| unseen.get_mut(seq.checked_sub(1)?));
        match left {
            Some(left) if *left > 0 => *left -= 1,
            _ => return fault(format!("{state} is consumed under number {seq}, which did not consume so many states")),
        }
    }
    if let Some(seq) = unseen.iter().position(|left| *left > 0) {
        return fault(format!("{} states that number {} consumed are missing", unseen[seq], seq + 1));
    }

    let mut repeats = 0;
    for repeat in view.open_table(REPEATS)?.iter()? {
        let (key, repeat) = repeat?;
        let (seq, requester) = key.value();
        if seq == 0 || seq > unseen.len() as u64 || u64::from(requester) >= names {
            return fault(format!("a repeat of number {seq} by name {requester}, which do not exist"));
        }
        repeats += RepeatRecord::decode(repeat.value())?.count;
    }
    let counted = TotalsNow { committed, rejected, repeats, states: states.len()? };
    let noted = TotalsNow::read(&view.open_table(META)?, counted.states)?;
    if noted != counted {
        return fault(format!("the totals say {noted:?}, the records {counted:?}"));
    }
    Ok(counted)
}

/// Checks that names and ids belong together; returns how many there are.
fn check_names(view: &redb::ReadTransaction) -> Result<u64, ReadError> {
    let (names, by_id) = (view.open_table(NAMES)?, view.open_table(NAMES_BY_ID)?);
    for (expected, name) in (0..).zip(by_id.iter()?) {
        let (id, name) = name?;
        Name::decode(name.value())?;
        let back = names.get(name.value())?.map(|id| id.value());
        if id.value() != expected || back != Some(expected) {
            return Err(ReadError::Damaged(format!("name {expected} is {} and {back:?}", id.value())));
        }
    }
    if names.len()? != by_id.len()? {
        return Err(ReadError::Damaged(format!("{} names have {} ids", names.len()?, by_id.len()?)));
    }
    Ok(names.len()?)
}
