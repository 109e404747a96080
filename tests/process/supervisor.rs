//! What systemd is told, and the unit it is told in.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::{cast, requests, runtime};
use super::worker::{self, Network, Worker};
use super::{PATIENCE, stderr, stdout, until};

/// systemd's end of the conversation.
struct Systemd {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("bound");
        Self { socket, folder }
    }

    fn start(&self, network: &Network, faults: &str) -> Worker {
        network.start_with(|command| {
            command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
            command.env("WATCHDOG_USEC", "2000000").env("NOTARY_FAULTS", faults);
        })
    }

    /// The next words, or `None` if there are none for so long.
    fn hears(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("a time-out");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a line.
    fn expects(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let words = self.hears(left).unwrap_or_else(|| panic!("{line} was not said"));
            if words.lines().any(|said| said == line) {
                return words;
            }
        }
    }
}

#[test]
fn systemd_is_told_that_the_worker_serves_lives_and_stops() {
    let (network, systemd) = (Network::init(&[]), Systemd::new());
    let running = systemd.start(&network, "");
    let ready = systemd.expects("READY=1");
    assert!(ready.contains("STATUS=ready"), "{ready}");
    for _ in 0..3 {
        systemd.expects("WATCHDOG=1");
    }
    running.signal("TERM");
    let stopping = systemd.expects("STOPPING=1");
    assert!(stopping.contains("STATUS=draining"), "{stopping}");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn the_watchdog_falls_silent_when_an_actor_hangs() {
    let (network, systemd) = (Network::init(&[]), Systemd::new());
    let running = systemd.start(&network, "actor=hang");
    systemd.expects("WATCHDOG=1");
    let runtime = runtime();
    runtime.block_on(async {
        let cast = cast(&network).await;
        let requests = requests(&cast, 1, 1);
        // Nobody will ever answer it; it ends with the runtime.
        tokio::spawn(async move { requests[0].ask().await });
        tokio::task::spawn_blocking(move || {
            until("it is seen not to live", || running.get("/live").0 == 503);
            // What was on its way when the actor hung is heard first; then there is silence, four times as long as the worker
            // may take for two words: 0.5 s of pause and 2 s of patience each.
            let deadline = Instant::now() + PATIENCE;
            while systemd.hears(Duration::from_secs(20)).is_some() {
                assert!(Instant::now() < deadline, "it goes on saying that it lives");
            }
            running.kill();
        })
        .await
        .expect("silence");
    });
    runtime.shutdown_background();
}

#[test]
fn the_unit_is_filled_in_and_systemd_accepts_it() {
    let network = Network::init(&["signing.passphrase=credential:passphrase"]);
    let config = network.config();
    let output = worker::run(&["systemd", "--config", config.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let unit = stdout(&output);
    let settings: Vec<_> = unit.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    // What systemd itself would refuse: lines that are neither a section nor an assignment.
    for line in &settings {
        let assignment = line.split_once('=').is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric()));
        assert!(assignment || (line.starts_with('[') && line.ends_with(']')), "{line}");
    }
    let exec = format!("ExecStart={} run --config {}", env!("CARGO_BIN_EXE_notary"), config.display());
    for line in [
        exec.as_str(),
        "Type=notify",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "NoNewPrivileges=yes",
        "LoadCredential=passphrase:/etc/notary/credentials/passphrase",
    ] {
        assert!(settings.contains(&line), "{line} in\n{unit}");
    }
    assert!(unit.contains(network.store().parent().expect("a folder").to_str().expect("UTF-8")), "{unit}");

    let file = network.dir().join("notary@.service");
    fs::write(&file, &unit).expect("written");
    match Command::new("systemd-analyze").arg("verify").arg(&file).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(!stderr(&output).contains("notary@"), "{}", stderr(&output));
        }
        Err(error) => eprintln!("skipped: systemd-analyze: {error}"),
    }
}
