//! Bridges against brokers of peers: each of these is the worker's own endpoint for nodes, which takes what a node's broker takes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::broker::embedded::{self, Endpoint, Refusal};
use crate::domain::Party;
use crate::domain::network::{HostAndPort, NetworkView, Route};
use crate::ports::request_queue::{Delivery, QueueError, Reply, RequestQueue, Settlement};
use crate::ports::{BoxFuture, NetworkMap};
use crate::tls::peers::fixtures::{Net, key, name};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A map that tests change.
#[derive(Default)]
struct Map(Mutex<Arc<NetworkView>>);

impl NetworkMap for Map {
    fn view(&self) -> Arc<NetworkView> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

impl Map {
    fn change(&self, change: impl FnOnce(&mut NetworkView)) {
        let mut view = self.0.lock().unwrap();
        let mut changed = (**view).clone();
        change(&mut changed);
        *view = Arc::new(changed);
    }

    fn route(&self, party: &str, addresses: &[SocketAddr]) {
        let addresses =
            addresses.iter().map(|a| HostAndPort { host: a.ip().to_string(), port: a.port() }).collect::<Vec<_>>();
        let route = Route { addresses, names: vec![name(party)] };
        self.change(|view| drop(view.routes.insert(name(party), route)));
    }
}

struct World {
    net: Net,
    map: Arc<Map>,
}

/// A peer's own broker.
struct PeerBroker {
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
}

impl World {
    fn new() -> Self {
        Self { net: Net::new(), map: Arc::default() }
    }

    /// Puts a party into the map, and returns its inbox.
    fn party(&self, party: &str) -> String {
        let owning_key = key().public_key().clone();
        let inbox = format!("p2p.inbound.{}", owning_key.name_hash());
        self.map.change(|view| {
            view.parties.insert(name(party), Party { name: name(party), owning_key });
        });
        inbox
    }

    fn settings(&self, party: &str, listen: SocketAddr, inbox: &str) -> embedded::Settings {
        embedded::Settings {
            listen,
            worker_name: name(party).to_string(),
            addresses: vec![inbox.to_owned()],
            platform_version: 12,
            limits: embedded::Limits::default(),
        }
    }

    fn broker_at(&self, party: &str, listen: SocketAddr, inbox: &str) -> PeerBroker {
        let settings = self.settings(party, listen, inbox);
        let endpoint =
            Endpoint::listen_for_nodes(settings, &self.net.tls(party), Arc::new(|_| 64), &Handle::current()).unwrap();
        PeerBroker { address: endpoint.local_addr(), endpoint: Arc::new(endpoint) }
    }

    /// A party with its broker, both in the map.
    fn peer(&self, party: &str) -> PeerBroker {
        let inbox = self.party(party);
        let broker = self.broker_at(party, loopback(), &inbox);
        self.map.route(party, &[broker.address]);
        broker
    }

    fn bridges(&self, limits: Limits) -> Arc<Bridges> {
        let map: Arc<dyn NetworkMap> = self.map.clone();
        Arc::new(Bridges::new(self.net.tls("Worker"), map, 12, limits, &Handle::current()))
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Quick where tests wait.
fn limits() -> Limits {
    Limits {
        answer_hold: LONG,
        retry_base: Duration::from_millis(20),
        retry_cap: Duration::from_millis(50),
        release_base: Duration::from_millis(20),
        release_cap: Duration::from_millis(20),
        ..Limits::default()
    }
}

fn answer(of: &str) -> Vec<Reply> {
    let part = |part: &str| Reply {
        dedup_id: format!("{of}-{part}"),
        headers: vec![("outcome", "x".into())],
        body: format!("{of} {part}").into(),
    };
    ["confirm", "data", "end"].map(part).into()
}

fn replying(bridges: &Arc<Bridges>, to: &str, of: &str) -> JoinHandle<Result<(), QueueError>> {
    let (bridges, to, replies) = (Arc::clone(bridges), name(to), answer(of));
    tokio::spawn(async move { bridges.reply(&to, replies).await })
}

impl PeerBroker {
    async fn next(&self) -> Delivery {
        timeout(LONG, self.endpoint.receive()).await.expect("a message should have come").unwrap()
    }

    async fn take(&self, settlement: Settlement) -> Delivery {
        let delivery = self.next().await;
        self.endpoint.settle(delivery.id, settlement).await.unwrap();
        delivery
    }

    /// The next message's body, which is accepted.
    async fn accept(&self) -> String {
        String::from_utf8(self.take(Settlement::Accept).await.body).unwrap()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// PROTOCOL b.5: the answer comes to the party's inbox, in order, under the worker's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_safe_once_the_peer_has_accepted_all_of_it() {
    let world = World::new();
    let alice = world.peer("Alice");
    let bridges = world.bridges(limits());
    let reply = replying(&bridges, "Alice", "a");
    for part in ["confirm", "data"] {
        let delivery = alice.take(Settlement::Accept).await;
        assert_eq!((delivery.caller, delivery.platform_version), (name("Worker"), Some(12)));
        assert_eq!(delivery.dedup_id, Some(format!("a-{part}")));
        assert_eq!(delivery.body, format!("a {part}").into_bytes());
    }
    let end = alice.next().await;
    assert!(!reply.is_finished(), "two of three are accepted");
    alice.endpoint.settle(end.id, Settlement::Accept).await.unwrap();
    assert_eq!(reply.await.unwrap(), Ok(()));
    assert_eq!((bridges.load().up, bridges.load().waiting), (1, 0));
    assert_eq!(alice.endpoint.figures().connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_peer_gives_back_is_not_safe() {
    let world = World::new();
    let alice = world.peer("Alice");
    let bridges = world.bridges(limits());
    let reply = replying(&bridges, "Alice", "a");
    alice.take(Settlement::Accept).await;
    alice.take(Settlement::Release).await;
    assert!(matches!(reply.await.unwrap(), Err(QueueError::Unsafe(_))));
    alice.take(Settlement::Accept).await;
    // The bridge is as good as before.
    let reply = replying(&bridges, "Alice", "b");
    for part in ["confirm", "data", "end"] {
        assert_eq!(alice.accept().await, format!("b {part}"));
    }
    assert_eq!(reply.await.unwrap(), Ok(()));
}

/// LB: whatever was not accepted when a peer's broker went away is sent again when it is back, whole and in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_a_peer_that_is_away_and_comes_whole() {
    let world = World::new();
    let inbox = world.party("Alice");
    let alice = world.broker_at("Alice", loopback(), &inbox);
    world.map.route("Alice", &[alice.address]);
    let bridges = world.bridges(limits());
    let reply = replying(&bridges, "Alice", "a");
    assert_eq!(alice.accept().await, "a confirm");
    alice.next().await;
    let address = alice.address;
    drop(alice);
    eventually("it is known to be away", || bridges.is_stuck(&name("Alice"))).await;
    assert!(!reply.is_finished());

    let back = world.broker_at("Alice", address, &inbox);
    for part in ["confirm", "data", "end"] {
        assert_eq!(back.accept().await, format!("a {part}"));
    }
    assert_eq!(reply.await.unwrap(), Ok(()));
    assert!(!bridges.is_stuck(&name("Alice")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_bounded() {
    let world = World::new();
    world.party("Alice");
    world.map.route("Alice", &[gone().await]);
    let bridges = world.bridges(Limits { answer_hold: Duration::from_millis(100), ..limits() });
    assert!(matches!(replying(&bridges, "Alice", "a").await.unwrap(), Err(QueueError::Unsafe(_))));
    assert_eq!(bridges.load().waiting, 0);
    let unknown = replying(&bridges, "Nobody", "a").await.unwrap();
    assert!(matches!(unknown, Err(QueueError::Unsafe(why)) if why.contains("network map")));
}

/// An address at which nobody listens.
async fn gone() -> SocketAddr {
    TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap()
}

/// PROTOCOL b.2: addresses are tried in turn.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_works_is_found() {
    let world = World::new();
    let alice = world.peer("Alice");
    world.map.route("Alice", &[gone().await, alice.address]);
    let bridges = world.bridges(limits());
    let reply = replying(&bridges, "Alice", "a");
    for _ in 0..3 {
        alice.accept().await;
    }
    assert_eq!(reply.await.unwrap(), Ok(()));
}

/// PROTOCOL b.3, A10: an answer goes to the party's own node only.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_name_gets_no_answer() {
    let world = World::new();
    let inbox = world.party("Alice");
    let mallory = world.broker_at("Mallory", loopback(), &inbox);
    world.map.route("Alice", &[mallory.address]);
    let bridges = world.bridges(limits());
    let reply = replying(&bridges, "Alice", "a");
    eventually("the node was refused", || bridges.load().down == 1).await;
    assert_eq!(mallory.endpoint.figures().undisposed, 0);

    // A correction of the map is enough.
    let alice = world.broker_at("Alice", loopback(), &inbox);
    world.map.route("Alice", &[alice.address]);
    assert_eq!(alice.accept().await, "a confirm");
    reply.abort();
}

/// P8, A7: peers that are away, or that take nothing, cost the others neither time nor places.
#[tokio::test(flavor = "multi_thread")]
async fn lost_peers_hold_few_places_and_delay_nobody() {
    let world = World::new();
    world.party("Away");
    world.map.route("Away", &[gone().await]);
    // Takes everything and accepts nothing.
    let slow = world.peer("Slow");
    let alice = world.peer("Alice");
    let limits = Limits {
        stuck_after: Duration::from_millis(50),
        answers_per_stuck_peer_max: 3,
        answers_stuck_max: 5,
        ..limits()
    };
    let bridges = world.bridges(limits);
    let mut held = Vec::new();
    for peer in ["Away", "Slow"] {
        held.extend((0..20).map(|n| replying(&bridges, peer, &format!("{peer} {n}"))));
    }
    let left = |held: &[JoinHandle<_>]| held.iter().filter(|reply| !reply.is_finished()).count();
    eventually("they hold three places each, or fewer together", || left(&held) <= 6).await;
    assert!(left(&held) > 0, "some wait for the peer to come back");
    assert!(bridges.is_stuck(&name("Away")) && bridges.is_stuck(&name("Slow")));
    let more = replying(&bridges, "Away", "more").await.unwrap();
    assert!(matches!(more, Err(QueueError::Unsafe(_))), "at once, not after the hold");

    for n in 0..100 {
        let reply = replying(&bridges, "Alice", &n.to_string());
        for part in ["confirm", "data", "end"] {
            assert_eq!(alice.accept().await, format!("{n} {part}"));
        }
        assert_eq!(reply.await.unwrap(), Ok(()));
    }
    assert!(slow.endpoint.figures().undisposed > 0);
    held.iter().for_each(JoinHandle::abort);
    eventually("nothing waits", || bridges.load().waiting == 0 && bridges.load().bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_memory_are_bounded() {
    let world = World::new();
    let _alice = world.peer("Alice");
    let bridges = world.bridges(Limits { answers_per_peer_max: 2, ..limits() });
    let waiting = [replying(&bridges, "Alice", "a"), replying(&bridges, "Alice", "b")];
    eventually("two wait", || bridges.load().waiting == 2).await;
    assert!(matches!(replying(&bridges, "Alice", "c").await.unwrap(), Err(QueueError::Unsafe(_))));
    waiting.iter().for_each(JoinHandle::abort);

    let bytes = answer("a").iter().map(|reply| reply.body.len()).sum();
    let bridges = world.bridges(Limits { answer_bytes_max: bytes, ..limits() });
    assert!(matches!(replying(&bridges, "Alice", "a").await.unwrap(), Err(QueueError::Unsafe(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn bridges_make_room_for_each_other_and_idle_ones_are_closed() {
    let world = World::new();
    let peers = ["Alice", "Bob", "Carol"].map(|party| (party, world.peer(party)));
    let bridges = world.bridges(Limits { bridges_max: 2, idle_timeout: Duration::from_millis(200), ..limits() });
    for _ in 0..2 {
        for (party, broker) in &peers {
            let reply = replying(&bridges, party, "a");
            for _ in 0..3 {
                broker.accept().await;
            }
            assert_eq!(reply.await.unwrap(), Ok(()));
            assert!(bridges.load().up <= 2);
        }
    }
    let connections = || peers.iter().map(|(_, broker)| broker.endpoint.figures().connections).sum::<usize>();
    eventually("nobody has a connection", || connections() == 0 && bridges.load().up == 0).await;
    for (_, broker) in &peers {
        assert!(broker.endpoint.figures().refused.iter().all(|(_, count)| *count == 0), "they said goodbye");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_bridges_is_the_end_of_what_waits() {
    let world = World::new();
    let alice = world.peer("Alice");
    let bridges = world.bridges(limits());
    let reply = replying(&bridges, "Alice", "a");
    alice.next().await;
    bridges.close().await;
    assert!(reply.await.unwrap().is_err());
    assert_eq!(replying(&bridges, "Alice", "b").await.unwrap(), Err(QueueError::Closed));
    eventually("the connection is closed", || alice.endpoint.figures().connections == 0).await;
    assert_eq!(alice.endpoint.figures().refused_for(Refusal::Malformed), 0);
}

/// An inbox of a test's making: what is settled, when, and how.
#[derive(Default)]
struct Inbox {
    deliveries: Mutex<Vec<Delivery>>,
    settled: Mutex<Vec<(u64, Settlement, Instant)>>,
}

impl RequestQueue for Inbox {
    fn receive(&self) -> BoxFuture<'_, Result<Delivery, QueueError>> {
        let next = self.deliveries.lock().unwrap().pop().ok_or(QueueError::Closed);
        Box::pin(std::future::ready(next))
    }

    fn reply(
        &self,
        _: crate::ports::request_queue::DeliveryId,
        _: Vec<Reply>,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        unreachable!("answers go to the bridges")
    }

    fn settle(
        &self,
        delivery: crate::ports::request_queue::DeliveryId,
        settlement: Settlement,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        self.settled.lock().unwrap().push((delivery.0, settlement, Instant::now()));
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn delivery(number: u64, caller: &str) -> Delivery {
    Delivery {
        id: crate::ports::request_queue::DeliveryId(number),
        caller: name(caller),
        platform_version: None,
        dedup_id: None,
        sent_at: None,
        prior_deliveries: 0,
        body: Vec::new(),
    }
}

/// FACTS of real nodes: what is given back comes again at once. What failed together goes back together, later and later; a hurry
/// ends the wait.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_given_back_with_pauses() {
    let world = World::new();
    world.party("Alice");
    let inbox = Arc::new(Inbox::default());
    let bridges = world.bridges(Limits {
        release_base: Duration::from_millis(200),
        release_cap: Duration::from_secs(600),
        ..limits()
    });
    let map: Arc<dyn NetworkMap> = world.map.clone();
    let queue = PeerQueue::new(inbox.clone(), bridges, map, &Handle::current());
    let give = |numbers: [u64; 2], caller: &'static str| {
        let (inbox, queue) = (&inbox, &queue);
        async move {
            inbox.deliveries.lock().unwrap().extend(numbers.map(|number| delivery(number, caller)));
            [queue.receive().await.unwrap().id, queue.receive().await.unwrap().id]
        }
    };
    let settled = || inbox.settled.lock().unwrap().len();
    let begun = Instant::now();
    for id in give([1, 2], "Alice").await {
        queue.settle(id, Settlement::Release).await.unwrap();
    }
    assert!(settled() == 0 && begun.elapsed() < Duration::from_millis(100), "the worker does not wait for the pause");
    eventually("both are back", || settled() == 2).await;
    let first = begun.elapsed();
    assert!(first >= Duration::from_millis(100));

    // These pauses are longer than any test: only the hurry ends them.
    let endless = Limits { release_base: 2 * LONG, release_cap: 2 * LONG, ..limits() };
    let map: Arc<dyn NetworkMap> = world.map.clone();
    let queue = PeerQueue::new(inbox.clone(), world.bridges(endless), map, &Handle::current());
    inbox.deliveries.lock().unwrap().push(delivery(3, "Alice"));
    inbox.deliveries.lock().unwrap().push(delivery(4, "Alice"));
    for _ in 0..2 {
        let id = queue.receive().await.unwrap().id;
        queue.settle(id, Settlement::Release).await.unwrap();
    }
    assert_eq!(settled(), 2);
    queue.serve(false);
    eventually("all are back", || settled() == 4).await;
    assert!(inbox.settled.lock().unwrap().iter().all(|(_, settlement, _)| *settlement == Settlement::Release));
}

/// A caller that has just left the map may be back with the next one: its message is not thrown away.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_known_parties_sent_is_rejected() {
    let world = World::new();
    world.party("Alice");
    let inbox = Arc::new(Inbox::default());
    let map: Arc<dyn NetworkMap> = world.map.clone();
    let queue = PeerQueue::new(inbox.clone(), world.bridges(limits()), map, &Handle::current());
    let mut ends = HashMap::new();
    for (number, caller) in [(1, "Alice"), (2, "Bob")] {
        inbox.deliveries.lock().unwrap().push(delivery(number, caller));
        let id = queue.receive().await.unwrap().id;
        queue.settle(id, Settlement::Reject { reason: "unreadable".into() }).await.unwrap();
        eventually("it is settled", || inbox.settled.lock().unwrap().len() == number as usize).await;
        let (_, settlement, _) = inbox.settled.lock().unwrap().last().cloned().unwrap();
        ends.insert(caller, settlement);
    }
    assert!(matches!(ends["Alice"], Settlement::Reject { .. }));
    assert_eq!(ends["Bob"], Settlement::Release);
}
