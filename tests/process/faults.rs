//! A worker that panics, is killed, or is given poison, under a supervisor that starts it again (faults F01-F03, F32).

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use notary_worker::client::session::AskError;

use super::load::{Definite, ask_all, cast, requests, runtime};
use super::stderr;
use super::worker::{Network, signal};

/// Starts the worker again whenever it ends with anything but 0, as systemd does.
struct Supervisor {
    current: Arc<Mutex<u32>>,
    thread: JoinHandle<Vec<ExitStatus>>,
}

impl Supervisor {
    /// `faults` are those of each life in turn; the last ones stay. `state` keeps what lives tell each other.
    fn start(network: &Arc<Network>, faults: &'static [&'static str]) -> Self {
        let current = Arc::new(Mutex::new(0));
        let (network, pid) = (Arc::clone(network), Arc::clone(&current));
        let thread = std::thread::spawn(move || {
            let mut ends = Vec::new();
            loop {
                let armed = faults.get(ends.len()).or(faults.last()).copied().unwrap_or_default();
                let mut command = network.command();
                command.env("NOTARY_FAULTS", armed).stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().expect("it starts");
                *pid.lock().expect("whole") = child.id();
                let end = child.wait().expect("it ends");
                // A test that has seen enough would loop for ever otherwise.
                assert!(ends.len() < 20, "it ends again and again: {ends:?}");
                ends.push(end);
                if end.success() {
                    return ends;
                }
            }
        });
        Self { current, thread }
    }

    /// Drains the worker that runs now; returns how each life ended.
    fn stop(self) -> Vec<ExitStatus> {
        signal(*self.current.lock().expect("whole"), "TERM");
        self.thread.join().expect("it ends")
    }
}

/// Connects the parties as soon as the worker listens.
async fn cast_when_up(network: &Network) -> notary_worker::client::cast::Cast {
    let deadline = tokio::time::Instant::now() + super::PATIENCE;
    while tokio::net::TcpStream::connect(network.address).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the worker does not listen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cast(network).await
}

#[test]
fn a_panic_ends_the_worker_with_code_4_and_a_message() {
    let network = Network::init(&["observe.log=error"]);
    let running = network.start_with(|command| {
        command.env("NOTARY_FAULTS", "before_commit=panic").stderr(Stdio::piped());
    });
    let output = runtime().block_on(async {
        let cast = cast(&network).await;
        let requests = requests(&cast, 1, 1);
        let asking = tokio::spawn(async move { requests[0].ask().await });
        let output = tokio::task::spawn_blocking(move || running.output()).await.expect("it ends");
        let next = network.start();
        assert_eq!(asking.await.expect("the next life answers"), Definite::Notarised);
        cast.close().await;
        assert!(next.terminate().success());
        output
    });
    assert_eq!(output.status.code(), Some(4));
    let said = stderr(&output);
    assert!(said.contains("asked to panic at before_commit"), "{said}");
    assert!(said.contains("the worker ends because of an internal fault"), "{said}");
}

#[test]
fn a_message_that_makes_the_worker_panic_is_parked_after_three_lives_and_its_neighbours_are_answered() {
    const POISON: &str = "net.example.Poison";
    let network = Arc::new(Network::init(&[]));
    let supervisor = Supervisor::start(&network, &["inspect=panic:net.example.Poison"]);
    let (poisoned, neighbours) = runtime().block_on(async {
        let cast = cast_when_up(&network).await;
        let requests = requests(&cast, 30, 1);
        // The poisoner's own other requests are among the neighbours.
        let poisoner = Arc::clone(&cast.parties()[0]);
        let poison = tokio::spawn(async move { poisoner.open_session(POISON, None).await });
        let neighbours = ask_all(&requests, 6, &Arc::new(AtomicUsize::new(0))).await;
        let poisoned = poison.await.expect("it ends");
        let again = ask_all(&requests, 6, &Arc::new(AtomicUsize::new(0))).await;
        assert_eq!(neighbours, again);
        cast.close().await;
        (poisoned, neighbours)
    });
    let ends = supervisor.stop();
    let Err(AskError::Parked { reason }) = poisoned else { panic!("{poisoned:?}") };
    assert!(reason.contains("made this worker panic 3 times") && reason.contains("asked to panic"), "{reason}");
    assert!(neighbours.iter().all(|answer| *answer == Definite::Notarised));
    let codes: Vec<_> = ends.iter().map(ExitStatus::code).collect();
    assert_eq!(codes, [Some(4), Some(4), Some(4), Some(0)]);
}

/// Kills the worker at `point` of the second delivery that passes it.
fn killed_at(faults: &'static [&'static str]) {
    let network = Arc::new(Network::init(&[]));
    let supervisor = Supervisor::start(&network, faults);
    let (first, again) = runtime().block_on(async {
        let cast = cast_when_up(&network).await;
        let requests = requests(&cast, 8, 2);
        let first = ask_all(&requests, 4, &Arc::new(AtomicUsize::new(0))).await;
        let again = ask_all(&requests, 4, &Arc::new(AtomicUsize::new(0))).await;
        cast.close().await;
        (first, again)
    });
    let ends = supervisor.stop();
    assert_eq!(first, again, "{faults:?}: a retry got another answer");
    let won = first.iter().filter(|answer| **answer == Definite::Notarised).count();
    assert_eq!(won, 8, "{faults:?}: every coin was spent once");
    let signals: Vec<_> = ends.iter().map(ExitStatusExt::signal).collect();
    assert_eq!(signals, [Some(9), None], "{faults:?}: it was killed once");
}

macro_rules! killed_at {
    ($($name:ident: $point:literal;)+) => { $(
        #[test]
        fn $name() {
            killed_at(&[concat!($point, "=kill@2"), ""]);
        }
    )+ };
}
killed_at! {
    killed_before_its_commit_a_request_gets_the_same_answer_again: "before_commit";
    killed_after_its_commit_a_request_gets_the_same_answer_again: "committed";
    killed_before_it_is_signed_a_request_gets_the_same_answer_again: "before_sign";
    killed_after_it_is_signed_a_request_gets_the_same_answer_again: "signed";
    killed_before_its_answer_is_sent_a_request_gets_the_same_answer_again: "before_publish";
    killed_after_its_answer_is_sent_a_request_gets_the_same_answer_again: "published";
    killed_before_it_is_settled_a_request_gets_the_same_answer_again: "before_ack";
}
