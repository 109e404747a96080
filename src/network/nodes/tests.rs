use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};

use super::*;
use crate::keys::keystore::KeyStore;
use crate::network::corda_dev_ca::CordaDevCaError;
use crate::network::issue::Request;
use crate::network::{Node, read_root, verify_node_info, verify_parameters, verify_path};

const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 365 * 86_400;

fn now() -> Timestamp {
    Timestamp::new(NOW, 0).expect("in range")
}

fn name(text: &str) -> X500Name {
    X500Name::parse(text).expect("a name")
}

fn spec() -> NodesSpec {
    NodesSpec {
        service: name("O=Notary Service, L=Zurich, C=CH"),
        service_scheme: SignatureScheme::Ed25519,
        workers: 2,
        parties: ["O=Alice Corp, L=Madrid, C=ES", "O=Bob Plc, L=Rome, C=IT"].map(name).into(),
        other_notaries: vec![name("O=Other Notary, L=Zurich, C=CH")],
        host: "127.0.0.1".into(),
        port: 10_002,
        rules: Rules::default(),
        now: now(),
    }
}

fn passphrase(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// The certified key `alias` of a store: its chain leads up to the root for its role, and the key is the certificate's.
fn certified(folder: &Path, file: &str, alias: &str, root: &Certificate, role: Role) -> (PrivateKey, Certificate) {
    let passphrase = &passphrase("cordacadevpass");
    let store = KeyStore::open(&folder.join("certificates").join(file), passphrase).expect("opens");
    let key = store.key(alias, passphrase).expect("a key");
    let mut path = store.chain(alias).expect("a chain").to_vec();
    path.reverse();
    let leaf = verify_path(&path, root, Some(now()), &[role]).expect("believed");
    assert_eq!(leaf.public_key(), key.public_key());
    (key, leaf)
}

/// Everything in the folders is as a node in development mode wants it (rows ID1, ID2, ID4, ID5, RG1).
fn is_complete(dir: &Path, spec: &NodesSpec, nodes: &[MadeNode]) -> Certificate {
    let root = read_root(&dir.join(ROOT)).expect("a root");
    let mut infos: BTreeMap<X500Name, Node> = BTreeMap::new();
    for MadeNode { folder, name, kind, address } in nodes {
        let trust =
            KeyStore::open(&folder.join("certificates/truststore.jks"), &passphrase("trustpass")).expect("opens");
        assert_eq!(trust.trusted().collect::<Vec<_>>(), [("cordarootca", root.as_der())]);
        let leaf = |file, alias, role| certified(folder, file, alias, &root, role);
        for (file, alias, role) in
            [("nodekeystore.jks", "cordaclientca", Role::NodeCa), ("sslkeystore.jks", "cordaclienttls", Role::Tls)]
        {
            assert_eq!(leaf(file, alias, role).1.legal_name().as_ref(), Ok(name));
        }
        let (identity, certificate) = leaf("nodekeystore.jks", "identity-private-key", Role::LegalIdentity);
        assert_eq!(certificate.legal_name().as_ref(), Ok(name));

        let bytes = fs::read(folder.join(node_info_file_name(name))).expect("its node info");
        let info = verify_node_info(&bytes, &root, now()).expect("believed");
        assert_eq!((&info.own().name, &info.own().owning_key), (name, identity.public_key()));
        assert_eq!(info.addresses, std::slice::from_ref(address));
        let service = info.identities.get(1).map(|identity| (&identity.party, identity.role));
        let conf = fs::read_to_string(folder.join("node.conf")).expect("a configuration");
        assert!(conf.contains(&format!("myLegalName = \"{name}\"\n")), "{conf}");
        assert!(conf.contains(&format!("p2pAddress = \"{address}\"\n")), "{conf}");
        let distributed = folder.join("certificates/distributedService.jks");
        if *kind == NodeKind::Worker {
            let alias = "distributed-notary-private-key";
            let (key, certificate) = leaf("nodekeystore.jks", alias, Role::ServiceIdentity);
            assert_eq!(leaf("distributedService.jks", alias, Role::ServiceIdentity).0.public_key(), key.public_key());
            assert_eq!(certificate.legal_name().as_ref(), Ok(&spec.service));
            let party = Party { name: spec.service.clone(), owning_key: key.public_key().clone() };
            assert_eq!(service, Some((&party, Role::ServiceIdentity)));
            assert!(conf.contains(&format!("serviceLegalName = \"{}\"", spec.service)), "{conf}");
        } else {
            assert_eq!((service, distributed.exists()), (None, false));
            assert_eq!(conf.contains("notary {"), *kind == NodeKind::OtherNotary, "{conf}");
        }
        infos.insert(name.clone(), info);
    }
    assert_eq!(infos.len(), nodes.len(), "one each");

    let service_key = |n: usize| infos[&nodes[n].name].identities[1].party.clone();
    assert_eq!(service_key(0), service_key(1), "workers share it");
    let mut notaries = vec![service_key(0)];
    let others = nodes.iter().filter(|node| node.kind == NodeKind::OtherNotary);
    notaries.extend(others.map(|node| infos[&node.name].own().clone()));
    for MadeNode { folder, .. } in nodes {
        let parameters = fs::read(folder.join(PARAMETERS)).expect("parameters");
        let (_, parameters) = verify_parameters(&parameters, &root, Some(now())).expect("believed");
        assert_eq!(parameters.minimum_platform_version, spec.rules.minimum_platform_version);
        assert!(parameters.notaries.iter().all(|notary| !notary.validating));
        assert_eq!(parameters.notaries.iter().map(|notary| notary.identity.clone()).collect::<Vec<_>>(), notaries);
        let known = fs::read_dir(folder.join("additional-node-infos")).expect("a folder");
        let known = known.map(|entry| fs::read(entry.expect("an entry").path()).expect("a file"));
        let known: Vec<_> = known.map(|bytes| verify_node_info(&bytes, &root, now()).expect("believed")).collect();
        assert_eq!(known.len(), nodes.len());
        assert!(known.iter().all(|node| infos[&node.own().name] == *node), "everybody knows everybody");
    }
    root
}

#[test]
fn every_folder_is_that_of_a_complete_node() {
    let scratch = tempfile::tempdir().expect("a folder");
    for scheme in [SignatureScheme::Ed25519, SignatureScheme::EcdsaSecp256r1Sha256] {
        let dir = scratch.path().join(format!("{scheme:?}"));
        let spec = NodesSpec { service_scheme: scheme, ..spec() };
        let nodes = create(&dir, &spec, None).expect("made");
        let found: Vec<_> = nodes
            .iter()
            .map(|node| (node.folder.file_name().and_then(|name| name.to_str()).expect("a name"), node.address.port))
            .collect();
        let expected =
            [("worker-1", 10_002), ("worker-2", 10_012), ("alice", 10_022), ("bob", 10_032), ("other-notary", 10_042)];
        assert_eq!(found, expected);
        is_complete(&dir, &spec, &nodes);
        for authority in ["root", "identity", "parameters"] {
            assert!(dir.join(format!("authorities/{authority}.p8")).exists(), "{authority}");
        }
    }
}

#[test]
fn folders_are_named_after_organisations_and_never_twice() {
    let parties = [
        "O=Alice Corp, L=Madrid, C=ES",
        "O=Alice & Söhne, L=Bern, C=CH",
        "O=Worker-1 GmbH, L=Bern, C=CH",
        "O=Authorities, L=Bern, C=CH",
    ];
    let plan_of = |parties: &[&str]| {
        let parties = parties.iter().map(|text| name(text)).collect();
        let spec = NodesSpec { workers: 1, parties, other_notaries: Vec::new(), ..spec() };
        plan(Path::new("net"), &spec)
    };
    let folders = |nodes: Vec<MadeNode>| nodes.into_iter().map(|node| node.folder.display().to_string());
    let made = plan_of(&parties[..3]).expect("planned");
    assert_eq!(folders(made).collect::<Vec<_>>(), ["net/worker-1", "net/alice", "net/alice-söhne", "net/worker"]);
    for parties in [&parties[3..], &["O=Alice, L=Bern, C=CH"; 2], &["O=Notary Worker 1, L=Zurich, C=CH"]] {
        assert!(matches!(plan_of(parties), Err(NodesError::Name(_))), "{parties:?}");
    }
}

#[test]
fn nothing_is_left_of_a_network_that_cannot_be_made() {
    let scratch = tempfile::tempdir().expect("a folder");
    let dir = scratch.path().join("net");
    let parties = |count: usize| (0..count).map(|n| name(&format!("O=Party {n}, L=Oslo, C=NO"))).collect::<Vec<_>>();
    let wrong = [
        NodesSpec { workers: 0, ..spec() },
        NodesSpec { workers: WORKERS_MAX + 1, ..spec() },
        NodesSpec { parties: parties(NODES_MAX), ..spec() },
        NodesSpec { port: u16::MAX - 5 * PORTS_PER_NODE + 2, ..spec() },
        NodesSpec { host: "a host".into(), ..spec() },
        NodesSpec { host: "h\" evil".into(), ..spec() },
        NodesSpec { parties: vec![spec().service], ..spec() },
    ];
    for spec in wrong {
        assert!(create(&dir, &spec, None).is_err(), "{spec:?}");
        assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 0, "{spec:?}");
    }
    assert!(plan(&dir, &NodesSpec { port: u16::MAX - 5 * PORTS_PER_NODE + 1, ..spec() }).is_ok(), "just enough ports");
    fs::create_dir(&dir).expect("made");
    fs::write(dir.join("mine"), b"kept").expect("written");
    let error = create(&dir, &spec(), None).expect_err("somebody's folder");
    assert!(matches!(error, NodesError::Development(DevelopmentError::NotEmpty(_))), "{error}");
    assert_eq!(fs::read_dir(&dir).expect("a folder").count(), 1);
}

/// A key store like Corda's own, of authorities that end at `until`.
fn dev_ca(until: i64, identity_role: Role) -> (Vec<u8>, Certificate) {
    let key = || PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
    let validity = (NOW - YEAR, until);
    let root = Authority::root(&name("CN=Corda Node Root CA, O=R3 Ltd, OU=corda, L=London, C=UK"), key(), validity);
    let root = root.expect("a root");
    let (subject, identity) = (name("CN=Corda Doorman CA, O=R3 HoldCo LLC, L=New York, C=US"), key());
    let public_key = &identity.public_key().clone();
    let request = Request { subject: &subject, public_key, role: Some(identity_role), validity };
    let identity = root.authority(&request, identity).expect("issued");
    let (store, keys) = (passphrase("cordacadevpass"), passphrase("cordacadevkeypass"));
    let chain = der(&[identity.certificate, root.certificate.clone()]);
    let writer = Writer::new(now()).key("cordaintermediateca", &identity.key, &chain, &keys).expect("kept");
    let writer = writer.key("cordarootca", &root.key, &chain[1..], &keys).expect("kept");
    (writer.finish(&store), root.certificate)
}

fn jar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("begun");
        zip.write_all(content).expect("written");
    }
    zip.finish().expect("finished").into_inner()
}

/// RG1: below the root that every node in development mode trusts, from wherever the user has its keys.
#[test]
fn a_network_below_cordas_development_ca() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (store, dev_root) = dev_ca(NOW + YEAR, Role::IdentityCa);
    let inner = jar(&[("META-INF/MANIFEST.MF", b"x"), ("certificates/cordadevcakeys.jks", &store)]);
    let outer = jar(&[("corda-core-4.10.jar", b"x"), ("lib/corda-node-api-4.10.jar", &inner)]);
    for (case, content) in [("store.jks", &store), ("node-api.jar", &inner), ("corda.jar", &outer)] {
        let file = scratch.path().join(case);
        fs::write(&file, content).expect("written");
        let dir = scratch.path().join(case.replace('.', "-"));
        let nodes = create(&dir, &spec(), Some(CordaDevCa::read(&file).expect("read"))).expect("made");
        let root = is_complete(&dir, &spec(), &nodes);
        assert_eq!(root.as_der(), dev_root.as_der(), "{case}");
        assert!(!dir.join("authorities/root.p8").exists(), "{case}: what is Corda's is not handed out again");
        let (_, tls) = certified(&nodes[0].folder, "sslkeystore.jks", "cordaclienttls", &root, Role::Tls);
        assert_eq!(tls.validity.1, NOW + YEAR, "{case}: it does not outlive its issuer");
    }
}

#[test]
fn what_is_no_development_ca_makes_no_network() {
    let scratch = tempfile::tempdir().expect("a folder");
    let file = scratch.path().join("ca");
    let read = |content: &[u8]| {
        fs::write(&file, content).expect("written");
        CordaDevCa::read(&file)
    };
    let (store, _) = dev_ca(NOW + YEAR, Role::IdentityCa);
    let mut damaged = store.clone();
    damaged[40] ^= 1;
    let empty = Writer::new(now()).finish(&passphrase("cordacadevpass"));
    for (case, content) in [("damaged", damaged), ("without keys", empty), ("nothing", Vec::new())] {
        assert!(matches!(read(&content), Err(CordaDevCaError::KeyStore { .. })), "{case}");
    }
    let foreign = jar(&[("a.class", b"x")]);
    let hollow = jar(&[("corda-node-api-4.10.jar", &foreign)]);
    let broken = jar(&[("corda-node-api-4.10.jar", b"no jar")]);
    for content in [&foreign, &hollow, &broken, &foreign[..30].to_vec()] {
        assert!(matches!(read(content), Err(CordaDevCaError::Jar { .. })));
    }
    let large = jar(&[("certificates/cordadevcakeys.jks", &vec![0; 2 << 20])]);
    assert!(matches!(read(&large), Err(CordaDevCaError::Jar { why, .. }) if why.contains("larger")));
    assert!(matches!(read(&dev_ca(NOW + YEAR, Role::NodeCa).0), Err(CordaDevCaError::Certificate { .. })));
    assert!(matches!(CordaDevCa::read(&scratch.path().join("absent")), Err(CordaDevCaError::Io { .. })));

    // Corda's own ends on 2027-05-20.
    let ended = read(&dev_ca(NOW - 1, Role::IdentityCa).0).expect("read");
    let dir = scratch.path().join("net");
    assert!(matches!(create(&dir, &spec(), Some(ended)), Err(NodesError::Ended(_))));
    assert!(!dir.exists());
}
