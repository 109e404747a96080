//! `notary store`: what the embedded store of a stopped worker holds.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ConfigSource, Exit, Failure};
use crate::domain::{SecureHash, StateRef, TxId};
use crate::sql::embedded::{self, Figures, LogEntry, LoggedOutcome, LoggedRepeat, Reader};

#[derive(Args, Debug)]
pub(crate) struct StoreArguments {
    #[command(subcommand)]
    verb: StoreVerb,
}

#[derive(Args, Debug)]
struct Place {
    /// The store's file; without it, the one the configuration names.
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    #[command(flatten)]
    source: ConfigSource,
}

#[derive(Subcommand, Debug)]
enum StoreVerb {
    /// Make a new, empty store. A worker never does: with a wrong path it would begin to forget.
    Create(Place),
    /// Count what is stored.
    Stats(Place),
    /// Read every page and every record, and check that they agree.
    Verify(Place),
    /// What was decided about a transaction.
    Tx {
        /// Its id: hex, or ALGORITHM:HEX.
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Which transaction consumed a state.
    State {
        /// `TXID:INDEX` or `TXID(INDEX)`.
        state: String,
        #[command(flatten)]
        place: Place,
    },
    /// Every decision in order, one JSON object a line.
    Log {
        /// The first decision to print, counted from 1.
        #[arg(long, default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        place: Place,
    },
}

pub(crate) fn run(arguments: &StoreArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        StoreVerb::Create(place) => {
            let mut settings = place.source.load()?.settings;
            settings.store.path = place.path()?;
            if settings.store.path.exists() {
                return Err(Failure::unavailable(format!("{} exists already", settings.store.path.display())));
            }
            crate::worker::create_store(&settings).map_err(Failure::unavailable)?;
            println!("made {}", settings.store.path.display());
            Ok(Exit::Done)
        }
        StoreVerb::Stats(place) => {
            let figures = place.open()?.figures().map_err(Failure::unavailable)?;
            println!("{}", figures_json(&figures));
            Ok(Exit::Done)
        }
        StoreVerb::Verify(place) => match embedded::verify(place.path()?) {
            Ok(figures) => {
                println!("sound: {}", figures_json(&figures));
                Ok(Exit::Done)
            }
            Err(error) => Err(Failure::new(Exit::Negative, error)),
        },
        StoreVerb::Tx { id, place } => {
            let id =
                SecureHash::parse(id).ok_or_else(|| Failure::new(Exit::Usage, format!("{id} is no transaction id")))?;
            show(place.open()?.transaction(&TxId(id)).map_err(Failure::unavailable)?)
        }
        StoreVerb::State { state, place } => {
            let state = parse_state(state).ok_or_else(|| Failure::new(Exit::Usage, format!("{state} is no state")))?;
            show(place.open()?.consumer(&state).map_err(Failure::unavailable)?)
        }
        StoreVerb::Log { from, place } => {
            for entry in place.open()?.log(*from) {
                println!("{}", entry_json(&entry.map_err(Failure::unavailable)?));
            }
            Ok(Exit::Done)
        }
    }
}

impl Place {
    fn path(&self) -> Result<PathBuf, Failure> {
        match &self.path {
            Some(path) => Ok(path.clone()),
            None => Ok(self.source.load()?.settings.store.path),
        }
    }

    fn open(&self) -> Result<Reader, Failure> {
        Reader::open(self.path()?).map_err(Failure::unavailable)
    }
}

/// Reads `TXID:INDEX` or Corda's `TXID(INDEX)`; the id itself may contain a colon.
pub(super) fn parse_state(text: &str) -> Option<StateRef> {
    let (id, index) = match text.strip_suffix(')') {
        Some(inner) => inner.rsplit_once('(')?,
        None => text.rsplit_once(':')?,
    };
    let index: u32 = index.parse().ok()?;
    (index <= StateRef::INDEX_MAX).then_some(())?;
    Some(StateRef { tx_id: TxId(SecureHash::parse(id)?), index })
}

fn show(entry: Option<LogEntry>) -> Result<Exit, Failure> {
    match entry {
        Some(entry) => {
            println!("{}", entry_json(&entry));
            Ok(Exit::Done)
        }
        None => {
            println!("nothing on record");
            Ok(Exit::Negative)
        }
    }
}

fn figures_json(figures: &Figures) -> Value {
    json!({
        "transactions": figures.transactions(),
        "committed": figures.committed,
        "rejected": figures.rejected,
        "repeats": figures.repeats,
        "states": figures.states,
        "file_bytes": figures.file_bytes,
    })
}

fn entry_json(entry: &LogEntry) -> Value {
    let outcome = match entry.outcome {
        LoggedOutcome::Committed => json!("Committed"),
        LoggedOutcome::Conflict => json!("Conflict"),
        LoggedOutcome::TimeWindowInvalid(window) => json!({ "TimeWindowInvalid": window.to_string() }),
    };
    let repeat = |repeat: &LoggedRepeat| {
        json!({
            "requester": repeat.requester.to_string(),
            "key": hex::encode(&repeat.key),
            "signature": repeat.signature.as_ref().map(hex::encode),
            "count": repeat.count,
            "lastSeen": repeat.last_seen.to_string(),
        })
    };
    json!({
        "seq": entry.seq,
        "txId": entry.tx_id.to_string(),
        "outcome": outcome,
        "decidedAt": entry.decided_at.to_string(),
        "inputs": entry.inputs,
        "references": entry.references,
        "requester": entry.request.requester.to_string(),
        "requestKey": hex::encode(&entry.request.key),
        "requestSignature": hex::encode(&entry.request.signature),
        "platformVersion": entry.request.platform_version,
        "worker": entry.worker.to_string(),
        "repeats": entry.repeats.iter().map(repeat).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_in_both_spellings() {
        let hex = "AB".repeat(32);
        for text in [format!("{hex}:7"), format!("{hex}(7)"), format!("SHA3-256:{hex}:7")] {
            assert_eq!(parse_state(&text).map(|state| state.index), Some(7), "{text}");
        }
        for text in ["", "7", "AB:7", &format!("{hex}:-1"), &format!("{hex}:2147483648")] {
            assert_eq!(parse_state(text), None, "{text}");
        }
    }
}
