//! Whether the worker can serve. Its parts are probed every second; readiness turns false within four seconds
//! of losing the store, the broker or the key, and says why (promise P5, row MO2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::metrics;
use crate::ports::Probe;

/// Between two looks at a part.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// How long a look may take. With the pause it stays below the 5 s that readiness has.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// The part without which nothing arrives; a worker without it need not leave the queue, it is out of it.
const BROKER: &str = "broker";

/// What the worker can do at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readiness {
    /// Every part works and the worker is not stopping: it can be given requests.
    pub ready: bool,
    /// Every part behind the broker works: it may take requests from the broker.
    pub may_serve: bool,
}

/// The state of all parts; ends its probes when dropped.
pub struct Health {
    parts: Vec<Arc<Part>>,
    readiness: Arc<watch::Sender<Readiness>>,
    draining: watch::Sender<bool>,
    tasks: Vec<AbortHandle>,
}

struct Part {
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    /// Why it does not work.
    failing: Option<String>,
    since: Instant,
}

impl Health {
    /// Probes the parts from now on; each counts as working until it is seen not to, since a worker starts only with all of
    /// them.
    pub fn watch(probes: Vec<Arc<dyn Probe>>, runtime: &Handle) -> Self {
        Self::watch_every(PROBE_PAUSE, PROBE_PATIENCE, probes, runtime)
    }

    fn watch_every(pause: Duration, patience: Duration, probes: Vec<Arc<dyn Probe>>, runtime: &Handle) -> Self {
        let state = || Mutex::new(State { failing: None, since: Instant::now() });
        let parts: Vec<_> = probes.iter().map(|probe| Arc::new(Part { name: probe.part(), state: state() })).collect();
        let readiness = Arc::new(watch::Sender::new(Readiness { ready: true, may_serve: true }));
        let draining = watch::Sender::new(false);
        let tasks = probes.into_iter().zip(parts.clone()).map(|(probe, part)| {
            metrics::part_works(part.name, true);
            let (all, readiness, draining) = (parts.clone(), Arc::clone(&readiness), draining.subscribe());
            let task = async move {
                loop {
                    tokio::time::sleep(pause).await;
                    let looked = tokio::time::timeout(patience, probe.probe()).await;
                    part.found(looked.unwrap_or_else(|_| Err(format!("no sign of life within {patience:?}"))));
                    publish(&all, &readiness, *draining.borrow());
                }
            };
            runtime.spawn(task).abort_handle()
        });
        let tasks = tasks.collect();
        Self { parts, readiness, draining, tasks }
    }

    /// What the worker can do now.
    pub fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// From now on the worker is stopping, and so not ready.
    pub fn drain(&self) {
        self.draining.send_replace(true);
        publish(&self.parts, &self.readiness, true);
    }

    /// The state of all parts, for `/ready`.
    pub fn report(&self) -> Value {
        let parts = self.parts.iter().map(|part| {
            let state = part.lock();
            let seconds = state.since.elapsed().as_secs();
            json!({ "part": part.name, "works": state.failing.is_none(), "why": state.failing, "sinceSeconds": seconds })
        });
        let parts: Vec<_> = parts.collect();
        json!({ "ready": self.readiness().ready, "draining": *self.draining.borrow(), "parts": parts })
    }

    /// In one line: what does not work, or that all does.
    pub fn summary(&self) -> String {
        let failing = self.parts.iter().filter_map(|part| {
            let why = part.lock().failing.clone()?;
            Some(format!("{}: {why}", part.name))
        });
        let failing: Vec<_> = failing.collect();
        match (*self.draining.borrow(), failing.is_empty()) {
            (true, _) => "draining".to_owned(),
            (false, true) => "ready".to_owned(),
            (false, false) => format!("not ready: {}", failing.join("; ")),
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, looked: Result<(), String>) {
        let mut state = self.lock();
        let failing = looked.err();
        if failing.is_some() != state.failing.is_some() {
            state.since = Instant::now();
            metrics::part_works(self.name, failing.is_none());
            match &failing {
                Some(why) => tracing::error!(part = self.name, why, "lost"),
                None => tracing::info!(part = self.name, "works again"),
            }
        }
        state.failing = failing;
    }
}

fn publish(parts: &[Arc<Part>], readiness: &watch::Sender<Readiness>, draining: bool) {
    let works = |part: &Arc<Part>| part.lock().failing.is_none();
    let ready = !draining && parts.iter().all(works);
    let may_serve = parts.iter().filter(|part| part.name != BROKER).all(works);
    let now = Readiness { ready, may_serve };
    readiness.send_if_modified(|before| std::mem::replace(before, now) != now);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::ports::BoxFuture;

    const WORKS: u8 = 0;
    const FAILS: u8 = 1;
    const HANGS: u8 = 2;

    struct Fake(&'static str, AtomicU8);

    impl Probe for Fake {
        fn part(&self) -> &'static str {
            self.0
        }

        fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
            Box::pin(async {
                match self.1.load(Ordering::SeqCst) {
                    WORKS => Ok(()),
                    FAILS => Err("gone".into()),
                    _ => std::future::pending().await,
                }
            })
        }
    }

    async fn becomes(health: &Health, expected: Readiness) {
        let changed = async { health.changes().wait_for(|now| *now == expected).await.is_ok() };
        assert!(tokio::time::timeout(Duration::from_secs(60), changed).await.expect("it changes"));
    }

    #[test]
    fn readiness_has_five_seconds_to_turn_false() {
        assert!(PROBE_PAUSE + PROBE_PATIENCE < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_part_that_fails_or_hangs_is_named_and_heals() {
        let store = Arc::new(Fake("store", AtomicU8::new(WORKS)));
        let broker = Arc::new(Fake("broker", AtomicU8::new(WORKS)));
        let (pause, patience) = (Duration::from_millis(5), Duration::from_millis(50));
        let probes: Vec<Arc<dyn Probe>> = vec![store.clone(), broker.clone()];
        let health = Health::watch_every(pause, patience, probes, &Handle::current());
        let all = Readiness { ready: true, may_serve: true };
        assert_eq!(health.readiness(), all);

        for (fault, why) in [(FAILS, "gone"), (HANGS, "no sign of life")] {
            store.1.store(fault, Ordering::SeqCst);
            becomes(&health, Readiness { ready: false, may_serve: false }).await;
            assert!(health.summary().contains(why) && health.summary().contains("store"), "{}", health.summary());
            assert_eq!(health.report()["parts"][0]["works"], false);
            store.1.store(WORKS, Ordering::SeqCst);
            becomes(&health, all).await;
        }
        broker.1.store(FAILS, Ordering::SeqCst);
        // What it has taken it may finish.
        becomes(&health, Readiness { ready: false, may_serve: true }).await;
        health.drain();
        assert_eq!((health.readiness().ready, health.summary().as_str()), (false, "draining"));
    }
}
