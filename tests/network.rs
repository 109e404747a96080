//! Network material: documents by real Corda are believed, changed ones are not, and a development network is a network.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use notary_worker::domain::network::NetworkView;
use notary_worker::domain::{PublicKey, SecureHash, SignatureScheme, Timestamp, X500Name};
use notary_worker::hsm::FileKey;
use notary_worker::keys::PrivateKey;
use notary_worker::network::development::{DevelopmentError, DevelopmentNetwork, PARTIES_MAX, Spec};
use notary_worker::network::{
    Certificate, FileError, FileNetworkMap, LoadError, MaterialError, Node, PathError, Role, verify_node_info,
    verify_parameters,
};
use notary_worker::ports::{NetworkMap, Signer};
use notary_worker::wire::{self, Limits};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// January 2027: within the validity of all certificates here.
const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 365 * 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).expect("in range")
}

fn vector(file: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"))).expect("vector")
}

fn manifest() -> Value {
    serde_json::from_slice(&vector("manifest.json")).expect("JSON")
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a string")).expect("hex")
}

fn expected(manifest: &Value, file: &str) -> Value {
    let vectors = manifest["vectors"].as_array().expect("vectors");
    vectors.iter().find(|vector| vector["file"] == file).expect("an entry")["expected"].clone()
}

fn vector_root() -> Certificate {
    Certificate::from_der(&unhex(&manifest()["pki"]["rootCertDerHex"])).expect("the root")
}

fn decode_node_info(bytes: &[u8]) -> (wire::SignedNodeInfo, wire::NodeInfo) {
    let signed = wire::decode_signed_node_info(bytes, &Limits::DEFAULT).expect("signed");
    let info = wire::decode_node_info(&signed.raw, &Limits::DEFAULT).expect("info");
    (signed, info)
}

#[test]
fn node_infos_by_corda_are_believed() {
    let manifest = manifest();
    for (file, roles) in [
        ("signed_node_info_alice.bin", &[Role::LegalIdentity][..]),
        ("signed_node_info_worker.bin", &[Role::LegalIdentity, Role::ServiceIdentity]),
    ] {
        let expected = expected(&manifest, file);
        let node = verify_node_info(&vector(file), &vector_root(), at(NOW)).expect("verified");
        assert_eq!(node.identities.iter().map(|identity| identity.role).collect::<Vec<_>>(), roles);
        for (identity, expected) in
            node.identities.iter().zip(expected["legalIdentities"].as_array().expect("identities"))
        {
            assert_eq!(identity.party.name.to_string(), expected["name"]);
            assert_eq!(identity.party.owning_key.as_spki(), unhex(&expected["owningKeyX509Hex"]));
            assert_eq!(identity.party.owning_key.name_hash(), expected["toStringShort"]);
        }
        let addresses: Vec<_> = node.addresses.iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
        assert_eq!(serde_json::json!(addresses), expected["addresses"]);
        assert_eq!(node.platform_version, expected["platformVersion"]);
        assert_eq!(node.serial, expected["serial"]);
    }
}

#[test]
fn network_parameters_by_corda_are_believed() {
    let expected = expected(&manifest(), "signed_network_parameters.bin");
    for now in [Some(at(NOW)), None] {
        let verified = verify_parameters(&vector("signed_network_parameters.bin"), &vector_root(), now);
        let (hash, parameters) = verified.expect("verified");
        assert_eq!(hash.to_string(), expected["parametersHash"]);
        assert_eq!(parameters.minimum_platform_version, expected["minimumPlatformVersion"]);
        assert_eq!(parameters.epoch, expected["epoch"]);
        assert_eq!(parameters.notaries[0].identity.name.to_string(), expected["notaries"][0]["name"]);
        assert!(!parameters.notaries[0].validating);
    }
}

#[test]
fn changed_node_infos_are_refused_with_the_reason() {
    let bytes = vector("signed_node_info_worker.bin");
    let (signed, info) = decode_node_info(&bytes);
    let refusal = |signed: &wire::SignedNodeInfo| {
        verify_node_info(&wire::encode_signed_node_info(signed), &vector_root(), at(NOW)).expect_err("believed")
    };
    let with_info = |change: &dyn Fn(&mut wire::NodeInfo)| {
        let mut info = info.clone();
        change(&mut info);
        refusal(&wire::SignedNodeInfo { raw: wire::encode_node_info(&info), signatures: signed.signatures.clone() })
    };
    let with_signatures = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut signed = signed.clone();
        change(&mut signed.signatures);
        refusal(&signed)
    };

    let worker = "O=HA Notary Worker 1, L=Zurich, C=CH".to_owned();
    let service = "O=HA Notary Service, L=Zurich, C=CH".to_owned();
    assert_eq!(with_info(&|info| info.serial += 1), MaterialError::Signature(worker.clone()));
    assert_eq!(with_info(&|info| info.addresses[0].port += 1), MaterialError::Signature(worker.clone()));
    assert_eq!(with_signatures(&|all| all[0][5] ^= 1), MaterialError::Signature(worker.clone()));
    assert_eq!(with_signatures(&|all| all[1][9] ^= 1), MaterialError::Signature(service.clone()));
    assert_eq!(with_signatures(&|all| all.reverse()), MaterialError::Signature(worker.clone()));
    let count = |expected, found| MaterialError::SignatureCount { expected, found };
    assert_eq!(with_signatures(&|all| all.truncate(1)), count(2, 1));
    assert_eq!(with_signatures(&|all| all.push(all[0].clone())), count(2, 3));
    assert_eq!(with_info(&|info| info.identities.truncate(1)), count(1, 2));
    assert_eq!(with_info(&|info| info.identities.clear()), MaterialError::Identities(0));
    assert_eq!(
        with_info(&|info| info.identities = vec![info.identities[0].clone(); 17]),
        MaterialError::Identities(17)
    );
    assert_eq!(with_info(&|info| info.identities.reverse()), MaterialError::Misplaced(service));
    assert_eq!(with_info(&|info| info.identities[1] = info.identities[0].clone()), MaterialError::Misplaced(worker));
    let path = |error| match error {
        MaterialError::Path(error) => error,
        other => panic!("{other}"),
    };
    let broken = path(with_info(&|info| drop(info.identities[0].0.remove(1))));
    assert!(matches!(broken, PathError::IssuerMismatch(_)), "{broken}");
    let cut = path(with_info(&|info| info.identities[0].0.truncate(3)));
    assert!(matches!(cut, PathError::WrongUse { role: Some(Role::NodeCa), .. }), "{cut}");
    let headless = path(with_info(&|info| drop(info.identities[0].0.remove(0))));
    assert!(matches!(headless, PathError::ForeignRoot(_)), "{headless}");

    let at_moment = |now| path(verify_node_info(&bytes, &vector_root(), at(now)).expect_err("believed"));
    assert!(matches!(at_moment(NOW - YEAR), PathError::NotYetValid(_)));
    assert!(matches!(at_moment(NOW + 100 * YEAR), PathError::Expired(_)));
}

/// Goal: nothing in a believed document can be changed unnoticed. Method: flip one bit in each of many places; what is still
/// believed must say the same, because the change lay outside of what is signed (descriptors, schema).
#[test]
fn no_flipped_bit_changes_what_is_believed() {
    let root = vector_root();
    let same = |bytes: &[u8], node: &Node| verify_node_info(bytes, &root, at(NOW)).map(|changed| changed == *node);
    let bytes = vector("signed_node_info_worker.bin");
    let node = verify_node_info(&bytes, &root, at(NOW)).expect("verified");
    let parameters_bytes = vector("signed_network_parameters.bin");
    let parameters = verify_parameters(&parameters_bytes, &root, Some(at(NOW))).expect("verified");
    let mut refused = 0;
    // A stride that shares no factor with the frame sizes; all bytes would take a minute.
    for i in (0..bytes.len()).step_by(13) {
        let mut changed = bytes.clone();
        changed[i] ^= 1 << (i % 8);
        match same(&changed, &node) {
            Ok(same) => assert!(same, "byte {i}"),
            Err(_) => refused += 1,
        }
    }
    for i in (0..parameters_bytes.len()).step_by(13) {
        let mut changed = parameters_bytes.clone();
        changed[i] ^= 1 << (i % 8);
        match verify_parameters(&changed, &root, Some(at(NOW))) {
            Ok(changed) => assert_eq!(changed, parameters, "byte {i}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 700, "most of the bytes matter: {refused}");
}

/// A development network that was just made.
struct Made {
    _dir: TempDir,
    dir: PathBuf,
    network: DevelopmentNetwork,
}

fn made(change: impl FnOnce(&mut Spec)) -> Made {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("net");
    let mut spec = Spec::new(at(NOW));
    change(&mut spec);
    let network = DevelopmentNetwork::create(&dir, &spec).expect("made");
    Made { _dir: parent, dir, network }
}

impl Made {
    fn load(&self) -> FileNetworkMap {
        self.load_at(NOW).expect("loaded")
    }

    fn load_at(&self, now: i64) -> Result<FileNetworkMap, LoadError> {
        FileNetworkMap::load(&self.network.network_dir(), at(now))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.network.network_dir().join(name)
    }
}

fn current(view: &NetworkView) -> SecureHash {
    view.parameters.current.expect("parameters in force")
}

#[test]
fn a_development_network_is_complete() {
    for scheme in [SignatureScheme::Ed25519, SignatureScheme::EcdsaSecp256r1Sha256] {
        let made = made(|spec| spec.service_scheme = scheme);
        let map = made.load();
        assert_eq!(map.problems(), []);
        let view = map.view();

        let accounts = made.network.parties().expect("parties");
        assert_eq!(
            accounts.iter().map(|account| &*account.short_name).collect::<Vec<_>>(),
            ["alice", "bob", "charlie"]
        );
        for account in &accounts {
            assert_eq!(view.parties.get(&account.party.name), Some(&account.party));
            assert_eq!(account.key.public_key(), &account.party.owning_key);
            assert_eq!(account.sasl_user, account.party.name.to_string());
            assert_eq!(account.party.owning_key.verify(b"m", &account.key.sign(b"m")), Ok(()));
        }
        assert_eq!(accounts[0].party.name, X500Name::parse("O=Alice Corp, L=Madrid, C=ES").expect("a name"));

        let passphrase = made.network.passphrase().expect("passphrase");
        let threads = NonZeroUsize::MIN;
        let service = FileKey::load(&made.network.service_key_file(), &passphrase, threads).expect("the service key");
        assert_eq!(service.public_key().scheme(), scheme);
        let parameters = view.parameters.current().expect("parameters");
        let [notary, other] = &parameters.notaries[..] else {
            panic!("two notaries, so that states can change theirs")
        };
        assert_ne!(other.identity, notary.identity);
        assert_eq!(&notary.identity.owning_key, service.public_key());
        assert!(!notary.validating);
        assert_eq!(parameters.minimum_platform_version, 4);

        let worker = FileKey::load(&made.network.worker_key_file(), &passphrase, threads).expect("the worker's key");
        let node = map.nodes().iter().find(|node| node.identities.len() == 2).expect("the worker");
        assert_eq!(&node.own().owning_key, worker.public_key());
        assert_eq!(node.identities[1].party, notary.identity);
        assert_eq!(node.identities[1].role, Role::ServiceIdentity);
        assert_eq!(view.parties.len(), 4, "the service is nobody who can call");
    }
}

#[test]
fn the_worker_can_check_secrets_but_does_not_know_them() {
    let made = made(|_| {});
    let users = made.network.sasl_users().expect("users");
    let accounts = made.network.parties().expect("parties");
    assert_eq!(users.len(), accounts.len());
    let mut secrets = std::collections::HashSet::new();
    for (user, account) in users.iter().zip(&accounts) {
        assert_eq!(user.name, account.party.name);
        let (salt, digest) = user.secret_digest.split_once(':').expect("two parts");
        let secret = account.sasl_secret.0.as_str();
        let again = Sha256::new().chain_update(hex::decode(salt).expect("hex")).chain_update(secret).finalize();
        assert_eq!(hex::encode(again), digest);
        assert_eq!(secret.len(), 32);
        assert!(secrets.insert(secret.to_owned()), "each has its own");
        assert!(!format!("{account:?} {user:?}").contains(secret), "secrets are not printed");
    }
    for entry in walk(&made.network.network_dir()) {
        let content = fs::read(&entry).expect("a file");
        for secret in &secrets {
            let holds = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!holds, "{} tells a secret", entry.display());
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_development_network_is_private_and_never_overwrites() {
    let made = made(|spec| spec.parties = 1);
    assert_eq!(fs::metadata(&made.dir).expect("metadata").permissions().mode() & 0o777, 0o700);
    for file in walk(&made.dir) {
        assert_eq!(fs::metadata(&file).expect("metadata").permissions().mode() & 0o077, 0, "{}", file.display());
    }
    let before: Vec<_> = walk(&made.dir).into_iter().map(|file| fs::read(file).expect("a file")).collect();
    let error = DevelopmentNetwork::create(&made.dir, &Spec::new(at(NOW))).expect_err("overwritten");
    assert!(matches!(error, DevelopmentError::NotEmpty(_)), "{error}");
    let after: Vec<_> = walk(&made.dir).into_iter().map(|file| fs::read(file).expect("a file")).collect();
    assert_eq!(before, after);

    // An empty directory is taken; after a failure nothing is left.
    let parent = tempfile::tempdir().expect("a directory");
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).expect("a directory");
    let spec = Spec { parties: 0, ..Spec::new(at(NOW)) };
    assert!(DevelopmentNetwork::create(&empty, &spec).is_ok());
    let rsa = Spec { service_scheme: SignatureScheme::RsaSha256, ..spec.clone() };
    assert!(DevelopmentNetwork::create(&parent.path().join("rsa"), &rsa).is_err());
    let crowd = Spec { parties: PARTIES_MAX + 1, ..spec };
    let error = DevelopmentNetwork::create(&parent.path().join("crowd"), &crowd).expect_err("too many");
    assert!(matches!(error, DevelopmentError::TooManyParties));
    let left: Vec<_> =
        fs::read_dir(parent.path()).expect("a directory").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left, ["empty"]);
}

#[test]
fn more_parties_than_have_names_are_numbered() {
    let made = made(|spec| spec.parties = 12);
    let map = made.load();
    assert_eq!(map.problems(), []);
    assert_eq!(map.view().parties.len(), 13);
    let account = made.network.party("party-012").expect("the last");
    assert_eq!(account.party.name.to_string(), "O=Party 012 Ltd, L=Oslo, C=NO");
    assert!(made.network.party("party-013").is_err());
}

#[test]
fn one_bad_file_is_reported_by_name_and_takes_nobody_down() {
    let made = made(|_| {});
    let alice = fs::read(made.file("node-infos/nodeInfo-alice")).expect("a file");
    let other = self::made(|_| {});
    fs::write(made.file("node-infos/nodeInfo-0garbage"), b"garbage").expect("written");
    fs::write(made.file("node-infos/nodeInfo-1cut"), &alice[..alice.len() - 1]).expect("written");
    fs::copy(other.file("node-infos/nodeInfo-bob"), made.file("node-infos/nodeInfo-2foreign")).expect("copied");
    fs::write(made.file("node-infos/nodeInfo-3large"), vec![0; 64 * 1024 + 1]).expect("written");
    fs::create_dir(made.file("node-infos/nodeInfo-4dir")).expect("made");
    fs::write(made.file("node-infos/README"), b"left alone").expect("written");
    fs::write(made.file("historic-parameters/garbage"), b"garbage").expect("written");

    let map = made.load();

    assert_eq!(map.view().parties.len(), 4, "everybody is still there");
    let problems: Vec<_> = map.problems().iter().map(|problem| (problem.file.as_str(), &problem.error)).collect();
    let [historic, garbage, cut, foreign, large, dir] = &problems[..] else { panic!("{problems:?}") };
    assert!(matches!(historic, ("historic-parameters/garbage", FileError::Material(MaterialError::Wire(_)))));
    assert!(matches!(garbage, ("node-infos/nodeInfo-0garbage", FileError::Material(MaterialError::Wire(_)))));
    assert!(matches!(cut, ("node-infos/nodeInfo-1cut", FileError::Material(MaterialError::Wire(_)))));
    let ("node-infos/nodeInfo-2foreign", FileError::Material(MaterialError::Path(error))) = foreign else {
        panic!("{foreign:?}")
    };
    assert!(matches!(error, PathError::ForeignRoot(_)), "{error}");
    assert!(matches!(large, ("node-infos/nodeInfo-3large", FileError::TooLarge(_))));
    assert!(matches!(dir, ("node-infos/nodeInfo-4dir", FileError::NotAFile)));
    assert!(map.problems()[0].to_string().starts_with("historic-parameters/garbage: cannot be read: "));
}

/// A node info like the one in `file`, but with another serial, signed by the same key.
fn renewed(file: &Path, key: &PrivateKey, serial: i64, port: u16) -> Vec<u8> {
    let (_, mut info) = decode_node_info(&fs::read(file).expect("a file"));
    (info.serial, info.addresses[0].port) = (serial, port);
    let raw = wire::encode_node_info(&info);
    wire::encode_signed_node_info(&wire::SignedNodeInfo { signatures: vec![key.sign(&raw)], raw })
}

#[test]
fn the_newest_node_info_wins_whatever_its_file_is_called() {
    let made = made(|_| {});
    let alice = made.network.party("alice").expect("alice");
    let file = made.file("node-infos/nodeInfo-alice");
    let serial = decode_node_info(&fs::read(&file).expect("a file")).1.serial;
    let port_of_alice = |map: &FileNetworkMap| {
        map.nodes().iter().find(|node| *node.own() == alice.party).map(|node| node.addresses[0].port)
    };
    fs::write(made.file("node-infos/nodeInfo-0"), renewed(&file, &alice.key, serial - 1, 1)).expect("written");
    fs::write(made.file("node-infos/nodeInfo-z"), renewed(&file, &alice.key, serial - 2, 2)).expect("written");
    let map = made.load();
    assert_eq!(port_of_alice(&map), Some(10_002));
    assert_eq!(map.problems(), []);

    fs::write(made.file("node-infos/nodeInfo-0"), renewed(&file, &alice.key, serial + 1, 3)).expect("written");
    assert_eq!(port_of_alice(&made.load()), Some(3));

    // Twice the same is no problem; two of one serial are, and the first by file name counts.
    fs::copy(made.file("node-infos/nodeInfo-0"), made.file("node-infos/nodeInfo-1")).expect("copied");
    fs::write(made.file("node-infos/nodeInfo-2"), renewed(&file, &alice.key, serial + 1, 4)).expect("written");
    let map = made.load();
    assert_eq!(port_of_alice(&map), Some(3));
    let [problem] = map.problems() else { panic!("{:?}", map.problems()) };
    assert_eq!(problem.file, "node-infos/nodeInfo-2");
    assert_eq!(problem.error, FileError::SerialClash(alice.party.to_string()));
}

#[test]
fn bob_cannot_speak_for_alice() {
    let made = made(|_| {});
    let bob = made.network.party("bob").expect("bob");
    let file = made.file("node-infos/nodeInfo-alice");
    fs::write(made.file("node-infos/nodeInfo-0"), renewed(&file, &bob.key, i64::MAX, 1)).expect("written");
    let map = made.load();
    let [problem] = map.problems() else { panic!("{:?}", map.problems()) };
    let by_alice = MaterialError::Signature("O=Alice Corp, L=Madrid, C=ES".into());
    assert_eq!(problem.error, FileError::Material(by_alice));
}

#[test]
fn earlier_parameters_stay_known() {
    let made = made(|_| {});
    let first = current(&made.load().view());
    let parameters = fs::read(made.file("network-parameters")).expect("a file");
    let signed = wire::decode_signed_network_parameters(&parameters, &Limits::DEFAULT).expect("signed");
    let mut document = wire::decode_network_parameters(&signed.raw, &Limits::DEFAULT).expect("a document");
    document.parameters.epoch += 1;
    document.parameters.minimum_platform_version = 5;
    let key = fs::read_to_string(made.dir.join("authorities/parameters.p8")).expect("a key");
    let key = PrivateKey::from_pkcs8_pem(&key).expect("a key");
    let sign = |document: &wire::NetworkParametersDocument, key: &PrivateKey| {
        let raw = wire::encode_network_parameters(document);
        let signature = key.sign(&raw);
        wire::encode_signed_network_parameters(&wire::SignedNetworkParameters { raw, signature, ..signed.clone() })
    };
    fs::rename(made.file("network-parameters"), made.file("historic-parameters/1")).expect("moved");
    fs::write(made.file("network-parameters"), sign(&document, &key)).expect("written");

    let view = made.load().view();

    assert_eq!(view.parameters.by_hash.len(), 2);
    assert!(view.parameters.by_hash.contains_key(&first));
    assert_ne!(current(&view), first);
    assert_eq!(view.parameters.current().map(|parameters| parameters.minimum_platform_version), Some(5));

    // Earlier ones outlive their signer's certificate; those in force do not.
    let earlier = fs::read(made.file("historic-parameters/1")).expect("a file");
    let root = Certificate::from_pem(&fs::read_to_string(made.file("root.pem")).expect("a file")).expect("the root");
    let later = Some(at(NOW + 11 * YEAR));
    assert!(verify_parameters(&earlier, &root, None).is_ok());
    assert!(verify_parameters(&earlier, &root, later).is_err());

    // Without parameters in force that can be believed there is no network.
    let bob = made.network.party("bob").expect("bob");
    fs::write(made.file("network-parameters"), sign(&document, &bob.key)).expect("written");
    let error = made.load_at(NOW).expect_err("forged");
    assert!(matches!(error, LoadError::Parameters(MaterialError::Signature(_))), "{error}");
    document.parameters.epoch = 0;
    fs::write(made.file("network-parameters"), sign(&document, &key)).expect("written");
    let error = made.load_at(NOW).expect_err("impossible");
    assert!(matches!(error, LoadError::Parameters(MaterialError::Parameters(_))), "{error}");
    fs::remove_file(made.file("network-parameters")).expect("removed");
    let error = made.load_at(NOW).expect_err("missing");
    let LoadError::Unreadable { file, error: FileError::Io(_) } = &error else { panic!("{error}") };
    assert_eq!(file, "network/network-parameters");
}

#[test]
fn a_network_lives_as_long_as_its_certificates() {
    let made = made(|_| {});
    assert!(made.load_at(NOW - 86_400).is_ok() && made.load_at(NOW + 9 * YEAR).is_ok());
    for (moment, early) in [(NOW - 86_401, true), (NOW + 11 * YEAR, false)] {
        let Err(LoadError::Parameters(MaterialError::Path(error))) = made.load_at(moment) else { panic!("believed") };
        assert_eq!(matches!(error, PathError::NotYetValid(_)), early, "{error}");
        assert_eq!(matches!(error, PathError::Expired(_)), !early, "{error}");
    }
}

#[test]
fn two_networks_have_nothing_in_common() {
    let keys = |made: &Made| -> Vec<PublicKey> {
        let nodes = made.load();
        let identities = nodes.nodes().iter().flat_map(|node| &node.identities);
        identities.map(|identity| identity.party.owning_key.clone()).collect()
    };
    let (one, two) = (made(|_| {}), made(|_| {}));
    let mut all = [keys(&one), keys(&two)].concat();
    all.sort_by(|a, b| a.as_spki().cmp(b.as_spki()));
    all.dedup();
    assert_eq!(all.len(), 10, "four own identities and a service in each");
    fs::copy(two.file("root.pem"), one.file("root.pem")).expect("copied");
    let error = one.load_at(NOW).expect_err("another root");
    assert!(matches!(error, LoadError::Parameters(MaterialError::Path(PathError::ForeignRoot(_)))), "{error}");
    fs::write(one.file("root.pem"), "not a certificate").expect("written");
    assert!(matches!(one.load_at(NOW), Err(LoadError::Root(_))));
}
