//! Service keys in Java's key stores (FEATURES HS10, ID5): a Corda node's own, one of `keytool`'s, and a worker that signs with one.

mod worker;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use notary_worker::domain::Timestamp;
use notary_worker::keys::file::{create, load_encrypted};
use notary_worker::keys::jks;
use notary_worker::keys::keystore::KeyStore;
use serde_json::Value;
use zeroize::Zeroizing;

const SERVICE: &str = "distributed-notary-private-key";

/// Certificates of a folder of an unmodified Corda 4.10 node, made by Corda's own network bootstrapper.
fn corda(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/corda-node/certificates").join(file)
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).expect("UTF-8")
}

/// A verb of `notary` with the service key in `store`, whose passphrase is in a file, and further settings.
struct Verbs {
    folder: tempfile::TempDir,
    settings: Vec<String>,
}

impl Verbs {
    fn new(store: &Path, passphrase: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passphrase");
        create(&file, passphrase.as_bytes()).expect("written");
        let settings = vec![
            "signing.kind=keystore".to_owned(),
            format!("signing.keystore={}", store.display()),
            format!("signing.passphrase=file:{}", file.display()),
        ];
        Self { folder, settings }
    }

    fn with(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = worker::notary();
        command.args(arguments).current_dir(self.folder.path());
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.output().expect("it starts")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// It ends with code 2, a change of the configuration, and says so much.
    fn refused(&self, parts: &[&str]) {
        let output = self.run(&["keys", "list"]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    }
}

/// ID5: goal: the service key of a Corda node is used where it lies; what is wrong about its place is told, with what there is.
#[test]
fn the_service_key_of_a_corda_node_is_listed_tested_and_certified_where_it_lies() {
    for store in ["nodekeystore.jks", "distributedService.jks"] {
        let verbs = Verbs::new(&corda(store), "cordacadevpass");
        let listed: Value = serde_json::from_str(&verbs.done(&["keys", "list", "--json"])).expect("JSON");
        let opened = KeyStore::open(&corda(store), &Zeroizing::new("cordacadevpass".into())).expect("opened");
        let chain = opened.chain(SERVICE).expect("there");
        let spki = hex::decode(listed["key"]["spki"].as_str().expect("hex")).expect("hex");
        assert!(chain[0].windows(spki.len()).any(|window| window == spki), "the key is the certificate's");
        assert!(verbs.done(&["keys", "test", "--count", "20"]).ends_with("passed\n"));
        let request = verbs.done(&["keys", "csr"]);
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{request}");
        let made = verbs.run(&["keys", "generate"]);
        assert!(made.status.code() == Some(2) && text(&made).contains("only read"), "{}", text(&made));
    }
    let node = corda("nodekeystore.jks");
    Verbs::new(&node, "cordacadevpuss").refused(&["signing.keystore", "nodekeystore.jks", "passphrase"]);
    let other = Verbs::new(&node, "cordacadevpass").with("signing.alias=another");
    other.refused(&["signing.keystore", "no private key \"another\"", SERVICE, "cordaclientca"]);
    let missing = Verbs::new(Path::new("none.jks"), "cordacadevpass").run(&["keys", "list"]);
    assert!(missing.status.code() == Some(3) && text(&missing).contains("none.jks"), "{}", text(&missing));
}

/// HS10: goal: a PKCS#12 as today's `keytool` makes it, and a JKS whose key has a passphrase of its own.
#[test]
fn key_stores_of_keytool_hold_service_keys() {
    if Command::new("keytool").arg("-help").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has Java");
        return eprintln!("skipped: no keytool program");
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (kind, key_pass) in [("PKCS12", "store pass"), ("JKS", "key pass")] {
        let path = folder.path().join(kind);
        let made = Command::new("keytool")
            .args(["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "30", "-alias", "notary"])
            .args(["-dname", "O=Notary Service,L=Zurich,C=CH", "-storetype", kind, "-storepass", "store pass"])
            .args(["-keypass", key_pass, "-keystore"])
            .arg(&path)
            .output()
            .expect("keytool runs");
        assert!(made.status.success(), "{}", text(&made));
        let verbs = Verbs::new(&path, "store pass").with("signing.alias=notary");
        let key_file = verbs.folder.path().join("key-passphrase");
        create(&key_file, key_pass.as_bytes()).expect("written");
        if kind == "JKS" {
            verbs.refused(&["does not open the key \"notary\""]);
        }
        let verbs = verbs.with(&format!("signing.key_passphrase=file:{}", key_file.display()));
        assert!(verbs.done(&["keys", "list"]).contains("ECDSA_SECP256R1_SHA256"));
        assert!(verbs.done(&["keys", "test", "--count", "20"]).ends_with("passed\n"));
    }
}

/// HS1, HS10: goal: a whole worker signs with a key in a key store; `doctor` and `config check` know what is wrong before it starts, and a
/// wrong passphrase ends it with the code that tells a supervisor not to try again.
#[test]
fn a_worker_signs_with_a_key_in_a_key_store() {
    let network = worker::Network::init(&[]);
    let dir = network.dir();
    let dev =
        Zeroizing::new(std::fs::read_to_string(dir.join("keys/passphrase")).expect("there").trim_end().to_owned());
    let key = load_encrypted(&dir.join("keys/service.p8"), &dev).expect("the service key");
    let writer = jks::Writer::new(Timestamp::new(1_790_000_000, 0).expect("in range"));
    let bytes = writer.key(SERVICE, &key, &[], &dev).expect("sealed").finish(&dev);
    create(&dir.join("keys/service.jks"), &bytes).expect("written");
    std::fs::remove_file(dir.join("keys/service.p8")).expect("removed");
    let store = format!("signing.keystore={}", dir.join("keys/service.jks").display());
    let settings = ["--set", "signing.kind=keystore", "--set", &store];

    let running = network.start_with(|command| {
        command.args(settings);
    });
    let asked = worker::run(&["submit", "--config", network.config().to_str().expect("UTF-8"), "--count", "20"]);
    assert!(asked.status.success(), "{}", text(&asked));
    let doctor = |more: &[&str]| {
        let mut command = worker::notary();
        command.arg("doctor").args(["--config", network.config().to_str().expect("UTF-8")]).args(settings).args(more);
        text(&command.output().expect("it starts"))
    };
    let said = doctor(&[]);
    assert!(said.contains("service.jks unlocks, signs and verifies"), "{said}");
    assert_eq!(running.terminate().code(), Some(0));

    let wrong = dir.join("keys/wrong");
    create(&wrong, b"another").expect("written");
    let wrong = format!("signing.passphrase=file:{}", wrong.display());
    let said = doctor(&["--set", &wrong]);
    assert!(said.contains("the passphrase does not open the key store"), "{said}");
    for verb in [&["config", "check"][..], &["run"]] {
        let mut command = worker::notary();
        command.args(verb).args(["--config", network.config().to_str().expect("UTF-8")]).args(settings);
        let output = command.args(["--set", &wrong]).output().expect("it starts");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {said}");
        assert!(said.contains("signing.keystore") && said.contains("service.jks"), "{verb:?}: {said}");
    }
}
