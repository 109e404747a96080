//! The contract of the `RequestQueue` port on brokers that store and forward, as claims, checked on every such adapter by
//! `shared_broker_suite!`: requests lie in the broker until a worker has answered them, and workers compete for them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::Answer;
use notary_worker::ports::Probe;
use notary_worker::ports::request_queue::{Delivery, QueueError, Reply, RequestQueue, Settlement};
use tokio::time::{Instant, sleep, timeout};

/// A hold, or a patience, that no test outlives.
pub const LONG: Duration = Duration::from_secs(60);
/// A hold that a test waits for.
pub const SHORT: Duration = Duration::from_millis(500);

/// One service of its own (queues, users) on a running broker, with the parties Alice, Bob and Mallory, and workers `1` and `2`.
pub trait Rig: Sized + Send + Sync + 'static {
    type Peer: Peer;

    /// A fresh service on the broker that all tests of the process share; `None` if the broker cannot be had here.
    fn start() -> impl Future<Output = Option<Self>> + Send;
    /// The same on a broker of its own, for tests that kill or freeze it.
    fn start_alone() -> impl Future<Output = Option<Self>> + Send;
    /// Connects worker `number`, 1 or 2, which serves when this returns.
    fn worker(&self, number: u8, setup: Setup) -> impl Future<Output = Worker> + Send;
    /// The legal name by which requests name worker `number`.
    fn worker_name(&self, number: u8) -> String;
    /// Connects a party as its broker user, as soon as the broker lets it: tests may have just killed it.
    fn connect(&self, party: &str) -> impl Future<Output = Self::Peer> + Send;
    /// Connects a broker user who may send requests, and is no party that workers know.
    fn connect_stranger(&self) -> impl Future<Output = Self::Peer> + Send;

    /// The queue in which `party` gets its answers.
    fn reply_queue(&self, party: &str) -> String;
    /// Requests that lie ready in the shared queue: not delivered to any worker.
    fn waiting(&self) -> impl Future<Output = usize> + Send;
    /// Takes what is parked: bodies with reasons.
    fn take_parked(&self) -> impl Future<Output = Vec<(String, String)>> + Send;
    fn delete_reply_queue(&self, party: &str) -> impl Future<Output = ()> + Send;
    fn declare_reply_queue(&self, party: &str) -> impl Future<Output = ()> + Send;
    /// Deletes the shared queue of requests with what lies in it.
    fn delete_requests_queue(&self) -> impl Future<Output = ()> + Send;
    /// Declares all that the service needs, as `notary broker apply` does.
    fn declare_requests_queue(&self) -> impl Future<Output = ()> + Send;
    /// Has the broker close every connection of the workers.
    fn cut_workers(&self) -> impl Future<Output = ()> + Send;
    /// Kills the broker without a word (SIGKILL), and starts it again on what its disk holds.
    fn kill_and_restart(&self) -> impl Future<Output = ()> + Send;
    /// Stops the broker's process (SIGSTOP).
    fn freeze(&self);
    /// Lets it go on (SIGCONT).
    fn thaw(&self);
}

/// How a worker is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Requests that the worker may hold unsettled.
    pub slots: usize,
    /// How long a reply waits to be safe.
    pub hold: Duration,
    /// Deliveries after which a request is parked.
    pub deliveries_max: u32,
    /// How long the broker may be silent.
    pub silence_max: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self { slots: 8, hold: LONG, deliveries_max: 1_000, silence_max: Duration::from_secs(10) }
    }
}

/// A worker's side.
#[derive(Clone)]
pub struct Worker {
    pub queue: Arc<dyn RequestQueue>,
    pub probe: Arc<dyn Probe>,
    /// Deliveries that this worker holds, taken or waiting to be.
    pub undisposed: Arc<dyn Fn() -> usize + Send + Sync>,
}

/// A party's connection.
pub trait Peer: Send + 'static {
    /// Sends a request with [`dedup_id`] and returns once the broker has it safely.
    fn send(&self, body: &str) -> impl Future<Output = ()> + Send;
    /// The same, or the reason why it is not known to be safe.
    fn try_send(&self, body: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Sends a request that names the worker to serve it.
    fn send_naming(&self, body: &str, worker: &str) -> impl Future<Output = ()> + Send;
    /// Sends a request that asks for its answer in `reply_queue`.
    fn send_reply_to(&self, body: &str, reply_queue: &str) -> impl Future<Output = ()> + Send;
    /// Sends a request that claims to come from the user of `party`. An error is the broker's refusal.
    fn send_as(&self, body: &str, party: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Takes, and so accepts, the next answer. Connects again if need be. Cancel-safe.
    fn next_answer(&mut self) -> impl Future<Output = Answer> + Send;
}

/// The id under which [`Peer`]s send `body`, and under which answers go.
pub fn dedup_id(body: &str) -> String {
    // Long enough that no two differ behind the cut: Artemis drops the second message of an id.
    format!("id-{body:.40}")
}

pub fn reply(body: &str) -> Reply {
    let headers = vec![("outcome", "test".to_owned())];
    Reply { dedup_id: dedup_id(body), headers, body: body.as_bytes().to_vec() }
}

impl Worker {
    pub async fn receive(&self) -> Delivery {
        timeout(LONG, self.queue.receive()).await.expect("a request should have come").unwrap()
    }

    pub async fn settle(&self, delivery: &Delivery, settlement: Settlement) {
        timeout(LONG, self.queue.settle(delivery.id, settlement)).await.expect("it is settled in time").unwrap();
    }

    pub async fn accept(&self, delivery: &Delivery) {
        self.settle(delivery, Settlement::Accept).await;
    }

    pub async fn release(&self, delivery: &Delivery) {
        self.settle(delivery, Settlement::Release).await;
    }

    /// Whether the broker works, as the probe sees it within `patience`.
    async fn sees(&self, works: bool, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.probe.probe().await.is_ok() != works {
            assert!(Instant::now() < deadline, "the probe should say {works} within {patience:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn undisposed(&self) -> usize {
        (self.undisposed)()
    }
}

pub fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

/// Waits for something to become true, which it does soon or never.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn answer<P: Peer>(peer: &mut P) -> Answer {
    timeout(LONG, peer.next_answer()).await.expect("an answer should have come")
}

/// Takes what is parked until there is something.
async fn parked<R: Rig>(rig: &R) -> Vec<(String, String)> {
    let deadline = Instant::now() + LONG;
    loop {
        let parked = rig.take_parked().await;
        if !parked.is_empty() {
            return parked;
        }
        assert!(Instant::now() < deadline, "nothing is parked");
        sleep(Duration::from_millis(20)).await;
    }
}

fn is_unsafe<T: std::fmt::Debug>(result: &Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Unsafe(_)))
}

pub async fn a_request_is_delivered_once_with_its_authenticated_caller<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("first").await;
    let first = worker.receive().await;
    assert_eq!((text(&first), first.caller.organisation.as_str()), ("first", "Alice"));
    assert_eq!((first.dedup_id.as_deref(), first.prior_deliveries), (Some("id-first"), 0));

    alice.send("second").await;
    let second = worker.receive().await;
    assert_eq!(text(&second), "second", "the first is not delivered again while it is unsettled");
    worker.accept(&first).await;
    worker.accept(&second).await;
    assert_eq!(worker.undisposed(), 0);
}

pub async fn a_released_request_comes_again_also_to_another_worker<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("request").await;
    let delivery = worker.receive().await;
    worker.release(&delivery).await;
    let again = worker.receive().await;
    assert_eq!((text(&again), again.prior_deliveries), ("request", 1));
    assert_ne!(again.id, delivery.id);

    let other = rig.worker(2, Setup::default()).await;
    // Leaving gives back only what waits unreceived, so that the other one gets it for certain.
    worker.queue.serve(false);
    worker.release(&again).await;
    let again = other.receive().await;
    // At least: it may have been on its way to the first worker when that one left.
    assert!(text(&again) == "request" && again.prior_deliveries >= 2, "{}", again.prior_deliveries);
    other.accept(&again).await;
}

pub async fn an_accepted_request_never_comes_again<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("request").await;
    let delivery = worker.receive().await;
    worker.accept(&delivery).await;
    assert!(is_unsafe(&worker.queue.settle(delivery.id, Settlement::Release).await), "it is settled once");
    assert!(is_unsafe(&worker.queue.reply(delivery.id, vec![reply("late")]).await));
    worker.queue.close().await;
    let other = rig.worker(2, Setup::default()).await;
    alice.send("next").await;
    let delivery = other.receive().await;
    assert_eq!(text(&delivery), "next");
    other.accept(&delivery).await;
}

pub async fn a_rejected_request_is_parked_with_its_reason<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("garbage").await;
    let delivery = worker.receive().await;
    worker.settle(&delivery, Settlement::Reject { reason: "not a session\nmessage\u{1b}[2J".into() }).await;
    assert_eq!(worker.undisposed(), 0);
    let parked = parked(&rig).await;
    let [(body, reason)] = &parked[..] else { panic!("{parked:?}") };
    assert_eq!(body, "garbage");
    assert!(reason.contains("not a session") && !reason.contains(char::is_control), "{reason:?}");
    alice.send("next").await;
    let delivery = worker.receive().await;
    assert_eq!(text(&delivery), "next", "what is parked does not come again");
    worker.accept(&delivery).await;
}

pub async fn replies_arrive_in_order_and_unchanged<R: Rig>(rig: R) {
    let (worker, mut alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    let long = "x".repeat(1 << 20);
    alice.send("request").await;
    let delivery = worker.receive().await;
    worker.queue.reply(delivery.id, vec![reply("confirm"), reply("wait")]).await.unwrap();
    worker.queue.reply(delivery.id, vec![reply(&long), reply("end")]).await.unwrap();
    worker.queue.reply(delivery.id, Vec::new()).await.unwrap();
    for expected in ["confirm", "wait", &long, "end"] {
        let answer = answer(&mut alice).await;
        assert!(answer.body == expected.as_bytes() && answer.dedup_id == dedup_id(expected));
        assert!(answer.headers.contains(&("outcome".to_owned(), "test".to_owned())), "{:?}", answer.headers);
    }
    assert_eq!(worker.undisposed(), 1, "replying settles nothing");
    worker.accept(&delivery).await;
}

/// F29.
pub async fn a_reply_without_its_queue_is_unsafe_and_safe_once_it_is_declared<R: Rig>(rig: R) {
    let hurried = rig.worker(1, Setup { hold: SHORT, ..Setup::default() }).await;
    let alice = rig.connect("Alice").await;
    alice.send("request").await;
    drop(alice);
    let delivery = hurried.receive().await;
    rig.delete_reply_queue("Alice").await;
    assert!(is_unsafe(&hurried.queue.reply(delivery.id, vec![reply("lost")]).await));
    hurried.queue.serve(false);
    hurried.release(&delivery).await;

    let patient = rig.worker(2, Setup::default()).await;
    let delivery = patient.receive().await;
    let (queue, id) = (Arc::clone(&patient.queue), delivery.id);
    let replying = tokio::spawn(async move { queue.reply(id, vec![reply("one"), reply("two")]).await });
    sleep(SHORT).await;
    assert!(!replying.is_finished(), "the reply is held");
    rig.declare_reply_queue("Alice").await;
    replying.await.unwrap().unwrap();
    let mut alice = rig.connect("Alice").await;
    assert_eq!(answer(&mut alice).await.body, b"one");
    assert_eq!(answer(&mut alice).await.body, b"two");
    patient.accept(&delivery).await;
}

/// A1: who asks is whom the broker authenticated.
pub async fn a_claim_to_be_another_counts_for_nothing<R: Rig>(rig: R) {
    let (worker, mallory) = (rig.worker(1, Setup::default()).await, rig.connect("Mallory").await);
    match mallory.send_as("forged", "Alice").await {
        Err(refusal) => assert!(!refusal.is_empty()),
        Ok(()) => {
            let delivery = worker.receive().await;
            assert_eq!(delivery.caller.organisation, "Mallory");
            worker.accept(&delivery).await;
        }
    }
    let alice = rig.connect("Alice").await;
    alice.send("genuine").await;
    let delivery = worker.receive().await;
    assert_eq!((text(&delivery), delivery.caller.organisation.as_str()), ("genuine", "Alice"));
    worker.accept(&delivery).await;
}

pub async fn a_stranger_is_parked<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    let stranger = rig.connect_stranger().await;
    stranger.send("strange").await;
    let parked = parked(&rig).await;
    assert_eq!(parked[0].0, "strange");
    assert!(!parked[0].1.is_empty(), "with a reason");
    alice.send("known").await;
    let delivery = worker.receive().await;
    assert_eq!(text(&delivery), "known");
    worker.accept(&delivery).await;
    assert_eq!(worker.undisposed(), 0);
}

pub async fn a_request_for_anothers_reply_queue_is_parked<R: Rig>(rig: R) {
    let (worker, mallory) = (rig.worker(1, Setup::default()).await, rig.connect("Mallory").await);
    mallory.send_reply_to("spam", &rig.reply_queue("Alice")).await;
    let parked = parked(&rig).await;
    assert_eq!(parked[0].0, "spam");
    assert!(parked[0].1.contains("reply"), "{parked:?}");
    mallory.send_reply_to("fair", &rig.reply_queue("Mallory")).await;
    let delivery = worker.receive().await;
    assert_eq!(text(&delivery), "fair");
    worker.accept(&delivery).await;
}

/// F32.
pub async fn poison_is_parked_after_so_many_deliveries<R: Rig>(rig: R) {
    let worker = rig.worker(1, Setup { deliveries_max: 3, ..Setup::default() }).await;
    let alice = rig.connect("Alice").await;
    alice.send("poison").await;
    for prior in 0..3 {
        let delivery = worker.receive().await;
        assert_eq!((text(&delivery), delivery.prior_deliveries), ("poison", prior));
        worker.release(&delivery).await;
    }
    let parked = parked(&rig).await;
    assert_eq!(parked[0].0, "poison");
    assert!(parked[0].1.contains('3'), "{parked:?}");
    alice.send("healthy").await;
    let delivery = worker.receive().await;
    assert_eq!(text(&delivery), "healthy");
    worker.accept(&delivery).await;
}

/// BP6: the broker keeps what the worker has no place for, and others can take it.
pub async fn a_full_worker_leaves_requests_to_others<R: Rig>(rig: R) {
    const SLOTS: usize = 4;
    let (full, alice) = (rig.worker(1, Setup { slots: SLOTS, ..Setup::default() }).await, rig.connect("Alice").await);
    for n in 0..3 * SLOTS {
        alice.send(&n.to_string()).await;
    }
    let first = full.receive().await;
    eventually("the worker is full", || async { rig.waiting().await <= 2 * SLOTS + 1 }).await;
    assert!(full.undisposed() <= SLOTS, "{}", full.undisposed());
    assert!(rig.waiting().await >= 2 * SLOTS);

    let other = rig.worker(2, Setup { slots: 3 * SLOTS, ..Setup::default() }).await;
    let mut taken = Vec::new();
    for _ in 0..2 * SLOTS {
        let delivery = other.receive().await;
        taken.push(text(&delivery).to_owned());
        other.accept(&delivery).await;
    }
    assert!(!taken.contains(&text(&first).to_owned()), "what one worker holds no other gets");
    full.accept(&first).await;
}

pub async fn a_cancelled_receive_loses_nothing<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    let mut first = worker.queue.receive();
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut second = worker.queue.receive();
    assert!(futures_util::poll!(&mut second).is_pending());
    alice.send("request").await;
    alice.send("request").await;
    eventually("both are here", || async { worker.undisposed() == 2 }).await;
    // The first was woken for a request, and goes without it.
    drop(first);
    let got = timeout(LONG, second).await.expect("the other receiver is woken").unwrap();
    worker.accept(&got).await;
    worker.accept(&worker.receive().await).await;
    assert_eq!(worker.undisposed(), 0);
}

pub async fn a_worker_that_leaves_gives_back_and_may_join_again<R: Rig>(rig: R) {
    let (worker, mut alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("taken").await;
    let taken = worker.receive().await;
    alice.send("waiting").await;
    eventually("the second request is here", || async { worker.undisposed() == 2 }).await;
    worker.queue.serve(false);
    eventually("what waited is given back", || async { rig.waiting().await == 1 }).await;
    assert_eq!(worker.undisposed(), 1);
    // What it holds it finishes.
    worker.queue.reply(taken.id, vec![reply("answer")]).await.unwrap();
    assert_eq!(answer(&mut alice).await.body, b"answer");
    worker.accept(&taken).await;
    assert_eq!(rig.waiting().await, 1, "it takes no more");

    worker.queue.serve(true);
    let waiting = worker.receive().await;
    assert_eq!(text(&waiting), "waiting");
    worker.accept(&waiting).await;
}

pub async fn a_closed_worker_gives_all_back_and_wakes_its_receivers<R: Rig>(rig: R) {
    let (worker, alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    let mut receivers = [worker.queue.receive(), worker.queue.receive()];
    for receiver in &mut receivers {
        assert!(futures_util::poll!(receiver).is_pending());
    }
    timeout(LONG, worker.queue.close()).await.expect("it closes in time");
    for receiver in receivers {
        assert_eq!(receiver.await.unwrap_err(), QueueError::Closed);
    }

    let worker = rig.worker(1, Setup::default()).await;
    alice.send("request").await;
    let held = worker.receive().await;
    alice.send("request").await;
    eventually("the second request is here", || async { worker.undisposed() == 2 }).await;
    timeout(LONG, worker.queue.close()).await.expect("it closes in time");
    assert!(is_unsafe(&worker.queue.settle(held.id, Settlement::Accept).await));
    assert_eq!((worker.queue.receive().await.unwrap_err(), worker.undisposed()), (QueueError::Closed, 0));
    let other = rig.worker(2, Setup::default()).await;
    for _ in 0..2 {
        let delivery = other.receive().await;
        assert_eq!(text(&delivery), "request");
        other.accept(&delivery).await;
    }
}

/// LB6.
pub async fn a_named_worker_serves_and_an_absent_one_is_stood_in_for<R: Rig>(rig: R) {
    let alice = rig.connect("Alice").await;
    let (one, two) = (rig.worker(1, Setup::default()).await, rig.worker(2, Setup::default()).await);
    for _ in 0..4 {
        alice.send_naming("for two", &rig.worker_name(2)).await;
        let delivery = two.receive().await;
        assert_eq!((text(&delivery), delivery.caller.organisation.as_str()), ("for two", "Alice"));
        two.accept(&delivery).await;
    }
    two.queue.close().await;
    alice.send_naming("for two", &rig.worker_name(2)).await;
    let delivery = one.receive().await;
    assert_eq!((text(&delivery), delivery.caller.organisation.as_str()), ("for two", "Alice"), "another stands in");
    one.accept(&delivery).await;
    alice.send_naming("for nobody", "O=Nobody, L=Zurich, C=CH").await;
    let delivery = one.receive().await;
    assert_eq!(text(&delivery), "for nobody", "so it does for a worker that never was");
    one.accept(&delivery).await;
}

/// F31, LB5.
pub async fn after_a_lost_connection_all_is_unsafe_and_comes_again<R: Rig>(rig: R) {
    let (worker, mut alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("request").await;
    let delivery = worker.receive().await;
    rig.cut_workers().await;
    // It comes again on the next connection, so the loss has been noticed by then.
    let again = worker.receive().await;
    // Not every broker counts a delivery that ended with the connection: Artemis does sometimes.
    assert!(text(&again) == "request" && again.prior_deliveries <= 1, "{again:?}");
    assert!(is_unsafe(&worker.queue.reply(delivery.id, vec![reply("late")]).await));
    assert!(is_unsafe(&worker.queue.settle(delivery.id, Settlement::Accept).await));
    assert_eq!(worker.undisposed(), 1, "nothing leaks");
    worker.queue.reply(again.id, vec![reply("answer")]).await.unwrap();
    worker.accept(&again).await;
    assert_eq!(answer(&mut alice).await.body, b"answer");
    worker.sees(true, LONG).await;
}

/// F28.
pub async fn a_deleted_request_queue_is_noticed_and_served_again_once_declared<R: Rig>(rig: R) {
    let worker = rig.worker(1, Setup::default()).await;
    worker.sees(true, LONG).await;
    rig.delete_requests_queue().await;
    worker.sees(false, Duration::from_secs(5)).await;
    rig.declare_requests_queue().await;
    worker.sees(true, LONG).await;
    let alice = rig.connect("Alice").await;
    alice.send("request").await;
    let delivery = worker.receive().await;
    assert_eq!(text(&delivery), "request");
    worker.accept(&delivery).await;
}

/// F25, F26: what the broker confirmed survives its death; duplicates are normal.
pub async fn nothing_is_lost_when_the_broker_is_killed_under_load<R: Rig>(rig: R) {
    const REQUESTS: usize = 200;
    let setup = Setup { slots: 16, ..Setup::default() };
    let mut workers = Vec::new();
    for number in [1, 2] {
        let worker = rig.worker(number, setup).await;
        workers.push(tokio::spawn(serve(worker.clone())));
    }
    let mut alice = rig.connect("Alice").await;
    let sender = rig.connect("Alice").await;
    let rig = Arc::new(rig);
    let sending = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move {
            let mut sender = sender;
            for n in 0..REQUESTS {
                let body = format!("request {n}");
                while sender.try_send(&body).await.is_err() {
                    sleep(Duration::from_millis(100)).await;
                    sender = rig.connect("Alice").await;
                }
            }
        }
    });
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    let mut killing = None;
    while answers.len() < REQUESTS {
        let answer = timeout(2 * LONG, alice.next_answer()).await.expect("every confirmed request is answered");
        *answers.entry(String::from_utf8(answer.body).unwrap()).or_default() += 1;
        if answers.len() == REQUESTS / 4 && killing.is_none() {
            let rig = Arc::clone(&rig);
            killing = Some(tokio::spawn(async move { rig.kill_and_restart().await }));
        }
    }
    killing.expect("it was killed").await.unwrap();
    sending.await.unwrap();
    let expected: Vec<String> = (0..REQUESTS).map(|n| format!("answer to request {n}")).collect();
    assert!(expected.iter().all(|answer| answers.contains_key(answer)), "{answers:?}");
    for worker in workers {
        worker.abort();
    }
}

/// Answers everything, and accepts what it answered safely, until the queue closes.
async fn serve(worker: Worker) {
    while let Ok(delivery) = worker.queue.receive().await {
        let worker = worker.clone();
        tokio::spawn(async move {
            let answer = reply(&format!("answer to {}", text(&delivery)));
            let settlement = match worker.queue.reply(delivery.id, vec![answer]).await {
                Ok(()) => Settlement::Accept,
                Err(_) => Settlement::Release,
            };
            // If this is not safe the request comes again and gets the same answer.
            let _ = worker.queue.settle(delivery.id, settlement).await;
        });
    }
}

/// F27.
pub async fn a_frozen_broker_is_noticed_and_served_again_when_it_goes_on<R: Rig>(rig: R) {
    let silence_max = Duration::from_secs(2);
    let worker = rig.worker(1, Setup { silence_max, hold: SHORT, ..Setup::default() }).await;
    let mut alice = rig.connect("Alice").await;
    alice.send("request").await;
    let held = worker.receive().await;
    worker.sees(true, LONG).await;
    rig.freeze();
    // Two periods of silence and some: readiness must follow soon.
    worker.sees(false, 2 * silence_max + Duration::from_secs(2)).await;
    let replied = timeout(LONG, worker.queue.reply(held.id, vec![reply("never")])).await.expect("it ends in time");
    assert!(is_unsafe(&replied));
    let settled = timeout(LONG, worker.queue.settle(held.id, Settlement::Release)).await.expect("it ends in time");
    assert!(is_unsafe(&settled));
    assert_eq!(worker.undisposed(), 0);
    rig.thaw();
    worker.sees(true, LONG).await;
    let again = worker.receive().await;
    assert_eq!(text(&again), "request");
    worker.queue.reply(again.id, vec![reply("answer")]).await.unwrap();
    worker.accept(&again).await;
    assert_eq!(answer(&mut alice).await.body, b"answer");
}

/// Stamps every claim onto an adapter.
#[macro_export]
macro_rules! shared_broker_suite {
    ($rig:ty) => {
        $crate::shared_broker_suite! { $rig, start:
            a_request_is_delivered_once_with_its_authenticated_caller,
            a_released_request_comes_again_also_to_another_worker,
            an_accepted_request_never_comes_again,
            a_rejected_request_is_parked_with_its_reason,
            replies_arrive_in_order_and_unchanged,
            a_reply_without_its_queue_is_unsafe_and_safe_once_it_is_declared,
            a_claim_to_be_another_counts_for_nothing,
            a_stranger_is_parked,
            a_request_for_anothers_reply_queue_is_parked,
            poison_is_parked_after_so_many_deliveries,
            a_full_worker_leaves_requests_to_others,
            a_cancelled_receive_loses_nothing,
            a_worker_that_leaves_gives_back_and_may_join_again,
            a_closed_worker_gives_all_back_and_wakes_its_receivers,
            a_named_worker_serves_and_an_absent_one_is_stood_in_for,
            after_a_lost_connection_all_is_unsafe_and_comes_again,
            a_deleted_request_queue_is_noticed_and_served_again_once_declared,
        }
        $crate::shared_broker_suite! { $rig, start_alone:
            nothing_is_lost_when_the_broker_is_killed_under_load,
            a_frozen_broker_is_noticed_and_served_again_when_it_goes_on,
        }
    };
    ($rig:ty, $start:ident: $($claim:ident,)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $claim() {
            // What cannot be had here says so itself.
            if let Some(rig) = <$rig as $crate::suite::Rig>::$start().await {
                $crate::suite::$claim(rig).await;
            }
        })+
    };
}
