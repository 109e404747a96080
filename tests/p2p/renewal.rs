//! The worker's TLS certificate while it runs (FEATURES ID5, ID7; FAULTS F38): renewed ones are taken up without a restart and without
//! losing a connection, bad ones never; how long those in use last is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notary_worker::client::judge::Answer;
use notary_worker::domain::network::{HostAndPort, Route};
use notary_worker::domain::{Timestamp, X500Name};
use notary_worker::keys::file::{create, load_plain};
use notary_worker::keys::jks;
use notary_worker::ports::Clock;
use notary_worker::ports::clock::SystemClock;
use notary_worker::ports::request_queue::Settlement;
use notary_worker::tls::peers::read_chain;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zeroize::Zeroizing;

use crate::rig::{Network, Node, PATIENCE};
use crate::worker::Worker;
use crate::{material, runtime};

/// One certificate that the worker could have: its files, and what others see of it.
struct Issued {
    folder: PathBuf,
    own: Vec<u8>,
}

impl Issued {
    fn new(network: &Network, label: &str, name: &X500Name, until: Option<(i32, u8)>) -> Self {
        let folder = network.dir().join(label);
        network.issue(name, &folder, until);
        let own = read_chain(&folder.join("tls.pem")).expect("a chain").swap_remove(0);
        Self { folder, own }
    }

    /// Puts it where the worker has its own, both files at once, as a program does that makes a link to each new version.
    fn install(&self, network: &Network) {
        let (place, new) = (network.dir().join("tls-1"), network.dir().join("tls-new"));
        if !place.is_symlink() {
            fs::rename(&place, network.dir().join("tls-first")).expect("renamed");
        }
        std::os::unix::fs::symlink(&self.folder, &new).expect("linked");
        fs::rename(new, place).expect("renamed");
    }
}

/// What a figure of the worker's says; 0 while it has not been told.
pub(crate) fn figure(worker: &Worker, line: &str) -> f64 {
    let figures = worker.get("/metrics").1;
    let found = figures.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}

/// A year of the calendar, on average.
const YEAR_SECONDS: i64 = 31_556_952;

const TAKEN: &str = "notary_certificate_renewals_total{use=\"tls\",outcome=\"taken\"}";
const REFUSED: &str = "notary_certificate_renewals_total{use=\"tls\",outcome=\"refused\"}";
const TLS_EXPIRY: &str = "notary_certificate_expiry_seconds{use=\"tls\"}";

pub(crate) async fn wait_for(worker: &Worker, line: &str, value: f64) {
    let looking = async {
        while figure(worker, line) < value {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{line} should reach {value}"));
}

fn start(network: &Network, more: &[String]) -> Worker {
    network.start_with(1, |command| {
        command.args(["--set", "network.reload_ms=100"]).stderr(std::process::Stdio::piped());
        for setting in more {
            command.args(["--set", setting]);
        }
    })
}

/// The worker's own certificate as a node sees it that connects now.
pub(crate) async fn shown_by_the_endpoint(network: &Network, node: &Node) -> Vec<u8> {
    let address = network.address(1);
    let addresses = vec![HostAndPort { host: address.ip().to_string(), port: address.port() }];
    let route = Route { addresses, names: vec![network.worker_name(1)] };
    let (config, name) = node.tls().client(&route).expect("settings");
    let socket = TcpStream::connect(address).await.expect("it listens");
    let stream = TlsConnector::from(config).connect(name, socket).await.expect("a handshake");
    let certificates = stream.get_ref().1.peer_certificates().expect("a certificate");
    certificates[0].to_vec()
}

/// The worker's own certificate as a node sees it to which the worker connects now, with an answer.
pub(crate) async fn shown_to_a_broker(network: &Network, node: &Arc<Node>) -> Vec<u8> {
    node.stop();
    let binding = async {
        loop {
            // Its broker lets go of the address a moment later.
            match TcpListener::bind(node.broker_address()).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let listener = tokio::time::timeout(PATIENCE, binding).await.expect("its broker is away");
    let sent = node.send(network, 1, node.request().0);
    let acceptor = TlsAcceptor::from(node.tls().server().expect("settings"));
    let (socket, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a connection");
    let stream = acceptor.accept(socket).await.expect("a handshake");
    let certificates = stream.get_ref().1.peer_certificates().expect("a certificate").to_vec();
    sent.abort();
    certificates[0].to_vec()
}

/// A request on whatever connections there are.
async fn notarised(network: &Network, node: &Arc<Node>) {
    let (request, tx_id) = node.request();
    let sent = node.send(network, 1, request);
    assert!(matches!(node.answer(tx_id).await, Answer::Notarised(_)));
    sent.await.expect("no panic").expect("accepted");
}

/// ID7, F38: goal: with a request under way on connections both ways, the certificate is renewed: that request and further ones are
/// answered on the same connections, and new connections, from nodes and to nodes, are made with the new certificate.
#[test]
fn a_renewed_certificate_is_taken_up_and_open_connections_go_on() {
    let network = Network::create();
    let this_year = 1970 + (SystemClock.now().seconds() / YEAR_SECONDS) as i32;
    let renewed = Issued::new(&network, "renewed", &network.worker_name(1), Some((this_year + 3, 1)));
    runtime().block_on(async {
        let (alice, bob) = (network.node("alice"), network.node("bob"));
        let worker = start(&network, &[]);
        notarised(&network, &alice).await;
        let before = shown_by_the_endpoint(&network, &alice).await;
        let connections = figure(&worker, "notary_endpoint_connections");
        assert!(connections >= 1.0 && before != renewed.own);

        let (request, _) = alice.request();
        let sent = alice.send(&network, 1, request);
        let confirm = alice.next().await;
        renewed.install(&network);
        wait_for(&worker, TAKEN, 1.0).await;
        alice.settle(confirm, Settlement::Accept).await;
        for _ in ["data", "end"] {
            let rest = alice.next().await;
            alice.settle(rest, Settlement::Accept).await;
        }
        sent.await.expect("no panic").expect("accepted on the connection that was open before");
        notarised(&network, &alice).await;
        assert_eq!(figure(&worker, "notary_bridges{state=\"up\"}"), 1.0, "still the one");

        assert_eq!(shown_by_the_endpoint(&network, &bob).await, renewed.own);
        assert_eq!(shown_to_a_broker(&network, &bob).await, renewed.own);
        let years = figure(&worker, TLS_EXPIRY) / YEAR_SECONDS as f64;
        assert!((1.9..3.1).contains(&years), "three years, where the first one had ten: {years}");
        assert_eq!(figure(&worker, REFUSED), 0.0);
        worker.signal("TERM");
        let said = String::from_utf8(worker.output().stderr).expect("UTF-8");
        assert_eq!(said.matches("renewed certificate taken up").count(), 1, "{said}");
    });
}

/// ID7: goal: what must not be used is not: half a file, a key of another certificate, somebody else's certificate, one below another root,
/// one that has ended. Each is said once, and counted; the good one stays, and the next good one is taken up.
#[test]
fn a_bad_certificate_changes_nothing_and_is_said_once() {
    let (network, stranger) = (Network::create(), Network::create());
    let name = network.worker_name(1);
    let other = Issued::new(&network, "other", &network.worker_name(2), None);
    let ended = Issued::new(&network, "ended", &name, Some((2020, 1)));
    let foreign = Issued::new(&stranger, "foreign", &name, None);
    let renewed = Issued::new(&network, "renewed", &name, None);
    let half = Issued::new(&network, "half", &name, None);
    let chain = fs::read_to_string(half.folder.join("tls.pem")).expect("there");
    fs::write(half.folder.join("tls.pem"), &chain[..chain.len() / 6]).expect("written");
    let unfit = Issued::new(&network, "unfit", &name, None);
    fs::copy(other.folder.join("tls.p8"), unfit.folder.join("tls.p8")).expect("copied");
    runtime().block_on(async {
        let alice = network.node("alice");
        let worker = start(&network, &[]);
        let before = shown_by_the_endpoint(&network, &alice).await;
        let bad = [
            (&half, "missing section end"),
            (&unfit, "not that of"),
            (&other, "take the place"),
            (&foreign, "another root"),
            (&ended, "has expired"),
        ];
        for (n, (bad, _)) in bad.iter().enumerate() {
            bad.install(&network);
            wait_for(&worker, REFUSED, n as f64 + 1.0).await;
            assert_eq!(shown_by_the_endpoint(&network, &alice).await, before, "{}", bad.folder.display());
            notarised(&network, &alice).await;
        }
        fs::remove_file(network.dir().join("tls-1/tls.p8")).expect("removed");
        wait_for(&worker, REFUSED, 6.0).await;
        renewed.install(&network);
        wait_for(&worker, TAKEN, 1.0).await;
        assert_eq!(shown_by_the_endpoint(&network, &alice).await, renewed.own);
        notarised(&network, &alice).await;
        assert_eq!(figure(&worker, REFUSED), 6.0);
        worker.signal("TERM");
        let said = String::from_utf8(worker.output().stderr).expect("UTF-8");
        assert_eq!(said.matches("certificate not taken up").count(), 6, "{said}");
        for (bad, part) in bad {
            assert!(said.contains(part), "{part} for {}: {said}", bad.folder.display());
        }
    });
}

fn write_store(path: &Path, issued: &Issued, passphrase: &Zeroizing<String>) {
    let key = load_plain(&issued.folder.join("tls.p8")).expect("a key");
    let chain = read_chain(&issued.folder.join("tls.pem")).expect("a chain");
    let writer = jks::Writer::new(Timestamp::new(1_790_000_000, 0).expect("in range"));
    let bytes = writer.key("cordaclienttls", &key, &chain, passphrase).expect("sealed").finish(passphrase);
    let new = path.with_extension("new");
    create(&new, &bytes).expect("written");
    fs::rename(new, path).expect("renamed");
}

/// ID5, ID7: goal: the same with a node's key store, also when its passphrase changes with it.
#[test]
fn the_certificate_may_lie_in_a_key_store_and_be_renewed_there() {
    let network = Network::create();
    let name = network.worker_name(1);
    let (first, renewed) = (Issued::new(&network, "first", &name, None), Issued::new(&network, "second", &name, None));
    let (store, secret) = (network.dir().join("sslkeystore.jks"), network.dir().join("ssl-passphrase"));
    let [one, two] = ["cordacadevpass", "another passphrase"].map(|text| Zeroizing::new(text.to_owned()));
    write_store(&store, &first, &one);
    create(&secret, one.as_bytes()).expect("written");
    let settings = [
        "p2p.tls_kind=keystore".to_owned(),
        format!("p2p.tls_keystore={}", store.display()),
        format!("p2p.tls_passphrase=file:{}", secret.display()),
        "p2p.tls_certificate=".to_owned(),
        "p2p.tls_key=".to_owned(),
    ];
    runtime().block_on(async {
        let alice = network.node("alice");
        let worker = start(&network, &settings);
        notarised(&network, &alice).await;
        assert_eq!(shown_by_the_endpoint(&network, &alice).await, first.own);
        write_store(&store, &renewed, &two);
        wait_for(&worker, REFUSED, 1.0).await;
        fs::write(&secret, two.as_bytes()).expect("written");
        wait_for(&worker, TAKEN, 1.0).await;
        assert_eq!(shown_by_the_endpoint(&network, &alice).await, renewed.own);
        notarised(&network, &alice).await;
        worker.signal("TERM");
        let said = String::from_utf8(worker.output().stderr).expect("UTF-8");
        assert!(said.contains("the passphrase does not open the key store"), "{said}");
        assert!(!said.contains(one.as_str()) && !said.contains(two.as_str()), "{said}");
    });
}

/// F38, OB3: goal: how long certificates last is told by figures, and by `doctor`, which warns a month ahead.
#[test]
fn certificates_tell_how_long_they_last() {
    let network = Network::create();
    let worker = start(&network, &[]);
    runtime().block_on(async {
        for usage in ["tls", "network_root", "network_parameters"] {
            let line = format!("notary_certificate_expiry_seconds{{use=\"{usage}\"}}");
            wait_for(&worker, &line, 86_400.0).await;
        }
    });
    drop(worker);
    let mut command = crate::worker::notary();
    command.arg("doctor");
    for setting in network.settings(1) {
        command.args(["--set", &setting]);
    }
    let said = String::from_utf8(command.output().expect("it starts").stdout).expect("UTF-8");
    assert!(said.contains("certificate: tls: the first to end is") && said.contains("network: certificates"), "{said}");
}

/// ID7, LB2: goal: a renewed certificate of the worker's own identity is in its node info without a restart, and what is under way does
/// not notice. One that has ended, or is another worker's, is not taken up.
#[test]
fn a_renewed_identity_is_published_while_the_worker_runs() {
    let network = Network::create();
    let dir = network.dir();
    let file = |name: &str| dir.join(name).display().to_string();
    let info = material::node_info(&dir.join("network/node-infos/nodeInfo-worker"));
    let [own, service] = &info.identities[..] else { panic!("two identities") };
    material::write_chain(&dir.join("own.pem"), own);
    material::write_chain(&dir.join("service.pem"), service);
    let settings = [
        format!("identity.certificate={}", file("own.pem")),
        format!("identity.key={}", file("keys/worker.p8")),
        format!("identity.passphrase=file:{}", file("keys/passphrase")),
        format!("identity.service_certificate={}", file("service.pem")),
        format!("p2p.addresses={}", network.address(1)),
        format!("network.publish_dir={}", file("published")),
    ];
    let published = || {
        let files = fs::read_dir(dir.join("published")).expect("there").map(|file| file.expect("it"));
        // While a new one is written, there is a second file for a moment.
        let mut infos = files.filter(|file| file.file_name().to_string_lossy().starts_with("nodeInfo-"));
        material::node_info(&infos.next().expect("one").path())
    };
    let count = |outcome: &str| format!("notary_certificate_renewals_total{{use=\"identity\",outcome=\"{outcome}\"}}");
    let install = |pem: String| notary_worker::network::replace(&dir.join("own.pem"), pem.as_bytes()).expect("written");
    runtime().block_on(async {
        let alice = network.node("alice");
        let worker = start(&network, &settings);
        wait_for(&worker, "notary_network_published", 1.0).await;
        let first = published();
        assert_eq!(&first.identities[0], own);

        let (request, tx_id) = alice.request();
        let sent = alice.send(&network, 1, request);
        install(network.issue_identity(1, Some((2020, 1))));
        wait_for(&worker, &count("refused"), 1.0).await;
        install(network.issue_identity(2, None));
        wait_for(&worker, &count("refused"), 2.0).await;
        assert_eq!(published(), first, "nothing was published");
        install(network.issue_identity(1, None));
        wait_for(&worker, &count("taken"), 1.0).await;
        let looking = async {
            while published().serial == first.serial {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("published anew");
        let renewed = published();
        assert!(renewed.serial > first.serial && renewed.identities[0] != first.identities[0]);
        assert_eq!(renewed.identities[1], first.identities[1]);
        assert!(matches!(alice.answer(tx_id).await, Answer::Notarised(_)));
        sent.await.expect("no panic").expect("accepted");
        notarised(&network, &alice).await;
        assert_eq!(worker.terminate().code(), Some(0));
    });
}
