use std::fs;
use std::os::unix::fs::PermissionsExt;

use zeroize::Zeroizing;

use super::*;
use crate::config;
use crate::domain::SignatureScheme;
use crate::keys::jks::Writer;
use crate::keys::keystore::KeyStore;
use crate::network::issue::{Authority, Request};
use crate::network::nodes::{NodesSpec, create};
use crate::network::{Role, Rules};

/// A worker of a development network, about to publish its node info.
struct World {
    scratch: tempfile::TempDir,
    root: Certificate,
    _stop: SyncSender<()>,
    _changes: watch::Sender<Snapshot>,
    keeper: Keeper,
}

const DAY: i64 = 86_400;

fn passphrase() -> Zeroizing<String> {
    Zeroizing::new("cordacadevpass".into())
}

impl World {
    fn new(runtime: &Handle) -> Self {
        let scratch = tempfile::tempdir().expect("a folder");
        let spec = NodesSpec {
            service: X500Name::new("Notary Service", "Zurich", "CH").expect("a name"),
            service_scheme: SignatureScheme::Ed25519,
            workers: 1,
            parties: Vec::new(),
            other_notaries: Vec::new(),
            host: "127.0.0.1".into(),
            port: 10_002,
            rules: Rules::default(),
            now: SystemClock.now(),
        };
        let dir = scratch.path().join("net");
        let folder = create(&dir, &spec, None).expect("made")[0].folder.clone();
        let secret = scratch.path().join("passphrase");
        fs::write(&secret, &*passphrase()).expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("closed");
        let settings = [
            ("worker.name", "O=Notary Worker 1, L=Zurich, C=CH".into()),
            ("worker.state", scratch.path().join("state").display().to_string()),
            ("network.root", dir.join("root.pem").display().to_string()),
            ("p2p.addresses", "127.0.0.1:10002".into()),
            ("identity.kind", "keystore".into()),
            ("identity.keystore", folder.join("certificates/nodekeystore.jks").display().to_string()),
            ("identity.passphrase", format!("file:{}", secret.display())),
            ("signing.kind", "keystore".into()),
            ("signing.keystore", folder.join("certificates/distributedService.jks").display().to_string()),
            ("signing.passphrase", format!("file:{}", secret.display())),
        ];
        let settings: Vec<_> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let settings = config::load(None, &settings).expect("valid").settings;
        let service = KeyStore::open(&settings.signing.keystore, &passphrase()).expect("opens");
        let service = service.key("distributed-notary-private-key", &passphrase()).expect("a key");
        let (_changes, changes) =
            watch::channel(Snapshot { view: Arc::default(), nodes: Arc::from(Vec::<Node>::new()) });
        let (_stop, stopped) = sync_channel(1);
        let keeper = Keeper {
            publication: prepare(&settings).expect("in order").expect("an identity"),
            is_refused: false,
            service: Arc::new(FileKey::start(service, NonZeroUsize::MIN)),
            changes,
            is_listed: Box::new(|_| false),
            handed_in: None,
            compared: None,
            pause: Duration::from_secs(1),
            runtime: runtime.clone(),
            stopped,
            settings,
        };
        Self { root: network::root(&keeper.settings).expect("a root"), scratch, _stop, _changes, keeper }
    }

    /// What others read of the worker now.
    fn published(&mut self) -> Node {
        self.keeper.renew();
        self.keeper.publish().expect("published");
        let files = fs::read_dir(self.scratch.path().join("state/own-node-info")).expect("a folder");
        let [file] = &files.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()[..] else {
            panic!("one file");
        };
        verify_node_info(&fs::read(file).expect("readable"), &self.root, SystemClock.now()).expect("believed")
    }

    /// Puts a certificate for the same identity, of the same node CA, in the place of the one in the key store.
    fn renew(&self, days: i64) {
        let file = &self.keeper.settings.identity.keystore;
        let store = KeyStore::open(file, &passphrase()).expect("opens");
        let [ca_key, identity] =
            ["cordaclientca", "identity-private-key"].map(|alias| store.key(alias, &passphrase()).expect("a key"));
        let above = store.chain("cordaclientca").expect("a chain").to_vec();
        let ca = Authority { certificate: Certificate::from_der(&above[0]).expect("its own"), key: ca_key };
        let subject = ca.certificate.legal_name().expect("a name");
        let now = SystemClock.now().seconds();
        let request = Request {
            subject: &subject,
            public_key: identity.public_key(),
            role: Some(Role::LegalIdentity),
            validity: (now - DAY, now + days * DAY),
        };
        let own = ca.issue(&request).expect("issued").as_der().to_vec();
        let chain: Vec<_> = [own].into_iter().chain(above.clone()).collect();
        let writer = Writer::new(SystemClock.now()).key("identity-private-key", &identity, &chain, &passphrase());
        let writer = writer.and_then(|writer| writer.key("cordaclientca", &ca.key, &above, &passphrase()));
        replace(file, &writer.expect("kept").finish(&passphrase())).expect("written");
    }
}

/// ID7, LB2: what is published follows the certificates, without a restart.
#[test]
fn a_renewed_certificate_is_published_and_a_broken_file_changes_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let mut world = World::new(runtime.handle());
    let first = world.published();
    assert_eq!(world.published(), first, "nothing new to say");

    world.renew(30);
    let second = world.published();
    assert!(second.serial > first.serial && second.valid_until < first.valid_until, "{second:?}");
    assert_eq!(second.identities, first.identities);

    let file = world.keeper.settings.identity.keystore.clone();
    fs::write(&file, b"half of a").expect("written");
    assert_eq!(world.published(), second);
    fs::remove_file(&file).expect("there");
    assert_eq!(world.published(), second, "not even without the file");
}

/// Two workers that claim one name by mistake must not have their tokens sign in turn.
#[test]
fn a_rival_of_the_same_name_is_answered_once_in_a_while() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let mut world = World::new(runtime.handle());
    let first = world.published();
    let rival = |serial| Node { serial, content: crate::domain::SecureHash::sha256([7; 32]), ..first.clone() };
    let tell = |world: &World, serial| {
        let nodes = Arc::from(vec![rival(serial)]);
        world._changes.send_replace(Snapshot { view: Arc::default(), nodes });
    };
    tell(&world, first.serial + 10);
    assert_eq!(world.published(), first, "compared a moment ago");
    world.keeper.compared = None;
    assert!(world.published().serial > first.serial + 10);
}
