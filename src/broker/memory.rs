//! The request queue without a network: for tests of whatever stands behind it. It keeps the port's contract, which the same
//! suite checks as for the other adapters; limits other than credit and hold it has none.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};

use super::fair::FairQueue;
use super::{Answer, Outcome, Request};
use crate::domain::X500Name;
use crate::ports::BoxFuture;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply, RequestQueue, Settlement};

/// A queue in memory.
#[derive(Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
    /// Requests that one sender may have undisposed.
    credit: usize,
    /// How long a reply waits to be accepted.
    hold: Duration,
}

#[derive(Default, Debug)]
struct Shared {
    next_id: AtomicU64,
    state: Mutex<State>,
    /// Told when a request waits, and when the queue closes.
    ready: Notify,
}

#[derive(Default, Debug)]
struct State {
    closed: bool,
    ready: FairQueue<X500Name, u64, Delivery>,
    held: HashMap<DeliveryId, Held>,
    inboxes: HashMap<X500Name, Inbox>,
}

#[derive(Debug)]
struct Held {
    sender: u64,
    caller: X500Name,
    outcome: oneshot::Sender<Outcome>,
}

/// Answers that nobody has taken yet.
#[derive(Default, Debug)]
struct Inbox {
    letters: VecDeque<Letter>,
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Letter {
    answer: Answer,
    batch: u64,
    /// With the last of a batch: told when it is taken.
    done: Option<oneshot::Sender<()>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl MemoryQueue {
    /// An open queue. Each sender may have `credit` requests undisposed; a reply waits for at most `hold` to be accepted.
    pub fn new(credit: usize, hold: Duration) -> Self {
        Self { shared: Arc::default(), credit, hold }
    }

    /// Connects a sender.
    pub fn connect(&self, caller: X500Name) -> MemorySender {
        let inbox = Arc::clone(&self.shared.lock().inboxes.entry(caller.clone()).or_default().arrived);
        let (id, credit) = (self.shared.fresh(), Arc::new(Semaphore::new(self.credit)));
        MemorySender { shared: Arc::clone(&self.shared), id, caller, credit, inbox }
    }

    /// Closes the queue: what waits goes back to its senders; what the worker holds can still be replied to and settled.
    pub fn shutdown(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        while let Some(delivery) = state.ready.pop() {
            if let Some(held) = state.held.remove(&delivery.id) {
                // A sender that is gone no longer wants to know.
                let _ = held.outcome.send(Outcome::Released);
            }
        }
        self.shared.ready.notify_waiters();
    }

    /// Deliveries that are not settled.
    pub fn undisposed(&self) -> usize {
        self.shared.lock().held.len()
    }
}

impl RequestQueue for MemoryQueue {
    fn receive(&self) -> BoxFuture<'_, Result<Delivery, QueueError>> {
        Box::pin(async move {
            loop {
                let ready = self.shared.ready.notified();
                {
                    let mut state = self.shared.lock();
                    if let Some(delivery) = state.ready.pop() {
                        if state.ready.len() > 0 {
                            self.shared.ready.notify_one();
                        }
                        return Ok(delivery);
                    }
                    if state.closed {
                        return Err(QueueError::Closed);
                    }
                }
                ready.await;
            }
        })
    }

    fn reply(&self, to: DeliveryId, replies: Vec<Reply>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let Some(last) = replies.len().checked_sub(1) else { return Ok(()) };
            let batch = self.shared.fresh();
            let (done, taken) = oneshot::channel();
            let mut done = Some(done);
            let _withdraw = {
                let mut state = self.shared.lock();
                let caller = state.held.get(&to).filter(|held| !held.outcome.is_closed());
                let caller = caller.map(|held| held.caller.clone()).ok_or_else(lost)?;
                let inbox = state.inboxes.entry(caller.clone()).or_default();
                inbox.letters.extend(replies.into_iter().enumerate().map(|(index, reply)| Letter {
                    answer: answer(reply),
                    batch,
                    done: if index == last { done.take() } else { None },
                }));
                inbox.arrived.notify_one();
                Withdraw { shared: &self.shared, caller, batch }
            };
            match tokio::time::timeout(self.hold, taken).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(lost()),
                Err(_) => Err(QueueError::Unsafe(format!("not accepted within {:?}", self.hold))),
            }
        })
    }

    fn settle(&self, delivery: DeliveryId, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let held = self.shared.lock().held.remove(&delivery).ok_or_else(lost)?;
            let outcome = match settlement {
                Settlement::Accept => Outcome::Accepted,
                Settlement::Release => Outcome::Released,
                Settlement::Reject { reason } => Outcome::Rejected { reason },
            };
            held.outcome.send(outcome).map_err(|_| lost())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.shutdown() })
    }
}

fn lost() -> QueueError {
    QueueError::Unsafe("the sender is gone, or the delivery was settled before".to_owned())
}

fn answer(reply: Reply) -> Answer {
    Answer {
        dedup_id: reply.dedup_id,
        platform_version: None,
        worker: None,
        headers: reply.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body: reply.body,
    }
}

/// Takes letters of a batch back that nobody took.
struct Withdraw<'q> {
    shared: &'q Shared,
    caller: X500Name,
    batch: u64,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.shared.lock().inboxes.get_mut(&self.caller) {
            inbox.letters.retain(|letter| letter.batch != self.batch);
        }
    }
}

/// The connection is gone: what became of the request is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the connection is gone")]
pub struct Disconnected;

/// One sender's connection. Dropped, it is lost: what it has undisposed stays with it.
#[derive(Debug)]
pub struct MemorySender {
    shared: Arc<Shared>,
    id: u64,
    caller: X500Name,
    credit: Arc<Semaphore>,
    inbox: Arc<Notify>,
}

impl MemorySender {
    /// Sends a request once there is credit, and waits for its outcome. A closed queue gives it back. The future stands for
    /// itself: it may outlive the sender, and then says so.
    pub fn send(&self, request: Request) -> impl Future<Output = Result<Outcome, Disconnected>> + Send + use<> {
        let (shared, sender, caller) = (Arc::clone(&self.shared), self.id, self.caller.clone());
        let credit = Arc::clone(&self.credit);
        async move {
            // Closed with the sender.
            let _credit = credit.acquire().await.map_err(|_| Disconnected)?;
            let (outcome, disposed) = oneshot::channel();
            {
                let mut state = shared.lock();
                if state.closed {
                    return Ok(Outcome::Released);
                }
                let id = DeliveryId(shared.fresh());
                let delivery = Delivery {
                    id,
                    caller: caller.clone(),
                    platform_version: Some(request.platform_version),
                    dedup_id: Some(request.dedup_id),
                    sent_at: None,
                    prior_deliveries: 0,
                    body: request.body,
                };
                state.ready.push(&caller, sender, delivery);
                state.held.insert(id, Held { sender, caller, outcome });
            }
            shared.ready.notify_one();
            disposed.await.map_err(|_| Disconnected)
        }
    }

    /// Waits for the next answer to this sender's party, and accepts it by taking it.
    pub async fn next_answer(&self) -> Answer {
        loop {
            let arrived = self.inbox.notified();
            {
                let mut state = self.shared.lock();
                if let Some(inbox) = state.inboxes.get_mut(&self.caller)
                    && let Some(letter) = inbox.letters.pop_front()
                {
                    if !inbox.letters.is_empty() {
                        inbox.arrived.notify_one();
                    }
                    if let Some(done) = letter.done {
                        // A replier that is gone no longer wants to know.
                        let _ = done.send(());
                    }
                    return letter.answer;
                }
            }
            arrived.await;
        }
    }
}

impl Drop for MemorySender {
    fn drop(&mut self) {
        self.credit.close();
        let mut state = self.shared.lock();
        for delivery in state.ready.remove(&self.caller, &self.id, |_| true) {
            state.held.remove(&delivery.id);
        }
        // What the worker holds loses its way back, so that settling it says so.
        for held in state.held.values_mut().filter(|held| held.sender == self.id) {
            held.outcome = oneshot::channel().0;
        }
    }
}
