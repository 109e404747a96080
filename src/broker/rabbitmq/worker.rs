//! What is done about single deliveries: whose they are and whether they are admitted, replying, ending, parking.

use std::sync::Arc;
use std::time::Duration;

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::lanes::{Letter, Unsafe};
use super::message;
use super::state::{Held, Session, Shared};
use crate::broker::callers::{Callers, reply_address};
use crate::broker::deliveries::Wish;
use crate::broker::pause::Pause;
use crate::domain::{Timestamp, X500Name};
use crate::observe::metrics;
use crate::ports::NetworkMap;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply};

/// Between attempts at a publication that the broker gave back or refused: a queue that is declared anew, or emptied, is found soon.
const REPUBLISH: Pause = Pause { base: Duration::from_millis(50), cap: Duration::from_secs(1) };
/// Before a request is given back: nothing after a first failure, as another worker may do better, and more and more while it fails
/// everywhere. So twenty deliveries last some six minutes, and an outage does not park what is innocent.
const RELEASE: Pause = Pause { base: Duration::from_millis(50), cap: Duration::from_secs(30) };

/// Why a request is parked: one of a handful of words for the figures, and a sentence for people.
pub(super) struct Park {
    pub kind: &'static str,
    pub reason: String,
}

/// What is known to whoever handles deliveries.
#[derive(Clone)]
pub(super) struct Desk {
    pub options: Arc<Options>,
    pub callers: Arc<Callers>,
    pub network_map: Arc<dyn NetworkMap>,
}

impl Desk {
    /// Takes a delivery from the broker: offers it to the worker, or parks it.
    pub(super) fn admit(
        &self,
        shared: &Arc<Shared>,
        session: &Arc<Session>,
        queue: &str,
        delivery: lapin::message::Delivery,
        runtime: &Handle,
    ) {
        let lapin::message::Delivery { redelivered, properties, data, acker, .. } = delivery;
        let prior_deliveries = message::prior_deliveries(&properties, redelivered);
        let judged = self.judge(&properties, data.len(), prior_deliveries);
        let correlation = properties.correlation_id().clone().or_else(|| properties.message_id().clone());
        let mut held = Held {
            session: Arc::clone(session),
            acker,
            queue: queue.to_owned(),
            reply_to: String::new(),
            correlation,
            body: Arc::from(&data[..]),
            properties: Arc::new(properties),
            prior_deliveries,
        };
        match judged {
            Ok((caller, reply_to)) => {
                held.reply_to = reply_to;
                let delivery = Delivery {
                    id: DeliveryId(shared.fresh()),
                    caller,
                    platform_version: message::platform_version(&held.properties),
                    dedup_id: held.properties.message_id().as_ref().map(|id| id.as_str().to_owned()),
                    // In seconds since 1970.
                    sent_at: held
                        .properties
                        .timestamp()
                        .and_then(|seconds| Timestamp::new(i64::try_from(seconds).ok()?, 0)),
                    prior_deliveries,
                    body: data,
                };
                shared.offer(delivery, held);
            }
            Err(park) => {
                let id = shared.withhold(held.clone());
                let (desk, shared) = (self.clone(), Arc::clone(shared));
                // Bounded: it is unacknowledged, so it takes one of the deliveries that the broker allows us.
                runtime.spawn(async move {
                    // If it fails the request comes again, and is parked then.
                    let _ = desk.park(&shared, &held, &park).await;
                    shared.settled(id);
                });
            }
        }
    }

    /// Whose request it is, and where its answer goes; or why nobody is to see it.
    fn judge(
        &self,
        properties: &lapin::BasicProperties,
        body_bytes: usize,
        prior_deliveries: u32,
    ) -> Result<(X500Name, String), Park> {
        let park = |kind, reason: String| Err(Park { kind, reason });
        let Options { deliveries_max, message_bytes_max, names, .. } = &*self.options;
        if prior_deliveries >= *deliveries_max {
            return park(
                "poison",
                format!("delivered {prior_deliveries} times without being settled; {deliveries_max} are allowed"),
            );
        }
        if body_bytes > *message_bytes_max {
            return park("oversized", format!("{body_bytes} bytes long; {message_bytes_max} are allowed"));
        }
        let Some(user) = properties.user_id() else {
            return park(
                "anonymous",
                "no user_id: the sender must set it to its broker user, which the broker then checks".into(),
            );
        };
        let view = self.network_map.view();
        let Some(party) = self.callers.party(user.as_str(), &view) else {
            return park("unknown_user", format!("broker user {:?} is no party that this notary knows", user.as_str()));
        };
        let asked = properties.reply_to().as_ref().map(|address| address.as_str());
        match reply_address(asked, user.as_str(), &party, &view, &names.replies) {
            Ok(address) if address.len() <= message::SHORT_BYTES_MAX => Ok((party, address)),
            Ok(address) => park("reply_queue", format!("the reply queue's name has {} bytes", address.len())),
            Err(reason) => park("reply_queue", reason),
        }
    }

    /// Publishes replies in order, and returns once they are safe.
    pub(super) async fn reply(&self, held: &Held, replies: Vec<Reply>) -> Result<(), QueueError> {
        let version = self.options.platform_version;
        let letter = |reply| message::reply(reply, &held.reply_to, held.correlation.as_ref(), version);
        let letters: Vec<Letter> = replies.into_iter().map(letter).collect();
        if letters.is_empty() {
            return Ok(());
        }
        self.publish(&held.session, &letters).await.map_err(QueueError::Unsafe)
    }

    /// Publishes, again and again, until it is safe, the connection is lost, or the hold is over.
    async fn publish(&self, session: &Session, letters: &[Letter]) -> Result<(), String> {
        let deadline = Instant::now() + self.options.reply_hold;
        let publishing = async {
            let mut last = String::new();
            for failures in 0.. {
                match session.lanes.publish(&session.connection, letters, deadline).await {
                    Ok(()) => return Ok(()),
                    Err(Unsafe::Late) if last.is_empty() => last = "the broker did not confirm in time".into(),
                    Err(Unsafe::Late) => {}
                    Err(Unsafe::Refused(why)) => {
                        metrics::reply_retried();
                        tracing::debug!(why, "published in vain");
                        last = why;
                    }
                }
                let pause = REPUBLISH.after(failures);
                if session.is_lost() || Instant::now() + pause >= deadline {
                    break;
                }
                sleep(pause).await;
            }
            Err(last)
        };
        tokio::select! {
            published = publishing => published,
            () = session.wait_lost() => Err("the connection was lost".into()),
        }
    }

    /// Acknowledges. The broker does not confirm that; what it did not get it delivers again.
    pub(super) async fn accept(&self, held: &Held) -> Result<(), QueueError> {
        if held.session.is_lost() {
            return Err(lost());
        }
        match timeout(self.options.access.silence_max, held.acker.ack(BasicAckOptions::default())).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(lost()),
        }
    }

    /// Gives back after a pause. A worker that leaves, or loses the connection, does not pause.
    pub(super) async fn release(&self, shared: &Shared, held: &Held) -> Result<(), QueueError> {
        let mut wish = shared.wish.subscribe();
        tokio::select! {
            () = sleep(RELEASE.after(held.prior_deliveries)) => {}
            // An error means that the queue is gone.
            _ = wish.wait_for(|wish| *wish != Wish::Serve) => {}
            () = held.session.wait_lost() => return Err(lost()),
        }
        match self.give_back(&held.acker).await {
            true => Ok(()),
            false => Err(lost()),
        }
    }

    /// Gives back at once. Returns whether the connection still took it.
    pub(super) async fn give_back(&self, acker: &Acker) -> bool {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        matches!(timeout(self.options.access.silence_max, acker.nack(options)).await, Ok(Ok(true)))
    }

    /// Puts a request into the dead-letter queue, and only then takes it from its own.
    pub(super) async fn park(&self, shared: &Shared, held: &Held, park: &Park) -> Result<(), QueueError> {
        let letter = message::parked(&held.properties, &held.body, &held.queue, &self.options.names.dead, &park.reason);
        match self.publish(&held.session, &[letter]).await {
            Ok(()) => {
                metrics::parked(park.kind);
                let user = held.properties.user_id().as_ref().map_or("", |user| user.as_str());
                let (user, reason) = (crate::broker::printable(user, 64), crate::broker::printable(&park.reason, 512));
                tracing::warn!(queue = held.queue, user, reason, "request parked");
                self.accept(held).await
            }
            Err(why) => {
                tracing::warn!(queue = self.options.names.dead, why, "cannot park; the request stays");
                // If this fails too the connection is lost, and the request comes again.
                let _ = self.release(shared, held).await;
                Err(QueueError::Unsafe(why))
            }
        }
    }
}

fn lost() -> QueueError {
    QueueError::Unsafe("the connection was lost".into())
}
