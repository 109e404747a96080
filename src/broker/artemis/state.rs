//! What a worker holds of the broker's requests at a moment, and over which connection.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::senders::Senders;
use crate::broker::amqp::connection::Connection;
use crate::observe::metrics;
use crate::ports::request_queue::{Delivery, DeliveryId};

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

/// What the worker asks of the connection's keeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Take requests.
    Serve,
    /// Stay connected, take none.
    Rest,
    /// End.
    Close,
}

/// On which link a request came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Any request.
    Any,
    /// Requests that name this worker.
    Named,
}

/// A delivery that is not settled.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub session: Arc<Session>,
    pub lane: Lane,
    /// As the connection knows it.
    pub number: u32,
    /// Who sent it, as the broker says; for people.
    pub user: String,
    /// Where its replies go.
    pub reply_to: String,
    /// As encoded.
    pub correlation: Option<Vec<u8>>,
    /// All of it, for parking: the worker that got the delivery may have dropped its body. `None` if it was too long.
    pub message: Option<Arc<Vec<u8>>>,
    pub prior_deliveries: u32,
}

#[derive(PartialEq, Eq, Debug)]
enum Phase {
    /// Nobody has received it.
    Waiting,
    /// The worker has it.
    Taken,
    /// It is being ended.
    Settling,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Delivery>,
    held: HashMap<DeliveryId, (Held, Phase)>,
    closed: bool,
    /// Why there is no connection that serves; `None` if there is one.
    down: Option<String>,
    session: Option<Arc<Session>>,
}

/// Shared between the queue and its keeper.
pub(super) struct Shared {
    next: AtomicU64,
    state: Mutex<State>,
    arrived: Notify,
    /// Told when a delivery is settled, and so a place is free.
    pub freed: Notify,
    pub wish: watch::Sender<Wish>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let state = State { down: Some("not connected yet".into()), ..State::default() };
        Self {
            next: AtomicU64::new(1),
            state: Mutex::new(state),
            arrived: Notify::new(),
            freed: Notify::new(),
            wish: watch::Sender::new(Wish::Serve),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The session that serves, or why there is none.
    pub(super) fn session(&self) -> Result<Arc<Session>, String> {
        let state = self.lock();
        match (&state.down, &state.session) {
            (None, Some(session)) => Ok(Arc::clone(session)),
            (down, _) => Err(down.clone().unwrap_or_else(|| "not connected".into())),
        }
    }

    pub(super) fn up(&self, session: &Arc<Session>) {
        let mut state = self.lock();
        state.session = Some(Arc::clone(session));
        state.down = None;
        metrics::broker_connected(true);
    }

    /// The session is lost: what waited of it comes again by itself, what was taken is unsafe from now on.
    pub(super) fn down(&self, session: Option<&Session>, why: &str) {
        if let Some(session) = session {
            session.lost.send_replace(true);
        }
        let mut state = self.lock();
        state.session = None;
        state.down = Some(why.to_owned());
        if let Some(session) = session {
            let State { ready, held, .. } = &mut *state;
            let number = session.number;
            held.retain(|_, (held, phase)| held.session.number != number || *phase != Phase::Waiting);
            ready.retain(|delivery| held.contains_key(&delivery.id));
        }
        metrics::broker_connected(false);
        gauge(&state);
    }

    /// Adds a delivery for whoever receives next.
    pub(super) fn offer(&self, delivery: Delivery, held: Held) {
        let mut state = self.lock();
        state.held.insert(delivery.id, (held, Phase::Waiting));
        state.ready.push_back(delivery);
        gauge(&state);
        drop(state);
        self.arrived.notify_one();
    }

    /// Counts a delivery that nobody is to receive, because it is being parked.
    pub(super) fn withhold(&self, held: Held) -> DeliveryId {
        let id = DeliveryId(self.fresh());
        let mut state = self.lock();
        state.held.insert(id, (held, Phase::Settling));
        gauge(&state);
        id
    }

    /// Takes back everything that nobody has received.
    pub(super) fn withdraw(&self) -> Vec<Held> {
        let mut state = self.lock();
        let State { ready, held, .. } = &mut *state;
        let withdrawn =
            ready.drain(..).filter_map(|delivery| held.remove(&delivery.id)).map(|(held, _)| held).collect();
        gauge(&state);
        withdrawn
    }

    /// The next delivery, or `None` once closed. Cancel-safe.
    pub(super) async fn receive(&self) -> Option<Delivery> {
        loop {
            // Armed before the look, so that nothing that comes in between is missed.
            let arrived = self.arrived.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    // Others wait for the same news.
                    self.arrived.notify_one();
                    return None;
                }
                if let Some(delivery) = state.ready.pop_front() {
                    if let Some((_, phase)) = state.held.get_mut(&delivery.id) {
                        *phase = Phase::Taken;
                    }
                    if !state.ready.is_empty() {
                        self.arrived.notify_one();
                    }
                    return Some(delivery);
                }
            }
            arrived.await;
        }
    }

    /// A delivery that the worker has.
    pub(super) fn taken(&self, id: DeliveryId) -> Option<Held> {
        match self.lock().held.get(&id) {
            Some((held, Phase::Taken)) => Some(held.clone()),
            _ => None,
        }
    }

    /// Begins to end a delivery, which happens once. It counts as held until [`Shared::settled`].
    pub(super) fn settling(&self, id: DeliveryId) -> Option<Held> {
        match self.lock().held.get_mut(&id) {
            Some((held, phase @ Phase::Taken)) => {
                *phase = Phase::Settling;
                Some(held.clone())
            }
            _ => None,
        }
    }

    pub(super) fn settled(&self, id: DeliveryId) {
        let mut state = self.lock();
        state.held.remove(&id);
        gauge(&state);
        drop(state);
        self.freed.notify_one();
    }

    /// Nothing more is delivered.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wish.send_replace(Wish::Close);
        self.arrived.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Deliveries that are not settled, received or not.
    pub(super) fn undisposed(&self) -> usize {
        self.lock().held.len()
    }

    /// The same of one lane, lost connections included: they take a place in the worker until they are settled.
    pub(super) fn undisposed_on(&self, lane: Lane) -> usize {
        self.lock().held.values().filter(|(held, _)| held.lane == lane).count()
    }
}

fn gauge(state: &State) {
    metrics::broker_deliveries(state.ready.len(), state.held.len());
}
