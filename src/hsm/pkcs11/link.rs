//! The worker's end of one token: starts its keeper, hands it messages, puts the token aside when it errs or passes its deadline,
//! and keeps trying to get it back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Options;
use super::frames::{self, Ask, Bytes, Open, Opened, Pin, Refusal, Tell};
use super::pin::{NoPin, PinNotes};
use super::profile::Login;
use crate::domain::PublicKey;
use crate::observe::metrics;

/// Messages that may wait for a session of one token. The signing stage bounds itself, to 256 at most; this only keeps a mistake
/// there from growing a queue.
const WAITING_MAX: usize = 256;
/// How long opening may take: starting the keeper, loading the module, logging in, finding the key. Corda Enterprise gives its
/// drivers 10 s for a call to a module (FEATURES HS1).
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// An idle token signs a constant this often: so that a lost one is noticed within two seconds and its deadline, which is before
/// the five that readiness has, and so that no device ends a session for being idle.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// The pause before the first attempt to get a token back; doubles.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// The longest such pause: a token that is back serves again within seconds.
const RETRY_CAP: Duration = Duration::from_secs(3);
/// A token that served this long before it failed is tried again soon; one that fails at once, later and later.
const STEADY: Duration = Duration::from_secs(10);
/// What is signed to see that a token works. It can never be taken for a notary's signature: what those cover begins with Corda's
/// magic bytes.
const PROBE: &[u8] = b"notary-worker: this proves that a token holds a key, and nothing else";
/// How long an ended keeper is given before it is killed.
const KEEPER_END: Duration = Duration::from_secs(3);

/// How a token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Being opened for the first time.
    Starting,
    /// It signs.
    Up,
    /// Put aside; tried again in the background.
    Aside(String),
    /// It refused the PIN, or must not be given one: not tried before the secret is another one.
    PinRefused(String),
    /// It holds another key under the same name. Never used.
    OtherKey(String),
}

/// A message to sign and who waits for it.
struct Job {
    message: Vec<u8>,
    answer: oneshot::Sender<Result<Vec<u8>, String>>,
}

/// One token, as the adapter sees it.
pub(super) struct Link {
    pub(super) label: Arc<str>,
    jobs: mpsc::Sender<Job>,
    state: watch::Receiver<State>,
    facts: watch::Receiver<Option<Opened>>,
    spoilt: mpsc::Sender<String>,
}

impl Link {
    /// Starts looking after the token called `label`. `expected` is the key that all tokens must hold; the first to prove one sets
    /// it.
    pub(super) fn start(
        label: &str,
        options: &Arc<Options>,
        notes: &PinNotes,
        expected: &Arc<OnceLock<PublicKey>>,
        runtime: &tokio::runtime::Handle,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let (state, seen) = watch::channel(State::Starting);
        let (facts, told) = watch::channel(None);
        let (spoilt, spoils) = mpsc::channel(1);
        let label: Arc<str> = label.into();
        let keeper = Keeping {
            label: Arc::clone(&label),
            options: Arc::clone(options),
            notes: notes.clone(),
            expected: Arc::clone(expected),
            jobs: waiting,
            state,
            facts,
            spoils,
        };
        (Self { label, jobs, state: seen, facts: told, spoilt }, runtime.spawn(keeper.run()))
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn is_up(&self) -> bool {
        *self.state.borrow() == State::Up
    }

    /// What the token said of itself when it was last opened.
    pub(super) fn facts(&self) -> Option<Opened> {
        self.facts.borrow().clone()
    }

    /// Waits until it is known how the token is.
    pub(super) async fn settled(&self) -> State {
        let mut state = self.state.clone();
        match state.wait_for(|state| *state != State::Starting).await {
            Ok(state) => state.clone(),
            Err(_) => State::Aside("ended".into()),
        }
    }

    /// Has the token sign; gives up after `patience`, which covers waiting for a session as well.
    pub(super) async fn sign(&self, message: &[u8], patience: Duration) -> Result<Vec<u8>, String> {
        let (answer, signature) = oneshot::channel();
        let asked = async {
            let ended = || "no longer looked after".to_owned();
            self.jobs.send(Job { message: message.to_vec(), answer }).await.map_err(|_| ended())?;
            signature.await.map_err(|_| ended())?
        };
        timeout(patience, asked).await.unwrap_or_else(|_| Err(format!("all its sessions busy for {patience:?}")))
    }

    /// The token gave a signature that does not verify: put it aside.
    pub(super) fn spoilt(&self, why: String) {
        // One report is enough.
        let _ = self.spoilt.try_send(why);
    }
}

/// The task that looks after a token.
struct Keeping {
    label: Arc<str>,
    options: Arc<Options>,
    notes: PinNotes,
    expected: Arc<OnceLock<PublicKey>>,
    jobs: mpsc::Receiver<Job>,
    state: watch::Sender<State>,
    facts: watch::Sender<Option<Opened>>,
    spoils: mpsc::Receiver<String>,
}

impl Keeping {
    /// Until the adapter is gone.
    async fn run(mut self) {
        let mut pause = RETRY_BASE;
        loop {
            let ended = match self.open().await {
                Ok(mut keeper) => {
                    self.become_state(State::Up);
                    let since = Instant::now();
                    let Err(why) = self.serve(&mut keeper).await else { return };
                    drop(keeper);
                    if since.elapsed() > STEADY {
                        pause = RETRY_BASE;
                    }
                    State::Aside(why)
                }
                Err(state) => state,
            };
            self.become_state(ended);
            if !self.wait(pause).await {
                return;
            }
            pause = (pause * 2).min(RETRY_CAP);
        }
    }

    fn become_state(&self, new: State) {
        let mut news = false;
        self.state.send_if_modified(|state| {
            news = *state != new;
            *state = new.clone();
            news
        });
        metrics::token_up(&self.label, new == State::Up);
        if !news {
            return;
        }
        let token = &*self.label;
        match new {
            State::Starting => {}
            State::Up => tracing::info!(token, "the token signs"),
            State::Aside(why) => tracing::warn!(token, why, "the token is put aside and tried again in the background"),
            State::PinRefused(why) => {
                tracing::error!(token, why, "the token refuses the PIN, which is not tried again")
            }
            State::OtherKey(why) => tracing::error!(token, why, "the token holds another key and is not used"),
        }
    }

    /// Pauses; whoever asks meanwhile is told that the token is aside. False if the adapter is gone.
    async fn wait(&mut self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                job = self.jobs.recv() => match job {
                    // Someone who asked just before the token failed; nobody does who has seen its state.
                    Some(job) => drop(job.answer.send(Err("put aside".into()))),
                    None => return false,
                },
                () = sleep_until(end) => return true,
            }
        }
    }

    /// Starts a keeper and has it prove that it holds the key.
    async fn open(&mut self) -> Result<Keeper, State> {
        let aside = |error: &dyn std::fmt::Display| State::Aside(error.to_string());
        let turn = match self.options.profile.login {
            Login::Pin => Some(self.notes.turn(&self.label).await),
            Login::AtDevice | Login::None => None,
        };
        let deadline = Instant::now() + OPEN_DEADLINE;
        let pin = match turn {
            Some(_) => Some(Pin(self.pin().await?)),
            None => None,
        };
        let mut keeper =
            Keeper::start(&self.options, &self.label).map_err(|error| aside(&format!("its keeper: {error}")))?;
        let open = Open {
            module: self.options.module.to_string_lossy().into_owned(),
            token: self.label.to_string(),
            key: self.options.key.clone(),
            sessions: self.options.sessions,
            profile: self.options.profile.clone(),
            pin,
        };
        let opened = keeper.ask_and_hear(&Ask::Open(Box::new(open)), deadline).await;
        let opened = match opened.map_err(|error| aside(&error))? {
            Tell::Opened(opened) => *opened,
            Tell::Refused(Refusal::Absent(why)) => return Err(State::Aside(why)),
            Tell::Refused(Refusal::PinNotTried(why)) => return Err(State::PinRefused(why)),
            Tell::Refused(Refusal::Pin(why)) => {
                let (notes, label) = (self.notes.clone(), Arc::clone(&self.label));
                // It writes a file. Should the runtime end meanwhile, the token's own count of wrong tries remains.
                let _ = tokio::task::spawn_blocking(move || notes.refused(&label)).await;
                return Err(State::PinRefused(why));
            }
            _ => return Err(aside(&"its keeper answered out of turn")),
        };
        // It is logged in: the PIN is right.
        drop(turn);
        let public_key = PublicKey::from_spki(&opened.public_key.0).map_err(|error| aside(&error))?;

        // What the token says about its key proves nothing: a signature does.
        let mut challenge = PROBE.to_vec();
        let mut nonce = [0; 32];
        crate::keys::random(&mut nonce).map_err(|error| aside(&error))?;
        challenge.extend(nonce);
        let ask = Ask::Sign { id: 0, message: Bytes(challenge.clone()) };
        match keeper.ask_and_hear(&ask, deadline).await.map_err(|error| aside(&error))? {
            Tell::Signed { signature, .. } => public_key.verify(&challenge, &signature.0).map_err(|error| {
                aside(&format!("its {} does not belong to its private key: {error}", opened.facts.public_from))
            })?,
            Tell::Failed { reason, .. } => return Err(State::Aside(reason)),
            _ => return Err(aside(&"its keeper answered out of turn")),
        }
        let expected = self.expected.get_or_init(|| public_key.clone());
        if *expected != public_key {
            return Err(State::OtherKey(format!("{public_key:?}, where the first token holds {expected:?}")));
        }
        keeper.sessions = opened.sessions;
        self.facts.send_replace(Some(opened));
        Ok(keeper)
    }

    async fn pin(&self) -> Result<zeroize::Zeroizing<String>, State> {
        let (notes, label) = (self.notes.clone(), Arc::clone(&self.label));
        let fetched = tokio::task::spawn_blocking(move || notes.pin_for(&label)).await;
        match fetched.map_err(|error| State::Aside(error.to_string()))? {
            Ok(pin) => Ok(pin),
            Err(NoPin::Refused(why)) => Err(State::PinRefused(why)),
            Err(missing @ NoPin::Missing(_)) => Err(State::Aside(missing.to_string())),
        }
    }

    /// Hands messages over until the token fails. `Ok` once the adapter is gone.
    async fn serve(&mut self, keeper: &mut Keeper) -> Result<(), String> {
        let deadline = self.options.deadline;
        let mut flying: BTreeMap<u64, Flying> = BTreeMap::new();
        let mut next_id = 1;
        let mut last_signature = Instant::now();
        loop {
            // Ids rise and every deadline is as long: the first to start is the first to be late.
            let late = flying.values().next().map(|first| first.since + deadline);
            let probe_at = last_signature + PROBE_EVERY;
            let free = flying.len() < keeper.sessions;
            let answer = tokio::select! {
                told = keeper.hear() => {
                    self.told(told.map_err(|error| format!("its keeper: {error}"))?, &mut flying)?;
                    last_signature = Instant::now();
                    continue;
                }
                Some(why) = self.spoils.recv() => return Err(why),
                () = sleep_until(late.unwrap_or(probe_at)), if late.is_some() => {
                    return Err(format!("no signature within {deadline:?}"));
                }
                () = sleep_until(probe_at), if flying.is_empty() => None,
                job = self.jobs.recv(), if free => match job {
                    // The asker is gone; then nobody needs the signature.
                    Some(job) if job.answer.is_closed() => continue,
                    Some(job) => Some(job),
                    None => return Ok(()),
                },
            };
            let (message, answer) = match answer {
                Some(Job { message, answer }) => (message, Some(answer)),
                None => (PROBE.to_vec(), None),
            };
            let ask = Ask::Sign { id: next_id, message: Bytes(message) };
            let now = Instant::now();
            flying.insert(next_id, Flying { since: now, answer });
            next_id += 1;
            keeper.ask(&ask, now + deadline).await.map_err(|error| format!("its keeper: {error}"))?;
        }
    }

    fn told(&self, told: Tell, flying: &mut BTreeMap<u64, Flying>) -> Result<(), String> {
        let (id, result, failed) = match told {
            Tell::Signed { id, signature } => (id, Ok(signature.0), None),
            Tell::Failed { id, reason, harmless: true } => (id, Err(reason), None),
            Tell::Failed { id, reason, harmless: false } => (id, Err(reason.clone()), Some(reason)),
            Tell::Opened(_) | Tell::Refused(_) => return Err("its keeper answered out of turn".into()),
        };
        if let Some(Flying { since, answer }) = flying.remove(&id) {
            if result.is_ok() {
                // Said again and again: when the token was opened, nobody collected figures yet.
                metrics::token_up(&self.label, true);
                metrics::token_signed(&self.label, since.elapsed());
            }
            // The asker may be gone.
            answer.map(|answer| answer.send(result));
        }
        failed.map_or(Ok(()), Err)
    }
}

/// A message with the keeper; without an asker it is a probe.
struct Flying {
    since: Instant,
    answer: Option<oneshot::Sender<Result<Vec<u8>, String>>>,
}

/// A keeper process and the socket to it. Dropped, it ends.
struct Keeper {
    child: Option<Child>,
    socket: UnixStream,
    received: Vec<u8>,
    sessions: usize,
}

/// The hidden verb that makes this program a keeper.
const KEEPER_VERB: &str = "token-keeper";

impl Keeper {
    fn start(options: &Options, label: &str) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        // What a vendor's module prints belongs to the log; our own standard output may be read by a program.
        let log: OwnedFd = io::stderr().as_fd().try_clone_to_owned()?;
        let mut command = Command::new(&options.program);
        // The label is for people who look at the list of processes.
        command.args([KEEPER_VERB, "--", label]).envs(options.environment.iter().cloned());
        command.stdin(OwnedFd::from(theirs)).stdout(log).stderr(Stdio::inherit());
        // Ctrl-C at a terminal is for the worker, which still signs while it drains.
        let child = command.process_group(0).spawn()?;
        Ok(Self { child: Some(child), socket, received: Vec::new(), sessions: 1 })
    }

    async fn ask(&mut self, ask: &Ask, deadline: Instant) -> io::Result<()> {
        let frame = frames::encode(ask)?;
        let written = tokio::time::timeout_at(deadline, self.socket.write_all(&frame)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The next frame; may be dropped at any moment without losing one.
    async fn hear(&mut self) -> io::Result<Tell> {
        loop {
            if let Some(told) = frames::take(&mut self.received)? {
                return Ok(told);
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended; the module may have crashed"));
            }
        }
    }

    async fn ask_and_hear(&mut self, ask: &Ask, deadline: Instant) -> Result<Tell, String> {
        let answered = async {
            self.ask(ask, deadline).await?;
            self.hear().await
        };
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(told) => told.map_err(|error| format!("its keeper: {error}")),
            Err(_) => Err(format!("not open within {OPEN_DEADLINE:?}")),
        }
    }
}

impl Drop for Keeper {
    /// The keeper ends by itself once the socket is closed; one that cannot is killed. Somebody has to wait for it, and that
    /// blocks.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let reaper = std::thread::Builder::new().name("token-reaper".into());
        // Without a thread, the system reaps it when the worker ends.
        let _ = reaper.spawn(move || {
            let deadline = std::time::Instant::now() + KEEPER_END;
            while let Ok(None) = child.try_wait() {
                if std::time::Instant::now() > deadline {
                    let _ = child.kill();
                    let _ = child.wait();
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }
}
