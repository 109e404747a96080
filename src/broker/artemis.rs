//! Apache Artemis as the broker, over AMQP 1.0. Requests lie in the service's queue until a worker has answered them: it receives
//! with as much credit as it has places, settles only when the answer is accepted, and parks what can never be done.
//!
//! The worker receives and sends; it declares nothing and has no right to. What must be there is data in `broker/artemis/`. There
//! are two kinds of senders:
//!
//! - *Users* of the broker. Who asks is told by the `entrances` through which requests come, and `proof` shows on every connection
//!   that nobody can forge it. Answers go to users' queues on the same broker.
//! - *Peers*: bridges of Corda nodes, which send to [`Inboxes`] as to those of a node. Who asks is who the bridge `claims` to be.
//!   Answers do not pass here; they go to the nodes' own brokers.
//!
//! A request's way: `keeper` gets it from the broker, `desk` judges whose it is, `deliveries` keep it until the worker has settled
//! it, `senders` carry its answer.

mod acceptors;
mod access;
pub mod admin;
pub mod caller;
mod claims;
mod desk;
mod entrances;
mod keeper;
mod management;
mod proof;
mod senders;
mod state;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::desk::{Desk, Park};
use self::entrances::Entrances;
use self::keeper::Keeper;
use self::state::{Lane, Shared};
use super::amqp::connection::Disposal;
use super::callers::Callers;
use super::names::{Names, slug};
use crate::domain::X500Name;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply, RequestQueue, Settlement};
use crate::ports::{BoxFuture, NetworkMap, Probe};

pub use self::access::Access;
pub use super::access::{ConnectError, Password};
pub use super::amqp::connection::AmqpError;

/// How long a probe waits for the broker's word: readiness must follow within seconds, also when the heartbeat is slower.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// Frames of 128 KiB that are held at least: 256 MiB, so that a few large requests do not wait for each other.
const FRAMES_MIN: usize = 2_048;

/// How a worker uses Artemis.
#[derive(Clone)]
pub struct Options {
    /// How to reach it.
    pub access: Access,
    /// The service's queues.
    pub names: Names,
    /// The worker's legal name: by it requests name the worker, and replies say who sent them.
    pub worker_name: String,
    /// The platform version that replies state.
    pub platform_version: i32,
    /// Requests that the worker may hold unsettled.
    pub slots: usize,
    /// The longest request, in bytes of the whole message; longer ones are parked.
    pub message_bytes_max: usize,
    /// A request that was delivered so often without being settled is parked.
    pub deliveries_max: u32,
    /// How long a reply may wait to be safe.
    pub reply_hold: Duration,
    /// The longest pause between attempts to connect.
    pub reconnect_cap: Duration,
    /// Where Corda nodes send requests, if it is they who do. Otherwise users of the broker do, through their entrances.
    pub inboxes: Option<Inboxes>,
    entrances: Entrances,
    probe_entrance: String,
}

/// Where messages of Corda nodes arrive: `p2p.inbound.` and the hash of a key (PROTOCOL b.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inboxes {
    /// The service's, for session starts: all workers compete for what lies there.
    pub service: String,
    /// This worker's own, for what follows once it has confirmed.
    pub worker: String,
}

/// What a worker says of itself to Artemis, beside [`Access`].
#[derive(Clone, Debug)]
pub struct Place {
    /// What the names of the service's queues begin with.
    pub prefix: String,
    /// The worker.
    pub worker: X500Name,
    /// The platform version that replies state.
    pub platform_version: i32,
}

impl Options {
    /// The options of one worker, with limits that suit tests and small services; each is a field.
    pub fn new(access: Access, place: &Place) -> Self {
        let entrances = Entrances::new(&place.prefix);
        let probe_entrance = entrances.probe(&slug(&place.worker));
        Self {
            access,
            names: Names::new(&place.prefix, &place.worker),
            worker_name: place.worker.to_string(),
            platform_version: place.platform_version,
            slots: 1_024,
            message_bytes_max: 10 * 1024 * 1024 + 65_536,
            deliveries_max: 20,
            reply_hold: Duration::from_secs(30),
            reconnect_cap: Duration::from_secs(5),
            inboxes: None,
            entrances,
            probe_entrance,
        }
    }

    /// What is wrong with them, if anything, without connecting.
    ///
    /// # Errors
    /// In one line.
    pub fn check(&self) -> Result<(), String> {
        self.access.check()
    }

    /// The queue behind a lane.
    fn queue(&self, lane: Lane) -> &str {
        match (&self.inboxes, lane) {
            (None, _) => &self.names.requests,
            (Some(inboxes), Lane::Any) => &inboxes.service,
            (Some(inboxes), Lane::Named) => &inboxes.worker,
        }
    }

    /// The places of one lane. An eighth, at least one if there are two, is for requests that name this worker, so that a flood of
    /// others never keeps them out.
    fn places(&self, lane: Lane) -> usize {
        let named = if self.slots < 2 { 0 } else { (self.slots / 8).max(1) };
        match lane {
            Lane::Named => named,
            Lane::Any => self.slots.max(1) - named,
        }
    }

    /// Frames of requests that are held at once. Every place may hold a short request, and two lanes a long one in the making.
    fn frames_max(&self) -> u32 {
        let longest = self.message_bytes_max.div_ceil(64 * 1024);
        u32::try_from((self.slots + 2 * longest).max(FRAMES_MIN)).unwrap_or(u32::MAX)
    }
}

/// A worker's place at Artemis.
pub struct Artemis {
    desk: Desk,
    shared: Arc<Shared>,
    keeper: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Artemis {
    /// Connects and begins to receive; returns when it does. Later losses are repaired without an end.
    ///
    /// # Errors
    /// In one line, if no host can be reached, the user is not let in, a queue is missing, or callers could forge who they are.
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

impl RequestQueue for Artemis {
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
                Settlement::Accept => self.desk.dispose(&held, Disposal::Accept),
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
                // Its steps have deadlines of their own: at worst it is in the middle of proving, and then says goodbye.
                if timeout(3 * self.desk.options.access.silence_max, &mut keeper).await.is_err() {
                    keeper.abort();
                }
            }
        })
    }
}

impl Drop for Artemis {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Probe for Artemis {
    fn part(&self) -> &'static str {
        "broker"
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            if self.shared.is_closed() {
                return Err("closed".into());
            }
            let session = self.shared.session()?;
            session.connection.echo(PROBE_DEADLINE).await.map_err(|error| access::explain(&error))
        })
    }
}
