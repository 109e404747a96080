//! A worker and its network while it runs: a flag day under load, its own node info, an HTTP network map (PR4, FD1, FD4, LB2, ID2).

mod material;
mod worker;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use notary_worker::client::cast::Cast;
use notary_worker::client::judge::Answer;
use notary_worker::keys;
use notary_worker::network::development::DevelopmentNetwork;
use notary_worker::network::{FileNetworkMap, Node};
use notary_worker::ports::Clock;
use notary_worker::ports::clock::SystemClock;
use notary_worker::wire::{self, Limits};
use serde_json::Value;
use worker::{Network, Worker};

/// How long anything may take that takes a second at most.
const WITHIN: Duration = Duration::from_secs(60);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WITHIN, "{what} within {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn figure(worker: &Worker, name: &str) -> Option<String> {
    let (_, text) = worker.get("/metrics");
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

/// FD1, FD4, PR4: parameters are swapped under load, twice; transactions of either version are notarised, before and after.
#[test]
fn a_flag_day_under_load_costs_no_request() {
    let network = Network::init(&[]);
    let running = network.start_with(|command| {
        command.args(["--set", "network.reload_ms=100"]);
    });
    let file = network.dir().join("network/network-parameters");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let connect = || runtime.block_on(Cast::connect(&network.dir(), network.address)).expect("the parties connect");
    let spend = |cast: &Cast| {
        let actor = Arc::clone(&cast.parties()[0]);
        let coin = actor.fresh_state().expect("random");
        let transaction = actor.spend(&[coin]).expect("it can be made");
        let answer = runtime.block_on(actor.notarise(&transaction));
        assert!(matches!(answer, Ok(Answer::Notarised(_))), "{answer:?}");
    };
    let old = connect();
    spend(&old);
    let (first, epoch) = (fs::read(&file).expect("there"), "notary_network_parameters_epoch");
    until("the figures", || figure(&running, epoch).as_deref() == Some("1"));
    for (version, expected) in [(material::parameters(&network.dir(), 2, None).1, "2"), (first, "1")] {
        notary_worker::network::replace(&file, &version).expect("written");
        // Load while it is taken up.
        until("the swap", || {
            spend(&old);
            figure(&running, epoch).as_deref() == Some(expected)
        });
        let new = connect();
        spend(&new);
        spend(&old);
        runtime.block_on(new.close());
    }
    assert_eq!(figure(&running, "notary_network_service_listed").as_deref(), Some("1"));
    assert_eq!(figure(&running, "notary_network_parameters ").as_deref(), Some("2"));
    runtime.block_on(old.close());
    assert_eq!(running.terminate().code(), Some(0));
}

/// What a network's operators gave the worker, and where its node info goes.
fn identity(network: &Network) -> Vec<String> {
    let info = material::node_info(&network.dir().join("network/node-infos/nodeInfo-worker"));
    let [own, service] = &info.identities[..] else { panic!("two identities") };
    material::write_chain(&network.dir().join("identity.pem"), own);
    material::write_chain(&network.dir().join("service.pem"), service);
    let settings = [
        "identity.certificate=identity.pem",
        "identity.key=keys/worker.p8",
        "identity.passphrase=file:keys/passphrase",
        "identity.service_certificate=service.pem",
        "p2p.addresses=notary-1.example:10002,[::1]:10003",
        "network.publish_dir=published",
    ];
    settings.map(str::to_owned).into()
}

fn run(network: &Network, verb: &str, settings: &[String]) -> (i32, String) {
    let config = network.config();
    let mut arguments = vec!["network", verb, "--json", "--config", config.to_str().expect("UTF-8")];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let output = worker::run(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("it ends"), text)
}

fn publish(network: &Network, settings: &[String]) -> Value {
    let (code, text) = run(network, "publish", settings);
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn doctor(network: &Network, settings: &[String]) -> String {
    let config = network.config();
    let mut arguments = vec!["doctor", "--config", config.to_str().expect("UTF-8")];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    String::from_utf8(worker::run(&arguments).stdout).expect("text")
}

/// The worker as others know it that have what was `published`, beside what they had.
fn known(network: &Network, published: &Path) -> Node {
    let dir = network.dir().join("network");
    for file in files(published) {
        let name = file.file_name().expect("a name");
        fs::copy(&file, dir.join("node-infos").join(name)).expect("copied");
    }
    let map = FileNetworkMap::load(&dir, SystemClock.now()).expect("loaded");
    assert_eq!(map.problems(), []);
    map.nodes().iter().find(|node| node.identities.len() == 2).expect("the worker").clone()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.map(|entry| entry.expect("it").path()).collect()).unwrap_or_default()
}

/// LB2, ID2: signed by both identities, once for each change of what it says, and always newer than what others have.
#[test]
fn the_workers_node_info_is_signed_when_it_says_something_new() {
    let network = Network::init(&[]);
    let mut settings = identity(&network);
    let published = network.dir().join("published");
    let before = known(&network, &published);

    assert!(doctor(&network, &settings).contains("warn   network: own node info"));
    let first = publish(&network, &settings);
    assert_eq!(first["new"], true);
    assert!(doctor(&network, &settings).contains("ok     network: own node info"));
    let node = known(&network, &published);
    let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["notary-1.example:10002", "[::1]:10003"]);
    assert!(node.serial > before.serial);
    assert_eq!(node.identities, before.identities);
    assert_eq!(Value::from(node.serial), first["serial"]);
    let [file] = &files(&published)[..] else { panic!("one file") };
    let content = fs::read(file).expect("it");

    let again = publish(&network, &settings);
    assert_eq!((&again["new"], &again["serial"]), (&Value::from(false), &first["serial"]));
    assert_eq!(fs::read(file).expect("it"), content, "nothing was signed anew");

    settings.push("p2p.addresses=notary-2.example:10002".into());
    let moved = publish(&network, &settings);
    assert_eq!(moved["new"], true);
    assert!(known(&network, &published).serial > node.serial);
    assert_eq!(files(&published), std::slice::from_ref(file), "it takes the place of the old one");

    let (code, text) = run(&network, "show", &settings);
    assert_eq!(code, 0, "{text}");
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let nodes = shown["nodes"].as_array().expect("nodes");
    let worker = nodes.iter().find(|node| !node["service"].is_null()).expect("the worker");
    assert_eq!(worker["addresses"], serde_json::json!(["notary-2.example:10002"]));
    assert_eq!(shown["parameters"][0]["standing"], "in force");
}

/// ID5, LB2: the same with both identities in a node's key store, where the service's certificates lie beside its key.
#[test]
fn the_identities_of_a_node_info_may_lie_in_a_key_store() {
    let network = Network::init(&[]);
    let settings = identity(&network);
    let by_files = publish(&network, &settings);
    let dir = network.dir();
    let passphrase = DevelopmentNetwork::open(&dir).passphrase().expect("there");
    let mut writer = keys::jks::Writer::new(SystemClock.now());
    for (alias, key, chain) in [
        ("identity-private-key", "keys/worker.p8", "identity.pem"),
        ("distributed-notary-private-key", "keys/service.p8", "service.pem"),
    ] {
        let private = keys::file::load_encrypted(&dir.join(key), &passphrase).expect("a key");
        let chain = notary_worker::tls::peers::read_chain(&dir.join(chain)).expect("a chain");
        writer = writer.key(alias, &private, &chain, &passphrase).expect("sealed");
        fs::remove_file(dir.join(key)).expect("removed");
    }
    keys::file::create(&dir.join("nodekeystore.jks"), &writer.finish(&passphrase)).expect("written");
    let settings: Vec<String> = [
        "signing.kind=keystore",
        "signing.keystore=nodekeystore.jks",
        "identity.kind=keystore",
        "identity.keystore=nodekeystore.jks",
        "identity.passphrase=file:keys/passphrase",
        "p2p.addresses=notary-1.example:10002,[::1]:10003",
        "network.publish_dir=published",
    ]
    .map(str::to_owned)
    .into();
    let same = publish(&network, &settings);
    assert_eq!((&same["new"], &same["serial"]), (&Value::from(false), &by_files["serial"]), "it says the same");
    let moved = [&settings[..], &["p2p.addresses=notary-2.example:10002".to_owned()]].concat();
    assert_eq!(publish(&network, &moved)["new"], true);
    let node = known(&network, &dir.join("published"));
    assert_eq!(node.addresses[0].to_string(), "notary-2.example:10002");
    let said = doctor(&network, &moved);
    for usage in ["certificate: identity", "certificate: service"] {
        assert!(said.contains(&format!("{usage}: the first to end is")), "{usage}: {said}");
    }
    let wrong = [&settings[..], &["identity.alias=another".to_owned()]].concat();
    let (code, text) = run(&network, "publish", &wrong);
    assert!(code == 2 && text.contains("identity.keystore") && text.contains("\"another\""), "{code} {text}");

    let running = network.start_with(|command| {
        for setting in &moved {
            command.args(["--set", setting]);
        }
    });
    for usage in ["identity", "service"] {
        let line = format!("notary_certificate_expiry_seconds{{use=\"{usage}\"}}");
        until("the figures", || {
            figure(&running, &line).is_some_and(|left| left.parse::<f64>().expect("a number") > 86_400.0)
        });
    }
    assert_eq!(running.terminate().code(), Some(0));
}

/// ID2: what others know of the worker is what counts, and only its own key says so.
#[test]
fn a_node_info_is_newer_than_what_others_know_and_than_nothing_else() {
    let network = Network::init(&[]);
    let mut settings = identity(&network);
    let published = network.dir().join("published");
    let first = publish(&network, &settings);
    let [file] = &files(&published)[..] else { panic!("one file") };
    let mode = fs::metadata(file).expect("there").permissions().mode();
    assert_eq!(mode & 0o044, 0o044, "other nodes may read it");

    // Somebody else writes the highest number there is into its file.
    let own = fs::read(file).expect("there");
    let signed = wire::decode_signed_node_info(&own, &Limits::DEFAULT).expect("signed");
    let info = wire::decode_node_info(&signed.raw, &Limits::DEFAULT).expect("info");
    let raw = wire::encode_node_info(&wire::NodeInfo { serial: i64::MAX, ..info.clone() });
    let forged = wire::encode_signed_node_info(&wire::SignedNodeInfo { raw, ..signed });
    fs::write(file, &forged).expect("written");
    settings.push("p2p.addresses=notary-2.example:10002".into());
    let second = publish(&network, &settings);
    let serial = |published: &Value| published["serial"].as_i64().expect("a number");
    assert!(serial(&second) > serial(&first) && serial(&second) < i64::MAX, "{second}");

    // A copy of the worker with other addresses published later, from a machine whose clock is ahead.
    let key = |name: &str| {
        let network = DevelopmentNetwork::open(&network.dir());
        let file = network.worker_key_file().with_file_name(name);
        keys::file::load_encrypted(&file, &network.passphrase().expect("there")).expect("a key")
    };
    let later = serial(&second) + 3_600_000;
    let raw = wire::encode_node_info(&wire::NodeInfo { serial: later, ..info });
    let signatures = ["worker.p8", "service.p8"].map(|name| key(name).sign(&raw)).into();
    let copy = wire::encode_signed_node_info(&wire::SignedNodeInfo { raw, signatures });
    fs::write(network.dir().join("network/node-infos/nodeInfo-copy"), copy).expect("written");
    let third = publish(&network, &settings);
    assert_eq!((&third["new"], serial(&third)), (&Value::from(true), later + 1));
    assert_eq!(publish(&network, &settings)["new"], false);
}

#[test]
fn nothing_is_published_that_would_not_be_believed() {
    let network = Network::init(&[]);
    let settings = identity(&network);
    let other = Network::init(&[]);
    let _ = identity(&other);
    let foreign = |name: &str| other.dir().join(name).display().to_string();
    for (change, code, reason) in [
        (format!("identity.certificate={}", foreign("identity.pem")), 2, "another root"),
        ("identity.certificate=service.pem".into(), 2, "wrong role"),
        (format!("signing.key={}", foreign("keys/service.p8")), 2, "passphrase"),
        ("signing.key=keys/worker.p8".into(), 2, "key of the service"),
        ("identity.key=keys/service.p8".into(), 2, "key of the worker"),
        ("worker.name=O=Somebody Else, L=Zurich, C=CH".into(), 2, "Somebody Else"),
        ("p2p.addresses=".into(), 2, "p2p.addresses"),
        ("identity.service_certificate=".into(), 2, "identity.service_certificate"),
    ] {
        let changed: Vec<_> = settings.iter().cloned().chain([change.clone()]).collect();
        let (found, text) = run(&network, "publish", &changed);
        assert!(text.contains(reason), "{change}: {text}");
        assert_eq!(found, code, "{change}: {text}");
        assert_eq!(files(&network.dir().join("published")), Vec::<PathBuf>::new(), "{change}");
    }
}

/// A map server that lists nobody and takes whatever is handed in.
#[derive(Default)]
struct Map {
    posted: Vec<Vec<u8>>,
    refuses: bool,
}

async fn answer(State(map): State<Arc<Mutex<Map>>>, request: Request) -> Response {
    let is_post = request.uri().path() == "/network-map/publish";
    let body = to_bytes(request.into_body(), 1 << 20).await.expect("a body").to_vec();
    let mut map = map.lock().expect("whole");
    let status = match is_post && !map.refuses {
        true => {
            map.posted.push(body);
            200
        }
        false => 503,
    };
    Response::builder().status(status).body(Body::empty()).expect("built")
}

/// A map that is down does not keep a worker from serving, and gets the node info when it is back.
#[test]
fn a_running_worker_publishes_by_itself_and_does_not_wait_for_the_map() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let map = Arc::new(Mutex::new(Map { refuses: true, ..Map::default() }));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("bound");
    let url = format!("network.url=http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&map));
    runtime.spawn(async move { axum::serve(listener, router).await });

    let network = Network::init(&[]);
    let settings = identity(&network);
    let running = network.start_with(|command| {
        settings.iter().chain([&url, &"network.poll_ms=1000".into()]).for_each(|setting| {
            command.args(["--set", setting]);
        });
    });
    assert_eq!(running.get("/ready").0, 200, "it serves");
    let published = network.dir().join("published");
    until("the file", || !files(&published).is_empty());
    assert_ne!(figure(&running, "notary_network_published").as_deref(), Some("1"));
    until("a poll", || figure(&running, "notary_network_poll_failures_total").is_some_and(|count| count != "0"));
    map.lock().expect("whole").refuses = false;
    until("the map has it", || !map.lock().expect("whole").posted.is_empty());
    let [file] = &files(&published)[..] else { panic!("one file") };
    assert_eq!(map.lock().expect("whole").posted[0], fs::read(file).expect("it"));
    until("the figure", || figure(&running, "notary_network_published").as_deref() == Some("1"));
    assert_eq!(running.terminate().code(), Some(0));
}
