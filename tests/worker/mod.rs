//! A real worker process on a development network in a throw-away folder.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file is a program of its own and uses a part of this"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

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
        Worker::start(self.command())
    }

    /// The same, with something changed about the command, such as a variable.
    pub fn start_with(&self, prepare: impl FnOnce(&mut Command)) -> Worker {
        let mut command = self.command();
        prepare(&mut command);
        Worker::start(command)
    }

    /// What starts its worker.
    pub fn command(&self) -> Command {
        let mut command = notary();
        command.args(["run", "--config", self.config().to_str().expect("UTF-8")]);
        command
    }
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// A running worker process; killed when dropped.
pub struct Worker {
    child: Child,
    /// Where figures are served.
    pub figures: String,
}

impl Worker {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the worker starts");
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
    pub fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// Waits for the end, and returns what it said on a piped standard error.
    pub fn output(mut self) -> Output {
        let mut stderr = Vec::new();
        self.child.stderr.take().expect("piped").read_to_end(&mut stderr).expect("it reads");
        let status = self.child.wait().expect("it ends");
        Output { status, stdout: Vec::new(), stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks its HTTP listener: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let address = self.figures.trim_start_matches("http://").trim_end_matches("/metrics");
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("answered");
        let (head, body) = text.split_once("\r\n\r\n").expect("HTTP");
        let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
