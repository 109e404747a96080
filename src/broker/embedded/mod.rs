//! The embedded endpoint: an AMQP 1.0 listener that is the request queue. It stores nothing: requests stay with their senders,
//! unsettled, and replies go straight to whoever listens for them.
//!
//! A request's way: `connection` reads bytes, `handshake` says whose they are, `conversation` makes deliveries of them,
//! `requests` holds each link to its credit, `hub` hands them to the worker in turn; `replies` sends the answers back. What a
//! peer may take is in [`Limits`], what is refused is counted as [`Refusal`].
//!
//! There are two entrances:
//! - For clients on this machine, without TLS ([`Endpoint::listen`]): loopback only, as the password is in the clear. They attach a
//!   sender to one of the worker's addresses, and a receiver to their own inbox (or to a dynamic source, which a request then names
//!   in `reply-to`).
//! - For Corda nodes, over TLS ([`Endpoint::listen_for_nodes`], PROTOCOL b): whose certificate the network's root vouches for is
//!   who that says. They only send; answers go out on connections of our own. A node's bridge sends again at once, and with all
//!   that it has under way, what is not accepted: so what can never be served is logged, counted and accepted, as a node does; what
//!   may be served later is given back with a pause; and a worker that cannot serve ends its connections, as a bridge keeps what
//!   it took for this worker until then.

mod connection;
mod conversation;
mod credentials;
mod examine;
mod handshake;
mod hub;
mod limits;
mod refusal;
pub mod rehearsal;
mod replies;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use self::credentials::{Authenticator, Caller, Credentials, DuplicateUser, Evidence, SecretDigest};
pub use self::examine::{examine, examine_for_nodes};
pub use self::limits::Limits;
pub use self::refusal::Refusal;

use self::hub::Hub;
use self::refusal::Refusals;
use super::amqp::message::OutgoingMessage;
use crate::domain::X500Name;
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Reply, RequestQueue, Settlement};
use crate::ports::{BoxFuture, Probe};
use crate::tls::TlsError;
use crate::tls::peers::PeerTls;

/// What the endpoint is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; loopback only without TLS. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The worker's name as text: the container id, and the sender that replies name (`_AMQ_VALIDATED_USER`).
    pub worker_name: String,
    /// The addresses of requests: `p2p.inbound.<H(service key)>` and `p2p.inbound.<H(worker's own key)>`.
    pub addresses: Vec<String>,
    /// The worker's platform version, told in replies.
    pub platform_version: i32,
    /// What peers may take.
    pub limits: Limits,
}

/// Why the endpoint does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Other machines could connect, and there is no TLS.
    #[error("{0} is no loopback address: without TLS the endpoint listens on loopback only")]
    NotLoopback(SocketAddr),
    /// There can be no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The limits cannot work.
    #[error("limits: {0}")]
    Limits(&'static str),
    /// The system refused.
    #[error("cannot listen on {address}: {cause}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
}

/// What the endpoint holds at the moment, for metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Authenticated connections.
    pub connections: usize,
    /// Connections that have not said who they are.
    pub handshakes: usize,
    /// Links on which requests come.
    pub request_links: usize,
    /// Links on which replies go.
    pub reply_links: usize,
    /// Deliveries not disposed of: waiting for the worker, or in it.
    pub undisposed: usize,
    /// Those of them that wait for the worker.
    pub waiting: usize,
    /// Bytes of requests in memory.
    pub request_bytes: usize,
    /// Calls of [`RequestQueue::reply`] that wait for their replies to be safe.
    pub replies: usize,
    /// What was refused since the start, by reason.
    pub refused: Vec<(Refusal, u64)>,
}

impl Figures {
    /// How often something was refused for this reason.
    pub fn refused_for(&self, reason: Refusal) -> u64 {
        self.refused.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }
}

/// What all connections share.
struct Shared {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    refusals: Refusals,
    entrance: Entrance,
    addresses: Vec<String>,
    container_id: String,
    platform_version: i32,
    handshakes: Arc<Semaphore>,
    /// Handshakes by address.
    callers: Mutex<HashMap<IpAddr, usize>>,
}

/// How many requests a node may have open on one link at the moment, given its name; 0 for none, which leaves them with it. Asked
/// every second or two, and so quick.
pub type Admission = Arc<dyn Fn(&X500Name) -> u32 + Send + Sync>;

/// Who is let in, and as whom.
enum Entrance {
    /// Clients on this machine, by their secrets.
    Secrets(Arc<dyn Authenticator>),
    /// Nodes, by their certificates.
    Certificates { tls: PeerTls, settings: Arc<rustls::ServerConfig>, admission: Admission },
}

impl Shared {
    fn is_for_nodes(&self) -> bool {
        matches!(self.entrance, Entrance::Certificates { .. })
    }

    /// What a caller may have open on a link.
    fn allowance(&self, caller: &Caller) -> u32 {
        match &self.entrance {
            Entrance::Secrets(_) => self.limits.link_credit,
            Entrance::Certificates { admission, .. } => admission(&caller.name).min(self.limits.link_credit),
        }
    }

    /// A place for somebody who has not said who it is.
    fn handshake(self: &Arc<Self>, peer: SocketAddr) -> Option<Handshake> {
        let place = Arc::clone(&self.handshakes).try_acquire_owned().ok()?;
        let mut callers = lock(&self.callers);
        let count = callers.entry(peer.ip()).or_default();
        if *count >= self.limits.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        Some(Handshake { shared: Arc::clone(self), address: peer.ip(), _place: place })
    }
}

/// A place for somebody who has not said who it is.
struct Handshake {
    shared: Arc<Shared>,
    address: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut callers = lock(&self.shared.callers);
        if let Entry::Occupied(mut entry) = callers.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// The listener. Dropped, it ends at once; see [`Self::shutdown`] for the polite way.
pub struct Endpoint {
    shared: Arc<Shared>,
    runtime: Handle,
    local_addr: SocketAddr,
    /// Told to stop accepting.
    stop: watch::Sender<bool>,
    /// Turns true when the last connection has ended.
    ended: watch::Receiver<bool>,
    acceptor: AbortHandle,
}

/// How long connections get to close after the last delivery was settled, in [`Endpoint::shutdown`]: more than any goodbye.
const CLOSING: Duration = Duration::from_secs(2);

/// How long to wait when the system has no more file descriptors; each attempt would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Endpoint {
    /// Listens for clients on this machine. All its tasks run on `runtime`, never on the caller's own.
    ///
    /// # Errors
    /// [`ListenError`] if the address is no loopback address or cannot be had, or if the limits cannot work.
    pub fn listen(
        settings: Settings,
        authenticator: Arc<dyn Authenticator>,
        runtime: &Handle,
    ) -> Result<Self, ListenError> {
        match settings.listen {
            address if !address.ip().is_loopback() => Err(ListenError::NotLoopback(address)),
            _ => Self::start(settings, Entrance::Secrets(authenticator), runtime),
        }
    }

    /// Listens for Corda nodes. All its tasks run on `runtime`, never on the caller's own.
    ///
    /// # Errors
    /// [`ListenError`] if the address cannot be had, TLS refuses, or the limits cannot work.
    pub fn listen_for_nodes(
        settings: Settings,
        tls: &PeerTls,
        admission: Admission,
        runtime: &Handle,
    ) -> Result<Self, ListenError> {
        let entrance = Entrance::Certificates { tls: tls.clone(), settings: tls.server()?, admission };
        Self::start(settings, entrance, runtime)
    }

    fn start(settings: Settings, entrance: Entrance, runtime: &Handle) -> Result<Self, ListenError> {
        let address = settings.listen;
        if let Some(fault) = settings.limits.fault() {
            return Err(ListenError::Limits(fault));
        }
        let io = |cause| ListenError::Io { address, cause };
        let listener = std::net::TcpListener::bind(address).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        let local_addr = listener.local_addr().map_err(io)?;
        let listener = {
            let _in_runtime = runtime.enter();
            TcpListener::from_std(listener).map_err(io)?
        };

        let limits = Arc::new(settings.limits);
        let shared = Arc::new(Shared {
            hub: Arc::new(Hub::new(Arc::clone(&limits))),
            refusals: Refusals::default(),
            entrance,
            addresses: settings.addresses,
            container_id: settings.worker_name,
            platform_version: settings.platform_version,
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            callers: Mutex::default(),
            limits,
        });
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let accepting = accept(listener, Arc::clone(&shared), stopped, end);
        let acceptor = runtime.spawn(accepting).abort_handle();
        Ok(Self { shared, runtime: runtime.clone(), local_addr, stop, ended, acceptor })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What it holds at the moment.
    pub fn figures(&self) -> Figures {
        let load = self.shared.hub.load();
        Figures {
            connections: load.connections,
            handshakes: self.shared.limits.handshakes_max - self.shared.handshakes.available_permits(),
            request_links: load.request_links,
            reply_links: load.reply_links,
            undisposed: load.undisposed,
            waiting: load.waiting,
            request_bytes: load.request_bytes,
            replies: load.reply_groups,
            refused: self.shared.refusals.counts(),
        }
    }

    /// Stops: accepts nothing more, gives waiting requests back, lets the worker reply to and settle what it holds for at most
    /// `grace`, then closes every connection. What is undisposed by then stays with its sender.
    pub async fn shutdown(&self, grace: Duration) {
        self.stop.send_replace(true);
        self.shared.hub.drain();
        let (shared, mut ended) = (Arc::clone(&self.shared), self.ended.clone());
        // On its own runtime, which has the timers, and so that it ends even if the caller loses interest.
        let closing = self.runtime.spawn(async move {
            let drained = tokio::time::timeout(grace, shared.hub.settled()).await.is_ok();
            if !drained {
                tracing::warn!(undisposed = shared.hub.load().undisposed, "closing with deliveries undisposed");
            }
            shared.hub.close();
            // The sender is dropped with the acceptor, which is an end as well.
            let _ = tokio::time::timeout(CLOSING, ended.wait_for(|ended| *ended)).await;
        });
        // It does not panic, and a runtime that is gone has ended everything.
        let _ = closing.await;
        self.acceptor.abort();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Connections are tasks of the acceptor's set: they end with it.
        self.acceptor.abort();
    }
}

impl RequestQueue for Endpoint {
    fn receive(&self) -> BoxFuture<'_, Result<Delivery, QueueError>> {
        Box::pin(self.shared.hub.take())
    }

    fn reply(&self, to: DeliveryId, replies: Vec<Reply>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let hub = &self.shared.hub;
            let correlation = hub.correlation(to)?;
            if self.shared.is_for_nodes() {
                return Err(hub::unsafe_because("nodes are answered on connections of our own"));
            }
            if replies.is_empty() {
                return Ok(());
            }
            let messages: VecDeque<_> =
                replies.iter().map(|reply| self.encode(reply, correlation.as_deref())).collect();
            drop(replies);
            let mut waiting = hub.enqueue(to, messages)?;
            let hold = self.shared.limits.reply_hold;
            let deadline = {
                // The timer is the endpoint's runtime's: callers need not have one.
                let _in_runtime = self.runtime.enter();
                tokio::time::sleep(hold)
            };
            tokio::select! {
                outcome = waiting.safe() => outcome,
                () = deadline => Err(QueueError::Unsafe(format!("not accepted within {hold:?}"))),
            }
        })
    }

    fn settle(&self, delivery: DeliveryId, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let settled = self.shared.hub.settle(delivery, settlement)?;
            settled.await.map_err(|_| hub::unsafe_because("the connection was lost"))
        })
    }

    /// Clients on this machine have nowhere else to go and wait; nodes do, and are let go.
    fn serve(&self, serving: bool) {
        if !self.shared.is_for_nodes() {
            return;
        }
        if serving {
            self.shared.hub.resume();
            return;
        }
        self.shared.hub.rest();
        let hub = Arc::clone(&self.shared.hub);
        let grace = self.shared.limits.rest_grace;
        self.runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            hub.leave();
        });
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shutdown(Duration::ZERO))
    }
}

/// The endpoint needs nothing from outside; it is lost only if it stopped listening.
impl Probe for Endpoint {
    fn part(&self) -> &'static str {
        "broker"
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        let ended = self.acceptor.is_finished();
        Box::pin(std::future::ready(if ended { Err("it listens no more".into()) } else { Ok(()) }))
    }
}

impl Endpoint {
    fn encode(&self, reply: &Reply, correlation_id: Option<&[u8]>) -> Vec<u8> {
        let message = OutgoingMessage {
            message_id: None,
            reply_to: None,
            correlation_id,
            platform_version: self.shared.platform_version,
            dedup_id: &reply.dedup_id,
            validated_user: &self.shared.container_id,
            headers: &reply.headers,
            body: &reply.body,
            ..OutgoingMessage::default()
        };
        message.encode()
    }
}

/// Accepts connections until told to stop, then waits for those there are.
async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    ended: watch::Sender<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Closed before a word of TLS: that way a node's bridge comes back within a minute, whereas a refused handshake
                // would keep it away for five, and later for a day.
                Ok(_) if shared.hub.is_resting() => {}
                Ok((stream, peer)) => {
                    let Some(place) = shared.handshake(peer) else {
                        shared.refusals.record(&peer, Refusal::TooManyHandshakes, "");
                        continue;
                    };
                    // Requests and replies are small and go both ways: waiting to fill packets only adds delay.
                    if stream.set_nodelay(true).is_ok() {
                        connections.spawn(connection::serve(stream, peer, Arc::clone(&shared), place));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = stopped.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    ended.send_replace(true);
}

/// Locks a mutex; what a panic left behind is still consistent, since nothing here panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
