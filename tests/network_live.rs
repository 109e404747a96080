//! The network map follows its documents while the worker runs: rows PR4 and FD1 to FD4.

mod material;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notary_worker::domain::{SecureHash, Timestamp, X500Name};
use notary_worker::keys::PrivateKey;
use notary_worker::network::development::{DevelopmentNetwork, Spec};
use notary_worker::network::{FileError, Library, LiveNetworkMap, Snapshot, Sources, read_root};
use notary_worker::ports::{Clock, NetworkMap};
use notary_worker::wire::{self, Limits};
use tempfile::TempDir;
use tokio::sync::watch;

/// January 2027: within the validity of all certificates here.
const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 365 * 86_400;
/// How long a change may take to show: looks are asked for, so this only ends a test that would fail.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).expect("in range")
}

/// A clock that stands still until it is told.
struct Told(Mutex<Timestamp>);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("whole")
    }
}

/// A development network, and a map that follows it.
struct Followed {
    folder: TempDir,
    network: DevelopmentNetwork,
    clock: Arc<Told>,
}

impl Followed {
    fn new(parties: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = Spec { parties, ..Spec::new(at(NOW)) };
        let network = DevelopmentNetwork::create(&folder.path().join("net"), &spec).expect("made");
        Self { folder, network, clock: Arc::new(Told(Mutex::new(at(NOW)))) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.network.network_dir().join(name)
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("state/historic-parameters")
    }

    fn library(&self) -> Library {
        let sources = Sources { archive: Some(self.archive()), ..Sources::in_folder(&self.network.network_dir()) };
        let root = read_root(&self.file("root.pem")).expect("the root");
        Library::open(root, sources, self.clock.now()).expect("opened")
    }

    /// Looks only when asked: the pause is longer than any test.
    fn start(&self) -> LiveNetworkMap {
        LiveNetworkMap::start(self.library(), Arc::clone(&self.clock) as _, Duration::from_secs(3_600))
            .expect("started")
    }

    /// New parameters, signed by the network's own key or another.
    fn parameters(&self, epoch: i32, key: Option<&PrivateKey>) -> (SecureHash, Vec<u8>) {
        material::parameters(&self.folder.path().join("net"), epoch, key)
    }

    /// Alice's node info with another serial and port.
    fn alice_at(&self, serial: i64, port: u16) -> Vec<u8> {
        let alice = self.network.party("alice").expect("alice");
        let bytes = fs::read(self.file("node-infos/nodeInfo-alice")).expect("a file");
        let signed = wire::decode_signed_node_info(&bytes, &Limits::DEFAULT).expect("signed");
        let mut info = wire::decode_node_info(&signed.raw, &Limits::DEFAULT).expect("info");
        (info.serial, info.addresses[0].port) = (serial, port);
        let raw = wire::encode_node_info(&info);
        wire::encode_signed_node_info(&wire::SignedNodeInfo { signatures: vec![alice.key.sign(&raw)], raw })
    }
}

/// The next change; looks are asked for until it shows.
async fn change(map: &LiveNetworkMap, changes: &mut watch::Receiver<Snapshot>) -> Snapshot {
    let shows = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                changed = changes.changed() => return changed.expect("the map lives"),
                _ = again.tick() => map.look(),
            }
        }
    };
    tokio::time::timeout(SHOWS_WITHIN, shows).await.expect("a change shows");
    changes.borrow_and_update().clone()
}

fn name(text: &str) -> X500Name {
    X500Name::parse(text).expect("a name")
}

fn alice() -> X500Name {
    name("O=Alice Corp, L=Madrid, C=ES")
}

fn bob() -> X500Name {
    name("O=Bob Plc, L=Rome, C=IT")
}

fn port_of(snapshot: &Snapshot, who: &X500Name) -> u16 {
    snapshot.view.routes[who].addresses[0].port
}

/// FD1, FD4: before, at and after the flag day both versions are accepted, and no restart is needed for it.
#[tokio::test]
async fn a_flag_day_is_no_outage() {
    let net = Followed::new(1);
    let map = net.start();
    let mut changes = map.changes();
    let old = map.view().parameters.current.expect("in force");
    let (new, bytes) = net.parameters(2, None);

    fs::write(net.file("network-parameters-update"), &bytes).expect("written");
    let announced = change(&map, &mut changes).await.view;
    assert_eq!(announced.parameters.current, Some(old), "announced is not in force");
    assert!(announced.parameters.by_hash.contains_key(&new), "but accepted");

    // As a node does it: the announced file takes the place of the one in force.
    fs::rename(net.file("network-parameters-update"), net.file("network-parameters")).expect("moved");
    let after = change(&map, &mut changes).await.view;
    assert_eq!(after.parameters.current, Some(new));
    assert_eq!(after.parameters.current().expect("in force").epoch, 2);
    assert!(after.parameters.by_hash.contains_key(&old), "transactions still refer to it");

    // A worker that starts today knows yesterday's parameters, though no operator kept the file.
    drop(map);
    let restarted = net.library();
    assert!(restarted.view().parameters.by_hash.contains_key(&old));
    assert_eq!(restarted.view().parameters.current, Some(new));
    assert_eq!(restarted.problems(), []);
}

#[tokio::test]
async fn participants_join_move_and_leave_without_a_restart() {
    let net = Followed::new(2);
    let away = net.folder.path().join("bob");
    fs::rename(net.file("node-infos/nodeInfo-bob"), &away).expect("moved");
    let map = net.start();
    let mut changes = map.changes();
    assert!(!map.view().parties.contains_key(&bob()));

    fs::copy(&away, net.file("node-infos/nodeInfo-bob")).expect("copied");
    let joined = change(&map, &mut changes).await;
    assert!(joined.view.parties.contains_key(&bob()) && joined.view.routes.contains_key(&bob()));
    assert_eq!(joined.nodes.len(), 3, "with the worker");

    fs::write(net.file("node-infos/nodeInfo-alice"), net.alice_at(i64::MAX, 1)).expect("written");
    assert_eq!(port_of(&change(&map, &mut changes).await, &alice()), 1);

    fs::remove_file(net.file("node-infos/nodeInfo-bob")).expect("removed");
    let left = change(&map, &mut changes).await;
    assert!(!left.view.parties.contains_key(&bob()));
    assert!(!left.view.routes.contains_key(&bob()));
}

#[test]
fn a_bad_file_never_replaces_a_good_one() {
    let net = Followed::new(2);
    let mut library = net.library();
    let before = Arc::clone(library.view());
    let stranger = PrivateKey::generate(notary_worker::domain::SignatureScheme::Ed25519).expect("a key");
    let alice_file = net.file("node-infos/nodeInfo-alice");
    let whole = net.alice_at(i64::MAX, 1);
    for (file, bad) in [
        (alice_file.clone(), whole[..whole.len() / 2].to_vec()),
        (alice_file.clone(), Vec::new()),
        (alice_file.clone(), vec![0; 64 * 1024 + 1]),
        (net.file("network-parameters"), net.parameters(2, Some(&stranger)).1),
        (net.file("network-parameters"), b"garbage".to_vec()),
    ] {
        let good = fs::read(&file).expect("a file");
        fs::write(&file, bad).expect("written");
        assert!(!library.look(at(NOW)), "nothing changed for requests");
        assert_eq!(library.view().parties, before.parties);
        assert_eq!(library.view().parameters.current, before.parameters.current);
        assert_eq!(library.problems().len(), 1, "{:?}", library.problems());
        fs::write(&file, good).expect("written");
        library.look(at(NOW));
        assert_eq!(library.problems(), []);
    }
    // The rest of a file that was being written arrives.
    fs::write(&alice_file, &whole[..100]).expect("written");
    library.look(at(NOW));
    fs::write(&alice_file, &whole).expect("written");
    assert!(library.look(at(NOW)));
    assert_eq!(library.view().routes[&alice()].addresses[0].port, 1);
}

#[test]
fn parameters_stay_in_force_when_their_file_is_gone() {
    let net = Followed::new(1);
    let mut library = net.library();
    let before = library.view().parameters.current;
    fs::remove_file(net.file("network-parameters")).expect("removed");
    for _ in 0..3 {
        assert!(!library.look(at(NOW)));
        assert_eq!(library.view().parameters.current, before);
        let [problem] = &library.problems()[..] else { panic!("{:?}", library.problems()) };
        assert_eq!(problem.to_string(), "network/network-parameters: is gone");
    }
}

/// Who replaces files by deleting them first, or whose disk is away for a moment, takes nobody down.
#[test]
fn participants_stay_while_their_files_are_replaced_or_the_folder_is_away() {
    let net = Followed::new(2);
    let mut library = net.library();
    let all = library.view().parties.len();
    let (file, content) =
        (net.file("node-infos/nodeInfo-bob"), fs::read(net.file("node-infos/nodeInfo-bob")).expect("it"));
    fs::remove_file(&file).expect("removed");
    assert!(!library.look(at(NOW)));
    fs::write(&file, content).expect("written");
    library.look(at(NOW));
    assert_eq!((library.view().parties.len(), library.problems()), (all, Vec::new()));

    let away = net.file("elsewhere");
    fs::rename(net.file("node-infos"), &away).expect("moved");
    for _ in 0..3 {
        assert!(!library.look(at(NOW)));
        assert_eq!(library.view().parties.len(), all);
        assert_eq!(library.problems().len(), 1);
    }
    fs::rename(&away, net.file("node-infos")).expect("moved back");
    library.look(at(NOW));
    assert_eq!((library.view().parties.len(), library.problems()), (all, Vec::new()));
}

#[test]
fn a_participant_ends_with_its_certificate_and_not_before() {
    let net = Followed::new(1);
    let mut library = net.library();
    let all = library.view().parties.len();
    assert!(!library.look(at(NOW + 9 * YEAR)));
    assert_eq!(library.view().parties.len(), all);
    assert!(library.look(at(NOW + 11 * YEAR)));
    assert_eq!(library.view().parties.len(), 0);
    assert!(
        library.problems().iter().all(|problem| problem.to_string().contains("has expired")),
        "{:?}",
        library.problems()
    );
    assert!(library.view().parameters.current.is_some(), "the parameters in force outlive their signer's certificate");
    // A clock that was wrong and is set right harms nobody for long.
    assert!(library.look(at(NOW)));
    assert_eq!(library.view().parties.len(), all);
}

#[test]
fn an_archive_that_cannot_be_written_is_a_problem_and_no_outage() {
    let net = Followed::new(1);
    fs::create_dir_all(net.archive().parent().expect("a folder")).expect("made");
    fs::write(net.archive(), "in the way").expect("written");
    let root = read_root(&net.file("root.pem")).expect("the root");
    let sources = Sources::in_folder(&net.network.network_dir());
    let mut library = Library::open(root, sources, at(NOW)).expect("opened");
    library.archive();
    assert_eq!(library.problems(), [], "without an archive there is nothing to do");

    fs::remove_file(net.archive()).expect("removed");
    let mut library = net.library();
    fs::write(net.archive(), "in the way").expect("written");
    library.archive();
    let problems = library.problems();
    assert!(matches!(&problems[..], [problem] if matches!(problem.error, FileError::Io(_))), "{problems:?}");
    fs::remove_file(net.archive()).expect("removed");
    library.archive();
    assert_eq!(library.problems(), []);
    let files: Vec<_> = fs::read_dir(net.archive()).expect("a folder").map(|e| e.expect("it").path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(fs::read(file).expect("it"), fs::read(net.file("network-parameters")).expect("it"));
    assert_eq!(fs::metadata(file).expect("it").permissions().mode() & 0o022, 0);
}

/// A file in a folder that is being written has a name that nobody reads.
#[test]
fn unfinished_files_are_left_alone() {
    let net = Followed::new(1);
    let write = |path: &Path| fs::write(path, "half").expect("written");
    write(&net.file("node-infos/.nodeInfo-x"));
    write(&net.file("node-infos/nodeInfo-x.tmp"));
    write(&net.file("historic-parameters/.x"));
    assert_eq!(net.library().problems(), []);
}
