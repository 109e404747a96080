//! Our own connections to peers, on which answers go out: as a node's bridge would have them (PROTOCOL b.5).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Limits;
use super::bridge::Bridge;
use super::table::{Load, NewBridge, NotAdmitted, Table};
use crate::broker::amqp::message::OutgoingMessage;
use crate::domain::X500Name;
use crate::observe::metrics;
use crate::ports::NetworkMap;
use crate::ports::request_queue::{QueueError, Reply};
use crate::tls::peers::PeerTls;

/// How long bridges get for their goodbyes.
const CLOSING: Duration = Duration::from_secs(2);

/// What all bridges share.
pub(super) struct Shared {
    pub limits: Arc<Limits>,
    pub table: Table,
    pub tls: PeerTls,
    pub network_map: Arc<dyn NetworkMap>,
    pub runtime: Handle,
    pub container_id: String,
    /// Receivers are the bridges: closed once the last has ended.
    closing: watch::Sender<bool>,
}

/// Connections to peers, one each, opened when there is something to send and closed when there was nothing for a while.
pub struct Bridges {
    shared: Arc<Shared>,
    platform_version: i32,
}

impl Bridges {
    /// Bridges as the identity of `tls`, to where `network_map` says. `platform_version` is told in every message. Everything
    /// runs on `runtime`.
    pub fn new(
        tls: PeerTls,
        network_map: Arc<dyn NetworkMap>,
        platform_version: i32,
        limits: Limits,
        runtime: &Handle,
    ) -> Self {
        let limits = Arc::new(limits);
        let shared = Shared {
            table: Table::new(Arc::clone(&limits)),
            limits,
            container_id: format!("notary:{}", tls.identity().name()),
            tls,
            network_map,
            runtime: runtime.clone(),
            closing: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared), platform_version }
    }

    /// Sends an answer to a party, in order, and returns once all of it is safe: accepted by the party's own broker.
    ///
    /// # Errors
    /// [`QueueError::Unsafe`] if that is not known within the hold, or the party is unknown, or too much waits already;
    /// [`QueueError::Closed`].
    pub async fn reply(&self, to: &X500Name, replies: Vec<Reply>) -> Result<(), QueueError> {
        if replies.is_empty() {
            return Ok(());
        }
        let outcome = self.send(to, replies).await;
        if outcome.is_err() {
            metrics::answer_not_taken();
        }
        outcome
    }

    async fn send(&self, to: &X500Name, replies: Vec<Reply>) -> Result<(), QueueError> {
        let shared = &self.shared;
        let address = match shared.network_map.view().parties.get(to) {
            Some(party) => format!("p2p.inbound.{}", party.owning_key.name_hash()),
            None => return Err(QueueError::Unsafe(format!("{to} is not in the network map"))),
        };
        let user = shared.tls.identity().name().to_string();
        let messages = replies.iter().map(|reply| self.encode(reply, &user)).collect();
        drop(replies);
        let (mut ticket, new) = shared.table.admit(to, address, messages).map_err(|refusal| match refusal {
            NotAdmitted::Closed => QueueError::Closed,
            NotAdmitted::Full(why) => QueueError::Unsafe(why),
        })?;
        if let Some(NewBridge { id, wake }) = new {
            let (peer, closing) = (to.clone(), shared.closing.subscribe());
            let bridge = Bridge { shared: Arc::clone(shared), peer, id, wake, closing };
            shared.runtime.spawn(bridge.run());
        }
        let deadline = {
            // The timer is the bridges' runtime's: callers need not have one.
            let _in_runtime = shared.runtime.enter();
            tokio::time::sleep(shared.limits.answer_hold)
        };
        tokio::select! {
            outcome = ticket.outcome() => outcome.map_err(QueueError::Unsafe),
            () = deadline => Err(QueueError::Unsafe(format!("not accepted within {:?}", shared.limits.answer_hold))),
        }
    }

    /// Whether answers for the party do not get away at the moment: then it should be asked for no more requests than a few.
    pub fn is_stuck(&self, peer: &X500Name) -> bool {
        self.shared.table.is_stuck(peer)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// What the bridges hold at the moment.
    pub fn load(&self) -> Load {
        self.shared.table.load()
    }

    /// Ends all bridges, with a goodbye. Answers that wait are not safe.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // On its own runtime, which has the timers, and so that it ends even if the caller loses interest.
        let closing = self.shared.runtime.spawn(async move {
            shared.table.close();
            shared.closing.send_replace(true);
            // Too late or not: it is an end.
            let _ = tokio::time::timeout(CLOSING, shared.closing.closed()).await;
        });
        // It does not panic, and a runtime that is gone has ended everything.
        let _ = closing.await;
    }

    /// As a node's bridge does, and nothing beyond that: peers get no headers for people.
    fn encode(&self, reply: &Reply, validated_user: &str) -> Vec<u8> {
        let message = OutgoingMessage {
            platform_version: self.platform_version,
            dedup_id: &reply.dedup_id,
            validated_user,
            body: &reply.body,
            ..OutgoingMessage::default()
        };
        message.encode()
    }
}

impl Drop for Bridges {
    fn drop(&mut self) {
        self.shared.table.close();
        self.shared.closing.send_replace(true);
    }
}
