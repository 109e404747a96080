//! The other side: a party that sends requests through its entrance and takes the answers. For `submit` and the tests.
//!
//! Nothing is repeated or reconnected here: every step ends in time with a result or an error, and what to do then is the
//! caller's decision.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::access::Access;
use super::entrances::Entrances;
use crate::broker::access::ConnectError;
use crate::broker::amqp::connection::{
    AmqpError, Connection, Disposal, Receiver, ReceiverOptions, SendOutcome, Sender,
};
use crate::broker::amqp::message::{Message, OutgoingMessage};
use crate::broker::{Answer, Outcome, Request};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;

/// Requests under way at most.
const WINDOW: usize = 256;
/// Answers at most that were sent and not taken yet.
const ANSWER_CREDIT: u32 = 256;
/// The longest answer, in bytes of the whole message; Corda's limit.
const ANSWER_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Frames of answers that are held at once: 256 MiB.
const FRAMES_MAX: u32 = 2_048;

/// Sends requests.
#[derive(Debug)]
pub struct Caller {
    connection: Connection,
    entrance: Sender,
    reply_to: String,
    patience: Duration,
}

/// Takes answers, in the order in which they came.
#[derive(Debug)]
pub struct Answers {
    connection: Connection,
    receiver: Receiver,
    /// Answers that may come before credit is given again.
    credit: u32,
}

impl Caller {
    /// Connects with `access` as broker user `user`, to the service whose queues' names begin with `prefix`. Answers are to come to
    /// `inbox` if given, otherwise to the user's reply queue. Each step and each request is given `patience`.
    ///
    /// # Errors
    /// [`ConnectError`] with the host that was tried last.
    pub async fn connect(
        access: &Access,
        user: &str,
        prefix: &str,
        inbox: Option<&str>,
        patience: Duration,
        runtime: &Handle,
    ) -> Result<Self, ConnectError> {
        let connection = access.connect_any(FRAMES_MAX, runtime).await?;
        let failed =
            |error: AmqpError| ConnectError { host: access.hosts.join(", "), problem: super::access::explain(&error) };
        let reply_to = inbox.map_or_else(|| format!("{prefix}.replies.{user}"), str::to_owned);
        let entrance = Entrances::new(prefix).of(user);
        let entrance = connection.sender(&entrance, true, WINDOW).await.map_err(failed)?;
        Ok(Self { connection, entrance, reply_to, patience })
    }

    /// Begins to take answers. Several takers of one queue share what comes.
    ///
    /// # Errors
    /// [`AmqpError`] if the broker does not let us.
    pub async fn answers(&self) -> Result<Answers, AmqpError> {
        let receiving = ReceiverOptions {
            address: Some(self.reply_to.clone()),
            selector: None,
            priority: None,
            message_bytes_max: ANSWER_BYTES_MAX,
        };
        let receiver = self.connection.receiver(receiving).await?;
        receiver.set_credit(ANSWER_CREDIT);
        Ok(Answers { connection: self.connection.clone(), receiver, credit: ANSWER_CREDIT })
    }

    /// Sends a request and waits until the broker has it, which is [`Outcome::Accepted`]: the worker is yet to come. It may name the
    /// worker that should serve it, and another place for its answer.
    ///
    /// # Errors
    /// [`AmqpError`] if the outcome is not known: send it again, the broker drops what it has already.
    pub async fn send(
        &self,
        request: &Request,
        worker: Option<&str>,
        reply_to: Option<&str>,
    ) -> Result<Outcome, AmqpError> {
        let headers: Vec<_> = worker.map(|worker| ("worker", worker.to_owned())).into_iter().collect();
        let message = OutgoingMessage {
            message_id: Some(&request.dedup_id),
            reply_to: Some(reply_to.unwrap_or(&self.reply_to)),
            created_ms: Some(SystemClock.now().as_millis()),
            platform_version: request.platform_version,
            dedup_id: &request.dedup_id,
            headers: &headers,
            body: &request.body,
            ..OutgoingMessage::default()
        };
        let sending = async { self.entrance.send(message.encode()).await?.await };
        match timeout(self.patience, sending).await {
            Err(_) => Err(AmqpError::TimedOut("the request")),
            Ok(Err(error)) => Err(error),
            Ok(Ok(SendOutcome::Accepted)) => Ok(Outcome::Accepted),
            Ok(Ok(SendOutcome::Released)) => Ok(Outcome::Released),
            Ok(Ok(SendOutcome::Rejected { reason })) => Ok(Outcome::Rejected { reason }),
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Answers {
    /// The next answer; it is accepted by taking it. `None` once the connection has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Answer> {
        loop {
            let incoming = self.receiver.next().await?;
            self.credit -= 1;
            if self.credit <= ANSWER_CREDIT / 2 {
                self.credit = ANSWER_CREDIT;
                self.receiver.set_credit(ANSWER_CREDIT);
            }
            let decoded = incoming.message.as_deref().map(Message::decode);
            let answer = match decoded {
                Some(Ok(message)) => Some(Answer {
                    dedup_id: message.dedup_id.unwrap_or_default().to_owned(),
                    platform_version: message.platform_version,
                    worker: message.validated_user.map(str::to_owned),
                    headers: message
                        .text_properties()
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect(),
                    body: message.body.into_owned(),
                }),
                // No answer of a worker's: the broker may keep it for people.
                _ => None,
            };
            let disposal = if answer.is_some() { Disposal::Accept } else { Disposal::Reject };
            // A connection that ended meanwhile cannot accept; the answer then comes again.
            let _ = self.connection.dispose(incoming.id, disposal);
            if answer.is_some() {
                return answer;
            }
        }
    }
}
