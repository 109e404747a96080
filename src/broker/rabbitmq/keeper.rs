//! Keeps a worker connected: connects, consumes, notices what is lost, and begins anew. The only owner of recovery; lapin's own is
//! off.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer, Event};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::lanes::Lanes;
use super::state::{Held, Session, Shared};
use super::transport::explain;
use super::worker::Desk;
use crate::broker::access::ConnectError;
use crate::broker::deliveries::Wish;
use crate::broker::reconnect::{self, First};

/// How often the connection's state is looked at, besides being told: lapin tells of errors, and this finds what it forgot to tell.
const GLANCE: Duration = Duration::from_millis(250);

/// Keeps the connection.
pub(super) struct Keeper {
    pub desk: Desk,
    pub shared: Arc<Shared>,
    pub runtime: Handle,
}

/// Both queues being consumed.
struct Intake {
    requests: Consumer,
    own: Consumer,
}

impl reconnect::Keeper for Keeper {
    const BROKER: &'static str = "rabbitmq";
    type Held = Held;

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn attempt(
        &self,
        host: &str,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
    ) -> Result<bool, ConnectError> {
        let options = &self.desk.options;
        let connection = options.access.connect(host, &self.runtime).await?;
        Ok(self.session(host, connection, wish, first).await)
    }
}

impl Keeper {
    /// Runs until the wish is to close, or until no host could be served from in the first round.
    pub(super) async fn run(self, first: oneshot::Sender<Result<(), String>>) {
        let options = Arc::clone(&self.desk.options);
        reconnect::keep(self, &options.access.hosts, options.reconnect_cap, first).await;
    }

    /// One connection, to its end. Returns whether it ever served.
    async fn session(
        &self,
        host: &str,
        connection: Connection,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
    ) -> bool {
        let number = self.shared.fresh();
        let session = Arc::new(Session {
            number,
            connection,
            lanes: Lanes::new(),
            probe: OnceCell::new(),
            lost: watch::Sender::new(false),
        });
        let mut served = false;
        let why = match self.serve(host, &session, wish, first, &mut served).await {
            Ok(()) => "closed".to_owned(),
            Err(why) => {
                tracing::warn!(broker = "rabbitmq", host, why, served, "connection lost");
                format!("{host}: {why}")
            }
        };
        self.shared.down(Some(&session), &why);
        // What is left of the connection gives back all that it holds. A dead one cannot be told.
        let _ = timeout(self.desk.options.access.silence_max, session.connection.close(200, "bye".into())).await;
        served
    }

    /// Serves as wished until the connection is lost (an error that says why) or is to be closed.
    async fn serve(
        &self,
        host: &str,
        session: &Arc<Session>,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
        served: &mut bool,
    ) -> Result<(), String> {
        let step = self.desk.options.access.silence_max;
        let mut events = Box::pin(session.connection.events_listener());
        let channel = within(step, "opening a channel", session.connection.create_channel()).await?;
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut intake: Option<Intake> = None;
        loop {
            let wished = *wish.borrow_and_update();
            match wished {
                Wish::Close => {
                    if let Some(intake) = intake.take() {
                        self.leave(&channel, intake).await?;
                    }
                    return Ok(());
                }
                Wish::Rest => {
                    if let Some(intake) = intake.take() {
                        self.leave(&channel, intake).await?;
                        tracing::info!(broker = "rabbitmq", host, "resting: takes no requests");
                    }
                }
                // Not at the first free byte: each time costs the broker a consumer.
                Wish::Serve if intake.is_none() && self.held_bytes() <= self.desk.options.held_bytes_max / 2 => {
                    intake = Some(self.consume(&channel).await?);
                    tracing::info!(broker = "rabbitmq", host, "serving");
                }
                Wish::Serve => {}
            }
            if !*served {
                *served = true;
                self.shared.up(session);
                if let Some(first) = first.take() {
                    // Whoever opens the queue waits for exactly this.
                    let _ = first.send(Ok(()));
                }
            }
            loop {
                if self.held_bytes() > self.desk.options.held_bytes_max
                    && let Some(intake) = intake.take()
                {
                    tracing::warn!(broker = "rabbitmq", host, "too many bytes are held: takes no requests for now");
                    self.pause(&channel, session, intake).await?;
                }
                let is_paused = intake.is_none();
                let (requests, own) = match &mut intake {
                    Some(Intake { requests, own }) => (Some(requests), Some(own)),
                    None => (None, None),
                };
                tokio::select! {
                    changed = wish.changed() => {
                        changed.map_err(|_| "the queue is gone".to_owned())?;
                        break;
                    }
                    event = events.next() => match event {
                        Some(Event::ConnectionBlocked(reason)) => {
                            tracing::warn!(broker = "rabbitmq", host, reason, "the broker takes no messages");
                        }
                        Some(Event::ConnectionUnblocked) => {
                            tracing::info!(broker = "rabbitmq", host, "the broker takes messages again");
                        }
                        Some(Event::Error(error)) if !session.connection.status().connected() => {
                            return Err(explain(&error));
                        }
                        Some(_) => {}
                        None => return Err("the connection ended".into()),
                    },
                    delivery = next(requests) => self.take(session, &self.desk.options.names.requests, delivery)?,
                    delivery = next(own) => self.take(session, &self.desk.options.names.worker, delivery)?,
                    () = self.shared.freed.notified(), if wished == Wish::Serve && is_paused => break,
                    _ = glance.tick() => {
                        if !session.connection.status().connected() {
                            return Err("the connection ended".into());
                        }
                        if !channel.status().connected() {
                            return Err("the broker closed the channel".into());
                        }
                    }
                }
            }
        }
    }

    fn take(
        &self,
        session: &Arc<Session>,
        queue: &str,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Result<(), String> {
        match delivery {
            Some(Ok(delivery)) => {
                self.desk.admit(&self.shared, session, queue, delivery, &self.runtime);
                Ok(())
            }
            Some(Err(error)) => Err(explain(&error)),
            None => Err(format!("the broker ended the consumption of {queue}; was the queue deleted?")),
        }
    }

    /// Consumes the service's queue and the worker's own. Quorum queues know no limit for a whole channel, so the worker's slots are
    /// split between the two: an eighth, at least one, is for requests that name the worker.
    async fn consume(&self, channel: &Channel) -> Result<Intake, String> {
        let options = &self.desk.options;
        let step = options.access.silence_max;
        let own = (options.slots / 8).max(1);
        let shared = options.slots.saturating_sub(own).max(1);
        let mut consumers = Vec::with_capacity(2);
        for (queue, prefetch) in [(&options.names.requests, shared), (&options.names.worker, own)] {
            let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX);
            within(step, "limiting deliveries", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
            let consuming = channel.basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let consuming = within(step, "consuming", consuming).await;
            consumers.push(consuming.map_err(|why| {
                format!("cannot consume {queue}: {why}; `notary broker check` says what is missing, `notary broker apply` declares it")
            })?);
        }
        match <[Consumer; 2]>::try_from(consumers) {
            Ok([requests, own]) => Ok(Intake { requests, own }),
            Err(_) => Err("two queues were consumed".into()),
        }
    }

    /// Bytes of requests that are not settled.
    fn held_bytes(&self) -> usize {
        self.shared.total(|held| held.body.len())
    }

    /// Takes no more for now. What the broker sent before it knew is taken as ever.
    async fn pause(&self, channel: &Channel, session: &Arc<Session>, intake: Intake) -> Result<(), String> {
        let names = &self.desk.options.names;
        for (queue, mut consumer) in [(&names.requests, intake.requests), (&names.worker, intake.own)] {
            self.cancel(channel, &consumer).await?;
            while let Ok(Some(delivery)) = timeout(self.desk.options.access.silence_max, consumer.next()).await {
                self.take(session, queue, Some(delivery))?;
            }
        }
        Ok(())
    }

    /// Ends a consumer. Its end follows what came before the cancellation.
    async fn cancel(&self, channel: &Channel, consumer: &Consumer) -> Result<(), String> {
        let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        within(self.desk.options.access.silence_max, "cancelling", cancelled).await
    }

    /// Takes no more, and gives back what nobody has received. What was received can still be settled, as the channel stays.
    async fn leave(&self, channel: &Channel, intake: Intake) -> Result<(), String> {
        let step = self.desk.options.access.silence_max;
        for mut consumer in [intake.requests, intake.own] {
            self.cancel(channel, &consumer).await?;
            while let Ok(Some(Ok(delivery))) = timeout(step, consumer.next()).await {
                self.desk.give_back(&delivery.acker).await;
            }
        }
        for held in self.shared.withdraw() {
            self.desk.give_back(&held.acker).await;
        }
        Ok(())
    }
}

/// The next delivery; never, if nothing is consumed.
async fn next(consumer: Option<&mut Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// A step of the protocol with a deadline.
pub(super) async fn within<T>(
    deadline: Duration,
    what: &str,
    step: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match timeout(deadline, step).await {
        Ok(done) => done.map_err(|error| explain(&error)),
        Err(_) => Err(format!("{what} took longer than {deadline:?}")),
    }
}
