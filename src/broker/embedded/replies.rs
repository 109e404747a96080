//! A link on which a peer receives replies: its credit, and the replies on their way to it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::amqp::performative::DeliveryState;
use super::super::amqp::transfer::{OutgoingSession, Sending, Unsettled};
use super::super::printable;
use super::hub::{GroupId, Hub, LinkId};
use super::limits::Limits;
use super::refusal::LOGGED_CHARS_MAX;

/// The sending end of a link.
#[derive(Debug)]
pub(super) struct ReplyLink {
    pub id: LinkId,
    hub: Arc<Hub>,
    /// Deliveries begun, as both ends count.
    delivery_count: u32,
    /// Deliveries we may still begin.
    credit: u32,
    /// Use up the credit or give it back.
    drain: bool,
    /// A flow is due.
    flow_due: bool,
    /// Replies may wait at the hub.
    may_wait: bool,
    /// The group being sent, and the rest of its messages.
    current: Option<(GroupId, VecDeque<Vec<u8>>)>,
    /// The message being sent.
    sending: Option<Sending>,
}

/// What a link sends with: things of its session and connection.
pub(super) struct Outlet<'a> {
    pub session: &'a mut OutgoingSession,
    pub unsettled: &'a mut Unsettled<SentReply>,
    pub groups: &'a mut Groups,
    pub out: &'a mut Vec<u8>,
    pub frame_bytes_max: usize,
}

/// A reply that was sent, at least in part, and is not disposed of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SentReply {
    pub link: LinkId,
    pub group: GroupId,
}

/// The groups of replies under way on one connection.
#[derive(Default, Debug)]
pub(super) struct Groups {
    by_id: HashMap<GroupId, Group>,
}

#[derive(Debug)]
struct Group {
    link: LinkId,
    unaccepted: usize,
    done: oneshot::Sender<Result<(), String>>,
}

impl Groups {
    /// Nobody waits for these replies any more.
    pub(super) fn abandon(&mut self, group: GroupId) {
        self.by_id.remove(&group);
    }

    /// Replies on this link can no longer be confirmed: whoever waits for them learns by the loss of the channel.
    fn lose_link(&mut self, link: LinkId) {
        self.by_id.retain(|_, group| group.link != link);
    }

    /// The peer has disposed of one reply.
    pub(super) fn on_outcome(&mut self, sent: SentReply, state: Option<&DeliveryState<'_>>) {
        let Some(group) = self.by_id.get_mut(&sent.group) else { return };
        let refused = match state {
            Some(DeliveryState::Accepted) => None,
            Some(DeliveryState::Rejected(error)) => {
                let text = error.as_ref().map_or("", |error| error.description.unwrap_or(error.condition));
                Some(format!("the peer rejected a reply: {}", printable(text, LOGGED_CHARS_MAX)))
            }
            Some(DeliveryState::Released | DeliveryState::Modified { .. }) => {
                Some("the peer gave a reply back".to_owned())
            }
            Some(DeliveryState::Other) | None => Some("the peer settled a reply without accepting it".to_owned()),
        };
        if refused.is_none() {
            group.unaccepted -= 1;
            if group.unaccepted > 0 {
                return;
            }
        }
        if let Some(group) = self.by_id.remove(&sent.group) {
            // A receiver that is gone no longer wants to know.
            let _ = group.done.send(refused.map_or(Ok(()), Err));
        }
    }
}

impl ReplyLink {
    pub(super) fn new(hub: &Arc<Hub>, id: LinkId) -> Self {
        Self {
            id,
            hub: Arc::clone(hub),
            delivery_count: 0,
            credit: 0,
            drain: false,
            flow_due: false,
            may_wait: true,
            current: None,
            sending: None,
        }
    }

    /// Replies wait at the hub.
    pub(super) fn wake(&mut self) {
        self.may_wait = true;
    }

    /// The peer gives credit, counted from its own view of the deliveries begun (specification 2.6.7).
    pub(super) fn on_flow(&mut self, delivery_count: Option<u32>, credit: u32, drain: bool, echo: bool) {
        let ahead = self.delivery_count.wrapping_sub(delivery_count.unwrap_or(0));
        self.credit = credit.saturating_sub(ahead);
        self.drain = drain;
        self.flow_due |= echo;
    }

    /// Sends what credit, window and output allow.
    pub(super) fn pump(&mut self, handle: u32, outlet: &mut Outlet<'_>, limits: &Limits) {
        while outlet.out.len() < limits.output_bytes_max {
            if let Some(sending) = &mut self.sending {
                let (frame_max, out_max) = (outlet.frame_bytes_max, limits.output_bytes_max);
                if !sending.pump(outlet.session, handle, frame_max, outlet.out, out_max) {
                    return;
                }
                self.sending = None;
            }
            let Some((group, messages)) = &mut self.current else {
                if self.credit == 0 || !self.begin_group(outlet.groups) {
                    break;
                }
                continue;
            };
            let group = *group;
            if messages.is_empty() || !outlet.groups.by_id.contains_key(&group) {
                // All sent, or nobody wants the rest.
                self.current = None;
                continue;
            }
            if self.credit == 0 || outlet.session.window == 0 || outlet.unsettled.span() >= limits.reply_window {
                break;
            }
            let Some(message) = messages.pop_front() else { continue };
            self.credit -= 1;
            self.delivery_count = self.delivery_count.wrapping_add(1);
            let delivery_id = outlet.unsettled.push(SentReply { link: self.id, group });
            self.sending = Some(Sending { delivery_id, message, offset: 0 });
        }
        if self.drain && self.credit > 0 && self.current.is_none() && self.sending.is_none() {
            self.delivery_count = self.delivery_count.wrapping_add(self.credit);
            self.credit = 0;
            self.flow_due = true;
        }
    }

    /// Takes the next group from the hub.
    fn begin_group(&mut self, groups: &mut Groups) -> bool {
        if !self.may_wait {
            return false;
        }
        let Some(next) = self.hub.next_group(self.id) else {
            self.may_wait = false;
            return false;
        };
        let group = Group { link: self.id, unaccepted: next.messages.len(), done: next.done };
        groups.by_id.insert(next.id, group);
        self.current = Some((next.id, next.messages));
        true
    }

    /// Delivery count and credit to tell the peer, if it must be told.
    pub(super) fn flow_due(&mut self) -> Option<(u32, u32)> {
        std::mem::take(&mut self.flow_due).then_some((self.delivery_count, self.credit))
    }

    /// Ends the link: what was not begun finds another way, what was is lost.
    pub(super) fn detach(self, unsettled: &mut Unsettled<SentReply>, groups: &mut Groups) {
        groups.lose_link(self.id);
        unsettled.settle_where(|sent| sent.link == self.id, |_| ());
    }
}

impl Drop for ReplyLink {
    fn drop(&mut self) {
        self.hub.detach_reply_link(self.id);
    }
}
