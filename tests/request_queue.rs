//! The request queue: the port's contract on every adapter.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::client::{Answers, Client, Listen};
use notary_worker::broker::embedded::{Endpoint, Limits};
use notary_worker::broker::memory::{MemoryQueue, MemorySender};
use notary_worker::broker::{Answer, Outcome};
use notary_worker::ports::{BoxFuture, RequestQueue};
use tokio::task::JoinHandle;

#[path = "suites/request_queue.rs"]
mod suite;
mod peers;

use peers::{inbox, name, request};
use suite::{CREDIT, Peer, Rig};

mod memory {
    use super::*;

    pub(crate) struct MemoryRig(Arc<MemoryQueue>);

    impl Rig for MemoryRig {
        type Peer = MemorySender;

        async fn start(hold: Duration) -> Self {
            Self(Arc::new(MemoryQueue::new(CREDIT, hold)))
        }

        fn queue(&self) -> Arc<dyn RequestQueue> {
            Arc::clone(&self.0) as _
        }

        async fn connect(&self, party: &str) -> MemorySender {
            self.0.connect(name(party))
        }

        async fn connect_deaf(&self, party: &str) -> MemorySender {
            // Who takes no answers does not listen.
            self.0.connect(name(party))
        }

        fn shutdown(&self) -> BoxFuture<'static, ()> {
            let queue = Arc::clone(&self.0);
            Box::pin(async move { queue.shutdown() })
        }

        fn undisposed(&self) -> usize {
            self.0.undisposed()
        }
    }

    impl Peer for MemorySender {
        async fn send(&self, body: &str) -> JoinHandle<Option<Outcome>> {
            let outcome = MemorySender::send(self, request(body));
            tokio::spawn(async move { outcome.await.ok() })
        }

        async fn next_answer(&mut self) -> Answer {
            MemorySender::next_answer(self).await
        }
    }

    request_queue_suite!(MemoryRig);
}

mod embedded {
    use super::*;

    pub(crate) struct EmbeddedRig(Arc<Endpoint>);

    pub(crate) struct EmbeddedPeer {
        client: Client,
        answers: Answers,
    }

    impl EmbeddedRig {
        async fn attach(&self, party: &str, listen: Listen) -> EmbeddedPeer {
            let options = peers::options(&self.0, party, listen);
            let (client, answers) = Client::connect(options).await.unwrap();
            EmbeddedPeer { client, answers }
        }
    }

    impl Rig for EmbeddedRig {
        type Peer = EmbeddedPeer;

        async fn start(hold: Duration) -> Self {
            let credit = u32::try_from(CREDIT).unwrap();
            Self(peers::endpoint(Limits { link_credit: credit, reply_hold: hold, ..Limits::default() }))
        }

        fn queue(&self) -> Arc<dyn RequestQueue> {
            Arc::clone(&self.0) as _
        }

        async fn connect(&self, party: &str) -> EmbeddedPeer {
            self.attach(party, Listen::Inbox(inbox(party))).await
        }

        async fn connect_deaf(&self, party: &str) -> EmbeddedPeer {
            self.attach(party, Listen::Not).await
        }

        fn shutdown(&self) -> BoxFuture<'static, ()> {
            let endpoint = Arc::clone(&self.0);
            Box::pin(async move { endpoint.shutdown(suite::LONG).await })
        }

        fn undisposed(&self) -> usize {
            self.0.figures().undisposed
        }
    }

    impl Peer for EmbeddedPeer {
        async fn send(&self, body: &str) -> JoinHandle<Option<Outcome>> {
            let outcome = self.client.submit(request(body)).await.unwrap();
            tokio::spawn(async move { outcome.await.ok() })
        }

        async fn next_answer(&mut self) -> Answer {
            self.answers.next().await.unwrap()
        }
    }

    request_queue_suite!(EmbeddedRig);
}
