//! A service on RabbitMQ: a virtual host of its own, declared by the administrator as operators do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use notary_worker::broker::admin::{Administrator, CallerAccount, Service, WorkerAccount};
use notary_worker::broker::callers::Callers;
use notary_worker::broker::client::ClientError;
use notary_worker::broker::names::Names;
use notary_worker::broker::rabbitmq::admin::{Management, RabbitMqAdmin};
use notary_worker::broker::rabbitmq::client::{self, Answers, Client, Wishes};
use notary_worker::broker::rabbitmq::{Access, Options, RabbitMq};
use notary_worker::broker::{Answer, Request};
use notary_worker::domain::X500Name;
use notary_worker::domain::network::NetworkView;
use notary_worker::ports::network_map::FixedNetworkMap;
use tokio::runtime::Handle;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::services::or_skip;
use crate::services::rabbitmq::{ADMIN, Server};
use crate::suite::{self, LONG, Rig, Setup, Worker, dedup_id};

pub const PREFIX: &str = "notary";
pub const PARTIES: [&str; 3] = ["Alice", "Bob", "Mallory"];
/// May send requests, and is in no file of callers.
pub const STRANGER: &str = "stranger";
pub const PASSWORD: &str = "secret";

pub fn name(organisation: &str) -> X500Name {
    X500Name::parse(&format!("O={organisation}, L=Zurich, C=CH")).unwrap()
}

/// A virtual host of its own, with users of its own, as users are known to the whole broker.
#[derive(Clone)]
pub struct RabbitRig {
    pub server: Arc<Server>,
    pub vhost: String,
    pub number: usize,
    pub callers: Arc<tempfile::TempDir>,
}

impl RabbitRig {
    pub async fn on(server: Arc<Server>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let callers = Arc::new(tempfile::tempdir().unwrap());
        let rig = Self { server, vhost: format!("test {number}"), number, callers };
        let lines = PARTIES.map(|party| format!("{} = \"{}\"\n", rig.user(party), name(party)));
        std::fs::write(rig.callers.path().join("callers.toml"), lines.concat()).unwrap();
        let service = rig.service();
        let secrets = service.secrets.clone().unwrap();
        std::fs::create_dir(&secrets).unwrap();
        for user in service.workers.iter().map(|w| &w.user).chain(service.callers.iter().map(|c| &c.user)) {
            std::fs::write(secrets.join(format!("{user}.password")), PASSWORD).unwrap();
        }
        rig.blocking(|rig| rig.admin(rig.service()).apply().map(drop)).await.unwrap();
        rig
    }

    pub fn user(&self, party: &str) -> String {
        format!("{}-{}", party.to_lowercase(), self.number)
    }

    pub fn service(&self) -> Service {
        let worker = |number: u8| WorkerAccount {
            name: worker_name(number),
            user: self.user(&format!("worker{number}")),
            inbox: None,
        };
        let caller = |party: &&str| CallerAccount { user: self.user(party), inbox: None };
        Service {
            prefix: PREFIX.into(),
            workers: vec![worker(1), worker(2)],
            callers: PARTIES.iter().chain(&[STRANGER]).map(caller).collect(),
            inbox: None,
            secrets: Some(self.callers.path().join("secrets")),
        }
    }

    pub fn admin(&self, service: Service) -> RabbitMqAdmin {
        RabbitMqAdmin::new(&self.management(ADMIN.0, ADMIN.1), &self.vhost, service).unwrap()
    }

    pub fn admin_as(&self, user: &str, password: &str) -> RabbitMqAdmin {
        RabbitMqAdmin::new(&self.management(user, password), &self.vhost, self.service()).unwrap()
    }

    fn management(&self, user: &str, password: &str) -> Management {
        let password = Zeroizing::new(password.into());
        Management { url: self.server.management_url(), user: user.into(), password, tls: None }
    }

    pub fn access(&self, user: &str) -> Access {
        Access {
            hosts: vec![format!("127.0.0.1:{}", self.server.amqp)],
            vhost: self.vhost.clone(),
            user: self.user(user),
            password: Arc::new(|| Ok(Zeroizing::new(PASSWORD.into()))),
            tls: None,
            silence_max: Duration::from_secs(10),
            name: user.into(),
        }
    }

    pub fn options(&self, number: u8, setup: Setup) -> Options {
        Options {
            access: Access { silence_max: setup.silence_max, ..self.access(&format!("worker{number}")) },
            names: Names::new(PREFIX, &worker_name(number)),
            platform_version: 12,
            slots: setup.slots,
            message_bytes_max: 10 << 20,
            held_bytes_max: Options::HELD_BYTES_MAX,
            deliveries_max: setup.deliveries_max,
            reply_hold: setup.hold,
            reconnect_cap: Duration::from_secs(1),
        }
    }

    pub async fn open(&self, options: Options) -> Result<Worker, String> {
        let callers = Callers::load(&self.callers.path().join("callers.toml")).unwrap();
        let map = Arc::new(FixedNetworkMap(Arc::new(NetworkView::default())));
        let queue = Arc::new(RabbitMq::open(options, callers, map, &Handle::current()).await?);
        let counted = Arc::clone(&queue);
        Ok(Worker { queue: Arc::clone(&queue) as _, probe: queue, undisposed: Arc::new(move || counted.undisposed()) })
    }

    /// Runs what blocks where it may.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let rig = self.clone();
        tokio::task::spawn_blocking(move || work(&rig)).await.unwrap()
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<String>) -> String {
        let (server, method, path) = (Arc::clone(&self.server), method.to_owned(), path.to_owned());
        let asked = tokio::task::spawn_blocking(move || server.ask(&method, &path, body.as_deref())).await.unwrap();
        let (status, text) = asked.unwrap();
        assert!((200..300).contains(&status), "{status}: {text}");
        text
    }

    pub fn path(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{name}", self.vhost.replace(' ', "%20"))
    }

    pub async fn sender(&self, user: &str) -> RabbitPeer {
        let reply_queue = self.reply_queue(user);
        let options = client::Options { access: self.access(user), prefix: PREFIX.into(), reply_queue, timeout: LONG };
        let deadline = Instant::now() + LONG;
        let client = loop {
            match Client::connect(options.clone(), &Handle::current()).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        RabbitPeer { client, answers: None, options, users: PARTIES.map(|party| (party, self.user(party))) }
    }
}

pub fn worker_name(number: u8) -> X500Name {
    name(&format!("Notary Worker {number}"))
}

impl Rig for RabbitRig {
    type Peer = RabbitPeer;

    async fn start() -> Option<Self> {
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        Some(Self::on(or_skip("RabbitMQ", server)?).await)
    }

    async fn start_alone() -> Option<Self> {
        let server = tokio::task::spawn_blocking(|| Server::start(None)).await.unwrap();
        Some(Self::on(Arc::new(or_skip("RabbitMQ", server)?)).await)
    }

    async fn worker(&self, number: u8, setup: Setup) -> Worker {
        self.open(self.options(number, setup)).await.unwrap()
    }

    fn worker_name(&self, number: u8) -> String {
        worker_name(number).to_string()
    }

    async fn connect(&self, party: &str) -> RabbitPeer {
        self.sender(party).await
    }

    async fn connect_stranger(&self) -> RabbitPeer {
        self.sender(STRANGER).await
    }

    fn reply_queue(&self, party: &str) -> String {
        format!("{PREFIX}.replies.{}", self.user(party))
    }

    async fn waiting(&self) -> usize {
        // The management API's figures of a quorum queue are some seconds old; a passive declaration tells the truth.
        let vhost = self.vhost.replace(' ', "%20");
        let uri = format!("amqp://{}:{}@127.0.0.1:{}/{vhost}", ADMIN.0, ADMIN.1, self.server.amqp);
        let connection = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = channel.queue_declare("notary.requests".into(), options, Default::default()).await.unwrap();
        connection.close(200, "bye".into()).await.unwrap();
        usize::try_from(queue.message_count()).unwrap()
    }

    async fn take_parked(&self) -> Vec<(String, String)> {
        let body = r#"{"count":100,"ackmode":"ack_requeue_false","encoding":"base64"}"#.to_owned();
        let taken = self.ask("POST", &self.path("queues", "notary.dead/get"), Some(body)).await;
        let taken: serde_json::Value = serde_json::from_str(&taken).unwrap();
        let parked = taken.as_array().unwrap().iter().map(|message| {
            let body = base64(message["payload"].as_str().unwrap());
            let reason = message["properties"]["headers"]["x-notary-reason"].as_str().unwrap();
            (String::from_utf8(body).unwrap(), reason.to_owned())
        });
        parked.collect()
    }

    async fn delete_reply_queue(&self, party: &str) {
        self.ask("DELETE", &self.path("queues", &self.reply_queue(party)), None).await;
    }

    async fn declare_reply_queue(&self, _: &str) {
        self.declare_requests_queue().await;
    }

    async fn delete_requests_queue(&self) {
        self.ask("DELETE", &self.path("queues", "notary.requests"), None).await;
    }

    async fn declare_requests_queue(&self) {
        self.blocking(|rig| rig.admin(rig.service()).apply().map(drop)).await.unwrap();
    }

    async fn cut_workers(&self) {
        let users = [1, 2].map(|number| self.user(&format!("worker{number}")));
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || {
            for user in users {
                server.control(&["-q", "close_all_user_connections", &user, "cut by a test"]);
            }
        })
        .await
        .unwrap();
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

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = text.bytes().filter_map(|c| ALPHABET.iter().position(|a| *a == c));
    let bits: Vec<bool> = sextets.flat_map(|sextet| (0..6).rev().map(move |bit| sextet >> bit & 1 == 1)).collect();
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks_exact(8).map(byte).collect()
}

pub struct RabbitPeer {
    pub client: Client,
    pub answers: Option<Answers>,
    pub options: client::Options,
    pub users: [(&'static str, String); 3],
}

impl RabbitPeer {
    pub async fn send_with(&self, body: &str, wishes: Wishes) -> Result<(), ClientError> {
        let request = Request { dedup_id: dedup_id(body), platform_version: 12, body: body.as_bytes().to_vec() };
        self.client.send(request, &wishes).await
    }
}

impl suite::Peer for RabbitPeer {
    async fn send(&self, body: &str) {
        self.send_with(body, Wishes::default()).await.unwrap();
    }

    async fn try_send(&self, body: &str) -> Result<(), String> {
        self.send_with(body, Wishes::default()).await.map_err(|error| error.to_string())
    }

    async fn send_naming(&self, body: &str, worker: &str) {
        let wishes = Wishes { worker: Some(worker.into()), ..Wishes::default() };
        self.send_with(body, wishes).await.unwrap();
    }

    async fn send_reply_to(&self, body: &str, reply_queue: &str) {
        let wishes = Wishes { reply_to: Some(reply_queue.into()), ..Wishes::default() };
        self.send_with(body, wishes).await.unwrap();
    }

    async fn send_as(&self, body: &str, party: &str) -> Result<(), String> {
        let (_, user) = self.users.iter().find(|(known, _)| *known == party).unwrap();
        let wishes = Wishes { user: Some(user.clone()), ..Wishes::default() };
        self.send_with(body, wishes).await.map_err(|error| error.to_string())
    }

    async fn next_answer(&mut self) -> Answer {
        loop {
            if let Some(answers) = &mut self.answers {
                if let Some(answer) = answers.next().await {
                    return answer;
                }
                self.answers = None;
            }
            match Client::connect(self.options.clone(), &Handle::current()).await {
                Ok(client) => self.answers = client.answers().await.ok(),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
