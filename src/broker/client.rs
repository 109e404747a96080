//! The other side of the embedded endpoint: sends requests over AMQP 1.0 and takes the answers. One connection, one AMQP
//! session, a link each way. For the demo, `submit`, the bench and the tests.
//!
//! Nothing is repeated or reconnected here: every step ends in time with a result or an error, and what to do then is the
//! caller's decision.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

mod driver;

use self::driver::{Driver, Submission};
use super::amqp::message::OutgoingMessage;
use super::{Answer, Outcome, Request};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;

/// Requests that wait for a place in the window before [`Client::submit`] waits itself: enough to keep the task busy.
const QUEUED_MAX: usize = 16;

/// Where answers are to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Nowhere on this connection.
    Not,
    /// To the party's own inbox, `p2p.inbound.<H(its key)>`.
    Inbox(String),
    /// To an address that the endpoint makes up; requests name it.
    Dynamic,
}

/// How to connect.
#[derive(Clone)]
pub struct Options {
    /// The endpoint.
    pub server: SocketAddr,
    /// The party's X.500 name as text.
    pub user: String,
    /// Its secret.
    pub password: Zeroizing<String>,
    /// Where requests go: `p2p.inbound.<H(service key)>`.
    pub request_address: String,
    /// Where answers come.
    pub listen: Listen,
    /// Requests under way at most.
    pub window: usize,
    /// Answers at most that were sent and not taken yet.
    pub answer_credit: u32,
    /// The longest answer, in bytes of the whole message.
    pub answer_bytes_max: usize,
    /// For each of: connecting, handshake and attaching, a request's outcome.
    pub timeout: Duration,
}

impl Options {
    /// Usual values: 256 requests and 1024 answers under way (three a request, and some), answers of at most 10 MiB as Corda
    /// has them, 60 s for a step (the endpoint holds a reply for 30 s).
    pub fn new(server: SocketAddr, user: &str, password: &str, request_address: &str, listen: Listen) -> Self {
        Self {
            server,
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            request_address: request_address.to_owned(),
            listen,
            window: 256,
            answer_credit: 1_024,
            answer_bytes_max: 10 * 1024 * 1024,
            timeout: Duration::from_secs(60),
        }
    }
}

/// Why it did not work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint cannot be reached, or the connection broke.
    #[error("connection: {0}")]
    Connection(String),
    /// A step took too long.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// Unknown user or wrong password.
    #[error("the endpoint does not accept these credentials")]
    Unauthenticated,
    /// The endpoint ended the link or the connection and said why.
    #[error("{condition}: {description}")]
    Refused {
        /// AMQP error condition.
        condition: String,
        /// For people.
        description: String,
    },
    /// The endpoint does not speak AMQP 1.0 as it should.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// Sends requests. Clones share the connection; it ends when the last of them and the [`Answers`] are dropped.
#[derive(Clone, Debug)]
pub struct Client {
    submissions: mpsc::Sender<Submission>,
    /// Where requests ask for their answers, if not at the inbox.
    reply_to: Option<String>,
    timeout: Duration,
}

/// Takes answers, in the order in which they came.
#[derive(Debug)]
pub struct Answers {
    arrived: mpsc::UnboundedReceiver<(u32, Answer)>,
    accepted: mpsc::UnboundedSender<u32>,
}

impl Client {
    /// Connects. The connection is a task of the current runtime.
    ///
    /// # Errors
    /// [`ClientError`] if any step fails.
    pub async fn connect(options: Options) -> Result<(Self, Answers), ClientError> {
        let timed = |step| move |_| ClientError::TimedOut(step);
        let connecting = TcpStream::connect(options.server);
        let stream = tokio::time::timeout(options.timeout, connecting).await.map_err(timed("connecting"))?;
        let stream = stream.map_err(|error| ClientError::Connection(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| ClientError::Connection(error.to_string()))?;

        let (submissions, submitted) = mpsc::channel(QUEUED_MAX);
        // Bounded by the credit given to the endpoint.
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let (accepted, accepts) = mpsc::unbounded_channel();
        let opening = Driver::open(stream, &options, arrivals);
        let driver = tokio::time::timeout(options.timeout, opening).await.map_err(timed("the handshake"))??;
        let reply_to = driver.dynamic_address().map(str::to_owned);
        tokio::spawn(driver.run(submitted, accepts));
        Ok((Self { submissions, reply_to, timeout: options.timeout }, Answers { arrived, accepted }))
    }

    /// Hands a request over to be sent, waiting while too many are under way or the endpoint gives no credit. The future that it returns tells the outcome.
    ///
    /// # Errors
    /// [`ClientError::Connection`] if there is no connection any more.
    pub async fn submit(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = Result<Outcome, ClientError>> + Send + use<>, ClientError> {
        let message = OutgoingMessage {
            message_id: Some(&request.dedup_id),
            reply_to: self.reply_to.as_deref(),
            correlation_id: None,
            created_ms: Some(SystemClock.now().as_millis()),
            platform_version: request.platform_version,
            dedup_id: &request.dedup_id,
            // The endpoint knows who we are; a claim here would count for nothing.
            validated_user: "",
            headers: &[],
            body: &request.body,
            ..OutgoingMessage::default()
        };
        let (outcome, disposed) = oneshot::channel();
        let submission = Submission::Request { message: message.encode(), outcome };
        self.submissions.send(submission).await.map_err(|_| gone())?;
        let timeout = self.timeout;
        Ok(async move {
            match tokio::time::timeout(timeout, disposed).await {
                Ok(outcome) => outcome.unwrap_or_else(|_| Err(gone())),
                Err(_) => Err(ClientError::TimedOut("the request")),
            }
        })
    }

    /// Sends a request and waits for its outcome. Whoever asks for answers must take them meanwhile: the outcome comes after.
    ///
    /// # Errors
    /// [`ClientError`] if the outcome is not known. It may have been done: send it again.
    pub async fn send(&self, request: Request) -> Result<Outcome, ClientError> {
        self.submit(request).await?.await
    }

    /// Says goodbye to the endpoint and waits until it has answered.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.submissions.send(Submission::Close(done)).await.is_ok() {
            // An error means that the connection broke, which is an end as well.
            let _ = tokio::time::timeout(self.timeout, closed).await;
        }
    }
}

impl Answers {
    /// The next answer; it is accepted by taking it. `None` once the connection has ended.
    pub async fn next(&mut self) -> Option<Answer> {
        let (delivery, answer) = self.arrived.recv().await?;
        // A connection that ended meanwhile cannot accept; the worker then answers again.
        let _ = self.accepted.send(delivery);
        Some(answer)
    }
}

fn gone() -> ClientError {
    ClientError::Connection("it ended".to_owned())
}
