//! A model worker: the three real machines, and around them what the actors do: slots, tickets, and one task after another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use notary_worker::domain::{CheckedRequest, CommittedTx, Timestamp, TxId};
use notary_worker::ports::request_queue::{Delivery, DeliveryId, Settlement};
use notary_worker::stages::Ticket;
use notary_worker::stages::flow::{self, Flow};
use notary_worker::stages::session::Session;
use notary_worker::stages::signing::{self, Signing};
use notary_worker::stages::uniqueness::{self, Uniqueness};

use crate::clients::Part;
use crate::scenario::{Scenario, WALL_START_MS};

/// What is told to wait longer hears of it before it joins the queue for the store.
pub(crate) const ETA_MESSAGE_THRESHOLD: Duration = Duration::from_secs(30);

/// One step of a worker: what it does without being interrupted. It can die before and after each.
pub(crate) enum Task {
    Flow(flow::Event),
    Uniqueness(uniqueness::Event),
    Signing(signing::Event),
    /// Read and check a message.
    Inspect(Delivery),
    /// Wait for a slot of the uniqueness stage, and enter it.
    AskVerdict(DeliveryId, CheckedRequest),
    /// The same for the signing stage.
    AskSignature(DeliveryId, CommittedTx),
    /// Send a batch to the store.
    SendCommit(uniqueness::BatchId, Vec<CheckedRequest>),
    /// Send a batch to the key.
    SendSign(signing::BatchId, Vec<CommittedTx>),
    /// Send the next part of an answer.
    SendReply(Replying),
    /// End a delivery.
    Settle(DeliveryId, Settlement),
}

/// An answer on its way.
pub(crate) struct Replying {
    pub(crate) delivery: DeliveryId,
    pub(crate) exchange: u64,
    pub(crate) parts: Vec<Part>,
    pub(crate) next: usize,
    pub(crate) then: Then,
}

/// What follows a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The flow machine is told.
    Report,
    /// The delivery is accepted without asking the machine. A planted bug.
    Accept,
    /// Nothing. A planted bug.
    Nothing,
}

/// A worker in its present life.
pub(crate) struct Worker {
    /// Counts its lives. What belongs to an earlier one is lost.
    pub(crate) life: u64,
    pub(crate) alive: bool,
    pub(crate) frozen_until_ms: u64,
    /// How far its wall clock is off. Outlives the process.
    pub(crate) clock_offset_ms: i64,
    pub(crate) process: Process,
}

/// All that dies with a worker.
pub(crate) struct Process {
    pub(crate) flow: Flow,
    pub(crate) uniqueness: Uniqueness,
    pub(crate) signing: Signing,
    /// Deliveries that hold a slot.
    pub(crate) deliveries: BTreeSet<DeliveryId>,
    next_delivery: u64,
    /// Batches with the store, with their transactions.
    pub(crate) commits_in_flight: BTreeMap<uniqueness::BatchId, Vec<TxId>>,
    pub(crate) uniqueness_door: Door<CheckedRequest>,
    pub(crate) signing_door: Door<CommittedTx>,
    /// The session of each open delivery: the planted bugs need it, the worker does not.
    pub(crate) sessions: BTreeMap<DeliveryId, Session>,
}

impl Worker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self { life: 0, alive: true, frozen_until_ms: 0, clock_offset_ms: 0, process: Process::new(scenario) }
    }

    /// What its wall clock says.
    pub(crate) fn clock(&self, now_ms: u64, tick_ms: u64) -> Timestamp {
        let elapsed_ms = now_ms as i64 + self.clock_offset_ms;
        Timestamp::from_millis(WALL_START_MS + elapsed_ms - elapsed_ms.rem_euclid(tick_ms as i64))
    }
}

impl Process {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            flow: Flow::new(ETA_MESSAGE_THRESHOLD),
            uniqueness: Uniqueness::new(scenario.uniqueness),
            signing: Signing::new(scenario.signing),
            deliveries: BTreeSet::new(),
            next_delivery: 0,
            commits_in_flight: BTreeMap::new(),
            uniqueness_door: Door::new(scenario.uniqueness_slots),
            signing_door: Door::new(scenario.signing_slots),
            sessions: BTreeMap::new(),
        }
    }

    /// Takes a slot for a new delivery.
    pub(crate) fn admit(&mut self) -> DeliveryId {
        self.next_delivery += 1;
        let id = DeliveryId(self.next_delivery);
        self.deliveries.insert(id);
        id
    }

    /// Whether nothing at all is left in it.
    pub(crate) fn is_idle(&self) -> bool {
        self.flow.open() == 0
            && self.uniqueness.waiting() == 0
            && self.signing.waiting() == 0
            && self.deliveries.is_empty()
            && self.uniqueness_door.is_idle()
            && self.signing_door.is_idle()
    }
}

/// A stage's slots: as `actors::mailbox`, first come, first served.
pub(crate) struct Door<T> {
    free: usize,
    outside: VecDeque<(DeliveryId, T)>,
    inside: BTreeMap<Ticket, DeliveryId>,
    next_ticket: u64,
}

impl<T> Door<T> {
    fn new(slots: usize) -> Self {
        Self { free: slots, outside: VecDeque::new(), inside: BTreeMap::new(), next_ticket: 0 }
    }

    pub(crate) fn queue(&mut self, id: DeliveryId, work: T) {
        self.outside.push_back((id, work));
    }

    /// Lets the next one in, if there is a slot and someone waits for it.
    pub(crate) fn admit(&mut self) -> Option<(Ticket, T)> {
        let free = self.free.checked_sub(1)?;
        let (id, work) = self.outside.pop_front()?;
        let ticket = Ticket(self.next_ticket);
        self.free = free;
        self.next_ticket += 1;
        self.inside.insert(ticket, id);
        Some((ticket, work))
    }

    /// Frees the slot of a ticket that got its answer.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<DeliveryId> {
        let id = self.inside.remove(&ticket)?;
        self.free += 1;
        Some(id)
    }

    fn is_idle(&self) -> bool {
        self.outside.is_empty() && self.inside.is_empty()
    }
}
