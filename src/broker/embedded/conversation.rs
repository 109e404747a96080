//! What is said on one connection after `open`: sessions, links, deliveries. Bytes go in and come out; the socket is elsewhere.
//!
//! A peer that breaks the rules loses its connection ([`Fault`]); a link that it may not have is refused on that link; a
//! message that cannot be used is disposed of on its own. Channel numbers and handles are the peer's: we begin nothing, so its
//! numbers do for both directions.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::amqp::frame::{self, FrameType, Output};
use super::super::amqp::message::Message;
use super::super::amqp::performative::{
    self, Attach, Begin, DeliveryState, Detach, Disposition, ErrorInfo, Flow, Performative, RECEIVER_SETTLES_SECOND,
    Role, SENDER_SETTLED, SENDER_UNSETTLED, Terminus, Transfer,
};
use super::super::amqp::transfer::{OutgoingSession, Unsettled};
use super::super::amqp::{SESSION_WINDOW, condition};
use super::super::printable;
use super::credentials::Caller;
use super::handshake::{Opened, frame_fault};
use super::hub::{Command, ConnectionId, LinkId, Offer, Offered};
use super::refusal::{Fault, LOGGED_CHARS_MAX, Refusal};
use super::replies::{Groups, Outlet, ReplyLink, SentReply};
use super::requests::{Arrived, RequestLink};
use super::{Entrance, Shared};
use crate::domain::Timestamp;
use crate::ports::request_queue::Settlement;

/// The error condition of a delivery that the worker rejected: its description is for people.
const REJECTED_BY_WORKER: &str = "notary:request-rejected";

/// The longest name or address of a link, in bytes: they are repeated to the peer. Qpid JMS makes the longest we met, of 120.
const LINK_TEXT_LEN_MAX: usize = 256;

/// One connection.
pub(super) struct Conversation {
    shared: Arc<Shared>,
    id: ConnectionId,
    caller: Arc<Caller>,
    /// Who it is, for logs.
    peer: String,
    frame_bytes_max: usize,
    sessions: HashMap<u16, Session>,
    /// Where each link is: channel and handle.
    places: HashMap<LinkId, (u16, u32)>,
    groups: Groups,
    output: Output,
    /// Who waits for what to be written, by the position after it.
    written: VecDeque<(u64, oneshot::Sender<()>)>,
    /// What the peer may have open on a link.
    allowance: u32,
    draining: bool,
    closed: bool,
}

#[derive(Debug)]
struct Session {
    outgoing: OutgoingSession,
    next_incoming_id: u32,
    links: HashMap<u32, Link>,
    unsettled: Unsettled<SentReply>,
}

#[derive(Debug)]
enum Link {
    Requests(RequestLink),
    Replies(ReplyLink),
    /// Refused; the peer has not confirmed yet.
    Refused,
}

impl Conversation {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        caller: Arc<Caller>,
        opened: &Opened,
        peer: &dyn fmt::Display,
    ) -> Self {
        let name = printable(&caller.name.to_string(), LOGGED_CHARS_MAX);
        let allowance = shared.allowance(&caller);
        if allowance == 0 {
            tracing::warn!(%peer, %name, "connected, but nothing is taken from it: it is not in the network map");
        }
        Self {
            shared,
            allowance,
            id,
            peer: format!("{peer} ({name})"),
            caller,
            frame_bytes_max: opened.frame_bytes_max,
            sessions: HashMap::new(),
            places: HashMap::new(),
            groups: Groups::default(),
            output: Output::default(),
            written: VecDeque::new(),
            draining: false,
            closed: false,
        }
    }

    /// Who is there, for logs.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Bytes to write.
    pub(super) fn pending(&self) -> &[u8] {
        self.output.pending()
    }

    /// Whether so much waits to be written that nothing more should be read.
    pub(super) fn is_congested(&self) -> bool {
        self.output.pending().len() >= self.shared.limits.output_bytes_max
    }

    /// Whether both sides have said goodbye.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Notes that `count` bytes were written.
    pub(super) fn on_written(&mut self, count: usize) {
        self.output.advance(count);
        let written = self.output.written();
        while self.written.front().is_some_and(|(position, _)| *position <= written) {
            if let Some((_, done)) = self.written.pop_front() {
                // A receiver that is gone no longer wants to know.
                let _ = done.send(());
            }
        }
    }

    /// Looks again how much the peer may have open, and gives back what was postponed.
    pub(super) fn review(&mut self) {
        let allowance = self.shared.allowance(&self.caller);
        if (allowance == 0) != (self.allowance == 0) {
            let now = if allowance == 0 { "nothing more is taken from it" } else { "its requests are taken" };
            tracing::info!(peer = self.peer, now, "the network map has changed");
        }
        self.allowance = allowance;
        let mut postponed = Vec::new();
        for (channel, session) in &mut self.sessions {
            for link in session.links.values_mut() {
                if let Link::Requests(link) = link {
                    postponed.extend(link.postponed().map(|number| (*channel, number)));
                }
            }
        }
        for (channel, number) in postponed {
            self.dispose(channel, number, DeliveryState::Released);
        }
        self.pump();
    }

    /// Says that we are here.
    pub(super) fn heartbeat(&mut self) {
        performative::write_heartbeat(self.output.buffer());
    }

    /// Says goodbye, and why.
    pub(super) fn close(&mut self, fault: Option<&Fault>) {
        if !self.closed {
            let error = match fault {
                Some(fault) => ErrorInfo { condition: fault.reason.condition(), description: Some(&fault.detail) },
                None => ErrorInfo {
                    condition: condition::CONNECTION_FORCED,
                    description: Some("the worker stops; send again, here or elsewhere"),
                },
            };
            performative::write_close(self.output.buffer(), Some(&error));
            self.closed = true;
        }
    }

    /// Takes whole frames off the front of `input`, until output backs up.
    ///
    /// # Errors
    /// [`Fault`] ends the connection.
    pub(super) fn on_input(&mut self, input: &mut Vec<u8>) -> Result<(), Fault> {
        let max = self.shared.limits.frame_bytes_max as usize;
        let mut consumed = 0;
        while !self.closed && !self.is_congested() {
            let rest = &input[consumed..];
            let size = match frame::size(rest, max).map_err(|error| frame_fault(&error))? {
                Some(size) if size <= rest.len() => size,
                _ => break,
            };
            let malformed = |error| Fault::new(Refusal::Malformed, error);
            let frame = frame::parse(&rest[..size], FrameType::Amqp).map_err(malformed)?;
            if !frame.body.is_empty() {
                let (performative, payload) = Performative::decode(frame.body).map_err(malformed)?;
                self.on_performative(frame.channel, performative, payload)?;
            }
            consumed += size;
        }
        input.drain(..consumed);
        Ok(())
    }

    fn on_performative(&mut self, channel: u16, said: Performative<'_>, payload: &[u8]) -> Result<(), Fault> {
        match said {
            Performative::Open(_) => return Err(Fault::new(Refusal::NotAllowed, "a second open")),
            Performative::Close(_) => {
                performative::write_close(self.output.buffer(), None);
                self.closed = true;
            }
            Performative::Begin(begin) => self.on_begin(channel, &begin)?,
            Performative::End(_) => {
                self.session(channel)?;
                self.end_session(channel);
                performative::write_end(self.output.buffer(), channel, None);
            }
            Performative::Attach(attach) => self.on_attach(channel, &attach)?,
            Performative::Detach(detach) => self.on_detach(channel, &detach)?,
            Performative::Flow(flow) => self.on_flow(channel, &flow)?,
            Performative::Transfer(transfer) => self.on_transfer(channel, &transfer, payload)?,
            Performative::Disposition(disposition) => self.on_disposition(channel, &disposition)?,
        }
        Ok(())
    }

    fn session(&mut self, channel: u16) -> Result<&mut Session, Fault> {
        self.sessions
            .get_mut(&channel)
            .ok_or_else(|| Fault::new(Refusal::NotAllowed, format_args!("no session on channel {channel}")))
    }

    fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Fault> {
        let limits = &self.shared.limits;
        if channel >= limits.sessions_per_connection_max {
            return Err(Fault::new(Refusal::TooManySessions, format_args!("channel {channel}")));
        }
        if begin.remote_channel.is_some() || self.sessions.contains_key(&channel) {
            return Err(Fault::new(Refusal::NotAllowed, format_args!("begin on channel {channel}")));
        }
        let session = Session {
            outgoing: OutgoingSession { channel, next_outgoing_id: 0, window: begin.incoming_window },
            next_incoming_id: begin.next_outgoing_id,
            links: HashMap::new(),
            unsettled: Unsettled::default(),
        };
        self.sessions.insert(channel, session);
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: 0,
            incoming_window: SESSION_WINDOW,
            outgoing_window: SESSION_WINDOW,
            handle_max: limits.links_per_session_max - 1,
        };
        answer.write(self.output.buffer(), channel);
        Ok(())
    }

    fn on_attach(&mut self, channel: u16, attach: &Attach<'_>) -> Result<(), Fault> {
        let links_max = self.shared.limits.links_per_session_max;
        let session = self.session(channel)?;
        if attach.handle >= links_max {
            return Err(Fault::new(Refusal::TooManyLinks, format_args!("handle {}", attach.handle)));
        }
        if session.links.contains_key(&attach.handle) {
            return Err(Fault::new(Refusal::NotAllowed, "a handle that is in use"));
        }
        let addresses = [&attach.source, &attach.target].map(|end| end.as_ref().and_then(|end| end.address));
        if addresses.into_iter().flatten().chain([attach.name]).any(|text| text.len() > LINK_TEXT_LEN_MAX) {
            return Err(Fault::new(Refusal::NotAllowed, "a name or address of a link that is too long"));
        }
        let link = match attach.role {
            Role::Sender => self.attach_requests(channel, attach)?,
            Role::Receiver => self.attach_replies(channel, attach),
        };
        let place = match &link {
            Link::Requests(link) => Some(link.id),
            Link::Replies(link) => Some(link.id),
            Link::Refused => None,
        };
        if let Some(id) = place {
            self.places.insert(id, (channel, attach.handle));
        }
        self.session(channel)?.links.insert(attach.handle, link);
        Ok(())
    }

    /// The peer would send requests.
    fn attach_requests(&mut self, channel: u16, attach: &Attach<'_>) -> Result<Link, Fault> {
        let Some(initial_delivery_count) = attach.initial_delivery_count else {
            return Err(Fault::new(Refusal::Malformed, "a sender without an initial delivery count"));
        };
        let address = attach.target.as_ref().and_then(|target| target.address);
        let served = address.filter(|address| self.shared.addresses.iter().any(|ours| ours == address));
        let refusal = match served {
            None => Some(Fault::new(Refusal::UnknownTarget, format_args!("target {}", address.unwrap_or("(none)")))),
            Some(_) if attach.snd_settle_mode == SENDER_SETTLED => {
                Some(Fault::new(Refusal::PreSettled, "requests are sent unsettled, so that none is lost"))
            }
            Some(_) => None,
        };
        let answer = Attach {
            name: attach.name,
            handle: attach.handle,
            role: Role::Receiver,
            snd_settle_mode: SENDER_UNSETTLED,
            rcv_settle_mode: 0,
            source: attach.source.clone(),
            target: served.filter(|_| refusal.is_none()).map(Terminus::at),
            initial_delivery_count: None,
            max_message_size: self.shared.limits.message_bytes_max as u64,
            priority: None,
        };
        answer.write(self.output.buffer(), channel);
        if let Some(fault) = refusal {
            return Ok(self.refuse_link(channel, attach.handle, &fault));
        }
        let mut link = RequestLink::new(&self.shared.hub, &self.caller, initial_delivery_count);
        if self.draining {
            link.stop();
        }
        Ok(Link::Requests(link))
    }

    /// The peer would receive replies.
    fn attach_replies(&mut self, channel: u16, attach: &Attach<'_>) -> Link {
        let source = attach.source.clone().unwrap_or_default();
        let own = match self.shared.entrance {
            Entrance::Secrets(_) => source.dynamic || source.address == Some(&self.caller.reply_address),
            // Nodes are answered on connections of our own, and may only send here.
            Entrance::Certificates { .. } => false,
        };
        let attached = own.then(|| self.shared.hub.attach_reply_link(self.id, &self.caller, source.dynamic));
        let answer = Attach {
            name: attach.name,
            handle: attach.handle,
            role: Role::Sender,
            snd_settle_mode: SENDER_UNSETTLED,
            rcv_settle_mode: attach.rcv_settle_mode.min(RECEIVER_SETTLES_SECOND),
            source: attached.as_ref().map(|(_, address)| Terminus { dynamic: source.dynamic, ..Terminus::at(address) }),
            target: attach.target.clone(),
            initial_delivery_count: Some(0),
            max_message_size: 0,
            priority: None,
        };
        answer.write(self.output.buffer(), channel);
        match attached {
            Some((id, _)) => Link::Replies(ReplyLink::new(&self.shared.hub, id)),
            None => {
                let address = source.address.unwrap_or("(none)");
                let fault = Fault::new(Refusal::ForeignReplyAddress, format_args!("source {address}"));
                self.refuse_link(channel, attach.handle, &fault)
            }
        }
    }

    fn refuse_link(&mut self, channel: u16, handle: u32, fault: &Fault) -> Link {
        self.shared.refusals.record(&self.peer, fault.reason, &fault.detail);
        let error = ErrorInfo { condition: fault.reason.condition(), description: Some(&fault.detail) };
        Detach { handle, closed: true, error: Some(error) }.write(self.output.buffer(), channel);
        Link::Refused
    }

    fn on_detach(&mut self, channel: u16, detach: &Detach<'_>) -> Result<(), Fault> {
        let link = self.session(channel)?.links.remove(&detach.handle);
        match link {
            None => return Err(Fault::new(Refusal::NotAllowed, "detach of an unknown link")),
            // Ours went first: this is the answer.
            Some(Link::Refused) => return Ok(()),
            Some(link) => self.end_link(channel, link),
        }
        let answer = Detach { handle: detach.handle, closed: detach.closed, error: None };
        answer.write(self.output.buffer(), channel);
        Ok(())
    }

    fn end_link(&mut self, channel: u16, link: Link) {
        match link {
            Link::Requests(link) => {
                self.places.remove(&link.id);
            }
            Link::Replies(link) => {
                self.places.remove(&link.id);
                if let Some(session) = self.sessions.get_mut(&channel) {
                    link.detach(&mut session.unsettled, &mut self.groups);
                }
            }
            Link::Refused => {}
        }
    }

    fn end_session(&mut self, channel: u16) {
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        for link in std::mem::take(&mut session.links).into_values() {
            self.end_link(channel, link);
        }
        self.sessions.remove(&channel);
    }

    fn on_flow(&mut self, channel: u16, flow: &Flow) -> Result<(), Fault> {
        let session = self.session(channel)?;
        session.next_incoming_id = flow.next_outgoing_id;
        session.outgoing.on_flow(flow.next_incoming_id, flow.incoming_window);
        let Some(handle) = flow.handle else {
            if flow.echo
                && let Some(session) = self.sessions.get(&channel)
            {
                session.write_flow(None, self.output.buffer());
            }
            return Ok(());
        };
        match session.links.get_mut(&handle) {
            None => return Err(Fault::new(Refusal::NotAllowed, "flow of an unknown link")),
            Some(Link::Requests(link)) => link.on_flow(flow.delivery_count, flow.echo),
            Some(Link::Replies(link)) => {
                link.on_flow(flow.delivery_count, flow.link_credit.unwrap_or(0), flow.drain, flow.echo);
            }
            Some(Link::Refused) => {}
        }
        Ok(())
    }

    fn on_transfer(&mut self, channel: u16, transfer: &Transfer<'_>, payload: &[u8]) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let session = self.session(channel)?;
        session.next_incoming_id = session.next_incoming_id.wrapping_add(1);
        let Some(Link::Requests(link)) = session.links.get_mut(&transfer.handle) else {
            return Err(Fault::new(Refusal::NotAllowed, "a transfer where no requests go"));
        };
        let Some(arrived) = link.on_transfer(transfer, payload, &shared.limits)? else { return Ok(()) };
        let (link, number) = (link.id, arrived.number);
        match self.offer(link, arrived) {
            Ok(Offered::Taken(delivery)) => {
                if let Some(Link::Requests(link)) = self.session(channel)?.links.get_mut(&transfer.handle) {
                    link.hold(number, delivery);
                }
            }
            Ok(Offered::Refused) => self.dispose(channel, number, DeliveryState::Released),
            Err(fault) => {
                self.shared.refusals.record(&self.peer, fault.reason, &fault.detail);
                let error = ErrorInfo { condition: fault.reason.condition(), description: Some(&fault.detail) };
                match (&shared.entrance, fault.reason) {
                    (Entrance::Secrets(_), Refusal::OverBudget) => {
                        self.dispose(channel, number, DeliveryState::Released);
                    }
                    (Entrance::Secrets(_), _) => self.dispose(channel, number, DeliveryState::Rejected(Some(error))),
                    // A node's bridge sends again at once what is given back, and for ever what is rejected.
                    (Entrance::Certificates { .. }, Refusal::OverBudget) => {
                        if let Some(Link::Requests(link)) = self.session(channel)?.links.get_mut(&transfer.handle) {
                            link.postpone(number);
                        }
                    }
                    (Entrance::Certificates { .. }, _) => self.dispose(channel, number, DeliveryState::Accepted),
                }
            }
        }
        Ok(())
    }

    /// Reads a message and offers it to the worker. What was reserved for it is given back unless it is taken.
    fn offer(&mut self, link: LinkId, arrived: Arrived) -> Result<Offered, Fault> {
        let hub = &self.shared.hub;
        let Some(bytes) = arrived.message else {
            return Err(Fault::new(Refusal::OverBudget, "no memory for more requests now"));
        };
        let read = Message::decode(&bytes).map_err(|error| Fault::new(Refusal::UndecodableMessage, error)).and_then(
            |message| match hub.reply_address(&self.caller, message.reply_to.filter(|_| !self.shared.is_for_nodes())) {
                Some(address) => Ok((message, address)),
                None => {
                    let wanted = message.reply_to.unwrap_or_default();
                    Err(Fault::new(Refusal::ForeignReplyTo, format_args!("reply-to {wanted}")))
                }
            },
        );
        let (message, reply_address) = match read {
            Ok(read) => read,
            Err(fault) => {
                hub.unreserve(&self.caller, bytes.len());
                return Err(fault);
            }
        };
        Ok(hub.offer(Offer {
            connection: self.id,
            link,
            number: arrived.number,
            caller: Arc::clone(&self.caller),
            bytes: bytes.len(),
            reply_address,
            correlation: message.message_id.map(<[u8]>::to_vec),
            platform_version: message.platform_version,
            dedup_id: message.dedup_id.map(str::to_owned),
            sent_at: message.created_ms.map(Timestamp::from_millis),
            prior_deliveries: message.delivery_count,
            body: message.body.into_owned(),
        }))
    }

    fn dispose(&mut self, channel: u16, number: u32, state: DeliveryState<'_>) {
        let disposition =
            Disposition { role: Role::Receiver, first: number, last: number, settled: true, state: Some(state) };
        disposition.write(self.output.buffer(), channel);
    }

    fn on_disposition(&mut self, channel: u16, disposition: &Disposition<'_>) -> Result<(), Fault> {
        let session = self
            .sessions
            .get_mut(&channel)
            .ok_or_else(|| Fault::new(Refusal::NotAllowed, format_args!("no session on channel {channel}")))?;
        let Disposition { first, last, settled, ref state, .. } = *disposition;
        match disposition.role {
            Role::Receiver => {
                let terminal = !matches!(state, None | Some(DeliveryState::Other));
                if !settled && !terminal {
                    return Ok(());
                }
                session.unsettled.settle(first, last, |sent| self.groups.on_outcome(sent, state.as_ref()));
                if !settled {
                    // The peer settles second: it waits for us to do so first.
                    let answer = Disposition { role: Role::Sender, first, last, settled: true, state: state.clone() };
                    answer.write(self.output.buffer(), channel);
                }
            }
            Role::Sender if settled => {
                for link in session.links.values_mut() {
                    if let Link::Requests(link) = link {
                        link.on_sender_settled(first, last);
                    }
                }
            }
            Role::Sender => {}
        }
        Ok(())
    }

    /// Does what the hub asks for.
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Settle { link, number, settlement, done } => {
                let Some((channel, Link::Requests(requests))) = self.link(link) else { return };
                if !requests.dispose(number) {
                    return;
                }
                match &settlement {
                    Settlement::Accept => self.dispose(channel, number, DeliveryState::Accepted),
                    Settlement::Release => self.dispose(channel, number, DeliveryState::Released),
                    // As a node does (PROTOCOL c.2): its bridge would send it again for ever.
                    Settlement::Reject { reason } if self.shared.is_for_nodes() => {
                        let reason = printable(reason, LOGGED_CHARS_MAX);
                        self.shared.refusals.record(&self.peer, Refusal::UnreadableRequest, &reason);
                        self.dispose(channel, number, DeliveryState::Accepted);
                    }
                    Settlement::Reject { reason } => {
                        let reason = printable(reason, LOGGED_CHARS_MAX);
                        let error = ErrorInfo { condition: REJECTED_BY_WORKER, description: Some(&reason) };
                        self.dispose(channel, number, DeliveryState::Rejected(Some(error)));
                    }
                }
                if let Some(done) = done {
                    self.written.push_back((self.output.end(), done));
                }
            }
            Command::Replies(link) => {
                if let Some((_, Link::Replies(link))) = self.link(link) {
                    link.wake();
                }
            }
            Command::Abandon(group) => self.groups.abandon(group),
            Command::Drain => {
                self.draining = true;
                for session in self.sessions.values_mut() {
                    for link in session.links.values_mut() {
                        if let Link::Requests(link) = link {
                            link.stop();
                        }
                    }
                }
            }
            Command::Leave if self.draining => self.close(None),
            Command::Leave => {}
            Command::Close => self.close(None),
        }
    }

    fn link(&mut self, id: LinkId) -> Option<(u16, &mut Link)> {
        let (channel, handle) = *self.places.get(&id)?;
        Some((channel, self.sessions.get_mut(&channel)?.links.get_mut(&handle)?))
    }

    /// Sends what may be sent now: replies, and credit.
    pub(super) fn pump(&mut self) {
        if self.closed {
            return;
        }
        let limits = &self.shared.limits;
        let allowance = if self.draining { 0 } else { self.allowance };
        for session in self.sessions.values_mut() {
            // Taken out for the loop, so that links can be told of their session.
            let mut links = std::mem::take(&mut session.links);
            for (handle, link) in &mut links {
                let due = match link {
                    Link::Requests(link) => link.credit_due(allowance),
                    Link::Replies(link) => {
                        let mut outlet = Outlet {
                            session: &mut session.outgoing,
                            unsettled: &mut session.unsettled,
                            groups: &mut self.groups,
                            out: self.output.buffer(),
                            frame_bytes_max: self.frame_bytes_max,
                        };
                        link.pump(*handle, &mut outlet, limits);
                        link.flow_due()
                    }
                    Link::Refused => None,
                };
                if let Some((delivery_count, credit)) = due {
                    session.write_flow(Some((*handle, delivery_count, credit)), self.output.buffer());
                }
            }
            session.links = links;
        }
        // A bridge keeps for this worker what it was given credit for or not: others get it once the connection is gone.
        if self.draining && self.shared.is_for_nodes() && self.is_idle() {
            self.close(None);
        }
    }

    /// Whether the peer waits for the end of any delivery.
    fn is_idle(&self) -> bool {
        let mut links = self.sessions.values().flat_map(|session| session.links.values());
        links.all(|link| !matches!(link, Link::Requests(link) if !link.is_idle()))
    }
}

impl Session {
    /// Tells the state of the session, and of a link: handle, delivery count, credit.
    fn write_flow(&self, link: Option<(u32, u32, u32)>, out: &mut Vec<u8>) {
        let flow = Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: SESSION_WINDOW,
            next_outgoing_id: self.outgoing.next_outgoing_id,
            outgoing_window: SESSION_WINDOW,
            handle: link.map(|(handle, ..)| handle),
            delivery_count: link.map(|(_, count, _)| count),
            link_credit: link.map(|(.., credit)| credit),
            drain: false,
            echo: false,
        };
        flow.write(out, self.outgoing.channel);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Links tell the hub of their end by themselves; groups do by the loss of their channels.
        let channels: Vec<_> = self.sessions.keys().copied().collect();
        for channel in channels {
            self.end_session(channel);
        }
        self.shared.hub.unregister(self.id, &self.caller);
    }
}
