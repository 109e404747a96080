//! How a worker stays connected to a broker on the network: every host in turn, with growing pauses between the rounds, until it is to
//! close. What a connection is, and how it is served from, is the adapter's own.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::access::ConnectError;
use super::deliveries::{Held, Shared, Wish};
use super::pause::Pause;

/// The first pause between rounds of attempts to connect.
const BASE: Duration = Duration::from_millis(100);

/// Whom to tell how the first round of attempts ended.
pub(super) type First = Option<oneshot::Sender<Result<(), String>>>;

/// Whoever keeps a connection to one kind of broker.
pub(super) trait Keeper: Send + Sync {
    /// The broker's name in the log.
    const BROKER: &'static str;
    /// What the adapter keeps of a delivery.
    type Held: Held;

    /// What the worker holds.
    fn shared(&self) -> &Shared<Self::Held>;

    /// One connection to `host`, from its opening to its end. Returns whether it ever served; as soon as it does, `first` is told.
    fn attempt(
        &self,
        host: &str,
        wish: &mut watch::Receiver<Wish>,
        first: &mut First,
    ) -> impl Future<Output = Result<bool, ConnectError>> + Send;
}

/// Keeps a connection to one of `hosts` until the wish is to close, or until no host could be served from in the first round. Pauses
/// grow up to `cap`.
pub(super) async fn keep<K: Keeper>(
    keeper: K,
    hosts: &[String],
    cap: Duration,
    first: oneshot::Sender<Result<(), String>>,
) {
    let shared = keeper.shared();
    let rounds = Pause { base: BASE, cap };
    let mut wish = shared.wish.subscribe();
    let mut first: First = Some(first);
    let (mut attempt, mut failures) = (0_usize, 0_u32);
    while *wish.borrow_and_update() != Wish::Close {
        let host = &hosts[attempt % hosts.len()];
        let served = match keeper.attempt(host, &mut wish, &mut first).await {
            Ok(served) => served,
            Err(error) => {
                tracing::warn!(broker = K::BROKER, %error, "cannot connect");
                shared.down(None, &error.to_string());
                false
            }
        };
        if served {
            // The host was good: it is tried first, after a pause that gives it time.
            failures = 0;
        } else {
            attempt += 1;
            failures += 1;
            // Every host is tried once before the first pause.
            if !attempt.is_multiple_of(hosts.len()) {
                continue;
            }
            if let Some(first) = first.take() {
                // Whoever opens the queue waits for exactly this.
                let _ = first.send(Err(shared.session().err().unwrap_or_default()));
                return;
            }
        }
        let round = failures / u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        let closing = wish.wait_for(|wish| *wish == Wish::Close);
        // Either way the loop looks again.
        let _ = timeout(rounds.after(round), closing).await;
    }
}
