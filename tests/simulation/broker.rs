//! The model broker: delivers every message at least once, to any worker, in any order, and keeps it until it is settled.

use std::collections::BTreeMap;

use notary_worker::ports::request_queue::{Delivery, DeliveryId, Settlement};
use notary_worker::stages::flow;

use crate::clients::{Kind, encode};
use crate::history::{Event, Settled};
use crate::scenario::party_name;
use crate::worker::{ETA_MESSAGE_THRESHOLD, Task};
use crate::world::{Happening, World};

/// A copy of a message: duplicates are copies of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct CopyId(u64);

/// What is with whom.
#[derive(Default)]
pub(crate) struct Broker {
    /// The exchange of every copy that is not settled.
    open: BTreeMap<CopyId, u64>,
    next_copy: u64,
    /// Copies that were delivered, by worker and delivery.
    held: BTreeMap<(usize, DeliveryId), CopyId>,
    /// Copies for which no worker had a slot.
    waiting: Vec<CopyId>,
}

impl Broker {
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

impl World {
    /// A message goes to the broker, which may get it twice.
    pub(crate) fn send_message(&mut self, exchange: u64) {
        self.add_copy(exchange);
        if self.rng.chance(self.scenario.faults.duplicate) {
            self.coverage.hit("broker: duplicate");
            self.add_copy(exchange);
        }
    }

    fn add_copy(&mut self, exchange: u64) {
        let copy = CopyId(self.broker.next_copy);
        self.broker.next_copy += 1;
        self.broker.open.insert(copy, exchange);
        let delay_ms = self.network_delay();
        self.later(delay_ms, Happening::Dispatch { copy });
    }

    /// Hands a copy to some worker with a free slot, or lets it wait.
    pub(crate) fn dispatch(&mut self, copy: CopyId) {
        let Some(&exchange) = self.broker.open.get(&copy) else { return };
        let slots = self.scenario.flow_slots;
        let able =
            |worker: &usize| self.workers[*worker].alive && self.workers[*worker].process.deliveries.len() < slots;
        let workers: Vec<usize> = (0..self.workers.len()).filter(able).collect();
        if workers.is_empty() {
            return self.broker.waiting.push(copy);
        }
        let worker = self.rng.pick(&workers);
        let id = self.workers[worker].process.admit();
        self.broker.held.insert((worker, id), copy);
        let &crate::clients::Exchange { kind, tx, client, .. } = self.clients.exchange(exchange);
        self.trace.note(self.now_ms, "delivered", &[worker as u64, id.0, exchange], || {
            format!("w{worker} d{}: exchange {exchange}, tx {tx}", id.0)
        });
        let delivery = Delivery {
            id,
            caller: party_name(client),
            platform_version: Some(12),
            dedup_id: None,
            sent_at: None,
            prior_deliveries: 0,
            body: encode(kind, exchange, tx),
        };
        // Some are told to wait first; estimates are not the simulation's concern.
        let wait = self.rng.chance(200).then(|| ETA_MESSAGE_THRESHOLD * 2);
        self.step_later(worker, Task::Flow(flow::Event::Delivered(delivery, wait)));
    }

    /// A slot is free: one of the copies that wait longest, not always the first, gets another chance.
    pub(crate) fn slot_free(&mut self) {
        let candidates = self.broker.waiting.len().min(3);
        if candidates > 0 {
            let copy = self.broker.waiting.remove(self.rng.count(0, candidates - 1));
            let delay_ms = self.network_delay();
            self.later(delay_ms, Happening::Dispatch { copy });
        }
    }

    /// How many messages there are for each slot of all workers.
    pub(crate) fn backlog(&self) -> u64 {
        (self.broker.open.len() / (self.scenario.flow_slots * self.workers.len())) as u64
    }

    /// A worker's connection is gone: whatever it held waits for a worker again.
    pub(crate) fn lose_connection(&mut self, worker: usize) {
        self.trace.note(self.now_ms, "connection lost", &[worker as u64], || format!("w{worker}"));
        let lost: Vec<_> = self.broker.held.keys().filter(|(holder, _)| *holder == worker).copied().collect();
        for key in lost {
            let Some(copy) = self.broker.held.remove(&key) else { continue };
            self.coverage.hit("broker: redelivered after a lost connection");
            self.redeliver(copy);
        }
    }

    fn redeliver(&mut self, copy: CopyId) {
        let delay_ms = self.rng.between(1, 300);
        self.later(delay_ms, Happening::Dispatch { copy });
    }

    /// A settlement reaches the broker, or does not: then the message comes again.
    pub(crate) fn settle(&mut self, worker: usize, id: DeliveryId, settlement: Settlement) {
        let Some(copy) = self.broker.held.remove(&(worker, id)) else {
            self.coverage.hit("broker: late settlement ignored");
            return;
        };
        let Some(&exchange) = self.broker.open.get(&copy) else { return };
        if self.rng.chance(self.scenario.faults.settlement_lost) {
            self.coverage.hit("broker: settlement lost");
            return self.redeliver(copy);
        }
        let how = match settlement {
            Settlement::Accept => Settled::Accepted,
            Settlement::Release => Settled::Released,
            Settlement::Reject { reason } => Settled::Parked { reason },
        };
        match how {
            Settled::Released => {
                self.coverage.hit("broker: released");
                self.redeliver(copy);
            }
            Settled::Accepted | Settled::Parked { .. } => {
                self.broker.open.remove(&copy);
            }
        }
        if self.clients.exchange(exchange).kind == Kind::Garbage && how != Settled::Released {
            self.coverage.hit("broker: parked");
        }
        self.record(Event::Settled { exchange, how });
    }
}
