//! The uniqueness actor: has requests committed in batches by the uniqueness provider.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::mailbox::{Completions, Ping, Slot};
use super::pause_with_jitter;
use crate::domain::{CheckedRequest, Verdict};
use crate::observe;
use crate::observe::metrics::InUniqueness;
use crate::ports::{Clock, UniquenessProvider};
use crate::stages::uniqueness::{Effect, Event, Limits, Uniqueness};
use crate::stages::{GaveUp, Ticket};

/// Asks for one request's verdict. `slot` is its place in the stage, held until the verdict is given.
#[derive(Message, Debug)]
#[rtype(result = "Result<Verdict, GaveUp>")]
pub struct Commit {
    /// The request.
    pub request: CheckedRequest,
    /// Its place.
    pub slot: Slot,
}

impl Message for Event {
    type Result = ();
}

type Waiting = (oneshot::Sender<Result<Verdict, GaveUp>>, Slot, InUniqueness);

/// The actor.
pub struct UniquenessActor {
    machine: Uniqueness,
    provider: Arc<dyn UniquenessProvider>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    waiting: HashMap<Ticket, Waiting>,
    next_ticket: u64,
}

impl UniquenessActor {
    /// An actor that commits to `provider`; I/O runs on `runtime`.
    pub fn new(limits: Limits, provider: Arc<dyn UniquenessProvider>, clock: Arc<dyn Clock>, runtime: Handle) -> Self {
        Self { machine: Uniqueness::new(limits), provider, clock, runtime, waiting: HashMap::new(), next_ticket: 0 }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        for effect in self.machine.handle(event) {
            match effect {
                Effect::Commit(id, batch) => {
                    let (provider, clock) = (Arc::clone(&self.provider), Arc::clone(&self.clock));
                    let done = Completions::of(ctx.address());
                    self.runtime.spawn(async move {
                        let timer = observe::metrics::batch_commit(&batch);
                        let result = provider.commit(&batch, clock.now()).await;
                        timer.finish(&result);
                        done.report(Event::Committed(id, result));
                    });
                }
                Effect::Pause(id, pause_ms) => {
                    let done = Completions::of(ctx.address());
                    self.runtime.spawn(async move {
                        pause_with_jitter(pause_ms).await;
                        done.report(Event::PauseOver(id));
                    });
                }
                Effect::Answer(ticket, verdict) => {
                    if let Some((answer, slot, _counted)) = self.waiting.remove(&ticket) {
                        // An asker that is gone has no use for the verdict; the store remembers it.
                        let _ = answer.send(verdict);
                        drop(slot);
                    }
                }
            }
        }
    }
}

impl Actor for UniquenessActor {
    type Context = Context<Self>;
}

impl Handler<Commit> for UniquenessActor {
    type Result = ResponseFuture<Result<Verdict, GaveUp>>;

    fn handle(&mut self, Commit { request, slot }: Commit, ctx: &mut Self::Context) -> Self::Result {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let (answer, answered) = oneshot::channel();
        self.waiting.insert(ticket, (answer, slot, observe::metrics::enters_uniqueness(&request)));
        self.step(Event::Requested(ticket, request), ctx);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(GaveUp { stage: "uniqueness", reason: "stopped".into() }))
        })
    }
}

impl Handler<Ping> for UniquenessActor {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Handler<Event> for UniquenessActor {
    type Result = ();

    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        self.step(event, ctx);
    }
}
