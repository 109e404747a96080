//! `notary keys`, and a worker whose service key lies on tokens, judged by OpenSSL and OpenSC (FEATURES HS2, HS9, HS10, HS11;
//! FAULTS F36, A8).

mod services;
mod worker;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use services::or_skip;
use services::softhsm2::{PIN, SoftHsm};

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(both).expect("UTF-8");
    assert!(!text.contains(PIN), "the PIN was printed: {text}");
    text
}

/// The verbs on some tokens.
struct Verbs<'a> {
    hsm: &'a SoftHsm,
    tokens: &'a str,
    settings: Vec<String>,
}

impl<'a> Verbs<'a> {
    fn on(hsm: &'a SoftHsm, tokens: &'a str) -> Self {
        let pin = hsm.path().join("pin");
        std::fs::write(&pin, format!("{PIN}\n")).expect("written");
        Self { hsm, tokens, settings: Vec::new() }
    }

    fn with(mut self, setting: &str) -> Self {
        self.settings.push(setting.into());
        self
    }

    fn settings(&self) -> Vec<String> {
        let path = |name: &str| self.hsm.path().join(name).display().to_string();
        let mut settings = vec![
            "signing.kind=pkcs11".into(),
            format!("signing.module={}", self.hsm.module.display()),
            format!("signing.tokens={}", self.tokens),
            format!("signing.pin=file:{}", path("pin")),
            format!("signing.pin_refusals={}", path("pin-refused")),
            "signing.profile=softhsm2".into(),
        ];
        settings.extend(self.settings.iter().cloned());
        settings
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = worker::notary();
        command.envs([self.hsm.environment()]).arg("keys").args(arguments);
        for setting in self.settings() {
            command.args(["--set", &setting]);
        }
        let output = command.output().expect("it starts");
        text(&output);
        output
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("it runs");
    assert!(output.status.success(), "openssl {arguments:?}: {}", text(&output));
    text(&output)
}

/// HS11: goal: a key of every scheme that we make stays on its token, only signs, passes the conformance run, and OpenSSL accepts
/// its certification request.
#[test]
fn keys_made_on_a_token_stay_there_and_ask_for_their_certificate() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"])) else { return };
    for scheme in ["ed25519", "p256", "secp256k1", "rsa"] {
        let label = format!("signing.key_label={scheme}");
        let verbs = Verbs::on(&hsm, "notary").with(&label);
        let made = verbs.done(&["generate", "--scheme", scheme]);
        let again = verbs.run(&["generate", "--scheme", scheme]);
        assert_eq!(again.status.code(), Some(3), "replaced: {}", text(&again));

        let object = hsm.tool("notary", &["--list-objects", "--type", "privkey", "--label", scheme]);
        for fact in ["sensitive", "always sensitive", "never extractable", "local"] {
            assert!(object.contains(fact), "{fact}: {object}");
        }
        let usage = object.lines().find(|line| line.contains("Usage:")).expect("a usage");
        assert_eq!(usage.split_whitespace().collect::<Vec<_>>(), ["Usage:", "sign"], "{object}");

        let listed = verbs.done(&["list", "--json"]);
        let listed: Value = serde_json::from_str(listed.lines().next().expect("a token")).expect("JSON");
        let ours = listed["keys"].as_array().expect("keys").iter().find(|key| key["serviceKey"] == true);
        let ours = ours.expect("the service key");
        assert_eq!(ours["attributes"]["CKA_EXTRACTABLE"], false);
        let name_hash = ours["key"]["nameHash"].as_str().expect("a name");
        assert!(made.contains(name_hash), "{made}");

        let request = verbs.done(&["csr", "--name", "O=Notary Service, L=Zurich, C=CH"]);
        let (pem, der) = (hsm.path().join("request.pem"), hsm.path().join("request.der"));
        let (pem, der) = (pem.to_str().expect("UTF-8"), der.to_str().expect("UTF-8"));
        std::fs::write(pem, request).expect("written");
        let judged = openssl(&["req", "-in", pem, "-verify", "-noout", "-subject"]);
        assert!(judged.contains("verify OK"), "{judged}");
        for part in ["O = Notary Service", "L = Zurich", "C = CH"] {
            assert!(judged.contains(part), "{judged}");
        }
        verbs.done(&["csr", "--der", der]);
        assert!(openssl(&["req", "-in", der, "-inform", "DER", "-verify", "-noout"]).contains("verify OK"));

        let found = verbs.done(&["test", "--count", "30", "--json"]);
        let found: Value = serde_json::from_str(&found).expect("JSON");
        assert_eq!(found["passed"], true, "{found:#}");
        assert_eq!(found["latencies"][0]["signatures"], 30);
        let key = found["findings"].as_array().expect("findings").iter();
        let key: Vec<_> = key.filter(|finding| finding["subject"] == "token \"notary\": key").collect();
        assert!(key.iter().all(|finding| finding["severity"] == "good") && !key.is_empty(), "{key:?}");
    }
}

/// HS10: goal: a key file goes onto two tokens, wrapped, with a warning; what it becomes there is the same key, and is not given
/// out again. The conformance run says that there may be copies.
#[test]
fn a_key_file_can_be_copied_onto_tokens_with_a_warning() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    for (scheme, algorithm) in [("ed25519", &["ED25519"][..]), ("p256", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"])]
    {
        let label = format!("signing.key_label={scheme}");
        let verbs = Verbs::on(&hsm, "left,right").with(&label);
        let (plain, public) = (hsm.path().join(format!("{scheme}.p8")), hsm.path().join(format!("{scheme}.spki")));
        let (plain, public) = (plain.to_str().expect("UTF-8"), public.to_str().expect("UTF-8"));
        openssl(&[&["genpkey", "-out", plain, "-algorithm"], algorithm].concat());
        openssl(&["pkey", "-in", plain, "-pubout", "-outform", "DER", "-out", public]);
        let imported = verbs.done(&["import", plain]);
        assert!(
            imported.contains("WARNING") && imported.contains("\"left\"") && imported.contains("\"right\""),
            "{imported}"
        );
        if scheme == "p256" {
            assert!(imported.contains("wrapped under a key of the token's own"), "{imported}");
        }
        assert_eq!(verbs.run(&["import", plain]).status.code(), Some(3), "never over a key that is there");

        let spki = hex::encode(std::fs::read(public).expect("the public half"));
        for line in verbs.done(&["list", "--json"]).lines() {
            let listed: Value = serde_json::from_str(line).expect("JSON");
            let ours = listed["keys"].as_array().expect("keys").iter().find(|key| key["serviceKey"] == true);
            let ours = ours.unwrap_or_else(|| panic!("no service key: {line}"));
            assert_eq!(ours["key"]["spki"].as_str(), Some(spki.as_str()));
            assert_eq!(
                (&ours["attributes"]["CKA_EXTRACTABLE"], &ours["attributes"]["CKA_SENSITIVE"]),
                (&false.into(), &true.into())
            );
        }
        let found = verbs.done(&["test", "--count", "20"]);
        assert!(
            found.contains("there may be copies") && found.contains("all 2 hold") && found.ends_with("passed\n"),
            "{found}"
        );
    }
}

/// HS11: goal: what is wrong is found, told with advice, and ends with code 1; a wrong PIN is tried once, and never printed.
#[test]
fn the_conformance_run_finds_what_is_wrong() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    let verbs = Verbs::on(&hsm, "left,right,absent");
    for token in ["left", "right"] {
        hsm.make_key(token, "EC:prime256v1", "notary-service", "01");
    }
    let found = verbs.run(&["test", "--count", "5"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    let found = text(&found);
    assert!(found.contains("holds another key") || found.contains("where the first token holds"), "{found}");
    assert!(found.contains("no token is called \"absent\"") && found.contains("NOT passed"), "{found}");

    std::fs::write(hsm.path().join("pin"), "wrong-pin-1618").expect("written");
    let found = verbs.run(&["test", "--count", "5"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found).contains("CKR_PIN_INCORRECT") && !text(&found).contains("1618"), "{}", text(&found));
    let list = verbs.run(&["list"]);
    assert_eq!(list.status.code(), Some(1));
    assert!(text(&list).contains("not tried again"), "{}", text(&list));
}

/// Goal: no secret is taken from the command line; one that is given there in place of a reference is not repeated.
#[test]
fn secrets_on_the_command_line_are_refused_and_not_repeated() {
    let key = std::env::temp_dir().join("no-such-key.p8").display().to_string();
    for arguments in [
        &["keys", "list", "--set", "signing.pin=secret-pin-2236"][..],
        &["keys", "import", &key, "--passphrase", "secret-pin-2236"],
    ] {
        let output = worker::run(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("by reference") && !text(&output).contains("2236"), "{}", text(&output));
    }
}

/// Goal: the same verbs serve a key file.
#[test]
fn a_key_file_is_made_listed_tested_and_certified() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("passphrase"), "correct horse").expect("written");
    let run = |arguments: &[&str]| {
        let (key, passphrase) = (path("service.p8"), path("passphrase"));
        let settings = [format!("signing.key={key}"), format!("signing.passphrase=file:{passphrase}")];
        let mut command = worker::notary();
        command.arg("keys").args(arguments).args(["--set", &settings[0], "--set", &settings[1]]);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    run(&["generate", "--scheme", "p256"]);
    assert!(run(&["list"]).contains("ECDSA_SECP256R1_SHA256"));
    assert!(run(&["test", "--count", "10"]).ends_with("passed\n"));
    std::fs::write(path("request.pem"), run(&["csr"])).expect("written");
    assert!(openssl(&["req", "-in", &path("request.pem"), "-verify", "-noout"]).contains("verify OK"));
}

fn figures(worker: &worker::Worker) -> String {
    let address = worker.figures.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let mut socket = std::net::TcpStream::connect(&address).expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("answered");
    text
}

/// HS9, HS10, F34, F36: a whole worker on two tokens. Goal: it serves; it goes on while one token is away; signals to end that hit
/// the keepers, too, as a service manager may send them, do not end its signatures; a wrong PIN ends it with the code that tells a
/// supervisor not to try again.
#[test]
fn a_worker_signs_on_tokens_and_survives_the_loss_of_one() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    let verbs = Verbs::on(&hsm, "left,right");
    let settings = verbs.settings();
    let network = worker::Network::init(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let file = |name: &str| network.dir().join(name).display().to_string();
    let passphrase = format!("file:{}", file("keys/passphrase"));
    verbs.done(&["import", &file("keys/service.p8"), "--passphrase", &passphrase]);
    // From here on the key is on the tokens only.
    std::fs::remove_file(network.dir().join("keys/service.p8")).expect("removed");

    let config = network.config();
    let config = config.to_str().expect("UTF-8");
    let check = worker::run(&["config", "check", "--config", config]);
    assert!(check.status.success(), "{}", text(&check));
    let submit = |count: &str| {
        let output = worker::run(&["submit", "--config", config, "--count", count]);
        assert!(output.status.success(), "{}", text(&output));
    };
    let running = network.start_with(|command| {
        command.envs([hsm.environment()]);
    });
    submit("30");
    hsm.take_away("left");
    submit("30");
    let seen = figures(&running);
    assert!(
        seen.contains("notary_token_up{token=\"left\"} 0") && seen.contains("notary_token_up{token=\"right\"} 1"),
        "{seen}"
    );
    assert!(seen.contains("notary_token_failovers_total{token=\"left\"}"), "{seen}");
    assert!(seen.contains("notary_token_sign_seconds_count{token=\"right\"}"), "{seen}");
    hsm.put_back("left");

    let keepers = || hsm.keepers("right");
    let [keeper] = keepers()[..] else { panic!("one process for one token") };
    for name in ["-TERM", "-INT", "-HUP"] {
        assert!(Command::new("kill").args([name, &keeper.to_string()]).status().expect("kill runs").success());
    }
    submit("30");
    assert_eq!(keepers(), [keeper]);
    assert!(running.terminate().success());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !keepers().is_empty() {
        assert!(std::time::Instant::now() < deadline, "keepers outlive their worker");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    std::fs::write(hsm.path().join("pin"), "wrong-pin-1414").expect("written");
    for why in ["CKR_PIN_INCORRECT", "not tried again"] {
        let mut command = worker::notary();
        let output = command.envs([hsm.environment()]).args(["run", "--config", config]).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(why) && !text(&output).contains("1414"), "{}", text(&output));
    }
    let note: PathBuf = hsm.path().join("pin-refused");
    assert!(!std::fs::read_to_string(&note).expect("a note").contains("1414"));
    let check = worker::run(&["config", "check", "--config", config]);
    assert_eq!(check.status.code(), Some(2), "{}", text(&check));
    assert!(text(&check).contains("signing.pin"), "{}", text(&check));
}

/// The value of a figure, or zero if there is none yet.
fn figure(figures: &str, name: &str) -> f64 {
    let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// FAULTS F35: the only token hangs. Goal: requests are decided and durable while nothing is signed; once the token answers again
/// every one of them gets its signature, and nobody was told anything else.
#[test]
fn a_token_that_hangs_makes_signatures_late_and_stops_no_commit() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["only"])) else { return };
    // Long enough that all is seen before the worker gives the silent process up by itself.
    let verbs = Verbs::on(&hsm, "only").with("signing.token_deadline_ms=10000");
    let settings = verbs.settings();
    let network = worker::Network::init(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let file = |name: &str| network.dir().join(name).display().to_string();
    verbs.done(&["import", &file("keys/service.p8"), "--passphrase", &format!("file:{}", file("keys/passphrase"))]);
    let running = network.start_with(|command| {
        command.envs([hsm.environment()]);
    });
    let config = network.config().display().to_string();

    let [keeper] = hsm.keepers("only")[..] else { panic!("one process for one token") };
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &keeper.to_string()]).status().expect("kill runs").success());
    };
    signal("-STOP");
    let mut submit = worker::notary();
    submit.args(["submit", "--config", &config, "--count", "24", "--concurrency", "24"]);
    let submit = submit.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let submit = submit.expect("it starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(9);
    loop {
        let seen = figures(&running);
        let committed = figure(&seen, "notary_committed_input_states_total");
        let waiting = figure(&seen, "notary_stage_depth{stage=\"signing\"}");
        if (committed, waiting) == (24.0, 24.0) {
            assert_eq!(
                figure(&seen, "notary_answers_total{outcome=\"Notarised\"}"),
                0.0,
                "answered without a signature"
            );
            break;
        }
        assert!(std::time::Instant::now() < deadline, "commits wait for the key: {seen}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    signal("-CONT");
    let output = submit.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output));
    assert!(running.terminate().success());
}
