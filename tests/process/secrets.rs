//! Secrets stay where they are (rows OB1, OB3; threat A8): known ones are looked for in everything that is said.

use std::process::{Command, Stdio};

use super::load::{cast, requests, runtime};
use super::worker::{Network, notary, signal};
use super::{stderr, stdout};

/// Where the passphrase is taken from in each run.
#[derive(Clone, Copy, Debug)]
enum From {
    File,
    Environment,
    Command,
}

/// What must be found nowhere: the passphrase, the key's own text, the parties' secrets.
fn known_secrets(network: &Network) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(network.dir().join(file)).expect("there");
    let mut secrets = vec![read("keys/passphrase").trim().to_owned()];
    // A line of the key's encrypted body: not secret in itself, but of no business in any output.
    secrets.push(read("keys/service.p8").lines().nth(1).expect("PEM").to_owned());
    let parties = std::fs::read_dir(network.dir().join("parties")).expect("parties");
    for party in parties {
        for file in ["identity.p8", "sasl-secret"] {
            let text = std::fs::read_to_string(party.as_ref().expect("a party").path().join(file)).expect("text");
            let body = text.lines().find(|line| !line.starts_with("-----") && line.len() >= 16);
            secrets.extend(body.map(str::to_owned));
        }
    }
    assert!(secrets.len() == 2 + 3 * 2 && secrets.iter().all(|secret| secret.len() >= 16), "{}", secrets.len());
    secrets
}

struct Watched {
    network: Network,
    secrets: Vec<String>,
    from: From,
}

impl Watched {
    fn new(from: From) -> Self {
        let network = Network::init(&["observe.log=trace"]);
        let secrets = known_secrets(&network);
        Self { network, secrets, from }
    }

    /// A verb with the configuration, the secret where `from` says.
    fn verb(&self, verb: &[&str]) -> Command {
        let mut command = notary();
        command.args(verb).args(["--config", self.network.config().to_str().expect("UTF-8")]);
        self.arm(&mut command);
        command
    }

    fn arm(&self, command: &mut Command) {
        match self.from {
            From::File => {}
            From::Environment => {
                command
                    .args(["--set", "signing.passphrase=env:THE_PASSPHRASE"])
                    .env("THE_PASSPHRASE", &self.secrets[0]);
            }
            From::Command => {
                let told = self.network.dir().join("keys/passphrase");
                command.args(["--set", &format!("signing.passphrase=exec:cat {}", told.display())]);
            }
        }
    }

    fn check(&self, what: &str, text: &str) {
        for (number, secret) in self.secrets.iter().enumerate() {
            assert!(!text.contains(secret), "{:?}, {what}: secret {number} was told", self.from);
        }
    }
}

/// Every verb, and a worker at its most talkative that serves, fails and panics.
fn nothing_is_told(from: From) {
    let watched = Watched::new(from);
    for verb in [
        &["config", "show"][..],
        &["config", "check"],
        &["doctor"],
        &["doctor", "--json"],
        &["systemd"],
        &["store", "stats"],
        &["store", "verify"],
        &["store", "log"],
        &["run", "--set", "store.path=elsewhere"],
        &["run", "--set", "broker.users=elsewhere"],
        &["run", "--set", "flow.slots=0"],
    ] {
        let output = watched.verb(verb).output().expect("it ends");
        watched.check(&format!("{verb:?}"), &(stdout(&output) + &stderr(&output)));
    }

    let running = watched.network.start_with(|command| {
        watched.arm(command);
        command.stderr(Stdio::piped()).env("NOTARY_FAULTS", "before_sign=panic@3").env("RUST_BACKTRACE", "full");
    });
    let pid = running.pid();
    let figures = ["/metrics", "/ready", "/live"].map(|path| running.get(path).1).concat();
    watched.check("figures", &figures);
    if let Ok(cmdline) = std::fs::read(format!("/proc/{pid}/cmdline")) {
        watched.check("/proc/PID/cmdline", &String::from_utf8_lossy(&cmdline));
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process has limits");
        let core: Vec<_> = limits.lines().filter(|line| line.starts_with("Max core file size")).collect();
        assert!(core.len() == 1 && core[0].split_whitespace().filter(|word| *word == "0").count() == 2, "{core:?}");
    }
    if !matches!(from, From::Environment)
        && let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ"))
    {
        watched.check("/proc/PID/environ", &String::from_utf8_lossy(&environment));
    }
    let said = runtime().block_on(async {
        let reading = tokio::task::spawn_blocking(move || running.output());
        let cast = cast(&watched.network).await;
        let asking = requests(&cast, 3, 1);
        let asking = tokio::spawn(async move {
            for request in asking.iter() {
                request.ask().await;
            }
        });
        let ended = reading.await.expect("it ends");
        asking.abort();
        assert_eq!(ended.status.code(), Some(4), "{}", stderr(&ended));
        cast.close().await;
        stderr(&ended)
    });
    assert!(
        ["DEBUG", "INFO"].iter().all(|level| said.contains(level)) && said.contains("asked to panic"),
        "it was talkative: {} bytes",
        said.len()
    );
    watched.check("logs and panic", &said);
}

#[test]
fn a_secret_from_a_file_is_told_nowhere() {
    nothing_is_told(From::File);
}

#[test]
fn a_secret_from_the_environment_is_told_nowhere() {
    nothing_is_told(From::Environment);
}

#[test]
fn a_secret_from_a_command_is_told_nowhere() {
    nothing_is_told(From::Command);
}

#[test]
fn a_worker_killed_by_a_fatal_signal_leaves_no_core() {
    use std::os::unix::process::ExitStatusExt;
    let network = Network::init(&["observe.log=error"]);
    let running = network.start();
    signal(running.pid(), "ABRT");
    let ended = running.wait();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}
