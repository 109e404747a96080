//! One end of an AMQP 1.0 connection as the side that opened it: one session, any number of links. Pure: what the peer says goes
//! in, what is to be written comes out, and whoever waits for something is told.
//!
//! The peer is a broker, trusted with our messages and with nothing else: whatever it says, nothing panics, and what it can make
//! us keep is bounded by what we asked it for.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::{mpsc, oneshot};

use super::super::frame::{self, FrameType, Output};
use super::super::performative::{
    self, Attach, Begin, DeliveryState, Detach, Disposition, ErrorInfo, Flow, Open, Performative, Role,
    SENDER_UNSETTLED, Terminus, Transfer,
};
use super::super::transfer::{OutgoingSession, Sending, Unsettled};
use super::super::{HEADER_AMQP, MIN_MAX_FRAME_SIZE, SESSION_WINDOW};
use super::{AmqpError, Disposal, Incoming, SendOutcome};

const CHANNEL: u16 = 0;

/// A second session that is begun and ended at once: the peer must answer, and nothing changes by it. The field for this in a
/// flow, `echo`, Artemis ignores (seen with 2.40).
const ECHO_CHANNEL: u16 = 1;

/// Sessions that the peer may begin; one is known to be begun, and nothing comes of it.
const FOREIGN_SESSIONS_MAX: u16 = 2;

/// The largest frame we take, in bytes: as Corda's nodes have it (PROTOCOL b.4).
pub(super) const FRAME_BYTES_MAX: u32 = 128 * 1024;

/// Links at once; more is a leak of ours.
const LINKS_MAX: u32 = 4_096;

/// Bytes that may wait to be written before more transfers are made: two of the largest frames.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Ids between the oldest send without an outcome and the newest. One that never gets an outcome must not make the list grow for
/// ever; no sender here has more than some thousands under way.
const UNSETTLED_SPAN_MAX: usize = 65_536;

pub(super) type Outcome = oneshot::Sender<Result<SendOutcome, AmqpError>>;
pub(super) type Attached<T> = oneshot::Sender<Result<T, AmqpError>>;

/// What the peer said of an attached link.
#[derive(Debug)]
pub(super) struct AttachedReceiver {
    pub handle: u32,
    /// The source as the peer has it: made up by it, if that was asked for.
    pub address: String,
    pub arrivals: mpsc::UnboundedReceiver<Incoming>,
}

/// A receiver to attach.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverOptions {
    /// Where from; `None` has the peer make up an address.
    pub address: Option<String>,
    /// Which messages.
    pub selector: Option<String>,
    /// Its turn among the receivers of one queue: higher ones are served first.
    pub priority: Option<i32>,
    /// The longest message, in bytes.
    pub message_bytes_max: usize,
}

#[derive(Debug)]
struct Link {
    /// The peer's handle, once it has attached.
    remote: Option<u32>,
    end: End,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// We asked; an answer is due.
    Attaching,
    Attached,
    /// We said that it ends, and wait for the peer to say so too.
    Detaching,
    /// The peer ended it; its owner has not let go yet.
    Ended,
}

#[derive(Debug)]
enum End {
    Sender {
        waiting: Option<Attached<u32>>,
        delivery_count: u32,
        credit: u32,
        queued: VecDeque<(Vec<u8>, Outcome)>,
        sending: Option<Sending>,
        /// Why it ended.
        error: Option<AmqpError>,
    },
    Receiver(Receiver),
}

#[derive(Debug)]
struct Receiver {
    waiting: Option<Attached<AttachedReceiver>>,
    bytes_max: usize,
    delivery_count: u32,
    /// Deliveries that the peer may still begin, as we told it last.
    credit: u32,
    /// How many deliveries the peer may have begun at most: credit that is taken back may be used already.
    limit: u32,
    assembly: Option<Assembly>,
    /// Bounded by the credit that its owner gives.
    arrivals: Option<mpsc::UnboundedSender<Incoming>>,
}

#[derive(Debug)]
struct Assembly {
    id: u32,
    bytes: Vec<u8>,
    frames: u32,
    /// It is longer than was allowed: the rest is read and forgotten.
    too_long: bool,
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Engine {
    output: Output,
    peer_frame_bytes_max: usize,
    /// The peer wants to hear something this often; milliseconds, 0 for never.
    pub(super) peer_idle_ms: u32,
    opened: bool,
    begun: bool,
    session: OutgoingSession,
    next_incoming_id: u32,
    /// Frames of messages that the peer may have us hold: this bounds memory whatever the size of messages.
    frames_max: u32,
    /// Frames of the messages that are not disposed of.
    frames_held: u32,
    /// The window as we told it last.
    window_told: u32,
    links: BTreeMap<u32, Link>,
    by_remote: HashMap<u32, u32>,
    by_name: HashMap<String, u32>,
    names: u64,
    /// Whose turn it is to send.
    turn: u32,
    unsettled: Unsettled<(u32, Outcome)>,
    /// Frames of each delivery that is not disposed of.
    undisposed: HashMap<u32, u32>,
    /// The number that the peer gave our session, which is on its frames.
    peer_channel: u16,
    /// Channels of sessions that the peer has begun.
    foreign: Vec<u16>,
    /// Those who want to know whether the peer still answers.
    echoes: Vec<oneshot::Sender<()>>,
    /// The second session has been begun and not ended yet.
    echoing: bool,
    pub(super) closed: bool,
}

fn protocol(error: impl std::fmt::Display) -> AmqpError {
    AmqpError::Protocol(error.to_string())
}

pub(super) fn refused(error: Option<ErrorInfo<'_>>, otherwise: &str) -> AmqpError {
    let error = error.unwrap_or(ErrorInfo { condition: "", description: None });
    AmqpError::Refused {
        condition: error.condition.to_owned(),
        description: error.description.unwrap_or(otherwise).to_owned(),
    }
}

impl Engine {
    /// A connection on which at most `frames_max` frames of messages are held, for messages of at most so many frames.
    pub(super) fn new(frames_max: u32) -> Self {
        Self {
            output: Output::default(),
            peer_frame_bytes_max: MIN_MAX_FRAME_SIZE,
            peer_idle_ms: 0,
            opened: false,
            begun: false,
            session: OutgoingSession { channel: CHANNEL, ..OutgoingSession::default() },
            next_incoming_id: 0,
            frames_max,
            frames_held: 0,
            window_told: frames_max,
            links: BTreeMap::new(),
            by_remote: HashMap::new(),
            by_name: HashMap::new(),
            names: 0,
            turn: 0,
            unsettled: Unsettled::default(),
            undisposed: HashMap::new(),
            peer_channel: CHANNEL,
            foreign: Vec::new(),
            echoes: Vec::new(),
            echoing: false,
            closed: false,
        }
    }

    /// Writes header, open and begin. `idle_ms` is how often the peer must say something.
    pub(super) fn write_opening(&mut self, container_id: &str, hostname: Option<&str>, idle_ms: u32) {
        let out = self.output.buffer();
        out.extend_from_slice(&HEADER_AMQP);
        let open = Open {
            container_id,
            hostname,
            max_frame_size: FRAME_BYTES_MAX,
            channel_max: ECHO_CHANNEL + FOREIGN_SESSIONS_MAX,
            idle_time_out: idle_ms,
        };
        open.write(out);
        self.write_begin(CHANNEL);
    }

    /// Whether the peer has opened the connection and the session.
    pub(super) fn is_open(&self) -> bool {
        self.opened && self.begun
    }

    pub(super) fn pending(&self) -> &[u8] {
        self.output.pending()
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.output.advance(count);
    }

    pub(super) fn write_heartbeat(&mut self) {
        performative::write_heartbeat(self.output.buffer());
    }

    pub(super) fn write_close(&mut self) {
        performative::write_close(self.output.buffer(), None);
    }

    fn attach(&mut self, end: End, source: Option<Terminus<'_>>, target: Option<Terminus<'_>>, priority: Option<i32>) {
        let Some(handle) = (0..LINKS_MAX).find(|handle| !self.links.contains_key(handle)) else {
            fail_end(end, &AmqpError::Protocol("too many links".to_owned()));
            return;
        };
        self.names += 1;
        let name = format!("link-{}", self.names);
        let (role, initial_delivery_count, max_message_size) = match &end {
            End::Sender { .. } => (Role::Sender, Some(0), 0),
            End::Receiver(receiver) => (Role::Receiver, None, receiver.bytes_max as u64),
        };
        let attach = Attach {
            name: &name,
            handle,
            role,
            snd_settle_mode: SENDER_UNSETTLED,
            rcv_settle_mode: 0,
            source,
            target,
            initial_delivery_count,
            max_message_size,
            priority,
        };
        attach.write(self.output.buffer(), CHANNEL);
        self.by_name.insert(name, handle);
        self.links.insert(handle, Link { remote: None, end, phase: Phase::Attaching });
    }

    /// Attaches a sender to the queue `address`.
    pub(super) fn attach_sender(&mut self, address: &str, queue: bool, attached: Attached<u32>) {
        let end = End::Sender {
            waiting: Some(attached),
            delivery_count: 0,
            credit: 0,
            queued: VecDeque::new(),
            sending: None,
            error: None,
        };
        let target = Terminus { queue, ..Terminus::at(address) };
        self.attach(end, Some(Terminus::at(address)), Some(target), None);
    }

    pub(super) fn attach_receiver(&mut self, options: &ReceiverOptions, attached: Attached<AttachedReceiver>) {
        let receiver = Receiver {
            waiting: Some(attached),
            bytes_max: options.message_bytes_max,
            delivery_count: 0,
            credit: 0,
            limit: 0,
            assembly: None,
            arrivals: None,
        };
        let address = options.address.as_deref();
        let source =
            Terminus { address, dynamic: address.is_none(), queue: false, selector: options.selector.as_deref() };
        let target = Terminus { address, ..Terminus::default() };
        self.attach(End::Receiver(receiver), Some(source), Some(target), options.priority);
    }

    /// Queues a message on a sender.
    pub(super) fn send(&mut self, handle: u32, message: Vec<u8>, outcome: Outcome) {
        // Whoever asked may be gone, here and below.
        match self.links.get_mut(&handle).map(|link| &mut link.end) {
            Some(End::Sender { error: Some(error), .. }) => drop(outcome.send(Err(error.clone()))),
            Some(End::Sender { queued, .. }) => queued.push_back((message, outcome)),
            _ => drop(outcome.send(Err(AmqpError::gone()))),
        }
    }

    /// Lets the peer have `credit` deliveries begun from now on, no matter how many it was given before.
    pub(super) fn set_credit(&mut self, handle: u32, credit: u32) {
        let Some(Link { end: End::Receiver(receiver), phase: Phase::Attached, .. }) = self.links.get_mut(&handle)
        else {
            return;
        };
        receiver.credit = credit;
        let limit = receiver.delivery_count.wrapping_add(credit);
        if limit.wrapping_sub(receiver.limit) <= u32::MAX / 2 {
            receiver.limit = limit;
        }
        let (delivery_count, credit) = (receiver.delivery_count, receiver.credit);
        self.write_flow(Some((handle, delivery_count, credit)), false);
    }

    /// Has the peer send what it has begun to, and give back the rest of the credit. Credit that is merely taken back may leave a
    /// message in between: Artemis has given it to this link already, and then holds it (seen with 2.40).
    pub(super) fn drain(&mut self, handle: u32) {
        if let Some(Link { end: End::Receiver(receiver), phase: Phase::Attached, .. }) = self.links.get(&handle) {
            let state = (handle, receiver.delivery_count, receiver.limit.wrapping_sub(receiver.delivery_count));
            self.write_flow(Some(state), true);
        }
    }

    /// Settles a delivery; one that is settled already, or never was, is ignored.
    pub(super) fn dispose(&mut self, id: u32, disposal: Disposal) {
        let Some(frames) = self.undisposed.remove(&id) else { return };
        self.frames_held -= frames;
        let state = Some(match disposal {
            Disposal::Accept => DeliveryState::Accepted,
            Disposal::Release => DeliveryState::Released,
            Disposal::Failed => DeliveryState::Modified { failed: true },
            Disposal::Reject => DeliveryState::Rejected(None),
        });
        let disposition = Disposition { role: Role::Receiver, first: id, last: id, settled: true, state };
        disposition.write(self.output.buffer(), CHANNEL);
        // The peer must not wait for a window that opened long ago.
        if self.window_told < self.frames_max / 2 && self.window() >= self.frames_max / 2 {
            self.write_flow(None, false);
        }
    }

    /// Its owner has let go of a link.
    pub(super) fn detach(&mut self, handle: u32) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        match link.phase {
            Phase::Ended => self.forget(handle),
            Phase::Detaching => {}
            Phase::Attaching | Phase::Attached => {
                link.phase = Phase::Detaching;
                fail_sends(&mut link.end, &AmqpError::gone());
                self.fail_unsettled(handle, &AmqpError::gone());
                Detach { handle, closed: true, error: None }.write(self.output.buffer(), CHANNEL);
            }
        }
    }

    fn forget(&mut self, handle: u32) {
        if let Some(Link { remote: Some(remote), .. }) = self.links.remove(&handle) {
            self.by_remote.remove(&remote);
        }
        self.by_name.retain(|_, known| *known != handle);
    }

    fn fail_unsettled(&mut self, handle: u32, error: &AmqpError) {
        self.unsettled.settle_where(|(of, _)| *of == handle, |(_, outcome)| drop(outcome.send(Err(error.clone()))));
    }

    /// The connection is over: everyone who waits is told.
    pub(super) fn fail(&mut self, error: &AmqpError) {
        self.closed = true;
        self.unsettled.settle_where(|_| true, |(_, outcome)| drop(outcome.send(Err(error.clone()))));
        for (_, link) in std::mem::take(&mut self.links) {
            fail_end(link.end, error);
        }
    }

    /// Takes the frames that are whole.
    ///
    /// # Errors
    /// [`AmqpError`] if the peer breaks the protocol or ends the connection with a reason.
    pub(super) fn on_input(&mut self, input: &mut Vec<u8>) -> Result<(), AmqpError> {
        let mut consumed = 0;
        while !self.closed {
            let rest = &input[consumed..];
            let size = match frame::size(rest, FRAME_BYTES_MAX as usize).map_err(protocol)? {
                Some(size) if size <= rest.len() => size,
                _ => break,
            };
            let frame = frame::parse(&rest[..size], FrameType::Amqp).map_err(protocol)?;
            if !frame.body.is_empty() {
                let (said, payload) = Performative::decode(frame.body).map_err(protocol)?;
                self.on_performative(frame.channel, said, payload)?;
            }
            consumed += size;
        }
        input.drain(..consumed);
        Ok(())
    }

    fn on_performative(&mut self, channel: u16, said: Performative<'_>, payload: &[u8]) -> Result<(), AmqpError> {
        if self.foreign.contains(&channel) {
            return match said {
                // It may be ended, and its channel used again.
                Performative::End(_) => {
                    self.foreign.retain(|foreign| *foreign != channel);
                    Ok(())
                }
                Performative::Flow(_) => Ok(()),
                Performative::Attach(_) => Err(protocol("a link that we did not ask for")),
                _ => Err(protocol("a frame of no session of ours")),
            };
        }
        let ours = channel == self.peer_channel;
        match said {
            // Corda's own server, such as the border of its firewall, begins one on every connection and never uses it. It is left
            // without an answer: if it were ended, that server would end the connection.
            Performative::Begin(Begin { remote_channel: None, .. }) => {
                if self.foreign.len() >= usize::from(FOREIGN_SESSIONS_MAX) || (self.begun && ours) {
                    return Err(protocol("a session that we did not ask for"));
                }
                self.foreign.push(channel);
            }
            Performative::Begin(Begin { remote_channel: Some(ECHO_CHANNEL), .. }) if self.echoing => {
                for heard in self.echoes.drain(..) {
                    // Whoever asked may have given up.
                    let _ = heard.send(());
                }
                performative::write_end(self.output.buffer(), ECHO_CHANNEL, None);
            }
            Performative::End(_) if self.begun && !ours && self.echoing => self.echoing = false,
            Performative::Begin(_) if self.begun => return Err(protocol("a session that we did not ask for")),
            Performative::Begin(begin) => {
                self.begun = true;
                self.peer_channel = channel;
                self.session.window = begin.incoming_window;
                self.next_incoming_id = begin.next_outgoing_id;
            }
            Performative::Open(open) => {
                self.opened = true;
                self.peer_frame_bytes_max = (open.max_frame_size as usize).max(MIN_MAX_FRAME_SIZE);
                self.peer_idle_ms = open.idle_time_out;
            }
            Performative::Flow(_) if !ours && self.echoing => {}
            Performative::Close(Some(error)) => return Err(refused(Some(error), "")),
            Performative::Close(None) => self.closed = true,
            _ if !ours => return Err(protocol("a frame of no session of ours")),
            Performative::Attach(attach) => self.on_attach(&attach)?,
            Performative::Flow(flow) => self.on_flow(&flow),
            Performative::Transfer(transfer) => self.on_transfer(&transfer, payload)?,
            Performative::Disposition(disposition) => self.on_disposition(&disposition),
            Performative::Detach(detach) => self.on_detach(detach)?,
            Performative::End(error) => return Err(refused(error, "the session was ended")),
        }
        Ok(())
    }

    fn on_attach(&mut self, attach: &Attach<'_>) -> Result<(), AmqpError> {
        let handle = self.by_name.get(attach.name).copied();
        let Some((handle, link)) = handle.and_then(|handle| Some((handle, self.links.get_mut(&handle)?))) else {
            return Err(protocol("a link that we did not ask for"));
        };
        if link.remote.is_some() || self.by_remote.insert(attach.handle, handle).is_some() {
            return Err(protocol("a link or a handle twice"));
        }
        link.remote = Some(attach.handle);
        if !matches!(link.phase, Phase::Attaching) {
            return Ok(());
        }
        let mut wanted = true;
        match &mut link.end {
            End::Sender { waiting, .. } => {
                // Without a target the link is refused: a detach with the reason follows.
                if attach.target.as_ref().is_some_and(|target| target.address.is_some()) {
                    link.phase = Phase::Attached;
                    wanted = waiting.take().is_some_and(|waiting| waiting.send(Ok(handle)).is_ok());
                }
            }
            End::Receiver(receiver) => {
                let source = attach.source.as_ref().and_then(|source| source.address);
                if let Some(address) = source {
                    link.phase = Phase::Attached;
                    receiver.delivery_count = attach.initial_delivery_count.unwrap_or(0);
                    receiver.limit = receiver.delivery_count;
                    let (arrivals, arrived) = mpsc::unbounded_channel();
                    receiver.arrivals = Some(arrivals);
                    let attached = AttachedReceiver { handle, address: address.to_owned(), arrivals: arrived };
                    wanted = receiver.waiting.take().is_some_and(|waiting| waiting.send(Ok(attached)).is_ok());
                }
            }
        }
        if !wanted {
            // Whoever asked has given up meanwhile.
            self.detach(handle);
        }
        Ok(())
    }

    /// Asks for a sign of life that is not a matter of time.
    pub(super) fn echo(&mut self, heard: oneshot::Sender<()>) {
        self.echoes.retain(|waiting| !waiting.is_closed());
        self.echoes.push(heard);
        if !self.echoing {
            self.echoing = true;
            self.write_begin(ECHO_CHANNEL);
        }
    }

    fn write_begin(&mut self, channel: u16) {
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: self.frames_max,
            outgoing_window: SESSION_WINDOW,
            handle_max: LINKS_MAX,
        };
        begin.write(self.output.buffer(), channel);
    }

    fn on_flow(&mut self, flow: &Flow) {
        self.session.on_flow(flow.next_incoming_id, flow.incoming_window);
        let link = flow.handle.and_then(|remote| self.by_remote.get(&remote));
        match link.and_then(|handle| self.links.get_mut(handle)).map(|link| &mut link.end) {
            Some(End::Sender { delivery_count, credit, .. }) => {
                let ahead = delivery_count.wrapping_sub(flow.delivery_count.unwrap_or(0));
                *credit = flow.link_credit.unwrap_or(0).saturating_sub(ahead);
            }
            Some(End::Receiver(receiver)) => {
                // Credit that the peer has drained counts as used; it cannot use what it was never given.
                let used = flow.delivery_count.map_or(0, |count| count.wrapping_sub(receiver.delivery_count));
                if used <= receiver.limit.wrapping_sub(receiver.delivery_count) {
                    receiver.delivery_count = receiver.delivery_count.wrapping_add(used);
                    receiver.credit = receiver.credit.saturating_sub(used);
                }
            }
            None => {}
        }
        if flow.echo {
            self.write_flow(None, false);
        }
    }

    fn window(&self) -> u32 {
        self.frames_max.saturating_sub(self.frames_held)
    }

    fn write_flow(&mut self, link: Option<(u32, u32, u32)>, drain: bool) {
        self.window_told = self.window();
        let flow = Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: self.window_told,
            next_outgoing_id: self.session.next_outgoing_id,
            outgoing_window: SESSION_WINDOW,
            handle: link.map(|(handle, ..)| handle),
            delivery_count: link.map(|(_, count, _)| count),
            link_credit: link.map(|(.., credit)| credit),
            drain,
            ..Flow::default()
        };
        flow.write(self.output.buffer(), CHANNEL);
    }

    fn on_transfer(&mut self, transfer: &Transfer<'_>, payload: &[u8]) -> Result<(), AmqpError> {
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        if self.frames_held >= self.frames_max {
            return Err(protocol("a frame beyond the window"));
        }
        self.window_told = self.window_told.saturating_sub(1);
        let link = self.by_remote.get(&transfer.handle).and_then(|handle| self.links.get_mut(handle));
        let Some(Link { end: End::Receiver(receiver), phase, .. }) = link else {
            return Err(protocol("a message on a link that takes none"));
        };
        let mut assembly = match receiver.assembly.take() {
            Some(assembly) => assembly,
            None => {
                let id = transfer.delivery_id.ok_or_else(|| protocol("a delivery without an id"))?;
                if self.undisposed.contains_key(&id) {
                    return Err(protocol("a delivery id that is in use"));
                }
                if receiver.delivery_count == receiver.limit {
                    return Err(protocol("a delivery without credit"));
                }
                receiver.delivery_count = receiver.delivery_count.wrapping_add(1);
                receiver.credit = receiver.credit.saturating_sub(1);
                Assembly { id, bytes: Vec::new(), frames: 0, too_long: false }
            }
        };
        if transfer.aborted {
            self.frames_held -= assembly.frames;
            return Ok(());
        }
        if assembly.bytes.len() + payload.len() > receiver.bytes_max {
            self.frames_held -= assembly.frames;
            assembly = Assembly { id: assembly.id, bytes: Vec::new(), frames: 0, too_long: true };
        }
        if !assembly.too_long {
            assembly.bytes.extend_from_slice(payload);
            assembly.frames += 1;
            self.frames_held += 1;
        }
        if transfer.more {
            receiver.assembly = Some(assembly);
            return Ok(());
        }
        let Assembly { id, bytes, frames, too_long } = assembly;
        if transfer.settled {
            self.frames_held -= frames;
        } else {
            self.undisposed.insert(id, frames);
        }
        let incoming = Incoming { id, message: (!too_long).then_some(bytes) };
        let attached = matches!(phase, Phase::Attached);
        let gone = receiver.arrivals.as_ref().is_none_or(|arrivals| !attached || arrivals.send(incoming).is_err());
        if gone {
            self.dispose(id, Disposal::Release);
        }
        Ok(())
    }

    fn on_disposition(&mut self, disposition: &Disposition<'_>) {
        if disposition.role == Role::Sender {
            // We settle ourselves, and at once; there is nothing left that the peer could settle.
            return;
        }
        let outcome = match &disposition.state {
            Some(DeliveryState::Accepted) => SendOutcome::Accepted,
            Some(DeliveryState::Released | DeliveryState::Modified { .. }) => SendOutcome::Released,
            Some(DeliveryState::Rejected(error)) => {
                let text = |error: &ErrorInfo<'_>| error.description.unwrap_or(error.condition).to_owned();
                SendOutcome::Rejected { reason: error.as_ref().map_or_else(String::new, text) }
            }
            // Settled without saying how: not known to be safe.
            None if disposition.settled => SendOutcome::Released,
            None | Some(DeliveryState::Other) => return,
        };
        self.unsettled
            .settle(disposition.first, disposition.last, |(_, waiting)| drop(waiting.send(Ok(outcome.clone()))));
        if !disposition.settled {
            let settled = Disposition { role: Role::Sender, settled: true, state: None, ..disposition.clone() };
            settled.write(self.output.buffer(), CHANNEL);
        }
    }

    fn on_detach(&mut self, detach: Detach<'_>) -> Result<(), AmqpError> {
        let Some(handle) = self.by_remote.get(&detach.handle).copied() else {
            return Err(protocol("a link ends that never began"));
        };
        let Some(link) = self.links.get_mut(&handle) else { return Ok(()) };
        if matches!(link.phase, Phase::Detaching) {
            self.forget(handle);
            return Ok(());
        }
        let refused_at_once = matches!(link.phase, Phase::Attaching);
        let error = refused(detach.error, "the link was closed");
        link.phase = Phase::Ended;
        match &mut link.end {
            End::Sender { waiting, error: ended, .. } => {
                *ended = Some(error.clone());
                if let Some(waiting) = waiting.take() {
                    drop(waiting.send(Err(error.clone())));
                }
            }
            End::Receiver(receiver) => {
                if let Some(waiting) = receiver.waiting.take() {
                    drop(waiting.send(Err(error.clone())));
                }
                // Its owner sees the end of the channel.
                receiver.arrivals = None;
                if let Some(assembly) = receiver.assembly.take() {
                    self.frames_held -= assembly.frames;
                }
            }
        }
        fail_sends(&mut link.end, &error);
        self.fail_unsettled(handle, &error);
        Detach { handle, closed: true, error: None }.write(self.output.buffer(), CHANNEL);
        if refused_at_once {
            // Nobody owns what was never attached.
            self.forget(handle);
        }
        Ok(())
    }

    /// Sends on as far as credit, window and room allow; links take turns, a message at a time.
    pub(super) fn pump(&mut self) {
        let frame_max = self.peer_frame_bytes_max.min(FRAME_BYTES_MAX as usize);
        loop {
            let room = self.session.window > 0
                && self.output.pending().len() < OUTPUT_BYTES_MAX
                && self.unsettled.span() < UNSETTLED_SPAN_MAX;
            let ready = |link: &Link| match &link.end {
                End::Sender { sending, credit, queued, .. } => sending.is_some() || (*credit > 0 && !queued.is_empty()),
                End::Receiver(_) => false,
            };
            let mut turns = self.links.range(self.turn..).chain(self.links.range(..self.turn));
            let next = turns.find(|(_, link)| ready(link)).map(|(handle, _)| *handle);
            let Some(handle) = next.filter(|_| room) else { return };
            let Some(Link { end: End::Sender { delivery_count, credit, queued, sending, .. }, .. }) =
                self.links.get_mut(&handle)
            else {
                return;
            };
            let mut part = match sending.take() {
                Some(part) => part,
                None => {
                    let Some((message, outcome)) = queued.pop_front() else { return };
                    *credit -= 1;
                    *delivery_count = delivery_count.wrapping_add(1);
                    let delivery_id = self.unsettled.push((handle, outcome));
                    Sending { delivery_id, message, offset: 0 }
                }
            };
            if part.pump(&mut self.session, handle, frame_max, self.output.buffer(), OUTPUT_BYTES_MAX) {
                self.turn = handle + 1;
            } else {
                *sending = Some(part);
                return;
            }
        }
    }
}

/// Messages that were not sent have no outcome any more.
fn fail_sends(end: &mut End, error: &AmqpError) {
    if let End::Sender { queued, sending, .. } = end {
        *sending = None;
        for (_, outcome) in queued.drain(..) {
            drop(outcome.send(Err(error.clone())));
        }
    }
}

fn fail_end(mut end: End, error: &AmqpError) {
    fail_sends(&mut end, error);
    match end {
        End::Sender { waiting: Some(waiting), .. } => drop(waiting.send(Err(error.clone()))),
        End::Receiver(Receiver { waiting: Some(waiting), .. }) => drop(waiting.send(Err(error.clone()))),
        _ => {}
    }
}
