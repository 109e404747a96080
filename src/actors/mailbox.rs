//! Bounded addresses. An actix mailbox is only a hint: `do_send` ignores its capacity and asynchronous handlers empty it at
//! once. So work travels with a *slot*, a permit that is given back when the work is done, and slots are what is bounded.
//!
//! This module alone sends to actors; `clippy.toml` forbids it elsewhere.
#![expect(clippy::disallowed_methods, reason = "the one place that may send to actors")]

use std::sync::Arc;

use actix::dev::{Envelope, ToEnvelope};
use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place in a stage. Whoever holds it counts against the stage's limit; dropping it makes room.
pub type Slot = OwnedSemaphorePermit;

/// The stage has no free slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stage is full")]
pub struct Full;

/// The actor is gone: the worker is stopping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stage has stopped")]
pub struct Stopped;

/// An actor's address with a limit on the work in flight.
#[derive(Debug)]
pub struct Mailbox<A: Actor> {
    addr: Addr<A>,
    slots: Arc<Semaphore>,
    limit: usize,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self { addr: self.addr.clone(), slots: Arc::clone(&self.slots), limit: self.limit }
    }
}

/// Asks an actor for a sign of life.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Ping;

impl<A: Actor<Context = Context<A>> + Handler<Ping>> Mailbox<A> {
    /// Whether the actor answers; waits for what it is doing now, but for no slot.
    pub async fn ping(&self) -> bool {
        self.addr.send(Ping).await.is_ok()
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    /// A mailbox that admits `limit` requests at a time.
    pub fn new(addr: Addr<A>, limit: usize) -> Self {
        Self { addr, slots: Arc::new(Semaphore::new(limit)), limit }
    }

    /// How many requests are admitted at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many requests hold a slot now.
    pub fn depth(&self) -> usize {
        self.limit - self.slots.available_permits()
    }

    /// Waits for a free slot.
    ///
    /// # Errors
    /// [`Stopped`] once the mailbox is closed.
    pub async fn slot(&self) -> Result<Slot, Stopped> {
        Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Stopped)
    }

    /// Takes a free slot, if there is one.
    ///
    /// # Errors
    /// [`Full`] if all are taken.
    pub fn try_slot(&self) -> Result<Slot, Full> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Full)
    }

    /// Waits until every slot is free again: all admitted work is done.
    pub async fn idle(&self) {
        // A limit beyond u32 is impossible: the configuration bounds it.
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        drop(self.slots.acquire_many(all).await);
    }

    /// Sends a message that holds `slot`, and waits for the answer.
    ///
    /// # Errors
    /// [`Stopped`] if the actor is gone.
    pub async fn ask<M>(&self, slot: Slot, message: impl FnOnce(Slot) -> M) -> Result<M::Result, Stopped>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.addr.send(message(slot)).await.map_err(|_| Stopped)
    }
}

/// The way back into an actor for the results of its own effects. Not bounded by itself: each result belongs to work that holds
/// a slot, and there is at most one under way for each.
#[derive(Debug)]
pub struct Completions<A: Actor>(Addr<A>);

impl<A: Actor> Clone for Completions<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> Completions<A> {
    /// The way back to the actor at `addr`.
    pub fn of(addr: Addr<A>) -> Self {
        Self(addr)
    }

    /// Hands a result to the actor. A stopped actor ignores it.
    pub fn report<M>(&self, result: M)
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        Envelope<A>: Send,
    {
        self.0.do_send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(usize);

    impl Actor for Counter {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "usize")]
    struct Add(Slot);

    impl Handler<Add> for Counter {
        type Result = usize;

        fn handle(&mut self, Add(_slot): Add, _: &mut Self::Context) -> usize {
            self.0 += 1;
            self.0
        }
    }

    #[actix::test]
    async fn slots_bound_what_is_in_flight_and_return_when_work_is_done() {
        let mailbox = Mailbox::new(Counter(0).start(), 2);
        let (first, second) = (mailbox.try_slot().expect("free"), mailbox.try_slot().expect("free"));
        assert_eq!(mailbox.try_slot().err(), Some(Full));
        assert_eq!(mailbox.depth(), 2);
        assert_eq!(mailbox.ask(first, Add).await, Ok(1));
        assert_eq!(mailbox.depth(), 1);
        drop(second);
        mailbox.idle().await;
        assert_eq!(mailbox.depth(), 0);
    }
}
