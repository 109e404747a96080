//! A connection to the broker, and what is kept of a request that came by it; `deliveries` keeps the books.

use std::sync::Arc;

use lapin::types::ShortString;
use lapin::{Acker, BasicProperties, Connection};
use tokio::sync::watch;

use super::lanes::Lanes;
use crate::broker::deliveries;

/// One connection to the broker, from its opening to its loss.
pub(super) struct Session {
    /// Told apart from later ones.
    pub number: u64,
    pub connection: Connection,
    pub lanes: Lanes,
    /// For probes, opened by the first.
    pub probe: tokio::sync::OnceCell<lapin::Channel>,
    /// Becomes true when the connection is lost or closed; whoever waits for something of it need not go on.
    pub lost: watch::Sender<bool>,
}

impl Session {
    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Returns when the session is lost.
    pub(super) async fn wait_lost(&self) {
        let mut lost = self.lost.subscribe();
        // The sender lives in `self`.
        let _ = lost.wait_for(|lost| *lost).await;
    }
}

/// A delivery that is not settled.
#[derive(Clone)]
pub(super) struct Held {
    pub session: Arc<Session>,
    pub acker: Acker,
    /// The queue it came from.
    pub queue: String,
    /// Where its replies go.
    pub reply_to: String,
    pub correlation: Option<ShortString>,
    /// For parking it: the worker that got the delivery may have dropped its body.
    pub body: Arc<[u8]>,
    pub properties: Arc<BasicProperties>,
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
