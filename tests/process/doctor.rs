//! `notary doctor`: good set-ups and bad ones, and what it says to do (rows OB3, OV6).

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::worker::{Network, notary};
use super::{stderr, stdout};

/// A clock tool that says what the test needs, found first.
fn clock(network: &Network, answer: &str) -> String {
    let folder = network.dir().join("tools");
    fs::create_dir_all(&folder).expect("a folder");
    let tool = folder.join("timedatectl");
    fs::write(&tool, format!("#!/bin/sh\necho {answer}\n")).expect("written");
    chmod(&tool, 0o755);
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn doctor(network: &Network, clock_says: &str, arguments: &[&str]) -> Output {
    let path = clock(network, clock_says);
    let mut command = notary();
    command.args(["doctor", "--config", network.config().to_str().expect("UTF-8")]).args(arguments).env("PATH", path);
    command.output().expect("it ends")
}

fn has(output: &Output, mark: &str, part: &str) -> bool {
    stdout(output).lines().any(|line| line.starts_with(mark) && line.contains(part))
}

#[test]
fn a_sound_set_up_has_no_fault_beside_a_stopped_and_a_running_worker() {
    let network = Network::init(&[]);
    let stopped = doctor(&network, "yes", &[]);
    assert_eq!(stopped.status.code(), Some(0), "{}{}", stdout(&stopped), stderr(&stopped));
    for part in [
        "configuration: ",
        "secret: signing.passphrase: ",
        "store.unsafe_for_tests: off",
        "network: service: O=Notary Service, L=Zurich, C=CH is listed",
        "network: certificates: the first to end",
        "store: file: ",
        "no worker runs on it",
        "store: disk: ",
        "is free for the worker",
        "key: file: ",
        "clock: synchronised",
        "core dumps: turned off",
        "TimeoutStopSec=15",
        "faults survived: workers: 0",
    ] {
        assert!(has(&stopped, "ok ", part), "{part} in\n{}", stdout(&stopped));
    }
    assert!(stdout(&stopped).trim_end().ends_with(" 0 faults: the worker can serve like this"), "{}", stdout(&stopped));
    assert!(!network.dir().join("state").exists(), "it makes nothing");

    let running = network.start();
    let beside = doctor(&network, "yes", &[]);
    assert_eq!(beside.status.code(), Some(0), "{}{}", stdout(&beside), stderr(&beside));
    for part in [format!("in use by process {}", running.pid()), format!("the worker answers at {}", network.address)] {
        assert!(has(&beside, "ok ", &part), "{part} in\n{}", stdout(&beside));
    }
    assert_eq!(running.get("/ready").0, 200, "it does the worker no harm");
    assert!(running.terminate().success());

    let json = doctor(&network, "yes", &["--json"]);
    let report: Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(report["faults"], 0);
    let findings = report["findings"].as_array().expect("findings");
    let total = ["good", "warnings", "faults"].map(|kind| report[kind].as_u64().expect(kind)).iter().sum::<u64>();
    assert_eq!(findings.len() as u64, total);
    assert!(findings.iter().all(|f| f["severity"] == "good" || !f["advice"].as_str().expect("text").is_empty()));
}

/// Something broken: what, how, and which line says so.
type Bad = (&'static str, fn(&Network), &'static [&'static str], &'static str);

const BAD: &[Bad] = &[
    (
        "a passphrase for everybody",
        |n| chmod(&n.dir().join("keys/passphrase"), 0o644),
        &[],
        "secret: signing.passphrase: ",
    ),
    (
        "no passphrase",
        |n| fs::remove_file(n.dir().join("keys/passphrase")).expect("removed"),
        &[],
        "secret: signing.passphrase: ",
    ),
    (
        "a wrong passphrase",
        |n| fs::write(n.dir().join("keys/passphrase"), "wrong-wrong-wrong\n").expect("written"),
        &[],
        "key: file: the passphrase does not open",
    ),
    ("a key for everybody", |n| chmod(&n.dir().join("keys/service.p8"), 0o640), &[], "key: file: "),
    ("no key", |n| fs::remove_file(n.dir().join("keys/service.p8")).expect("removed"), &[], "key: file: "),
    ("another key", |_| (), &["--set", "signing.key=keys/worker.p8"], "network: service: "),
    ("another service", |_| (), &["--set", "service.name=O=Other, L=Zurich, C=CH"], "not for O=Other"),
    ("no store", |n| fs::remove_file(n.store()).expect("removed"), &[], "store: file: there is none"),
    ("no store at all", |n| fs::write(n.store(), "no store").expect("written"), &[], "store: file: "),
    (
        "a forged node",
        |n| fs::write(n.dir().join("network/network-parameters"), "forged").expect("written"),
        &[],
        "network: material: ",
    ),
    ("a file for a folder", |_| (), &["--set", "worker.state=notary.toml"], "state folder: "),
    ("no users", |n| fs::remove_file(n.dir().join("network/sasl-users")).expect("removed"), &[], "broker: users: "),
    ("a set-up for tests", |_| (), &["--set", "store.unsafe_for_tests=true"], "store.unsafe_for_tests: on"),
    ("a configuration that others may change", |n| chmod(&n.config(), 0o666), &[], "configuration: file: "),
    (
        "a secret in clear",
        |n| {
            let secret = fs::read_to_string(n.dir().join("keys/passphrase")).expect("there");
            let config = fs::read_to_string(n.config()).expect("there");
            fs::write(n.config(), format!("# passphrase: {secret}\n{config}")).expect("written");
        },
        &[],
        "secret: signing.passphrase: stands in clear in the configuration file",
    ),
    ("too few descriptors", |_| (), &["--set", "broker.connections_max=65536"], "limit: open files: "),
];

#[test]
fn each_fault_is_found_named_and_given_advice() {
    for (what, break_it, arguments, line) in BAD {
        let network = Network::init(&[]);
        let secret = fs::read_to_string(network.dir().join("keys/passphrase")).expect("there");
        break_it(&network);
        let output = doctor(&network, "yes", arguments);
        let printed = stdout(&output);
        if *what == "too few descriptors" && has(&output, "ok ", line) {
            // This machine lets a process have more than 65 664.
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{what}: {printed}{}", stderr(&output));
        assert!(has(&output, "FAULT", line), "{what}: {line} in\n{printed}");
        let mut lines = printed.lines().skip_while(|found| !(found.starts_with("FAULT") && found.contains(line)));
        assert!(lines.nth(1).is_some_and(|advice| advice.starts_with("       do: ")), "{what}:\n{printed}");
        assert!(printed.trim_end().ends_with("the worker must not serve like this"), "{what}:\n{printed}");
        assert!(!printed.contains(secret.trim()), "{what}");
    }
}

#[test]
fn a_port_that_another_program_has_is_told_from_one_of_our_worker() {
    let network = Network::init(&[]);
    let other = TcpListener::bind(network.address).expect("the port is still free");
    let greeter = std::thread::spawn(move || {
        // Speaks something else, and hangs up.
        let (mut stream, _) = other.accept().expect("the doctor connects");
        std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n").expect("sent");
    });
    let output = doctor(&network, "yes", &[]);
    greeter.join().expect("it was asked");
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(has(&output, "FAULT", "another program has"), "{}", stdout(&output));

    // A worker that runs, but not where the configuration says.
    let network = Network::init(&[]);
    let running = network.start();
    let output = doctor(&network, "yes", &["--set", "broker.listen=127.0.0.1:1"]);
    assert!(!has(&output, "ok ", "embedded endpoint"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(running.terminate().success());
}

#[test]
fn an_unsynchronised_clock_is_a_fault_and_an_unknown_one_a_warning() {
    let network = Network::init(&[]);
    let wrong = doctor(&network, "no", &[]);
    assert_eq!(wrong.status.code(), Some(1), "{}", stdout(&wrong));
    assert!(has(&wrong, "FAULT", "clock: timedatectl says that it is not synchronised"), "{}", stdout(&wrong));
    // Without timedatectl it depends on the machine, but never is an unknown clock a fault.
    let unknown = doctor(&network, "perhaps", &[]);
    assert!(has(&unknown, "ok ", "clock: ") || has(&unknown, "warn ", "clock: ") || has(&unknown, "FAULT", "chronyc"));
}

#[test]
fn a_wrong_configuration_is_code_2() {
    let network = Network::init(&[]);
    let output = doctor(&network, "yes", &["--set", "flow.slots=0"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("flow.slots: 0 is outside"), "{}", stderr(&output));
}
