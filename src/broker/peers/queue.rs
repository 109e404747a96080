//! The request queue made of two halves: an inbox, from which deliveries come, and the bridges, on which answers go out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Bridges;
use crate::broker::pause::Pause;
use crate::domain::X500Name;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply, RequestQueue, Settlement};
use crate::ports::{BoxFuture, NetworkMap};

/// Requests of peers, and answers to them. See the module.
pub struct PeerQueue {
    inbox: Arc<dyn RequestQueue>,
    bridges: Arc<Bridges>,
    network_map: Arc<dyn NetworkMap>,
    pause: Pause,
    runtime: Handle,
    state: Mutex<State>,
    /// Requests are given back without a pause: they are for others now.
    hurry: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// Who sent what is not settled.
    callers: HashMap<DeliveryId, X500Name>,
    /// Callers whose requests had to be given back, until one of theirs is done.
    setbacks: HashMap<X500Name, Setback>,
}

/// What is given back to one caller goes back together.
#[derive(Clone, Copy)]
struct Setback {
    /// How many times before.
    earlier: u32,
    /// When.
    at: Instant,
}

impl PeerQueue {
    /// Deliveries of `inbox`, answered by `bridges`. Pauses are timed on `runtime`.
    pub fn new(
        inbox: Arc<dyn RequestQueue>,
        bridges: Arc<Bridges>,
        network_map: Arc<dyn NetworkMap>,
        runtime: &Handle,
    ) -> Self {
        let limits = bridges.limits();
        let pause = Pause { base: limits.release_base, cap: limits.release_cap };
        let (state, hurry) = (Mutex::default(), watch::Sender::new(false));
        Self { inbox, bridges, network_map, pause, runtime: runtime.clone(), state, hurry }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a delivery back after a pause, during which it takes no place in the worker; its sender counts it as under way, which
    /// bounds how many there can be.
    fn release_later(&self, delivery: DeliveryId, at: Instant) {
        let (inbox, mut hurry) = (Arc::clone(&self.inbox), self.hurry.subscribe());
        self.runtime.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                // An end of the queue is a reason to hurry as well.
                _ = hurry.wait_for(|hurry| *hurry) => {}
            }
            if let Err(error) = inbox.settle(delivery, Settlement::Release).await {
                // The sender delivers again by itself.
                tracing::debug!(delivery = delivery.0, %error, "not given back");
            }
        });
    }
}

impl State {
    /// When to give back what this caller sent.
    fn set_back(&mut self, caller: &X500Name, pause: Pause, now: Instant) -> Instant {
        let earlier = match self.setbacks.get(caller) {
            // Those that failed together go back together.
            Some(setback) if now < setback.at => return setback.at,
            Some(setback) => setback.earlier.saturating_add(1),
            None => 0,
        };
        let at = now + pause.after(earlier);
        self.setbacks.insert(caller.clone(), Setback { earlier, at });
        at
    }
}

impl RequestQueue for PeerQueue {
    fn receive(&self) -> BoxFuture<'_, Result<Delivery, QueueError>> {
        Box::pin(async move {
            let delivery = self.inbox.receive().await?;
            self.lock().callers.insert(delivery.id, delivery.caller.clone());
            Ok(delivery)
        })
    }

    fn reply(&self, to: DeliveryId, replies: Vec<Reply>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let caller = self.lock().callers.get(&to).cloned();
            let caller = caller.ok_or_else(|| QueueError::Unsafe("the delivery is not held".into()))?;
            self.bridges.reply(&caller, replies).await
        })
    }

    fn settle(&self, delivery: DeliveryId, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let now = Instant::now();
            let release_at = {
                let mut state = self.lock();
                let Some(caller) = state.callers.remove(&delivery) else {
                    return Err(QueueError::Unsafe("the delivery is not held".into()));
                };
                // A caller that has just left the network map may come back with the next one; its request is not lost on that.
                let unknown = || !self.network_map.view().parties.contains_key(&caller);
                let release = match &settlement {
                    Settlement::Accept => {
                        state.setbacks.remove(&caller);
                        false
                    }
                    Settlement::Release => true,
                    Settlement::Reject { .. } => unknown(),
                };
                release.then(|| state.set_back(&caller, self.pause, now))
            };
            match release_at {
                Some(at) => {
                    self.release_later(delivery, at);
                    Ok(())
                }
                None => self.inbox.settle(delivery, settlement).await,
            }
        })
    }

    fn serve(&self, serving: bool) {
        self.hurry.send_replace(!serving);
        self.inbox.serve(serving);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.hurry.send_replace(true);
            self.inbox.close().await;
            self.bridges.close().await;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_fails_together_goes_back_together_and_later_each_time() {
        let pause = Pause { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
        let caller = X500Name::new("Alice", "Madrid", "ES").expect("a name");
        let mut state = State::default();
        let mut now = Instant::now();
        let mut last = Duration::ZERO;
        for round in 0..10 {
            let at = state.set_back(&caller, pause, now);
            assert_eq!(state.set_back(&caller, pause, now), at, "in one go");
            let wait = at - now;
            // Each is cut by half at most, and the next whole one is twice as long.
            assert!(
                wait >= last / 2 && wait <= Duration::from_secs(30) && wait >= Duration::from_millis(500),
                "{round}"
            );
            last = wait;
            now = at;
        }
        assert!(last >= Duration::from_secs(15));
    }
}
