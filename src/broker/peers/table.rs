//! Answers that wait, by peer, and what is known of each peer's bridge: shared between those who answer and the bridges' tasks. One
//! mutex guards it all; nothing waits while holding it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::Limits;
use crate::domain::X500Name;
use crate::observe::metrics;

/// What is said of a peer that is connected, and stuck.
pub(super) const TAKES_NOTHING: &str = "takes no answers";

/// Tells one bridge from a later one to the same peer.
pub(super) type BridgeId = u64;

/// The messages of one answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Answers to one peer go out in this order.
    pub number: u64,
    /// The peer's inbox.
    pub address: String,
    /// Kept whole until the last of them is accepted: a lost connection has them sent again.
    pub messages: Arc<[Vec<u8>]>,
    /// Told once all are accepted, or one is not.
    done: oneshot::Sender<Result<(), String>>,
}

impl Answer {
    /// Nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }

    /// Tells whoever waits.
    pub(super) fn finish(self, outcome: Result<(), String>) {
        // A receiver that is gone no longer wants to know.
        let _ = self.done.send(outcome);
    }
}

/// How a peer's bridge stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    /// No connection is wanted, or it is being made for the first time.
    Resting,
    Up,
    Down {
        why: String,
    },
}

#[derive(Debug)]
struct Peer {
    bridge: BridgeId,
    wake: Arc<Notify>,
    standing: Standing,
    queue: VecDeque<Answer>,
    /// Answers that somebody waits for: those in the queue, and those under way.
    waiting: usize,
    bytes: usize,
    /// When the peer last took something, or had nothing to take.
    progress: Instant,
}

#[derive(Default, Debug)]
struct State {
    peers: HashMap<X500Name, Peer>,
    waiting: usize,
    bytes: usize,
    next: u64,
    closed: bool,
}

/// Figures of the moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Connected bridges.
    pub up: usize,
    /// Bridges that find nobody.
    pub down: usize,
    /// Answers that wait to be safe.
    pub waiting: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Why an answer is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NotAdmitted {
    Closed,
    Full(String),
}

/// What a bridge is to do next.
#[derive(Debug)]
pub(super) enum Next {
    Send(Answer),
    /// Nothing is to be sent now.
    Wait,
    /// Its place was given to another, or all is over: it ends.
    End,
}

#[derive(Debug)]
pub(super) struct Table {
    limits: Arc<Limits>,
    state: Mutex<State>,
}

/// A bridge that is to be started.
#[derive(Debug)]
pub(super) struct NewBridge {
    pub id: BridgeId,
    pub wake: Arc<Notify>,
}

impl Table {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an answer. The ticket counts it until it is dropped.
    pub(super) fn admit(
        &self,
        to: &X500Name,
        address: String,
        messages: Vec<Vec<u8>>,
    ) -> Result<(Ticket<'_>, Option<NewBridge>), NotAdmitted> {
        let bytes = messages.iter().map(Vec::len).sum::<usize>();
        let limits = &self.limits;
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed {
            return Err(NotAdmitted::Closed);
        }
        let full = |reason: String| Err(NotAdmitted::Full(reason));
        if state.bytes + bytes > limits.answer_bytes_max {
            return full("too many bytes of answers wait".into());
        }
        if let Some(peer) = state.peers.get(to) {
            if peer.waiting >= limits.answers_per_peer_max || peer.bytes + bytes > limits.answer_bytes_per_peer_max {
                return full(format!("too many answers wait for {to}"));
            }
            if peer.is_stuck(limits, now) {
                let stuck = state.peers.values().filter(|peer| peer.is_stuck(limits, now));
                let all: usize = stuck.map(|peer| peer.waiting).sum();
                if peer.waiting >= limits.answers_per_stuck_peer_max || all >= limits.answers_stuck_max {
                    return full(format!("{to} {}", peer.trouble()));
                }
            }
        } else if state.peers.len() >= limits.bridges_max && !state.evict() {
            return full("too many bridges are in use".into());
        }
        let number = state.fresh();
        let mut new = None;
        if !state.peers.contains_key(to) {
            let bridge = NewBridge { id: state.fresh(), wake: Arc::new(Notify::new()) };
            state.peers.insert(to.clone(), Peer::new(bridge.id, Arc::clone(&bridge.wake), now));
            new = Some(bridge);
        }
        let (done, outcome) = oneshot::channel();
        let peer = state.peers.get_mut(to).expect("inserted above if it was not there");
        if peer.waiting == 0 {
            peer.progress = now;
        }
        peer.waiting += 1;
        peer.bytes += bytes;
        peer.queue.push_back(Answer { number, address, messages: messages.into(), done });
        peer.wake.notify_one();
        let bridge = peer.bridge;
        state.bytes += bytes;
        state.waiting += 1;
        metrics::answers_waiting(state.waiting);
        drop(state);
        Ok((Ticket { table: self, to: to.clone(), bridge, bytes, outcome }, new))
    }

    /// What the bridge of `to` is to do next; an answer that somebody still waits for, if there is one.
    pub(super) fn next(&self, to: &X500Name, id: BridgeId) -> Next {
        let mut state = self.lock();
        let closed = state.closed;
        match state.own(to, id) {
            None => Next::End,
            Some(_) if closed => Next::End,
            Some(peer) => {
                while let Some(answer) = peer.queue.pop_front() {
                    if !answer.is_abandoned() {
                        return Next::Send(answer);
                    }
                }
                Next::Wait
            }
        }
    }

    /// Whether answers wait that nobody has begun to send, and that somebody waits for.
    pub(super) fn has_work(&self, to: &X500Name, id: BridgeId) -> bool {
        let mut state = self.lock();
        state.own(to, id).is_some_and(|peer| {
            peer.queue.retain(|answer| !answer.is_abandoned());
            !peer.queue.is_empty()
        })
    }

    /// Whether the bridge still has its place.
    pub(super) fn is_current(&self, to: &X500Name, id: BridgeId) -> bool {
        let mut state = self.lock();
        !state.closed && state.own(to, id).is_some()
    }

    /// Answers whose connection was lost wait again, before all others.
    pub(super) fn give_back(&self, to: &X500Name, id: BridgeId, mut answers: Vec<Answer>) {
        let mut state = self.lock();
        let Some(peer) = state.own(to, id) else { return };
        answers.sort_by_key(|answer| std::cmp::Reverse(answer.number));
        for answer in answers {
            peer.queue.push_front(answer);
        }
    }

    /// The bridge is connected. Whether that is news.
    pub(super) fn up(&self, to: &X500Name, id: BridgeId) -> bool {
        let mut state = self.lock();
        let Some(peer) = state.own(to, id) else { return false };
        let news = matches!(peer.standing, Standing::Down { .. });
        peer.standing = Standing::Up;
        // It let us in, which may have taken long: it has the same time as any other to take the first answer.
        peer.progress = Instant::now();
        state.report();
        news
    }

    /// The bridge finds nobody, or was given up by the peer. What waits beyond the few that may is told at once: those who wait hold
    /// places that others need. Whether that is news.
    pub(super) fn down(&self, to: &X500Name, id: BridgeId, why: &str) -> bool {
        let mut state = self.lock();
        let Some(peer) = state.own(to, id) else { return false };
        let news = !matches!(peer.standing, Standing::Down { .. });
        peer.standing = Standing::Down { why: why.to_owned() };
        peer.shed(self.limits.answers_per_stuck_peer_max, why);
        state.report();
        news
    }

    /// The bridge was closed because nothing was to be sent.
    pub(super) fn rest(&self, to: &X500Name, id: BridgeId) {
        let mut state = self.lock();
        if let Some(peer) = state.own(to, id) {
            peer.standing = Standing::Resting;
        }
        state.report();
    }

    /// The peer took something.
    pub(super) fn progress(&self, to: &X500Name, id: BridgeId) {
        if let Some(peer) = self.lock().own(to, id) {
            peer.progress = Instant::now();
        }
    }

    /// If the peer takes nothing, tells what waits beyond the few that may, and returns that it does.
    pub(super) fn shed_if_stuck(&self, to: &X500Name, id: BridgeId) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let Some(peer) = state.own(to, id) else { return false };
        let stuck = peer.is_stuck(&self.limits, now);
        if stuck {
            peer.shed(self.limits.answers_per_stuck_peer_max, TAKES_NOTHING);
        }
        stuck
    }

    /// Forgets the bridge, unless an answer has come meanwhile.
    pub(super) fn retire(&self, to: &X500Name, id: BridgeId) -> bool {
        let mut state = self.lock();
        let idle = state.own(to, id).is_none_or(|peer| peer.waiting == 0 && peer.queue.is_empty());
        if idle && state.own(to, id).is_some() {
            state.peers.remove(to);
        }
        state.report();
        idle
    }

    /// Whether the peer takes no answers at the moment.
    pub(super) fn is_stuck(&self, to: &X500Name) -> bool {
        self.lock().peers.get(to).is_some_and(|peer| peer.is_stuck(&self.limits, Instant::now()))
    }

    /// Takes no more answers; those that wait are told by the loss of their bridge.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for peer in state.peers.values_mut() {
            peer.queue.clear();
            peer.wake.notify_one();
        }
    }

    pub(super) fn load(&self) -> Load {
        self.lock().load()
    }

    fn forget(&self, to: &X500Name, bridge: BridgeId, bytes: usize) {
        let mut state = self.lock();
        state.bytes -= bytes;
        state.waiting -= 1;
        if let Some(peer) = state.own(to, bridge) {
            peer.waiting -= 1;
            peer.bytes -= bytes;
        }
        metrics::answers_waiting(state.waiting);
    }
}

impl State {
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn own(&mut self, to: &X500Name, id: BridgeId) -> Option<&mut Peer> {
        self.peers.get_mut(to).filter(|peer| peer.bridge == id)
    }

    /// Makes room by a bridge that nobody waits for: the one that was of use least recently.
    fn evict(&mut self) -> bool {
        let idle = self.peers.iter().filter(|(_, peer)| peer.waiting == 0).min_by_key(|(_, peer)| peer.progress);
        let Some(name) = idle.map(|(name, _)| name.clone()) else { return false };
        if let Some(peer) = self.peers.remove(&name) {
            peer.wake.notify_one();
        }
        true
    }

    fn load(&self) -> Load {
        let count = |such: fn(&Standing) -> bool| self.peers.values().filter(|peer| such(&peer.standing)).count();
        Load {
            up: count(|standing| *standing == Standing::Up),
            down: count(|standing| matches!(standing, Standing::Down { .. })),
            waiting: self.waiting,
            bytes: self.bytes,
        }
    }

    fn report(&self) {
        let Load { up, down, .. } = self.load();
        metrics::bridges(up, down);
    }
}

impl Peer {
    fn new(bridge: BridgeId, wake: Arc<Notify>, now: Instant) -> Self {
        let (standing, queue) = (Standing::Resting, VecDeque::new());
        Self { bridge, wake, standing, queue, waiting: 0, bytes: 0, progress: now }
    }

    fn is_stuck(&self, limits: &Limits, now: Instant) -> bool {
        let silent = self.waiting > 0 && now.saturating_duration_since(self.progress) > limits.stuck_after;
        silent || matches!(self.standing, Standing::Down { .. })
    }

    fn trouble(&self) -> String {
        match &self.standing {
            Standing::Down { why } => format!("cannot be reached: {why}"),
            _ => TAKES_NOTHING.into(),
        }
    }

    /// Leaves only the oldest few in the queue.
    fn shed(&mut self, keep: usize, why: &str) {
        self.queue.retain(|answer| !answer.is_abandoned());
        let under_way = self.waiting.saturating_sub(self.queue.len());
        for answer in self.queue.split_off(keep.saturating_sub(under_way).min(self.queue.len())) {
            answer.finish(Err(why.to_owned()));
        }
    }
}

/// An answer that somebody waits for. Dropped, it is not sent any more unless that has begun.
#[derive(Debug)]
pub(super) struct Ticket<'t> {
    table: &'t Table,
    to: X500Name,
    bridge: BridgeId,
    bytes: usize,
    outcome: oneshot::Receiver<Result<(), String>>,
}

impl Ticket<'_> {
    /// Waits until the answer is accepted, or is known not to be.
    pub(super) async fn outcome(&mut self) -> Result<(), String> {
        (&mut self.outcome).await.unwrap_or_else(|_| Err("the bridge ended".into()))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // First, so that the answer counts as abandoned from now on.
        self.outcome.close();
        self.table.forget(&self.to, self.bridge, self.bytes);
    }
}
