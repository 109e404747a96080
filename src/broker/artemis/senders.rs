//! Links to the addresses that a worker writes to. One for each address, kept while it is used: attaching costs a round trip.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::broker::amqp::connection::{AmqpError, Connection, SendOutcome, Sender};

/// Links kept at once: as many callers as are active within minutes. A further one takes the place of the one that was used least
/// recently.
const LINKS_MAX: usize = 256;

/// The links of one connection.
#[derive(Debug)]
pub(super) struct Senders {
    /// Messages under way on one link.
    window: usize,
    links: Mutex<Links>,
}

#[derive(Default, Debug)]
struct Links {
    by_address: HashMap<String, (Arc<OnceCell<Sender>>, u64)>,
    uses: u64,
}

impl Senders {
    pub(super) fn new(window: usize) -> Self {
        Self { window, links: Mutex::default() }
    }

    fn cell(&self, address: &str) -> Arc<OnceCell<Sender>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let Links { by_address, uses } = &mut *links;
        *uses += 1;
        if let Some((cell, used)) = by_address.get_mut(address) {
            *used = *uses;
            return Arc::clone(cell);
        }
        if by_address.len() >= LINKS_MAX {
            let oldest = by_address.iter().min_by_key(|(_, (_, used))| *used).map(|(address, _)| address.clone());
            // Whoever still sends on it keeps it until that is done.
            oldest.and_then(|oldest| by_address.remove(&oldest));
        }
        let cell = Arc::new(OnceCell::new());
        by_address.insert(address.to_owned(), (Arc::clone(&cell), *uses));
        cell
    }

    /// A link that failed is not used again.
    fn forget(&self, address: &str, failed: &Arc<OnceCell<Sender>>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.by_address.get(address).is_some_and(|(cell, _)| Arc::ptr_eq(cell, failed)) {
            links.by_address.remove(address);
        }
    }

    /// Sends a message and waits for its outcome.
    ///
    /// # Errors
    /// [`AmqpError`] if the broker does not let us write there, or the link or the connection is lost.
    pub(super) async fn send(
        &self,
        connection: &Connection,
        address: &str,
        message: Vec<u8>,
    ) -> Result<SendOutcome, AmqpError> {
        let cell = self.cell(address);
        let sent = async {
            let sender = cell.get_or_try_init(|| connection.sender(address, true, self.window)).await?;
            sender.send(message).await?.await
        };
        let sent = sent.await;
        if sent.is_err() {
            self.forget(address, &cell);
        }
        sent
    }
}
