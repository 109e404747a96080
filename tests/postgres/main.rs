//! PostgreSQL as the shared store: the uniqueness suite on a real server, and everything that can go wrong between a worker and it.
//! What the tests have in common comes first.

#[path = "../services/mod.rs"]
mod services;

use std::time::{Duration, Instant};

use notary_worker::domain::{CheckedRequest, HashAlgorithm, SecureHash, StateRef, TxId, Verdict};
use notary_worker::ports::uniqueness::CommitError;
use notary_worker::ports::{Probe, UniquenessProvider};
use notary_worker::sql::Postgres;
use notary_worker::sql::postgres::Options;
use services::or_skip;
use services::postgres::{Database, Server};
use suite::{Fixture, at, committed, party, spend, state, uniqueness_suite};
use tokio::runtime::Handle;

#[expect(unreachable_pub, reason = "a suite is written as if it were a library")]
#[path = "../suites/uniqueness.rs"]
mod suite;

#[path = "../worker/mod.rs"]
mod worker;

mod conditions;
mod faults;
mod lease;
mod owner;
mod torture;

/// How a worker of a test uses a database; its name is not leased.
fn options(database: &Database) -> Options {
    Options {
        place: database.place(),
        password: database.password(),
        worker: party("Worker"),
        connections_max: 4,
        deadline: Duration::from_secs(5),
        unsafe_for_tests: false,
        lease: None,
    }
}

/// The shared server, or the test is skipped.
macro_rules! server {
    () => {
        match or_skip("PostgreSQL", Server::shared()) {
            Some(server) => server,
            None => return,
        }
    };
}
use server;

/// A server of one's own with these settings, or the test is skipped.
macro_rules! own_server {
    ($($option:expr),*) => {
        match or_skip("PostgreSQL", Server::start(&[$($option),*])) {
            Some(server) => server,
            None => return,
        }
    };
}
use own_server;

async fn open(database: &Database) -> Postgres {
    open_with(options(database)).await
}

async fn open_with(options: Options) -> Postgres {
    Postgres::open(options, &Handle::current()).await.expect("the store opens")
}

async fn refusal(options: Options) -> String {
    match Postgres::open(options, &Handle::current()).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

async fn ask(store: &Postgres, batch: &[&CheckedRequest]) -> Result<Vec<Verdict>, CommitError> {
    let batch: Vec<CheckedRequest> = batch.iter().copied().cloned().collect();
    store.commit(&batch, at(0)).await
}

/// Repeats a batch until there are verdicts, as the worker's stages do; tells also what came first.
async fn insist(store: &Postgres, batch: &[&CheckedRequest]) -> (Vec<Verdict>, Vec<CommitError>) {
    let (begun, mut errors) = (Instant::now(), Vec::new());
    loop {
        match ask(store, batch).await {
            Ok(verdicts) => return (verdicts, errors),
            Err(error) => errors.push(error),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no verdict for a minute: {errors:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until the answer is the wanted one, within the time that promise P5 and P7 give.
async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

uniqueness_suite!(suite_on_server, OnServer);

/// A store on a database of its own.
struct OnServer {
    database: Database,
    store: Option<Postgres>,
}

/// Waits for a future from a place that is not asynchronous.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

impl Fixture for OnServer {
    fn is_available() -> bool {
        or_skip("PostgreSQL", Server::shared()).is_some()
    }

    fn new() -> Self {
        let database = Server::shared().expect("it is available").database();
        let store = Some(wait(Postgres::open(options(&database), &Handle::current())).expect("the store opens"));
        Self { database, store }
    }

    fn store(&self) -> &dyn UniquenessProvider {
        self.store.as_ref().expect("empty only while it is opened again")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(wait(Postgres::open(options(&self.database), &Handle::current())).expect("the store opens"));
    }
}
