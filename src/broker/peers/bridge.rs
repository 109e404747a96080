//! One task a peer: connects to the addresses that the network map gives, as a node's bridge would, and sends answers in order.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use zeroize::Zeroizing;

use super::table::{Answer, BridgeId, Next, TAKES_NOTHING};
use super::{Limits, Shared};
use crate::broker::amqp::connection::{AmqpError, ConnectOptions, Connection, Login, SendOutcome, Sender};
use crate::broker::pause::Pause;
use crate::broker::printable;
use crate::domain::X500Name;
use crate::domain::network::{HostAndPort, Route};
use crate::tls::peers::handshake_fault;

/// The user and the password of every node towards every other (PROTOCOL b.4): who it is follows from its certificate.
const PEER_LOGIN: &str = "SystemUsers/Peer";

/// Messages under way to one peer. Corda's broker gives credit for 1 000; at 100 ms a round trip 512 are 1 700 answers a second.
const MESSAGES_UNDER_WAY_MAX: usize = 512;

/// Inboxes of one peer that links are kept to: one, unless its key changes.
const LINKS_MAX: usize = 4;

/// Frames of messages that the peer may send us: none is expected, as no link of ours receives.
const INCOMING_FRAMES_MAX: u32 = 1;

/// Characters of a peer's making in a log line.
const LOGGED_CHARS_MAX: usize = 200;

/// Addresses of a node that are tried: the others of a longer list would only make a round long.
const ADDRESSES_MAX: usize = 8;

/// How often a bridge looks whether its peer takes nothing.
const LOOK: Duration = Duration::from_millis(500);

/// A bridge to one peer.
pub(super) struct Bridge {
    pub shared: Arc<Shared>,
    pub peer: X500Name,
    pub id: BridgeId,
    /// Told when answers wait, and when the bridge is to end.
    pub wake: Arc<Notify>,
    pub closing: watch::Receiver<bool>,
}

/// How a connection came to its end.
enum End {
    /// Nothing was to be sent for a while.
    Idle,
    /// The bridge is not wanted any more.
    Unwanted,
    /// It broke, or the peer ended it; whether anything was accepted before.
    Lost { why: String, useful: bool },
}

/// What became of an answer: accepted, not taken, or unknown as its link or connection ended.
type Fate = Result<Result<(), String>, AmqpError>;
/// Tells, of an answer that is sent: its number, how many messages it has, its fate.
type Sent = Pin<Box<dyn Future<Output = (u64, usize, Fate)> + Send>>;

impl Bridge {
    /// Serves the peer until its place is given to another, or nothing was to be sent for a while.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let (table, limits) = (&shared.table, &shared.limits);
        let pause = Pause { base: limits.retry_base, cap: limits.retry_cap };
        let (mut failures, mut first_address) = (0, 0);
        while table.is_current(&self.peer, self.id) {
            if !table.has_work(&self.peer, self.id) {
                let woken = timeout(limits.idle_timeout, self.wake.notified()).await;
                if woken.is_err() && table.retire(&self.peer, self.id) {
                    return;
                }
                continue;
            }
            let why = match self.connect(&mut first_address).await {
                Ok(connection) => {
                    if table.up(&self.peer, self.id) {
                        tracing::info!(peer = %self.peer, "answers reach it again");
                    }
                    match self.carry(&connection).await {
                        End::Idle | End::Unwanted => {
                            table.rest(&self.peer, self.id);
                            connection.close().await;
                            failures = 0;
                            continue;
                        }
                        End::Lost { why, useful } => {
                            if useful {
                                // It works in principle: the first try is free.
                                failures = 0;
                                tracing::debug!(peer = %self.peer, why, "bridge lost");
                                table.rest(&self.peer, self.id);
                                continue;
                            }
                            why
                        }
                    }
                }
                Err(why) => why,
            };
            let why = printable(&why, LOGGED_CHARS_MAX);
            if table.down(&self.peer, self.id, &why) {
                tracing::warn!(peer = %self.peer, why, "answers do not reach it: its requests wait with it meanwhile");
            } else {
                tracing::debug!(peer = %self.peer, why, failures, "still no bridge");
            }
            let pause = pause.after(failures);
            failures += 1;
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    /// One round through the addresses, from the one that worked last.
    async fn connect(&self, first: &mut usize) -> Result<Connection, String> {
        let view = self.shared.network_map.view();
        let route = view.routes.get(&self.peer).ok_or("the network map has no address of it")?;
        let count = route.addresses.len().min(ADDRESSES_MAX);
        let mut faults = Vec::new();
        for index in (0..count).map(|n| (*first + n) % count) {
            let address = &route.addresses[index];
            match self.connect_to(address, route).await {
                Ok(connection) => {
                    *first = index;
                    return Ok(connection);
                }
                Err(why) => faults.push(format!("{address}: {why}")),
            }
        }
        match faults.is_empty() {
            true => Err("the network map has no address of it".into()),
            false => Err(faults.join("; ")),
        }
    }

    async fn connect_to(&self, address: &HostAndPort, route: &Route) -> Result<Connection, String> {
        let Shared { limits, tls, runtime, container_id, .. } = &*self.shared;
        let step = limits.step_timeout;
        let late = |what: &str| format!("{what} took longer than {step:?}");
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let socket = timeout(step, connecting).await.map_err(|_| late("connecting"))?;
        let socket = socket.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let securing = timeout(step, tls.connect(route, socket)).await;
        let stream = securing.map_err(|_| late("the TLS handshake"))?.map_err(|error| handshake_fault(&error))?;
        let options = ConnectOptions {
            host: address.host.clone(),
            port: address.port,
            tls: None,
            login: Login::Plain { user: PEER_LOGIN.into(), password: Zeroizing::new(PEER_LOGIN.into()) },
            container_id: container_id.clone(),
            silence_max: limits.silence_max,
            step_max: step,
            frames_max: INCOMING_FRAMES_MAX,
        };
        Connection::over(Box::new(stream), &options, runtime).await.map_err(|error| error.to_string())
    }

    /// Sends what waits, until there is nothing more for a while or the connection ends.
    async fn carry(&mut self, connection: &Connection) -> End {
        let limits = Arc::clone(&self.shared.limits);
        let shared = Arc::clone(&self.shared);
        let mut carrier = Carrier {
            bridge: self,
            connection,
            links: HashMap::new(),
            sent: BTreeMap::new(),
            messages: 0,
            outcomes: FuturesUnordered::new(),
            useful: false,
            last_use: Instant::now(),
            last_outcome: Instant::now(),
        };
        let wake = Arc::clone(&carrier.bridge.wake);
        let mut closing = carrier.bridge.closing.clone();
        let mut look = interval(LOOK.min(limits.idle_timeout));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            if let Err(end) = carrier.fill().await {
                break end;
            }
            let stepped = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Err(End::Unwanted),
                Some((number, count, fate)) = carrier.outcomes.next(), if !carrier.outcomes.is_empty() => {
                    carrier.on_outcome(number, count, fate)
                }
                () = wake.notified() => Ok(()),
                error = connection.ended() => Err(carrier.lost(&error)),
                _ = look.tick() => carrier.look(&limits),
            };
            if let Err(end) = stepped {
                break end;
            }
        };
        let unfinished = carrier.sent.into_values().collect();
        if matches!(end, End::Lost { .. }) {
            let (peer, id) = (&self.peer, self.id);
            shared.table.give_back(peer, id, unfinished);
        }
        end
    }
}

/// One connection's work.
struct Carrier<'c> {
    bridge: &'c Bridge,
    connection: &'c Connection,
    /// By inbox.
    links: HashMap<String, Sender>,
    /// Answers under way that somebody waits for, in order.
    sent: BTreeMap<u64, Answer>,
    /// Messages under way, whether anybody waits for them or not.
    messages: usize,
    outcomes: FuturesUnordered<Sent>,
    useful: bool,
    last_use: Instant,
    /// When the peer last disposed of something, or had nothing to dispose of.
    last_outcome: Instant,
}

impl Carrier<'_> {
    /// Sends what waits, as far as there is room.
    async fn fill(&mut self) -> Result<(), End> {
        let Bridge { shared, peer, id, .. } = self.bridge;
        while self.messages < MESSAGES_UNDER_WAY_MAX {
            let answer = match shared.table.next(peer, *id) {
                Next::Wait => return Ok(()),
                Next::End => return Err(End::Unwanted),
                Next::Send(answer) => answer,
            };
            self.last_use = Instant::now();
            if self.outcomes.is_empty() {
                self.last_outcome = self.last_use;
            }
            let (number, count) = (answer.number, answer.messages.len());
            let sent = self.send(&answer).await;
            // Even if it was not: so it is given back with the others if the connection is lost.
            self.sent.insert(number, answer);
            self.messages += count;
            match sent {
                Ok(outcome) => self.outcomes.push(outcome),
                Err(error) => self.on_outcome(number, count, Err(error))?,
            }
        }
        Ok(())
    }

    /// Hands all messages of an answer to the link of its inbox, in order.
    async fn send(&mut self, answer: &Answer) -> Result<Sent, AmqpError> {
        if !self.links.contains_key(&answer.address) {
            if self.links.len() >= LINKS_MAX {
                // The peer's key has changed again and again; what is under way on old links is sent again.
                self.links.clear();
            }
            // Twice what is ever under way, so that handing a message over never waits.
            let link = self.connection.sender(&answer.address, false, 2 * MESSAGES_UNDER_WAY_MAX).await?;
            self.links.insert(answer.address.clone(), link);
        }
        let link = &self.links[&answer.address];
        let mut outcomes = Vec::with_capacity(answer.messages.len());
        for message in answer.messages.iter() {
            outcomes.push(link.send(message.clone()).await?);
        }
        let (number, count) = (answer.number, answer.messages.len());
        Ok(Box::pin(async move {
            for outcome in outcomes {
                match outcome.await {
                    Ok(SendOutcome::Accepted) => {}
                    Ok(SendOutcome::Released) => {
                        return (number, count, Ok(Err("the peer gave a message back".into())));
                    }
                    Ok(SendOutcome::Rejected { reason }) => {
                        return (number, count, Ok(Err(format!("the peer rejected a message: {reason}"))));
                    }
                    Err(error) => return (number, count, Err(error)),
                }
            }
            (number, count, Ok(Ok(())))
        }))
    }

    /// Notes what became of an answer of `count` messages.
    fn on_outcome(&mut self, number: u64, count: usize, fate: Fate) -> Result<(), End> {
        let Bridge { shared, peer, id, .. } = self.bridge;
        self.messages -= count;
        (self.last_use, self.last_outcome) = (Instant::now(), Instant::now());
        let outcome = match fate {
            Ok(outcome) => outcome,
            // The link was refused, or ended, and not the connection: the peer has no such inbox, or no room in it.
            Err(AmqpError::Refused { condition, description }) if self.connection.end().is_none() => {
                if let Some(answer) = self.sent.get(&number) {
                    self.links.remove(&answer.address);
                }
                Err(format!("the peer refused the link: {condition}: {description}"))
            }
            Err(error) => return Err(self.lost(&error)),
        };
        if outcome.is_ok() {
            self.useful = true;
            shared.table.progress(peer, *id);
        }
        // Given up, if it is not there.
        let Some(answer) = self.sent.remove(&number) else { return Ok(()) };
        let outcome = outcome.map_err(|why| printable(&why, LOGGED_CHARS_MAX));
        if let Err(why) = &outcome {
            tracing::warn!(%peer, address = answer.address, why, "an answer was not taken");
        }
        answer.finish(outcome);
        Ok(())
    }

    /// Looks whether the bridge is of use.
    fn look(&mut self, limits: &Limits) -> Result<(), End> {
        let Bridge { shared, peer, id, .. } = self.bridge;
        if self.outcomes.is_empty() {
            return match self.last_use.elapsed() >= limits.idle_timeout {
                true => Err(End::Idle),
                false => Ok(()),
            };
        }
        let quiet = self.last_outcome.elapsed();
        if quiet >= limits.answer_hold {
            return Err(End::Lost { why: format!("it took nothing for {quiet:?}"), useful: false });
        }
        if shared.table.shed_if_stuck(peer, *id) {
            // Whoever waits for these holds a place that others need. They may be accepted all the same, which does no harm.
            while self.sent.len() > limits.answers_per_stuck_peer_max
                && let Some((_, answer)) = self.sent.pop_last()
            {
                answer.finish(Err(TAKES_NOTHING.into()));
            }
        }
        Ok(())
    }

    fn lost(&self, error: &AmqpError) -> End {
        End::Lost { why: error.to_string(), useful: self.useful }
    }
}
