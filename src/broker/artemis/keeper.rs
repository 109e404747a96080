//! Keeps a worker connected: connects, proves that nobody can forge who they are, receives, notices what is lost, begins anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::access::explain;
use super::desk::Desk;
use super::proof;
use super::state::{Held, Lane, Session, Shared};
use crate::broker::access::ConnectError;
use crate::broker::amqp::connection::{Connection, Disposal, Incoming, Receiver, ReceiverOptions};
use crate::broker::deliveries::Wish;
use crate::broker::reconnect::{self, First};

/// How often a resting worker looks for messages that the broker has given to its links just when it drained their credit: they
/// stay there, neither sent nor anyone else's, until there is credit again or the link ends (seen with Artemis 2.40).
const SWEEP: Duration = Duration::from_millis(500);

/// Requests that name a worker go to its own link before any other: Artemis serves receivers of higher priority first, and others
/// only when those have no credit or are not there. So a worker that is absent or busy is stood in for at once.
const NAMED_PRIORITY: i32 = 9;
const ANY_PRIORITY: i32 = 0;

/// Keeps the connection.
pub(super) struct Keeper {
    pub desk: Desk,
    pub shared: Arc<Shared>,
    pub runtime: Handle,
}

/// One of the links by which requests come.
struct Intake {
    lane: Lane,
    /// None while the worker rests and holds nothing of it.
    receiver: Option<Receiver>,
    /// Requests that may be held unsettled on it.
    places: usize,
    /// Credit that the broker has, as far as we know.
    given: usize,
}

impl Intake {
    /// Gives the broker credit for the places that are free, once that is worth a frame.
    fn top_up(&mut self, held: usize) {
        let Some(receiver) = &self.receiver else { return };
        let free = self.places.saturating_sub(held);
        let more = free.saturating_sub(self.given);
        if more > 0 && (self.given == 0 || more >= self.places.div_ceil(4)) {
            self.given = free;
            receiver.set_credit(u32::try_from(free).unwrap_or(u32::MAX));
        }
    }

    /// Takes no more.
    fn rest(&mut self) {
        self.given = 0;
        if let Some(receiver) = &self.receiver {
            receiver.drain();
        }
    }

    /// Frees a message that the broker has given to the link and cannot send for want of credit. What else comes goes back.
    fn sweep(&self) {
        if let Some(receiver) = &self.receiver {
            receiver.set_credit(1);
            receiver.drain();
        }
    }

    /// The next delivery, or `None` if the broker has ended the link; never, while there is none.
    async fn next(&mut self) -> Option<Incoming> {
        match &mut self.receiver {
            Some(receiver) => receiver.next().await,
            None => std::future::pending().await,
        }
    }
}

impl reconnect::Keeper for Keeper {
    const BROKER: &'static str = "artemis";
    type Held = Held;

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn attempt(
        &self,
        host: &str,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
    ) -> Result<bool, ConnectError> {
        let options = &self.desk.options;
        let connection = options.access.connect(host, options.frames_max(), &self.runtime).await?;
        Ok(self.session(host, connection, wish, first).await)
    }
}

impl Keeper {
    /// Runs until the wish is to close, or until no host could be served from in the first round.
    pub(super) async fn run(self, first: oneshot::Sender<Result<(), String>>) {
        let options = Arc::clone(&self.desk.options);
        reconnect::keep(self, &options.access.hosts, options.reconnect_cap, first).await;
    }

    /// One connection, to its end. Returns whether it ever served.
    async fn session(
        &self,
        host: &str,
        connection: Connection,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
    ) -> bool {
        let session = Arc::new(Session::new(self.shared.fresh(), connection, self.desk.options.slots));
        let mut served = false;
        let why = match self.serve(host, &session, wish, first, &mut served).await {
            Ok(()) => "closed".to_owned(),
            Err(why) => {
                tracing::warn!(broker = "artemis", host, why, served, "connection given up");
                format!("{host}: {why}")
            }
        };
        self.shared.down(Some(&session), &why);
        // What is left of the connection gives back all that it holds. A dead one cannot be told.
        session.connection.close().await;
        served
    }

    /// Serves as wished until the connection is lost (an error that says why) or is to be closed.
    async fn serve(
        &self,
        host: &str,
        session: &Arc<Session>,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
        served: &mut bool,
    ) -> Result<(), String> {
        let connection = &session.connection;
        if self.desk.options.inboxes.is_none() {
            proof::prove(connection, &self.desk.options).await?;
        }
        let [mut any, mut named] = [Lane::Any, Lane::Named].map(|lane| Intake {
            lane,
            receiver: None,
            places: self.desk.options.places(lane),
            given: 0,
        });
        for intake in [&mut any, &mut named] {
            intake.receiver = Some(self.attach(connection, intake.lane).await?);
        }
        *served = true;
        self.shared.up(session);
        tracing::info!(broker = "artemis", host, "connected");
        if let Some(first) = first.take() {
            // Whoever opens the queue waits for exactly this.
            let _ = first.send(Ok(()));
        }
        let mut resting = false;
        loop {
            let wished = *wish.borrow_and_update();
            match wished {
                Wish::Serve => {
                    resting = false;
                    for intake in [&mut any, &mut named] {
                        if intake.receiver.is_none() {
                            intake.receiver = Some(self.attach(connection, intake.lane).await?);
                        }
                        intake.top_up(self.shared.undisposed_on(intake.lane));
                    }
                }
                Wish::Rest if resting => {
                    // A link that ends gives back all that it has, so the worker first finishes what it holds of it.
                    for intake in [&mut any, &mut named] {
                        if self.shared.undisposed_on(intake.lane) == 0 {
                            intake.receiver = None;
                        }
                    }
                }
                Wish::Rest | Wish::Close => {
                    resting = true;
                    any.rest();
                    named.rest();
                    for held in self.shared.withdraw() {
                        // A connection lost meanwhile gives it back as well.
                        let _ = self.desk.dispose(&held, Disposal::Release);
                    }
                    if wished == Wish::Close {
                        return Ok(());
                    }
                    tracing::info!(broker = "artemis", host, "resting: takes no requests");
                    continue;
                }
            }
            tokio::select! {
                changed = wish.changed() => changed.map_err(|_| "the queue is gone".to_owned())?,
                () = self.shared.freed.notified() => {}
                () = sleep(SWEEP), if resting => {
                    any.sweep();
                    named.sweep();
                }
                error = connection.ended() => return Err(explain(&error)),
                incoming = any.next() => self.take(session, &mut any, incoming, resting)?,
                incoming = named.next() => self.take(session, &mut named, incoming, resting)?,
            }
        }
    }

    fn take(
        &self,
        session: &Arc<Session>,
        intake: &mut Intake,
        incoming: Option<Incoming>,
        resting: bool,
    ) -> Result<(), String> {
        let Some(incoming) = incoming else {
            let requests = self.desk.options.queue(intake.lane);
            return Err(match session.connection.end() {
                Some(error) => explain(&error),
                None => format!("the broker ended the link to {requests}; was the queue deleted?"),
            });
        };
        intake.given = intake.given.saturating_sub(1);
        if resting {
            // It was under way when the credit was taken back.
            return session.connection.dispose(incoming.id, Disposal::Release).map_err(|error| explain(&error));
        }
        self.desk.admit(&self.shared, session, intake.lane, incoming, &self.runtime);
        Ok(())
    }

    async fn attach(&self, connection: &Connection, lane: Lane) -> Result<Receiver, String> {
        let options = &self.desk.options;
        let requests = options.queue(lane);
        let (selector, priority) = match lane {
            Lane::Any => (None, ANY_PRIORITY),
            Lane::Named if options.inboxes.is_some() => (None, ANY_PRIORITY),
            Lane::Named => (Some(format!("worker='{}'", options.worker_name.replace('\'', "''"))), NAMED_PRIORITY),
        };
        let receiving = ReceiverOptions {
            address: Some(requests.to_owned()),
            selector,
            priority: Some(priority),
            message_bytes_max: options.message_bytes_max,
        };
        let attached = connection.receiver(receiving).await;
        attached.map_err(|error| {
            let error = explain(&error);
            format!(
                "cannot receive from {requests}: {error}; `notary broker check` says what is missing, `notary broker apply` declares it"
            )
        })
    }
}
