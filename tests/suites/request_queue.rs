//! The contract of the `RequestQueue` port as claims, checked on every adapter by `request_queue_suite!`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::{Answer, Outcome};
use notary_worker::ports::BoxFuture;
use notary_worker::ports::request_queue::{Delivery, QueueError, Reply, RequestQueue, Settlement};
use tokio::task::JoinHandle;

/// A hold that no test outlives.
pub const LONG: Duration = Duration::from_secs(60);
/// A hold that a test waits for.
pub const SHORT: Duration = Duration::from_millis(100);
/// Requests that a sender may have undisposed.
pub const CREDIT: usize = 4;

/// One adapter with a worker's side and senders.
pub trait Rig {
    type Peer: Peer;

    /// An open queue whose replies wait for `hold`, and whose senders have [`CREDIT`].
    fn start(hold: Duration) -> impl Future<Output = Self>;
    fn queue(&self) -> Arc<dyn RequestQueue>;
    /// Connects a party that listens for answers.
    fn connect(&self, party: &str) -> impl Future<Output = Self::Peer>;
    /// Connects a party that does not.
    fn connect_deaf(&self, party: &str) -> impl Future<Output = Self::Peer>;
    fn shutdown(&self) -> BoxFuture<'static, ()>;
    /// Deliveries that are not settled.
    fn undisposed(&self) -> usize;
}

/// A sender's connection. Dropped, it is lost without a word.
pub trait Peer {
    /// Hands a request over. The task ends with its outcome, or `None` if the connection was lost first.
    fn send(&self, body: &str) -> impl Future<Output = JoinHandle<Option<Outcome>>>;
    /// Takes, and so accepts, the next answer.
    fn next_answer(&mut self) -> impl Future<Output = Answer>;
}

fn dedup_id(body: &str) -> String {
    format!("id-{body:.20}")
}

pub fn reply(body: &str) -> Reply {
    let headers = vec![("outcome", "test".to_owned())];
    Reply { dedup_id: dedup_id(body), headers, body: body.as_bytes().to_vec() }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

pub async fn receive(queue: &Arc<dyn RequestQueue>) -> Delivery {
    tokio::time::timeout(LONG, queue.receive()).await.expect("a request should have come").unwrap()
}

pub async fn accept(queue: &Arc<dyn RequestQueue>, delivery: &Delivery) {
    queue.settle(delivery.id, Settlement::Accept).await.unwrap();
}

/// Waits for something to become true, which it does soon or never.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_unsafe<T: std::fmt::Debug>(result: &Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Unsafe(_)))
}

pub async fn a_request_is_delivered_once_with_its_authenticated_caller<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice) = (rig.queue(), rig.connect("Alice").await);
    let first = alice.send("first").await;
    let delivered = receive(&queue).await;
    assert_eq!((text(&delivered), delivered.caller.organisation.as_str()), ("first", "Alice"));
    assert_eq!((delivered.platform_version, delivered.dedup_id.as_deref()), (Some(12), Some("id-first")));

    let second = alice.send("second").await;
    let next = receive(&queue).await;
    assert_eq!(text(&next), "second", "the first is not delivered again while it is unsettled");
    accept(&queue, &delivered).await;
    accept(&queue, &next).await;
    assert_eq!(first.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(second.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(rig.undisposed(), 0);
}

pub async fn senders_learn_how_their_requests_ended<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice) = (rig.queue(), rig.connect("Alice").await);
    let reason = "not a session message".to_owned();
    for (settlement, expected) in [
        (Settlement::Accept, Outcome::Accepted),
        (Settlement::Release, Outcome::Released),
        (Settlement::Reject { reason: reason.clone() }, Outcome::Rejected { reason }),
    ] {
        let outcome = alice.send("request").await;
        let delivery = receive(&queue).await;
        assert!(!outcome.is_finished(), "it is unsettled");
        queue.settle(delivery.id, settlement).await.unwrap();
        assert_eq!(outcome.await.unwrap(), Some(expected));
    }
}

pub async fn a_released_request_can_be_sent_again<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice) = (rig.queue(), rig.connect("Alice").await);
    // More often than there is credit: credit comes back with every release.
    for _ in 0..3 * CREDIT {
        let outcome = alice.send("request").await;
        let delivery = receive(&queue).await;
        queue.settle(delivery.id, Settlement::Release).await.unwrap();
        assert_eq!(outcome.await.unwrap(), Some(Outcome::Released));
    }
    let outcome = alice.send("request").await;
    accept(&queue, &receive(&queue).await).await;
    assert_eq!(outcome.await.unwrap(), Some(Outcome::Accepted));
}

pub async fn a_delivery_is_settled_once<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice) = (rig.queue(), rig.connect("Alice").await);
    let outcome = alice.send("request").await;
    let delivery = receive(&queue).await;
    accept(&queue, &delivery).await;
    assert!(is_unsafe(&queue.settle(delivery.id, Settlement::Release).await));
    assert!(is_unsafe(&queue.reply(delivery.id, vec![reply("late")]).await));
    assert_eq!(outcome.await.unwrap(), Some(Outcome::Accepted));
}

pub async fn replies_arrive_in_order_and_unchanged<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, mut alice) = (rig.queue(), rig.connect("Alice").await);
    let long = "x".repeat(1 << 20);
    let outcome = alice.send("request").await;
    let delivery = receive(&queue).await;
    let id = delivery.id;
    let replying = tokio::spawn({
        let (queue, long) = (Arc::clone(&queue), long.clone());
        async move {
            queue.reply(id, vec![reply("confirm"), reply("wait")]).await?;
            queue.reply(id, vec![reply(&long), reply("end")]).await
        }
    });
    for expected in ["confirm", "wait", &long, "end"] {
        let answer = alice.next_answer().await;
        assert!(answer.body == expected.as_bytes() && answer.dedup_id == dedup_id(expected));
        assert!(answer.headers.contains(&("outcome".to_owned(), "test".to_owned())));
    }
    replying.await.unwrap().unwrap();
    assert!(!outcome.is_finished(), "replying settles nothing");
    accept(&queue, &delivery).await;
    assert_eq!(outcome.await.unwrap(), Some(Outcome::Accepted));
}

pub async fn a_reply_is_safe_only_when_all_of_it_is_accepted<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, mut alice) = (rig.queue(), rig.connect("Alice").await);
    let _outcome = alice.send("request").await;
    let delivery = receive(&queue).await;
    let replying = tokio::spawn({
        let (queue, id) = (Arc::clone(&queue), delivery.id);
        async move { queue.reply(id, vec![reply("one"), reply("two")]).await }
    });
    assert_eq!(alice.next_answer().await.body, b"one");
    // A whole round trip: whatever "one" caused has happened by then.
    let other = alice.send("other").await;
    accept(&queue, &receive(&queue).await).await;
    assert_eq!(other.await.unwrap(), Some(Outcome::Accepted));
    assert!(!replying.is_finished(), "the second reply is not accepted");
    assert_eq!(alice.next_answer().await.body, b"two");
    replying.await.unwrap().unwrap();
    accept(&queue, &delivery).await;
}

pub async fn an_empty_reply_is_safe<R: Rig>() {
    let rig = R::start(SHORT).await;
    let (queue, alice) = (rig.queue(), rig.connect_deaf("Alice").await);
    let _outcome = alice.send("request").await;
    let delivery = receive(&queue).await;
    queue.reply(delivery.id, Vec::new()).await.unwrap();
    accept(&queue, &delivery).await;
}

pub async fn a_reply_that_nobody_takes_is_unsafe_and_nothing_is_lost<R: Rig>() {
    let rig = R::start(SHORT).await;
    let (queue, deaf) = (rig.queue(), rig.connect_deaf("Alice").await);
    let outcome = deaf.send("request").await;
    let delivery = receive(&queue).await;
    assert!(is_unsafe(&queue.reply(delivery.id, vec![reply("lost")]).await));
    queue.settle(delivery.id, Settlement::Release).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Some(Outcome::Released), "the sender still has it");

    let mut alice = rig.connect("Alice").await;
    let again = alice.send("request").await;
    let delivery = receive(&queue).await;
    let (replied, answer) = tokio::join!(queue.reply(delivery.id, vec![reply("found")]), alice.next_answer());
    replied.unwrap();
    assert_eq!(answer.body, b"found", "what was taken back does not come late");
    accept(&queue, &delivery).await;
    assert_eq!(again.await.unwrap(), Some(Outcome::Accepted));
}

pub async fn a_reply_waits_for_a_listener<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, deaf) = (rig.queue(), rig.connect_deaf("Alice").await);
    let _outcome = deaf.send("request").await;
    let delivery = receive(&queue).await;
    let replying = tokio::spawn({
        let (queue, id) = (Arc::clone(&queue), delivery.id);
        async move { queue.reply(id, vec![reply("one"), reply("two")]).await }
    });
    let mut stranger = rig.connect("Bob").await;
    let mut listener = rig.connect("Alice").await;
    assert_eq!(listener.next_answer().await.body, b"one");
    assert_eq!(listener.next_answer().await.body, b"two");
    replying.await.unwrap().unwrap();
    let nothing = tokio::time::timeout(SHORT, stranger.next_answer()).await;
    assert!(nothing.is_err(), "it is nobody else's");
    accept(&queue, &delivery).await;
}

pub async fn a_full_worker_leaves_requests_with_their_senders<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice, bob) = (rig.queue(), rig.connect("Alice").await, rig.connect("Bob").await);
    let total = 3 * CREDIT;
    let mut outcomes = Vec::new();
    for n in 0..total {
        outcomes.push(alice.send(&n.to_string()).await);
    }
    let mut held = Vec::new();
    for n in 0..CREDIT {
        held.push(receive(&queue).await);
        assert_eq!(text(&held[n]), n.to_string());
    }
    let others = bob.send("Bob's").await;
    let delivery = receive(&queue).await;
    assert_eq!(text(&delivery), "Bob's", "Alice has no credit left");
    assert_eq!(rig.undisposed(), CREDIT + 1);
    accept(&queue, &delivery).await;
    assert_eq!(others.await.unwrap(), Some(Outcome::Accepted));

    // One place after the other is freed, and each lets one more request come.
    for n in CREDIT..total {
        accept(&queue, &held.remove(0)).await;
        held.push(receive(&queue).await);
        assert_eq!(text(&held[CREDIT - 1]), n.to_string());
        assert!(rig.undisposed() <= CREDIT);
    }
    for delivery in &held {
        accept(&queue, delivery).await;
    }
    for outcome in outcomes {
        assert_eq!(outcome.await.unwrap(), Some(Outcome::Accepted), "nothing was dropped");
    }
}

pub async fn settling_or_replying_after_the_connection_is_lost_is_unsafe<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice) = (rig.queue(), rig.connect("Alice").await);
    let (taken, waiting) = (alice.send("taken").await, alice.send("waiting").await);
    let delivery = receive(&queue).await;
    assert_eq!(text(&delivery), "taken");
    eventually("the second request waits", || rig.undisposed() == 2).await;
    drop(alice);
    eventually("what waited is forgotten", || rig.undisposed() == 1).await;
    assert_eq!((taken.await.unwrap(), waiting.await.unwrap()), (None, None), "the sender still has both");

    let listener = rig.connect("Alice").await;
    assert!(is_unsafe(&queue.reply(delivery.id, vec![reply("late")]).await));
    assert!(is_unsafe(&queue.settle(delivery.id, Settlement::Accept).await));
    assert_eq!(rig.undisposed(), 0, "nothing leaks");
    let _next = listener.send("next").await;
    let delivery = receive(&queue).await;
    assert_eq!(text(&delivery), "next");
    accept(&queue, &delivery).await;
}

pub async fn a_flood_does_not_starve_others<R: Rig>() {
    let rig = R::start(LONG).await;
    let queue = rig.queue();
    // Mallory floods, over two connections even.
    let mallory = [rig.connect("Mallory").await, rig.connect("Mallory").await];
    let bob = rig.connect("Bob").await;
    let mut outcomes = Vec::new();
    for n in 0..2 * CREDIT {
        outcomes.push(mallory[n % 2].send("flood").await);
    }
    eventually("the flood waits", || rig.undisposed() == 2 * CREDIT).await;
    outcomes.push(bob.send("Bob's").await);
    eventually("Bob's waits too", || rig.undisposed() == 2 * CREDIT + 1).await;
    let mut order = Vec::new();
    for _ in 0..=2 * CREDIT {
        let delivery = receive(&queue).await;
        order.push(delivery.caller.organisation.clone());
        accept(&queue, &delivery).await;
    }
    assert!(order.iter().position(|caller| caller == "Bob") <= Some(1), "{order:?}");
    for outcome in outcomes {
        assert_eq!(outcome.await.unwrap(), Some(Outcome::Accepted));
    }
}

pub async fn a_cancelled_receive_loses_nothing<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, alice) = (rig.queue(), rig.connect("Alice").await);
    let mut first = queue.receive();
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut second = queue.receive();
    assert!(futures_util::poll!(&mut second).is_pending());
    let _outcomes = [alice.send("request").await, alice.send("request").await];
    eventually("both wait", || rig.undisposed() == 2).await;
    // The first was woken for a request, and goes without it.
    drop(first);
    let got = tokio::time::timeout(LONG, second).await.expect("the other receiver is woken").unwrap();
    accept(&queue, &got).await;
    accept(&queue, &receive(&queue).await).await;
    assert_eq!(rig.undisposed(), 0);
}

pub async fn shutdown_gives_back_what_waits_and_lets_the_worker_finish<R: Rig>() {
    let rig = R::start(LONG).await;
    let (queue, mut alice) = (rig.queue(), rig.connect("Alice").await);
    let (taken, waiting) = (alice.send("taken").await, alice.send("waiting").await);
    let delivery = receive(&queue).await;
    eventually("the second request waits", || rig.undisposed() == 2).await;

    let shutdown = tokio::spawn(rig.shutdown());
    assert_eq!(waiting.await.unwrap(), Some(Outcome::Released));
    assert_eq!(queue.receive().await.unwrap_err(), QueueError::Closed);
    let (replied, answer) = tokio::join!(queue.reply(delivery.id, vec![reply("answer")]), alice.next_answer());
    replied.unwrap();
    assert_eq!(answer.body, b"answer");
    accept(&queue, &delivery).await;
    assert_eq!(taken.await.unwrap(), Some(Outcome::Accepted));
    shutdown.await.unwrap();
    assert_eq!(rig.undisposed(), 0);
}

pub async fn shutdown_wakes_every_receiver<R: Rig>() {
    let rig = R::start(LONG).await;
    let queue = rig.queue();
    let mut receivers = [queue.receive(), queue.receive(), queue.receive()];
    for receiver in &mut receivers {
        assert!(futures_util::poll!(receiver).is_pending());
    }
    rig.shutdown().await;
    for receiver in receivers {
        assert_eq!(receiver.await.unwrap_err(), QueueError::Closed);
    }
}

/// Stamps every claim onto an adapter.
#[macro_export]
macro_rules! request_queue_suite {
    ($rig:ty) => {
        $crate::request_queue_suite! { $rig:
            a_request_is_delivered_once_with_its_authenticated_caller,
            senders_learn_how_their_requests_ended,
            a_released_request_can_be_sent_again,
            a_delivery_is_settled_once,
            replies_arrive_in_order_and_unchanged,
            a_reply_is_safe_only_when_all_of_it_is_accepted,
            an_empty_reply_is_safe,
            a_reply_that_nobody_takes_is_unsafe_and_nothing_is_lost,
            a_reply_waits_for_a_listener,
            a_full_worker_leaves_requests_with_their_senders,
            settling_or_replying_after_the_connection_is_lost_is_unsafe,
            a_flood_does_not_starve_others,
            a_cancelled_receive_loses_nothing,
            shutdown_gives_back_what_waits_and_lets_the_worker_finish,
            shutdown_wakes_every_receiver,
        }
    };
    ($rig:ty: $($claim:ident,)+) => {
        $(#[tokio::test]
        async fn $claim() {
            $crate::suite::$claim::<$rig>().await;
        })+
    };
}
