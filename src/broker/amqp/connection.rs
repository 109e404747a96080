//! A connection that we open to an AMQP 1.0 broker: TCP or TLS, SASL, one session, links both ways. One task owns the socket;
//! handles ask it for things and wait for what the broker says.
//!
//! Nothing is repeated or reconnected here. Every step ends in time, with a result or an error that says what happened; what to
//! do then is the caller's decision.

mod engine;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

pub(crate) use self::engine::ReceiverOptions;
use self::engine::{Attached, AttachedReceiver, Engine, FRAME_BYTES_MAX, Outcome};
use super::frame::FrameType;
use super::performative::{self, Sasl};
use super::stream::{ReadError, read_frame, read_header};
use super::{HEADER_AMQP, HEADER_SASL};

/// Nothing is read while so many bytes wait to be written: a peer that asks and asks, and does not read, must not make them grow.
const BACKLOG_BYTES_MAX: usize = 1 << 20;

/// How much is read at once.
const READ_BYTES: usize = 32 * 1024;

/// Why it did not work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AmqpError {
    /// The peer cannot be reached, or the connection broke.
    #[error("connection: {0}")]
    Connection(String),
    /// A step took too long.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// Unknown user, wrong password, or no mechanism in common.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// The peer ended the link or the connection, or refused it, and said why.
    #[error("{condition}: {description}")]
    Refused {
        /// AMQP error condition.
        condition: String,
        /// For people.
        description: String,
    },
    /// The peer does not speak AMQP 1.0 as it should.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl AmqpError {
    fn gone() -> Self {
        Self::Connection("it ended".to_owned())
    }
}

impl From<io::Error> for AmqpError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

impl From<ReadError> for AmqpError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Connection(error.to_string()),
            ReadError::Frame(error) => Self::Protocol(error.to_string()),
        }
    }
}

/// Who we are.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    /// Nobody in particular.
    #[allow(dead_code, reason = "bridges of Corda nodes offer it; wanted where the transport authenticates")]
    Anonymous,
    Plain {
        user: String,
        password: Zeroizing<String>,
    },
    /// Whom the certificate of the transport names.
    External,
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
    pub login: Login,
    /// Our name for the broker's logs.
    pub container_id: String,
    /// A peer silent for so long is gone.
    pub silence_max: Duration,
    /// For connecting and each handshake, and for each link to attach.
    pub step_max: Duration,
    /// How many frames of 128 KiB of messages we hold before the broker must wait: the bound on memory.
    pub frames_max: u32,
}

/// What became of a message that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SendOutcome {
    /// The peer has it.
    Accepted,
    /// The peer does not take it now.
    Released,
    /// The peer does not take it.
    Rejected { reason: String },
}

/// How a delivery to us ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disposal {
    /// Done.
    Accept,
    /// Given back as if it never came.
    Release,
    /// Given back; the attempt counts.
    Failed,
    /// It never can be done.
    #[allow(dead_code, reason = "for receivers of answers; requests are parked with their reason instead")]
    Reject,
}

/// A message that arrived.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Incoming {
    pub id: u32,
    /// All its sections; `None` if it was longer than allowed.
    pub message: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Command {
    AttachSender { address: String, queue: bool, attached: Attached<u32> },
    AttachReceiver(ReceiverOptions, Attached<AttachedReceiver>),
    Send { handle: u32, message: Vec<u8>, outcome: Outcome },
    Credit { handle: u32, credit: u32 },
    Drain { handle: u32 },
    Dispose { id: u32, disposal: Disposal },
    Detach { handle: u32 },
    Echo(oneshot::Sender<()>),
    Close,
}

/// An open connection. It ends when every handle to it, links included, is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    // Not bounded as a channel: what goes in is bounded by windows of senders and by deliveries.
    commands: mpsc::UnboundedSender<Command>,
    ended: watch::Receiver<Option<AmqpError>>,
    step_max: Duration,
}

/// What a connection can run over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connection {
    /// Connects, authenticates and opens a session. The connection is a task of `runtime`.
    ///
    /// # Errors
    /// [`AmqpError`] if any step fails or takes longer than allowed.
    pub(crate) async fn open(options: &ConnectOptions, runtime: &Handle) -> Result<Self, AmqpError> {
        let limit = options.step_max;
        let step = |name| move |_| AmqpError::TimedOut(name);
        let connecting = TcpStream::connect((options.host.as_str(), options.port));
        let socket = timeout(limit, connecting).await.map_err(step("connecting"))??;
        socket.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &options.tls {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::try_from(options.host.clone())
                    .map_err(|_| AmqpError::Connection(format!("{:?} is no host name", options.host)))?;
                let securing = TlsConnector::from(Arc::clone(config)).connect(name, socket);
                Box::new(timeout(limit, securing).await.map_err(step("the TLS handshake"))??)
            }
        };
        Self::over(stream, options, runtime).await
    }

    /// The same over a stream that is connected, and secured, already.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn over(
        mut stream: Box<dyn Stream>,
        options: &ConnectOptions,
        runtime: &Handle,
    ) -> Result<Self, AmqpError> {
        let step = |name| move |_| AmqpError::TimedOut(name);
        let login = authenticate(&mut stream, &options.login);
        timeout(options.step_max, login).await.map_err(step("authentication"))??;
        let mut engine = Engine::new(options.frames_max);
        let opening = open_session(&mut stream, &mut engine, options);
        timeout(options.step_max, opening).await.map_err(step("opening a session"))??;

        let (commands, asked) = mpsc::unbounded_channel();
        let (ending, ended) = watch::channel(None);
        let silence_max = options.silence_max;
        runtime.spawn(async move {
            let error = match converse(stream, &mut engine, asked, silence_max).await {
                Ok(()) => AmqpError::gone(),
                Err(error) => error,
            };
            // Before anyone is told that something failed, so that who then looks sees why.
            ending.send_replace(Some(error.clone()));
            engine.fail(&error);
        });
        Ok(Self { commands, ended, step_max: options.step_max })
    }

    fn ask(&self, command: Command) -> Result<(), AmqpError> {
        self.commands.send(command).map_err(|_| self.why())
    }

    fn why(&self) -> AmqpError {
        self.ended.borrow().clone().unwrap_or_else(AmqpError::gone)
    }

    async fn step<T>(
        &self,
        name: &'static str,
        answer: oneshot::Receiver<Result<T, AmqpError>>,
    ) -> Result<T, AmqpError> {
        match timeout(self.step_max, answer).await {
            Err(_) => Err(AmqpError::TimedOut(name)),
            Ok(Err(_)) => Err(self.why()),
            Ok(Ok(answer)) => answer,
        }
    }

    /// Whether it has ended, and why.
    pub(crate) fn end(&self) -> Option<AmqpError> {
        self.ended.borrow().clone()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> AmqpError {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(AmqpError::gone),
            Err(_) => AmqpError::gone(),
        }
    }

    /// Attaches a sender to `address`, with at most `window` messages under way. With `queue` the address must be one that has a
    /// queue: Artemis else takes an unknown address for one without, and swallows what nobody listens to.
    ///
    /// # Errors
    /// [`AmqpError::Refused`] if the broker does not let us.
    pub(crate) async fn sender(&self, address: &str, queue: bool, window: usize) -> Result<Sender, AmqpError> {
        let (attached, answer) = oneshot::channel();
        self.ask(Command::AttachSender { address: address.to_owned(), queue, attached })?;
        let handle = self.step("attaching a sender", answer).await?;
        Ok(Sender { link: Guard { connection: self.clone(), handle }, window: Arc::new(Semaphore::new(window)) })
    }

    /// Attaches a receiver, which gets nothing before it is given credit.
    ///
    /// # Errors
    /// [`AmqpError::Refused`] if the broker does not let us.
    pub(crate) async fn receiver(&self, options: ReceiverOptions) -> Result<Receiver, AmqpError> {
        let (attached, answer) = oneshot::channel();
        self.ask(Command::AttachReceiver(options, attached))?;
        let AttachedReceiver { handle, address, arrivals } = self.step("attaching a receiver", answer).await?;
        Ok(Receiver { link: Guard { connection: self.clone(), handle }, address, arrivals })
    }

    /// Settles a delivery of any receiver. It is done when the broker has read it; a connection lost before has it come again.
    ///
    /// # Errors
    /// If there is no connection any more.
    pub(crate) fn dispose(&self, id: u32, disposal: Disposal) -> Result<(), AmqpError> {
        match self.end() {
            Some(error) => Err(error),
            None => self.ask(Command::Dispose { id, disposal }),
        }
    }

    /// Waits until the broker answers.
    ///
    /// # Errors
    /// If there is no connection any more, or it does not answer within `limit`.
    pub(crate) async fn echo(&self, limit: Duration) -> Result<(), AmqpError> {
        let (heard, answer) = oneshot::channel();
        self.ask(Command::Echo(heard))?;
        match timeout(limit, answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.why()),
            Err(_) => Err(AmqpError::TimedOut("the broker's answer")),
        }
    }

    /// Says goodbye and waits, but not for long, until the peer has answered.
    pub(crate) async fn close(&self) {
        if self.ask(Command::Close).is_ok() {
            // Too late or not: it is an end.
            let _ = timeout(self.step_max, self.ended()).await;
        }
    }
}

/// Detaches a link when its owner goes.
#[derive(Debug)]
struct Guard {
    connection: Connection,
    handle: u32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Without a connection there is nothing to detach.
        let _ = self.connection.ask(Command::Detach { handle: self.handle });
    }
}

/// A link that sends.
#[derive(Debug)]
pub(crate) struct Sender {
    link: Guard,
    window: Arc<Semaphore>,
}

impl Sender {
    /// Hands a message over, waiting while too many are under way. The future that it returns tells the outcome; it has no limit
    /// of its own but the connection's life.
    ///
    /// # Errors
    /// If there is no connection any more.
    pub(crate) async fn send(
        &self,
        message: Vec<u8>,
    ) -> Result<impl Future<Output = Result<SendOutcome, AmqpError>> + Send + use<>, AmqpError> {
        let window = Arc::clone(&self.window).acquire_owned().await;
        let place: OwnedSemaphorePermit = window.map_err(|_| AmqpError::gone())?;
        let connection = self.link.connection.clone();
        let (outcome, disposed) = oneshot::channel();
        connection.ask(Command::Send { handle: self.link.handle, message, outcome })?;
        Ok(async move {
            let outcome = disposed.await.unwrap_or_else(|_| Err(connection.why()));
            drop(place);
            outcome
        })
    }
}

/// A link that receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    link: Guard,
    address: String,
    arrivals: mpsc::UnboundedReceiver<Incoming>,
}

impl Receiver {
    /// The address, made up by the broker if that was asked for.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Lets the broker have `credit` deliveries begun from now on, whatever it was given before. Those under way still come.
    pub(crate) fn set_credit(&self, credit: u32) {
        // A lost connection shows in `next`.
        let _ = self.link.connection.ask(Command::Credit { handle: self.link.handle, credit });
    }

    /// Has the broker give back the credit that it has; what it has begun to send still comes.
    pub(crate) fn drain(&self) {
        // A lost connection shows in `next`.
        let _ = self.link.connection.ask(Command::Drain { handle: self.link.handle });
    }

    /// The next delivery; `None` once the link or the connection has ended. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Incoming> {
        self.arrivals.recv().await
    }
}

/// SASL (specification 5.3). EXTERNAL has an empty initial response: without one Artemis asks for it, and takes no answer.
async fn authenticate(stream: &mut Box<dyn Stream>, login: &Login) -> Result<(), AmqpError> {
    let protocol = |error: &dyn std::fmt::Display| AmqpError::Protocol(error.to_string());
    stream.write_all(&HEADER_SASL).await?;
    if read_header(stream).await? != HEADER_SASL {
        return Err(protocol(&"no SASL"));
    }
    let body = read_frame(stream, FrameType::Sasl, FRAME_BYTES_MAX as usize).await?;
    let Sasl::Mechanisms { plain, external, anonymous } = Sasl::decode(&body).map_err(|e| protocol(&e))? else {
        return Err(protocol(&"no SASL mechanisms"));
    };
    let (mechanism, offered, response) = match login {
        Login::Anonymous => (performative::ANONYMOUS, anonymous, Zeroizing::new(String::new())),
        Login::External => (performative::EXTERNAL, external, Zeroizing::new(String::new())),
        Login::Plain { user, password } => {
            (performative::PLAIN, plain, Zeroizing::new(format!("\0{user}\0{}", password.as_str())))
        }
    };
    if !offered {
        return Err(AmqpError::Unauthenticated(format!("the broker does not offer {mechanism}")));
    }
    let mut init = Zeroizing::new(Vec::new());
    Sasl::Init { mechanism, response: Some(response.as_bytes()) }.write(&mut init);
    stream.write_all(&init).await?;
    let body = read_frame(stream, FrameType::Sasl, FRAME_BYTES_MAX as usize).await?;
    match Sasl::decode(&body).map_err(|e| protocol(&e))? {
        Sasl::Outcome { code: 0 } => Ok(()),
        Sasl::Outcome { code } => {
            Err(AmqpError::Unauthenticated(format!("the broker does not take these credentials (SASL code {code})")))
        }
        _ => Err(protocol(&"no SASL outcome")),
    }
}

async fn open_session(
    stream: &mut Box<dyn Stream>,
    engine: &mut Engine,
    options: &ConnectOptions,
) -> Result<(), AmqpError> {
    // The peer says something at least every half of the time after which we give it up.
    let idle_ms = u32::try_from(options.silence_max.as_millis() / 2).unwrap_or(u32::MAX);
    engine.write_opening(&options.container_id, Some(&options.host), idle_ms);
    stream.write_all(engine.pending()).await?;
    engine.advance(engine.pending().len());
    if read_header(stream).await? != HEADER_AMQP {
        return Err(AmqpError::Protocol("no AMQP 1.0 header after SASL".to_owned()));
    }
    let mut input = Vec::new();
    while !engine.is_open() {
        if engine.closed {
            return Err(AmqpError::Protocol("closed without a reason".to_owned()));
        }
        if read_some(stream, &mut input).await? == 0 {
            return Err(AmqpError::gone());
        }
        engine.on_input(&mut input)?;
    }
    if input.is_empty() {
        return Ok(());
    }
    // A broker speaks of links only once we have asked for some.
    Err(AmqpError::Protocol("half a frame after begin".to_owned()))
}

async fn read_some(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    stream.read_buf(input).await
}

async fn read_half(stream: &mut ReadHalf<Box<dyn Stream>>, input: &mut Vec<u8>) -> io::Result<usize> {
    read_some(stream, input).await
}

/// Carries messages until one side ends it.
async fn converse(
    stream: Box<dyn Stream>,
    engine: &mut Engine,
    mut commands: mpsc::UnboundedReceiver<Command>,
    silence_max: Duration,
) -> Result<(), AmqpError> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input: Vec<u8> = Vec::new();
    // 0 stands for never; the broker then need not hear from us.
    let theirs = Duration::from_millis(engine.peer_idle_ms.into());
    let promised = if theirs.is_zero() { silence_max } else { theirs.min(silence_max) };
    // Never zero, which the interval does not take.
    let mut tick = interval((promised / 4).max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last_read, mut last_written) = (Instant::now(), Instant::now());
    let mut open = true;
    while !engine.closed {
        engine.pump();
        tokio::select! {
            biased;
            command = commands.recv(), if open => match command {
                Some(Command::Close) | None => {
                    engine.write_close();
                    open = false;
                }
                Some(command) => perform(engine, command),
            },
            written = writer.write(engine.pending()), if !engine.pending().is_empty() => match written? {
                0 => return Err(AmqpError::gone()),
                count => {
                    engine.advance(count);
                    last_written = Instant::now();
                    // TLS keeps what it could not write at once.
                    let flushed = timeout(silence_max, writer.flush()).await;
                    flushed.map_err(|_| AmqpError::TimedOut("writing to the broker"))??;
                }
            },
            read = read_half(&mut reader, &mut input), if engine.pending().len() < BACKLOG_BYTES_MAX => match read? {
                0 => return Err(AmqpError::gone()),
                _ => {
                    last_read = Instant::now();
                    engine.on_input(&mut input)?;
                }
            },
            _ = tick.tick() => {
                let now = Instant::now();
                if !theirs.is_zero() && now.duration_since(last_written) >= theirs / 2 {
                    engine.write_heartbeat();
                }
                if now.duration_since(last_read) >= silence_max {
                    return Err(AmqpError::TimedOut("a sign of life from the broker"));
                }
            }
        }
    }
    Ok(())
}

fn perform(engine: &mut Engine, command: Command) {
    match command {
        Command::AttachSender { address, queue, attached } => engine.attach_sender(&address, queue, attached),
        Command::AttachReceiver(options, attached) => engine.attach_receiver(&options, attached),
        Command::Send { handle, message, outcome } => engine.send(handle, message, outcome),
        Command::Credit { handle, credit } => engine.set_credit(handle, credit),
        Command::Drain { handle } => engine.drain(handle),
        Command::Dispose { id, disposal } => engine.dispose(id, disposal),
        Command::Detach { handle } => engine.detach(handle),
        Command::Echo(heard) => engine.echo(heard),
        Command::Close => {}
    }
}
