//! A real worker process on a development network in a throw-away folder.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file is a program of its own and uses a part of this"
)]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// The program under test.
pub fn notary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notary"));
    // Settings from the environment of whoever runs the tests must not reach the worker.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NOTARY__")) {
        command.env_remove(name);
    }
    command
}

/// Runs a verb to its end.
pub fn run(arguments: &[&str]) -> Output {
    notary().args(arguments).output().expect("the program starts")
}

/// A development network on disk; removed at the end.
pub struct Network {
    folder: tempfile::TempDir,
    /// Where its worker listens: a port that was free, the same after every restart.
    pub address: SocketAddr,
}

impl Network {
    /// Makes one with `notary init`, with further settings.
    pub fn init(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let network = Self { folder, address };
        let dir = network.dir();
        let listen = format!("broker.listen={address}");
        let mut arguments =
            vec!["init", dir.to_str().expect("UTF-8"), "--set", &listen, "--set", "observe.listen=127.0.0.1:0"];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        let output = run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        network
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    pub fn config(&self) -> PathBuf {
        self.dir().join("notary.toml")
    }

    pub fn store(&self) -> PathBuf {
        self.dir().join("data/notary.store")
    }

    /// Starts its worker and waits until it serves.
    pub fn start(&self) -> Worker {
        Worker::start(&self.config())
    }
}

/// A running worker process; killed when dropped.
pub struct Worker {
    child: Child,
    /// Where figures are served.
    pub figures: String,
}

impl Worker {
    fn start(config: &Path) -> Self {
        let mut child = notary()
            .args(["run", "--config", config.to_str().expect("UTF-8")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut next = || match lines.next() {
            Some(Ok(line)) => line,
            _ => panic!("the worker ended instead of serving"),
        };
        let serving = next();
        assert!(serving.starts_with("serving "), "{serving}");
        let figures = next().split("http://").nth(1).expect("an address").to_owned();
        // The rest is read by nobody, but the pipe must stay open: a worker that cannot say goodbye would fail.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, figures: format!("http://{figures}") }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        self.child.wait().expect("it ends")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
