//! A map server of our own: what it says is taken up, what it must not say is not.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use tempfile::TempDir;

use super::*;
use crate::domain::{SignatureScheme, Timestamp};
use crate::keys::PrivateKey;
use crate::network::development::{DevelopmentNetwork, Spec};
use crate::network::http::MapOptions;
use crate::network::issue::{Authority, Request as CertificateRequest};
use crate::network::{Library, LoadError, Role, Sources, read_root};
use crate::wire::{ParametersUpdate, SignedNetworkParameters};

/// January 2027: within the validity of all certificates here.
const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::new(NOW, 0).expect("in range")
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// What the server says, and what it was asked.
#[derive(Default)]
struct Said {
    /// By path below `/network-map`.
    documents: HashMap<String, Vec<u8>>,
    etag: Option<&'static str>,
    cache_control: Option<&'static str>,
    /// Instead of any answer.
    status: Option<u16>,
    /// Does not answer at all.
    hangs: bool,
    asked: Vec<String>,
    posted: Vec<(Vec<u8>, String)>,
}

async fn answer(State(said): State<Arc<Mutex<Said>>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches("/zone/network-map").trim_start_matches('/').to_owned();
    let known = request.headers().get("if-none-match").map(|tag| tag.to_str().expect("text").to_owned());
    let version = request.headers().get("platform-version").map(|v| v.to_str().expect("text").to_owned());
    if said.lock().expect("whole").hangs {
        std::future::pending::<()>().await;
    }
    let body = to_bytes(request.into_body(), 1 << 20).await.expect("a body").to_vec();
    let mut said = said.lock().expect("whole");
    said.asked.push(path.clone());
    let respond =
        |status: u16, body: Vec<u8>| Response::builder().status(status).body(Body::from(body)).expect("built");
    if let Some(status) = said.status {
        return respond(status, b"out of\norder".to_vec());
    }
    if path == "publish" {
        said.posted.push((body, version.unwrap_or_default()));
        return respond(200, Vec::new());
    }
    if path.is_empty() && known.is_some() && known.as_deref() == said.etag {
        return respond(304, Vec::new());
    }
    let mut response = match said.documents.get(&path) {
        Some(bytes) => respond(200, bytes.clone()),
        None => respond(404, Vec::new()),
    };
    if let Some(etag) = said.etag {
        response.headers_mut().insert("etag", etag.parse().expect("a value"));
    }
    if let Some(age) = said.cache_control {
        response.headers_mut().insert("cache-control", age.parse().expect("a value"));
    }
    response
}

/// A development network whose documents a map server hands out.
struct Zone {
    folder: TempDir,
    said: Arc<Mutex<Said>>,
    url: String,
    /// Signs maps.
    signer: Authority,
    _runtime: tokio::runtime::Runtime,
}

impl Zone {
    fn new(parties: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = Spec { parties, ..Spec::new(now()) };
        let network = DevelopmentNetwork::create(&folder.path().join("net"), &spec).expect("made");
        let root = Authority {
            certificate: read_root(&network.network_dir().join("root.pem")).expect("the root"),
            key: authority_key(&folder, "root"),
        };
        let signer = authority(&root, Role::NetworkMap);
        let said = Arc::new(Mutex::new(Said::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("made");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("bound");
        let url = format!("http://{}/zone", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&said));
        runtime.spawn(async move { axum::serve(listener, router).await });
        let zone = Self { folder, said, url, signer, _runtime: runtime };
        zone.said().documents.extend(zone.node_infos());
        let parameters = fs::read(zone.net("network-parameters")).expect("parameters");
        zone.hand_out_parameters(&parameters);
        zone.list_all(None);
        zone
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("whole")
    }

    fn net(&self, file: &str) -> PathBuf {
        self.folder.path().join("net/network").join(file)
    }

    fn root(&self) -> Certificate {
        read_root(&self.net("root.pem")).expect("the root")
    }

    fn cache(&self) -> Cache {
        Cache::new(self.folder.path().join("state/network-map"))
    }

    /// Signed node infos by path.
    fn node_infos(&self) -> HashMap<String, Vec<u8>> {
        let files = fs::read_dir(self.net("node-infos")).expect("a folder").map(|entry| entry.expect("it").path());
        files.map(|file| by_path(&fs::read(file).expect("it"))).collect()
    }

    fn hand_out_parameters(&self, bytes: &[u8]) -> SecureHash {
        let signed = wire::decode_signed_network_parameters(bytes, &Limits::DEFAULT).expect("signed");
        let hash = sha256(&signed.raw);
        self.said().documents.insert(format!("network-parameters/{hash}"), bytes.to_vec());
        hash
    }

    fn new_parameters(&self, epoch: i32) -> Vec<u8> {
        let bytes = fs::read(self.net("network-parameters")).expect("it");
        let signed = wire::decode_signed_network_parameters(&bytes, &Limits::DEFAULT).expect("signed");
        let mut document = wire::decode_network_parameters(&signed.raw, &Limits::DEFAULT).expect("a document");
        document.parameters.epoch = epoch;
        let raw = wire::encode_network_parameters(&document);
        let signature = authority_key(&self.folder, "parameters").sign(&raw);
        wire::encode_signed_network_parameters(&SignedNetworkParameters { raw, signature, ..signed })
    }

    fn in_force(&self) -> SecureHash {
        let bytes = fs::read(self.net("network-parameters")).expect("it");
        sha256(&wire::decode_signed_network_parameters(&bytes, &Limits::DEFAULT).expect("signed").raw)
    }

    fn listed(&self) -> Vec<SecureHash> {
        let said = self.said();
        let hashes = said.documents.keys().filter_map(|path| path.strip_prefix("node-info/"));
        hashes.map(|hash| SecureHash::parse(hash).expect("a hash")).collect()
    }

    fn list_all(&self, update: Option<ParametersUpdate>) {
        self.list(&NetworkMapDocument { node_infos: self.listed(), parameters: self.in_force(), update });
    }

    fn list(&self, map: &NetworkMapDocument) {
        self.said().documents.insert(String::new(), signed_by(&self.signer, map));
    }

    fn poller(&self) -> Poller {
        let options = MapOptions {
            url: self.url.clone(),
            authorities: None,
            platform_version: 12,
            deadline: Duration::from_secs(10),
        };
        Poller::new(HttpMap::new(&options).expect("made"), self.root(), self.cache(), Arc::new(Still))
    }

    /// What a worker knows that has nothing but the root and the cache.
    fn library(&self) -> Result<Library, LoadError> {
        let cache = self.cache();
        let sources = Sources {
            parameters: vec![cache.parameters()],
            parameters_updates: vec![cache.parameters_update()],
            node_infos: vec![cache.node_infos()],
            ..Sources::default()
        };
        Library::open(self.root(), sources, now())
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.said().asked)
    }
}

fn sha256(bytes: &[u8]) -> SecureHash {
    SecureHash::sha256(Sha256::digest(bytes).into())
}

fn by_path(bytes: &[u8]) -> (String, Vec<u8>) {
    let signed = wire::decode_signed_node_info(bytes, &Limits::DEFAULT).expect("signed");
    (format!("node-info/{}", sha256(&signed.raw)), bytes.to_vec())
}

fn authority_key(folder: &TempDir, name: &str) -> PrivateKey {
    let file = folder.path().join(format!("net/authorities/{name}.p8"));
    PrivateKey::from_pkcs8_pem(&fs::read_to_string(file).expect("a key")).expect("a key")
}

fn authority(root: &Authority, role: Role) -> Authority {
    let key = PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
    let subject = crate::domain::X500Name::parse("O=Map, L=Zurich, C=CH").expect("a name");
    let validity = (NOW - 1_000, NOW + 1_000_000);
    let public_key = &key.public_key().clone();
    let request = CertificateRequest { subject: &subject, public_key, role: Some(role), validity };
    root.authority(&request, key).expect("issued")
}

fn signed_by(signer: &Authority, map: &NetworkMapDocument) -> Vec<u8> {
    let raw = wire::encode_network_map(map);
    wire::encode_signed_network_parameters(&SignedNetworkParameters {
        signature: signer.key.sign(&raw),
        raw,
        certificate: signer.certificate.as_der().to_vec(),
        parent_certificates: Vec::new(),
    })
}

fn ignore() {}

#[test]
fn a_worker_with_nothing_but_the_root_learns_its_network_and_keeps_it() {
    let zone = Zone::new(3);
    assert!(zone.library().is_err(), "nothing is known yet");
    let mut poller = zone.poller();
    poller.first().expect("the parameters");
    let library = zone.library().expect("enough to start with");
    assert_eq!((library.view().parameters.current, library.nodes().len()), (Some(zone.in_force()), 0));

    zone.said().cache_control = Some("max-age=7");
    assert_eq!(poller.round(&ignore).expect("a round"), Some(Duration::from_secs(7)));

    // And again without the server.
    zone.said().status = Some(503);
    let library = zone.library().expect("opened");
    assert_eq!((library.nodes().len(), library.problems()), (4, Vec::new()));
    assert!(zone.poller().round(&ignore).is_err());
    assert_eq!(zone.library().expect("opened").nodes().len(), 4);
}

#[test]
fn what_did_not_change_is_not_asked_for_again() {
    let zone = Zone::new(2);
    zone.said().etag = Some("\"1\"");
    let mut poller = zone.poller();
    poller.round(&ignore).expect("a round");
    assert_eq!(zone.asked().len(), 5, "the map, the parameters, two parties and the worker");
    poller.round(&ignore).expect("a round");
    assert_eq!(zone.asked(), [""], "one conditional question");
    // A new worker, or the same after a restart, asks for the map and has the rest.
    zone.poller().round(&ignore).expect("a round");
    assert_eq!(zone.asked(), [""]);
    // A node info that could not be had is asked for again, though the map is the same.
    let (path, bytes) = zone.node_infos().into_iter().next().expect("one");
    fs::remove_dir_all(zone.cache().node_infos()).expect("removed");
    zone.said().documents.remove(&path);
    let error = poller.round(&ignore).expect_err("one is missing");
    assert!(matches!(error, PollError::NodeInfos { failed: 1, listed: 3, .. }), "{error}");
    assert_eq!(zone.library().expect("opened").nodes().len(), 2, "the others were had");
    zone.said().documents.insert(path.clone(), bytes);
    zone.asked();
    poller.round(&ignore).expect("a round");
    assert_eq!(zone.asked(), [String::new(), path]);
}

/// FD1, FD4: announced parameters are accepted from the announcement on, and in force when the map says so.
#[test]
fn a_flag_day_is_followed_from_its_announcement() {
    let zone = Zone::new(1);
    let mut poller = zone.poller();
    poller.round(&ignore).expect("a round");
    let old = zone.in_force();
    let mut library = zone.library().expect("opened");

    let bytes = zone.new_parameters(2);
    let new = zone.hand_out_parameters(&bytes);
    let update = ParametersUpdate { parameters: new, description: "Rules\n2".into(), deadline: now() };
    zone.list_all(Some(update));
    poller.round(&ignore).expect("a round");
    assert!(library.look(now()));
    assert_eq!(library.view().parameters.current, Some(old));
    assert!(library.view().parameters.by_hash.contains_key(&new));

    zone.list(&NetworkMapDocument { node_infos: zone.listed(), parameters: new, update: None });
    poller.round(&ignore).expect("a round");
    assert!(library.look(now()));
    assert_eq!(library.view().parameters.current, Some(new));
    assert!(library.view().parameters.by_hash.contains_key(&old));
    assert!(!zone.cache().parameters_update().exists());
}

#[test]
fn participants_leave_when_the_map_does_not_list_them_any_more() {
    let zone = Zone::new(2);
    let mut poller = zone.poller();
    poller.round(&ignore).expect("a round");
    let gone = zone.listed()[0];
    zone.said().documents.remove(&format!("node-info/{gone}"));
    zone.list_all(None);
    poller.round(&ignore).expect("a round");
    assert_eq!(zone.library().expect("opened").nodes().len(), 2);
    // Whatever else lies there is nobody's business.
    fs::write(zone.cache().node_infos().join("README"), "mine").expect("written");
    poller.round(&ignore).expect("a round");
    assert!(zone.cache().node_infos().join("README").exists());
}

#[test]
fn only_the_networks_own_map_is_believed() {
    let zone = Zone::new(1);
    let map = NetworkMapDocument { node_infos: Vec::new(), parameters: zone.in_force(), update: None };
    let stranger = PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
    let name = crate::domain::X500Name::parse("O=Map, L=Zurich, C=CH").expect("a name");
    let other_root = Authority::root(&name, stranger, (NOW - 1_000, NOW + 1_000)).expect("made");
    let root = Authority { certificate: zone.root(), key: authority_key(&zone.folder, "root") };
    let mut poller = zone.poller();
    poller.round(&ignore).expect("a round");
    let good = signed_by(&zone.signer, &map);
    let forged = [
        ("another root", signed_by(&authority(&other_root, Role::NetworkMap), &map)),
        ("the signer of parameters", signed_by(&authority(&root, Role::NetworkParameters), &map)),
        ("the root itself", signed_by(&root, &map)),
        ("cut", good[..good.len() - 1].to_vec()),
        ("nothing", Vec::new()),
        ("parameters", zone.new_parameters(2)),
    ];
    for (what, bytes) in forged {
        zone.said().documents.insert(String::new(), bytes);
        let error = poller.round(&ignore).expect_err(what);
        assert!(matches!(error, PollError::Material { .. }), "{what}: {error}");
        assert_eq!(zone.library().expect("opened").nodes().len(), 2, "{what}: nobody left");
    }
    zone.said().documents.insert(String::new(), vec![0; 8 << 20]);
    assert!(matches!(poller.round(&ignore), Err(PollError::Http(_))), "larger than any map");
}

#[test]
fn a_document_is_the_one_that_the_map_asked_for() {
    let zone = Zone::new(2);
    let other = Zone::new(1);
    let mut poller = zone.poller();
    // Somebody else's, though good: another hash.
    let [one, two] = [0, 1].map(|i| format!("node-info/{}", zone.listed()[i]));
    let bytes = zone.said().documents[&two].clone();
    zone.said().documents.insert(one.clone(), bytes);
    // Of another network, though the map lists it.
    let (foreign, bytes) = other.node_infos().into_iter().next().expect("one");
    zone.said().documents.insert(foreign.clone(), bytes);
    zone.list_all(None);
    poller.round(&ignore).expect("a round: the nodes' trouble is not the map's");
    assert_eq!(zone.library().expect("opened").nodes().len(), 2);
    zone.asked();
    poller.round(&ignore).expect("a round");
    assert_eq!(zone.asked(), [""], "a hash names one content for ever");

    let hash = zone.in_force();
    let bytes = zone.new_parameters(7);
    zone.said().documents.insert(format!("network-parameters/{hash}"), bytes);
    fs::remove_file(zone.cache().parameters()).expect("removed");
    assert!(matches!(poller.round(&ignore), Err(PollError::Hash(_))));
    assert!(!zone.cache().parameters().exists());
}

#[test]
fn a_server_in_trouble_is_left_alone_soon() {
    let zone = Zone::new(40);
    let mut poller = zone.poller();
    zone.said().documents.retain(|path, _| !path.starts_with("node-info/"));
    let error = poller.round(&ignore).expect_err("no node infos");
    assert!(matches!(error, PollError::NodeInfos { failed: FAILURES_MAX, listed: 41, .. }), "{error}");
    zone.said().status = Some(302);
    let error = poller.round(&ignore).expect_err("redirected").to_string();
    assert!(error.contains("302") && !error.contains('\n'), "{error}");

    zone.said().hangs = true;
    let options = MapOptions {
        url: zone.url.clone(),
        authorities: None,
        platform_version: 12,
        deadline: Duration::from_millis(100),
    };
    let map = HttpMap::new(&options).expect("made");
    let begun = std::time::Instant::now();
    assert!(map.network_map(&Version::default()).is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_node_info_is_handed_in_as_corda_does() {
    let zone = Zone::new(1);
    let poller = zone.poller();
    poller.map.publish(b"signed").expect("taken");
    assert_eq!(zone.said().posted, [(b"signed".to_vec(), "12".to_owned())]);
    zone.said().status = Some(403);
    let error = poller.map.publish(b"signed").expect_err("refused").to_string();
    assert!(error.contains("/zone/network-map/publish: 403") && error.contains("out of order"), "{error}");
}

#[test]
fn polling_goes_on_after_trouble_and_ends_when_dropped() {
    let zone = Zone::new(1);
    zone.said().status = Some(500);
    let (told, hears) = channel();
    let tell: Sender<()> = told;
    let polling = Polling::start(zone.poller(), Duration::from_secs(3_600), move || {
        let _ = tell.send(());
    });
    let polling = polling.expect("started");
    while zone.asked().is_empty() {
        thread::yield_now();
    }
    zone.said().status = None;
    polling.ask();
    hears.recv_timeout(Duration::from_secs(60)).expect("it goes on");
    drop(polling);
    // The thread drops what it tells with.
    while hears.recv_timeout(Duration::from_secs(60)).is_ok() {}
    assert_eq!(zone.library().expect("opened").nodes().len(), 2);
}

/// FD3: workers that start together do not poll together.
#[test]
fn pauses_are_spread_over_two_fifths_of_their_length() {
    let pause = Duration::from_secs(100);
    let pauses: Vec<Duration> = (0..1_000).map(|_| jittered(pause)).collect();
    assert!(pauses.iter().all(|p| (80.0..=120.0).contains(&p.as_secs_f64())));
    // Each fifth of the range has its share; less than a tenth of a thousand, where 200 are due, would be no chance.
    for fifth in 0..5 {
        let from = 80.0 + 8.0 * f64::from(fifth);
        let count = pauses.iter().filter(|p| (from..from + 8.0).contains(&p.as_secs_f64())).count();
        assert!(count > 100, "{count} from {from}");
    }
}
