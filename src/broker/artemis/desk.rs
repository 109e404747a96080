//! What is done about single deliveries: whose they are and whether they are admitted, replying, ending, parking.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use super::Options;
use super::access::explain;
use super::claims::{Claim, claim};
use super::state::{Held, Lane, Session, Shared};
use crate::broker::amqp::connection::{Disposal, Incoming, SendOutcome};
use crate::broker::amqp::message::{Message, OutgoingMessage};
use crate::broker::callers::{Callers, reply_address};
use crate::broker::deliveries::Wish;
use crate::broker::pause::Pause;
use crate::broker::printable;
use crate::domain::{Timestamp, X500Name};
use crate::observe::metrics;
use crate::ports::NetworkMap;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply};

/// Between attempts at a message that the broker gave back or refused: a queue that is declared anew, or emptied, is found soon.
const RESEND: Pause = Pause { base: Duration::from_millis(50), cap: Duration::from_secs(1) };
/// Before a request is given back: nothing much after a first failure, as another worker may do better, and more and more while it
/// fails everywhere. So twenty deliveries last some six minutes, and an outage does not park what is innocent.
const RELEASE: Pause = Pause { base: Duration::from_millis(50), cap: Duration::from_secs(30) };

/// Why a message was parked, for people.
const REASON: &str = "x-notary-reason";
/// Who sent it, as the broker says; if a Corda node did, as it says itself.
const USER: &str = "x-notary-user";
/// From which queue it was parked.
const QUEUE: &str = "x-notary-queue";

/// Characters of a reason: enough for a sentence with a name in it.
const REASON_CHARS_MAX: usize = 512;

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

/// Why a request is not offered to the worker.
enum Refusal {
    /// It never will be.
    Park(Park),
    /// It may be once the network map knows its sender, of this name.
    Unknown(String),
}

impl From<Park> for Refusal {
    fn from(park: Park) -> Self {
        Self::Park(park)
    }
}

/// What a request says of itself, as far as the worker's side of the broker needs it.
struct Judged {
    user: String,
    caller: X500Name,
    reply_to: String,
    correlation: Option<Vec<u8>>,
    platform_version: Option<i32>,
    dedup_id: Option<String>,
    sent_at: Option<Timestamp>,
    body: Vec<u8>,
}

impl Desk {
    /// Takes a delivery from the broker: offers it to the worker, or parks it.
    pub(super) fn admit(
        &self,
        shared: &Arc<Shared>,
        session: &Arc<Session>,
        lane: Lane,
        incoming: Incoming,
        runtime: &Handle,
    ) {
        let message = incoming.message.map(Arc::new);
        let decoded = message.as_ref().map(|message| Message::decode(message));
        let prior_deliveries = match &decoded {
            Some(Ok(message)) => message.delivery_count,
            _ => 0,
        };
        let origin = match &decoded {
            Some(Ok(message)) if self.options.inboxes.is_some() => message.validated_user.map(str::to_owned),
            Some(Ok(message)) => message.original_address.map(str::to_owned),
            _ => None,
        };
        let judged = self.judge(decoded);
        let mut held = Held {
            session: Arc::clone(session),
            lane,
            number: incoming.id,
            user: origin.unwrap_or_default(),
            reply_to: String::new(),
            correlation: None,
            message: message.clone(),
            prior_deliveries,
        };
        match judged {
            Ok(judged) => {
                held.user = judged.user;
                held.reply_to = judged.reply_to;
                held.correlation = judged.correlation;
                let delivery = Delivery {
                    id: DeliveryId(shared.fresh()),
                    caller: judged.caller,
                    platform_version: judged.platform_version,
                    dedup_id: judged.dedup_id,
                    sent_at: judged.sent_at,
                    prior_deliveries,
                    body: judged.body,
                };
                shared.offer(delivery, held);
            }
            Err(refusal) => {
                let park = match refusal {
                    Refusal::Park(park) => Some(park),
                    Refusal::Unknown(name) => self.lost_patience(&name, prior_deliveries),
                };
                let id = shared.withhold(held.clone());
                let (desk, shared) = (self.clone(), Arc::clone(shared));
                // Bounded: each takes one of the deliveries that the broker was given credit for.
                runtime.spawn(async move {
                    // If it fails the request comes again, and is judged then.
                    let _ = match park {
                        Some(park) => desk.park(&shared, &held, &park).await,
                        None => desk.release(&shared, &held).await,
                    };
                    shared.settled(id);
                });
            }
        }
    }

    /// Whether to park a request whose sender the network map does not know, rather than let it come again.
    fn lost_patience(&self, name: &str, prior_deliveries: u32) -> Option<Park> {
        if prior_deliveries == 0 {
            let caller = printable(name, REASON_CHARS_MAX);
            tracing::warn!(caller, "not in the network map: its request waits for the map");
        }
        let lost = prior_deliveries.saturating_add(1) >= self.options.deliveries_max;
        let reason = || format!("it says to be from {name}, whom the network map does not know");
        lost.then(|| Park { kind: "unknown_user", reason: reason() })
    }

    /// Whose request it is, and where its answer goes; or why nobody is to see it.
    fn judge(&self, decoded: Option<Result<Message<'_>, impl std::fmt::Display>>) -> Result<Judged, Refusal> {
        let park = |kind, reason: String| Err(Refusal::Park(Park { kind, reason }));
        let Options { deliveries_max, message_bytes_max, .. } = &*self.options;
        let message = match decoded {
            None => return park("oversized", format!("longer than the {message_bytes_max} bytes that are allowed")),
            Some(Err(error)) => return park("unreadable", format!("no AMQP message: {error}")),
            Some(Ok(message)) => message,
        };
        if message.delivery_count >= *deliveries_max {
            let count = message.delivery_count;
            return park(
                "poison",
                format!("delivered {count} times without being settled; {deliveries_max} are allowed"),
            );
        }
        let (user, caller, reply_to) = match self.options.inboxes {
            None => self.user(&message)?,
            Some(_) => self.peer(&message)?,
        };
        Ok(Judged {
            user,
            caller,
            reply_to,
            correlation: message.correlation_id.or(message.message_id).map(<[u8]>::to_vec),
            platform_version: message.platform_version,
            dedup_id: message.dedup_id.map(str::to_owned),
            sent_at: message.created_ms.map(Timestamp::from_millis),
            body: message.body.into_owned(),
        })
    }

    /// The broker's user who sent a message, its party, and where its answer goes.
    fn user(&self, message: &Message<'_>) -> Result<(String, X500Name, String), Park> {
        let Options { entrances, names, .. } = &*self.options;
        let Some(user) = message.original_address.and_then(|origin| entrances.user(origin)) else {
            let origin = message.original_address.unwrap_or("nowhere");
            let reason = format!("it came through {origin:?}, which is nobody's entrance");
            return Err(Park { kind: "anonymous", reason });
        };
        let view = self.network_map.view();
        let Some(party) = self.callers.party(user, &view) else {
            let reason = format!("broker user {user:?} is no party that this notary knows");
            return Err(Park { kind: "unknown_user", reason });
        };
        let reply_to = reply_address(message.reply_to, user, &party, &view, &names.replies);
        let reply_to = reply_to.map_err(|reason| Park { kind: "reply_queue", reason })?;
        Ok((user.to_owned(), party, reply_to))
    }

    /// The same of a message from a Corda node, whose answer does not pass here.
    fn peer(&self, message: &Message<'_>) -> Result<(String, X500Name, String), Refusal> {
        match claim(message.validated_user, &self.network_map.view()) {
            Claim::Party(name) => Ok((name.to_string(), name, String::new())),
            Claim::Unknown(name) => Err(Refusal::Unknown(name.to_string())),
            Claim::Nobody(reason) => Err(Park { kind: "anonymous", reason }.into()),
        }
    }

    /// Sends replies in order, and returns once they are safe.
    pub(super) async fn reply(&self, held: &Held, replies: Vec<Reply>) -> Result<(), QueueError> {
        if self.options.inboxes.is_some() {
            return Err(QueueError::Unsafe("Corda nodes are answered at their own brokers".into()));
        }
        let letters = replies.iter().map(|reply| {
            let letter = OutgoingMessage {
                correlation_id: held.correlation.as_deref(),
                platform_version: self.options.platform_version,
                dedup_id: &reply.dedup_id,
                validated_user: &self.options.worker_name,
                headers: &reply.headers,
                body: &reply.body,
                ..OutgoingMessage::default()
            };
            letter.encode()
        });
        self.send(&held.session, &held.reply_to, letters.collect()).await.map_err(QueueError::Unsafe)
    }

    /// Sends, again and again, until all is accepted, the connection is lost, or the hold is over. One after the other: a receiver
    /// that gets the second before the first ends its session.
    async fn send(&self, session: &Session, address: &str, letters: Vec<Vec<u8>>) -> Result<(), String> {
        let deadline = Instant::now() + self.options.reply_hold;
        let sending = async {
            for letter in letters {
                let mut last: Option<String> = None;
                for failures in 0.. {
                    let sent = session.senders.send(&session.connection, address, letter.clone());
                    let why = match timeout_at(deadline, sent).await {
                        Ok(Ok(SendOutcome::Accepted)) => break,
                        Ok(Ok(SendOutcome::Released)) => "the broker gave it back".to_owned(),
                        Ok(Ok(SendOutcome::Rejected { reason })) => {
                            format!("the broker refused it: {}", printable(&reason, 512))
                        }
                        Ok(Err(error)) => explain(&error),
                        Err(_) => {
                            return Err(last.unwrap_or_else(|| "the broker did not accept it in time".to_owned()));
                        }
                    };
                    metrics::reply_retried();
                    tracing::debug!(address, why, "sent in vain");
                    let pause = RESEND.after(failures);
                    if session.is_lost() || Instant::now() + pause >= deadline {
                        return Err(why);
                    }
                    last = Some(why);
                    sleep(pause).await;
                }
            }
            Ok(())
        };
        tokio::select! {
            sent = sending => sent,
            () = session.wait_lost() => Err("the connection was lost".into()),
        }
    }

    /// Settles. The broker does not confirm that; what it did not get it delivers again.
    pub(super) fn dispose(&self, held: &Held, disposal: Disposal) -> Result<(), QueueError> {
        if held.session.is_lost() {
            return Err(lost());
        }
        held.session.connection.dispose(held.number, disposal).map_err(|_| lost())
    }

    /// Gives back after a pause, and has the broker count it. A worker that leaves, or loses the connection, does not pause. Where
    /// nodes send, the broker pauses before it delivers again (redeliveryDelay): one that cannot be answered, or that nobody knows
    /// yet, takes no place here meanwhile, as all nodes share them.
    pub(super) async fn release(&self, shared: &Shared, held: &Held) -> Result<(), QueueError> {
        if self.options.inboxes.is_some() {
            return self.dispose(held, Disposal::Failed);
        }
        let mut wish = shared.wish.subscribe();
        tokio::select! {
            () = sleep(RELEASE.after(held.prior_deliveries)) => {}
            // An error means that the queue is gone.
            _ = wish.wait_for(|wish| *wish != Wish::Serve) => {}
            () = held.session.wait_lost() => return Err(lost()),
        }
        self.dispose(held, Disposal::Failed)
    }

    /// Puts a request into the dead-letter queue, and only then takes it from its own. Artemis drops the reason of a rejection, so
    /// we send the message there ourselves. What was too long to keep is left to the broker, which has it whole.
    pub(super) async fn park(&self, shared: &Shared, held: &Held, park: &Park) -> Result<(), QueueError> {
        let names = &self.options.names;
        let (user, reason) = (printable(&held.user, 256), printable(&park.reason, REASON_CHARS_MAX));
        let parked = match &held.message {
            None => self.dispose(held, Disposal::Reject),
            Some(message) => {
                let letter = self.obituary(held, message, &user, &reason);
                match self.send(&held.session, &names.dead, vec![letter]).await {
                    Ok(()) => self.dispose(held, Disposal::Accept),
                    Err(why) => {
                        tracing::warn!(queue = names.dead, why, "cannot park; the request stays");
                        // If this fails too the connection is lost, and the request comes again.
                        let _ = self.release(shared, held).await;
                        return Err(QueueError::Unsafe(why));
                    }
                }
            }
        };
        metrics::parked(park.kind);
        tracing::warn!(queue = self.options.queue(held.lane), user, reason, "request parked");
        parked
    }

    fn obituary(&self, held: &Held, message: &[u8], user: &str, reason: &str) -> Vec<u8> {
        let decoded = Message::decode(message).unwrap_or_default();
        // What is no message is parked as it came.
        let body = if decoded.body.is_empty() { message } else { &decoded.body };
        let headers =
            [(REASON, reason.to_owned()), (USER, user.to_owned()), (QUEUE, self.options.queue(held.lane).to_owned())];
        let sent_as = decoded.dedup_id.unwrap_or("unknown");
        let letter = OutgoingMessage {
            message_id: Some(sent_as),
            platform_version: decoded.platform_version.unwrap_or(0),
            // The broker drops what it knows already, and a request may be parked more than once.
            dedup_id: &format!("parked-{}-{}-{}", self.options.names.worker, held.session.number, held.number),
            validated_user: &self.options.worker_name,
            headers: &headers,
            body,
            ..OutgoingMessage::default()
        };
        letter.encode()
    }
}

fn lost() -> QueueError {
    QueueError::Unsafe("the connection was lost".into())
}
