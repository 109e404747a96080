//! Administering a shared broker: what `notary broker plan|apply|check` and `notary doctor` ask of each kind of broker. What ought to
//! be there is declared as data in `broker/`; a worker never declares anything, as its user has no right to.

use std::fmt;
use std::path::PathBuf;

use crate::domain::X500Name;
use crate::ports::Finding;

/// One difference between the broker and what is declared, and so one step of `apply`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What would be done, or was: `create queue notary.requests`.
    pub what: String,
    /// Why: `missing`, `max-length is 10, declared 100000`.
    pub why: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Why the broker cannot be administered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// It cannot be reached, or does not let us.
    #[error("{0}")]
    Unavailable(String),
    /// Something must be decided or done by a person first, such as deleting a queue of the wrong kind.
    #[error("{0}")]
    Refused(String),
}

/// A worker as the broker knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerAccount {
    /// Its legal name, by which requests may name it.
    pub name: X500Name,
    /// Its broker user.
    pub user: String,
    /// Its Corda inbox, if it is in the network map: `p2p.inbound.<hash of its key>`. Asked for only if senders are peers.
    pub inbox: Option<String>,
}

/// A caller as the broker knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerAccount {
    /// Its broker user.
    pub user: String,
    /// Its Corda inbox, if it is in the network map: `p2p.inbound.<hash of its key>`.
    pub inbox: Option<String>,
}

/// What is to be declared on the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// What the names of its queues begin with.
    pub prefix: String,
    /// The workers to declare.
    pub workers: Vec<WorkerAccount>,
    /// The callers to declare.
    pub callers: Vec<CallerAccount>,
    /// The service's own Corda inbox, if Corda nodes send to the broker themselves; then there are no callers.
    pub inbox: Option<String>,
    /// Where passwords of users are kept, a file each of mode 0600: read if it is there, otherwise made up and written. Without it no
    /// user is created.
    pub secrets: Option<PathBuf>,
}

/// An administrator's connection to one kind of broker. Everything blocks, each step with a deadline.
pub trait Administrator {
    /// Where, for people: `rabbitmq at http://127.0.0.1:15672, virtual host /`.
    fn place(&self) -> String;

    /// What `apply` would do. Nothing is changed.
    ///
    /// # Errors
    /// [`AdminError`].
    fn plan(&self) -> Result<Vec<Change>, AdminError>;

    /// Does what is to be done, in order, and returns what was done. Repeated, it does nothing.
    ///
    /// # Errors
    /// [`AdminError`]; what was done before stays done, so repeat it.
    fn apply(&self) -> Result<Vec<Change>, AdminError>;

    /// What only the broker's own file can say, for people to merge into it; empty if nothing.
    fn file(&self) -> &'static str {
        ""
    }

    /// Looks at everything that matters, drift included. What cannot be looked at is a fault among the findings.
    fn examine(&self) -> Vec<Finding>;
}
