//! The uniqueness provider: remembers which transaction consumed each state.

use super::BoxFuture;
use crate::domain::{CheckedRequest, Timestamp, Verdict};

/// Remembers which transaction consumed each state. Several workers may share one.
pub trait UniquenessProvider: Send + Sync {
    /// Commits a batch atomically at the moment `now`: one verdict per request, in order, each durable before it is returned.
    /// A decided request, repeated, gets its first verdict again.
    ///
    /// # Errors
    /// [`CommitError`] says what the caller must do next. It never stands for a rejection.
    fn commit<'a>(
        &'a self,
        batch: &'a [CheckedRequest],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, CommitError>>;
}

/// Why a batch has no verdicts, by what the caller must do next.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written, because of this batch and not of the store's state: some request in it cannot be digested. Repeat it in
    /// parts, so that it costs its neighbours nothing.
    #[error("the store refuses the batch: {0}")]
    Refused(String),
    /// Nothing was written. Repeat later, or give the requests back.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The batch may or may not be written. Repeat it; never sign, never reject.
    #[error("the outcome of the commit is unknown: {0}")]
    OutcomeUnknown(String),
}
