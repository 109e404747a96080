//! Artemis as the broker: the claims about every shared broker, and what only Artemis does.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fe2o3_amqp::types::messaging::annotations::{Annotations, OwnedKey};
use fe2o3_amqp::types::messaging::{ApplicationProperties, Message, MessageAnnotations, Properties};
use fe2o3_amqp::types::primitives::{Binary, Symbol, Value};
use notary_worker::broker::admin::{Administrator, CallerAccount, Service, WorkerAccount};
use notary_worker::broker::artemis::admin::ArtemisAdmin;
use notary_worker::broker::artemis::caller::{Answers, Caller};
use notary_worker::broker::artemis::{Access, Artemis, Options, Place};
use notary_worker::broker::callers::Callers;
use notary_worker::broker::{Answer, Outcome, Request};
use notary_worker::domain::X500Name;
use notary_worker::domain::network::NetworkView;
use notary_worker::ports::finding::{Finding, Severity};
use notary_worker::ports::network_map::FixedNetworkMap;
use notary_worker::tls::TlsFiles;
use serde_json::json;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

mod services;
#[path = "suites/shared_broker.rs"]
mod suite;

use services::artemis::{ADMIN, Certificates, Foreign, Server};
use services::or_skip;
use suite::{LONG, Peer, Rig, Setup, Worker, dedup_id};

const PARTIES: [&str; 3] = ["Alice", "Bob", "Mallory"];
/// May send requests, and is in no file of callers.
const STRANGER: &str = "stranger";
const PASSWORD: &str = "secret";
/// Looks after what is parked.
const KEEPER: &str = "keeper";

fn name(organisation: &str) -> X500Name {
    X500Name::parse(&format!("O={organisation}, L=Zurich, C=CH")).unwrap()
}

fn worker_name(number: u8) -> X500Name {
    name(&format!("Notary Worker {number}"))
}

fn access(server: &Server, user: &str, password: &'static str) -> Access {
    Access {
        hosts: vec![server.address()],
        user: user.to_owned(),
        password: Arc::new(|| Ok(Zeroizing::new(password.into()))),
        tls: None,
        silence_max: Duration::from_secs(10),
        name: user.to_owned(),
    }
}

/// A service of its own, with users of its own, on a broker.
#[derive(Clone)]
pub struct ArtemisRig {
    server: Arc<Server>,
    prefix: String,
    folder: Arc<tempfile::TempDir>,
}

impl ArtemisRig {
    async fn on(server: Arc<Server>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Self::with_prefix(server, format!("notary{}", NEXT.fetch_add(1, Ordering::Relaxed))).await
    }

    async fn with_prefix(server: Arc<Server>, prefix: String) -> Self {
        let rig = Self { server, prefix, folder: Arc::new(tempfile::tempdir().unwrap()) };
        let lines = PARTIES.map(|party| format!("{} = \"{}\"\n", rig.user(party), name(party)));
        std::fs::write(rig.folder.path().join("callers.toml"), lines.concat()).unwrap();
        let service = rig.service();
        let secrets = service.secrets.clone().unwrap();
        std::fs::create_dir(&secrets).unwrap();
        for user in service.workers.iter().map(|w| &w.user).chain(service.callers.iter().map(|c| &c.user)) {
            std::fs::write(secrets.join(format!("{user}.password")), PASSWORD).unwrap();
        }
        rig.apply().await;
        let keeper = json!([rig.user(KEEPER), PASSWORD, format!("{}.admin", rig.prefix), true]);
        rig.operation("addUser", keeper).await;
        rig
    }

    fn user(&self, party: &str) -> String {
        format!("{}-{}", self.prefix, party.to_lowercase())
    }

    fn service(&self) -> Service {
        let worker = |number: u8| WorkerAccount {
            name: worker_name(number),
            user: self.user(&format!("worker{number}")),
            inbox: None,
        };
        let caller = |party: &&str| CallerAccount { user: self.user(party), inbox: None };
        Service {
            prefix: self.prefix.clone(),
            workers: vec![worker(1), worker(2)],
            callers: PARTIES.iter().chain(&[STRANGER]).map(caller).collect(),
            inbox: None,
            secrets: Some(self.folder.path().join("secrets")),
        }
    }

    fn admin(&self) -> ArtemisAdmin {
        ArtemisAdmin::new(access(&self.server, ADMIN.0, ADMIN.1), self.service()).unwrap()
    }

    async fn administer<T: Send + 'static>(&self, work: impl FnOnce(&ArtemisAdmin) -> T + Send + 'static) -> T {
        // Artemis writes its files of users whole: two at once would lose one's.
        static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _turn = ONE_AT_A_TIME.lock().await;
        let rig = self.clone();
        tokio::task::spawn_blocking(move || work(&rig.admin())).await.unwrap()
    }

    async fn apply(&self) {
        self.administer(|admin| admin.apply()).await.unwrap();
    }

    async fn foreign(&self) -> Foreign {
        self.server.foreign(ADMIN.0, ADMIN.1).await
    }

    async fn operation(&self, operation: &str, arguments: serde_json::Value) -> serde_json::Value {
        let mut foreign = self.foreign().await;
        let answer = foreign.operation(operation, arguments).await.unwrap();
        foreign.close().await;
        answer
    }

    fn queue(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn options(&self, number: u8, setup: Setup) -> Options {
        let user = self.user(&format!("worker{number}"));
        let access = Access { silence_max: setup.silence_max, ..access(&self.server, &user, PASSWORD) };
        let place = Place { prefix: self.prefix.clone(), worker: worker_name(number), platform_version: 12 };
        let mut options = Options::new(access, &place);
        options.slots = setup.slots;
        options.deliveries_max = setup.deliveries_max;
        options.reply_hold = setup.hold;
        options.reconnect_cap = Duration::from_secs(1);
        options
    }

    async fn open(&self, options: Options) -> Result<Worker, String> {
        let callers = Callers::load(&self.folder.path().join("callers.toml")).unwrap();
        let map = Arc::new(FixedNetworkMap(Arc::new(NetworkView::default())));
        let queue = Arc::new(Artemis::open(options, callers, map, &Handle::current()).await?);
        let counted = Arc::clone(&queue);
        Ok(Worker { queue: Arc::clone(&queue) as _, probe: queue, undisposed: Arc::new(move || counted.undisposed()) })
    }

    async fn caller(&self, party: &str) -> Result<Caller, String> {
        let user = self.user(party);
        let access = access(&self.server, &user, PASSWORD);
        let caller = Caller::connect(&access, &user, &self.prefix, None, LONG, &Handle::current()).await;
        caller.map_err(|error| error.to_string())
    }

    async fn peer(&self, party: &str) -> ArtemisPeer {
        let deadline = tokio::time::Instant::now() + LONG;
        let caller = loop {
            match self.caller(party).await {
                Ok(caller) => break caller,
                // The broker may be starting again.
                Err(problem) => assert!(tokio::time::Instant::now() < deadline, "{problem}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        ArtemisPeer { rig: self.clone(), party: party.to_owned(), caller, answers: None, sent: Mutex::default() }
    }
}

impl Rig for ArtemisRig {
    type Peer = ArtemisPeer;

    async fn start() -> Option<Self> {
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        Some(Self::on(or_skip("Artemis", server)?).await)
    }

    async fn start_alone() -> Option<Self> {
        let server = tokio::task::spawn_blocking(|| Server::start(None)).await.unwrap();
        Some(Self::on(Arc::new(or_skip("Artemis", server)?)).await)
    }

    async fn worker(&self, number: u8, setup: Setup) -> Worker {
        self.open(self.options(number, setup)).await.unwrap()
    }

    fn worker_name(&self, number: u8) -> String {
        worker_name(number).to_string()
    }

    async fn connect(&self, party: &str) -> ArtemisPeer {
        self.peer(party).await
    }

    async fn connect_stranger(&self) -> ArtemisPeer {
        self.peer(STRANGER).await
    }

    fn reply_queue(&self, party: &str) -> String {
        self.queue(&format!("replies.{}", self.user(party)))
    }

    async fn waiting(&self) -> usize {
        let mut foreign = self.foreign().await;
        let (waiting, _) = foreign.depth(&self.queue("requests")).await;
        foreign.close().await;
        waiting
    }

    async fn take_parked(&self) -> Vec<(String, String)> {
        let mut keeper = self.server.foreign(&self.user(KEEPER), PASSWORD).await;
        let taken = keeper.take_all(&self.queue("dead")).await;
        keeper.close().await;
        let parked = taken.into_iter().map(|(body, properties)| {
            let reason = properties.into_iter().find(|(name, _)| name == "x-notary-reason").unwrap().1;
            (String::from_utf8(body).unwrap(), reason)
        });
        parked.collect()
    }

    async fn delete_reply_queue(&self, party: &str) {
        self.operation("destroyQueue", json!([self.reply_queue(party), true])).await;
    }

    async fn declare_reply_queue(&self, _: &str) {
        self.apply().await;
    }

    async fn delete_requests_queue(&self) {
        self.operation("destroyQueue", json!([self.queue("requests"), true])).await;
    }

    async fn declare_requests_queue(&self) {
        self.apply().await;
    }

    async fn cut_workers(&self) {
        for number in [1, 2] {
            self.operation("closeConnectionsForUser", json!([self.user(&format!("worker{number}"))])).await;
        }
    }

    async fn kill_and_restart(&self) {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
        })
        .await
        .unwrap();
    }

    fn freeze(&self) {
        self.server.freeze();
    }

    fn thaw(&self) {
        self.server.thaw();
    }
}

pub struct ArtemisPeer {
    rig: ArtemisRig,
    party: String,
    caller: Caller,
    answers: Option<Answers>,
    /// How often each body was sent: the broker drops what has an id that it knows, so a second request needs an id of its own.
    sent: Mutex<HashMap<String, usize>>,
}

impl ArtemisPeer {
    async fn send_with(&self, body: &str, worker: Option<&str>, reply_to: Option<&str>) {
        let times = {
            let mut sent = self.sent.lock().unwrap();
            let times = sent.entry(body.to_owned()).or_default();
            *times += 1;
            *times
        };
        let dedup_id = if times == 1 { dedup_id(body) } else { format!("{}-{times}", dedup_id(body)) };
        let request = Request { dedup_id, platform_version: 12, body: body.as_bytes().to_vec() };
        assert_eq!(self.caller.send(&request, worker, reply_to).await, Ok(Outcome::Accepted));
    }
}

impl Peer for ArtemisPeer {
    async fn send(&self, body: &str) {
        self.send_with(body, None, None).await;
    }

    async fn try_send(&self, body: &str) -> Result<(), String> {
        let request = Request { dedup_id: dedup_id(body), platform_version: 12, body: body.as_bytes().to_vec() };
        match self.caller.send(&request, None, None).await {
            Ok(Outcome::Accepted) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    async fn send_naming(&self, body: &str, worker: &str) {
        self.send_with(body, Some(worker), None).await;
    }

    async fn send_reply_to(&self, body: &str, reply_queue: &str) {
        self.send_with(body, None, Some(reply_queue)).await;
    }

    /// Through the other's entrance; forged properties are tried below.
    async fn send_as(&self, body: &str, party: &str) -> Result<(), String> {
        let (rig, user) = (&self.rig, self.rig.user(party));
        let access = access(&rig.server, &rig.user(&self.party), PASSWORD);
        let caller = Caller::connect(&access, &user, &rig.prefix, None, LONG, &Handle::current()).await;
        let caller = caller.map_err(|error| error.to_string())?;
        let request = Request { dedup_id: dedup_id(body), platform_version: 12, body: body.as_bytes().to_vec() };
        match caller.send(&request, None, None).await {
            Ok(Outcome::Accepted) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    async fn next_answer(&mut self) -> Answer {
        loop {
            if let Some(answers) = &mut self.answers {
                if let Some(answer) = answers.next().await {
                    return answer;
                }
                self.answers = None;
            }
            match self.caller.answers().await {
                Ok(answers) => self.answers = Some(answers),
                // The connection is lost: another one, once there is a broker.
                Err(_) => match self.rig.caller(&self.party).await {
                    Ok(caller) => self.caller = caller,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }
}

shared_broker_suite!(ArtemisRig);

// --- what only Artemis does -----------------------------------------------------------------------------------------------------

fn faults(findings: &[Finding]) -> Vec<String> {
    let faults = findings.iter().filter(|finding| finding.severity == Severity::Fault);
    faults.map(|finding| format!("{}: {}", finding.subject, finding.found)).collect()
}

/// RG5, LD2.
#[tokio::test(flavor = "multi_thread")]
async fn applying_again_changes_nothing_and_drift_is_found_and_mended() {
    let Some(rig) = ArtemisRig::start().await else { return };
    assert_eq!(rig.administer(|admin| admin.plan()).await.unwrap(), []);
    assert_eq!(rig.administer(|admin| admin.apply()).await.unwrap(), []);
    assert_eq!(faults(&rig.administer(|admin| admin.examine()).await), [""; 0]);

    let (requests, entrance) = (rig.queue("requests"), rig.queue(&format!("from.{}", rig.user("Alice"))));
    rig.operation("addSecuritySettings", json!([requests, "everyone", "", "", "", "", "", "", "", "", ""])).await;
    rig.operation("destroyDivert", json!([rig.queue(&format!("way.from.{}", rig.user("Bob")))])).await;
    let bypass = json!({
        "name": rig.queue("bypass"), "routing-name": rig.queue("bypass"), "address": "DLQ",
        "forwarding-address": requests, "exclusive": false,
    });
    rig.operation("createDivert", json!([bypass.to_string()])).await;
    let found = faults(&rig.administer(|admin| admin.examine()).await);
    for expected in ["send: everyone, declared nobody", "missing", "leads from DLQ"] {
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:#?}");
    }

    let changes = rig.administer(|admin| admin.apply()).await.unwrap();
    assert_eq!(changes.len(), 2, "{changes:#?}");
    let found = faults(&rig.administer(|admin| admin.examine()).await);
    assert!(
        found.len() == 1 && found[0].contains("leads from DLQ"),
        "a stranger's divert is left to people: {found:?}"
    );
    rig.operation("destroyDivert", json!([rig.queue("bypass")])).await;
    assert_eq!(faults(&rig.administer(|admin| admin.examine()).await), [""; 0]);
    assert!(entrance.starts_with(&rig.prefix));
}

/// A1: everything a sender can write, in messages of both kinds that Artemis has, by a client that is not ours.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_sender_claims_the_caller_is_the_user_that_the_broker_let_in() {
    let Some(rig) = ArtemisRig::start().await else { return };
    let worker = rig.worker(1, Setup::default()).await;
    let mut mallory = rig.server.foreign(&rig.user("Mallory"), PASSWORD).await;
    for target in [rig.queue("requests"), rig.queue(&format!("from.{}", rig.user("Alice"))), rig.queue("dead")] {
        let mut trying = rig.server.foreign(&rig.user("Mallory"), PASSWORD).await;
        let refusal = trying.sender(&target).await.expect_err("nobody may send there");
        assert!(refusal.contains("UnauthorizedAccess"), "{target}: {refusal}");
        trying.close().await;
    }
    let alice = rig.user("Alice");
    let entrance = rig.queue(&format!("from.{}", rig.user("Mallory")));
    let mut sender = mallory.sender(&entrance).await.unwrap();
    for bytes in [10, 300 * 1024] {
        let origin = OwnedKey::from(Symbol::from("x-opt-ORIG-ADDRESS"));
        let origin = [(origin, Value::from(rig.queue(&format!("from.{alice}"))))];
        let properties = ApplicationProperties::builder()
            .insert("_AMQ_VALIDATED_USER", alice.clone())
            .insert("_AMQ_ORIG_ADDRESS", rig.queue(&format!("from.{alice}")))
            .insert("_AMQ_DUPL_ID", format!("forged-{bytes}"));
        let message = Message::builder()
            .message_annotations(MessageAnnotations(Annotations::from_iter(origin)))
            .properties(
                Properties::builder()
                    .user_id(Binary::from(alice.clone().into_bytes()))
                    .reply_to(rig.reply_queue("Mallory"))
                    .build(),
            )
            .application_properties(properties.build())
            .data(Binary::from(vec![b'x'; bytes]))
            .build();
        sender.send(message).await.unwrap().accepted_or("refused").unwrap();
        let delivery = worker.receive().await;
        assert_eq!((delivery.caller.organisation.as_str(), delivery.body.len()), ("Mallory", bytes));
        worker.accept(&delivery).await;
    }
    sender.close().await.unwrap();
    mallory.close().await;
}

/// The proof at start: a broker on which callers could pass for each other is not served from.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_not_serve_where_callers_could_be_forged() {
    let Some(rig) = ArtemisRig::start().await else { return };
    let refused = async || rig.open(rig.options(1, Setup::default())).await.err().expect("it must not serve");
    let requests = rig.queue("requests");
    let role = rig.queue("worker");
    rig.operation("addSecuritySettings", json!([requests, role, role, "", "", "", "", "", "", "", ""])).await;
    let why = refused().await;
    assert!(why.contains("may write to") && why.contains("pass for anyone"), "{why}");
    rig.apply().await;

    // A way that leads on without the broker's note: the message is moved by hand, as a consumer and sender in between would.
    let slug = "notary-worker-1.zurich.ch";
    rig.operation("destroyDivert", json!([rig.queue(&format!("way.probe.{slug}"))])).await;
    let mut options = rig.options(1, Setup::default());
    options.access.silence_max = Duration::from_secs(2);
    let why = rig.open(options).await.err().expect("it must not serve");
    assert!(why.contains("no divert leads"), "{why}");
    rig.apply().await;
    rig.worker(1, Setup::default()).await.queue.close().await;
}

/// Answers under one id arrive once, whichever worker sends them again.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_drops_what_it_knows_already() {
    let Some(rig) = ArtemisRig::start().await else { return };
    let (one, two) = (rig.worker(1, Setup::default()).await, rig.worker(2, Setup::default()).await);
    let mut alice = rig.connect("Alice").await;
    for _ in 0..3 {
        // The same request again and again, as after lost connections.
        alice.try_send("request").await.unwrap();
    }
    alice.send("last").await;
    let mut received = Vec::new();
    while received.len() < 2 {
        let (worker, delivery) = tokio::select! {
            delivery = one.queue.receive() => (&one, delivery.unwrap()),
            delivery = two.queue.receive() => (&two, delivery.unwrap()),
        };
        received.push(suite::text(&delivery).to_owned());
        // Each answers twice, as after an outcome that did not come.
        for _ in 0..2 {
            worker.queue.reply(delivery.id, vec![suite::reply("answer")]).await.unwrap();
        }
        worker.accept(&delivery).await;
    }
    received.sort();
    assert_eq!(received, ["last", "request"]);
    assert_eq!(alice.next_answer().await.body, b"answer");
    let mut foreign = rig.foreign().await;
    assert_eq!(foreign.depth(&rig.reply_queue("Alice")).await.0, 0, "four were sent, one is there");
    foreign.close().await;
}

/// P8.
#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_request_is_parked_and_costs_its_neighbours_nothing() {
    let Some(rig) = ArtemisRig::start().await else { return };
    let mut options = rig.options(1, Setup::default());
    options.message_bytes_max = 300 * 1024;
    let worker = rig.open(options).await.unwrap();
    let alice = rig.connect("Alice").await;
    alice.send(&"x".repeat(1 << 20)).await;
    alice.send("next").await;
    let delivery = worker.receive().await;
    assert_eq!(suite::text(&delivery), "next");
    worker.accept(&delivery).await;
    let dead = rig.queue("dead");
    suite::eventually("the broker has parked it", || async {
        let mut foreign = rig.foreign().await;
        let (parked, _) = foreign.depth(&dead).await;
        foreign.close().await;
        parked == 1
    })
    .await;
    assert_eq!(worker.probe.probe().await, Ok(()), "the connection stays");
}

/// F33.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_read_again_at_the_next_connection() {
    let Some(rig) = ArtemisRig::start().await else { return };
    let known = Arc::new(Mutex::new(PASSWORD.to_owned()));
    let mut options = rig.options(1, Setup::default());
    let told = Arc::clone(&known);
    options.access.password = Arc::new(move || Ok(Zeroizing::new(told.lock().unwrap().clone())));
    let worker = rig.open(options).await.unwrap();
    let user = rig.user("worker1");
    rig.operation("resetUser", json!([user, "changed", rig.queue("worker"), true])).await;
    rig.cut_workers().await;
    // The old password may be good for some seconds: Artemis remembers who has logged in (10 s by default).
    let refused = || async { worker.probe.probe().await.is_err_and(|why| why.contains("not authenticated")) };
    suite::eventually("the old password is refused, and the probe says so", || async {
        rig.cut_workers().await;
        refused().await
    })
    .await;
    *known.lock().unwrap() = "changed".to_owned();
    suite::eventually("it serves again", || async { worker.probe.probe().await.is_ok() }).await;
    let alice = rig.connect("Alice").await;
    alice.send("request").await;
    let delivery = worker.receive().await;
    worker.accept(&delivery).await;
}

/// A certificate names the worker's user; without one, or against another authority, there is no connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_enough_to_log_in_and_a_stranger_is_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(path(&format!("{name}.pem")), certificate.pem()).unwrap();
        rcgen::Issuer::new(params, key)
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let issue = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, issuer).unwrap();
        std::fs::write(path(&format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(path(&format!("{name}.both")), key.serialize_pem() + &certificate.pem()).unwrap();
    };
    issue(&ours, "broker");
    issue(&ours, "worker1");
    issue(&ours, "unknown");
    issue(&other, "stranger");
    let (authorities, identity) = (path("ours.pem"), path("broker.both"));
    let server = tokio::task::spawn_blocking(move || {
        let users = [("w1", "CN=worker1", "tls.worker")];
        Server::start(Some(Certificates {
            authorities: &authorities,
            identity: &identity,
            users: &users,
            mechanisms: "EXTERNAL",
        }))
    });
    let Some(server) = or_skip("Artemis", server.await.unwrap()) else { return };
    let rig = ArtemisRig::with_prefix(Arc::new(server), "tls".to_owned()).await;

    let options = |authority: &str, certificate: Option<&str>| {
        let mut options = rig.options(1, Setup::default());
        let identity = certificate.map(|name| (path(&format!("{name}.crt")), path(&format!("{name}.key"))));
        options.access.hosts = vec![format!("127.0.0.1:{}", rig.server.tls_port)];
        options.access.user = String::new();
        options.access.tls = Some(TlsFiles { authorities: path(&format!("{authority}.pem")), identity });
        options
    };
    let worker = rig.open(options("ours", Some("worker1"))).await.unwrap();
    let mut alice = rig.connect("Alice").await;
    alice.send("request").await;
    let delivery = worker.receive().await;
    worker.queue.reply(delivery.id, vec![suite::reply(&"x".repeat(1 << 20))]).await.unwrap();
    worker.accept(&delivery).await;
    assert_eq!(alice.next_answer().await.body.len(), 1 << 20);

    let refused = async |authority: &str, certificate| {
        let refused =
            tokio::time::timeout(LONG, rig.open(options(authority, certificate))).await.expect("it ends in time");
        refused.err().expect("it must not be let in")
    };
    let why = refused("ours", Some("unknown")).await;
    // Artemis accepts whoever has a certificate, and looks for the user when it first asks for something.
    assert!(why.contains("Unable to validate user"), "a certificate that names nobody: {why}");
    refused("ours", Some("stranger")).await;
    let why = refused("other", Some("worker1")).await;
    assert!(why.contains("certificate"), "a broker that our authorities do not know: {why}");
    let why = refused("ours", None).await;
    assert!(why.contains("neither a user nor a client certificate"), "{why}");
}
