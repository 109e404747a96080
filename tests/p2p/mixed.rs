//! Keys of different kinds in one worker (FEATURES HS10, ID3): each lies where its owner wants it.

use std::fs;
use std::process::Command;

use notary_worker::client::judge::Answer;
use notary_worker::keys::file::{create, load_encrypted};
use notary_worker::keys::jks;
use notary_worker::network::development::DevelopmentNetwork;
use notary_worker::ports::Clock;
use notary_worker::ports::clock::SystemClock;

use crate::rig::Network;
use crate::services::or_skip;
use crate::services::softhsm2::{PIN, SoftHsm};
use crate::{material, runtime, worker};

/// HS10, ID3, LB2: goal: the service key on a token, the TLS key in a PKCS#12 of OpenSSL's, the worker's own identity in a JKS; the worker
/// answers a node, and publishes a node info that both identities signed.
#[test]
fn a_worker_has_its_keys_on_a_token_in_a_pkcs12_and_in_a_jks() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"])) else { return };
    let network = Network::create();
    let dir = network.dir();
    let file = |name: &str| dir.join(name).display().to_string();
    create(&dir.join("pin"), PIN.as_bytes()).expect("written");
    let export = ["pkcs12", "-export", "-name", "cordaclienttls", "-passout", "pass:tls pass", "-out"];
    let exported = Command::new("openssl")
        .args(export)
        .args([&file("tls.p12"), "-in", &file("tls-1/tls.pem"), "-inkey", &file("tls-1/tls.p8")])
        .status();
    assert!(exported.expect("openssl runs").success());
    create(&dir.join("tls-pass"), b"tls pass").expect("written");

    let info = material::node_info(&dir.join("network/node-infos/nodeInfo-worker"));
    let [own, service] = &info.identities[..] else { panic!("two identities") };
    material::write_chain(&dir.join("service.pem"), service);
    let passphrase = DevelopmentNetwork::open(&dir).passphrase().expect("there");
    let key = load_encrypted(&dir.join("keys/worker.p8"), &passphrase).expect("a key");
    let chain: Vec<_> = own.0.iter().rev().cloned().collect();
    let writer = jks::Writer::new(SystemClock.now()).key("identity-private-key", &key, &chain, &passphrase);
    create(&dir.join("node.jks"), &writer.expect("sealed").finish(&passphrase)).expect("written");

    let settings = [
        "signing.kind=pkcs11".into(),
        format!("signing.module={}", hsm.module.display()),
        "signing.tokens=notary".into(),
        format!("signing.pin=file:{}", file("pin")),
        format!("signing.pin_refusals={}", file("pin-refused")),
        "signing.profile=softhsm2".into(),
        "p2p.tls_kind=keystore".into(),
        format!("p2p.tls_keystore={}", file("tls.p12")),
        format!("p2p.tls_passphrase=file:{}", file("tls-pass")),
        "identity.kind=keystore".into(),
        format!("identity.keystore={}", file("node.jks")),
        format!("identity.passphrase=file:{}", file("keys/passphrase")),
        format!("identity.service_certificate={}", file("service.pem")),
        format!("p2p.addresses={}", network.address(1)),
        format!("network.publish_dir={}", file("published")),
    ];
    let set = |command: &mut Command| {
        command.envs([hsm.environment()]);
        for setting in &settings {
            command.args(["--set", setting]);
        }
    };
    let mut import = worker::notary();
    import.args([
        "keys",
        "import",
        &file("keys/service.p8"),
        "--passphrase",
        &format!("file:{}", file("keys/passphrase")),
    ]);
    set(&mut import);
    assert!(import.status().expect("it starts").success());
    for gone in ["keys/service.p8", "keys/worker.p8", "tls-1/tls.p8"] {
        fs::remove_file(dir.join(gone)).expect("removed");
    }

    runtime().block_on(async {
        let alice = network.node("alice");
        let worker = network.start_with(1, set);
        let (request, tx_id) = alice.request();
        let sent = alice.send(&network, 1, request);
        assert!(matches!(alice.answer(tx_id).await, Answer::Notarised(_)));
        sent.await.expect("no panic").expect("accepted");
        for usage in ["tls", "identity", "service"] {
            let line = format!("notary_certificate_expiry_seconds{{use=\"{usage}\"}}");
            crate::renewal::wait_for(&worker, &line, 86_400.0).await;
        }
        crate::renewal::wait_for(&worker, "notary_network_published", 1.0).await;
        assert_eq!(worker.terminate().code(), Some(0));
    });
    let published: Vec<_> = fs::read_dir(dir.join("published")).expect("there").collect();
    assert_eq!(published.len(), 1);
    let info = material::node_info(&published[0].as_ref().expect("it").path());
    assert_eq!(info.identities, [own.clone(), service.clone()]);
}
