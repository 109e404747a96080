//! The three actors between a queue in memory and a store and key that a test holds by the hand (rows BP6, BP7, LB5; FEATURES gaps
//! 2 and 3): limits are real, batches form only while a commit is in flight, and one stage's trouble stays its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notary_worker::actors::pipeline::{Core, CoreLimits, CoreParts, Pipeline, PipelineParts};
use notary_worker::actors::signing::SigningKey;
use notary_worker::broker::Answer;
use notary_worker::broker::memory::{MemoryQueue, MemorySender};
use notary_worker::broker::{Outcome, Request};
use notary_worker::client::ledger::{Draft, WireTransaction};
use notary_worker::domain::announcement::Announcement;
use notary_worker::domain::check::CheckPolicy;
use notary_worker::domain::merkle_batch::Signable;
use notary_worker::domain::network::{KnownParameters, NetworkParameters, NetworkView, NotaryInfo};
use notary_worker::domain::{
    CheckedRequest, HashAlgorithm, Party, PublicKey, SecureHash, SignatureScheme, StateRef, Timestamp, TxId, Verdict,
    X500Name,
};
use notary_worker::keys::PrivateKey;
use notary_worker::ports::clock::SystemClock;
use notary_worker::ports::network_map::FixedNetworkMap;
use notary_worker::ports::signer::SignError;
use notary_worker::ports::uniqueness::CommitError;
use notary_worker::ports::{BoxFuture, Signer, UniquenessProvider};
use notary_worker::sql::memory::Memory;
use notary_worker::stages::session::{CLIENT_FLOW, Notary};
use notary_worker::stages::{Backoff, signing, uniqueness};
use notary_worker::wire::{
    CordaSignedForm, ExistingPayload, InitialSession, Limits, SessionMessage, decode_session_message,
    encode_session_initial,
};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Longer than anything takes that ends at all.
const LONG: Duration = Duration::from_secs(30);

/// A store that commits only when let, and fails as told.
struct GatedStore {
    inner: Memory,
    gate: Semaphore,
    batches: Mutex<Vec<usize>>,
    in_flight: AtomicUsize,
    failures: Mutex<Vec<CommitError>>,
}

impl GatedStore {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Memory::new(),
            gate: Semaphore::new(0),
            batches: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            failures: Mutex::default(),
        })
    }

    fn open(&self) {
        self.gate.add_permits(1_000_000);
    }

    fn batches(&self) -> Vec<usize> {
        self.batches.lock().expect("no panic").clone()
    }
}

impl UniquenessProvider for GatedStore {
    fn commit<'a>(
        &'a self,
        batch: &'a [CheckedRequest],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, CommitError>> {
        Box::pin(async move {
            self.batches.lock().expect("no panic").push(batch.len());
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.expect("never closed").forget();
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            let failure = self.failures.lock().expect("no panic").pop();
            match failure {
                Some(error) => Err(error),
                None => self.inner.commit(batch, now).await,
            }
        })
    }
}

/// A key that signs only when let.
struct GatedKey {
    key: PrivateKey,
    gate: Semaphore,
}

impl Signer for GatedKey {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    fn sign<'a>(&'a self, what: &'a Signable) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        Box::pin(async move {
            self.gate.acquire().await.expect("never closed").forget();
            Ok(self.key.sign(what.bytes()))
        })
    }

    fn announce<'a>(&'a self, what: &'a Announcement) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        Box::pin(async move { Ok(self.key.sign(what.bytes())) })
    }
}

struct World {
    runtime: Runtime,
    queue: Arc<MemoryQueue>,
    store: Arc<GatedStore>,
    signer: Arc<GatedKey>,
    pipeline: Option<Pipeline>,
    alice: Party,
    alice_key: PrivateKey,
    service: Party,
    parameters: SecureHash,
    sessions: AtomicUsize,
}

fn name(text: &str) -> X500Name {
    X500Name::parse(text).expect("a name")
}

fn world(flow_slots: usize, sign_at_once: bool) -> World {
    world_that_tells(Duration::MAX, flow_slots, sign_at_once)
}

/// A world whose clients are told of waits longer than `eta_message_threshold`.
fn world_that_tells(eta_message_threshold: Duration, flow_slots: usize, sign_at_once: bool) -> World {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (service_key, alice_key) =
        [(); 2].map(|()| PrivateKey::generate(SignatureScheme::Ed25519).expect("random")).into();
    let service =
        Party { name: name("O=Notary Service, L=Zurich, C=CH"), owning_key: service_key.public_key().clone() };
    let alice = Party { name: name("O=Alice Corp, L=Madrid, C=ES"), owning_key: alice_key.public_key().clone() };
    let parameters = SecureHash::sha256([3; 32]);
    let in_force = NetworkParameters {
        epoch: 1,
        minimum_platform_version: 4,
        notaries: vec![NotaryInfo { identity: service.clone(), validating: false }],
        max_message_size: 10_485_760,
        max_transaction_size: 10_485_760,
        modified_time: Timestamp::from_millis(0),
    };
    let view = NetworkView {
        parties: HashMap::from([(alice.name.clone(), alice.clone())]),
        routes: HashMap::new(),
        parameters: KnownParameters {
            current: Some(parameters),
            by_hash: HashMap::from([(parameters, Arc::new(in_force))]),
        },
    };
    let (store, queue) = (GatedStore::new(), Arc::new(MemoryQueue::new(1_000, LONG)));
    let signer = Arc::new(GatedKey { key: service_key, gate: Semaphore::new(0) });
    if sign_at_once {
        signer.gate.add_permits(1_000_000);
    }
    let backoff = Backoff { base_ms: 1, cap_ms: 5 };
    let core = CoreParts {
        uniqueness: Arc::clone(&store) as _,
        key: SigningKey { signer: Arc::clone(&signer) as _, form: Arc::new(CordaSignedForm), platform_version: 12 },
        clock: Arc::new(SystemClock),
        limits: CoreLimits {
            uniqueness_slots: 1_000,
            uniqueness: uniqueness::Limits {
                batch_requests_max: 500,
                batch_states_max: 10_000,
                commits_in_flight_max: 1,
                attempts_max: 3,
                backoff,
            },
            signing_slots: 1_000,
            signing: signing::Limits {
                batch_transactions_max: 500,
                signatures_in_flight_max: 1,
                attempts_max: 3,
                backoff,
            },
        },
    };
    let core = Core::start(core, runtime.handle()).expect("it starts");
    let policy = CheckPolicy { service_key: service.owning_key.clone(), states_limit: CheckPolicy::STATES_LIMIT };
    let parts = PipelineParts {
        notary: Arc::new(Notary::new(policy, Limits::DEFAULT, 12, "test worker".into())),
        queue: Arc::clone(&queue) as _,
        network_map: Arc::new(FixedNetworkMap(Arc::new(view))),
        suspects: Arc::default(),
        flow_slots,
        eta_message_threshold,
    };
    let pipeline = Some(Pipeline::start(core, parts, runtime.handle()));
    let sessions = AtomicUsize::new(1);
    World { runtime, queue, store, signer, pipeline, alice, alice_key, service, parameters, sessions }
}

impl World {
    fn spend(&self, coin: u8, salt: u8) -> WireTransaction {
        let draft = Draft {
            inputs: vec![StateRef { tx_id: TxId(SecureHash::sha256([coin; 32])), index: 0 }],
            references: Vec::new(),
            time_window: None,
            notary: self.service.clone(),
            parameters: self.parameters,
            digest: HashAlgorithm::Sha256,
            privacy_salt: [salt; 32],
        };
        draft.build().expect("it can be built")
    }

    fn start_session(&self, payload: Vec<u8>) -> Request {
        let session = self.sessions.fetch_add(1, Ordering::SeqCst) as i64;
        let body = encode_session_initial(&InitialSession {
            initiator_session_id: session,
            initiation_entropy: 7,
            flow_class: CLIENT_FLOW.into(),
            flow_version: 1,
            app_name: "test".into(),
            first_payload: Some(payload.into()),
            telemetry: None,
        });
        Request { dedup_id: format!("N-R-{session}-7-0-0"), platform_version: 12, body }
    }

    fn request(&self, transaction: &WireTransaction) -> Request {
        self.start_session(transaction.payload(&self.alice_key, 12).expect("it can be shown"))
    }

    fn sender(&self) -> MemorySender {
        self.queue.connect(self.alice.name.clone())
    }

    /// Depth of a stage, as the figures show it.
    fn depth(&self, stage: &str) -> usize {
        let gauges = self.pipeline.as_ref().expect("it runs").gauges();
        gauges.iter().find(|(name, _)| *name == stage).expect("a stage").1().0
    }

    fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = std::time::Instant::now() + LONG;
        while !holds(self) {
            assert!(std::time::Instant::now() < until, "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            pipeline.stop();
        }
    }
}

/// Which kinds of messages an answer has.
fn kinds(answers: &[Vec<u8>]) -> Vec<&'static str> {
    let kind = |body: &Vec<u8>| match decode_session_message(body, &Limits::DEFAULT).expect("it decodes") {
        SessionMessage::Existing { payload: ExistingPayload::Confirm { .. }, .. } => "confirm",
        SessionMessage::Existing { payload: ExistingPayload::Data(_), .. } => "data",
        SessionMessage::Existing { payload: ExistingPayload::End, .. } => "end",
        SessionMessage::Existing { payload: ExistingPayload::Error { .. }, .. } => "error",
        _ => "other",
    };
    answers.iter().map(kind).collect()
}

#[test]
fn a_full_worker_leaves_requests_with_their_senders() {
    let world = world(4, true);
    let sender = world.sender();
    let outcomes: Vec<_> = (0..20)
        .map(|coin| {
            let request = world.request(&world.spend(coin, coin));
            world.runtime.spawn(sender.send(request))
        })
        .collect();
    world.eventually("the worker is full", |world| world.depth("flow") == 4);
    world.eventually("a commit is in flight", |world| world.store.in_flight.load(Ordering::SeqCst) == 1);
    assert_eq!(world.depth("uniqueness"), 4, "no more than the flow stage admits");
    assert!(outcomes.iter().all(|outcome| !outcome.is_finished()), "nothing is settled before its answer is safe");

    world.store.open();
    world.runtime.block_on(async {
        let answers = async {
            for _ in 0..60 {
                sender.next_answer().await;
            }
        };
        tokio::time::timeout(LONG, answers).await.expect("three messages a request");
        for outcome in outcomes {
            assert_eq!(outcome.await.expect("no panic"), Ok(Outcome::Accepted));
        }
    });
    world.eventually("every slot is free again", |world| world.depth("flow") == 0);
    assert!(world.store.batches().iter().all(|size| *size <= 4), "{:?}", world.store.batches());
}

#[test]
fn a_lone_request_commits_at_once_and_a_batch_forms_only_behind_it() {
    let world = world(100, true);
    let sender = world.sender();
    let mut outcomes = vec![world.runtime.spawn(sender.send(world.request(&world.spend(0, 0))))];
    world.eventually("the first is committing", |world| world.store.batches() == [1]);
    for coin in 1..=10 {
        outcomes.push(world.runtime.spawn(sender.send(world.request(&world.spend(coin, coin)))));
    }
    world.eventually("ten wait behind it", |world| world.depth("uniqueness") == 11);
    assert_eq!(world.store.batches(), [1], "one commit in flight, as configured");
    world.store.open();
    world.runtime.block_on(async {
        for _ in 0..33 {
            tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered");
        }
    });
    assert_eq!(world.store.batches(), [1, 10]);
}

/// BP1, LB8: from the second request on there is a pace to go by. No two messages of one session share a deduplication id.
#[test]
fn a_client_that_has_to_wait_is_told_how_long_and_then_gets_its_answer() {
    let world = world_that_tells(Duration::ZERO, 10, true);
    let sender = world.sender();
    let since = std::time::Instant::now();
    let first = world.runtime.spawn(sender.send(world.request(&world.spend(1, 1))));
    world.eventually("the first is committing", |world| world.store.batches() == [1]);
    // The pace is counted in whole milliseconds.
    world.eventually("some time has passed", |_| since.elapsed() > Duration::from_millis(20));
    world.store.open();
    let answers = |count| {
        world.runtime.block_on(async {
            let mut answers = Vec::new();
            for _ in 0..count {
                answers.push(tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered"));
            }
            answers
        })
    };
    assert_eq!(kinds(&bodies(&answers(3))), ["confirm", "data", "end"], "nothing to go by yet");
    assert_eq!(world.runtime.block_on(first).expect("no panic"), Ok(Outcome::Accepted));
    world.eventually("it is done", |world| world.depth("flow") == 0);

    let second = world.runtime.spawn(sender.send(world.request(&world.spend(2, 2))));
    let told = answers(4);
    assert_eq!(kinds(&bodies(&told)), ["confirm", "data", "data", "end"]);
    let suffixes: Vec<_> = told.iter().map(|answer| answer.dedup_id.rsplit('-').nth(1).unwrap_or_default()).collect();
    assert_eq!(suffixes, ["0", "1", "2", "3"]);
    assert_eq!(world.runtime.block_on(second).expect("no panic"), Ok(Outcome::Accepted));
}

fn bodies(answers: &[Answer]) -> Vec<Vec<u8>> {
    answers.iter().map(|answer| answer.body.clone()).collect()
}

#[test]
fn a_slow_key_does_not_stop_commits() {
    let world = world(100, false);
    world.store.open();
    let sender = world.sender();
    let outcomes: Vec<_> =
        (0..10).map(|coin| world.runtime.spawn(sender.send(world.request(&world.spend(coin, coin))))).collect();
    world.eventually("all are committed", |world| world.depth("uniqueness") == 0 && world.depth("signing") == 10);
    // A double spend is refused meanwhile: the verdict needs no key.
    let refused = world.runtime.block_on(async {
        let outcome = world.runtime.spawn(sender.send(world.request(&world.spend(3, 99))));
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered").body);
        }
        assert_eq!(outcome.await.expect("no panic"), Ok(Outcome::Accepted));
        answers
    });
    assert_eq!(kinds(&refused), ["confirm", "error"]);
    assert!(outcomes.iter().all(|outcome| !outcome.is_finished()));
    world.signer.gate.add_permits(1_000);
    world.runtime.block_on(async {
        for _ in 0..30 {
            tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered");
        }
    });
}

#[test]
fn an_unknown_outcome_is_repeated_and_an_unavailable_store_gives_requests_back() {
    let world = world(10, true);
    world.store.open();
    let sender = world.sender();
    world.store.failures.lock().expect("no panic").push(CommitError::OutcomeUnknown("cut off".into()));
    let outcome = world.runtime.spawn(sender.send(world.request(&world.spend(1, 1))));
    world.runtime.block_on(async {
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered").body);
        }
        assert_eq!(kinds(&answers), ["confirm", "data", "end"]);
        assert_eq!(outcome.await.expect("no panic"), Ok(Outcome::Accepted));
    });

    let down = || CommitError::Unavailable("down".into());
    world.store.failures.lock().expect("no panic").extend([down(), down(), down()]);
    let outcome = world.runtime.block_on(sender.send(world.request(&world.spend(2, 2))));
    assert_eq!(outcome, Ok(Outcome::Released), "no answer is better than a guess");
}

#[test]
fn one_bad_request_does_not_hurt_its_neighbours() {
    let world = world(100, true);
    let sender = world.sender();
    let good: Vec<_> =
        (0..5).map(|coin| world.runtime.spawn(sender.send(world.request(&world.spend(coin, coin))))).collect();
    let garbage = Request { dedup_id: "garbage".into(), platform_version: 12, body: vec![0xff; 1000] };
    let parked = world.runtime.block_on(sender.send(garbage)).expect("an outcome");
    assert!(matches!(parked, Outcome::Rejected { .. }), "{parked:?}");
    let undecodable = world.runtime.spawn(sender.send(world.start_session(b"not a payload".to_vec())));
    world.store.open();
    world.runtime.block_on(async {
        for _ in 0..5 * 3 + 2 {
            tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered");
        }
        for outcome in good {
            assert_eq!(outcome.await.expect("no panic"), Ok(Outcome::Accepted));
        }
        assert_eq!(undecodable.await.expect("no panic"), Ok(Outcome::Accepted));
    });
}

#[test]
fn a_draining_worker_finishes_what_it_has_and_takes_no_more() {
    let world = world(10, true);
    let sender = world.sender();
    let first = world.runtime.spawn(sender.send(world.request(&world.spend(1, 1))));
    world.eventually("the first is committing", |world| world.store.in_flight.load(Ordering::SeqCst) == 1);
    let pipeline = world.pipeline.as_ref().expect("it runs");
    world.runtime.block_on(async {
        assert!(!pipeline.drain(Duration::from_millis(50)).await, "one request is not finished");
        let late = world.runtime.spawn(sender.send(world.request(&world.spend(2, 2))));
        world.store.open();
        let answers = async {
            for _ in 0..3 {
                tokio::time::timeout(LONG, sender.next_answer()).await.expect("answered");
            }
        };
        let (drained, ()) = tokio::join!(pipeline.drain(LONG), answers);
        assert!(drained, "an answer is safe once its receiver has it");
        assert_eq!(first.await.expect("no panic"), Ok(Outcome::Accepted));
        assert!(!late.is_finished(), "it stays with its sender");
    });
    assert_eq!(world.store.batches(), [1]);
}
