//! The connections of a worker: lent out one user at a time, and believed only while everything went well.
//!
//! A session that is not given back is cut: whoever drops it, for an error, a deadline or because nobody waits any more, need not
//! think of it. An unknown outcome ends every idle session too, so that a second look is taken on a fresh connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Manager, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use deadpool_postgres::Metrics;

use super::session::{ConnectError, Connector, Session};
use crate::observe;

/// Makes sessions, and tells which may be lent again.
struct Sessions {
    connector: Arc<Connector>,
    /// Sessions of an older generation are not lent again.
    generation: AtomicU64,
    /// Why the last round of connecting failed.
    last_failure: Mutex<String>,
}

impl Manager for Sessions {
    /// With the generation in which connecting began.
    type Type = (u64, Session);
    type Error = ConnectError;

    /// Connects for as long as it is allowed to; only a database that is not fit to serve from ends it early.
    async fn create(&self) -> Result<(u64, Session), ConnectError> {
        let born = self.generation.load(Ordering::Acquire);
        loop {
            let result = self.connector.connect().await;
            let failure = match &result {
                Err(ConnectError::Unreachable(why)) => why.as_str(),
                _ => "",
            };
            failure.clone_into(&mut self.last_failure.lock().unwrap_or_else(PoisonError::into_inner));
            match result {
                Err(ConnectError::Unreachable(why)) => tracing::warn!("no connection to the database: {why}"),
                result => return result.map(|session| (born, session)),
            }
        }
    }

    async fn recycle(&self, (born, session): &mut (u64, Session), _: &Metrics) -> RecycleResult<ConnectError> {
        match *born == self.generation.load(Ordering::Acquire) && !session.is_closed() {
            true => Ok(()),
            false => Err(RecycleError::message("closed, or from before a doubt")),
        }
    }
}

#[derive(Clone)]
pub(super) struct Pool(managed::Pool<Sessions>);

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, connections_max: usize) -> Self {
        let sessions = Sessions { connector, generation: AtomicU64::new(0), last_failure: Mutex::default() };
        // The last one used is lent first: it knows the most names, and the server has fewer to keep warm.
        let pool = managed::Pool::builder(sessions).max_size(connections_max).queue_mode(QueueMode::Lifo);
        Self(pool.build().expect("only timeouts of its own could be wrong with it"))
    }

    /// A session for one user, an idle one or a new one.
    ///
    /// # Errors
    /// Why there is none within `patience`, which is for waiting and connecting together: the pool's own timeouts would add up.
    pub(super) async fn lend(&self, patience: Duration) -> Result<Lent, String> {
        let lent = tokio::time::timeout(patience, self.0.get()).await;
        self.count();
        let sessions = self.0.manager();
        match lent {
            Ok(Ok(object)) => Ok(Lent { object: Some(object), connector: Arc::clone(&sessions.connector) }),
            Ok(Err(PoolError::Backend(error))) => Err(error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                let why = sessions.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
                let why = if why.is_empty() { "all are in use" } else { why.as_str() };
                Err(format!("no connection to the database within {patience:?}: {why}"))
            }
        }
    }

    /// Lends no session again that exists now, or whose connecting has begun.
    pub(super) fn renew(&self) {
        self.0.manager().generation.fetch_add(1, Ordering::AcqRel);
        drop(self.0.retain(|_, _| false)); // Closed now, not when their turn would come.
    }

    fn count(&self) {
        let status = self.0.status();
        // Whoever waits for a connection to be made counts as its user; whoever waits for another user does not.
        let in_use = (status.size - status.available + status.waiting).min(status.max_size);
        observe::metrics::database_connections(in_use, status.available, status.max_size);
    }
}

/// A session on loan.
pub(super) struct Lent {
    object: Option<Object<Sessions>>,
    connector: Arc<Connector>,
}

impl Lent {
    pub(super) fn session(&mut self) -> &mut Session {
        let (_, session) = &mut **self.object.as_mut().expect("empty only once given back or dropped");
        session
    }

    /// All went well, and no transaction is open: the next one may have it.
    pub(super) fn give_back(mut self) {
        drop(self.object.take()); // The pool's objects go back when they are dropped.
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            let (_, session) = Object::take(object);
            self.connector.runtime.spawn(session.cut());
        }
    }
}
