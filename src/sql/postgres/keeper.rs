//! What keeps watch beside the commits, once a second: it holds the lease on the worker's name, reads the settings that durability
//! depends on, and commits an empty write, so that a database that cannot commit is known before a request waits for it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::pool::Pool;
use super::session::{ConnectError, Connector, Session};
use super::sqlstate::describe;
use crate::domain::{HashAlgorithm, X500Name};
use crate::ports::Finding;

/// Between looks. With the patience below a loss is told within 5 s (promise P5).
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks after which a worker that serves for tests only says so again.
const REMIND_EVERY: u32 = 60;
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between questions whether a predecessor's lease has ended.
const LEASE_INTERVAL: Duration = Duration::from_millis(250);

const TAKE_LEASE: &str = include_str!("../../../sql/postgres/queries/take_lease.sql");
const READ_LEASE_HOLDER: &str = include_str!("../../../sql/postgres/queries/read_lease_holder.sql");

/// What the last look found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    at: Instant,
    /// Why nothing may be committed, although it could be.
    pub(super) is_unsafe: Option<String>,
    /// What else is wrong.
    problem: Option<String>,
}

impl Report {
    fn good() -> Self {
        Self { at: Instant::now(), is_unsafe: None, problem: None }
    }

    /// The probe's answer.
    pub(super) fn answer(&self) -> Result<(), String> {
        let age = self.at.elapsed();
        match self.is_unsafe.as_ref().or(self.problem.as_ref()) {
            Some(problem) => Err(problem.clone()),
            None if age > INTERVAL + PATIENCE => Err(format!("nobody looked at the database for {age:?}")),
            None => Ok(()),
        }
    }
}

/// Why the lease is not to be had.
#[derive(Debug)]
pub(super) enum LeaseError {
    Connect(ConnectError),
    /// Somebody else has it; a description.
    Held(String),
    Lost(String),
}

impl std::fmt::Display for LeaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Held(holder) => write!(f, "the worker's name is in use by {holder}"),
            Self::Lost(why) => write!(f, "the connection that holds the worker's name: {why}"),
        }
    }
}

/// The watch. It ends when it is dropped, and its lease with it.
pub(super) struct Keeper {
    task: JoinHandle<()>,
    report: watch::Receiver<Report>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Takes the lease on `name`, if one is wanted, waiting so long for a predecessor that is dying; then watches.
    pub(super) async fn start(
        connector: Arc<Connector>,
        pool: Pool,
        name: Option<&X500Name>,
        patience: Duration,
    ) -> Result<Self, LeaseError> {
        let lease = name.map(lease_number);
        let begun = Instant::now();
        let mut session = connector.connect().await.map_err(LeaseError::Connect)?;
        while let Err(error) = take(&mut session, lease).await {
            if begun.elapsed() >= patience || !matches!(error, LeaseError::Held(_)) {
                return Err(error);
            }
            tokio::time::sleep(LEASE_INTERVAL).await;
        }
        let (tell, report) = watch::channel(Report::good());
        let runtime = connector.runtime.clone();
        let mut watcher = Watcher { connector, pool, lease, session: Some(session) };
        let task = runtime.spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0u32.. {
                ticks.tick().await;
                if watcher.connector.unsafe_for_tests && n % REMIND_EVERY == 0 {
                    tracing::warn!("store.unsafe_for_tests is on: this worker may lose commits");
                }
                let found = watcher.look().await;
                let was = tell.send_replace(found.clone());
                match (was.answer(), found.answer()) {
                    (Ok(()), Err(problem)) => tracing::error!("the database is not to be served from: {problem}"),
                    (Err(_), Ok(())) => tracing::info!("the database is well again"),
                    _ => {}
                }
            }
        });
        Ok(Self { task, report })
    }

    pub(super) fn report(&self) -> Report {
        self.report.borrow().clone()
    }
}

struct Watcher {
    connector: Arc<Connector>,
    pool: Pool,
    lease: Option<i64>,
    session: Option<Session>,
}

impl Watcher {
    async fn look(&mut self) -> Report {
        let pool = self.pool.clone();
        let (settings, write) = join(tokio::time::timeout(PATIENCE, self.look_at_settings()), try_a_write(&pool)).await;
        let mut report = Report::good();
        match settings {
            Ok(Ok(is_unsafe)) => report.is_unsafe = is_unsafe,
            Ok(Err(LeaseError::Connect(ConnectError::Refused(findings)))) => {
                report.is_unsafe = Some(Finding::one_line(&findings));
            }
            Ok(Err(error)) => report.problem = Some(error.to_string()),
            Err(_) => {
                self.session = None; // A connection that does not answer is not waited for again.
                report.problem = Some(format!("the database does not answer within {PATIENCE:?}"));
            }
        }
        if let (None, Err(problem)) = (&report.problem, write) {
            report.problem = Some(problem);
        }
        report
    }

    /// Holds the lease, taking it anew after a lost connection, and tells what makes commits unsafe.
    async fn look_at_settings(&mut self) -> Result<Option<String>, LeaseError> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = None;
            let mut session = self.connector.connect().await.map_err(LeaseError::Connect)?;
            take(&mut session, self.lease).await?;
            tracing::info!("the connection that watches the database, and holds the worker's name, is back");
            self.session = Some(session);
        }
        let Some(session) = &self.session else { return Ok(None) };
        match session.examine_settings().await {
            Ok(judged) => {
                let fatal = judged.into_iter().filter(|finding| finding.is_fatal(self.connector.unsafe_for_tests));
                let fatal: Vec<Finding> = fatal.map(|judged| judged.finding).collect();
                Ok((!fatal.is_empty()).then(|| Finding::one_line(&fatal)))
            }
            Err(error) => {
                self.session = None;
                Err(LeaseError::Lost(describe(&error)))
            }
        }
    }
}

/// Commits nothing, durably.
async fn try_a_write(pool: &Pool) -> Result<(), String> {
    let mut lent = pool.lend(PATIENCE).await?;
    match tokio::time::timeout(PATIENCE, lent.session().try_a_write()).await {
        Ok(Ok(())) => {
            lent.give_back();
            Ok(())
        }
        Ok(Err(trouble)) => Err(trouble.text),
        Err(_) => Err(format!("a commit is not confirmed within {PATIENCE:?}; are the synchronous standbys there?")),
    }
}

async fn take(session: &mut Session, lease: Option<i64>) -> Result<(), LeaseError> {
    let Some(number) = lease else { return Ok(()) };
    let lost = |error: tokio_postgres::Error| LeaseError::Lost(describe(&error));
    let row = session.client().query_one(TAKE_LEASE, &[&number]).await.map_err(lost)?;
    if row.get(0) {
        return Ok(());
    }
    let holder = session.client().query_opt(READ_LEASE_HOLDER, &[&number]).await.map_err(lost)?;
    // It may have let go in between; then the next attempt succeeds.
    Err(LeaseError::Held(holder.map_or_else(|| "somebody who is leaving".into(), |row| row.get(0))))
}

/// The advisory lock that stands for a worker's name.
fn lease_number(name: &X500Name) -> i64 {
    let digest = HashAlgorithm::Sha256.digest(&[b"worker name lease\0", name.to_string().as_bytes()]);
    let digest = digest.expect("SHA-256 is always computable");
    let (number, _) = digest.as_bytes().split_first_chunk::<8>().expect("it has 32 bytes");
    i64::from_be_bytes(*number)
}
