//! Corda nodes behind an Artemis broker (row LB5): their bridges send to the broker's acceptor as to a node, workers take requests
//! from there and answer at the nodes' own brokers. Artemis is real, the nodes are ours; real ones are in `tests/corda`.

mod claims;
mod login;
#[path = "../p2p/rig.rs"]
mod rig;
#[path = "../services/mod.rs"]
mod services;
#[path = "../worker/mod.rs"]
mod worker;

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::types::messaging::{ApplicationProperties, Header, Message, Outcome};
use fe2o3_amqp::types::primitives::Binary;
use notary_worker::broker::Request;
use notary_worker::client::judge::Answer;
use notary_worker::domain::network::{HostAndPort, Route};
use notary_worker::ports::request_queue::Settlement;
use notary_worker::tls::peers::PeerTls;
use notary_worker::wire;
use rig::{Network, Node, PATIENCE};
use services::artemis::{ADMIN, Foreign, Login, PeerAcceptor, Server};
use services::or_skip;
use tokio::net::TcpStream;
use tokio::time::timeout;
use worker::Worker;

/// What every bridge says.
const PEER: &str = "SystemUsers/Peer";

/// A network whose two workers share an Artemis: an acceptor for each, as their node infos have different addresses.
pub(crate) struct Pool {
    pub network: Network,
    pub server: Server,
}

impl Pool {
    /// With everything declared, and no worker yet.
    pub(crate) fn start(login: Login) -> Option<Self> {
        let pool = Self::start_undeclared(login)?;
        for worker in [1, 2] {
            let applied = pool.broker("apply", worker);
            assert!(applied.status.success(), "{applied:?}");
        }
        Some(pool)
    }

    fn start_undeclared(login: Login) -> Option<Self> {
        let network = Network::create();
        let dir = network.dir();
        let files = [1, 2].map(|n| [dir.join(format!("tls-{n}/tls.pem")), dir.join(format!("tls-{n}/tls.p8"))]);
        let acceptors: Vec<_> = files
            .iter()
            .zip([1, 2])
            .map(|([chain, key], n)| PeerAcceptor { address: network.address(n), chain, key })
            .collect();
        let server = Server::start_for_peers(&acceptors, &dir.join("network/root.pem"), login);
        let server = or_skip("Artemis", server)?;
        std::fs::write(dir.join("admin.password"), ADMIN.1).expect("written");
        Some(Self { network, server })
    }

    fn secrets(&self) -> PathBuf {
        self.network.dir().join("secrets")
    }

    fn settings(&self, n: usize) -> Vec<String> {
        let mut settings = self.network.settings(n);
        settings.extend([
            "broker.kind=artemis".into(),
            "broker.senders=peers".into(),
            format!("broker.hosts={}", self.server.address()),
            format!("broker.user=worker{n}"),
            format!("broker.password=file:{}", self.secrets().join(format!("worker{n}.password")).display()),
            format!("broker.management_user={}", ADMIN.0),
            format!("broker.management_password=file:{}", self.network.dir().join("admin.password").display()),
        ]);
        settings
    }

    /// `notary broker VERB` with the settings of worker `n`.
    fn broker(&self, verb: &str, n: usize) -> Output {
        let mut command = worker::notary();
        std::fs::create_dir_all(self.secrets()).expect("a folder");
        command.args(["broker", verb, "--secrets", self.secrets().to_str().expect("UTF-8")]);
        for setting in self.settings(n) {
            command.args(["--set", &setting]);
        }
        command.output().expect("the program starts")
    }

    pub(crate) fn worker(&self, n: usize) -> Worker {
        self.worker_with(n, |_| ())
    }

    pub(crate) fn worker_with(&self, n: usize, prepare: impl FnOnce(&mut Command)) -> Worker {
        let mut command = worker::notary();
        command.arg("run");
        for setting in self.settings(n) {
            command.args(["--set", &setting]);
        }
        prepare(&mut command);
        Worker::start(command)
    }

    pub(crate) async fn admin(&self) -> Foreign {
        self.server.foreign(ADMIN.0, ADMIN.1).await
    }

    pub(crate) fn worker_inbox(&self, n: usize) -> String {
        format!("p2p.inbound.{}", self.network.worker_key(n).name_hash())
    }

    /// Messages in a queue, delivered and not settled or not.
    pub(crate) async fn depth(&self, queue: &str) -> usize {
        let mut admin = self.admin().await;
        let (waiting, delivering) = admin.depth(queue).await;
        admin.close().await;
        waiting + delivering
    }

    pub(crate) async fn wait_for_depth(&self, queue: &str, depth: usize) {
        let looking = async {
            while self.depth(queue).await != depth {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{queue} should hold {depth}"));
    }

    /// A connection of a node's, by a client that is not ours, that says it is `user`.
    pub(crate) async fn bridge(&self, tls: &PeerTls, user: &str, password: &str) -> Result<Foreign, String> {
        Foreign::over(self.secured(tls).await?, user, password).await
    }

    /// The same before SASL.
    pub(crate) async fn secured(
        &self,
        tls: &PeerTls,
    ) -> Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Debug + Send + Unpin + use<>, String> {
        let address = self.network.address(1);
        let addresses = vec![HostAndPort { host: address.ip().to_string(), port: address.port() }];
        let route = Route { addresses, names: vec![self.network.worker_name(1)] };
        let (config, name) = tls.client(&route).map_err(|error| error.to_string())?;
        let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let connecting = tokio_rustls::TlsConnector::from(config).connect(name, socket);
        connecting.await.map_err(|error| error.to_string())
    }
}

/// A message as a bridge writes it (PROTOCOL b.4), from whoever it claims to be.
pub(crate) fn message(request: &Request, claimed: Option<&str>) -> Message<fe2o3_amqp::types::messaging::Data> {
    let mut properties = ApplicationProperties::builder()
        .insert("platform-topic", "platform.session")
        .insert("platform-version", request.platform_version)
        .insert("_AMQ_DUPL_ID", request.dedup_id.clone());
    if let Some(claimed) = claimed {
        properties = properties.insert("_AMQ_VALIDATED_USER", claimed);
    }
    Message::builder()
        .header(Header { durable: true, ..Header::default() })
        .application_properties(properties.build())
        .data(Binary::from(request.body.clone()))
        .build()
}

/// Sends as a bridge does, whose rule is: accepted and settled in one disposition, or not done at all.
pub(crate) async fn send(bridge: &mut Foreign, to: &str, request: &Request, claimed: Option<&str>) -> Outcome {
    let mut sender = bridge.bridge_sender(to).await.expect("it may send there");
    let outcome = timeout(PATIENCE, sender.send(message(request, claimed))).await.expect("an outcome").expect("sent");
    sender.close().await.expect("closed");
    outcome
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn ask(pool: &Pool, node: &Arc<Node>, n: usize) {
    let (request, tx_id) = node.request();
    node.send(&pool.network, n, request).await.expect("no panic").expect("the broker has it");
    let answer = timeout(PATIENCE, node.answer(tx_id)).await.expect("an answer");
    assert!(matches!(answer, Answer::Notarised(_)), "{answer:?}");
}

/// LB5, RG5: declared by the verb, checked by the verb, and then a node's request goes its whole way, through whichever worker's
/// acceptor it comes.
#[test]
fn a_nodes_request_passes_artemis_and_is_answered_at_the_nodes_own_broker() {
    let Some(pool) = Pool::start_undeclared(Login::Declared) else { return };
    let planned = pool.broker("plan", 1);
    let told = text(&planned);
    assert_eq!(planned.status.code(), Some(1), "{planned:?}");
    for expected in
        [&pool.network.service_inbox(), &pool.worker_inbox(1), "NotaryPeers {", "SystemUsers/Peer=", "peer=/"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for n in [1, 2] {
        let applied = pool.broker("apply", n);
        assert!(applied.status.success(), "{applied:?}");
        let again = pool.broker("plan", n);
        assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    }
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let one = pool.worker(1);
        ask(&pool, &alice, 1).await;
        let checked = pool.broker("check", 1);
        assert!(checked.status.success(), "{}", text(&checked));
        assert!(text(&checked).contains("artemis: acceptor peers-0: for Corda nodes"), "{}", text(&checked));
        // Both acceptors lead to the same inbox.
        ask(&pool, &alice, 2).await;
        pool.wait_for_depth(&pool.network.service_inbox(), 0).await;

        // What follows a confirm, such as the client's End, comes to the worker's own inbox.
        let tls = alice.tls().clone();
        let mut bridge = pool.bridge(&tls, PEER, PEER).await.expect("a node is let in");
        let end = Request { dedup_id: "end-1".into(), platform_version: 12, body: wire::encode_session_end(7) };
        let outcome = send(&mut bridge, &pool.worker_inbox(1), &end, Some(&alice.name().to_string())).await;
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        pool.wait_for_depth(&pool.worker_inbox(1), 0).await;
        assert_eq!(pool.depth("notary.dead").await, 0, "nothing of it is parked");
        bridge.close().await;
        assert_eq!(one.terminate().code(), Some(0));
    });
}

/// What a bridge sends again under the same id is served again, with the same messages under the same ids: the broker drops nothing
/// that it has said it accepted.
#[test]
fn a_request_that_is_sent_again_is_answered_again() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let (request, tx_id) = alice.request();
        let inbox = pool.network.service_inbox();
        for _ in 0..2 {
            alice.send(&pool.network, 1, request.clone()).await.expect("no panic").expect("the broker has it");
        }
        pool.wait_for_depth(&inbox, 2).await;
        let worker = pool.worker(1);
        for _ in 0..2 {
            assert!(matches!(timeout(PATIENCE, alice.answer(tx_id)).await.expect("an answer"), Answer::Notarised(_)));
        }
        pool.wait_for_depth(&inbox, 0).await;
        // Also when the first is long done, as after a node's restore from a backup.
        alice.send(&pool.network, 2, request).await.expect("no panic").expect("the broker has it");
        assert!(matches!(timeout(PATIENCE, alice.answer(tx_id)).await.expect("an answer"), Answer::Notarised(_)));
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// F03, P7: requests survive the worker that had them and the broker that holds them, and wait for a node whose own broker is away.
#[test]
fn requests_outlive_a_worker_the_broker_and_an_absence_of_the_nodes_broker() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let inbox = pool.network.service_inbox();
        let (request, tx_id) = alice.request();
        let dying = pool.worker_with(1, |command| {
            command.env("NOTARY_FAULTS", "published=kill");
        });
        alice.send(&pool.network, 1, request).await.expect("no panic").expect("the broker has it");
        assert!(matches!(timeout(PATIENCE, alice.answer(tx_id)).await.expect("an answer"), Answer::Notarised(_)));
        dying.wait();
        pool.wait_for_depth(&inbox, 1).await;
        pool.server.kill();
        pool.server.restart();
        pool.wait_for_depth(&inbox, 1).await;

        alice.stop();
        let other = pool.worker_with(2, |command| {
            command.args(["--set", "p2p.answer_hold_ms=500"]);
        });
        // The broker's pauses are between 250 ms and, doubling, 60 s: give it some rounds in vain.
        let looking = async {
            while !other.get("/metrics").1.contains("notary_answers_not_taken_total 2") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, looking).await.expect("the worker tries again");
        assert_eq!(pool.depth(&inbox).await, 1, "it is not settled");
        alice.start();
        assert!(matches!(timeout(PATIENCE, alice.answer(tx_id)).await.expect("an answer"), Answer::Notarised(_)));
        pool.wait_for_depth(&inbox, 0).await;
        assert_eq!(pool.depth("notary.dead").await, 0);
        assert_eq!(other.terminate().code(), Some(0));
    });
}

/// P8: an inbox that is full refuses nothing: a bridge whose message is refused would offer it again at once, for ever. It gets no
/// credit, and what it has waits with its node.
#[test]
fn a_full_inbox_makes_bridges_wait_and_refuses_nothing() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        const MESSAGES: usize = 300;
        let alice = pool.network.node("alice");
        let inbox = pool.network.service_inbox();
        let mut admin = pool.admin().await;
        let small = serde_json::json!({
            "addressFullMessagePolicy": "BLOCK", "maxSizeBytes": 300_000, "pageSizeBytes": 100_000, "autoCreateQueues": false,
            "autoCreateAddresses": false, "deadLetterAddress": "notary.dead", "sendToDLAOnNoRoute": true,
        });
        let set = admin.operation("addAddressSettings", serde_json::json!([inbox, small.to_string()])).await;
        set.expect("set");
        let mut bridge = pool.bridge(alice.tls(), PEER, PEER).await.expect("a node is let in");
        let mut sender = bridge.bridge_sender(&inbox).await.expect("it may send there");
        let name = alice.name().to_string();
        let junk = |number: usize| {
            let dedup_id = format!("junk-{number}");
            message(&Request { dedup_id, platform_version: 12, body: vec![0; 20_000] }, Some(&name))
        };
        let mut sent = 0;
        // Without credit nothing is sent: what is pending then never was on its way.
        while let Ok(outcome) = timeout(Duration::from_secs(2), sender.send(junk(sent))).await {
            let outcome = outcome.expect("sent");
            assert!(matches!(outcome, Outcome::Accepted(_)), "message {sent}: {outcome:?}");
            sent += 1;
            assert!(sent < MESSAGES, "the inbox is never full");
        }
        // The worker parks what is no session message, and so makes room.
        let worker = pool.worker(1);
        for number in sent + 1..MESSAGES {
            let outcome = timeout(PATIENCE, sender.send(junk(number))).await.expect("credit again").expect("sent");
            assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        }
        pool.wait_for_depth(&inbox, 0).await;
        ask(&pool, &alice, 1).await;
        assert_eq!(worker.terminate().code(), Some(0));
        sender.close().await.expect("closed");
        bridge.close().await;
        admin.close().await;
    });
}

/// Answers are taken by the node in its own time: nothing of a request is settled before.
#[test]
fn a_request_is_settled_only_when_all_of_its_answer_is_accepted() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let worker = pool.worker(1);
        let (request, _) = alice.request();
        alice.send(&pool.network, 1, request).await.expect("no panic").expect("the broker has it");
        let inbox = pool.network.service_inbox();
        for _ in 0..3 {
            let delivery = alice.next().await;
            assert_eq!(delivery.caller, pool.network.worker_name(1));
            assert_eq!(pool.depth(&inbox).await, 1, "not settled before all of the answer is accepted");
            alice.settle(delivery, Settlement::Accept).await;
        }
        pool.wait_for_depth(&inbox, 0).await;
        assert_eq!(worker.terminate().code(), Some(0));
    });
}
