//! The command line as a user meets it: verbs, exit codes, what is printed.

mod worker;

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn vector(file: &str) -> String {
    format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_demo_is_all_right_and_ends_with_one_json_line() {
    let output = worker::run(&["demo", "--requests", "200", "--json"]);
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    let printed = stdout(&output);
    let line: Value = serde_json::from_str(printed.lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["ok"], true);
    let count = |key: &str| line[key].as_u64().expect(key);
    assert_eq!(count("requests"), count("committed") + count("conflicts") + count("rejected"));
    for scene in ["a double spend", "a retry after its reference was spent", "an expired time window", "garbage"] {
        assert!(printed.lines().any(|l| l.starts_with('✓') && l.contains(scene)), "{scene}\n{printed}");
    }
    assert!(!printed.contains('✗'));
}

#[test]
fn inspect_tells_good_requests_from_tampered_ones() {
    for (file, code) in [
        ("session_initial.bin", 0),
        ("session_initial_telemetry.bin", 0),
        ("payload_filtered_many.bin", 0),
        ("payload_notary_change.bin", 0),
        ("payload_contract_upgrade.bin", 0),
        ("payload_filtered_sha384.bin", 0),
        ("session_error_conflict.bin", 0),
        ("response_batch.bin", 0),
        ("signed_node_info_worker.bin", 0),
        ("signed_network_parameters.bin", 0),
        ("tampered_header.bin", 1),
    ] {
        let output = worker::run(&["inspect", &vector(file)]);
        assert_eq!(output.status.code(), Some(code), "{file}: {}{}", stdout(&output), stderr(&output));
        if code == 0 {
            serde_json::from_str::<Value>(&stdout(&output)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
    for (file, accepted, error) in [
        ("payload_filtered_1_input.bin", true, None),
        ("tampered_hidden_input.bin", false, Some("RequestSignatureInvalid")),
        ("tampered_wrong_id.bin", false, Some("RequestSignatureInvalid")),
        ("payload_signed_transaction.bin", false, Some("TransactionInvalid")),
    ] {
        let output = worker::run(&["inspect", &vector(file)]);
        let printed: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        assert_eq!(printed["verdict"]["accepted"], accepted, "{file}: {printed:#}");
        if let Some(error) = error {
            assert!(printed["verdict"]["error"].is_string(), "{file} {error}: {printed:#}");
        }
    }
}

#[test]
fn inspect_reads_standard_input_and_hex_and_says_why_something_is_malformed() {
    let inspect = |input: &[u8]| {
        let mut child = worker::notary()
            .args(["inspect", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("piped").write_all(input).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let bytes = std::fs::read(vector("session_confirm.bin")).expect("a vector");
    assert_eq!(stdout(&inspect(hex::encode(&bytes).as_bytes())), stdout(&inspect(&bytes)));
    for (input, reason) in
        [(&b""[..], "malformed"), (b"garbage", "malformed"), (&bytes[..bytes.len() - 9], "malformed")]
    {
        let output = inspect(input);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn wrong_configuration_ends_with_code_2_and_a_line_for_each_fault() {
    let output = worker::run(&["config", "show", "--set", "flow.slots=0", "--set", "flow.slotz=3"]);
    assert_eq!(output.status.code(), Some(2));
    let printed = stderr(&output);
    assert!(printed.contains("flow.slots: 0 is outside") && printed.contains("did you mean flow.slots?"), "{printed}");
    assert_eq!(worker::run(&["no-such-verb"]).status.code(), Some(2));
}

#[test]
fn a_worker_that_cannot_start_says_why_with_code_3() {
    let network = worker::Network::init(&[]);
    let config = network.config();
    let config = config.to_str().expect("UTF-8");
    let check = worker::run(&["config", "check", "--config", config]);
    assert!(check.status.success(), "{}", stderr(&check));

    // A second worker on one store, and the verbs that read it, are told that it is in use.
    let running = network.start();
    let second = worker::run(&["run", "--config", config, "--set", "broker.listen=127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(3));
    assert!(stderr(&second).contains("notary.store"), "{}", stderr(&second));
    assert_eq!(worker::run(&["store", "stats", "--config", config]).status.code(), Some(3));
    assert!(running.terminate().success());

    // A wrong path must not begin to forget.
    let elsewhere = worker::run(&["run", "--config", config, "--set", "store.path=elsewhere.store"]);
    assert_eq!(elsewhere.status.code(), Some(3), "{}", stderr(&elsewhere));
    assert!(!network.dir().join("elsewhere.store").exists());

    // A wrong passphrase names the key, and nothing secret. It is a matter of the configuration: a supervisor must not try it again.
    std::fs::write(network.dir().join("keys/passphrase"), "wrong\n").expect("written");
    let wrong = worker::run(&["run", "--config", config]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("service key") && !stderr(&wrong).contains("wrong\n"), "{}", stderr(&wrong));
}

#[test]
fn submit_and_the_store_verbs_agree() {
    let network = worker::Network::init(&[]);
    let config = network.config();
    let config = config.to_str().expect("UTF-8");
    let running = network.start();
    let state = format!("{}:0", "AB".repeat(32));
    let spend = ["submit", "--config", config, "--input", &state];
    let first = worker::run(&spend);
    assert!(first.status.success(), "{}{}", stdout(&first), stderr(&first));
    let first: Value = serde_json::from_str(&stdout(&first)).expect("JSON");
    assert_eq!(first["answer"], "Notarised");

    let second = worker::run(&spend);
    assert_eq!(second.status.code(), Some(1));
    assert!(stdout(&second).contains("Conflict"), "{}", stdout(&second));
    let many = worker::run(&["submit", "--config", config, "--count", "50", "--party", "bob"]);
    assert!(many.status.success(), "{}{}", stdout(&many), stderr(&many));
    let late = worker::run(&["submit", "--config", config, "--until", "-60"]);
    assert!(stdout(&late).contains("TimeWindowInvalid"), "{}", stdout(&late));

    assert!(running.terminate().success());
    let verified = worker::run(&["store", "verify", "--config", config]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    let consumer = worker::run(&["store", "state", &state, "--config", config]);
    let consumer: Value = serde_json::from_str(&stdout(&consumer)).expect("JSON");
    assert_eq!(consumer["txId"], first["txId"]);
    let log = worker::run(&["store", "log", "--config", config]);
    assert_eq!(stdout(&log).lines().count(), 53, "52 first decisions and one conflict: every request is on record");
}

#[test]
fn figures_show_every_stage_with_its_limit() {
    let network = worker::Network::init(&["flow.slots=77"]);
    let running = network.start();
    let address = running.figures.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let mut socket = std::net::TcpStream::connect(&address).expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut socket, &mut text).expect("answered");
    assert!(text.contains("notary_stage_limit{stage=\"flow\"} 77"), "{text}");
    for stage in ["flow", "uniqueness", "signing"] {
        assert!(text.contains(&format!("notary_stage_depth{{stage=\"{stage}\"}} 0")), "{stage}\n{text}");
    }
}

#[test]
fn the_readme_has_the_configuration_reference() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
    let reference = stdout(&worker::run(&["config", "reference"]));
    assert!(
        readme.contains(reference.trim()),
        "README.md differs from what `notary config reference` prints:\n{reference}"
    );
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&worker::run(&["completions", shell])).contains("notary"), "{shell}");
    }
}

/// RG1: a folder for each node, or nothing and the reason.
#[test]
fn a_development_network_of_nodes_is_made_whole_or_not_at_all() {
    let scratch = tempfile::tempdir().expect("a folder");
    let dir = scratch.path().join("net").display().to_string();
    let up = |more: &[&str]| {
        let output = worker::run(&[&["network", "dev", "up", &dir, "--json"], more].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().expect("it ends"), text)
    };
    for (arguments, code, reason) in [
        (&["--workers", "0"][..], 2, "1..=16"),
        (&["--parties", "O=Alice"], 2, "L attribute"),
        (&["--parties", "O=Alice, L=Rome, C=IT", "O=Alice, L=Rome, C=IT"], 2, "two participants"),
        (&["--port", "65530"], 2, "ports"),
        (&["--corda-dev-ca", "absent.jar"], 3, "absent.jar"),
    ] {
        let (found, text) = up(arguments);
        assert_eq!(found, code, "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
        assert_eq!(std::fs::read_dir(scratch.path()).expect("a folder").count(), 0, "{arguments:?}");
    }
    let (code, text) = up(&["--workers", "2", "--parties", "O=Carla Ltd, L=London, C=GB"]);
    assert_eq!(code, 0, "{text}");
    let made: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let nodes: Vec<_> = made["nodes"].as_array().expect("nodes").iter().collect();
    let told: Vec<_> = nodes.iter().map(|node| (node["kind"].as_str(), node["address"].as_str())).collect();
    let (worker, party) = (Some("worker"), Some("party"));
    let [first, second, third] = ["127.0.0.1:10002", "127.0.0.1:10012", "127.0.0.1:10022"].map(Some);
    assert_eq!(told, [(worker, first), (worker, second), (party, third)]);
    for node in nodes {
        let folder = std::path::Path::new(node["folder"].as_str().expect("a folder"));
        assert!(folder.join("node.conf").is_file() && folder.join("certificates/sslkeystore.jks").is_file());
    }
    assert_eq!(up(&[]).0, 2, "somebody's network is not overwritten");
}
