//! The task that owns a client's connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use zeroize::Zeroizing;

use super::super::amqp::frame::{self, FrameType, Output};
use super::super::amqp::message::Message;
use super::super::amqp::performative::{
    self, Attach, Begin, DeliveryState, Disposition, ErrorInfo, Flow, Open, Performative, Role, SENDER_UNSETTLED, Sasl,
    Terminus, Transfer,
};
use super::super::amqp::stream::{ReadError, read_frame, read_header};
use super::super::amqp::transfer::{OutgoingSession, Sending, Unsettled};
use super::super::amqp::{HEADER_AMQP, HEADER_SASL, MIN_MAX_FRAME_SIZE, SESSION_WINDOW};
use super::super::{Answer, Outcome};
use super::{ClientError, Listen, Options};

const CHANNEL: u16 = 0;
const REQUESTS: u32 = 0;
const ANSWERS: u32 = 1;

/// The largest frame we take, in bytes: as Corda's nodes have it (PROTOCOL b.4).
const FRAME_BYTES_MAX: u32 = 128 * 1024;

/// How much is read at once.
const READ_BYTES: usize = 32 * 1024;

/// Bytes that may wait to be written before more are made: two of the largest frames.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// The endpoint must say something this often, as Corda asks (PROTOCOL b.4); we give it twice the time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handles ask of the task.
#[derive(Debug)]
pub(super) enum Submission {
    Request { message: Vec<u8>, outcome: oneshot::Sender<Result<Outcome, ClientError>> },
    Close(oneshot::Sender<()>),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Driver {
    reader: ReadHalf<TcpStream>,
    writer: WriteHalf<TcpStream>,
    state: State,
}

#[derive(Debug)]
struct State {
    output: Output,
    server_frame_bytes_max: usize,
    server_idle_timeout: Option<Duration>,
    session: OutgoingSession,
    next_incoming_id: u32,
    /// Requests begun, and how many more may be.
    delivery_count: u32,
    credit: u32,
    window: usize,
    in_flight: usize,
    sending: Option<Sending>,
    unsettled: Unsettled<oneshot::Sender<Result<Outcome, ClientError>>>,
    answers: AnswerLink,
    /// Attach frames that have not been answered.
    attaching: usize,
    dynamic_address: Option<String>,
    closed: bool,
}

#[derive(Debug)]
struct AnswerLink {
    /// 0 if there is no such link.
    credit_max: u32,
    bytes_max: usize,
    delivery_count: u32,
    /// Answers the endpoint may still send.
    credit: u32,
    /// Answers that arrived and were not taken.
    untaken: u32,
    assembly: Option<(u32, Vec<u8>)>,
    arrivals: mpsc::UnboundedSender<(u32, Answer)>,
}

impl From<ReadError> for ClientError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Connection(error.to_string()),
            ReadError::Frame(error) => Self::Protocol(error.to_string()),
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}

impl Driver {
    /// Authenticates, opens a session and attaches the links.
    pub(super) async fn open(
        mut stream: TcpStream,
        options: &Options,
        arrivals: mpsc::UnboundedSender<(u32, Answer)>,
    ) -> Result<Self, ClientError> {
        authenticate(&mut stream, &options.user, &options.password).await?;
        let mut state = State::new(options, arrivals);
        state.write_opening(options);
        stream.write_all(state.output.pending()).await?;
        let written = state.output.pending().len();
        state.output.advance(written);

        if read_header(&mut stream).await? != HEADER_AMQP {
            return Err(protocol("no AMQP 1.0 header after SASL"));
        }
        while state.attaching > 0 {
            let body = read_frame(&mut stream, FrameType::Amqp, FRAME_BYTES_MAX as usize).await?;
            let (said, payload) = Performative::decode(&body).map_err(protocol)?;
            state.on_performative(said, payload)?;
            if state.closed {
                return Err(protocol("closed without a reason"));
            }
        }
        let (reader, writer) = tokio::io::split(stream);
        Ok(Self { reader, writer, state })
    }

    /// The address that the endpoint made up for answers.
    pub(super) fn dynamic_address(&self) -> Option<&str> {
        self.state.dynamic_address.as_deref()
    }

    /// Carries requests and answers until one side ends it.
    pub(super) async fn run(mut self, submissions: mpsc::Receiver<Submission>, accepts: mpsc::UnboundedReceiver<u32>) {
        let error = match self.converse(submissions, accepts).await {
            Ok(()) => super::gone(),
            Err(error) => error,
        };
        self.state.unsettled.settle_where(
            |_| true,
            |outcome| {
                // A sender that is gone no longer wants to know.
                let _ = outcome.send(Err(error.clone()));
            },
        );
    }

    async fn converse(
        &mut self,
        mut submissions: mpsc::Receiver<Submission>,
        mut accepts: mpsc::UnboundedReceiver<u32>,
    ) -> Result<(), ClientError> {
        let Self { reader, writer, state } = self;
        let mut input: Vec<u8> = Vec::new();
        let promised = state.server_idle_timeout.map_or(IDLE_TIMEOUT, |theirs| theirs.min(IDLE_TIMEOUT));
        // Never zero, which the interval does not take.
        let mut tick = interval((promised / 4).max(Duration::from_millis(10)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last_read, mut last_written) = (Instant::now(), Instant::now());
        let (mut sends, mut takes) = (true, true);
        let mut closing: Option<oneshot::Sender<()>> = None;
        while !state.closed && (sends || takes || closing.is_some()) {
            state.pump();
            tokio::select! {
                biased;
                accepted = accepts.recv(), if takes => match accepted {
                    Some(first) => state.accept(first, &mut accepts),
                    None => takes = false,
                },
                submission = submissions.recv(), if sends && state.can_send() => match submission {
                    Some(Submission::Request { message, outcome }) => state.begin(message, outcome),
                    Some(Submission::Close(done)) => {
                        performative::write_close(state.output.buffer(), None);
                        closing = Some(done);
                        sends = false;
                    }
                    None => sends = false,
                },
                written = writer.write(state.output.pending()), if !state.output.pending().is_empty() => match written? {
                    0 => return Err(super::gone()),
                    count => {
                        state.output.advance(count);
                        last_written = Instant::now();
                    }
                },
                read = read_some(reader, &mut input) => match read? {
                    0 => return Err(super::gone()),
                    _ => {
                        last_read = Instant::now();
                        state.on_input(&mut input)?;
                    }
                },
                _ = tick.tick() => {
                    let now = Instant::now();
                    if state.server_idle_timeout.is_some_and(|theirs| now.duration_since(last_written) >= theirs / 2) {
                        performative::write_heartbeat(state.output.buffer());
                    }
                    if now.duration_since(last_read) >= 2 * IDLE_TIMEOUT {
                        return Err(ClientError::TimedOut("a sign of life from the endpoint"));
                    }
                }
            }
        }
        if let Some(done) = closing {
            // Whoever asked may be gone.
            let _ = done.send(());
        }
        Ok(())
    }
}

/// SASL PLAIN.
async fn authenticate(stream: &mut TcpStream, user: &str, password: &str) -> Result<(), ClientError> {
    stream.write_all(&HEADER_SASL).await?;
    if read_header(stream).await? != HEADER_SASL {
        return Err(protocol("no SASL"));
    }
    let body = read_frame(stream, FrameType::Sasl, FRAME_BYTES_MAX as usize).await?;
    match Sasl::decode(&body).map_err(protocol)? {
        Sasl::Mechanisms { plain: true, .. } => {}
        _ => return Err(protocol("the endpoint does not offer PLAIN")),
    }
    let response = Zeroizing::new(format!("\0{user}\0{password}"));
    let mut init = Zeroizing::new(Vec::new());
    Sasl::Init { mechanism: performative::PLAIN, response: Some(response.as_bytes()) }.write(&mut init);
    stream.write_all(&init).await?;
    let body = read_frame(stream, FrameType::Sasl, FRAME_BYTES_MAX as usize).await?;
    match Sasl::decode(&body).map_err(protocol)? {
        Sasl::Outcome { code: 0 } => Ok(()),
        Sasl::Outcome { .. } => Err(ClientError::Unauthenticated),
        _ => Err(protocol("no SASL outcome")),
    }
}

impl State {
    fn new(options: &Options, arrivals: mpsc::UnboundedSender<(u32, Answer)>) -> Self {
        let listens = options.listen != Listen::Not;
        Self {
            output: Output::default(),
            server_frame_bytes_max: MIN_MAX_FRAME_SIZE,
            server_idle_timeout: None,
            session: OutgoingSession { channel: CHANNEL, ..OutgoingSession::default() },
            next_incoming_id: 0,
            delivery_count: 0,
            credit: 0,
            window: options.window.max(1),
            in_flight: 0,
            sending: None,
            unsettled: Unsettled::default(),
            answers: AnswerLink {
                credit_max: if listens { options.answer_credit.max(1) } else { 0 },
                bytes_max: options.answer_bytes_max,
                delivery_count: 0,
                credit: 0,
                untaken: 0,
                assembly: None,
                arrivals,
            },
            attaching: 1 + usize::from(listens),
            dynamic_address: None,
            closed: false,
        }
    }

    /// All that needs no answer in between: header, open, begin, the links.
    fn write_opening(&mut self, options: &Options) {
        let out = self.output.buffer();
        out.extend_from_slice(&HEADER_AMQP);
        let open = Open {
            container_id: &options.user,
            hostname: None,
            max_frame_size: FRAME_BYTES_MAX,
            channel_max: CHANNEL,
            idle_time_out: IDLE_TIMEOUT.as_millis() as u32,
        };
        open.write(out);
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: SESSION_WINDOW,
            outgoing_window: SESSION_WINDOW,
            handle_max: ANSWERS,
        };
        begin.write(out, CHANNEL);
        let requests = Attach {
            name: "requests",
            handle: REQUESTS,
            role: Role::Sender,
            snd_settle_mode: SENDER_UNSETTLED,
            rcv_settle_mode: 0,
            source: Some(Terminus::at(&options.request_address)),
            target: Some(Terminus::at(&options.request_address)),
            initial_delivery_count: Some(0),
            max_message_size: 0,
            priority: None,
        };
        requests.write(out, CHANNEL);
        let source = match &options.listen {
            Listen::Not => return,
            Listen::Inbox(address) => Terminus::at(address),
            Listen::Dynamic => Terminus { dynamic: true, ..Terminus::default() },
        };
        let answers = Attach {
            name: "answers",
            handle: ANSWERS,
            role: Role::Receiver,
            target: Some(Terminus { address: source.address, ..Terminus::default() }),
            source: Some(source),
            initial_delivery_count: None,
            max_message_size: options.answer_bytes_max as u64,
            ..requests
        };
        answers.write(out, CHANNEL);
    }

    fn on_input(&mut self, input: &mut Vec<u8>) -> Result<(), ClientError> {
        let mut consumed = 0;
        while !self.closed {
            let rest = &input[consumed..];
            let size = match frame::size(rest, FRAME_BYTES_MAX as usize).map_err(protocol)? {
                Some(size) if size <= rest.len() => size,
                _ => break,
            };
            let body = frame::parse(&rest[..size], FrameType::Amqp).map_err(protocol)?.body;
            if !body.is_empty() {
                let (said, payload) = Performative::decode(body).map_err(protocol)?;
                self.on_performative(said, payload)?;
            }
            consumed += size;
        }
        input.drain(..consumed);
        Ok(())
    }

    fn on_performative(&mut self, said: Performative<'_>, payload: &[u8]) -> Result<(), ClientError> {
        match said {
            Performative::Open(open) => {
                self.server_frame_bytes_max = (open.max_frame_size as usize).max(MIN_MAX_FRAME_SIZE);
                self.server_idle_timeout =
                    (open.idle_time_out > 0).then(|| Duration::from_millis(open.idle_time_out.into()));
            }
            Performative::Begin(begin) => {
                self.session.window = begin.incoming_window;
                self.next_incoming_id = begin.next_outgoing_id;
            }
            Performative::Attach(attach) => self.on_attach(&attach),
            Performative::Flow(flow) => self.on_flow(&flow),
            Performative::Transfer(transfer) => self.on_transfer(&transfer, payload)?,
            Performative::Disposition(disposition) => self.on_disposition(&disposition),
            Performative::Detach(detach) => return Err(refused(detach.error, "the link was closed")),
            Performative::End(error) => return Err(refused(error, "the session was ended")),
            Performative::Close(Some(error)) => return Err(refused(Some(error), "")),
            Performative::Close(None) => self.closed = true,
        }
        Ok(())
    }

    fn on_attach(&mut self, attach: &Attach<'_>) {
        // Without the terminus that we asked for the link is refused: a detach with the reason follows.
        let terminus = if attach.handle == REQUESTS { &attach.target } else { &attach.source };
        let Some(terminus) = terminus else { return };
        self.attaching = self.attaching.saturating_sub(1);
        if attach.handle == ANSWERS && terminus.dynamic {
            self.dynamic_address = terminus.address.map(str::to_owned);
        }
    }

    fn on_flow(&mut self, flow: &Flow) {
        self.next_incoming_id = flow.next_outgoing_id;
        self.session.on_flow(flow.next_incoming_id, flow.incoming_window);
        if flow.handle == Some(REQUESTS) {
            let ahead = self.delivery_count.wrapping_sub(flow.delivery_count.unwrap_or(0));
            self.credit = flow.link_credit.unwrap_or(0).saturating_sub(ahead);
        }
    }

    /// Whether another request may be begun now.
    fn can_send(&self) -> bool {
        self.credit > 0
            && self.sending.is_none()
            && self.session.window > 0
            && self.in_flight < self.window
            // One that is never disposed of must not make the list grow for ever.
            && self.unsettled.span() < 64 * self.window
            && self.output.pending().len() < OUTPUT_BYTES_MAX
    }

    fn begin(&mut self, message: Vec<u8>, outcome: oneshot::Sender<Result<Outcome, ClientError>>) {
        self.credit -= 1;
        self.delivery_count = self.delivery_count.wrapping_add(1);
        self.in_flight += 1;
        let delivery_id = self.unsettled.push(outcome);
        self.sending = Some(Sending { delivery_id, message, offset: 0 });
    }

    /// Sends on, and gives credit for answers once half of it is used.
    fn pump(&mut self) {
        if let Some(sending) = &mut self.sending {
            let frame_max = self.server_frame_bytes_max.min(FRAME_BYTES_MAX as usize);
            if sending.pump(&mut self.session, REQUESTS, frame_max, self.output.buffer(), OUTPUT_BYTES_MAX) {
                self.sending = None;
            }
        }
        let answers = &mut self.answers;
        let due = answers.credit_max - answers.untaken.min(answers.credit_max);
        if due > answers.credit && answers.credit <= answers.credit_max / 2 {
            answers.credit = due;
            let flow = Flow {
                next_incoming_id: Some(self.next_incoming_id),
                incoming_window: SESSION_WINDOW,
                next_outgoing_id: self.session.next_outgoing_id,
                outgoing_window: SESSION_WINDOW,
                handle: Some(ANSWERS),
                delivery_count: Some(answers.delivery_count),
                link_credit: Some(due),
                ..Flow::default()
            };
            flow.write(self.output.buffer(), CHANNEL);
        }
    }

    fn on_transfer(&mut self, transfer: &Transfer<'_>, payload: &[u8]) -> Result<(), ClientError> {
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        let answers = &mut self.answers;
        if transfer.handle != ANSWERS {
            return Err(protocol("a message on a link of ours"));
        }
        let (id, mut bytes) = match answers.assembly.take() {
            Some(assembly) => assembly,
            None => {
                let id = transfer.delivery_id.ok_or_else(|| protocol("a delivery without an id"))?;
                answers.credit = answers.credit.checked_sub(1).ok_or_else(|| protocol("an answer without credit"))?;
                answers.delivery_count = answers.delivery_count.wrapping_add(1);
                (id, Vec::new())
            }
        };
        if transfer.aborted {
            return Ok(());
        }
        if bytes.len() + payload.len() > answers.bytes_max {
            return Err(protocol("an answer that is too long"));
        }
        bytes.extend_from_slice(payload);
        if transfer.more {
            answers.assembly = Some((id, bytes));
            return Ok(());
        }
        let message = Message::decode(&bytes).map_err(protocol)?;
        let answer = Answer {
            dedup_id: message.dedup_id.unwrap_or_default().to_owned(),
            platform_version: message.platform_version,
            worker: message.validated_user.map(str::to_owned),
            headers: message.text_properties().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: message.body.into_owned(),
        };
        answers.untaken += 1;
        // If nobody takes answers any more they stay unaccepted, which is the truth.
        let _ = answers.arrivals.send((id, answer));
        Ok(())
    }

    fn on_disposition(&mut self, disposition: &Disposition<'_>) {
        let outcome = match (disposition.role, &disposition.state) {
            (Role::Sender, _) | (Role::Receiver, None | Some(DeliveryState::Other)) => return,
            (Role::Receiver, Some(DeliveryState::Accepted)) => Outcome::Accepted,
            (Role::Receiver, Some(DeliveryState::Released | DeliveryState::Modified { .. })) => Outcome::Released,
            (Role::Receiver, Some(DeliveryState::Rejected(error))) => {
                let reason = error.as_ref().map_or("", |error| error.description.unwrap_or(error.condition));
                Outcome::Rejected { reason: reason.to_owned() }
            }
        };
        let in_flight = &mut self.in_flight;
        self.unsettled.settle(disposition.first, disposition.last, |waiting| {
            *in_flight -= 1;
            // A sender that is gone no longer wants to know.
            let _ = waiting.send(Ok(outcome.clone()));
        });
    }

    /// Accepts what was taken, a run of consecutive deliveries at a time.
    fn accept(&mut self, first: u32, accepts: &mut mpsc::UnboundedReceiver<u32>) {
        let mut run = (first, first);
        self.answers.untaken -= 1;
        while let Ok(next) = accepts.try_recv() {
            self.answers.untaken -= 1;
            if next == run.1.wrapping_add(1) {
                run.1 = next;
            } else {
                self.write_accepted(run);
                run = (next, next);
            }
        }
        self.write_accepted(run);
    }

    fn write_accepted(&mut self, (first, last): (u32, u32)) {
        let state = Some(DeliveryState::Accepted);
        let disposition = Disposition { role: Role::Receiver, first, last, settled: true, state };
        disposition.write(self.output.buffer(), CHANNEL);
    }
}

fn refused(error: Option<ErrorInfo<'_>>, otherwise: &str) -> ClientError {
    let error = error.unwrap_or(ErrorInfo { condition: "", description: None });
    ClientError::Refused {
        condition: error.condition.to_owned(),
        description: error.description.unwrap_or(otherwise).to_owned(),
    }
}

async fn read_some(reader: &mut ReadHalf<TcpStream>, input: &mut Vec<u8>) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}
