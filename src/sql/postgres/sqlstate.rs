//! What the server's error codes mean for a batch: the one table, and nothing anywhere else looks at a code.
//!
//! It is asked about statements *before* a commit. An error of the commit itself is always an unknown outcome, whatever its code.

use tokio_postgres::Error;

use crate::ports::uniqueness::CommitError;

/// What to do about a statement that the server refused; nothing of its transaction was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reaction {
    /// Somebody was faster, or the server chose a victim: look again at once.
    Again,
    /// The server cannot now.
    Unavailable,
    /// The server cannot with these data, and never will: only a smaller batch finds out with which.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// Codes of PostgreSQL's appendix A that stand for themselves here.
pub(super) const UNIQUE_VIOLATION: &str = "23505";
const SERIALIZATION_FAILURE: &str = "40001";
const STATEMENT_COMPLETION_UNKNOWN: &str = "40003";
const DEADLOCK_DETECTED: &str = "40P01";
const TRANSACTION_RESOLUTION_UNKNOWN: &str = "08007";
const DATA_CORRUPTED: &str = "XX001";
const INDEX_CORRUPTED: &str = "XX002";
/// Classes of codes, by their first two characters.
const CLASS_DATA_EXCEPTION: &str = "22";
const CLASS_INTEGRITY_CONSTRAINT: &str = "23";
const CLASS_INVALID_AUTHORIZATION: &str = "28";
const CLASS_PROGRAM_LIMIT_EXCEEDED: &str = "54";

/// Codes and classes with what they mean; a code counts before its class. What is not listed is [`Reaction::Unavailable`]:
/// connections (08), read-only servers (25), resources (53), shut-downs and cancellations (57), the system (58), missing rights
/// and tables (42) may all be mended without the request being changed.
const REACTIONS: &[(&str, Reaction)] = &[
    (UNIQUE_VIOLATION, Reaction::Again),
    (SERIALIZATION_FAILURE, Reaction::Again),
    (DEADLOCK_DETECTED, Reaction::Again),
    (STATEMENT_COMPLETION_UNKNOWN, Reaction::Unknown),
    (TRANSACTION_RESOLUTION_UNKNOWN, Reaction::Unknown),
    // A damaged page may concern one request only.
    (DATA_CORRUPTED, Reaction::Refused),
    (INDEX_CORRUPTED, Reaction::Refused),
    (CLASS_DATA_EXCEPTION, Reaction::Refused),
    (CLASS_INTEGRITY_CONSTRAINT, Reaction::Refused),
    (CLASS_PROGRAM_LIMIT_EXCEEDED, Reaction::Refused),
];

/// What `code` means before a commit.
pub(super) fn reaction(code: &str) -> Reaction {
    let class = code.get(..2).unwrap_or_default();
    let find = |wanted: &str| REACTIONS.iter().find(|(listed, _)| *listed == wanted);
    find(code).or_else(|| find(class)).map_or(Reaction::Unavailable, |(_, reaction)| *reaction)
}

/// Why an exchange with the server did not do what it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trouble {
    pub(super) reaction: Reaction,
    /// The server's code, if it said anything.
    pub(super) code: Option<String>,
    /// For people.
    pub(super) text: String,
    /// The server ended the transaction, and its session is as good as before.
    pub(super) is_rolled_back: bool,
}

impl Trouble {
    /// A statement failed whose transaction is not committed.
    pub(super) fn before_commit(error: &Error) -> Self {
        let code = error.code().map(|code| code.code().to_owned());
        let reaction = code.as_deref().map_or(Reaction::Unavailable, reaction);
        Self { reaction, code, text: describe(error), is_rolled_back: false }
    }

    /// A commit was sent, and nobody knows what came of it.
    pub(super) fn unknown(text: impl Into<String>) -> Self {
        Self::of(Reaction::Unknown, text.into())
    }

    /// Nothing was written; later it may be.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::of(Reaction::Unavailable, text.into())
    }

    /// Nothing was written, and nothing of this batch will be.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self::of(Reaction::Refused, text.into())
    }

    fn of(reaction: Reaction, text: String) -> Self {
        Self { reaction, code: None, text, is_rolled_back: false }
    }

    /// What the batch's owner is told.
    pub(super) fn into_commit_error(self) -> CommitError {
        match self.reaction {
            Reaction::Again | Reaction::Unavailable => CommitError::Unavailable(self.text),
            Reaction::Refused => CommitError::Refused(self.text),
            Reaction::Unknown => CommitError::OutcomeUnknown(self.text),
        }
    }
}

/// Whether the server does not let this user in: trying again soon would only lock it out.
pub(super) fn is_refused_entry(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with(CLASS_INVALID_AUTHORIZATION))
}

/// An error in one line: what the server said with its code, or what the connection met.
pub(super) fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} {}: {}", said.severity(), said.code().code(), said.message()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_reaction() {
        let cases = [
            ("23505", Reaction::Again),
            ("40001", Reaction::Again),
            ("40P01", Reaction::Again),
            ("40003", Reaction::Unknown),
            ("08007", Reaction::Unknown),
            ("40000", Reaction::Unavailable),
            ("08006", Reaction::Unavailable),
            ("25006", Reaction::Unavailable),
            ("25P02", Reaction::Unavailable),
            ("28P01", Reaction::Unavailable),
            ("42501", Reaction::Unavailable),
            ("42P01", Reaction::Unavailable),
            ("53100", Reaction::Unavailable),
            ("53300", Reaction::Unavailable),
            ("55P03", Reaction::Unavailable),
            ("57014", Reaction::Unavailable),
            ("57P01", Reaction::Unavailable),
            ("58030", Reaction::Unavailable),
            ("XX000", Reaction::Unavailable),
            ("XX001", Reaction::Refused),
            ("XX002", Reaction::Refused),
            ("22021", Reaction::Refused),
            ("22003", Reaction::Refused),
            ("23502", Reaction::Refused),
            ("54000", Reaction::Refused),
            ("", Reaction::Unavailable),
            ("é", Reaction::Unavailable),
        ];
        for (code, expected) in cases {
            assert_eq!(reaction(code), expected, "{code}");
        }
    }

    #[test]
    fn no_code_is_listed_twice() {
        let mut codes: Vec<&str> = REACTIONS.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), REACTIONS.len());
    }
}
