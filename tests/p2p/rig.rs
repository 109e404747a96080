//! A development network in which workers and parties are nodes: each with a TLS certificate, the parties with brokers of their
//! own. A party's broker and its bridges are the product's: what a node does with a real one is shown in `tests/corda`.

#![allow(dead_code, unreachable_pub, reason = "each test file is a program of its own and uses a part of this")]

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notary_worker::broker::client::ClientError;
use notary_worker::broker::embedded::{Endpoint, Limits, Settings};
use notary_worker::broker::peers::{self, Bridges};
use notary_worker::broker::{Answer as Message, Outcome, Request};
use notary_worker::client::cast::{Cast, CastError};
use notary_worker::client::judge::{Answer, Session};
use notary_worker::client::ledger::Draft;
use notary_worker::client::line::{Connection, Line, Receiver, Sender};
use notary_worker::config;
use notary_worker::domain::network::{HostAndPort, NetworkView, Route};
use notary_worker::domain::{
    HashAlgorithm, Party, PublicKey, SecureHash, SignatureScheme, StateRef, Timestamp, TxId, X500Name,
};
use notary_worker::keys::PrivateKey;
use notary_worker::keys::file::{create, load_plain};
use notary_worker::network::development::{self, DevelopmentNetwork, PartyAccount, Spec};
use notary_worker::network::{Certificate, FileNetworkMap, read_root};
use notary_worker::ports::clock::SystemClock;
use notary_worker::ports::network_map::FixedNetworkMap;
use notary_worker::ports::request_queue::{Delivery, QueueError, Reply, RequestQueue, Settlement};
use notary_worker::ports::{BoxFuture, Clock, NetworkMap};
use notary_worker::tls::peers::{Identity, PeerTls};
use notary_worker::wire::{self, InitialSession, SignedNodeInfo};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::worker::{self, Worker};

/// Longer than anything takes that happens at all: a request is given back after up to 30 s, perhaps more than once.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Roles of certificates (PROTOCOL i).
const NODE_CA: u8 = 4;
const TLS: u8 = 5;
const LEGAL_IDENTITY: u8 = 6;

/// What a node gives credit for.
const CREDIT: u32 = 64;

/// The network, on disk.
pub struct Network {
    folder: tempfile::TempDir,
    /// By short name: where each party's broker listens.
    brokers: HashMap<String, SocketAddr>,
    /// Where each worker listens, in order.
    workers: Vec<SocketAddr>,
    service: Party,
    parameters: SecureHash,
}

impl Network {
    /// Two workers on one store, of which one runs at a time, and three parties.
    pub fn create() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("network");
        let now = SystemClock.now();
        let development = DevelopmentNetwork::create(&dir, &Spec { workers: 2, ..Spec::new(now) }).expect("a network");
        let issuer = NodeIssuer::of(&dir);
        let parties = development.parties().expect("there are some");
        let mut brokers = HashMap::new();
        for party in &parties {
            let address = free();
            move_to(&dir, party, &[free(), address], now);
            issuer.issue(&party.party.name, &dir.join("parties").join(&party.short_name));
            brokers.insert(party.short_name.clone(), address);
        }
        for n in [1, 2] {
            issuer.issue(&development::worker(n).0, &dir.join(format!("tls-{n}")));
        }
        let map = FileNetworkMap::load(&development.network_dir(), now).expect("the network is sound");
        assert!(map.problems().is_empty(), "{:?}", map.problems());
        let parameters = &map.view().parameters;
        let service = parameters.current().expect("some are in force").notaries[0].identity.clone();
        let parameters = parameters.current.expect("some are in force");
        let network = Self { folder, brokers, workers: vec![free(), free()], service, parameters };
        let loaded = config::load(None, &network.settings(1)).expect("valid");
        std::fs::create_dir_all(network.dir().join("data")).expect("a folder");
        notary_worker::worker::create_store(&loaded.settings).expect("a store");
        network
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    pub fn worker_name(&self, n: usize) -> X500Name {
        development::worker(n).0
    }

    /// Where nodes find worker `n`.
    pub fn address(&self, n: usize) -> SocketAddr {
        self.workers[n - 1]
    }

    /// The identity key of worker `n`, as the network map has it.
    pub fn worker_key(&self, n: usize) -> PublicKey {
        let map = FileNetworkMap::load(&self.dir().join("network"), SystemClock.now()).expect("the network is sound");
        map.view().parties[&self.worker_name(n)].owning_key.clone()
    }

    /// A TLS certificate for `name` below this network's root, until the year 4096 unless told otherwise, and its key:
    /// `tls.pem` and `tls.p8` in `folder`.
    pub fn issue(&self, name: &X500Name, folder: &Path, until: Option<(i32, u8)>) {
        NodeIssuer::of(&self.dir()).issue_until(name, folder, until);
    }

    /// A new certificate of a worker's legal identity, and those above it (PEM), for the key that it has.
    pub fn issue_identity(&self, n: usize, until: Option<(i32, u8)>) -> String {
        NodeIssuer::of(&self.dir()).identity(&self.worker_name(n), &self.worker_key(n), until)
    }

    /// A TLS certificate of worker `n`, and those above it (PEM), for this key.
    pub fn issue_tls(&self, n: usize, key: &PublicKey, until: Option<(i32, u8)>) -> String {
        NodeIssuer::of(&self.dir()).tls(&self.worker_name(n), key, until)
    }

    /// The service's inbox.
    pub fn service_inbox(&self) -> String {
        format!("p2p.inbound.{}", self.service.owning_key.name_hash())
    }

    pub fn settings(&self, n: usize) -> Vec<String> {
        let dir = self.dir();
        let file = |name: &str| dir.join(name).display().to_string();
        vec![
            format!("worker.name={}", self.worker_name(n)),
            // One of the two runs at a time.
            "store.sole_worker=true".into(),
            format!("worker.state={}", file(&format!("state-{n}"))),
            format!("network.dir={}", file("network")),
            "broker.kind=p2p".into(),
            format!("p2p.listen={}", self.workers[n - 1]),
            format!("p2p.tls_certificate={}", file(&format!("tls-{n}/tls.pem"))),
            format!("p2p.tls_key={}", file(&format!("tls-{n}/tls.p8"))),
            format!("store.path={}", file("data/notary.store")),
            format!("signing.key={}", file("keys/service.p8")),
            format!("signing.passphrase=file:{}", file("keys/passphrase")),
            "observe.listen=127.0.0.1:0".into(),
        ]
    }

    pub fn start(&self, n: usize) -> Worker {
        self.start_with(n, |_| ())
    }

    pub fn start_with(&self, n: usize, prepare: impl FnOnce(&mut Command)) -> Worker {
        let mut command = worker::notary();
        command.arg("run");
        for setting in self.settings(n) {
            command.args(["--set", &setting]);
        }
        prepare(&mut command);
        Worker::start(command)
    }

    /// A party's node, with its broker.
    pub fn node(&self, short_name: &str) -> Arc<Node> {
        let account = DevelopmentNetwork::open(&self.dir()).party(short_name).expect("it is there");
        self.node_of(account)
    }

    fn node_of(&self, account: PartyAccount) -> Arc<Node> {
        let folder = self.dir().join("parties").join(&account.short_name);
        let chain = notary_worker::tls::peers::read_chain(&folder.join("tls.pem")).expect("a chain");
        let key = load_plain(&folder.join("tls.p8")).expect("a key");
        let identity = Identity::from_private_key(chain, &key).expect("they fit");
        let root = read_root(&self.dir().join("network/root.pem")).expect("a root");
        let tls = PeerTls::new(root, identity, Arc::new(SystemClock)).expect("believable");
        // To a node's bridges the service is at each of its workers.
        let bridges = (1..=self.workers.len()).map(|n| {
            let mut view = NetworkView::default();
            let name = self.worker_name(n);
            view.parties.insert(name.clone(), self.service.clone());
            let address = self.workers[n - 1];
            let addresses = vec![HostAndPort { host: address.ip().to_string(), port: address.port() }];
            view.routes.insert(name.clone(), Route { addresses, names: vec![name, self.service.name.clone()] });
            let limits = peers::Limits {
                retry_base: Duration::from_millis(50),
                retry_cap: Duration::from_millis(200),
                ..peers::Limits::default()
            };
            let map = Arc::new(FixedNetworkMap(Arc::new(view)));
            Bridges::new(tls.clone(), map, 12, limits, &Handle::current())
        });
        let node = Node {
            inbox: format!("p2p.inbound.{}", account.party.owning_key.name_hash()),
            address: self.brokers[&account.short_name],
            bridges: bridges.collect(),
            account,
            tls,
            folder,
            broker: Mutex::new(None),
            service: self.service.clone(),
            parameters: self.parameters,
        };
        node.start();
        Arc::new(node)
    }

    /// All parties, as persistent as nodes are.
    pub async fn cast(&self) -> Cast {
        let line = |member: &PartyAccount, _: &Party| -> Result<Box<dyn Line>, CastError> {
            Ok(Box::new(NodeLine { node: self.node(&member.short_name), worker: self.worker_name(1) }))
        };
        Cast::connect_over(&self.dir(), line, PATIENCE).await.expect("the parties connect")
    }
}

/// A party's node: its broker, which takes answers, and its bridges, on which requests go.
pub struct Node {
    account: PartyAccount,
    inbox: String,
    address: SocketAddr,
    tls: PeerTls,
    folder: PathBuf,
    /// To each worker.
    bridges: Vec<Bridges>,
    broker: Mutex<Option<Arc<Endpoint>>>,
    service: Party,
    parameters: SecureHash,
}

impl Node {
    /// Starts its broker.
    pub fn start(&self) {
        let settings = Settings {
            listen: self.address,
            worker_name: self.account.party.name.to_string(),
            addresses: vec![self.inbox.clone()],
            platform_version: 12,
            limits: Limits { link_credit: CREDIT, ..Limits::default() },
        };
        let broker = Endpoint::listen_for_nodes(settings, &self.tls, Arc::new(|_| CREDIT), &Handle::current());
        *self.broker.lock().expect("nobody panics with it") = Some(Arc::new(broker.expect("its address is free")));
    }

    /// Stops its broker without a word.
    pub fn stop(&self) {
        self.broker.lock().expect("nobody panics with it").take();
    }

    fn broker(&self) -> Arc<Endpoint> {
        Arc::clone(self.broker.lock().expect("nobody panics with it").as_ref().expect("it runs"))
    }

    /// Where its broker listens when it does.
    pub fn broker_address(&self) -> SocketAddr {
        self.address
    }

    /// Its TLS, for whatever its bridges do not do.
    pub fn tls(&self) -> &PeerTls {
        &self.tls
    }

    /// Its TLS certificate with those above it, in DER, and its key, PKCS#8.
    pub fn tls_files(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let key = load_plain(&self.folder.join("tls.p8")).expect("a key");
        (self.tls.identity().chain().to_vec(), key.to_pkcs8_der().as_bytes().to_vec())
    }

    pub fn name(&self) -> X500Name {
        self.account.party.name.clone()
    }

    pub async fn next(&self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.broker().receive())
            .await
            .expect("something should have come")
            .expect("its broker runs")
    }

    pub async fn settle(&self, delivery: Delivery, settlement: Settlement) {
        self.broker().settle(delivery.id, settlement).await.expect("the connection lives");
    }

    /// A session start that asks for the notarisation of a new transaction, and the transaction.
    pub fn request(&self) -> (Request, TxId) {
        let random = || getrandom::u64().expect("random") as i64;
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).expect("random");
        let draft = Draft {
            inputs: vec![StateRef { tx_id: TxId(SecureHash::sha256(salt)), index: 0 }],
            references: Vec::new(),
            time_window: None,
            notary: self.service.clone(),
            parameters: self.parameters,
            digest: HashAlgorithm::Sha256,
            privacy_salt: salt,
        };
        let transaction = draft.build().expect("it can be built");
        let payload = transaction.payload(&self.account.key, 12).expect("it can be shown");
        let (session, entropy) = (random(), random());
        let start = InitialSession {
            initiator_session_id: session,
            initiation_entropy: entropy,
            flow_class: "net.corda.core.flows.NotaryFlow$Client".into(),
            flow_version: 1,
            app_name: "corda-core-4.10".into(),
            first_payload: Some(payload.as_slice().into()),
            telemetry: None,
        };
        let dedup_id = format!("N-R-{session}-{entropy}-0-0");
        (Request { dedup_id, platform_version: 12, body: wire::encode_session_initial(&start) }, transaction.id())
    }

    /// Hands a request to the bridge to worker `n`; it ends when the worker has accepted or given back.
    pub fn send(self: &Arc<Self>, network: &Network, n: usize, request: Request) -> JoinHandle<Result<(), QueueError>> {
        let (node, worker) = (Arc::clone(self), network.worker_name(n));
        tokio::spawn(async move { node.bridges[n - 1].reply(&worker, vec![reply(request)]).await })
    }

    /// Takes messages until the answer about a transaction is complete; what belongs to others is taken and dropped.
    pub async fn answer(&self, tx_id: TxId) -> Answer {
        let mut sessions = HashMap::new();
        loop {
            let delivery = self.next().await;
            let message = wire::decode_session_message(&delivery.body, &wire::Limits::DEFAULT).expect("well-formed");
            let wire::SessionMessage::Existing { recipient_session_id, .. } = message else {
                panic!("a session start")
            };
            let session = sessions
                .entry(recipient_session_id)
                .or_insert_with(|| Session::new(Some(tx_id), self.service.owning_key.clone()));
            let taken = session.take(delivery.dedup_id.as_deref().expect("every message has one"), message);
            self.settle(delivery, Settlement::Accept).await;
            // A signature of another transaction does not verify, which is how those are told apart.
            if let Ok(Some(answer)) = taken {
                return answer;
            }
        }
    }
}

fn reply(Request { dedup_id, body, .. }: Request) -> Reply {
    Reply { dedup_id, headers: Vec::new(), body }
}

/// A party's line as a node has it.
struct NodeLine {
    node: Arc<Node>,
    worker: X500Name,
}

impl Line for NodeLine {
    fn open(&self) -> BoxFuture<'_, Result<Connection, ClientError>> {
        let end = || End { node: Arc::clone(&self.node), worker: self.worker.clone() };
        let connection = Connection { sender: Box::new(end()), receiver: Box::new(end()) };
        Box::pin(std::future::ready(Ok(connection)))
    }

    fn stores(&self) -> bool {
        false
    }
}

struct End {
    node: Arc<Node>,
    worker: X500Name,
}

impl Sender for End {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Outcome, ClientError>> {
        Box::pin(async {
            match self.node.bridges[0].reply(&self.worker, vec![reply(request)]).await {
                Ok(()) => Ok(Outcome::Accepted),
                Err(_) => Ok(Outcome::Released),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.node.bridges[0].close())
    }
}

impl Receiver for End {
    fn next(&mut self) -> BoxFuture<'_, Option<Message>> {
        Box::pin(async {
            let broker = self.node.broker();
            let delivery = broker.receive().await.ok()?;
            // Given back if the connection is lost first: then it comes again.
            broker.settle(delivery.id, Settlement::Accept).await.ok();
            Some(Message {
                dedup_id: delivery.dedup_id.unwrap_or_default(),
                platform_version: delivery.platform_version,
                worker: None,
                headers: Vec::new(),
                body: delivery.body,
            })
        })
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

/// Publishes where a party's node listens: at the last of these; at the others nobody does.
fn move_to(dir: &Path, account: &PartyAccount, addresses: &[SocketAddr], now: Timestamp) {
    let limits = &wire::Limits::DEFAULT;
    let file = dir.join(format!("network/node-infos/nodeInfo-{}", account.short_name));
    let signed = wire::decode_signed_node_info(&std::fs::read(&file).expect("it reads"), limits).expect("well-formed");
    let mut info = wire::decode_node_info(&signed.raw, limits).expect("well-formed");
    info.addresses = addresses.iter().map(|a| HostAndPort { host: a.ip().to_string(), port: a.port() }).collect();
    info.serial = now.as_millis() + 1;
    let raw = wire::encode_node_info(&info);
    let signatures = vec![account.key.sign(&raw)];
    std::fs::write(&file, wire::encode_signed_node_info(&SignedNodeInfo { raw, signatures }))
        .expect("it can be written");
}

/// Issues TLS certificates below the development network's identity CA.
struct NodeIssuer {
    identity_ca: Certificate,
    root: Certificate,
    key: PrivateKey,
}

impl NodeIssuer {
    fn of(dir: &Path) -> Self {
        let limits = &wire::Limits::DEFAULT;
        let info = std::fs::read(dir.join("network/node-infos/nodeInfo-alice")).expect("it reads");
        let signed = wire::decode_signed_node_info(&info, limits).expect("well-formed");
        let path = &wire::decode_node_info(&signed.raw, limits).expect("well-formed").identities[0].0;
        let certificate = |der: &[u8]| Certificate::from_der(der).expect("it reads");
        let key = load_plain(&dir.join("authorities/identity.p8")).expect("it reads");
        Self { root: certificate(&path[0]), identity_ca: certificate(&path[1]), key }
    }

    /// Writes `tls.pem` and `tls.p8` for `name` into `folder`.
    fn issue(&self, name: &X500Name, folder: &Path) {
        self.issue_until(name, folder, None);
    }

    /// The same with a certificate that ends with the first day of a year's month.
    fn issue_until(&self, name: &X500Name, folder: &Path, until: Option<(i32, u8)>) {
        std::fs::create_dir_all(folder).expect("a folder");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        create(&folder.join("tls.p8"), key.serialize_pem().as_bytes()).expect("it can be written");
        let public_key = load_plain(&folder.join("tls.p8")).expect("a key").public_key().clone();
        std::fs::write(folder.join("tls.pem"), self.tls(name, &public_key, until)).expect("it can be written");
    }

    fn tls(&self, name: &X500Name, key: &PublicKey, until: Option<(i32, u8)>) -> String {
        let identity_ca = Issuer::new(params(&self.identity_ca.legal_name().expect("a name"), None), pair(&self.key));
        let node_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut node_params = params(name, Some(NODE_CA));
        node_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        node_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let node = node_params.signed_by(&node_key, &identity_ca).expect("issued");
        let node_ca = Issuer::new(node_params, node_key);
        let mut own = params(name, Some(TLS));
        if let Some((year, month)) = until {
            own.not_after = rcgen::date_time_ymd(year, month, 1);
        }
        let own = own.signed_by(&Certified(key), &node_ca).expect("issued");
        [own.pem(), node.pem(), self.identity_ca.to_pem(), self.root.to_pem()].concat()
    }

    fn identity(&self, name: &X500Name, key: &PublicKey, until: Option<(i32, u8)>) -> String {
        let identity_ca = Issuer::new(params(&self.identity_ca.legal_name().expect("a name"), None), pair(&self.key));
        let mut own = params(name, Some(LEGAL_IDENTITY));
        if let Some((year, month)) = until {
            own.not_after = rcgen::date_time_ymd(year, month, 1);
        }
        let own = own.signed_by(&Certified(key), &identity_ca).expect("issued");
        [own.pem(), self.identity_ca.to_pem(), self.root.to_pem()].concat()
    }
}

/// A key of which only the public half is there.
struct Certified<'a>(&'a PublicKey);

impl rcgen::PublicKeyData for Certified<'_> {
    fn der_bytes(&self) -> &[u8] {
        let (spki, len) = (self.0.as_spki(), if self.is_ed25519() { 32 } else { 65 });
        &spki[spki.len() - len..]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        if self.is_ed25519() { &rcgen::PKCS_ED25519 } else { &PKCS_ECDSA_P256_SHA256 }
    }
}

impl Certified<'_> {
    fn is_ed25519(&self) -> bool {
        self.0.scheme() == SignatureScheme::Ed25519
    }
}

fn pair(key: &PrivateKey) -> KeyPair {
    KeyPair::from_pkcs8_pem_and_sign_algo(&key.to_pkcs8_pem(), &PKCS_ECDSA_P256_SHA256).expect("a P-256 key")
}

/// The attributes in Corda's order, and a role if it has one.
fn params(name: &X500Name, role: Option<u8>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut names = DistinguishedName::new();
    names.push(DnType::CountryName, DnValue::PrintableString(name.country.as_str().try_into().expect("letters")));
    names.push(DnType::LocalityName, name.locality.as_str());
    names.push(DnType::OrganizationName, name.organisation.as_str());
    if let Some(common_name) = &name.common_name {
        names.push(DnType::CommonName, common_name.as_str());
    }
    params.distinguished_name = names;
    params.custom_extensions = role
        .map(|role| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 50530, 1, 1], vec![2, 1, role]))
        .into_iter()
        .collect();
    params
}
