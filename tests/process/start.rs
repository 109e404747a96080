//! Workers that cannot start, and the supervisor's patience with them (faults F07, F11).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use super::stderr;
use super::worker::{self, Network};

/// Runs the worker and expects it to end by itself.
fn run(network: &Network, settings: &[&str]) -> Output {
    let mut command = network.command();
    command.args(["--set", "observe.log=error"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.output().expect("it ends")
}

/// One line that names `what`, and this code.
fn refuses(output: &Output, code: i32, what: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    assert!(said.starts_with("notary: ") && said.contains(what), "{what}: {said}");
    assert_eq!(said.lines().count(), 1, "{what}: {said}");
    assert!(output.stdout.is_empty(), "it did not serve");
}

#[test]
fn what_is_in_use_or_missing_ends_the_worker_with_3_and_one_line() {
    let network = Network::init(&[]);
    let running = network.start();
    // F11 on the embedded stack: the same worker twice means the same store twice.
    let twice = run(&network, &[]);
    refuses(&twice, 3, "notary.store");
    assert!(stderr(&twice).contains(&format!("in use by process {}", running.pid())), "{}", stderr(&twice));

    let other = Network::init(&[]);
    refuses(&run(&other, &[&format!("broker.listen={}", network.address)]), 3, &network.address.to_string());
    let figures = running.figures.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    refuses(&run(&other, &[&format!("observe.listen={figures}")]), 3, &figures);
    assert!(running.terminate().success());

    for (setting, what) in [
        ("store.path=elsewhere.store", "elsewhere.store"),
        ("network.dir=elsewhere", "elsewhere"),
        ("signing.key=elsewhere.p8", "elsewhere.p8"),
        ("signing.passphrase=file:elsewhere", "elsewhere"),
        ("signing.passphrase=env:NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
        ("broker.users=elsewhere", "elsewhere"),
        ("worker.state=notary.toml/state", "notary.toml/state"),
    ] {
        refuses(&run(&other, &[setting]), 3, what);
    }
    // A wrong passphrase stays wrong: the code that keeps supervisors from trying again.
    std::fs::write(other.dir().join("keys/passphrase"), "wrong-wrong-wrong\n").expect("written");
    refuses(&run(&other, &[]), 2, "passphrase does not open");
}

/// A command that tells the passphrase, and leaves a line for each time it was asked.
fn counting(network: &Network) -> (String, std::path::PathBuf) {
    let (script, asked) = (network.dir().join("tell"), network.dir().join("asked"));
    let secret = network.dir().join("keys/passphrase");
    let text = format!("#!/bin/sh\necho asked >> {}\ncat {}\n", asked.display(), secret.display());
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    (format!("signing.passphrase=exec:{}", script.display()), asked)
}

#[test]
fn a_restart_storm_costs_no_key_derivation_and_one_line_a_start() {
    let network = Network::init(&[]);
    let (passphrase, asked) = counting(&network);
    let times = |asked: &Path| std::fs::read_to_string(asked).map_or(0, |text| text.lines().count());
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let since = Instant::now();
        refuses(&run(&network, &[&passphrase, "store.path=no/such/store"]), 3, "no/such/store");
        slowest = slowest.max(since.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(times(&asked), 0, "the passphrase was fetched for nothing");
    assert!(!network.dir().join("no").exists(), "a worker that refuses a store must not begin one");

    // With its store it asks once.
    let running = network.start_with(|command| {
        command.args(["--set", &passphrase]);
    });
    assert!(running.terminate().success());
    assert_eq!(times(&asked), 1);
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let help = super::stdout(&worker::run(&["--help"]));
    for line in ["  0  done", "  1  a negative result", "  2  the arguments", "  3  something", "  4  the worker"] {
        assert!(help.contains(line), "{line} in\n{help}");
    }
}
