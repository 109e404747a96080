//! Publishing so that it is known what became of each message: publisher confirms and `mandatory`.
//!
//! A message that no queue takes comes back *before* its confirm, and lapin ties what came back to whichever confirm it sees next
//! on the channel. So messages of different origin must not share a channel while they are under way: each publication has a lane,
//! a channel of its own, and lanes are used again and again. Within a lane a publication's messages are under way together, and
//! one that came back spoils them all: they are repeated in order.

use std::sync::{Arc, Mutex, PoisonError};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::transport::explain;

/// Publications under way at once. A confirm of a quorum queue takes some milliseconds, so this carries thousands of replies per
/// second; a channel costs the broker some 50 KiB, and it allows 2047 of them per connection.
const LANES_MAX: usize = 64;

/// One message to publish.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Letter {
    /// The exchange, empty for the default one.
    pub exchange: String,
    /// The routing key; under the default exchange the queue's name.
    pub key: String,
    pub properties: BasicProperties,
    pub body: Arc<[u8]>,
}

/// Why a publication is not known to be safe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unsafe {
    /// No queue takes a message of it, or the broker said no: perhaps later.
    Refused(String),
    /// The deadline passed first.
    Late,
}

/// The lanes of one connection.
pub(super) struct Lanes {
    idle: Mutex<Vec<Channel>>,
    places: Semaphore,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()), places: Semaphore::new(LANES_MAX) }
    }

    /// Publishes `letters` in order, and returns once the broker has confirmed each and returned none.
    pub(super) async fn publish(
        &self,
        connection: &Connection,
        letters: &[Letter],
        deadline: Instant,
    ) -> Result<(), Unsafe> {
        timeout_at(deadline, self.attempt(connection, letters)).await.unwrap_or(Err(Unsafe::Late))
    }

    async fn attempt(&self, connection: &Connection, letters: &[Letter]) -> Result<(), Unsafe> {
        let refused = |error: lapin::Error| Unsafe::Refused(explain(&error));
        let _place = self.places.acquire().await.map_err(|_| Unsafe::Late)?;
        let lane = match self.take() {
            Some(lane) => lane,
            None => {
                let lane = connection.create_channel().await.map_err(refused)?;
                lane.confirm_select(ConfirmSelectOptions::default()).await.map_err(refused)?;
                lane
            }
        };
        // From here on a lane that is not given back is closed when it is dropped: what is under way on it must not be taken for
        // another publication's.
        let mut confirms = Vec::with_capacity(letters.len());
        for Letter { exchange, key, properties, body } in letters {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let published =
                lane.basic_publish(exchange.as_str().into(), key.as_str().into(), options, body, properties.clone());
            confirms.push(published.await.map_err(refused)?);
        }
        let mut problem = None;
        for confirm in confirms {
            match confirm.await.map_err(refused)? {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(returned)) => {
                    problem = Some(format!("{}: {}", returned.routing_key, returned.reply_text));
                }
                Confirmation::Nack(_) => problem = Some("the queue does not take it (full?)".to_owned()),
                Confirmation::NotRequested => problem = Some("the channel does not confirm".to_owned()),
            }
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        problem.map_or(Ok(()), |problem| Err(Unsafe::Refused(problem)))
    }

    fn take(&self) -> Option<Channel> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match idle.pop() {
                Some(lane) if lane.status().connected() => return Some(lane),
                Some(_) => {}
                None => return None,
            }
        }
    }
}
