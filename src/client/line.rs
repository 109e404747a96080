//! A party's line to its notary: how requests get there and answers come back. Straight to the worker's own endpoint, or through a
//! broker that stores them on the way.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::broker::artemis::caller::Caller;
use crate::broker::client::{Answers, Client, ClientError, Options};
use crate::broker::rabbitmq::client::Wishes;
use crate::broker::{Answer, Outcome, Request, artemis, rabbitmq};
use crate::ports::BoxFuture;

/// Opens connections.
pub trait Line: Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// [`ClientError`]; some are worth another try.
    fn open(&self) -> BoxFuture<'_, Result<Connection, ClientError>>;

    /// Whether requests are stored on the way. Then an accepted request is only stored, its answer comes later or never, and a
    /// parked one lies with the dead letters.
    fn stores(&self) -> bool;
}

/// An open connection.
pub struct Connection {
    /// Sends requests.
    pub sender: Box<dyn Sender>,
    /// Takes answers.
    pub receiver: Box<dyn Receiver>,
}

/// The sending half. Its requests may be under way at the same time.
pub trait Sender: Send + Sync {
    /// Sends a request and waits for what becomes of it.
    ///
    /// # Errors
    /// [`ClientError`] if that is not known: send it again.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Outcome, ClientError>>;

    /// Says goodbye.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The receiving half.
pub trait Receiver: Send {
    /// The next answer, accepted by taking it; `None` once the connection has ended.
    fn next(&mut self) -> BoxFuture<'_, Option<Answer>>;
}

/// A line straight to a worker's own endpoint.
pub struct Endpoint {
    /// Where to and as whom.
    pub options: Options,
}

impl Line for Endpoint {
    fn open(&self) -> BoxFuture<'_, Result<Connection, ClientError>> {
        Box::pin(async {
            let (client, answers) = Client::connect(self.options.clone()).await?;
            Ok(Connection { sender: Box::new(client), receiver: Box::new(answers) })
        })
    }

    fn stores(&self) -> bool {
        false
    }
}

/// A line through Artemis.
pub struct Artemis {
    /// Where to and as whom.
    pub access: artemis::Access,
    /// What the names of the service's queues begin with.
    pub prefix: String,
    /// For each step.
    pub patience: Duration,
}

impl Line for Artemis {
    fn open(&self) -> BoxFuture<'_, Result<Connection, ClientError>> {
        Box::pin(async {
            let (access, runtime) = (&self.access, Handle::current());
            let caller = Caller::connect(access, &access.user, &self.prefix, None, self.patience, &runtime);
            let caller = caller.await.map_err(|error| ClientError::Connection(error.to_string()))?;
            let answers = caller.answers().await.map_err(|error| ClientError::Connection(error.to_string()))?;
            Ok(Connection { sender: Box::new(caller), receiver: Box::new(answers) })
        })
    }

    fn stores(&self) -> bool {
        true
    }
}

impl Sender for Caller {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Outcome, ClientError>> {
        Box::pin(async move {
            let sent = Self::send(self, &request, None, None).await;
            sent.map_err(|error| ClientError::Connection(error.to_string()))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // It ends with its last half.
        Box::pin(async {})
    }
}

impl Receiver for artemis::caller::Answers {
    fn next(&mut self) -> BoxFuture<'_, Option<Answer>> {
        Box::pin(Self::next(self))
    }
}

/// A line through RabbitMQ.
pub struct RabbitMq {
    /// Where to and as whom.
    pub options: rabbitmq::client::Options,
}

impl Line for RabbitMq {
    fn open(&self) -> BoxFuture<'_, Result<Connection, ClientError>> {
        Box::pin(async {
            let client = rabbitmq::client::Client::connect(self.options.clone(), &Handle::current()).await?;
            let answers = client.answers().await?;
            Ok(Connection { sender: Box::new(client), receiver: Box::new(answers) })
        })
    }

    fn stores(&self) -> bool {
        true
    }
}

impl Sender for rabbitmq::client::Client {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Outcome, ClientError>> {
        Box::pin(async {
            Self::send(self, request, &Wishes::default()).await?;
            Ok(Outcome::Accepted)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::close(self))
    }
}

impl Receiver for rabbitmq::client::Answers {
    fn next(&mut self) -> BoxFuture<'_, Option<Answer>> {
        Box::pin(Self::next(self))
    }
}

impl Sender for Client {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Outcome, ClientError>> {
        Box::pin(Client::send(self, request))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Client::close(self.clone()))
    }
}

impl Receiver for Answers {
    fn next(&mut self) -> BoxFuture<'_, Option<Answer>> {
        Box::pin(Answers::next(self))
    }
}
