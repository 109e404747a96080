//! A token's keeper: a process of its own, of this same program, that loads the vendor's module and signs for the worker.
//!
//! Why a process. What brings a lost token back is `C_Finalize` and `C_Initialize`, which end every session of every token in the
//! process; what ends a call that never returns is nothing but the end of its process; and a vendor's module that crashes must
//! not take the notary with it. So each token has a keeper; the worker ends it and starts another whenever the token fails.
//!
//! Inside: one named thread for each session, fed by a bounded channel. The keeper ends when the worker's end of the socket is
//! gone, and only then: signals to end are the worker's business, which may still need signatures while it drains.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use cryptoki::session::Session;
use tokio::signal::unix::{SignalKind, signal};

use super::frames::{self, Ask, Bytes, Facts, Open, Opened, Refusal, Tell};
use super::profile::Profile;
use super::token::{self, Key, Module};
use crate::domain::SignatureScheme;

/// How long an orderly end may take, before the process ends without. Sessions of an ended process are closed by the system, or
/// by the device after a while.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Serves one token until the worker is gone. Standard input is the worker's socket, both ways.
///
/// # Errors
/// What went wrong, for the log. A token that cannot be opened is no error: the worker is told.
pub fn serve() -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(|error| error.to_string())?;
    let guard = runtime.enter();
    // Holding these is enough: they take the place of the signals' deadly defaults.
    let held = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    drop(guard);

    let socket =
        std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).map_err(|error| error.to_string())?;
    let mut from_worker = socket.try_clone().map_err(|error| error.to_string())?;
    let to_worker = Arc::new(Mutex::new(socket));
    let open = match frames::read(&mut from_worker) {
        Ok(Some(Ask::Open(open))) => *open,
        Ok(None) => return Ok(()),
        Ok(Some(Ask::Sign { .. })) => return Err("asked to sign before a token was open".into()),
        Err(error) => return Err(format!("not started by a worker: {error}")),
    };
    match open_token(open) {
        Ok(opened) => serve_open(opened, &mut from_worker, &to_worker)?,
        // If the worker is gone, nobody needs to know.
        Err(refusal) => drop(tell(&to_worker, &Tell::Refused(refusal))),
    }
    drop(held);
    Ok(())
}

/// A token with its sessions.
struct OpenToken {
    module: Module,
    key: Key,
    sessions: Vec<Session>,
    facts: Facts,
    profile: Profile,
    place: frames::KeyPlace,
}

fn open_token(mut open: Open) -> Result<OpenToken, Refusal> {
    let pin = open.pin.take();
    let module = Module::load(Path::new(&open.module))?;
    let (slot, info) = module.token(&open.token)?;
    let session = module.open_session(slot, false)?;
    token::log_in(&session, &info, &open.profile, pin.as_ref())?;
    drop(pin);
    let key = token::find_key(&session, &open.key)?;
    let mut facts = token::token_facts(&module, &info);
    facts.public_from = key.public_from.into();
    facts.attributes = token::uses(&session, key.private);

    let by_token = facts.sessions_max.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let by_profile = if open.profile.sessions_max == 0 { usize::MAX } else { open.profile.sessions_max };
    let wanted = open.sessions.min(by_token).min(by_profile).max(1);
    let mut sessions = vec![session];
    while sessions.len() < wanted {
        match module.open_session(slot, false) {
            Ok(session) => sessions.push(session),
            // Others use the token, too: work with what there is.
            Err(_) => break,
        }
    }
    Ok(OpenToken { module, key, sessions, facts, profile: open.profile, place: open.key })
}

struct Job {
    id: u64,
    message: Vec<u8>,
}

fn serve_open(
    token: OpenToken,
    from_worker: &mut UnixStream,
    to_worker: &Arc<Mutex<UnixStream>>,
) -> Result<(), String> {
    let OpenToken { module, key, sessions, facts, profile, place } = token;
    let (jobs, waiting) = mpsc::sync_channel::<Job>(sessions.len());
    let (waiting, profile) = (Arc::new(Mutex::new(waiting)), Arc::new(profile));
    let scheme = key.public_key.scheme();
    let opened = Opened { public_key: Bytes(key.public_key.as_spki().to_vec()), sessions: sessions.len(), facts };
    let mut threads = Vec::new();
    for (n, session) in sessions.into_iter().enumerate() {
        let signing = Signing {
            session,
            place: place.clone(),
            scheme,
            profile: Arc::clone(&profile),
            waiting: Arc::clone(&waiting),
            to_worker: Arc::clone(to_worker),
        };
        let thread = thread::Builder::new().name(format!("token-{n}")).spawn(move || signing.run());
        threads.push(thread.map_err(|error| format!("no thread: {error}"))?);
    }
    if tell(to_worker, &Tell::Opened(Box::new(opened))).is_ok() {
        while let Ok(Some(Ask::Sign { id, message: Bytes(message) })) = frames::read(from_worker) {
            if jobs.try_send(Job { id, message }).is_err() {
                let failed = Tell::Failed { id, reason: "more at once than there are sessions".into(), harmless: true };
                if tell(to_worker, &failed).is_err() {
                    break;
                }
            }
        }
    }
    // The worker is gone. An orderly end frees the device's sessions at once, but a call that hangs must not hold the process.
    let _ = thread::Builder::new().name("token-end".into()).spawn(|| {
        thread::sleep(END_PATIENCE);
        std::process::abort();
    });
    drop(jobs);
    for thread in threads {
        let _ = thread.join();
    }
    module.finish();
    Ok(())
}

/// One session and its thread.
struct Signing {
    session: Session,
    place: frames::KeyPlace,
    scheme: SignatureScheme,
    profile: Arc<Profile>,
    waiting: Arc<Mutex<mpsc::Receiver<Job>>>,
    to_worker: Arc<Mutex<UnixStream>>,
}

impl Signing {
    fn run(self) {
        // Handles of token objects hold for all sessions by the standard; each session looks for itself nevertheless, because not
        // every module keeps to that.
        let private = token::find_private(&self.session, &self.place);
        loop {
            // Held while this thread waits: the others wait for the lock instead, which comes to the same.
            let job = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { id, message }) = job else { return };
            let told = match &private {
                Err(refusal) => Tell::Failed { id, reason: refusal.to_string(), harmless: false },
                Ok(private) => match token::sign(&self.session, *private, self.scheme, &self.profile, &message) {
                    Ok(signature) => Tell::Signed { id, signature: Bytes(signature) },
                    Err(failure) => Tell::Failed { id, reason: failure.reason, harmless: failure.harmless },
                },
            };
            if tell(&self.to_worker, &told).is_err() {
                return;
            }
        }
    }
}

fn tell(to_worker: &Mutex<UnixStream>, frame: &Tell) -> std::io::Result<()> {
    frames::write(&mut *to_worker.lock().unwrap_or_else(PoisonError::into_inner), frame)
}
