//! A connection to the broker, and what is kept of a request that came by it; `deliveries` keeps the books.

use std::sync::Arc;

use tokio::sync::watch;

use super::senders::Senders;
use crate::broker::amqp::connection::Connection;
use crate::broker::deliveries;

/// One connection to the broker, from its opening to its loss.
#[derive(Debug)]
pub(super) struct Session {
    /// Told apart from later ones.
    pub number: u64,
    pub connection: Connection,
    pub senders: Senders,
    /// Becomes true when it is given up: from then on nothing of it can be settled.
    lost: watch::Sender<bool>,
}

impl Session {
    pub(super) fn new(number: u64, connection: Connection, window: usize) -> Self {
        Self { number, connection, senders: Senders::new(window), lost: watch::Sender::new(false) }
    }

    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow() || self.connection.end().is_some()
    }

    /// Returns when the session is lost.
    pub(super) async fn wait_lost(&self) {
        let mut lost = self.lost.subscribe();
        tokio::select! {
            // The sender lives in `self`.
            _ = lost.wait_for(|lost| *lost) => {}
            _ = self.connection.ended() => {}
        }
    }
}

/// On which link a request came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Any request, or what lies in the service's inbox.
    Any,
    /// Requests that name this worker, or what lies in its own inbox.
    Named,
}

/// A delivery that is not settled.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub session: Arc<Session>,
    pub lane: Lane,
    /// As the connection knows it.
    pub number: u32,
    /// Who sent it, as the broker says, or the sender itself if that is a Corda node; for people.
    pub user: String,
    /// Where its replies go.
    pub reply_to: String,
    /// As encoded.
    pub correlation: Option<Vec<u8>>,
    /// All of it, for parking: the worker that got the delivery may have dropped its body. `None` if it was too long.
    pub message: Option<Arc<Vec<u8>>>,
    pub prior_deliveries: u32,
}

impl deliveries::Session for Session {
    fn number(&self) -> u64 {
        self.number
    }

    fn lose(&self) {
        self.lost.send_replace(true);
    }
}

impl deliveries::Held for Held {
    type Session = Session;

    fn session(&self) -> &Session {
        &self.session
    }
}

/// What the worker holds.
pub(super) type Shared = deliveries::Shared<Held>;

impl Shared {
    /// Deliveries of one lane that are not settled, see [`Shared::undisposed`].
    pub(super) fn undisposed_on(&self, lane: Lane) -> usize {
        self.count(|held| held.lane == lane)
    }
}
