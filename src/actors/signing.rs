//! The signing actor: has committed transactions signed, and checks every signature before it leaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::mailbox::{Completions, Ping, Slot};
use super::pause_with_jitter;
use crate::domain::CommittedTx;
use crate::domain::merkle_batch::{Signable, TransactionSignature};
use crate::domain::signed_form::{SignatureMetadata, SignedForm};
use crate::observe;
use crate::ports::Signer;
use crate::ports::signer::SignError;
use crate::stages::signing::{Effect, Event, Limits, Signing};
use crate::stages::{GaveUp, Ticket};

/// Asks for a committed transaction's signature. `slot` is its place in the stage.
#[derive(Message, Debug)]
#[rtype(result = "Result<TransactionSignature, GaveUp>")]
pub struct Sign {
    /// The transaction.
    pub tx: CommittedTx,
    /// Its place.
    pub slot: Slot,
}

impl Message for Event {
    type Result = ();
}

type Waiting = (oneshot::Sender<Result<TransactionSignature, GaveUp>>, Slot);

/// The actor.
pub struct SigningActor {
    machine: Signing,
    key: SigningKey,
    runtime: Handle,
    waiting: HashMap<Ticket, Waiting>,
    next_ticket: u64,
}

impl SigningActor {
    /// An actor that signs with `key`; the work runs on `runtime`.
    pub fn new(limits: Limits, key: SigningKey, runtime: Handle) -> Self {
        Self { machine: Signing::new(limits), key, runtime, waiting: HashMap::new(), next_ticket: 0 }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        for effect in self.machine.handle(event) {
            match effect {
                Effect::Sign(id, transactions) => {
                    let key = self.key.clone();
                    let done = Completions::of(ctx.address());
                    self.runtime.spawn(async move {
                        let timer = observe::metrics::signature(transactions.len());
                        let (result, took) = key.sign_timed(transactions).await;
                        timer.finish(&result);
                        done.report(Event::Signed(id, result, took));
                    });
                }
                Effect::Pause(id, pause_ms) => {
                    let done = Completions::of(ctx.address());
                    self.runtime.spawn(async move {
                        pause_with_jitter(pause_ms).await;
                        done.report(Event::PauseOver(id));
                    });
                }
                Effect::Answer(ticket, signature) => {
                    if let Some((answer, slot)) = self.waiting.remove(&ticket) {
                        // An asker that is gone asks again; the commit stands.
                        let _ = answer.send(signature);
                        drop(slot);
                    }
                }
            }
        }
    }
}

impl Actor for SigningActor {
    type Context = Context<Self>;
}

impl Handler<Sign> for SigningActor {
    type Result = ResponseFuture<Result<TransactionSignature, GaveUp>>;

    fn handle(&mut self, Sign { tx, slot }: Sign, ctx: &mut Self::Context) -> Self::Result {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let (answer, answered) = oneshot::channel();
        self.waiting.insert(ticket, (answer, slot));
        self.step(Event::Requested(ticket, tx), ctx);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(GaveUp { stage: "signing", reason: "stopped".into() }))
        })
    }
}

impl Handler<Ping> for SigningActor {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Handler<Event> for SigningActor {
    type Result = ();

    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        self.step(event, ctx);
    }
}

/// The service key with what a signature must say of itself.
#[derive(Clone)]
pub struct SigningKey {
    /// Holds the key.
    pub signer: Arc<dyn Signer>,
    /// Serializes what is signed.
    pub form: Arc<dyn SignedForm>,
    /// The worker's platform version; part of the signed bytes.
    pub platform_version: i32,
}

impl SigningKey {
    /// Signs: one transaction by its plain id, several under one root. Returns a verified signature for each, in order.
    ///
    /// # Errors
    /// [`SignError`]; also for a signature that does not verify, which must never leave the worker.
    pub async fn sign(&self, transactions: Vec<CommittedTx>) -> Result<Vec<TransactionSignature>, SignError> {
        self.sign_timed(transactions).await.0
    }

    /// As [`Self::sign`], with the time that the key alone took: what batches are sized by.
    async fn sign_timed(
        &self,
        transactions: Vec<CommittedTx>,
    ) -> (Result<Vec<TransactionSignature>, SignError>, Duration) {
        let mut took = Duration::ZERO;
        let signed = self.sign_and_verify(transactions, &mut took).await;
        (signed, took)
    }

    async fn sign_and_verify(
        &self,
        transactions: Vec<CommittedTx>,
        took: &mut Duration,
    ) -> Result<Vec<TransactionSignature>, SignError> {
        let by = self.signer.public_key();
        let metadata =
            SignatureMetadata { platform_version: self.platform_version, scheme_number_id: by.scheme() as i32 };
        let signable = match transactions.as_slice() {
            [one] => Signable::single(*one, metadata, &*self.form),
            _ => Signable::batch(transactions, metadata, &*self.form)
                .map_err(|error| SignError::Unavailable(format!("cannot be signed together: {error}")))?,
        };
        let since = Instant::now();
        let bytes = self.signer.sign(&signable).await?;
        *took = since.elapsed();
        by.verify(signable.bytes(), &bytes)
            .map_err(|error| SignError::Unavailable(format!("the key made a bad signature: {error}")))?;
        signable.signatures(by, &bytes).map_err(|error| SignError::Unavailable(error.to_string()))
    }
}
