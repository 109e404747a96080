//! RabbitMQ as the broker, over AMQP 0-9-1. Requests lie in quorum queues until a worker has answered them: it consumes the
//! service's queue and its own, acknowledges only when the answer is confirmed, and parks what can never be done.
//!
//! The worker consumes and publishes; it declares nothing and has no right to. What must be there is data in `broker/rabbitmq/`,
//! which [`admin`] applies and checks. Callers are the broker users that RabbitMQ has checked `user_id` against.
//!
//! A request's way: `keeper` gets it from the broker, `worker` judges whose it is, `deliveries` keep it until the worker has settled
//! it, `lanes` publish its answer.

pub mod admin;
pub mod client;
mod keeper;
mod lanes;
mod management;
mod message;
mod state;
mod topology;
mod transport;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicQosOptions;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::keeper::{Keeper, within};
use self::state::Shared;
use self::worker::{Desk, Park};
use super::callers::Callers;
use super::names::Names;
use crate::observe::metrics;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply, RequestQueue, Settlement};
use crate::ports::{BoxFuture, NetworkMap, Probe};

pub use self::transport::Access;
pub use super::access::{ConnectError, Password};

/// How long a probe waits for the broker's word: readiness must follow within seconds, also when the heartbeat is slower.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// How a worker uses RabbitMQ.
#[derive(Clone)]
pub struct Options {
    /// How to reach it.
    pub access: Access,
    /// The service's queues.
    pub names: Names,
    /// The platform version that replies state.
    pub platform_version: i32,
    /// Requests that the worker may hold unsettled; at least one for each of its two queues.
    pub slots: usize,
    /// The longest request, in bytes; longer ones are parked.
    pub message_bytes_max: usize,
    /// Bytes of unsettled requests from which on no more are taken, see [`Options::HELD_BYTES_MAX`].
    pub held_bytes_max: usize,
    /// A request that was delivered so often without being settled is parked.
    pub deliveries_max: u32,
    /// How long a reply may wait to be safe.
    pub reply_hold: Duration,
    /// The longest pause between attempts to connect.
    pub reconnect_cap: Duration,
}

impl Options {
    /// The usual [`Options::held_bytes_max`], as much as the other adapters hold. RabbitMQ limits deliveries by number only, and a
    /// thousand of the longest would take ten gigabytes: a caller who sends such must not end the worker (promise P8, threat A7).
    pub const HELD_BYTES_MAX: usize = 256 << 20;

    /// What is wrong with them, if anything, without connecting.
    ///
    /// # Errors
    /// In one line.
    pub fn check(&self) -> Result<(), String> {
        let Names { requests, worker, dead, replies } = &self.names;
        match [requests, worker, dead, replies].into_iter().find(|name| name.len() > message::SHORT_BYTES_MAX) {
            Some(name) => Err(format!("{name}: a queue's name has at most {} bytes", message::SHORT_BYTES_MAX)),
            None => self.access.check(),
        }
    }
}

/// A worker's place at RabbitMQ.
pub struct RabbitMq {
    desk: Desk,
    shared: Arc<Shared>,
    keeper: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl RabbitMq {
    /// Connects and begins to consume; returns when it does. Later losses are repaired without an end.
    ///
    /// # Errors
    /// In one line, if no host can be reached, the user is not let in, or a queue is missing.
    pub async fn open(
        options: Options,
        callers: Callers,
        network_map: Arc<dyn NetworkMap>,
        runtime: &Handle,
    ) -> Result<Self, String> {
        options.check()?;
        let desk = Desk { options: Arc::new(options), callers: Arc::new(callers), network_map };
        let shared = Arc::new(Shared::new());
        let keeper = Keeper { desk: desk.clone(), shared: Arc::clone(&shared), runtime: runtime.clone() };
        let (told, first) = oneshot::channel();
        let keeper = runtime.spawn(keeper.run(told));
        first.await.map_err(|_| "the connection's task ended".to_owned())??;
        Ok(Self { desk, shared, keeper: tokio::sync::Mutex::new(Some(keeper)) })
    }

    /// Deliveries that are not settled, received or not.
    pub fn undisposed(&self) -> usize {
        self.shared.undisposed()
    }
}

impl RequestQueue for RabbitMq {
    fn receive(&self) -> BoxFuture<'_, Result<Delivery, QueueError>> {
        Box::pin(async { self.shared.receive().await.ok_or(QueueError::Closed) })
    }

    fn reply(&self, to: DeliveryId, replies: Vec<Reply>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let held = self.shared.taken(to)?;
            self.desk.reply(&held, replies).await
        })
    }

    fn settle(&self, delivery: DeliveryId, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let held = self.shared.settling(delivery)?;
            let settled = match settlement {
                Settlement::Accept => self.desk.accept(&held).await,
                Settlement::Release => self.desk.release(&self.shared, &held).await,
                Settlement::Reject { reason } => {
                    self.desk.park(&self.shared, &held, &Park { kind: "rejected", reason }).await
                }
            };
            self.shared.settled(delivery);
            settled
        })
    }

    fn serve(&self, serving: bool) {
        self.shared.serve(serving);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.shared.close();
            if let Some(mut keeper) = self.keeper.lock().await.take() {
                // Its steps have deadlines of their own: cancelling two consumers, closing the connection.
                if timeout(3 * self.desk.options.access.silence_max, &mut keeper).await.is_err() {
                    keeper.abort();
                }
            }
        })
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Probe for RabbitMq {
    fn part(&self) -> &'static str {
        "broker"
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            if self.shared.is_closed() {
                return Err("closed".into());
            }
            let link = self.shared.session();
            // Told again and again, as the first connection is older than the recorder of figures.
            metrics::broker_connected(link.is_ok());
            let session = link?;
            if session.connection.status().blocked() {
                return Err("the broker takes no messages: its memory or disk alarm is on".into());
            }
            let asking = async {
                let probe = session.probe.get_or_try_init(|| session.connection.create_channel()).await?;
                // A question that needs no right and changes nothing, and that the broker must answer.
                probe.basic_qos(1, BasicQosOptions::default()).await
            };
            within(PROBE_DEADLINE, "the broker's answer", asking).await
        })
    }
}
