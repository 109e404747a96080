//! The network map that follows its documents: what changes on disk is in force a moment later, without a restart (FD1 to FD4).

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::library::Library;
use super::material::Node;
use crate::domain::network::NetworkView;
use crate::observe::network as figures;
use crate::ports::{Clock, NetworkMap};

/// The network at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What requests are judged by.
    pub view: Arc<NetworkView>,
    /// The participants' nodes, by name.
    pub nodes: Arc<[Node]>,
}

/// Looks through a [`Library`] again and again, on a thread of its own: verifying a network's documents takes seconds, which no
/// arbiter and no thread for I/O can spare. Dropping it ends the thread.
pub struct LiveNetworkMap {
    now: watch::Receiver<Snapshot>,
    wake: SyncSender<()>,
}

impl LiveNetworkMap {
    /// Starts with what `library` knows, and looks every `pause` from then on.
    ///
    /// # Errors
    /// If the operating system starts no thread.
    pub fn start(library: Library, clock: Arc<dyn Clock>, pause: Duration) -> io::Result<Self> {
        let (out, now) = watch::channel(snapshot(&library));
        // One place: who wakes it twice before it looks is content with one look.
        let (wake, woken) = sync_channel(1);
        let thread = thread::Builder::new().name("network-map".into());
        thread.spawn(move || follow(library, &*clock, pause, &woken, &out))?;
        Ok(Self { now, wake })
    }

    /// Tells of every change; the current value counts as seen.
    pub fn changes(&self) -> watch::Receiver<Snapshot> {
        self.now.clone()
    }

    /// Asks for a look now, and does not wait for it.
    pub fn look(&self) {
        // Full: a look is due already. Closed: the thread panicked, which ends a release build's process.
        let _ = self.wake.try_send(());
    }

    /// What makes this map look, without keeping it alive.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let wake = self.wake.clone();
        move || {
            let _ = wake.try_send(()); // As in `look`.
        }
    }
}

impl NetworkMap for LiveNetworkMap {
    fn view(&self) -> Arc<NetworkView> {
        Arc::clone(&self.now.borrow().view)
    }
}

fn snapshot(library: &Library) -> Snapshot {
    Snapshot { view: Arc::clone(library.view()), nodes: Arc::clone(library.nodes()) }
}

fn follow(
    mut library: Library,
    clock: &dyn Clock,
    pause: Duration,
    woken: &Receiver<()>,
    out: &watch::Sender<Snapshot>,
) {
    let mut told = BTreeSet::new();
    library.archive();
    tell(&library, clock, &mut told);
    loop {
        match woken.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if out.is_closed() {
            return; // A waker may outlive the map.
        }
        let before = Arc::clone(library.view());
        if library.look(clock.now()) {
            library.archive();
            log_change(&before, library.view());
            figures::changed();
            out.send_replace(snapshot(&library));
        }
        tell(&library, clock, &mut told);
    }
}

/// Figures, and a line for every problem that is new or over.
fn tell(library: &Library, clock: &dyn Clock, told: &mut BTreeSet<String>) {
    let view = library.view();
    let epoch = view.parameters.current().map_or(0, |parameters| parameters.epoch);
    figures::material(view.parties.len(), view.parameters.by_hash.len(), epoch);
    figures::checked("files", clock.now());
    let problems: BTreeSet<String> = library.problems().iter().map(ToString::to_string).collect();
    figures::problems(problems.len());
    for problem in problems.difference(told) {
        tracing::warn!(problem, "network material not used; an earlier good version of it stays in force");
    }
    for problem in told.difference(&problems) {
        tracing::info!(problem, "network material in order again");
    }
    *told = problems;
}

fn log_change(before: &NetworkView, after: &NetworkView) {
    let joined = after.parties.keys().filter(|name| !before.parties.contains_key(name)).count();
    let left = before.parties.keys().filter(|name| !after.parties.contains_key(name)).count();
    tracing::info!(parties = after.parties.len(), joined, left, "network map changed");
    let hash = |view: &NetworkView| view.parameters.current.map(|hash| hash.to_string()).unwrap_or_default();
    if before.parameters.current != after.parameters.current {
        let epoch = |view: &NetworkView| view.parameters.current().map_or(0, |parameters| parameters.epoch);
        let (was, is) = (epoch(before), epoch(after));
        tracing::info!(
            was,
            is,
            hash = hash(after),
            "other network parameters are in force; earlier ones stay accepted"
        );
        if is < was {
            tracing::warn!(
                was,
                is,
                "the epoch of the network parameters went back: is an old file in the wrong place?"
            );
        }
    }
}
