//! What a worker holds of a broker's requests at a moment, and over which connection: shared between an adapter's queue and the
//! keeper of its connection. What is kept of a delivery, so that it can be ended, is the adapter's own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::observe::metrics;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError};

/// One connection to the broker, from its opening to its loss.
pub(super) trait Session {
    /// Tells it apart from later ones.
    fn number(&self) -> u64;

    /// Tells whoever waits for something of it that it is lost: from then on nothing of it can be settled.
    fn lose(&self);
}

/// What an adapter keeps of a delivery that is not settled.
pub(super) trait Held: Clone {
    /// The adapter's connections.
    type Session: Session;

    /// By which one it came.
    fn session(&self) -> &Self::Session;
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

#[derive(PartialEq, Eq, Debug)]
enum Phase {
    /// Nobody has received it.
    Waiting,
    /// The worker has it.
    Taken,
    /// It is being ended.
    Settling,
}

struct State<H: Held> {
    ready: VecDeque<Delivery>,
    held: HashMap<DeliveryId, (H, Phase)>,
    closed: bool,
    /// Why there is no connection that serves; `None` if there is one.
    down: Option<String>,
    session: Option<Arc<H::Session>>,
}

/// Shared between the queue and its keeper.
pub(super) struct Shared<H: Held> {
    next: AtomicU64,
    state: Mutex<State<H>>,
    arrived: Notify,
    /// Told when a delivery is settled, and so a place is free.
    pub freed: Notify,
    pub wish: watch::Sender<Wish>,
}

impl<H: Held> Shared<H> {
    pub(super) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            held: HashMap::new(),
            closed: false,
            down: Some("not connected yet".into()),
            session: None,
        };
        Self {
            next: AtomicU64::new(1),
            state: Mutex::new(state),
            arrived: Notify::new(),
            freed: Notify::new(),
            wish: watch::Sender::new(Wish::Serve),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<H>> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a session or a delivery.
    pub(super) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The session that is connected, whether it takes requests or not; or why there is none.
    pub(super) fn session(&self) -> Result<Arc<H::Session>, String> {
        let state = self.lock();
        match (&state.down, &state.session) {
            (None, Some(session)) => Ok(Arc::clone(session)),
            (down, _) => Err(down.clone().unwrap_or_else(|| "not connected".into())),
        }
    }

    pub(super) fn up(&self, session: &Arc<H::Session>) {
        let mut state = self.lock();
        state.session = Some(Arc::clone(session));
        state.down = None;
        metrics::broker_connected(true);
    }

    /// The session is lost: what waited of it comes again by itself, what was taken is unsafe from now on.
    pub(super) fn down(&self, session: Option<&H::Session>, why: &str) {
        if let Some(session) = session {
            session.lose();
        }
        let mut state = self.lock();
        state.session = None;
        state.down = Some(why.to_owned());
        if let Some(session) = session {
            let State { ready, held, .. } = &mut *state;
            let number = session.number();
            held.retain(|_, (held, phase)| held.session().number() != number || *phase != Phase::Waiting);
            ready.retain(|delivery| held.contains_key(&delivery.id));
        }
        metrics::broker_connected(false);
        gauge(&state);
    }

    /// Adds a delivery for whoever receives next.
    pub(super) fn offer(&self, delivery: Delivery, held: H) {
        let mut state = self.lock();
        state.held.insert(delivery.id, (held, Phase::Waiting));
        state.ready.push_back(delivery);
        gauge(&state);
        drop(state);
        self.arrived.notify_one();
    }

    /// Counts a delivery that nobody is to receive, because it is being parked.
    pub(super) fn withhold(&self, held: H) -> DeliveryId {
        let id = DeliveryId(self.fresh());
        let mut state = self.lock();
        state.held.insert(id, (held, Phase::Settling));
        gauge(&state);
        id
    }

    /// Takes back everything that nobody has received.
    pub(super) fn withdraw(&self) -> Vec<H> {
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
    pub(super) fn taken(&self, id: DeliveryId) -> Result<H, QueueError> {
        match self.lock().held.get(&id) {
            Some((held, Phase::Taken)) => Ok(held.clone()),
            _ => Err(unknown(id)),
        }
    }

    /// Begins to end a delivery, which happens once. It counts as held until [`Shared::settled`].
    pub(super) fn settling(&self, id: DeliveryId) -> Result<H, QueueError> {
        match self.lock().held.get_mut(&id) {
            Some((held, phase @ Phase::Taken)) => {
                *phase = Phase::Settling;
                Ok(held.clone())
            }
            _ => Err(unknown(id)),
        }
    }

    pub(super) fn settled(&self, id: DeliveryId) {
        let mut state = self.lock();
        state.held.remove(&id);
        gauge(&state);
        drop(state);
        self.freed.notify_one();
    }

    /// Whether to take requests; without effect once closed.
    pub(super) fn serve(&self, serving: bool) {
        self.wish.send_if_modified(|wish| {
            let wished = if serving { Wish::Serve } else { Wish::Rest };
            let changes = *wish != wished && *wish != Wish::Close;
            if changes {
                *wish = wished;
            }
            changes
        });
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

    /// Deliveries that are not settled, received or not, lost connections included: they take a place in the worker until then.
    pub(super) fn undisposed(&self) -> usize {
        self.lock().held.len()
    }

    /// Something of all of them, added up.
    pub(super) fn total(&self, of: impl Fn(&H) -> usize) -> usize {
        self.lock().held.values().map(|(held, _)| of(held)).sum()
    }

    /// How many of them are such.
    pub(super) fn count(&self, such: impl Fn(&H) -> bool) -> usize {
        self.lock().held.values().filter(|(held, _)| such(held)).count()
    }
}

fn gauge<H: Held>(state: &State<H>) {
    metrics::broker_deliveries(state.ready.len(), state.held.len());
}

fn unknown(delivery: DeliveryId) -> QueueError {
    QueueError::Unsafe(format!("delivery {} is settled, or was never received", delivery.0))
}
