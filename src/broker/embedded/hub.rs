//! What all connections share: requests that wait, deliveries that are not disposed of, replies that wait for listeners.
//!
//! A request arrives ([`Hub::offer`]), is handed to the worker ([`Hub::take`]), its replies go to a link of its sender
//! ([`Hub::enqueue`], [`Hub::next_group`]), and the worker ends it ([`Hub::settle`]). Connections are told what to do through
//! their [`Command`]s. One mutex guards it all; nothing waits while holding it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc, oneshot};

use super::super::fair::FairQueue;
use super::credentials::Caller;
use super::limits::Limits;
use super::lock;
use super::refusal::Refusal;
use crate::domain::Timestamp;
use crate::observe::metrics;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Settlement};

/// One connection, unique within the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ConnectionId(pub u64);

/// One link of one connection, unique within the process: handles are used again, these are not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct LinkId(pub u64);

/// Replies that are safe together or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct GroupId(pub u64);

/// What a connection is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Dispose of a delivery; `done` is told once that is written.
    Settle { link: LinkId, number: u32, settlement: Settlement, done: Option<oneshot::Sender<()>> },
    /// Replies wait for this link.
    Replies(LinkId),
    /// Nobody waits for these replies any more.
    Abandon(GroupId),
    /// Take no more requests.
    Drain,
    /// Say goodbye, if it was told to take no more requests.
    Leave,
    /// Say goodbye.
    Close,
}

/// A request that was received whole.
#[derive(Debug)]
pub(super) struct Offer {
    pub connection: ConnectionId,
    pub link: LinkId,
    /// Its AMQP delivery id.
    pub number: u32,
    pub caller: Arc<Caller>,
    /// What was reserved for it.
    pub bytes: usize,
    /// Where its replies go.
    pub reply_address: String,
    /// The message id, as encoded.
    pub correlation: Option<Vec<u8>>,
    pub platform_version: Option<i32>,
    pub dedup_id: Option<String>,
    pub sent_at: Option<Timestamp>,
    pub prior_deliveries: u32,
    pub body: Vec<u8>,
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offered {
    Taken(DeliveryId),
    /// The endpoint drains, or rests.
    Refused,
}

/// Replies for a link to send.
#[derive(Debug)]
pub(super) struct ReplyGroup {
    pub id: GroupId,
    pub messages: VecDeque<Vec<u8>>,
    /// Told once all are accepted, or one is not.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// Figures of the moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Load {
    pub connections: usize,
    pub request_links: usize,
    pub reply_links: usize,
    pub undisposed: usize,
    pub waiting: usize,
    pub request_bytes: usize,
    pub reply_groups: usize,
}

#[derive(Debug)]
pub(super) struct Hub {
    limits: Arc<Limits>,
    next_id: AtomicU64,
    state: Mutex<State>,
    /// Told when a request waits, and when the queue closes.
    ready: Notify,
    /// Told when the last delivery is settled.
    settled: Notify,
}

#[derive(Default, Debug)]
struct State {
    draining: bool,
    /// Nobody is served for now.
    resting: bool,
    ready: FairQueue<Arc<Caller>, LinkId, Delivery>,
    held: HashMap<DeliveryId, Held>,
    connections: HashMap<ConnectionId, mpsc::UnboundedSender<Command>>,
    accounts: HashMap<Arc<Caller>, Account>,
    request_bytes: usize,
    request_links: usize,
    nodes: HashMap<String, Node>,
    reply_links: HashMap<LinkId, ReplyLink>,
    groups: HashMap<GroupId, Group>,
}

/// A delivery that is not disposed of.
#[derive(Debug)]
struct Held {
    caller: Arc<Caller>,
    connection: ConnectionId,
    link: LinkId,
    number: u32,
    bytes: usize,
    reply_address: String,
    correlation: Option<Vec<u8>>,
    /// The link that took its first replies: later ones follow, so that they stay in order.
    reply_link: Option<LinkId>,
    /// Its link or connection is gone. It is kept until the worker settles it, for its memory is in the worker.
    orphaned: bool,
}

/// What one caller uses.
#[derive(Default, Debug)]
struct Account {
    connections: usize,
    request_bytes: usize,
    replies: usize,
    reply_bytes: usize,
}

impl Account {
    fn is_empty(&self) -> bool {
        self.connections == 0 && self.request_bytes == 0 && self.replies == 0 && self.reply_bytes == 0
    }
}

/// Where replies go: a caller's inbox, or a node made for one link.
#[derive(Debug)]
struct Node {
    owner: Arc<Caller>,
    dynamic: bool,
    links: Vec<LinkId>,
    /// Replies for which no link is attached.
    waiting: VecDeque<GroupId>,
}

#[derive(Debug)]
struct ReplyLink {
    connection: ConnectionId,
    address: String,
    queue: VecDeque<GroupId>,
}

/// Replies under way.
#[derive(Debug)]
struct Group {
    owner: Arc<Caller>,
    address: String,
    count: usize,
    bytes: usize,
    place: Place,
    /// Until a link takes them.
    replies: Option<ReplyGroup>,
}

/// Where a group of replies is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    AtNode,
    AtLink(LinkId),
    Taken(LinkId),
}

impl Hub {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            next_id: AtomicU64::new(1),
            state: Mutex::default(),
            ready: Notify::new(),
            settled: Notify::new(),
        }
    }

    fn fresh(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn load(&self) -> Load {
        let state = lock(&self.state);
        Load {
            connections: state.connections.len(),
            request_links: state.request_links,
            reply_links: state.reply_links.len(),
            undisposed: state.held.len(),
            waiting: state.ready.len(),
            request_bytes: state.request_bytes,
            reply_groups: state.groups.len(),
        }
    }

    // Connections.

    /// Admits an authenticated connection.
    pub(super) fn register(
        &self,
        caller: &Arc<Caller>,
    ) -> Result<(ConnectionId, mpsc::UnboundedReceiver<Command>), Refusal> {
        let mut state = lock(&self.state);
        if state.draining || state.resting || state.connections.len() >= self.limits.connections_max {
            return Err(Refusal::TooManyConnections);
        }
        if state.accounts.get(caller).is_some_and(|a| a.connections >= self.limits.connections_per_caller_max) {
            return Err(Refusal::TooManyConnectionsOfCaller);
        }
        state.account(caller).connections += 1;
        let id = ConnectionId(self.fresh());
        // Unbounded, yet bounded: by the deliveries undisposed and the replies under way, which are limited.
        let (sender, receiver) = mpsc::unbounded_channel();
        state.connections.insert(id, sender);
        metrics::endpoint_connections(state.connections.len());
        Ok((id, receiver))
    }

    pub(super) fn unregister(&self, id: ConnectionId, caller: &Arc<Caller>) {
        let mut state = lock(&self.state);
        state.connections.remove(&id);
        metrics::endpoint_connections(state.connections.len());
        state.charge(caller, |account| account.connections -= 1);
    }

    // Requests.

    pub(super) fn attach_request_link(&self) -> LinkId {
        lock(&self.state).request_links += 1;
        LinkId(self.fresh())
    }

    pub(super) fn detach_request_link(&self) {
        lock(&self.state).request_links -= 1;
    }

    /// Takes `bytes` of the budgets for requests, or says that they are used up.
    pub(super) fn reserve(&self, caller: &Arc<Caller>, bytes: usize) -> bool {
        let mut state = lock(&self.state);
        let used = state.accounts.get(caller).map_or(0, |account| account.request_bytes);
        if state.request_bytes + bytes > self.limits.request_bytes_max
            || used + bytes > self.limits.request_bytes_per_caller_max
        {
            return false;
        }
        state.request_bytes += bytes;
        state.account(caller).request_bytes += bytes;
        true
    }

    pub(super) fn unreserve(&self, caller: &Arc<Caller>, bytes: usize) {
        lock(&self.state).free(caller, bytes);
    }

    /// Where replies to a message go: to its sender's inbox, or to a node of the same sender that it names.
    pub(super) fn reply_address(&self, caller: &Arc<Caller>, wanted: Option<&str>) -> Option<String> {
        match wanted {
            None => Some(caller.reply_address.clone()),
            Some(address) if address == caller.reply_address => Some(caller.reply_address.clone()),
            Some(address) => {
                let state = lock(&self.state);
                let node = state.nodes.get(address)?;
                (node.dynamic && node.owner == *caller).then(|| address.to_owned())
            }
        }
    }

    /// Queues a request for the worker. Refused ones give their bytes back.
    pub(super) fn offer(&self, offer: Offer) -> Offered {
        let mut state = lock(&self.state);
        if state.draining || state.resting {
            state.free(&offer.caller, offer.bytes);
            return Offered::Refused;
        }
        let id = DeliveryId(self.fresh());
        let delivery = Delivery {
            id,
            caller: offer.caller.name.clone(),
            platform_version: offer.platform_version,
            dedup_id: offer.dedup_id,
            sent_at: offer.sent_at,
            prior_deliveries: offer.prior_deliveries,
            body: offer.body,
        };
        state.ready.push(&offer.caller, offer.link, delivery);
        let held = Held {
            caller: offer.caller,
            connection: offer.connection,
            link: offer.link,
            number: offer.number,
            bytes: offer.bytes,
            reply_address: offer.reply_address,
            correlation: offer.correlation,
            reply_link: None,
            orphaned: false,
        };
        state.held.insert(id, held);
        drop(state);
        self.ready.notify_one();
        Offered::Taken(id)
    }

    /// The senders gave these deliveries up, or their link is gone: those that wait are forgotten, others are orphaned.
    pub(super) fn abandon(&self, caller: &Arc<Caller>, link: LinkId, deliveries: &[DeliveryId]) {
        let mut state = lock(&self.state);
        for delivery in state.ready.remove(caller, &link, |delivery| deliveries.contains(&delivery.id)) {
            state.release_held(delivery.id);
        }
        for id in deliveries {
            if let Some(held) = state.held.get_mut(id) {
                held.orphaned = true;
            }
        }
    }

    /// The next request for the worker.
    pub(super) async fn take(&self) -> Result<Delivery, QueueError> {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = lock(&self.state);
                if let Some(delivery) = state.ready.pop() {
                    if state.ready.len() > 0 {
                        // Another receiver may wait whose wake-up this one consumed.
                        self.ready.notify_one();
                    }
                    return Ok(delivery);
                }
                if state.draining {
                    return Err(QueueError::Closed);
                }
            }
            ready.await;
        }
    }

    /// Ends a delivery; the receiver is told once the peer was.
    pub(super) fn settle(&self, id: DeliveryId, settlement: Settlement) -> Result<oneshot::Receiver<()>, QueueError> {
        let mut state = lock(&self.state);
        let held = state.release_held(id).ok_or_else(|| unsafe_because("the delivery is not held"))?;
        if state.held.is_empty() {
            self.settled.notify_waiters();
        }
        if held.orphaned {
            return Err(unsafe_because("the connection or link it came on is gone"));
        }
        let (done, settled) = oneshot::channel();
        let command = Command::Settle { link: held.link, number: held.number, settlement, done: Some(done) };
        state.tell(held.connection, command);
        Ok(settled)
    }

    // Replies.

    /// What replies to a delivery must be correlated with: the request's message id, as encoded.
    pub(super) fn correlation(&self, delivery: DeliveryId) -> Result<Option<Vec<u8>>, QueueError> {
        let state = lock(&self.state);
        state.repliable(delivery).map(|held| held.correlation.clone())
    }

    /// Queues replies to a delivery on a link of its sender; without one they wait at its address.
    pub(super) fn enqueue(&self, delivery: DeliveryId, messages: VecDeque<Vec<u8>>) -> Result<Waiting<'_>, QueueError> {
        let (count, bytes) = (messages.len(), messages.iter().map(Vec::len).sum());
        let mut state = lock(&self.state);
        let held = state.repliable(delivery)?;
        let (owner, address) = (Arc::clone(&held.caller), held.reply_address.clone());
        let (connection, previous) = (held.connection, held.reply_link);

        let account = state.account(&owner);
        if account.replies + count > self.limits.replies_per_caller_max
            || account.reply_bytes + bytes > self.limits.reply_bytes_per_caller_max
        {
            state.charge(&owner, |_| ());
            return Err(unsafe_because("too many replies wait for this peer"));
        }
        if !state.nodes.contains_key(&address) {
            if address != owner.reply_address {
                state.charge(&owner, |_| ());
                return Err(unsafe_because("the node it asked for replies at is gone"));
            }
            state.nodes.insert(address.clone(), Node::new(Arc::clone(&owner), false));
        }
        let account = state.account(&owner);
        account.replies += count;
        account.reply_bytes += bytes;

        let id = GroupId(self.fresh());
        let (done, outcome) = oneshot::channel();
        let replies = Some(ReplyGroup { id, messages, done });
        let group = Group { owner, address: address.clone(), count, bytes, place: Place::AtNode, replies };
        state.groups.insert(id, group);
        let link = state.choose_link(&address, connection, previous);
        state.place(id, &address, link);
        if let Some(held) = state.held.get_mut(&delivery) {
            held.reply_link = link;
        }
        Ok(Waiting { hub: self, group: id, outcome, over: false })
    }

    /// Attaches a link to its owner's inbox, or to a new node. Replies that waited there are queued on it.
    pub(super) fn attach_reply_link(
        &self,
        connection: ConnectionId,
        owner: &Arc<Caller>,
        dynamic: bool,
    ) -> (LinkId, String) {
        let id = LinkId(self.fresh());
        let address = if dynamic { format!("notary.replies.{}", id.0) } else { owner.reply_address.clone() };
        let mut state = lock(&self.state);
        let node = state.nodes.entry(address.clone()).or_insert_with(|| Node::new(Arc::clone(owner), dynamic));
        node.links.push(id);
        let queue = std::mem::take(&mut node.waiting);
        for group in &queue {
            if let Some(group) = state.groups.get_mut(group) {
                group.place = Place::AtLink(id);
            }
        }
        state.reply_links.insert(id, ReplyLink { connection, address: address.clone(), queue });
        (id, address)
    }

    /// Takes a link away. Replies that it had not begun go to another link of the address, or wait there.
    pub(super) fn detach_reply_link(&self, id: LinkId) {
        let mut state = lock(&self.state);
        let Some(link) = state.reply_links.remove(&id) else { return };
        let Some(node) = state.nodes.get_mut(&link.address) else { return };
        node.links.retain(|other| *other != id);
        if node.dynamic {
            state.nodes.remove(&link.address);
            for group in link.queue {
                if let Some(ReplyGroup { done, .. }) =
                    state.groups.get_mut(&group).and_then(|group| group.replies.take())
                {
                    // A receiver that is gone no longer wants to know.
                    let _ = done.send(Err("the node it asked for replies at is gone".to_owned()));
                }
            }
            return;
        }
        for group in link.queue {
            let other = state.choose_link(&link.address, link.connection, None);
            state.place(group, &link.address, other);
        }
        state.tidy_node(&link.address);
    }

    /// The next replies for a link to send, if any wait.
    pub(super) fn next_group(&self, link: LinkId) -> Option<ReplyGroup> {
        let mut state = lock(&self.state);
        loop {
            let id = state.reply_links.get_mut(&link)?.queue.pop_front()?;
            let Some(group) = state.groups.get_mut(&id) else { continue };
            group.place = Place::Taken(link);
            if let Some(replies) = group.replies.take() {
                return Some(replies);
            }
        }
    }

    fn forget_group(&self, id: GroupId, over: bool) {
        let mut state = lock(&self.state);
        let Some(group) = state.groups.remove(&id) else { return };
        state.charge(&group.owner, |account| {
            account.replies -= group.count;
            account.reply_bytes -= group.bytes;
        });
        match group.place {
            Place::AtNode => {
                if let Some(node) = state.nodes.get_mut(&group.address) {
                    node.waiting.retain(|other| *other != id);
                }
                state.tidy_node(&group.address);
            }
            Place::AtLink(link) => {
                if let Some(link) = state.reply_links.get_mut(&link) {
                    link.queue.retain(|other| *other != id);
                }
            }
            Place::Taken(link) => {
                if !over && let Some(connection) = state.reply_links.get(&link).map(|link| link.connection) {
                    state.tell(connection, Command::Abandon(id));
                }
            }
        }
    }

    // The end.

    /// Closes the queue: requests that wait go back to their senders, no more are taken.
    pub(super) fn drain(&self) {
        lock(&self.state).draining = true;
        self.give_back();
        self.ready.notify_waiters();
    }

    /// The same for a while.
    pub(super) fn rest(&self) {
        lock(&self.state).resting = true;
        self.give_back();
    }

    /// Serves again.
    pub(super) fn resume(&self) {
        lock(&self.state).resting = false;
    }

    /// Whether nobody is served for now.
    pub(super) fn is_resting(&self) -> bool {
        lock(&self.state).resting
    }

    fn give_back(&self) {
        let mut state = lock(&self.state);
        while let Some(delivery) = state.ready.pop() {
            if let Some(held) = state.release_held(delivery.id) {
                let settlement = Settlement::Release;
                state.tell(
                    held.connection,
                    Command::Settle { link: held.link, number: held.number, settlement, done: None },
                );
            }
        }
        for connection in state.connections.values() {
            let _ = connection.send(Command::Drain);
        }
    }

    /// Tells all connections to close that were told to take no more requests.
    pub(super) fn leave(&self) {
        for connection in lock(&self.state).connections.values() {
            // One that ended meanwhile needs no telling.
            let _ = connection.send(Command::Leave);
        }
    }

    /// Waits until the worker has settled everything it holds.
    pub(super) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if lock(&self.state).held.is_empty() {
                return;
            }
            settled.await;
        }
    }

    /// Tells all connections to close.
    pub(super) fn close(&self) {
        for connection in lock(&self.state).connections.values() {
            // One that ended meanwhile needs no telling.
            let _ = connection.send(Command::Close);
        }
    }
}

impl Node {
    fn new(owner: Arc<Caller>, dynamic: bool) -> Self {
        Self { owner, dynamic, links: Vec::new(), waiting: VecDeque::new() }
    }
}

impl State {
    fn account(&mut self, caller: &Arc<Caller>) -> &mut Account {
        self.accounts.entry(Arc::clone(caller)).or_default()
    }

    /// Changes an account and forgets it once it is empty.
    fn charge(&mut self, caller: &Arc<Caller>, change: impl FnOnce(&mut Account)) {
        let account = self.account(caller);
        change(account);
        if account.is_empty() {
            self.accounts.remove(caller);
        }
    }

    fn free(&mut self, caller: &Arc<Caller>, bytes: usize) {
        self.request_bytes -= bytes;
        self.charge(caller, |account| account.request_bytes -= bytes);
    }

    fn release_held(&mut self, id: DeliveryId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.free(&held.caller, held.bytes);
        Some(held)
    }

    fn repliable(&self, delivery: DeliveryId) -> Result<&Held, QueueError> {
        match self.held.get(&delivery) {
            None => Err(unsafe_because("the delivery is not held")),
            Some(held) if held.orphaned => Err(unsafe_because("the connection or link it came on is gone")),
            Some(held) => Ok(held),
        }
    }

    /// The link that replies take: the one before, one of the same connection, or the one with the shortest queue.
    fn choose_link(&self, address: &str, connection: ConnectionId, previous: Option<LinkId>) -> Option<LinkId> {
        let links = &self.nodes.get(address)?.links;
        if let Some(previous) = previous.filter(|previous| links.contains(previous)) {
            return Some(previous);
        }
        let rank = |id: &LinkId| self.reply_links.get(id).map(|link| (link.connection != connection, link.queue.len()));
        links.iter().filter_map(|id| Some((rank(id)?, *id))).min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// Queues a group on a link, or at its address.
    fn place(&mut self, id: GroupId, address: &str, link: Option<LinkId>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        match link {
            Some(link) => {
                group.place = Place::AtLink(link);
                if let Some(entry) = self.reply_links.get_mut(&link) {
                    entry.queue.push_back(id);
                    let connection = entry.connection;
                    self.tell(connection, Command::Replies(link));
                }
            }
            None => {
                group.place = Place::AtNode;
                if let Some(node) = self.nodes.get_mut(address) {
                    node.waiting.push_back(id);
                }
            }
        }
    }

    /// Forgets an inbox that nobody listens at and nothing waits for.
    fn tidy_node(&mut self, address: &str) {
        if self.nodes.get(address).is_some_and(|node| node.links.is_empty() && node.waiting.is_empty()) {
            self.nodes.remove(address);
        }
    }

    fn tell(&self, connection: ConnectionId, command: Command) {
        if let Some(commands) = self.connections.get(&connection) {
            // A connection that ended drops what it was told, and so whoever waits for it learns.
            let _ = commands.send(command);
        }
    }
}

/// Replies that somebody waits for. Dropped, it takes back whatever of them was not sent.
#[derive(Debug)]
pub(super) struct Waiting<'h> {
    hub: &'h Hub,
    group: GroupId,
    outcome: oneshot::Receiver<Result<(), String>>,
    over: bool,
}

impl Waiting<'_> {
    /// Waits until all replies are accepted.
    pub(super) async fn safe(&mut self) -> Result<(), QueueError> {
        let outcome = (&mut self.outcome).await;
        self.over = true;
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(QueueError::Unsafe(reason)),
            Err(_) => Err(unsafe_because("the connection or link that carried the replies is gone")),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.forget_group(self.group, self.over);
    }
}

pub(super) fn unsafe_because(reason: &str) -> QueueError {
    QueueError::Unsafe(reason.to_owned())
}
