//! The shared store: a PostgreSQL database, safe for any number of workers.
//!
//! ```text
//! Postgres ─▶ commit (the way of a batch) ─▶ pool ─▶ session ─▶ server
//!    │             └ records: rows ◀─▶ domain              └ examine: every connection is judged before it is used
//!    └─▶ keeper: the worker's lease, the settings and the probe, once a second
//! admin: migrations, rights, checks (`notary db`), on blocking connections of the owner
//! ```
//!
//! Read `commit` first; the tables are in `sql/postgres/`. What is promised:
//! - A verdict is given out after the server confirmed the commit of everything it rests on, and, where standbys are synchronous,
//!   theirs. The worker waits `deadline` and no longer; what it does not know by then it calls unknown.
//! - Primary keys refuse double spends, whatever a worker believes. The worker's role cannot take a record back.
//! - Unsafe settings, a standby for a primary, changed tables and excessive rights are refused on every new connection, and settings
//!   every second on the one that watches.
//! - All I/O runs on the runtime handed in, so callers may live on any thread, and a batch is finished though its caller is gone.

mod admin;
mod commit;
mod examine;
mod keeper;
mod place;
mod pool;
mod records;
mod session;
mod sqlstate;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use tokio::runtime::Handle;

pub use admin::{AdminError, Owner, WorkerRole, apply, examine, plan};
pub use place::{Place, PlaceError};
pub use session::Password;

use crate::domain::{CheckedRequest, Timestamp, Verdict, X500Name};
use crate::ports::uniqueness::CommitError;
use crate::ports::{BoxFuture, Finding, Probe, UniquenessProvider};
use commit::Committer;
use keeper::{Keeper, LeaseError};
use pool::Pool;
use session::{ConnectError, Connector, Failures};

/// How a worker uses its database.
#[derive(Clone)]
pub struct Options {
    /// Where it is.
    pub place: Place,
    /// The user's password, if it has one; asked for anew at each connection.
    pub password: Option<Password>,
    /// The worker's name, for the records and the lease.
    pub worker: X500Name,
    /// Connections for commits and looks, at least 2; the lease has one more.
    pub connections_max: usize,
    /// For one exchange with the server.
    pub deadline: Duration,
    /// Serves from a database whose settings may lose commits.
    pub unsafe_for_tests: bool,
    /// Whether the worker's name is leased, so that no second worker has it; and how long to wait for a predecessor that is dying.
    pub lease: Option<Duration>,
}

impl Options {
    /// How long a starting worker waits for its predecessor's lease, unless told otherwise. A killed process lets go at once; a lost
    /// machine within 15 s, for which a supervisor tries again.
    pub const LEASE_PATIENCE: Duration = Duration::from_secs(5);
}

/// Why a database is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No host lets us in.
    #[error("{place}: {why}")]
    Unreachable {
        /// Where.
        place: String,
        /// Each host's reason.
        why: String,
    },
    /// The database is not one to serve from.
    #[error("{place}: {}", Finding::one_line(.faults))]
    Refused {
        /// Where.
        place: String,
        /// What is wrong, with advice.
        faults: Vec<Finding>,
    },
    /// Another worker has this one's name.
    #[error("the worker name {name} is in use by {holder}; every worker needs a name of its own")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it, as far as the database shows.
        holder: String,
    },
}

/// The shared store.
pub struct Postgres {
    committer: Arc<Committer>,
    keeper: Keeper,
    runtime: Handle,
}

impl Postgres {
    /// Connects, judges the database, takes the lease and keeps watch. I/O runs on `runtime`, which must have several threads or be
    /// left alone by whoever waits.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was written.
    pub async fn open(options: Options, runtime: &Handle) -> Result<Self, OpenError> {
        let inner = runtime.clone();
        let opened = runtime.spawn(async move { Self::open_here(options, inner).await });
        opened.await.unwrap_or_else(|_| {
            Err(OpenError::Unreachable { place: "database".into(), why: "opening it was interrupted".into() })
        })
    }

    async fn open_here(options: Options, runtime: Handle) -> Result<Self, OpenError> {
        let place = options.place.to_string();
        let connector = Arc::new(Connector {
            place: options.place,
            password: options.password,
            application: format!("notary {}", options.worker),
            deadline: options.deadline,
            unsafe_for_tests: options.unsafe_for_tests,
            runtime: runtime.clone(),
            has_warned: AtomicBool::new(false),
            failures: tokio::sync::Mutex::new(Failures::default()),
        });
        let pool = Pool::new(Arc::clone(&connector), options.connections_max);
        let leased = options.lease.map(|_| &options.worker);
        let patience = options.lease.unwrap_or_default();
        let keeper = Keeper::start(connector, pool.clone(), leased, patience).await.map_err(|error| match error {
            LeaseError::Connect(ConnectError::Unreachable(why)) | LeaseError::Lost(why) => {
                OpenError::Unreachable { place, why }
            }
            LeaseError::Connect(ConnectError::Refused(faults)) => OpenError::Refused { place, faults },
            LeaseError::Held(holder) => OpenError::NameInUse { name: options.worker.to_string(), holder },
        })?;
        let committer = Committer { pool, worker: options.worker, deadline: options.deadline, wary: AtomicU32::new(0) };
        Ok(Self { committer: Arc::new(committer), keeper, runtime })
    }
}

impl UniquenessProvider for Postgres {
    fn commit<'a>(
        &'a self,
        batch: &'a [CheckedRequest],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, CommitError>> {
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(why) = self.keeper.report().is_unsafe {
                return Err(CommitError::Unavailable(why));
            }
            let (committer, batch) = (Arc::clone(&self.committer), batch.to_vec());
            let committing = self.runtime.spawn(async move { committer.commit(&batch, now).await });
            match committing.await {
                Ok(result) => result.map_err(sqlstate::Trouble::into_commit_error),
                Err(_) => Err(CommitError::OutcomeUnknown("the commit was interrupted".into())),
            }
        })
    }
}

impl Probe for Postgres {
    fn part(&self) -> &'static str {
        "store"
    }

    /// Tells what the last look found, which is about a second old.
    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.keeper.report().answer() })
    }
}
