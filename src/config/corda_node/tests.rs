use std::collections::BTreeMap;

use super::*;

/// The folder that Corda's bootstrapper made.
const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/corda-node");

fn node(text: &str) -> Result<(tempfile::TempDir, CordaNode), Faults> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(NODE_CONF), text).expect("written");
    let node = CordaNode::read(folder.path())?;
    Ok((folder, node))
}

fn settings(node: &CordaNode) -> BTreeMap<&str, String> {
    let all = node.settings().iter();
    all.map(|(key, value, _)| (*key, value.replace(&node.base.display().to_string(), "DIR"))).collect()
}

fn fate<'a>(node: &'a CordaNode, key: &str) -> &'a Fate {
    let account = node.accounts().iter().find(|account| account.key == key);
    &account.unwrap_or_else(|| panic!("{key} among {:?}", node.accounts())).fate
}

/// What every worker's node.conf has.
const NAMES: &str = "myLegalName : \"O=Worker 1, C=GB, L=London\"\np2pAddress : \"worker1.example.com:10002\"\n\
                     notary { validating=false, serviceLegalName=\"O=HA Notary, C=GB, L=London\" }\n";

#[test]
fn a_folder_of_cordas_bootstrapper_gives_every_setting_id5_cf7() {
    let node = CordaNode::read(Path::new(NODE)).expect("valid");
    let set = settings(&node);
    for (key, value) in [
        ("worker.name", "O=Notary Worker 1,L=Zurich,C=CH"),
        ("service.name", "O=Notary Service,L=Zurich,C=CH"),
        ("broker.kind", "p2p"),
        ("p2p.listen", "127.0.0.1:23073"),
        ("p2p.addresses", "127.0.0.1:23073"),
        ("p2p.tls_kind", "keystore"),
        ("p2p.tls_keystore", "DIR/certificates/sslkeystore.jks"),
        ("p2p.tls_alias", "cordaclienttls"),
        ("p2p.tls_passphrase", "node-conf:DIR/node.conf#keyStorePassword"),
        ("identity.keystore", "DIR/certificates/nodekeystore.jks"),
        ("identity.alias", "identity-private-key"),
        ("signing.kind", "keystore"),
        ("signing.keystore", "DIR/certificates/distributedService.jks"),
        ("signing.alias", "distributed-notary-private-key"),
        ("network.root", "DIR/certificates/truststore.jks"),
        ("network.root_passphrase", "node-conf:DIR/node.conf#trustStorePassword"),
        ("network.parameters", "DIR/network-parameters"),
        ("network.node_infos", "DIR/additional-node-infos"),
        ("store.path", "DIR/notary/notary.store"),
        ("observe.listen", "127.0.0.1:23075"),
    ] {
        assert_eq!(set.get(key).map(String::as_str), Some(value), "{key}");
    }
    let open: Vec<_> = node.accounts().iter().filter(|a| matches!(a.fate, Fate::SeeTo(_) | Fate::Unknown)).collect();
    assert!(open.is_empty(), "{open:?}");
    assert!(matches!(fate(&node, "rpcUsers[0].password"), Fate::NotNeeded(_)));
    // Without a password in it, the reference gives the one that Corda takes.
    let passphrase =
        crate::config::SecretRef::parse(&set["p2p.tls_passphrase"].replace("DIR", NODE)).expect("a reference");
    assert_eq!(*passphrase.fetch().expect("a default"), "cordacadevpass");
}

#[test]
fn the_documented_worker_on_a_shared_database_is_converted_key_by_key_cf3_cf6() {
    let (_folder, node) = node(&format!(
        "{NAMES}notary {{ etaMessageThresholdSeconds = 40, jpa {{\n connectionRetries=2, generateNativeSQL = false\n\
         dataSourceProperties {{ autoCommit=\"false\"\n jdbcUrl=\"jdbc:postgresql://10.18.1.1,10.18.1.2:5433/corda?sslmode=verify-full&sslrootcert=certificates/ca.crt\"\n\
         username=corda, password=secret, maxLifetime=600000 }}\n database {{ validateSchema = true }} }} }}\n\
         compatibilityZoneURL = \"https://example.com:1300\"\ndevMode = false\nkeyStorePassword = \"<{{a:b}}>\"\n\
         additionalP2PAddresses = [\"other.example.com:10002\"]\nmessagingServerAddress = \"0.0.0.0:11005\"\nmessagingServerExternal = false\n\
         enterpriseConfiguration {{ tuning {{ flowThreadPoolSize = 256 }}, tlsKeyAlias = my-tls }}\nmyOwnKey = 1\n"
    ))
    .expect("valid");
    let set = settings(&node);
    for (key, value) in [
        ("store.kind", "postgres"),
        ("store.url", "postgresql://corda@10.18.1.1:5432,10.18.1.2:5433/corda"),
        ("store.password", "node-conf:DIR/node.conf#notary.jpa.dataSourceProperties.password"),
        ("store.tls_ca", "DIR/certificates/ca.crt"),
        ("flow.eta_message_threshold_ms", "40000"),
        ("network.url", "https://example.com:1300"),
        ("p2p.addresses", "worker1.example.com:10002,other.example.com:10002"),
        ("p2p.listen", "0.0.0.0:11005"),
        ("p2p.tls_alias", "my-tls"),
        // There is no distributedService.jks in this folder.
        ("signing.keystore", "DIR/certificates/nodekeystore.jks"),
    ] {
        assert_eq!(set.get(key).map(String::as_str), Some(value), "{key}");
    }
    let password = "notary.jpa.dataSourceProperties.password";
    assert_eq!(*fate(&node, password), Fate::Taken(vec!["store.password"]));
    assert!(matches!(fate(&node, "notary.jpa.dataSourceProperties.autoCommit"), Fate::NotNeeded(_)));
    assert!(matches!(fate(&node, "notary.jpa.dataSourceProperties.jdbcUrl"), Fate::SeeTo(_)));
    assert_eq!(*fate(&node, "myOwnKey"), Fate::Unknown);
    let Fate::SeeTo(problem) = fate(&node, "keyStorePassword") else { panic!("obfuscated values are for people") };
    for part in ["obfuscat", "p2p.tls_passphrase", "signing.passphrase"] {
        assert!(problem.contains(part), "{part} in {problem}");
    }
    // Every key of the file is accounted for, and no secret is in what is printed.
    assert_eq!(node.accounts().len(), node.conf.keys().count());
    assert!(!format!("{:?} {:?} {:?}", node.accounts(), node.settings(), node.cautions()).contains("secret"));
}

#[test]
fn databases_of_other_makes_are_left_to_people_and_their_spent_states_are_spoken_of() {
    for url in [
        "jdbc:mysql://10.18.1.1,10.18.1.2/corda?useSSL=false",
        "jdbc:oracle:thin:@(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=x)))",
        "jdbc:postgresql://10.0.0.1:26257/corda",
        "jdbc:postgresql://10.0.0.1",
    ] {
        for source in ["notary.mysql.dataSource", "notary.jpa.dataSourceProperties"] {
            let (_folder, node) = node(&format!("{NAMES}{source}.jdbcUrl = \"{url}\"\n")).expect("valid");
            assert!(!settings(&node).contains_key("store.kind"), "{url}");
            assert!(matches!(fate(&node, &format!("{source}.jdbcUrl")), Fate::SeeTo(_)), "{url}");
            assert!(node.cautions().iter().any(|caution| caution.contains("spent")), "{url}");
        }
    }
}

#[test]
fn a_folder_that_no_worker_can_serve_in_the_place_of_is_refused_with_all_reasons() {
    let faults = node("notary { validating = true }\n").map(|_| ()).expect_err("faulty").0;
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["myLegalName", "notary.serviceLegalName", "notary.validating", "p2pAddress"]);
    assert!(CordaNode::read(Path::new("no/such/folder")).is_err());
    let bad = node(&format!("{NAMES}p2pAddress = nonsense\n")).map(|_| ()).expect_err("no port").0;
    assert_eq!(bad[0].key, "p2pAddress");
}

#[test]
fn a_worker_listens_on_this_machine_alone_if_that_is_all_it_advertises() {
    for (address, expected) in [
        ("127.0.0.1:10002", Some("127.0.0.1:10002")),
        ("localhost:10002", Some("127.0.0.1:10002")),
        ("[::1]:10002", Some("[::1]:10002")),
        ("worker.example.com:10002", Some("0.0.0.0:10002")),
        ("10.1.2.3:10002", Some("0.0.0.0:10002")),
        ("worker", None),
        ("worker:0", None),
    ] {
        assert_eq!(listening(address).as_deref(), expected, "{address}");
    }
}

#[test]
fn every_key_that_corda_documents_has_a_fate() {
    // Once in each table would make the second reading silent.
    for (key, _) in NOT_NEEDED {
        assert!(!SEE_TO.iter().any(|(other, _)| other == key), "{key} is in both tables");
    }
    assert!(matches!(known("enterpriseConfiguration.tuning.flowThreadPoolSize"), Fate::NotNeeded(_)));
    assert!(matches!(known("rpcUsers[0].permissions[1]"), Fate::NotNeeded(_)));
    assert!(matches!(known("relay.relayHost"), Fate::SeeTo(_)));
    assert_eq!(known("rpcUsersX"), Fate::Unknown);
}
