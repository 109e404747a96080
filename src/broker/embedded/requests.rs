//! A link on which a peer sends requests: credit, assembly of deliveries from frames, and what is not disposed of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::amqp::performative::Transfer;
use super::credentials::Caller;
use super::hub::{Hub, LinkId};
use super::limits::Limits;
use super::refusal::{Fault, Refusal};
use crate::ports::request_queue::DeliveryId;

/// The receiving end of a link.
#[derive(Debug)]
pub(super) struct RequestLink {
    pub id: LinkId,
    hub: Arc<Hub>,
    caller: Arc<Caller>,
    /// Deliveries begun, as both ends count.
    delivery_count: u32,
    /// Deliveries the peer may still begin: as it was told, or had been told before it was told less, which it may not know yet.
    credit: u32,
    /// As it was told last, less what it has begun since.
    told: u32,
    assembly: Option<Assembly>,
    /// By AMQP delivery id.
    undisposed: HashMap<u32, DeliveryId>,
    /// Deliveries for which there was no room: given back later, as their sender would send them again at once.
    postponed: HashSet<u32>,
    /// A flow is due though the credit is unchanged.
    flow_due: bool,
}

/// A delivery of which the last frame has not come.
#[derive(Debug)]
struct Assembly {
    number: u32,
    /// What came so far; counted against the budgets.
    bytes: Vec<u8>,
    /// How much came so far, kept or not.
    received: usize,
    /// There was no room in the budgets: the rest is read and forgotten.
    over_budget: bool,
}

/// A delivery that came whole.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Arrived {
    /// AMQP delivery id.
    pub number: u32,
    /// The message; `None` if there was no room for it.
    pub message: Option<Vec<u8>>,
}

impl RequestLink {
    pub(super) fn new(hub: &Arc<Hub>, caller: &Arc<Caller>, initial_delivery_count: u32) -> Self {
        Self {
            id: hub.attach_request_link(),
            hub: Arc::clone(hub),
            caller: Arc::clone(caller),
            delivery_count: initial_delivery_count,
            credit: 0,
            told: 0,
            assembly: None,
            undisposed: HashMap::new(),
            postponed: HashSet::new(),
            flow_due: false,
        }
    }

    /// Takes one frame of a delivery; the delivery, if it was the last.
    ///
    /// # Errors
    /// [`Fault`] if the peer breaks the rules; the connection ends.
    pub(super) fn on_transfer(
        &mut self,
        transfer: &Transfer<'_>,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<Option<Arrived>, Fault> {
        if transfer.settled {
            return Err(Fault::new(Refusal::PreSettled, "requests are sent unsettled, so that none is lost"));
        }
        let mut assembly = match self.assembly.take() {
            None => self.begin(transfer)?,
            Some(assembly) => {
                if transfer.delivery_id.is_some_and(|number| number != assembly.number) {
                    self.unreserve(&assembly);
                    return Err(Fault::new(Refusal::NotAllowed, "two deliveries at once on one link"));
                }
                assembly
            }
        };
        if transfer.aborted {
            self.unreserve(&assembly);
            return Ok(None);
        }
        // Parts without content could come for ever without reaching any limit.
        let fault = if payload.is_empty() && transfer.more {
            Some(Fault::new(Refusal::NotAllowed, "a part of a delivery without content"))
        } else if assembly.received + payload.len() > limits.message_bytes_max {
            Some(Fault::new(Refusal::MessageTooLarge, format_args!("more than {} bytes", limits.message_bytes_max)))
        } else {
            None
        };
        if let Some(fault) = fault {
            self.unreserve(&assembly);
            return Err(fault);
        }
        assembly.received += payload.len();
        if !assembly.over_budget {
            if self.hub.reserve(&self.caller, payload.len()) {
                assembly.bytes.extend_from_slice(payload);
            } else {
                self.unreserve(&assembly);
                assembly.bytes = Vec::new();
                assembly.over_budget = true;
            }
        }
        if transfer.more {
            self.assembly = Some(assembly);
            return Ok(None);
        }
        let Assembly { number, bytes, over_budget, .. } = assembly;
        Ok(Some(Arrived { number, message: (!over_budget).then_some(bytes) }))
    }

    fn begin(&mut self, transfer: &Transfer<'_>) -> Result<Assembly, Fault> {
        let (Some(number), Some(_)) = (transfer.delivery_id, transfer.delivery_tag) else {
            return Err(Fault::new(Refusal::Malformed, "a delivery without id or tag"));
        };
        if self.undisposed.contains_key(&number) || self.postponed.contains(&number) {
            return Err(Fault::new(Refusal::NotAllowed, "a delivery id that is in use"));
        }
        self.credit = self
            .credit
            .checked_sub(1)
            .ok_or_else(|| Fault::new(Refusal::CreditExceeded, "a delivery without credit"))?;
        self.told = self.told.saturating_sub(1);
        self.delivery_count = self.delivery_count.wrapping_add(1);
        Ok(Assembly { number, bytes: Vec::new(), received: 0, over_budget: false })
    }

    fn unreserve(&self, assembly: &Assembly) {
        self.hub.unreserve(&self.caller, assembly.bytes.len());
    }

    /// Notes that a delivery is held.
    pub(super) fn hold(&mut self, number: u32, delivery: DeliveryId) {
        self.undisposed.insert(number, delivery);
    }

    /// Notes that a delivery is to be given back later.
    pub(super) fn postpone(&mut self, number: u32) {
        self.postponed.insert(number);
    }

    /// What is to be given back now.
    pub(super) fn postponed(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::mem::take(&mut self.postponed).into_iter()
    }

    /// Whether the peer waits for the end of any delivery.
    pub(super) fn is_idle(&self) -> bool {
        self.undisposed.is_empty() && self.postponed.is_empty()
    }

    /// Notes that a delivery is to be disposed of; `false` if it is not held.
    pub(super) fn dispose(&mut self, number: u32) -> bool {
        self.undisposed.remove(&number).is_some()
    }

    /// The peer settled deliveries from `first` to `last` on its own: it keeps them no longer.
    pub(super) fn on_sender_settled(&mut self, first: u32, last: u32) {
        let span = last.wrapping_sub(first);
        self.postponed.retain(|number| number.wrapping_sub(first) > span);
        let given_up = self.undisposed.extract_if(|number, _| number.wrapping_sub(first) <= span);
        let given_up: Vec<_> = given_up.map(|(_, delivery)| delivery).collect();
        if !given_up.is_empty() {
            self.hub.abandon(&self.caller, self.id, &given_up);
        }
    }

    /// The peer tells its own count: it may have given up credit.
    pub(super) fn on_flow(&mut self, delivery_count: Option<u32>, echo: bool) {
        if let Some(count) = delivery_count {
            let skipped = count.wrapping_sub(self.delivery_count);
            if skipped <= self.credit {
                self.credit -= skipped;
                self.told = self.told.saturating_sub(skipped);
                self.delivery_count = count;
            }
        }
        self.flow_due |= echo;
    }

    /// The credit to tell the peer now, with the delivery count it refers to; `None` while there is nothing worth a frame.
    /// With deliveries undisposed, credit and all, the link never holds more than `limit`; 0 stops it.
    pub(super) fn credit_due(&mut self, limit: u32) -> Option<(u32, u32)> {
        let held = self.undisposed.len() + self.postponed.len() + usize::from(self.assembly.is_some());
        let credit = limit.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        // A flow for every delivery would cost as much as the disposition; a quarter of the credit keeps the sender busy.
        let more = credit > self.told && (self.told == 0 || credit - self.told >= limit / 4);
        // Only when the limit has become lower.
        let less = credit < self.told;
        if !more && !less && !self.flow_due {
            return None;
        }
        self.flow_due = false;
        self.told = credit;
        // What the peer sends before it hears that it has less is still its right.
        self.credit = self.credit.max(credit);
        Some((self.delivery_count, credit))
    }

    /// Tells the peer at the next occasion that it gets no more credit.
    pub(super) fn stop(&mut self) {
        self.flow_due = true;
    }
}

impl Drop for RequestLink {
    fn drop(&mut self) {
        if let Some(assembly) = self.assembly.take() {
            self.unreserve(&assembly);
        }
        let undisposed: Vec<_> = self.undisposed.drain().map(|(_, delivery)| delivery).collect();
        self.hub.abandon(&self.caller, self.id, &undisposed);
        self.hub.detach_request_link();
    }
}
