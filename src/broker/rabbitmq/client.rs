//! The other side of a worker at RabbitMQ: sends requests as a broker user and takes the answers from its queue. For `submit`, the
//! end-to-end suite and the tests.
//!
//! Nothing is repeated or reconnected here: every step ends in time with a result or an error, and what to do then is the
//! caller's decision.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::keeper::within;
use super::lanes::{Lanes, Letter, Unsafe};
use super::message::{self, WORKER, short, text};
use super::transport::Access;
use crate::broker::amqp::message::{SESSION_TOPIC, property};
use crate::broker::client::ClientError;
use crate::broker::{Answer, Request};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;

/// Answers that were sent and not taken yet, at most.
const ANSWERS_MAX: u16 = 1_024;

/// How to send requests.
#[derive(Clone)]
pub struct Options {
    /// How to reach the broker, and as which user.
    pub access: Access,
    /// What the names of the service's queues begin with.
    pub prefix: String,
    /// The queue where answers come; the user must be allowed to read it.
    pub reply_queue: String,
    /// For each step: a request's confirm, opening.
    pub timeout: Duration,
}

/// What a request says besides its body. Everything has a usual value.
#[derive(Clone, Default, Debug)]
pub struct Wishes {
    /// The legal name of the worker that should serve it (LB6).
    pub worker: Option<String>,
    /// Where its answer is to go, if not to the client's own queue.
    pub reply_to: Option<String>,
    /// The user to be named as its sender, if not the client's own; the broker refuses others. `Some("")` names nobody.
    pub user: Option<String>,
}

/// Sends requests; clones share the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    lanes: Lanes,
    options: Options,
}

/// Takes answers, in the order in which they came.
pub struct Answers {
    consumer: Consumer,
    /// Taken from the consumer and not known to be accepted.
    pending: Option<Delivery>,
    timeout: Duration,
    /// An end of these would give back what is under way.
    _channel: Channel,
    _client: Client,
}

impl Client {
    /// Connects to the first host that lets us, on `runtime`.
    ///
    /// # Errors
    /// [`ClientError`], the last host's.
    pub async fn connect(options: Options, runtime: &Handle) -> Result<Self, ClientError> {
        let mut last = ClientError::Connection("no host is named".into());
        for host in &options.access.hosts {
            match options.access.connect(host, runtime).await {
                Ok(connection) => {
                    let inner = Arc::new(Inner { connection, lanes: Lanes::new(), options });
                    return Ok(Self { inner });
                }
                Err(error) if error.problem.contains("ACCESS_REFUSED") => last = ClientError::Unauthenticated,
                Err(error) => last = ClientError::Connection(error.to_string()),
            }
        }
        Err(last)
    }

    /// Begins to take answers. One at a time: they are spread among all who do.
    ///
    /// # Errors
    /// [`ClientError`] if there is no such queue, or no right to read it.
    pub async fn answers(&self) -> Result<Answers, ClientError> {
        let Options { reply_queue, timeout, .. } = &self.inner.options;
        let opening = async {
            let channel = self.inner.connection.create_channel().await?;
            channel.basic_qos(ANSWERS_MAX, BasicQosOptions::default()).await?;
            let queue = short(reply_queue);
            let consumer =
                channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
            Ok((channel, consumer))
        };
        let opened = within(*timeout, "opening the reply queue", opening).await;
        let (_channel, consumer) = opened.map_err(ClientError::Connection)?;
        Ok(Answers { consumer, pending: None, timeout: *timeout, _channel, _client: self.clone() })
    }

    /// Sends a request, and returns once the broker has it safely in a queue. Its answer comes to [`Client::answers`].
    ///
    /// # Errors
    /// [`ClientError`] if it is not known to be safe: send it again.
    pub async fn send(&self, request: Request, wishes: &Wishes) -> Result<(), ClientError> {
        let Inner { connection, lanes, options } = &*self.inner;
        let mut headers = FieldTable::default();
        headers.insert(property::TOPIC.into(), text(SESSION_TOPIC));
        headers.insert(property::PLATFORM_VERSION.into(), AMQPValue::LongInt(request.platform_version));
        if let Some(worker) = &wishes.worker {
            headers.insert(WORKER.into(), text(worker));
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2) // Persistent.
            .with_message_id(short(&request.dedup_id))
            .with_reply_to(short(wishes.reply_to.as_deref().unwrap_or(&options.reply_queue)))
            .with_timestamp(SystemClock.now().seconds().try_into().unwrap_or(0))
            .with_headers(headers);
        match wishes.user.as_deref().unwrap_or(&options.access.user) {
            "" => {}
            user => properties = properties.with_user_id(short(user)),
        }
        let letter =
            Letter { exchange: options.prefix.clone(), key: String::new(), properties, body: request.body.into() };
        match lanes.publish(connection, &[letter], Instant::now() + options.timeout).await {
            Ok(()) => Ok(()),
            Err(Unsafe::Late) => Err(ClientError::TimedOut("the broker's confirm")),
            Err(Unsafe::Refused(description)) if connection.status().connected() => {
                Err(ClientError::Refused { condition: "not published".into(), description })
            }
            Err(Unsafe::Refused(description)) => Err(ClientError::Connection(description)),
        }
    }

    /// Says goodbye.
    pub async fn close(&self) {
        // An error means that the connection is gone, which is an end as well.
        let _ = within(self.inner.options.timeout, "closing", self.inner.connection.close(200, "bye".into())).await;
    }
}

impl Answers {
    /// The next answer; it is accepted by taking it. `None` once the connection has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Answer> {
        if self.pending.is_none() {
            self.pending = Some(self.consumer.next().await?.ok()?);
        }
        if let Some(delivery) = &self.pending {
            // A connection that ended meanwhile cannot accept; the answer comes again.
            let _ = within(self.timeout, "accepting", delivery.acker.ack(BasicAckOptions::default())).await;
        }
        let delivery = self.pending.take()?;
        let properties = &delivery.properties;
        let headers = message::texts(properties);
        let worker = headers.iter().find(|(name, _)| name == WORKER).map(|(_, value)| value.clone());
        Some(Answer {
            dedup_id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            platform_version: message::platform_version(properties),
            worker,
            headers,
            body: delivery.data,
        })
    }
}
