//! All private keys of a worker on a PKCS#11 token (FEATURES HS1, HS10, ID3): the service key, that of its TLS certificate, and that
//! of its own legal identity. The token is SoftHSM's; what it cannot do is in `tls::peers` and `broker::embedded`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use notary_worker::client::judge::Answer;
use notary_worker::domain::PublicKey;
use notary_worker::keys::file::load_encrypted;
use notary_worker::network::development::DevelopmentNetwork;

use crate::renewal::{figure, shown_by_the_endpoint, shown_to_a_broker, wait_for};
use crate::rig::{Network, Node, PATIENCE};
use crate::services::or_skip;
use crate::services::softhsm2::{PIN, SoftHsm};
use crate::worker::Worker;
use crate::{material, runtime, worker};

/// A network, and a token for worker 1.
struct Rig {
    network: Network,
    hsm: SoftHsm,
}

impl Rig {
    fn create() -> Option<Self> {
        let hsm = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"]))?;
        fs::write(hsm.path().join("pin"), PIN).expect("written");
        Some(Self { network: Network::create(), hsm })
    }

    fn file(&self, name: &str) -> String {
        self.network.dir().join(name).display().to_string()
    }

    fn token(&self) -> Vec<String> {
        let path = |name: &str| self.hsm.path().join(name).display().to_string();
        vec![
            format!("signing.module={}", self.hsm.module.display()),
            "signing.tokens=notary".into(),
            format!("signing.pin=file:{}", path("pin")),
            format!("signing.pin_refusals={}", path("pin-refused")),
            "signing.profile=softhsm2".into(),
            "network.reload_ms=100".into(),
            // What waits for tokens must not take the only thread that they need.
            "worker.threads=1".into(),
        ]
    }

    /// The TLS key on the token.
    fn tls(&self) -> Vec<String> {
        [self.token(), vec!["p2p.tls_kind=pkcs11".into()]].concat()
    }

    /// All keys on the token.
    fn all(&self) -> Vec<String> {
        let more = [
            "signing.kind=pkcs11".into(),
            "identity.kind=pkcs11".into(),
            format!("identity.certificate={}", self.file("own.pem")),
            format!("identity.service_certificate={}", self.file("service.pem")),
            format!("p2p.addresses={}", self.network.address(1)),
            format!("network.publish_dir={}", self.file("published")),
        ];
        [self.tls(), more.into()].concat()
    }

    fn command(&self, arguments: &[&str], settings: &[String]) -> Command {
        let mut command = worker::notary();
        command.envs([self.hsm.environment()]).args(arguments);
        self.set(&mut command, settings);
        command
    }

    fn set(&self, command: &mut Command, settings: &[String]) {
        command.envs([self.hsm.environment()]);
        for setting in settings {
            command.args(["--set", setting]);
        }
    }

    /// A verb with the settings of worker 1 and more; its exit code and what it says.
    fn says(&self, arguments: &[&str], more: &[String]) -> (Option<i32>, String) {
        let output = self.command(arguments, &[self.network.settings(1), more.into()].concat()).output();
        let output = output.expect("it starts");
        let said = [&output.stdout[..], &output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("UTF-8"))
    }

    /// Puts the key in a file onto the token, and the file out of the way.
    fn import(&self, file: &str, label: &str, is_encrypted: bool) {
        let passphrase = format!("file:{}", self.file("keys/passphrase"));
        let path = self.file(file);
        let mut arguments = vec!["keys", "import", &path];
        if is_encrypted {
            arguments.extend(["--passphrase", &passphrase]);
        }
        let more = [self.all(), vec![format!("signing.key_label={label}")]].concat();
        let (code, said) = self.says(&arguments, &more);
        assert_eq!(code, Some(0), "{said}");
        fs::remove_file(path).expect("removed");
    }

    /// The public half of a key on the token.
    fn public_key(&self, label: &str) -> PublicKey {
        let file = self.hsm.path().join(format!("{label}.spki"));
        let path = file.to_str().expect("UTF-8");
        self.hsm.tool("notary", &["--read-object", "--type", "pubkey", "--label", label, "--output-file", path]);
        PublicKey::from_spki(&fs::read(&file).expect("read")).expect("a key")
    }

    /// A TLS key made on the token, certified where the worker has its certificate.
    fn make_tls_key(&self) {
        self.hsm.make_key("notary", "EC:prime256v1", "notary-tls", "02");
        self.certify("notary-tls", None);
        fs::remove_file(self.file("tls-1/tls.p8")).expect("removed");
    }

    /// A TLS certificate of worker 1 for a key on the token.
    fn certify(&self, label: &str, until: Option<(i32, u8)>) {
        let chain = self.network.issue_tls(1, &self.public_key(label), until);
        replace(&self.file("tls-1/tls.pem"), &chain);
    }

    fn start(&self, settings: &[String]) -> Worker {
        self.network.start_with(1, |command| {
            self.set(command, settings);
            command.stderr(Stdio::piped());
        })
    }
}

/// As a program does it that never shows half a file.
fn replace(file: &str, text: &str) {
    let new = format!("{file}.new");
    fs::write(&new, text).expect("written");
    fs::rename(new, file).expect("renamed");
}

async fn notarised(network: &Network, node: &std::sync::Arc<Node>) {
    let (request, tx_id) = node.request();
    let sent = node.send(network, 1, request);
    assert!(matches!(node.answer(tx_id).await, Answer::Notarised(_)));
    sent.await.expect("no panic").expect("accepted");
}

/// A handshake with the worker as OpenSSL has it, with a node's certificate: the version, or what went wrong.
async fn openssl(rig: &Rig, party: &str, version: &str) -> Result<(), String> {
    let mut command = Command::new("timeout");
    command.args([
        &PATIENCE.as_secs().to_string(),
        "openssl",
        "s_client",
        "-brief",
        version,
        "-connect",
        &rig.network.address(1).to_string(),
    ]);
    let (certificate, key) = (format!("parties/{party}/tls.pem"), format!("parties/{party}/tls.p8"));
    let chain = fs::read_to_string(rig.file(&certificate)).expect("read");
    // What the tool sends besides the first certificate.
    let (_, others) = chain.split_once("-----END CERTIFICATE-----\n").expect("several");
    fs::write(rig.file("others.pem"), others).expect("written");
    command.args(["-cert", &rig.file(&certificate), "-cert_chain", &rig.file("others.pem"), "-key", &rig.file(&key)]);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
    let output = output.expect("no panic").expect("it starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match said.contains("CONNECTION ESTABLISHED") {
        true => Ok(()),
        false => Err(said),
    }
}

/// HS1, HS10, ID3, LB2: goal: with all three private keys on the token and none in a file, the worker answers a node, over
/// connections of both directions and of both versions of TLS, publishes a node info of both identities, and `config check` and
/// `doctor` find it right.
#[test]
fn a_worker_has_all_its_private_keys_on_a_token() {
    let Some(rig) = Rig::create() else { return };
    let info = material::node_info(&rig.network.dir().join("network/node-infos/nodeInfo-worker"));
    let [own, service] = &info.identities[..] else { panic!("two identities") };
    material::write_chain(Path::new(&rig.file("own.pem")), own);
    material::write_chain(Path::new(&rig.file("service.pem")), service);
    rig.import("keys/service.p8", "notary-service", true);
    rig.import("keys/worker.p8", "notary-identity", true);
    rig.make_tls_key();
    let (code, said) = rig.says(&["config", "check"], &rig.all());
    assert_eq!(code, Some(0), "{said}");

    runtime().block_on(async {
        let alice = rig.network.node("alice");
        let worker = rig.start(&rig.all());
        notarised(&rig.network, &alice).await;
        openssl(&rig, "alice", "-tls1_2").await.expect("as Corda's nodes");
        openssl(&rig, "alice", "-tls1_3").await.expect("as ours");
        wait_for(&worker, "notary_network_published", 1.0).await;
        // The certificate is that for the key on the token, towards nodes and towards their brokers.
        let certificate =
            notary_worker::tls::peers::read_chain(Path::new(&rig.file("tls-1/tls.pem"))).expect("a chain");
        assert_eq!(shown_by_the_endpoint(&rig.network, &alice).await, certificate[0]);
        assert_eq!(shown_to_a_broker(&rig.network, &alice).await, certificate[0]);
        assert_eq!(worker.terminate().code(), Some(0));
    });
    let published: Vec<_> = fs::read_dir(rig.file("published")).expect("there").collect();
    assert_eq!(published.len(), 1);
    let info = material::node_info(&published[0].as_ref().expect("it").path());
    assert_eq!(info.identities, [own.clone(), service.clone()]);

    let (code, said) = rig.says(&["network", "publish"], &rig.all());
    assert_eq!(code, Some(0), "{said}");
    let (_, said) = rig.says(&["doctor"], &rig.all());
    for setting in ["p2p.tls_key_label", "identity.key_label"] {
        let line = said.lines().find(|line| line.contains(setting)).unwrap_or_else(|| panic!("{setting}: {said}"));
        assert!(line.contains("fits the certificate"), "{said}");
    }
}

/// HS1, F36: goal: while the token of the TLS key is away, whoever connects finds the connection closed, without an alert, after which
/// Corda's bridges come again soon (an alert keeps them away for minutes); requests on open connections are answered; and once
/// the token is back the worker, still the same process, completes handshakes again.
#[test]
fn without_its_token_handshakes_fail_quietly_and_open_connections_live() {
    let Some(rig) = Rig::create() else { return };
    rig.make_tls_key();
    runtime().block_on(async {
        let (alice, bob) = (rig.network.node("alice"), rig.network.node("bob"));
        let worker = rig.start(&rig.tls());
        notarised(&rig.network, &alice).await;
        let up = "notary_token_up{token=\"notary\"}";
        wait_for(&worker, up, 1.0).await;

        rig.hsm.take_away("notary");
        let gone = async {
            while figure(&worker, up) > 0.0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("noticed");
        for version in ["-tls1_2", "-tls1_3"] {
            let said = openssl(&rig, "bob", version).await.expect_err("no key, no handshake");
            assert!(said.contains("unexpected eof") && !said.contains("alert"), "{said}");
        }
        assert!(alice.broker_address().port() > 0);
        for _ in 0..5 {
            notarised(&rig.network, &alice).await;
        }
        let waiting = bob.request();
        let sent = bob.send(&rig.network, 1, waiting.0);
        assert!(figure(&worker, up) < 1.0);

        rig.hsm.put_back("notary");
        // Bob's own bridges have gone on trying.
        assert!(matches!(bob.answer(waiting.1).await, Answer::Notarised(_)));
        sent.await.expect("no panic").expect("accepted");
        openssl(&rig, "bob", "-tls1_2").await.expect("a handshake");
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// ID7, F38: goal: a renewed certificate for the key on the token is taken up; one for a key that is not on the token is not; one for
/// a new key under the same label is, once the token has it.
#[test]
fn a_renewed_certificate_is_taken_up_if_the_token_has_its_key() {
    let Some(rig) = Rig::create() else { return };
    rig.make_tls_key();
    let certificate = || {
        let chain = notary_worker::tls::peers::read_chain(Path::new(&rig.file("tls-1/tls.pem"))).expect("a chain");
        chain.into_iter().next().expect("its own")
    };
    let taken = "notary_certificate_renewals_total{use=\"tls\",outcome=\"taken\"}";
    let refused = "notary_certificate_renewals_total{use=\"tls\",outcome=\"refused\"}";
    runtime().block_on(async {
        let alice = rig.network.node("alice");
        let worker = rig.start(&rig.tls());
        notarised(&rig.network, &alice).await;

        rig.certify("notary-tls", Some((4000, 1)));
        wait_for(&worker, taken, 1.0).await;
        let renewed = certificate();
        assert_eq!(shown_by_the_endpoint(&rig.network, &alice).await, renewed);

        rig.hsm.make_key("notary", "EC:prime256v1", "notary-tls-2", "03");
        rig.certify("notary-tls-2", None);
        wait_for(&worker, refused, 1.0).await;
        assert_eq!(shown_by_the_endpoint(&rig.network, &alice).await, renewed);

        for kind in ["privkey", "pubkey"] {
            rig.hsm.tool("notary", &["--delete-object", "--type", kind, "--label", "notary-tls"]);
        }
        rig.hsm.make_key("notary", "EC:prime256v1", "notary-tls", "04");
        rig.certify("notary-tls", None);
        wait_for(&worker, taken, 2.0).await;
        assert_eq!(shown_by_the_endpoint(&rig.network, &alice).await, certificate());
        notarised(&rig.network, &alice).await;
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// Threat A8, HS10: goal: what cannot be right is refused by name, before anything is served: a TLS certificate for another key, for the
/// service key, one that names the service key's place, and a key that is not on the token.
#[test]
fn keys_that_do_not_fit_or_are_the_service_key_are_refused() {
    let Some(rig) = Rig::create() else { return };
    rig.make_tls_key();
    rig.hsm.make_key("notary", "EC:prime256v1", "another", "03");
    let refused = |more: &[&str], said: &str| {
        let more: Vec<String> = more.iter().map(|setting| (*setting).to_owned()).collect();
        let (code, output) = rig.says(&["run"], &[rig.tls(), more].concat());
        assert!(code != Some(0) && output.contains(said), "{said}: {code:?} {output}");
    };
    refused(&["p2p.tls_key_label=another"], "the key is not that of the certificate");
    refused(&["p2p.tls_key_label=none"], "no private key with label \"none\"");
    refused(&["p2p.tls_key_label="], "p2p.tls_key_label: name the TLS key");
    refused(&["signing.module="], "signing.module: name the vendor's PKCS#11 module");
    let (code, said) = rig.says(
        &["config", "check"],
        &[rig.tls(), ["signing.kind=pkcs11", "signing.key_label=notary-tls"].map(String::from).into()].concat(),
    );
    assert!(code == Some(2) && said.contains("p2p.tls_key_label: it names the service key"), "{code:?} {said}");
    let passphrase = DevelopmentNetwork::open(&rig.network.dir()).passphrase().expect("there");
    let service = load_encrypted(Path::new(&rig.file("keys/service.p8")), &passphrase).expect("a key");
    replace(&rig.file("tls-1/tls.pem"), &rig.network.issue_tls(1, service.public_key(), None));
    refused(&[], "the certificate is for the service key: TLS needs a key of its own");
}
